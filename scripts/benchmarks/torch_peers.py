"""Peers in PyTorch. The parameters have the names of ours, such as layer_0_W_x_kernel."""

from collections.abc import Callable, Iterator, Mapping
import os

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


class LSTM(nn.Module):
    """An LSTM with layer norm; W_x x of all steps is one product."""

    def __init__(self, arrays: Arrays, n: int):
        super().__init__()
        prefix = f"layer_{n}_"
        for name, array in arrays.items():
            if name.startswith(prefix):
                parameter = nn.Parameter(torch.tensor(array))
                self.register_parameter(name.removeprefix(prefix), parameter)

    def norm(self, name: str, a: Tensor, more_bias: Tensor | float = 0.0) -> Tensor:
        """Return a normalized term."""
        gain, bias = getattr(self, f"norm_{name}_gain"), getattr(self, f"norm_{name}_bias")
        return layer_norm(a, [a.size(-1)], gain, bias + more_bias, EPSILON)

    def forward(self, xs: Tensor, mask: Tensor) -> Tensor:
        """Return the states of all steps."""
        a_x = self.norm("x", xs @ self.W_x_kernel, self.b)
        c = h = torch.zeros(xs.size(1), self.W_h_kernel.size(0), device=xs.device)
        hs = []
        for a_x_t, mask_t in zip(a_x.unbind(0), mask.unbind(0), strict=True):
            f, i, o, g = (a_x_t + self.norm("h", h @ self.W_h_kernel)).chunk(4, 1)
            new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            new_h = torch.sigmoid(o) * torch.tanh(self.norm("c", new_c))
            h, c = torch.where(mask_t, new_h, h), torch.where(mask_t, new_c, c)
            hs.append(h)
        return torch.stack(hs)


def recurrent(case, arrays: Arrays, batch: Arrays, norm: bool) -> Peer:
    """Return a peer of the benchmark rnn.

    Args:
        case: of the benchmark.
        arrays: the parameters.
        batch: x, mask and R.
        norm: False for PyTorch's own layers, which have no norm and no mask.
    """
    device = choose_device()
    own = {"lstm": nn.LSTM, "gru": nn.GRU}[case.cell]
    layers = [own(case.D, case.H, case.layers)]
    if norm:
        layers = [LSTM(arrays, n) for n in range(case.layers)]
    network = nn.ModuleList(layers).to(device)
    x, mask, R = (torch.from_numpy(batch[name]).to(device) for name in ("x", "mask", "R"))
    x.requires_grad_(case.d_x)

    def loss() -> Tensor:
        hs = x
        for layer in network:
            hs = layer(hs, mask[:, :, None]) if norm else layer(hs)[0]
        return (hs * R).sum()

    parameters = {f"layer_{name.replace('.', '_')}": p for name, p in network.named_parameters()}
    inputs = {"x": x} if case.d_x else {}
    return make_peer(loss, parameters | inputs, compared=norm)


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
