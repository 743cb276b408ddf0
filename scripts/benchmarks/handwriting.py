"""handwriting: training steps of handwriting synthesis (§6.5) as the trainer makes them.

A step computes the negative log likelihood of a batch of lines and its gradients, clips these and
gives them to Adam. All lines have the full length. Everybody begins with the same random weights,
points and texts, by names of their own that `Data` gives, those without norm without its gains and
biases; the peers are in handwriting_jax.py and handwriting_torch.py.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from configs import handwriting as configs
from experiments.datasets.lines import CLASSES
from ln.errors import choose
from scripts.benchmarks.common import (
    PEAKS,
    PRODUCTS,
    SIDE,
    Measured,
    Peer,
    Timing,
    choose_device,
    compare,
    make,
    ratio,
    ratios,
    show_with_products,
    torch_missing,
)


class Case(NamedTuple):
    """A scale of configs/handwriting.py, and the characters U of every text."""

    scale: str
    U: int


CASES = {"full": Case("paper", 51), "small": Case("small", 16), "tiny": Case("tiny", 6)}
USUAL = ("full", "small")

LEARNING_RATE = 1e-4  # small: Adam goes as far along rounding noise as along a gradient
BATCHES = 4  # then the first again

PLAIN = "plain, all of it in one scan"
NO_NORM = "ours without norm"
TORCHS_LSTM = "PyTorch's LSTM without norm"

REFERENCES = {NO_NORM: NO_NORM, TORCHS_LSTM: NO_NORM}  # of those that are not compared with ours


class Data(NamedTuple):
    """The numbers of a case.

    Attributes:
        weights: "cells_0.W_x" ``[D, 4H]``, W_h ``[H, 4H]``, b, and gain_x, bias_x ... of the norms
            at x and h ``[4H]`` and at c ``[H]``, gates as in ln.rnn: f, i, o, g; the same of
            cells_1 and cells_2; W and b of W_window and W_y.
        points: of each batch ``[BATCHES, B, T + 1, 3]``.
        text: classes ``[BATCHES, B, U]``.
    """

    weights: dict[str, np.ndarray]
    points: np.ndarray
    text: np.ndarray

    @property
    def matrices(self) -> dict[str, np.ndarray]:
        return {name: W for name, W in self.weights.items() if W.ndim == 2}

    @property
    def steps(self) -> tuple[int, int]:
        """T and B: all time steps of all lines multiply with every matrix."""
        _, B, points, _ = self.points.shape
        return points - 1, B


def make_config(case: Case, norm: str = "layer"):
    config = configs.get_config(case.scale)
    config.norm, config.lr = norm, (LEARNING_RATE,)
    return config


def make_data(case: Case) -> Data:
    config, random = make_config(case), np.random.default_rng(0)
    H, B, T = config.hidden, config.batch_size, config.length

    def normal(*shape, mean=0.0, scale=1.0):
        return np.float32(mean) + np.float32(scale) * random.standard_normal(shape, np.float32)

    weights = {}
    for n in range(3):
        D = 3 + CLASSES + (H if n else 0)  # of the point, the window, and the LSTM below
        weights[f"cells_{n}.W_x"] = normal(D, 4 * H, scale=D**-0.5)
        weights[f"cells_{n}.W_h"] = normal(H, 4 * H, scale=H**-0.5)
        weights[f"cells_{n}.b"] = normal(4 * H, scale=0.1)
        # A gain of 1 at h makes it chaotic: after 500 steps gradients consist of rounding errors.
        for site, gain, width in [("x", 1.0, 4 * H), ("h", 0.35, 4 * H), ("c", 1.0, H)]:
            weights[f"cells_{n}.gain_{site}"] = normal(width, mean=gain, scale=0.1 * gain)
            weights[f"cells_{n}.bias_{site}"] = normal(width, scale=0.1)
    outputs = {"W_window": (H, 3 * config.components), "W_y": (3 * H, 1 + 6 * config.mixtures)}
    for name, (D, n) in outputs.items():
        weights[f"{name}.W"], weights[f"{name}.b"] = (
            normal(D, n, scale=D**-0.5),
            normal(n, scale=0.1),
        )
    points = normal(BATCHES, B, T + 1, 3)
    points[..., 2] = points[..., 2] > 1
    return Data(
        weights, points, random.integers(CLASSES, size=(BATCHES, B, case.U), dtype=np.uint8)
    )


def flops(data: Data) -> int:
    """Of the matrix products of a step: forward, and for the gradients of both operands."""
    T, B = data.steps
    return 3 * 2 * T * B * sum(W.size for W in data.matrices.values())


def handwriting(names: list[str], timing: Timing) -> dict:
    """Training steps of handwriting synthesis."""
    cases = {name: choose("case of handwriting", name, CASES) for name in names or USUAL}
    device = choose_device()
    missing = torch_missing(device)
    found = {
        name: handwriting_case(name, case, device, missing, timing) for name, case in cases.items()
    }
    return dict(device=device, cases=found)


def handwriting_case(
    name: str, case: Case, device: str, missing: str | None, timing: Timing
) -> dict:
    config, without = make_config(case), {} if missing is None else {"PyTorch": missing}
    measured = compare(name, make_peers(case, device, missing is None), timing, REFERENCES)
    title = f"{name}: {describe(config, case.U)}"
    result = show_with_products(title, measured, without, flops(make_data(case)))
    print_ratios(measured)
    return result | dict(case=case._asdict(), config=config.to_dict(), missing=without)


def make_peers(case: Case, device: str, torch: bool) -> dict[str, Callable[[], Peer]]:
    in_jax, in_torch = (partial(partial, make, f"handwriting_{name}") for name in ("jax", "torch"))
    peers = {
        "ours": in_jax("Step", case),
        PLAIN: in_jax("Step", case, plain=True),
        NO_NORM: in_jax("Step", case, norm="none"),
        PRODUCTS: in_jax("Products", case),
        PEAKS[0]: partial(make, "common_jax", "Square", SIDE),
    }
    if torch:
        peers["PyTorch eager"] = in_torch("Step", case, device)
        if device == "gpu":
            name = "PyTorch, torch.compile of a time step"
            peers[name] = in_torch("Step", case, device, compiled=True)
        peers[TORCHS_LSTM] = in_torch("TorchsLSTM", case, device)
        peers[PEAKS[1]] = partial(make, "common_torch", "Square", SIDE, device)
    return peers


def print_ratios(measured: Mapping[str, Measured]) -> None:
    """Times of the others as multiples of ours, and how much these differ between rounds."""
    found = []
    for name, peer in measured.items():
        if name not in ("ours", PRODUCTS, *PEAKS):
            of_rounds = ratios(peer, measured["ours"])
            spread = f"{min(of_rounds):.2f} to {max(of_rounds):.2f}"
            found.append(f"{name} {ratio(peer, measured['ours']):.2f} ({spread})")
    print(f"Time / ours, median and range of the rounds: {'; '.join(found)}.\n", flush=True)


def describe(config, U: int) -> str:
    return (
        f"handwriting, norm {config.norm}, T={config.length}, B={config.batch_size}, three LSTMs "
        f"of H={config.hidden}, K={config.components}, M={config.mixtures}, U={U}; a training step"
    )
