"""Peers of the benchmark rnn that need PyTorch."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ln.norm import EPSILON
from scripts.benchmarks.common import Peer
from scripts.benchmarks.common_torch import Weights, device_memory, prepare, set_precise, wait
from scripts.benchmarks.rnn import LEARNING_RATE, Case, make_data


class Layer(Weights):
    """A recurrent layer with the weights of `Data`; W_x x of all steps is one product."""

    def __init__(self, weights, epsilon: float):
        super().__init__(weights)
        self.H: int = len(weights["W_h"])
        self.epsilon: float = epsilon


class LSTM(Layer):
    def forward(self, xs: Tensor, mask: Tensor) -> Tensor:
        T, B, n = xs.size(0), xs.size(1), 4 * self.H
        a_x = torch.mm(xs.reshape(T * B, -1), self.W_x)
        a_x = layer_norm(a_x, [n], self.gain_x, self.bias_x + self.b, self.epsilon)
        steps, masks = a_x.view(T, B, n).unbind(0), mask.unbind(0)
        c = torch.zeros(B, self.H, device=xs.device)
        h = c
        hs: list[Tensor] = []
        for t in range(T):
            a_h = torch.mm(h, self.W_h)
            a = steps[t] + layer_norm(a_h, [n], self.gain_h, self.bias_h, self.epsilon)
            f, i, o, g = a.chunk(4, 1)
            new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            of_c = layer_norm(new_c, [self.H], self.gain_c, self.bias_c, self.epsilon)
            h = torch.where(masks[t], torch.sigmoid(o) * torch.tanh(of_c), h)
            c = torch.where(masks[t], new_c, c)
            hs.append(h)
        return torch.stack(hs)


class GRU(Layer):
    def forward(self, xs: Tensor, mask: Tensor) -> Tensor:
        T, B, H, n = xs.size(0), xs.size(1), self.H, 2 * self.H
        a_x = torch.mm(xs.reshape(T * B, -1), self.W_x)
        bias_x = self.bias_x + self.b
        zr_x = layer_norm(a_x[:, :n], [n], self.gain_x[:n], bias_x[:n], self.epsilon)
        h_x = layer_norm(a_x[:, n:], [H], self.gain_x[n:], bias_x[n:], self.epsilon)
        zr_steps, h_steps = zr_x.view(T, B, n).unbind(0), h_x.view(T, B, H).unbind(0)
        masks = mask.unbind(0)
        h = torch.zeros(B, H, device=xs.device)
        hs: list[Tensor] = []
        for t in range(T):
            a_h = torch.mm(h, self.W_h)
            zr_h = layer_norm(a_h[:, :n], [n], self.gain_h[:n], self.bias_h[:n], self.epsilon)
            h_h = layer_norm(a_h[:, n:], [H], self.gain_h[n:], self.bias_h[n:], self.epsilon)
            z, r = torch.sigmoid(zr_steps[t] + zr_h).chunk(2, 1)
            h_hat = torch.tanh(h_steps[t] + r * h_h)
            h = torch.where(masks[t], (1 - z) * h + z * h_hat, h)
            hs.append(h)
        return torch.stack(hs)


LAYERS = {"lstm": LSTM, "gru": GRU}


class Layers(nn.Module):
    """Layers on top of each other."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, xs, mask):
        for layer in self.layers:
            xs = layer(xs, mask)
        return xs


class NoMask(nn.Module):
    """PyTorch's own layers behind the interface of ours, without mask and norm."""

    def __init__(self, case: Case):
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[case.cell]
        self.layers = kind(case.D, case.H, case.layers)

    def forward(self, xs, mask):
        return self.layers(xs)[0]


class Eager(Peer):
    """The loss and its gradients by the parameters and, if wanted, the inputs.

    Args:
        device: "cpu" or "gpu".
        epsilon: of layer norm.
    """

    def __init__(self, case: Case, device: str = "cpu", epsilon: float = EPSILON):
        self.device, self.data = prepare(device), make_data(case)
        self.epsilon = epsilon
        self.network = self.make(case).to(self.device)
        self.x = torch.from_numpy(self.data.x).to(self.device).requires_grad_(case.d_x)
        self.mask = torch.from_numpy(self.data.mask[:, :, None]).to(self.device)
        self.R = torch.from_numpy(self.data.R).to(self.device)

    def make(self, case: Case) -> nn.Module:
        kind = LAYERS[case.cell]
        return Layers([kind(weights, self.epsilon) for weights in self.data.layers])

    def step(self) -> Tensor:
        self.network.zero_grad()
        self.x.grad = None
        loss = (self.network(self.x, self.mask) * self.R).sum()
        loss.backward()
        return loss.detach()

    def losses(self, count):
        set_precise(True)
        return [float(self.step())]

    def gradients(self):
        self.step()
        set_precise(False)
        named = {
            f"{n}.{name}": parameter.grad.cpu().numpy()
            for n, layer in enumerate(self.network.layers)
            for name, parameter in layer.named_parameters()
        }
        return named | ({} if self.x.grad is None else {"x": self.x.grad.cpu().numpy()})

    def run(self, steps):
        for _ in range(steps):
            self.step()
        wait(self.device)
        return steps

    def facts(self):
        return device_memory(self.device)


class Script(Eager):
    """The same compiled by torch.jit.script."""

    def make(self, case):
        with warnings.catch_warnings(action="ignore"):  # that it is deprecated
            scripted = [torch.jit.script(layer) for layer in super().make(case).layers]
        return Layers(scripted)


class NoNorm(Eager):
    """torch.nn.LSTM or GRU, on a GPU cuDNN's, to show the cost of the norm. Not compared."""

    def make(self, case):
        return NoMask(case)

    def losses(self, count):
        return []


class Training(Eager):
    """A training step with the fused Adam; the same batch every time."""

    def __init__(self, case: Case, device: str = "cpu"):
        super().__init__(case._replace(d_x=False), device)
        parameters = self.network.parameters()
        self.optimizer = torch.optim.Adam(parameters, LEARNING_RATE, fused=True)

    def step(self):
        loss = super().step()
        self.optimizer.step()
        return loss

    def losses(self, count):
        set_precise(True)
        losses = [float(self.step()) for _ in range(count)]
        set_precise(False)
        return losses

    def gradients(self):
        return {}


class ScriptTraining(Training, Script):
    """The same compiled by torch.jit.script."""
