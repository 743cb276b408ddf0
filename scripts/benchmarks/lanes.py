"""lanes: what one more (seed, learning rate) costs where several train side by side in one program.

What is timed is the trainer's compiled call, K steps of all lanes, on the same batches again and
again. Lane 0 is the same run in all of them, and must have the same losses.
"""

from functools import partial
import importlib
from pathlib import Path
import tempfile
from typing import NamedTuple

from ln.errors import choose
from scripts.benchmarks.common import (
    Peer,
    Timing,
    as_dicts,
    choose_device,
    compare,
    in_process,
    milliseconds,
    ratio,
    table,
)
from scripts.benchmarks.mnist import OursOnDevice, prepare_mnist

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


class Lanes(OursOnDevice):
    """The compiled call of as many lanes as the config has seeds."""

    def losses(self, count):
        from scripts.benchmarks.common_jax import precise

        with precise():
            found = super().losses(count)
        self.run(1)  # compiles what is not as precise
        return found

    def facts(self):
        return dict(lanes=len(self.state.step), steps_per_call=self.steps_per_call)


def make_config(case: Case, lanes: int, folder: str):
    config = importlib.import_module(f"configs.{case.experiment}").get_config(case.scale)
    config.data_dir = str(Path(folder) / config.dataset)
    config.steps = "1_000_000_000 steps"  # no training ends before the benchmark
    config.seeds = tuple(range(lanes))
    return config


def lanes(names: list[str], timing: Timing) -> dict:
    """Training steps of 1, 2, 4 and 8 lanes."""
    cases = {name: choose("case of lanes", name, CASES) for name in names or USUAL}
    device = choose_device()
    with tempfile.TemporaryDirectory() as folder:
        found = {name: lanes_case(name, case, folder, timing) for name, case in cases.items()}
    return dict(device=device, cases=found)


def lanes_case(name: str, case: Case, folder: str, timing: Timing) -> dict:
    config = make_config(case, 1, folder)
    if not Path(config.data_dir).exists():
        in_process(prepare_mnist, make_config(Case("mnist", case.scale), 1, folder))
    peers = {label(n): partial(make, case, n, folder) for n in LANES}
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


def make(case: Case, n: int, folder: str) -> Peer:
    return Lanes(make_config(case, n, folder))


def label(n: int) -> str:
    return f"{n} lane{'s' if n > 1 else ''}"
