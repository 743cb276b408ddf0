"""Compare what implementations compute, then time them in turn.

All implementations are in one process, so that allocator, threads and compiler flags are the same
for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np

from ln.errors import choose
from scripts.pages.tables import markdown

TOLERANCE = 1e-4  # of a loss or a gradient, relative
LOSS = "the loss"


# --- Peers ---


class Numbers(NamedTuple):
    """The results of a peer at the start: the loss, and its gradients by name."""

    loss: float
    gradients: Mapping[str, np.ndarray]


@dataclasses.dataclass
class Peer:
    """One implementation, ready to run.

    Attributes:
        call: starts a computation, and returns an argument for `wait`.
        wait: blocks until that computation has ended.
        steps: how many steps a call makes.
        numbers: computes what is compared, before the first call; None if the peer computes
            something else on purpose.
        rounded: computes the same after rounding the weights anew. The results of a chaotic model
            may differ by as much as that changes them.
        facts: further numbers for the file and for columns of the table.
    """

    call: Callable[[], Any]
    wait: Callable[[Any], Any]
    steps: int = 1
    numbers: Callable[[], Numbers] | None = None
    rounded: Callable[[], Numbers] | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def seconds_per_step(self, calls: int) -> float:
        """Make these calls, and return the time of a step."""
        began, waiting = time.perf_counter(), None
        for _ in range(calls):
            result = self.call()
            if waiting is not None:  # one call late, as the trainer waits: the device stays busy,
                self.wait(waiting)  # but dozens of calls at once might never end
            waiting = result
        self.wait(waiting)
        return (time.perf_counter() - began) / (calls * self.steps)

    def calls_within(self, seconds: float) -> int:
        """Return about how many calls take that long."""
        self.seconds_per_step(1)  # the first call is slower: it may compile
        calls = 1
        while (step := self.seconds_per_step(calls)) * self.steps * calls < seconds / 4:
            calls *= 2
        return max(1, round(seconds / (step * self.steps)))


Makers = Mapping[str, Callable[[], Peer]]


# --- Comparing ---


def differences(numbers: Numbers, reference: Numbers) -> dict[str, float]:
    """Return the difference of the loss, and the largest of each gradient, relative to the largest.

    Gradients that are zero but for rounding, such as that of a bias under a norm, are compared with
    a thousandth of the largest element of all.
    """
    size = {name: np.abs(d).max() for name, d in reference.gradients.items()}
    least = 1e-3 * max(size.values())
    return {LOSS: abs(numbers.loss - reference.loss) / abs(reference.loss)} | {
        name: float(np.abs(numbers.gradients[name] - d).max() / max(size[name], least))
        for name, d in reference.gradients.items()
    }


# --- Timing ---

Row = dict[str, Any]  # what is stored of a peer


def check(numbers: Numbers, reference: Numbers, rounding: Mapping[str, float]) -> float:
    """Return by how much these numbers differ from those of the first peer.

    Raises:
        ValueError: by more than rounding.
    """
    changes = differences(numbers, reference)
    for what, change in changes.items():
        if not change <= max(TOLERANCE, 10 * rounding.get(what, 0)):  # also if it is NaN
            raise ValueError(f"it computes something else: {what} differs by {change:.0e}")
    return max(changes.values())


def compare(
    case: str, makers: Makers, rounds: int, seconds: float, only: Sequence[str] = ()
) -> dict[str, Row]:
    """Check and time peers in interleaved rounds A B C A B C ...

    A peer that fails, or computes something else than the first one, is not timed, and the reason
    is printed.

    Args:
        case: for the lines of progress.
        makers: functions that make the peers. An error of the first one is raised.
        rounds: how often each peer is timed; 0: peers are only made and compared.
        seconds: of one round of one peer.
        only: the peers to time; empty for all.

    Returns:
        A row for each peer: by how much it differs from the first one (None: not compared), its
        facts, and by round the seconds of a step and their ratio to the first peer's.
    """
    makers = {name: choose("--peer", name, makers) for name in only or makers}
    rows, alive, reference, rounding = dict[str, Row](), [], None, dict[str, float]()
    for name, make in makers.items():
        print(f"{case}: starting {name}", flush=True)
        try:
            peer, differs_by = make(), None
            if peer.numbers and len(makers) > 1:
                numbers = peer.numbers()
                if reference is None and peer.rounded:
                    rounding = differences(peer.rounded(), numbers)
                reference = reference or numbers
                differs_by = check(numbers, reference, rounding)
            if rounds:
                alive.append((name, peer, peer.calls_within(seconds)))
        except Exception as error:  # such as a library that is not installed: the others continue
            if not rows:
                raise
            print(f"{case}: {name} is missing: {type(error).__name__}: {error}", flush=True)
        else:
            rows[name] = dict(differs_by=differs_by, facts=peer.facts, seconds_per_step=[])
    for number in range(1, rounds + 1):
        print(f"{case}: round {number} of {rounds}", flush=True)
        for name, peer, calls in alive:
            rows[name]["seconds_per_step"].append(peer.seconds_per_step(calls))
    ours = next(iter(rows.values()))["seconds_per_step"]
    for row in rows.values():
        row["ratios"] = np.divide(row["seconds_per_step"], ours).tolist()
    return rows


# --- Tables ---

ALLOCATOR = ("MALLOC_", "GLIBC_", "LD_PRELOAD")


def milliseconds(seconds: float) -> str:
    """Format a time with three digits, or all digits before the point."""
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def cells(row: Row) -> dict[str, str]:
    """Return a line of the table, by column."""
    conditions = row["environment"]
    allocator = [f"{k}={v}" for k, v in conditions["variables"].items() if k.startswith(ALLOCATOR)]
    line = whole_seconds(row["rounds"]) if "rounds" in row else per_step(row)
    line["allocator"] = " ".join(allocator) or "default"
    line["load"] = str(conditions["load_average"])
    return line | {"commit": str(conditions["commit"])[:7]}


def whole_seconds(rounds: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Return the medians over rounds of the seconds of a process, by part."""
    line = {}
    for part in rounds[0]:
        low, median, high = np.percentile([seconds[part] for seconds in rounds], [0, 50, 100])
        spread = f" ({low:.1f}–{high:.1f})" if part == "seconds" and len(rounds) > 1 else ""
        line[part] = f"{median:,.1f}{spread}"
    return line


def per_step(row: Row) -> dict[str, str]:
    """Return what was measured of a peer, by column."""
    facts, times, line = row["facts"], row["seconds_per_step"], dict[str, str]()
    if times:
        low, ratio, high = np.percentile(row["ratios"], [0, 50, 100])
        line["ms/step"] = milliseconds(float(np.median(times)))
        line["time / first"] = f"{ratio:.2f} ({low:.2f}–{high:.2f})"
    if times and "matmul_flops" in facts:
        line["GFLOP/s"] = f"{facts['matmul_flops'] / np.median(times) / 1e9:,.0f}"
    if "temporary_bytes" in facts:
        line["temporary"] = f"{facts['temporary_bytes'] / 2**20:,.0f} MiB"
    if row["differs_by"] is not None:
        line["differs by"] = f"{row['differs_by']:.0e}"
    return line


def table(cases: Mapping[str, Mapping[str, Row]]) -> str:
    """Return a Markdown table of the peers of some cases; a case names its first row."""
    lines = [
        {"case": "" if n else case, "peer": name} | cells(row)
        for case, rows in cases.items()
        for n, (name, row) in enumerate(rows.items())
    ]
    columns = list(dict.fromkeys(column for line in lines for column in line))
    rows = [[line.get(column, "") for column in columns] for line in lines]
    return markdown(["", "", *columns[2:]], rows, texts=2)
