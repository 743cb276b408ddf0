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

    def gradients() -> Tensor:
        for parameter in parameters.values():
            parameter.grad = None
        value = loss()
        value.backward()
        return value.detach()

    def call():
        gradients()
        if optimizer is not None:
            optimizer.step()
        return torch.cuda.current_stream().record_event() if on_gpu else None

    def numbers() -> Numbers:
        allow_tf32(False)
        value = float(gradients())
        allow_tf32(True)
        return Numbers(value, {name: p.grad.cpu().numpy() for name, p in parameters.items()})

    return Peer(
        call, lambda event: event and event.synchronize(), numbers=numbers if compared else None
    )


# --- Recurrent layers ---


class Layer(nn.Module):
    """The parameters of a recurrent layer of H units, by their names without layer_N_."""

    def __init__(self, arrays: Arrays, n: int, H: int):
        super().__init__()
        prefix = f"layer_{n}_"
        for name, array in arrays.items():
            if name.startswith(prefix):
                parameter = nn.Parameter(torch.tensor(array))
                self.register_parameter(name.removeprefix(prefix), parameter)
        self.H: int = H
        self.epsilon: float = EPSILON


# Both are written for torch.jit.script: without other methods, and a loop over a range.
class LSTM(Layer):
    """An LSTM with layer norm; W_x x of all steps is one product."""

    def forward(self, xs: Tensor, mask: Tensor) -> Tensor:
        """Return the states of all steps."""
        n, H, epsilon = [4 * self.H], [self.H], self.epsilon
        a_x = xs @ self.W_x_kernel
        a_x = layer_norm(a_x, n, self.norm_x_gain, self.norm_x_bias + self.b, epsilon)
        a_xs, masks = a_x.unbind(0), mask.unbind(0)
        c = h = torch.zeros(xs.size(1), self.H, device=xs.device)
        hs: list[Tensor] = []
        for t in range(xs.size(0)):
            a_h = layer_norm(h @ self.W_h_kernel, n, self.norm_h_gain, self.norm_h_bias, epsilon)
            f, i, o, g = (a_xs[t] + a_h).chunk(4, 1)
            new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            c_hat = layer_norm(new_c, H, self.norm_c_gain, self.norm_c_bias, epsilon)
            h = torch.where(masks[t], torch.sigmoid(o) * torch.tanh(c_hat), h)
            c = torch.where(masks[t], new_c, c)
            hs.append(h)
        return torch.stack(hs)


class GRU(Layer):
    """A GRU with layer norm; the products of x of all steps are one, and so are those of h."""

    def forward(self, xs: Tensor, mask: Tensor) -> Tensor:
        """Return the states of all steps."""
        n, H, epsilon = [2 * self.H], [self.H], self.epsilon
        W_x = torch.cat([self.W_x_kernel, self.W_kernel], 1)
        W_h = torch.cat([self.W_h_kernel, self.U_kernel], 1)
        zr_x, h_x = (xs @ W_x).split([2 * self.H, self.H], 2)
        b_zr, b = self.b.split([2 * self.H, self.H])
        zr_x = layer_norm(zr_x, n, self.norm_zr_x_gain, self.norm_zr_x_bias + b_zr, epsilon)
        h_x = layer_norm(h_x, H, self.norm_x_gain, self.norm_x_bias + b, epsilon)
        zr_xs, h_xs, masks = zr_x.unbind(0), h_x.unbind(0), mask.unbind(0)
        h = torch.zeros(xs.size(1), self.H, device=xs.device)
        hs: list[Tensor] = []
        for t in range(xs.size(0)):
            zr_h, h_h = (h @ W_h).split([2 * self.H, self.H], 1)
            zr_h = layer_norm(zr_h, n, self.norm_zr_h_gain, self.norm_zr_h_bias, epsilon)
            h_h = layer_norm(h_h, H, self.norm_h_gain, self.norm_h_bias, epsilon)
            z, r = torch.sigmoid(zr_xs[t] + zr_h).chunk(2, 1)
            h_hat = torch.tanh(h_xs[t] + r * h_h)
            h = torch.where(masks[t], (1 - z) * h + z * h_hat, h)
            hs.append(h)
        return torch.stack(hs)


def script(layer: nn.Module) -> nn.Module:
    """Return a layer compiled by torch.jit.script, which PyTorch 2.10 and later call deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
        return torch.jit.script(layer)


def recurrent(case, arrays: Arrays, batch: Arrays, kind: str) -> Peer:
    """Return a peer of the benchmark rnn.

    Args:
        case: of the benchmark.
        arrays: the parameters.
        batch: x, mask and R.
        kind: "eager", "script", or "own" for PyTorch's layers, which have no norm and no mask.
    """
    device, is_own = choose_device(), kind == "own"
    if is_own:
        layers = [{"lstm": nn.LSTM, "gru": nn.GRU}[case.cell](case.D, case.H, case.layers)]
    else:
        cell = {"lstm": LSTM, "gru": GRU}[case.cell]
        layers = [cell(arrays, n, case.H) for n in range(case.layers)]
    network = nn.ModuleList(map(script, layers) if kind == "script" else layers).to(device)
    x, mask, R = (torch.from_numpy(batch[name]).to(device) for name in ("x", "mask", "R"))
    x.requires_grad_(case.d_x)

    def loss() -> Tensor:
        hs = x
        for layer in network:
            hs = layer(hs)[0] if is_own else layer(hs, mask[:, :, None])
        return (hs * R).sum()

    parameters = {f"layer_{name.replace('.', '_')}": p for name, p in network.named_parameters()}
    inputs = {"x": x} if case.d_x else {}
    return make_peer(loss, parameters | inputs, compared=not is_own)


# --- The network of figure 6 ---


def mnist(config, arrays: Arrays, batches: Iterator[Arrays]) -> Peer:
    """Return the usual training loop with PyTorch, eager but for its fused Adam.

    Args:
        config: of the experiment mnist.
        arrays: the parameters.
        batches: of the steps.
    """
    device = choose_device()
    W = {name: nn.Parameter(torch.tensor(array, device=device)) for name, array in arrays.items()}
    b1, b2, eps = (config.optimizer[key] for key in ("b1", "b2", "eps"))
    optimizer = torch.optim.Adam(W.values(), config.lr[0], (b1, b2), eps, fused=True)

    def loss() -> Tensor:
        batch = next(batches)
        x = torch.from_numpy(batch["x"]).to(device).float() / 255
        for n in range(2):
            a, norm = x @ W[f"Dense_{n}_kernel"], f"LayerNorm_{n}"
            x = layer_norm(a, [a.size(-1)], W[f"{norm}_gain"], W[f"{norm}_bias"], EPSILON).relu()
        logits = x @ W["Dense_2_kernel"] + W["Identity_0_bias"]
        y = torch.from_numpy(batch["y"]).to(device).long()
        (logits.detach().argmax(-1) != y).float().mean()  # the error, which the others log too
        return cross_entropy(logits, y)

    return make_peer(loss, W, optimizer)
