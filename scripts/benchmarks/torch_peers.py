"""Peers in PyTorch. The parameters have the names of ours, such as layer_0_W_x_kernel."""

from collections.abc import Callable, Iterator, Mapping
import os
import warnings

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm

from ln.norm import EPSILON
from scripts.benchmarks.jax_peers import COMPARED
from scripts.benchmarks.timing import Numbers, Peer

Arrays = Mapping[str, np.ndarray]


def choose_device() -> torch.device:
    """Use all cores, as XLA does, and the kind of device that jax uses."""
    torch.set_num_threads(os.cpu_count() or 1)
    return torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")


def allow_tf32(allowed: bool) -> None:
    """Use XLA's default precision of products on a GPU, or full precision for a comparison."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def make_peer(
    loss: Callable[[], Tensor],
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer | None = None,
    compared: bool = True,
) -> Peer:
    """Return a peer that computes a loss and its gradients, and makes a step of the optimizer."""
    on_gpu = choose_device().type == "cuda"

    def step() -> Tensor:
        for parameter in parameters.values():
            parameter.grad = None
        value = loss()
        value.backward()
        if optimizer is not None:
            optimizer.step()
        return value.detach()

    def call():
        step()
        return torch.cuda.current_stream().record_event() if on_gpu else None

    def numbers() -> Numbers:
        allow_tf32(False)
        if optimizer is None:
            losses = [float(step())]
            gradients = {name: p.grad.cpu().numpy() for name, p in parameters.items()}
        else:
            losses, gradients = [float(step()) for _ in range(COMPARED)], {}
        allow_tf32(True)
        return Numbers(losses, gradients)

    return Peer(
        call=call,
        wait=lambda event: event and event.synchronize(),
        numbers=numbers if compared else None,
    )


# --- Recurrent layers ---


class Layer(nn.Module):
    """A recurrent layer; W_x x of all steps is one product."""

    def __init__(self, arrays: Arrays, H: int):
        super().__init__()
        for name, array in arrays.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(array)))
        self.H: int = H
        self.epsilon: float = EPSILON


class LSTM(Layer):
    def forward(self, xs: Tensor, mask: Tensor) -> Tensor:
        T, B, n, epsilon = xs.size(0), xs.size(1), 4 * self.H, self.epsilon
        a_x = torch.mm(xs.reshape(T * B, -1), self.W_x_kernel)
        a_x = layer_norm(a_x, [n], self.norm_x_gain, self.norm_x_bias + self.b, epsilon)
        steps, masks = a_x.view(T, B, n).unbind(0), mask.unbind(0)
        c = torch.zeros(B, self.H, device=xs.device)
        h = c
        hs: list[Tensor] = []
        for t in range(T):
            a_h = torch.mm(h, self.W_h_kernel)
            a = steps[t] + layer_norm(a_h, [n], self.norm_h_gain, self.norm_h_bias, epsilon)
            f, i, o, g = a.chunk(4, 1)
            new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            c_hat = layer_norm(new_c, [self.H], self.norm_c_gain, self.norm_c_bias, epsilon)
            h = torch.where(masks[t], torch.sigmoid(o) * torch.tanh(c_hat), h)
            c = torch.where(masks[t], new_c, c)
            hs.append(h)
        return torch.stack(hs)


class GRU(Layer):
    def forward(self, xs: Tensor, mask: Tensor) -> Tensor:
        T, B, H, n, epsilon = xs.size(0), xs.size(1), self.H, 2 * self.H, self.epsilon
        W_x = torch.cat([self.W_x_kernel, self.W_kernel], 1)
        W_h = torch.cat([self.W_h_kernel, self.U_kernel], 1)
        a_x = torch.mm(xs.reshape(T * B, -1), W_x)
        b_zr, b = self.norm_zr_x_bias + self.b[:n], self.norm_x_bias + self.b[n:]
        zr_x = layer_norm(a_x[:, :n], [n], self.norm_zr_x_gain, b_zr, epsilon)
        h_x = layer_norm(a_x[:, n:], [H], self.norm_x_gain, b, epsilon)
        zr_steps, h_steps = zr_x.view(T, B, n).unbind(0), h_x.view(T, B, H).unbind(0)
        masks = mask.unbind(0)
        h = torch.zeros(B, H, device=xs.device)
        hs: list[Tensor] = []
        for t in range(T):
            a_h = torch.mm(h, W_h)
            zr_h = layer_norm(a_h[:, :n], [n], self.norm_zr_h_gain, self.norm_zr_h_bias, epsilon)
            h_h = layer_norm(a_h[:, n:], [H], self.norm_h_gain, self.norm_h_bias, epsilon)
            z, r = torch.sigmoid(zr_steps[t] + zr_h).chunk(2, 1)
            h_hat = torch.tanh(h_steps[t] + r * h_h)
            h = torch.where(masks[t], (1 - z) * h + z * h_hat, h)
            hs.append(h)
        return torch.stack(hs)


def make_layers(case, kind: str, arrays: Arrays) -> list[nn.Module]:
    """Return layers of a kind: eager, script (by torch.jit.script), or PyTorch's own."""
    if kind == "own":
        return [{"lstm": nn.LSTM, "gru": nn.GRU}[case.cell](case.D, case.H, case.layers)]
    layers = []
    for n in range(case.layers):
        prefix = f"layer_{n}_"
        own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        layers.append({"lstm": LSTM, "gru": GRU}[case.cell](own, case.H))
    if kind == "eager":
        return layers
    with warnings.catch_warnings(action="ignore"):  # torch.jit.script is deprecated
        return [torch.jit.script(layer) for layer in layers]


def recurrent(case, kind: str, arrays: Arrays, batch: Arrays, lr: float | None) -> Peer:
    """Return a peer of the benchmark rnn.

    Args:
        case: of the benchmark.
        kind: see `make_layers`. PyTorch's own layers have no norm and no mask.
        arrays: the parameters.
        lr: for training steps with the fused Adam; None for the gradients alone.
    """
    device = choose_device()
    layers = [layer.to(device) for layer in make_layers(case, kind, arrays)]
    x, mask, R = (torch.tensor(batch[name]).to(device) for name in ("x", "mask", "R"))
    x.requires_grad_(case.d_x and lr is None)
    parameters = {
        f"layer_{n}_{name}": parameter
        for n, layer in enumerate(layers)
        for name, parameter in layer.named_parameters()
    }
    optimizer = None
    if lr is not None:
        optimizer = torch.optim.Adam(parameters.values(), lr, fused=True)

    def loss() -> Tensor:
        hs = x
        for layer in layers:
            hs = layer(hs)[0] if kind == "own" else layer(hs, mask[:, :, None])
        return (hs * R).sum()

    inputs = {"x": x} if x.requires_grad else {}
    return make_peer(loss, parameters | inputs, optimizer, compared=kind != "own")


# --- The network of figure 6 ---

NAMES = (
    *("Dense_0_kernel", "LayerNorm_0_gain", "LayerNorm_0_bias"),
    *("Dense_1_kernel", "LayerNorm_1_gain", "LayerNorm_1_bias"),
    *("Dense_2_kernel", "Identity_0_bias"),
)


def mnist(config, arrays: Arrays, batches: Iterator[Arrays], fused: bool) -> Peer:
    """Return the usual training loop with PyTorch, eager.

    Args:
        arrays: the parameters.
        batches: of the steps.
        fused: whether Adam is PyTorch's fused one.
    """
    device, (D, H) = choose_device(), arrays["Dense_0_kernel"].shape
    network = nn.Sequential(
        *(nn.Linear(D, H, bias=False), nn.LayerNorm(H, eps=EPSILON), nn.ReLU()),
        *(nn.Linear(H, H, bias=False), nn.LayerNorm(H, eps=EPSILON), nn.ReLU()),
        nn.Linear(H, 10),
    ).to(device)
    parameters = dict(zip(NAMES, network.parameters(), strict=True))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.tensor(arrays[name].T))
    b1, b2, eps = (config.optimizer[key] for key in ("b1", "b2", "eps"))
    optimizer = torch.optim.Adam(parameters.values(), config.lr[0], (b1, b2), eps, fused=fused)

    def loss() -> Tensor:
        batch = next(batches)
        logits = network(torch.from_numpy(batch["x"]).to(device).float() / 255)
        y = torch.from_numpy(batch["y"]).to(device).long()
        (logits.detach().argmax(-1) != y).float().mean()  # the error, which the others log too
        return cross_entropy(logits, y)

    return make_peer(loss, parameters, optimizer)
