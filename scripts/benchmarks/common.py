"""What every benchmark does: peers in processes of their own, compared, then timed in turn."""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
import contextlib
import multiprocessing
import signal
import statistics
import sys
import time
from typing import NamedTuple

import numpy as np

try:
    import resource
except ImportError:  # Windows
    resource = None

SPAWN = multiprocessing.get_context("spawn")
TOLERANCE = 1e-4  # of a loss or a gradient, relative


# --- Peers, each in a process of its own ---


class Peer:
    """One implementation. Made and used in its own process; made of what can be pickled."""

    def losses(self, count: int) -> list[float]:
        """The losses of the first steps. Called once, before all else, so that it compiles too.

        Empty for one that computes something else on purpose: it is timed and not compared.
        """
        raise NotImplementedError

    def gradients(self) -> dict[str, np.ndarray]:
        """Gradients at the start, by names that all peers share; empty where losses say enough."""
        return {}

    def run(self, steps: int) -> int:
        """Makes that many steps or a few more, and returns how many once they are all computed."""
        raise NotImplementedError

    def seconds_per_step(self, steps: int) -> float:
        began = time.perf_counter()
        done = self.run(steps)
        return (time.perf_counter() - began) / done

    def steps_within(self, seconds: float) -> int:
        """About how many steps take that long."""
        steps = 1
        while (each := self.seconds_per_step(steps)) * steps < seconds / 4:
            steps *= 2
        return max(1, round(seconds / each))

    def facts(self) -> dict[str, float]:
        """Whatever else is known of it, for the file and for further columns."""
        return {}

    def peak_memory(self) -> int | None:
        """Bytes of this process, libraries included; None where the system does not say."""
        if resource is None:
            return None
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve(connection, make: Callable[[], Peer]) -> None:
    """Lives in a peer's process: makes it and calls what the pipe asks for until that closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    with contextlib.suppress(EOFError):
        peer = make()
        while True:
            method, *arguments = connection.recv()
            connection.send(getattr(peer, method)(*arguments))


class Remote:
    """A peer in its own process; ``remote(method, ...)`` calls one of its methods and waits."""

    def __init__(self, name: str, make: Callable[[], Peer]):
        self.name = name
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve, args=(theirs, make), name=name, daemon=True)
        self.process.start()
        theirs.close()

    def __call__(self, method: str, *arguments):
        try:
            self.pipe.send((method, *arguments))
            return self.pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError(
                f"The process of {self.name!r} failed in {method}; see above"
            ) from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def in_process(function: Callable, *arguments):
    """Returns function(*arguments), computed in a process that ends afterwards.

    So jax and its threads never come into the process that starts the others.
    """
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(function, *arguments).result()


# --- Comparing ---


class Timing(NamedTuple):
    """How long to measure."""

    rounds: int
    seconds: float  # of one round of one peer


class Measured(NamedTuple):
    """What is known of a peer."""

    losses: list[float]
    seconds_per_step: list[float]  # by round
    peak_memory: int | None
    differs_by: float | None = None  # from the reference, relative; None: it was not compared
    facts: Mapping[str, float] = {}

    @property
    def seconds(self) -> float:
        """Of a step: the median over the rounds."""
        return statistics.median(self.seconds_per_step)


def difference(losses: list[float], reference: list[float]) -> float:
    """The largest difference between losses, relative to the largest loss: one may be near 0."""
    return float(np.max(np.abs(np.subtract(losses, reference))) / np.max(np.abs(reference)))


def gradients_differ(
    gradients: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """By name, the largest difference between two gradients, relative to the largest element.

    Raises:
        ValueError: they have other names or shapes.
    """
    shapes, wanted = ({k: np.shape(d) for k, d in g.items()} for g in (gradients, reference))
    if shapes != wanted:
        raise ValueError(f"The gradients are {shapes}, where they should be {wanted}")
    return {
        name: float(np.max(np.abs(gradients[name] - d)) / np.max(np.abs(d)))
        for name, d in reference.items()
    }


class Reference(NamedTuple):
    """What a peer is compared with."""

    name: str
    losses: list[float]
    gradients: dict[str, np.ndarray]

    def check(self, name: str, losses: list[float], gradients: dict[str, np.ndarray]) -> float:
        """By how much a peer differs.

        Raises:
            RuntimeError: it computes something else.
        """
        by = {"the loss": difference(losses, self.losses)}
        by |= gradients_differ(gradients, self.gradients)
        for what, much in by.items():
            if not much <= TOLERANCE:  # nor NaN
                raise RuntimeError(
                    f"{name!r} computes something else: {what} differs by {much:.0e}; "
                    f"losses {losses}, where {self.name!r} has {self.losses}"
                )
        return max(by.values())


def compare(
    case: str, peers: Mapping[str, Callable[[], Peer]], timing: Timing
) -> dict[str, Measured]:
    """Checks and times peers, all alive at once, in interleaved rounds A B C A B C ...

    Args:
        case: for the progress lines.
        peers: name -> what makes the peer, to be called in its process. The first is the reference.

    Raises:
        RuntimeError: a peer computes something else than the first one, or fails.
    """
    reference: Reference | None = None
    with contextlib.ExitStack() as stack:
        remotes: dict[str, Remote] = {}
        losses: dict[str, list[float]] = {}
        differs_by: dict[str, float | None] = {}
        for name, make in peers.items():  # one by one, so that none compiles beside another
            print(f"{case}: starting {name}", flush=True)
            remotes[name] = remote = stack.enter_context(Remote(name, make))
            losses[name] = remote("losses", 4)  # after 0, 1, 2, 3 steps
            differs_by[name] = None
            if losses[name]:
                found = losses[name], remote("gradients")
                reference = reference or Reference(name, *found)
                differs_by[name] = reference.check(name, *found)
        steps = {name: remote("steps_within", timing.seconds) for name, remote in remotes.items()}
        times: dict[str, list[float]] = {name: [] for name in remotes}
        for number in range(1, timing.rounds + 1):
            print(f"{case}: round {number} of {timing.rounds}", flush=True)
            for name, remote in remotes.items():
                times[name].append(remote("seconds_per_step", steps[name]))
        return {
            name: Measured(
                losses[name],
                times[name],
                remote("peak_memory"),
                differs_by[name],
                remote("facts"),
            )
            for name, remote in remotes.items()
        }


def ratio(a: Measured, b: Measured) -> float:
    """Time of a step of a, in steps of b: the median over the rounds."""
    return statistics.median(
        x / y for x, y in zip(a.seconds_per_step, b.seconds_per_step, strict=True)
    )


def milliseconds(seconds: float) -> str:
    """Three digits, and all those before the point."""
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def mebibytes(count: float | None) -> str:
    return "unknown" if count is None else f"{count / 2**20:.0f} MiB"


# Further columns of a table: head -> what to write of a peer.
Columns = Mapping[str, Callable[[Measured], str]]


def table(
    found: Mapping[str, Measured], missing: Mapping[str, str], columns: Columns | None = None
) -> str:
    """One row per peer; the first is the reference."""
    reference = next(iter(found.values()))
    columns = {
        "ms/step": lambda peer: milliseconds(peer.seconds),
        "steps/s": lambda peer: f"{1 / peer.seconds:,.{0 if peer.seconds < 0.1 else 1}f}",
        "time / ours": lambda peer: f"{ratio(peer, reference):.2f}",
        "peak memory": lambda peer: mebibytes(peer.peak_memory),
        **(columns or {}),
        "differs by": lambda peer: (
            "not compared" if peer.differs_by is None else f"{peer.differs_by:.0e}"
        ),
    }
    rows = [("", *columns)]
    rows += [(name, *(write(peer) for write in columns.values())) for name, peer in found.items()]
    rows += [(name, reason, *[""] * (len(columns) - 1)) for name, reason in missing.items()]
    return align(rows)


def align(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table: the first row is the head, the first column flush left, others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = tuple("-" * (width - (n > 0)) + ":" * (n > 0) for n, width in enumerate(widths))
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(word.rjust(width) for word, width in others)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
