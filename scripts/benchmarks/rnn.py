"""rnn: whole sequences through recurrent layers with layer norm, forward and backward.

The loss Σ hs R under a ragged mask is timed with its gradients by all parameters and the inputs;
then a whole training step with Adam. All peers have the numbers of `Data`; they are in rnn_jax.py
and rnn_torch.py.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from ln.errors import choose
from scripts.benchmarks.common import (
    PEAKS,
    SIDE,
    Peer,
    Timing,
    as_dicts,
    choose_device,
    compare,
    flops_columns,
    make,
    possible_flops,
    show,
    table,
    torch_missing,
)


class Case(NamedTuple):
    """A stack of equal recurrent layers, and a batch for it."""

    cell: str  # "lstm" or "gru"
    T: int
    B: int
    H: int
    D: int
    layers: int = 1
    d_x: bool = True  # also the gradient by the inputs

    @property
    def gates(self) -> int:
        return {"lstm": 4, "gru": 3}[self.cell]


CASES = {
    "draw": Case("lstm", T=64, B=128, H=256, D=256),
    "handwriting": Case("lstm", T=400, B=8, H=400, D=460, layers=3),
    "reader": Case("lstm", T=300, B=64, H=240, D=240),
    "order": Case("gru", T=30, B=128, H=1024, D=300),
    "pixels": Case("lstm", T=784, B=64, H=100, D=1, d_x=False),  # MNIST, pixel by pixel
    "tiny": Case("lstm", T=5, B=3, H=8, D=4, layers=2),
    "tiny-gru": Case("gru", T=5, B=3, H=8, D=4),
}
USUAL = ("draw", "handwriting", "reader", "order", "pixels")

LEARNING_RATE = 1e-4  # small: Adam goes as far along rounding noise as along a gradient


class Data(NamedTuple):
    """The numbers of a case.

    Attributes:
        layers: for each layer W_x ``[D, n H]``, W_h ``[H, n H]``, b, and gain and bias of the norms
            at x and h ``[n H]``, for the LSTM also at c ``[H]``. Gates lie as in ln.rnn: f, i, o, g
            under one norm each at x and h; or z, r under one, and the candidate under another.
        x: ``[T, B, D]``.
        mask: ``[T, B]``: every example is at least half as long as the longest.
        R: ``[T, B, H]``.
    """

    layers: list[dict[str, np.ndarray]]
    x: np.ndarray
    mask: np.ndarray
    R: np.ndarray


def make_data(case: Case) -> Data:
    random = np.random.default_rng(0)

    def normal(*shape, mean=0.0, scale=1.0):
        return np.float32(mean) + np.float32(scale) * random.standard_normal(shape, np.float32)

    T, B, H, D, n = case.T, case.B, case.H, case.D, case.gates * case.H
    layers = []
    for inputs in [D] + (case.layers - 1) * [H]:
        layer = dict(
            W_x=normal(inputs, n, scale=inputs**-0.5),
            W_h=normal(H, n, scale=H**-0.5),
            b=normal(n, scale=0.1),
        )
        for site, gain, width in [("x", 1.0, n), ("h", 0.35, n), ("c", 1.0, H)]:
            if site != "c" or case.cell == "lstm":
                layer[f"gain_{site}"] = normal(width, mean=gain, scale=0.1 * gain)
                layer[f"bias_{site}"] = normal(width, scale=0.1)
        layers.append(layer)
    lengths = random.integers(-(-T // 2), T, size=B, endpoint=True)
    lengths[0] = T
    mask = np.arange(T)[:, None] < lengths
    return Data(layers, normal(T, B, D), mask, normal(T, B, H, scale=(T * B * H) ** -0.5))


def rnn(names: list[str], timing: Timing) -> dict:
    """Forward and backward, then training steps."""
    cases = {name: choose("case of rnn", name, CASES) for name in names or USUAL}
    device = choose_device()
    missing = torch_missing(device)
    results = {name: rnn_case(name, case, device, missing, timing) for name, case in cases.items()}
    return dict(device=device, cases=results)


def rnn_case(name: str, case: Case, device: str, missing: str | None, timing: Timing) -> dict:
    without = {} if missing is None else {"PyTorch": missing}
    peers = gradient_peers(case, device, missing is None)
    measured = compare(f"{name}, forward and backward", peers, timing)
    result = show(f"{name}: {describe(case)}; forward and backward", measured, without)

    peers = training_peers(case, device, missing is None)
    trained = compare(f"{name}, training step", peers, timing)
    print(f"\n{name}: {describe(case)}; a training step with Adam\n")
    work = trained["ours"].facts["matmul_flops"]
    print(f"{table(trained, without, flops_columns(work, possible_flops(measured)))}\n", flush=True)
    return result | dict(case=case._asdict(), training=as_dicts(trained), missing=without)


def gradient_peers(case: Case, device: str, torch: bool) -> dict[str, Callable[[], Peer]]:
    """Return the peers that compute loss and gradients, and the peak of matrix products."""
    in_jax, in_torch = partial(partial, make, "rnn_jax"), partial(partial, make, "rnn_torch")
    peers = {
        "ours": in_jax("Ours", case),
        "ours, schedule=plain": in_jax("Ours", case, schedule="plain"),
        "Flax, nn.scan of a cell": in_jax("Flax", case),
        PEAKS[0]: partial(make, "common_jax", "Square", SIDE),
    }
    if torch:
        peers |= {
            "PyTorch eager": in_torch("Eager", case, device),
            "PyTorch script": in_torch("Script", case, device),
            f"PyTorch's {case.cell.upper()} without norm or mask": in_torch("NoNorm", case, device),
            PEAKS[1]: partial(make, "common_torch", "Square", SIDE, device),
        }
    if device == "gpu" and case.cell == "lstm":
        peers["cuDNN's LSTM through jax, without norm or mask"] = in_jax("CuDNN", case)
    return peers


def training_peers(case: Case, device: str, torch: bool) -> dict[str, Callable[[], Peer]]:
    """Return the peers that make a training step."""
    in_jax, in_torch = partial(partial, make, "rnn_jax"), partial(partial, make, "rnn_torch")
    peers = {
        "ours": in_jax("OursTraining", case),
        "ours, schedule=plain": in_jax("OursTraining", case, schedule="plain"),
        "Flax + Optax": in_jax("FlaxTraining", case),
    }
    if torch:
        peers |= {
            "PyTorch eager": in_torch("Training", case, device),
            "PyTorch script": in_torch("ScriptTraining", case, device),
        }
    return peers


def describe(case: Case) -> str:
    count = f"{case.layers} layers, " if case.layers > 1 else ""
    return f"{case.cell.upper()}, {count}T={case.T}, B={case.B}, H={case.H}, D={case.D}"
