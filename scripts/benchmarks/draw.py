"""draw: training steps of DRAW (§6.4) as the trainer makes them.

A step draws noise, computes the bound of a batch of images and its gradients, clips these and gives
them to Adam. Everybody starts with the same weights, and is compared with the same batches and
noise; the peers are in draw_jax.py and draw_torch.py.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from configs import draw as configs
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
    in_process,
    make,
    mebibytes,
    ratio,
    show_with_products,
    torch_missing,
)


class Case(NamedTuple):
    """A scale of configs/draw.py and a norm of it: "layer", at c of both cells, or "none"."""

    scale: str
    norm: str


CASES = {
    "full": Case("paper", "layer"),
    "full-none": Case("paper", "none"),
    "small": Case("small", "layer"),
    "tiny": Case("tiny", "layer"),
}
USUAL = ("full", "full-none", "small")

LEARNING_RATE = 1e-4  # small: Adam goes as far along rounding noise as along a gradient

REMATERIALIZED = "ours, plain and rematerialized"


class Data(NamedTuple):
    """What a peer that does not run ln.training.train begins with.

    Attributes:
        weights: by module and name, "encoder.W_x".
        x: images of the first steps ``[4, B, 28, 28]``.
        epsilon: their noise ``[4, T, B, Z]``.
    """

    weights: dict[str, np.ndarray]
    x: np.ndarray
    epsilon: np.ndarray


def make_config(case: Case):
    config = configs.get_config(case.scale)
    config.norm, config.lr = case.norm, (LEARNING_RATE,)
    return config


def make_data(config) -> Data:
    from scripts.benchmarks import draw_jax

    return draw_jax.make_data(config)


def matrices(data: Data) -> list[tuple[int, int]]:
    """D and n of the matrices ``[D, n]``; every glimpse multiplies with each of them."""
    return [W.shape for W in data.weights.values() if W.ndim == 2]


def flops(data: Data) -> int:
    """Of these products in a step: forward, and for the gradients of both operands."""
    _, T, B, _ = data.epsilon.shape
    return 3 * 2 * T * B * sum(D * n for D, n in matrices(data))


def draw(names: list[str], timing: Timing) -> dict:
    """Training steps of DRAW."""
    cases = {name: choose("case of draw", name, CASES) for name in names or USUAL}
    device = choose_device()
    missing = torch_missing(device)
    found = {name: draw_case(name, case, device, missing, timing) for name, case in cases.items()}
    return dict(device=device, cases=found)


def draw_case(name: str, case: Case, device: str, missing: str | None, timing: Timing) -> dict:
    config, without = make_config(case), {} if missing is None else {"PyTorch": missing}
    data = in_process(make_data, config)
    measured = compare(name, make_peers(config, data, device, missing is None), timing)
    result = show_with_products(f"{name}: {describe(config)}", measured, without, flops(data))
    print_memory(measured["ours"], measured[REMATERIALIZED])
    return result | dict(case=case._asdict(), config=config.to_dict(), missing=without)


def make_peers(config, data: Data, device: str, torch: bool) -> dict[str, Callable[[], Peer]]:
    in_jax = partial(partial, make, "draw_jax")
    peers = {
        "ours": in_jax("Step", config),
        "ours, schedule=plain": in_jax("Step", config, "plain"),
        REMATERIALIZED: in_jax("Step", config, "rematerialized"),
        PRODUCTS: in_jax("Products", data),
        PEAKS[0]: partial(make, "common_jax", "Square", SIDE),
    }
    if torch:
        in_torch = partial(partial, make, "draw_torch", "Step", config, data, device)
        peers["PyTorch eager"] = in_torch()
        if device == "gpu":
            peers["PyTorch, torch.compile of a glimpse"] = in_torch(compiled=True)
        peers[PEAKS[1]] = partial(make, "common_torch", "Square", SIDE, device)
    return peers


def print_memory(ours: Measured, rematerialized: Measured) -> None:
    """What a step of ours needs, and what it would if it kept nothing but carries."""
    here, there = (peer.facts["temporary_bytes"] for peer in (ours, rematerialized))
    print(
        f"Ours has {mebibytes(here)} of temporary arrays, and its process never more than "
        f"{mebibytes(ours.peak_memory)}. Nothing kept of a glimpse but its carry, and the rest "
        f"computed again: {mebibytes(there)} in {ratio(rematerialized, ours):.2f} of the time.\n",
        flush=True,
    )


def describe(config) -> str:
    read, write = config.read_size, config.write_size
    return (
        f"DRAW, norm {config.norm}, T={config.glimpses}, B={config.batch_size}, H={config.hidden}, "
        f"Z={config.latent}, reads {read} x {read}, writes {write} x {write}; a training step"
    )
