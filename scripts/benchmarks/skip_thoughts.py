"""skip_thoughts: training steps of skip-thoughts (§6.3) as the trainer makes them.

A step computes the loss of a batch of triples and its gradients, clips these and gives them to
Adam. Middle sentences have as many words as can be, their neighbours half as many on average.
Everybody starts with the same weights and is compared with the same batches; the peers are in
skip_thoughts_jax.py and skip_thoughts_torch.py.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from configs import skip_thoughts as configs
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
    ratio,
    show_with_products,
    torch_missing,
)


class Case(NamedTuple):
    """Sizes of the model; T of the sentences is config.max_words.

    Attributes:
        scale: of configs/skip_thoughts.py.
        vocabulary: rows of the table of words, and words to choose from.
    """

    scale: str
    vocabulary: int


CASES = {
    "full": Case("paper", 20_000),
    "small": Case("small", 1000),
    "tiny": Case("tiny", 20),
}
USUAL = ("full",)

LEARNING_RATE = 1e-5  # small: Adam goes as far along rounding noise as along a gradient
STEPS = 2  # that are compared, and made in one call: at full size one takes ten seconds

PLAIN = "plain"
NO_NORM = "ours without norm"  # configs/skip_thoughts.py knows it by this name
FEW = 1000  # words, so that the output layer costs next to nothing
FEW_WORDS = f"ours with {FEW:,} words"


class Data(NamedTuple):
    """What a peer that does not run ln.training.train begins with.

    Attributes:
        weights: by module and name, "encoder.W_x".
        batches: those of the first steps, leaves ``[STEPS, B, ...]``, see
            experiments/skip_thoughts/model.py.
    """

    weights: dict[str, np.ndarray]
    batches: dict[str, np.ndarray]

    @property
    def products(self) -> dict[str, tuple[tuple[int, ...], tuple[int, int]]]:
        """What is multiplied with each matrix ``[D, n]``: vectors ``[..., D]`` -> (...), (D, n).
        With the output layer only what is real of the neighbours."""
        found = {}
        for gru, text in (("encoder", "sentence"), ("previous", "previous"), ("next", "next")):
            _, B, T = self.batches[text].shape
            for ours, theirs in (("W_x", "W"), ("W_h", "U")):  # gates and candidate together
                D, n = self.weights[f"{gru}.{ours}"].shape
                found[f"{gru}.{ours}"] = (T, B), (D, n + self.weights[f"{gru}.{theirs}"].shape[1])
        words = sum(self.batches[f"{name}_length"][0].sum() for name in ("previous", "next"))
        found["W_y.W"] = (int(words),), self.weights["W_y.W"].shape
        return found


def make_config(case: Case, norm: str = "layer"):
    config = configs.get_config(case.scale)
    config.norm, config.lr, config.vocab_size = norm, (LEARNING_RATE,), case.vocabulary
    config.tasks = ""
    return config


def make_data(case: Case) -> Data:
    from scripts.benchmarks import skip_thoughts_jax

    return skip_thoughts_jax.make_data(case)


def flops(data: Data) -> int:
    """Of the matrix products of a step: forward, and for the gradients of both operands."""
    shapes = data.products.values()
    return sum(3 * 2 * int(np.prod(leading)) * D * n for leading, (D, n) in shapes)


def skip_thoughts(names: list[str], timing: Timing) -> dict:
    """Training steps of skip-thoughts."""
    cases = {name: choose("case of skip_thoughts", name, CASES) for name in names or USUAL}
    device = choose_device()
    missing = torch_missing(device)
    found = {name: of_case(name, case, device, missing, timing) for name, case in cases.items()}
    return dict(device=device, cases=found)


def of_case(name: str, case: Case, device: str, missing: str | None, timing: Timing) -> dict:
    config, without = make_config(case), {} if missing is None else {"PyTorch": missing}
    data = in_process(make_data, case)
    # At full size all peers at once would need 20 GB.
    measured = compare(
        name, make_peers(case, data, device, missing is None), timing, together=False
    )
    result = show_with_products(f"{name}: {describe(case)}", measured, without, flops(data))
    print_parts(case, measured)
    return result | dict(case=case._asdict(), config=config.to_dict(), missing=without)


def make_peers(case: Case, data: Data, device: str, torch: bool) -> dict[str, Callable[[], Peer]]:
    in_jax = partial(partial, make, "skip_thoughts_jax", "Step")
    peers: dict[str, Callable[[], Peer]] = {
        "ours": in_jax(case),
        PLAIN: in_jax(case, plain=True),
        NO_NORM: in_jax(case, norm="none"),
    }
    if case.vocabulary > FEW:
        peers[FEW_WORDS] = in_jax(case._replace(vocabulary=FEW), compared=False)
    peers |= {
        PRODUCTS: partial(make, "attentive_reader_jax", "Products", data.products),
        PEAKS[0]: partial(make, "common_jax", "Square", SIDE),
    }
    if torch:
        in_torch = partial(partial, make, "skip_thoughts_torch", "Step", case, data, device)
        peers["PyTorch eager"] = in_torch()
        if device == "gpu":
            peers["PyTorch, torch.compile of a time step"] = in_torch(compiled=True)
        peers[PEAKS[1]] = partial(make, "common_torch", "Square", SIDE, device)
    return peers


def print_parts(case: Case, measured: dict[str, Measured]) -> None:
    """What layer norm costs, and the output layer."""
    ours = measured["ours"]
    print(f"With layer norm a step takes {ratio(ours, measured[NO_NORM]):.2f} times that without.")
    if FEW_WORDS in measured:
        print(
            f"With {FEW:,} instead of {case.vocabulary:,} words it takes "
            f"{ratio(measured[FEW_WORDS], ours):.0%} of ours.\n",
            flush=True,
        )


def describe(case: Case) -> str:
    config = make_config(case)
    return (
        f"skip-thoughts, norm {config.norm}, sentences of {config.max_words}, "
        f"B={config.batch_size}, three GRUs of H={config.hidden}, words {case.vocabulary:,} x "
        f"{config.embedding_dim}; a training step"
    )
