"""Compare what implementations compute, then time them in turn.

All implementations are in one process, so that allocator, threads and compiler flags are the same
for all of them.
"""

from collections.abc import Callable, Mapping
import dataclasses
import statistics
import time
from typing import Any, NamedTuple

import numpy as np

from ln.errors import choose

TOLERANCE = 1e-4  # of a loss or a gradient, relative
LOSS = "the loss"
PEAK = "product of 2048² matrices"  # the peer that shows the best rate of the machine


# --- Peers ---


class Numbers(NamedTuple):
    """What a peer computes.

    Attributes:
        losses: of the first steps.
        gradients: at the start, by name; empty if they are not compared.
    """

    losses: list[float]
    gradients: Mapping[str, np.ndarray] = {}


@dataclasses.dataclass(kw_only=True)
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
    """Return the largest difference of the losses and of each gradient, relative to the largest.

    Gradients that are zero but for rounding, such as that of a bias under a norm, are compared with
    a thousandth of the largest element of all.
    """
    steps = min(len(numbers.losses), len(reference.losses))
    losses, wanted = (np.array(n.losses[:steps]) for n in (numbers, reference))
    result = {LOSS: float(np.abs(losses - wanted).max() / np.abs(wanted).max())}
    if not numbers.gradients:
        return result
    size = {name: np.abs(d).max() for name, d in reference.gradients.items()}
    least = 1e-3 * max(size.values())
    return result | {
        name: float(np.abs(numbers.gradients[name] - d).max() / max(size[name], least))
        for name, d in reference.gradients.items()
    }


# --- Timing ---


class Options(NamedTuple):
    """How to measure.

    Attributes:
        rounds: how often each peer is timed.
        seconds: of one round of one peer.
        together: False if the memory does not hold all peers: then each is alive alone and has its
            rounds in a row, A A B B C C.
        only: the peers to time; empty for all.
    """

    rounds: int
    seconds: float
    together: bool = True
    only: tuple[str, ...] = ()


class Measured(NamedTuple):
    """The measurements of a peer."""

    losses: list[float]
    differs_by: float | None  # from the reference, relative; None: not compared
    facts: Mapping[str, Any]
    seconds_per_step: list[float]  # by round

    @property
    def seconds(self) -> float:
        """Return the median time of a step."""
        return statistics.median(self.seconds_per_step)


class Results(NamedTuple):
    """The measurements of a case, and why other peers have none."""

    peers: dict[str, Measured]
    missing: dict[str, str]

    def as_dict(self) -> dict:
        peers = {name: peer._asdict() for name, peer in self.peers.items()}
        return dict(peers=peers, missing=self.missing)


class Reference:
    """The numbers of the first peer, which the others must reproduce.

    Args:
        count: of peers. A single one is not compared.
    """

    def __init__(self, count: int):
        self.count, self.numbers, self.rounding = count, None, dict[str, float]()

    def check(self, peer: Peer) -> Measured:
        """Compare a peer with the reference; return its measurements, still without times.

        Raises:
            ValueError: it computes something else.
        """
        if peer.numbers is None or self.count == 1:
            return Measured([], None, peer.facts, [])
        numbers = peer.numbers()
        if self.numbers is None:
            self.numbers = numbers
            self.rounding = differences(peer.rounded(), numbers) if peer.rounded else {}
        changes = differences(numbers, self.numbers)
        for what, change in changes.items():
            if not change <= max(TOLERANCE, 10 * self.rounding.get(what, 0)):  # also if it is NaN
                raise ValueError(
                    f"it computes something else: {what} differs by {change:.0e}; losses "
                    f"{numbers.losses}, not {self.numbers.losses}"
                )
        return Measured(numbers.losses, max(changes.values()), peer.facts, [])


def compare(case: str, makers: Makers, options: Options) -> Results:
    """Check and time peers in interleaved rounds A B C A B C ...

    A peer that fails, or computes something else than the first one, is not timed.

    Args:
        case: for the lines of progress.
        makers: functions that make the peers. An error of the first one is raised.
    """
    makers = {name: choose("--peer", name, makers) for name in options.only or makers}
    results, reference = Results({}, {}), Reference(len(makers))
    alone = [{name: make} for name, make in makers.items()]
    for group in [makers] if options.together else alone:
        time_group(case, group, options, reference, results)
    return results


def time_group(
    case: str, makers: Makers, options: Options, reference: Reference, results: Results
) -> None:
    """Check and time peers that are alive at once, and add them to the results."""
    alive = []
    for name, make in makers.items():
        print(f"{case}: starting {name}", flush=True)
        try:
            peer = make()
            measured = reference.check(peer)
            calls = peer.calls_within(options.seconds)
        except Exception as error:  # such as a library that is not installed: the others go on
            if not results.peers:
                raise
            results.missing[name] = " ".join(f"{type(error).__name__}: {error}".split())
        else:
            results.peers[name] = measured
            alive.append((peer, calls, measured.seconds_per_step))
    for number in range(1, options.rounds + 1):
        print(f"{case}: round {number} of {options.rounds}", flush=True)
        for peer, calls, seconds in alive:
            seconds.append(peer.seconds_per_step(calls))


# --- Tables ---


def ratios(peer: Measured, reference: Measured) -> np.ndarray:
    """Return the time of a step in steps of the reference, in each round."""
    return np.divide(peer.seconds_per_step, reference.seconds_per_step)


def milliseconds(seconds: float) -> str:
    """Format a time with three digits, or all digits before the point."""
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def cells(peer: Measured, reference: Measured, peak: Measured | None) -> dict[str, str]:
    """Return the row of a peer in the table, by column."""
    low, ratio, high = np.percentile(ratios(peer, reference), [25, 50, 75])
    row = {
        "ms/step": milliseconds(peer.seconds),
        "time / ours": f"{ratio:.2f}",
        "middle half": f"{low:.2f} to {high:.2f}",
    }
    if peak is not None:  # peers that do not count their products have those of the reference
        work = peer.facts.get("matmul_flops", reference.facts["matmul_flops"])
        rate = peak.facts["matmul_flops"] / peak.seconds
        row["of the peak"] = f"{work / peer.seconds / rate:.0%}"
    if "temporary_bytes" in peer.facts:
        row["temporary"] = f"{peer.facts['temporary_bytes'] / 2**20:.0f} MiB"
    if "compiling" in peer.facts:
        row["compiling"] = f"{peer.facts['compiling']:.1f} s"
    differs_by = peer.differs_by
    return row | {"differs by": "not compared" if differs_by is None else f"{differs_by:.0e}"}


def table(results: Results) -> str:
    """Return a Markdown table with a row for each peer; the first is the reference."""
    reference, peak = next(iter(results.peers.values())), results.peers.get(PEAK)
    rows = {name: cells(peer, reference, peak) for name, peer in results.peers.items()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [["", *columns], ["---", *["---:"] * len(columns)]]
    lines += [[name, *(row.get(column, "") for column in columns)] for name, row in rows.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [" | ".join(map(str.rjust, line, widths)) for line in lines]
    text = [f"| {line} |" for line in text]
    return "\n".join(text + [f"\n{name}: {reason}" for name, reason in results.missing.items()])


def show(title: str, results: Results) -> dict:
    """Print the table of a case, and return its numbers for the file."""
    print(f"\n{title}\n\n{table(results)}\n", flush=True)
    return results.as_dict()
