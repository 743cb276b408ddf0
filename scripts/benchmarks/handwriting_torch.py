"""Peers of the benchmark handwriting that need PyTorch: the model of experiments/handwriting,
written as one writes it there, and the same of torch.nn.LSTM."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, logsigmoid, one_hot

from experiments.datasets.lines import CLASSES
from experiments.handwriting.model import LARGEST
from ln.norm import EPSILON
from scripts.benchmarks.common_torch import Training, Weights, prepare
from scripts.benchmarks.handwriting import Case, make_config, make_data

Carry = tuple[Tensor, Tensor]  # h, c


class LSTMCell(Weights):
    """With layer norm at x, h and c; called as torch.nn.LSTMCell."""

    def project(self, x: Tensor) -> Tensor:
        n = self.gain_x.shape
        return layer_norm(x @ self.W_x, n, self.gain_x, self.bias_x + self.b, EPSILON)

    def step(self, a_x: Tensor, carry: Carry) -> Carry:
        h, c = carry
        n, H = self.gain_h.shape, self.gain_c.shape
        a = a_x + layer_norm(h @ self.W_h, n, self.gain_h, self.bias_h, EPSILON)
        f, i, o = a[:, : 3 * H[0]].sigmoid().chunk(3, 1)
        c = f * c + i * a[:, 3 * H[0] :].tanh()
        return o * layer_norm(c, H, self.gain_c, self.bias_c, EPSILON).tanh(), c

    def forward(self, x: Tensor, carry: Carry) -> Carry:
        return self.step(self.project(x), carry)


class LSTM(LSTMCell):
    """Over all time steps, from a carry of 0; called as torch.nn.LSTM."""

    def forward(self, xs: Tensor) -> tuple[Tensor, Carry]:
        zeros = xs.new_zeros(xs.shape[1], len(self.W_h))
        carry, hs = (zeros, zeros), []
        for a_x in self.project(xs):
            carry = self.step(a_x, carry)
            hs.append(carry[0])
        return torch.stack(hs), carry


class Linear(Weights):
    def forward(self, h: Tensor) -> Tensor:
        return h @ self.W + self.b


class Network(nn.Module):
    """Graves' network: points ``[B, T + 1, 3]``, text ``[B, U]`` -> NLL ``[B]``.

    Args:
        cells: the first, x ``[B, D]`` -> h, c; the others, xs ``[T, B, D]`` -> hs and last carry.
        modules: "W_window" and "W_y" -> see `Data`.
    """

    def __init__(self, cells: list[nn.Module], modules, config):
        super().__init__()
        for n, cell in enumerate(cells):
            self.add_module(f"cells_{n}", cell)
        self.W_window, self.W_y = Linear(modules["W_window"]), Linear(modules["W_y"])
        self.hidden, self.K, self.pace = config.hidden, config.components, config.pace

    def window(self, kappa: Tensor, h: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """The next κ ``[B, K]``, and w ``[B, C]``, what it shows of text ``[B, U, C]``."""
        alpha, beta, step = self.W_window(h).chunk(3, 1)
        kappa = kappa + (step + self.pace).clamp(-LARGEST, LARGEST).exp()
        u = torch.arange(1, text.shape[1] + 1, device=h.device)
        alpha, beta = (a.clamp(-LARGEST, LARGEST).exp() for a in (alpha, beta))
        gaussians = (-beta[:, :, None] * (kappa[:, :, None] - u) ** 2).exp()
        return kappa, (alpha[:, None] @ gaussians @ text)[:, 0]

    def first(self, x: Tensor, carry: Carry, kappa: Tensor, w: Tensor, text: Tensor):
        """One step of the first LSTM and the window."""
        carry = self.cells_0(torch.cat([x, w], 1), carry)
        return carry, *self.window(kappa, carry[0], text)

    def outputs(self, xs: Tensor, text: Tensor) -> Tensor:
        """y ``[T, B, 1 + 6 M]``."""
        zeros, B = xs.new_zeros, xs.shape[1]
        carry = zeros(B, self.hidden), zeros(B, self.hidden)
        kappa, w = zeros(B, self.K), zeros(B, CLASSES)
        hs, ws = [], []
        for x in xs:
            carry, kappa, w = self.first(x, carry, kappa, w, text)
            hs.append(carry[0])
            ws.append(w)
        xs, h_1 = torch.cat([xs, torch.stack(ws)], 2), torch.stack(hs)
        h_2, _ = self.cells_1(torch.cat([xs, h_1], 2))
        h_3, _ = self.cells_2(torch.cat([xs, h_2], 2))
        return self.W_y(torch.cat([h_1, h_2, h_3], 2))

    def forward(self, points: Tensor, text: Tensor) -> Tensor:
        points = points.transpose(0, 1)
        y = self.outputs(points[:-1], one_hot(text, CLASSES).to(points.dtype))
        return negative_log_likelihood(y, points[1:]).sum(0)


def negative_log_likelihood(y: Tensor, points: Tensor) -> Tensor:
    """Of points ``[T, B, 3]`` in nats ``[T, B]``."""
    e, end = y[..., 0], points[..., 2]
    pi, mu_1, mu_2, log_sigma_1, log_sigma_2, rho = y[..., 1:].chunk(6, -1)
    log_sigma_1, log_sigma_2 = (a.clamp(-LARGEST, LARGEST) for a in (log_sigma_1, log_sigma_2))
    a = (points[..., :1] - mu_1) * (-log_sigma_1).exp()
    b = (points[..., 1:2] - mu_2) * (-log_sigma_2).exp()
    rho = 0.9995 * rho.tanh()
    rest = 1 - rho**2
    log_density = -(a**2 + b**2 - 2 * rho * a * b) / (2 * rest)
    log_density = log_density - (log_sigma_1 + log_sigma_2 + rest.log() / 2 + math.log(2 * math.pi))
    of_end = end * logsigmoid(e) + (1 - end) * logsigmoid(-e)
    return -(pi.log_softmax(-1) + log_density).logsumexp(-1) - of_end


def by_module(weights) -> dict[str, dict[str, np.ndarray]]:
    """The weights of `Data`, {"cells_0": {"W_x": ...}}."""
    modules: dict[str, dict] = {}
    for path, values in weights.items():
        module, name = path.split(".")
        modules.setdefault(module, {})[name] = values
    return modules


class Step(Training):
    """A training step with clipping and the fused Adam.

    Args:
        device: "cpu" or "gpu".
        compiled: whether torch.compile compiles a time step. The loops it would roll out.
    """

    def __init__(self, case: Case, device: str = "cpu", compiled: bool = False):
        config, data, where = make_config(case), make_data(case), prepare(device)
        modules = by_module(data.weights)
        network = Network(self.cells(modules, config), modules, config).to(where)
        if compiled:
            network.first = torch.compile(network.first)
            for cell in (network.cells_1, network.cells_2):
                cell.step = torch.compile(cell.step)
        points, text = torch.from_numpy(data.points), torch.from_numpy(data.text).long()
        super().__init__(network, config, list(zip(points.to(where), text.to(where), strict=True)))

    def cells(self, modules, config) -> list[nn.Module]:
        return [kind(modules[f"cells_{n}"]) for n, kind in enumerate((LSTMCell, LSTM, LSTM))]


class TorchsLSTM(Step):
    """The same without norm: torch.nn.LSTM, and in the first layer torch.nn.LSTMCell. The input of
    that depends on the window, which depends on its last output: no torch.nn.LSTM can do it.

    Of PyTorch's two biases the second stays 0, or their sum would go twice as far in a step.
    """

    OURS = ("W_x", "W_h", "b")  # in the order of a cell's parameters, transposed and `swapped`

    def cells(self, modules, config):
        C, H = 3 + CLASSES, config.hidden
        cells = nn.LSTMCell(C, H), nn.LSTM(C + H, H), nn.LSTM(C + H, H)
        for n, cell in enumerate(cells):
            weights = modules[f"cells_{n}"]
            *parameters, b_h = cell.parameters()
            with torch.no_grad():
                for parameter, name in zip(parameters, self.OURS, strict=True):
                    parameter.copy_(torch.from_numpy(swapped(weights[name]).T))
                b_h.zero_()
            b_h.requires_grad_(False)
        return list(cells)

    def named_gradients(self):
        found = {}
        for module, child in self.network.named_children():
            if module.startswith("cells"):
                *parameters, _ = child.parameters()
                for parameter, name in zip(parameters, self.OURS, strict=True):
                    found[f"{module}.{name}"] = swapped(parameter.grad.cpu().numpy().T)
            else:
                for name, parameter in child.named_parameters():
                    found[f"{module}.{name}"] = parameter.grad.cpu().numpy()
        return found


def swapped(gates: np.ndarray) -> np.ndarray:
    """Our gates ``[..., 4H]``, f, i, o, g, in PyTorch's order, i, f, g, o; or the way back."""
    f, i, o, g = np.split(gates, 4, -1)
    return np.concatenate([i, f, g, o], -1)
