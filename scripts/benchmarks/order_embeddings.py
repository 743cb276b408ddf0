"""order_embeddings: training steps of order embeddings (§6.1), and the evaluation of a fold.

A step computes the loss of a batch of captions and images and its gradients, clips these and gives
them to Adam. An evaluation maps a fold, five captions to an image, and ranks its images by each
caption and its captions by each image. Captions and features are random, all captions of the same
length. Everybody starts with the same weights, and is compared with the same data; the peers are in
order_embeddings_jax.py and order_embeddings_torch.py.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from configs import order_embeddings as configs
from ln.errors import choose
from scripts.benchmarks.common import (
    PEAKS,
    PRODUCTS,
    SIDE,
    Peer,
    Timing,
    as_dicts,
    choose_device,
    compare,
    in_process,
    make,
    show_with_products,
    table,
    torch_missing,
)


class Case(NamedTuple):
    """Sizes of the model and of the data.

    Attributes:
        scale: of configs/order_embeddings.py.
        vocabulary: rows of the table of words.
        D: features of an image.
        T: words of every caption, END among them.
        fold: images of the fold that is evaluated; 0: training steps.
    """

    scale: str
    vocabulary: int
    D: int
    T: int
    fold: int = 0


CASES = {
    "full": Case("paper", 10_000, 4096, 20),
    "fold": Case("paper", 10_000, 4096, 20, fold=1000),
    "tiny": Case("tiny", 30, 64, 5),
    "tiny-fold": Case("tiny", 30, 64, 5, fold=12),
}
USUAL = ("full", "fold")

LEARNING_RATE = 1e-4  # small: Adam goes as far along rounding noise as along a gradient

PLAIN = "plain"


class Data(NamedTuple):
    """What a peer that does not run ln.training.train begins with.

    Attributes:
        weights: by module and name, "encoder.W_x".
        tokens: captions of the first steps ``[4, B, T]``, or of a fold of N images ``[5 N, T]``.
        images: features of the first steps ``[4, B, D]``, or of the fold ``[N, D]``.
    """

    weights: dict[str, np.ndarray]
    tokens: np.ndarray
    images: np.ndarray

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """D and n of those that vectors ``[D]`` are multiplied with, the table not among them."""
        found = {name: W.shape for name, W in self.weights.items() if W.ndim == 2}
        return {name: shape for name, shape in found.items() if name != "table.W"}


def make_config(case: Case):
    config = configs.get_config(case.scale)
    config.norm, config.lr, config.pad_to = "layer", (LEARNING_RATE,), case.T
    config.fold = case.fold or config.fold
    return config


def make_data(case: Case) -> Data:
    from scripts.benchmarks import order_embeddings_jax

    return order_embeddings_jax.make_data(case)


def flops(data: Data) -> int:
    """Of the matrix products of a step: forward, and for the gradients of both operands, but for
    those of the features, of which there are none."""
    _, B, T = data.tokens.shape
    of_image = data.weights["W_image.W"].size
    of_word = sum(D * n for D, n in data.matrices.values()) - of_image
    return 2 * B * (3 * T * of_word + 2 * of_image)


def order_embeddings(names: list[str], timing: Timing) -> dict:
    """Training steps of order embeddings, and the evaluation of a fold."""
    cases = {name: choose("case of order_embeddings", name, CASES) for name in names or USUAL}
    device = choose_device()
    missing = torch_missing(device)
    found = {}
    for name, case in cases.items():
        run = fold_case if case.fold else step_case
        found[name] = dict(
            case=case._asdict(),
            config=make_config(case).to_dict(),
            **run(name, case, device, missing, timing),
        )
    return dict(device=device, cases=found)


def step_case(name: str, case: Case, device: str, missing: str | None, timing: Timing) -> dict:
    without = {} if missing is None else {"PyTorch": missing}
    data = in_process(make_data, case)
    in_jax = partial(partial, make, "order_embeddings_jax")
    peers: dict[str, Callable[[], Peer]] = {
        "ours": in_jax("Step", case),
        PLAIN: in_jax("Step", case, plain=True),
        PRODUCTS: in_jax("Products", data),
        PEAKS[0]: partial(make, "common_jax", "Square", SIDE),
    }
    if missing is None:
        in_torch = partial(partial, make, "order_embeddings_torch", "Step", case, data, device)
        peers["PyTorch eager"] = in_torch()
        if device == "gpu":
            peers["PyTorch, torch.compile of a time step and the loss"] = in_torch(compiled=True)
        peers[PEAKS[1]] = partial(make, "common_torch", "Square", SIDE, device)
    measured = compare(name, peers, timing)
    title = f"{name}: {describe(case)}; a training step of B={make_config(case).batch_size}"
    return dict(show_with_products(title, measured, without, flops(data)), missing=without)


def fold_case(name: str, case: Case, device: str, missing: str | None, timing: Timing) -> dict:
    without = {} if missing is None else {"PyTorch": missing}
    data = in_process(make_data, case)
    in_jax = partial(partial, make, "order_embeddings_jax", "Fold", case)
    peers: dict[str, Callable[[], Peer]] = {"ours": in_jax(), PLAIN: in_jax(plain=True)}
    if missing is None:
        in_torch = partial(make, "order_embeddings_torch", "Fold", case, data, device)
        peers["PyTorch eager"] = in_torch
    measured = compare(name, peers, timing)
    title = f"{name}: {describe(case)}; {case.fold:,} images and their captions are ranked"
    print(f"\n{title}; a step is all of it\n\n{table(measured, without)}\n", flush=True)
    return dict(peers=as_dicts(measured), missing=without)


def describe(case: Case) -> str:
    config = make_config(case)
    return (
        f"order embeddings, norm {config.norm}, T={case.T}, GRU of H={config.hidden}, words "
        f"{case.vocabulary:,} x {config.embedding_dim}, features {case.D:,}"
    )
