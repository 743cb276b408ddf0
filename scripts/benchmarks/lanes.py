"""lanes: the cost of one more (seed, learning rate) in one program.

The trainer's compiled call, K steps of all lanes, is timed on the same batches again and again.
Lane 0 is the same run in all peers, and must have the same losses.
"""

from functools import partial
import importlib
import tempfile
from typing import NamedTuple

from ln.errors import choose
from scripts.benchmarks import random_data
from scripts.benchmarks.common import (
    Timing,
    as_dicts,
    choose_device,
    compare,
    make,
    milliseconds,
    ratio,
    table,
)

LANES = (1, 2, 4, 8)


class Case(NamedTuple):
    """A scale of a config; layer norm is the default norm."""

    experiment: str
    scale: str


CASES = {
    "pixels": Case("sequential_mnist", "small"),  # an LSTM of 100 units, T=8, B=100
    "mnist-small": Case("mnist", "small"),
    "mnist": Case("mnist", "paper"),
    "tiny": Case("mnist", "tiny"),
}
USUAL = ("pixels", "mnist-small", "mnist")


def make_config(case: Case, lanes: int, folder: str):
    config = importlib.import_module(f"configs.{case.experiment}").get_config(case.scale)
    config.data_dir = folder
    random_data.prepare(config.dataset, folder)
    config.steps = "1_000_000_000 steps"  # no training ends before the benchmark
    config.seeds = tuple(range(lanes))
    return config


def lanes(names: list[str], timing: Timing) -> dict:
    """Training steps of 1, 2, 4 and 8 lanes."""
    cases = {name: choose("case of lanes", name, CASES) for name in names or USUAL}
    device = choose_device()
    with tempfile.TemporaryDirectory() as folder:
        results = {name: lanes_case(name, case, folder, timing) for name, case in cases.items()}
    return dict(device=device, cases=results)


def lanes_case(name: str, case: Case, folder: str, timing: Timing) -> dict:
    config = make_config(case, 1, folder)
    peers = {
        label(n): partial(make, "common_jax", "Call", make_config(case, n, folder)) for n in LANES
    }
    measured = compare(name, peers, timing)
    one = measured[label(1)]
    columns = {
        "ms/lane": lambda peer: milliseconds(peer.seconds / peer.facts["lanes"]),
        "lane / one alone": lambda peer: f"{ratio(peer, one) / peer.facts['lanes']:.2f}",
    }
    print(f"\n{name}: configs/{case.experiment}.py:{case.scale}, batch size {config.batch_size}\n")
    print(f"{table(measured, {}, columns)}\n", flush=True)
    cost = {n: ratio(measured[label(n)], one) / n for n in LANES}
    return dict(
        case=case._asdict(),
        batch_size=config.batch_size,
        peers=as_dicts(measured),
        cost_of_a_lane=cost,  # in steps of one lane alone
    )


def label(n: int) -> str:
    return f"{n} lane{'s' if n > 1 else ''}"
