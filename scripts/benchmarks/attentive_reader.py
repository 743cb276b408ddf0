"""attentive_reader: training steps of the attentive reader (§6.2) as the trainer makes them.

A step draws noise for dropout, computes the loss of a batch of questions and its gradients, clips
these and gives them to Adam. Passages are random words, some more frequent than others, half as
long as the longest or longer. Everybody starts with the same weights, and is compared with the same
batches and noise; the peers are in attentive_reader_jax.py and attentive_reader_torch.py.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from configs import attentive_reader as configs
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
    """Sizes of the model and of the data.

    Attributes:
        scale: of configs/attentive_reader.py.
        vocabulary: rows of the table of words, and answers to choose from.
        T, S: words of the longest passages and questions.
    """

    scale: str
    vocabulary: int
    T: int
    S: int


CASES = {
    "full": Case("paper", 65_829, 300, 30),
    "small": Case("small", 72, 48, 8),
    "tiny": Case("tiny", 40, 8, 5),
}
USUAL = ("full", "small")

LEARNING_RATE = 1e-4  # small: Adam goes as far along rounding noise as along a gradient

PLAIN = "plain"
FEW = 1000  # words, so that table and output layer cost next to nothing
FEW_WORDS = f"ours with {FEW:,} words"


class Data(NamedTuple):
    """What a peer that does not run ln.training.train begins with.

    Attributes:
        weights: by module and name, "of_passage_0.W_x".
        batches: those of the first steps, leaves ``[4, B, ...]``, see experiments/attentive_reader.
        noise: their dropout, 0 or 1: of passages ``[4, T, B, D]``, of questions ``[4, S, B, D]``,
            and of the read-out ``[4, B, H]``.
    """

    weights: dict[str, np.ndarray]
    batches: dict[str, np.ndarray]
    noise: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def products(self) -> dict[str, tuple[tuple[int, ...], tuple[int, int]]]:
        """What is multiplied with each matrix ``[D, n]``: vectors ``[..., D]`` -> (...), (D, n)."""
        of_passage, of_question, g = (array.shape[1:-1] for array in self.noise)
        leading = dict(of_passage_0=of_passage, W_d=of_passage, of_question_0=of_question)
        leading["M"] = 2, *g  # M q, and what comes of it with Mᵀ
        return {
            name: (leading.get(name.split(".")[0], g), W.shape)
            for name, W in self.weights.items()
            if W.ndim == 2 and name != "table.W"
        }


def make_config(case: Case):
    config = configs.get_config(case.scale)
    config.norm, config.lr = "layer", (LEARNING_RATE,)
    config.buckets = 1
    config.clip, config.clip_root = 10.0, 0.0  # a rule that PyTorch has
    return config


def make_data(case: Case) -> Data:
    from scripts.benchmarks import attentive_reader_jax

    return attentive_reader_jax.make_data(case)


def flops(data: Data) -> int:
    """Of the matrix products of a step: forward, and for the gradients of both operands."""
    rows = {name: int(np.prod(leading)) for name, (leading, _) in data.products.items()}
    return sum(3 * 2 * rows[name] * D * n for name, (_, (D, n)) in data.products.items())


def attentive_reader(names: list[str], timing: Timing) -> dict:
    """Training steps of the attentive reader."""
    cases = {name: choose("case of attentive_reader", name, CASES) for name in names or USUAL}
    device = choose_device()
    missing = torch_missing(device)
    found = {name: reader_case(name, case, device, missing, timing) for name, case in cases.items()}
    return dict(device=device, cases=found)


def reader_case(name: str, case: Case, device: str, missing: str | None, timing: Timing) -> dict:
    config, without = make_config(case), {} if missing is None else {"PyTorch": missing}
    data = in_process(make_data, case)
    measured = compare(name, make_peers(case, data, device, missing is None), timing)
    result = show_with_products(f"{name}: {describe(case)}", measured, without, flops(data))
    if FEW_WORDS in measured:
        print_words(case, measured["ours"], measured[FEW_WORDS])
    return result | dict(case=case._asdict(), config=config.to_dict(), missing=without)


def make_peers(case: Case, data: Data, device: str, torch: bool) -> dict[str, Callable[[], Peer]]:
    in_jax = partial(partial, make, "attentive_reader_jax")
    peers: dict[str, Callable[[], Peer]] = {
        "ours": in_jax("Step", case),
        PLAIN: in_jax("Step", case, plain=True),
    }
    if case.vocabulary > FEW:
        peers[FEW_WORDS] = in_jax("Step", case._replace(vocabulary=FEW), compared=False)
    peers |= {
        PRODUCTS: in_jax("Products", data.products),
        PEAKS[0]: partial(make, "common_jax", "Square", SIDE),
    }
    if torch:
        in_torch = partial(partial, make, "attentive_reader_torch", "Step", case, data, device)
        peers["PyTorch eager"] = in_torch()
        if device == "gpu":
            peers["PyTorch, torch.compile of a time step"] = in_torch(compiled=True)
        peers[PEAKS[1]] = partial(make, "common_torch", "Square", SIDE, device)
    return peers


def print_words(case: Case, ours: Measured, few: Measured) -> None:
    """What all the words cost: their table, their logits, and Adam on both."""
    print(
        f"With {FEW:,} instead of {case.vocabulary:,} words in the table and in the output layer, "
        f"the step takes {ratio(few, ours):.0%} of ours, and its process never more than "
        f"{mebibytes(few.peak_memory)} instead of {mebibytes(ours.peak_memory)}.\n",
        flush=True,
    )


def describe(case: Case) -> str:
    config = make_config(case)
    return (
        f"attentive reader, norm {config.norm}, T={case.T}, questions of {case.S}, "
        f"B={config.batch_size}, two LSTMs of H={config.hidden}, words {case.vocabulary:,} x "
        f"{config.embedding_dim}; a training step"
    )
