"""Run peers in separate processes, compare what they compute, then time them in turn."""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
import contextlib
import importlib
import importlib.util
import multiprocessing
import os
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
LOSS = "the loss"

SIDE = 2048  # of the square matrices whose product shows what the machine can do
PEAKS = (f"{SIDE}³, jax", f"{SIDE}³, PyTorch")


# --- Peers, each in its own process ---


class Peer:
    """One implementation. It is made and used in its own process, from arguments that pickle."""

    def losses(self, count: int) -> list[float]:
        """Return the losses of the first steps, of so many or fewer.

        It is called once, before the other methods. A peer that computes something else on purpose
        returns nothing: it is timed and not compared.
        """
        return []

    def gradients(self) -> dict[str, np.ndarray]:
        """Return the gradients at the start, by names that all peers share; or none."""
        return {}

    def rounding(self) -> dict[str, float]:
        """Return by how much the loss and each gradient change if the weights are rounded anew.

        A chaotic model may differ from itself by that much. Relative, as in `Reference.check`.
        """
        return {}

    def run(self, steps: int) -> int:
        """Make that many steps or a few more; return how many, once they are all computed."""
        raise NotImplementedError

    def seconds_per_step(self, steps: int) -> float:
        began = time.perf_counter()
        done = self.run(steps)
        return (time.perf_counter() - began) / done

    def steps_within(self, seconds: float) -> int:
        """Return about how many steps take that long."""
        steps = 1
        while (each := self.seconds_per_step(steps)) * steps < seconds / 4:
            steps *= 2
        return max(1, round(seconds / each))

    def facts(self) -> dict[str, float]:
        """Return further numbers for the file and for columns of the table."""
        return {}

    def peak_memory(self) -> int | None:
        """Return the bytes of this process, libraries included; None if the system has no count."""
        if resource is None:
            return None
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve(connection, make: Callable[[], Peer]) -> None:
    """Make a peer in its process, and call the methods that the pipe asks for until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    with contextlib.suppress(EOFError):
        peer = make()
        while True:
            method, *arguments = connection.recv()
            connection.send(getattr(peer, method)(*arguments))


class Remote:
    """A peer in its own process; ``remote(method, ...)`` calls a method and waits."""

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
    """Return function(*arguments), computed in a process that ends afterwards.

    The process that starts the peers therefore never imports jax, nor starts its threads.
    """
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(function, *arguments).result()


def make(module: str, name: str, *arguments, **options) -> Peer:
    """Make a peer of a module, such as rnn_jax, that only the peer's process imports."""
    kind = getattr(importlib.import_module(f"scripts.benchmarks.{module}"), name)
    return kind(*arguments, **options)


def choose_device() -> str:
    """Return what jax runs on, such as "cpu" or "gpu". Call it before peers are made."""
    device = in_process(backend)
    if device == "gpu":  # or the first process would take it all
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return device


def backend() -> str:
    import jax

    return jax.default_backend()


def torch_missing(device: str) -> str | None:
    """Return why PyTorch cannot be timed on this device; None if it can."""
    if importlib.util.find_spec("torch") is None:
        return "not installed: pip install torch"
    if device == "gpu" and not in_process(torch_sees_a_gpu):
        return "installed without CUDA"
    return None


def torch_sees_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


# --- Comparing ---


class Timing(NamedTuple):
    """The length of a measurement."""

    rounds: int
    seconds: float  # of one round of one peer


class Measured(NamedTuple):
    """The measurements of a peer."""

    losses: list[float]
    seconds_per_step: list[float]  # by round
    peak_memory: int | None
    differs_by: float | None = None  # relative to the reference; None: not compared
    facts: Mapping[str, float] = {}

    @property
    def seconds(self) -> float:
        """Return the time of a step, the median over the rounds."""
        return statistics.median(self.seconds_per_step)


def difference(losses: list[float], reference: list[float]) -> float:
    """Return the largest difference of losses, relative to the largest loss: one may be near 0."""
    return float(np.max(np.abs(np.subtract(losses, reference))) / np.max(np.abs(reference)))


def gradients_differ(
    gradients: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Return the largest difference of each gradient, relative to its largest element.

    Gradients that are zero but for rounding, such as that of a bias under a norm, are compared with
    a thousandth of the largest element of all.

    Raises:
        ValueError: the names or shapes differ.
    """
    shapes, wanted = ({k: np.shape(d) for k, d in g.items()} for g in (gradients, reference))
    if shapes != wanted:
        raise ValueError(f"The gradients are {shapes}, where they should be {wanted}")
    size = {name: np.max(np.abs(d)) for name, d in reference.items()}
    least = 1e-3 * max(size.values(), default=0)
    return {
        name: float(np.max(np.abs(gradients[name] - d)) / max(size[name], least))
        for name, d in reference.items()
    }


class Reference(NamedTuple):
    """The numbers that a peer must reproduce."""

    name: str
    losses: list[float]
    gradients: dict[str, np.ndarray]
    rounding: Mapping[str, float] = {}  # see `Peer.rounding`

    def check(self, name: str, losses: list[float], gradients: dict[str, np.ndarray]) -> float:
        """Return by how much a peer differs.

        Raises:
            RuntimeError: it computes something else.
        """
        steps = min(len(losses), len(self.losses))
        differences = {LOSS: difference(losses[:steps], self.losses[:steps])}
        differences |= gradients_differ(gradients, self.gradients) if gradients else {}
        for what, much in differences.items():
            if not much <= max(TOLERANCE, 10 * self.rounding.get(what, 0)):  # NaN is none
                raise RuntimeError(
                    f"{name!r} computes something else: {what} differs by {much:.0e}; "
                    f"losses {losses}, where {self.name!r} has {self.losses}"
                )
        return max(differences.values())


def compare(
    case: str,
    peers: Mapping[str, Callable[[], Peer]],
    timing: Timing,
    together: bool = True,
) -> dict[str, Measured]:
    """Check and time peers, all of them alive at once, in interleaved rounds A B C A B C ...

    Args:
        case: for the progress lines.
        peers: name -> the function that makes the peer in its process. The first peer is the
            reference.
        together: False if the memory does not hold all peers: then each is alive alone and has its
            rounds in a row, A A B B C C.

    Raises:
        RuntimeError: a peer computes something else than the reference, or fails.
    """
    reference = None
    measured: dict[str, Measured] = {}
    groups = [peers] if together else [{name: make} for name, make in peers.items()]
    for group in groups:
        with contextlib.ExitStack() as stack:
            remotes: dict[str, Remote] = {}
            for name, make in group.items():  # one by one, so that none compiles beside another
                print(f"{case}: starting {name}", flush=True)
                remotes[name] = remote = stack.enter_context(Remote(name, make))
                losses, differs_by = remote("losses", 4), None  # after 0, 1, 2, 3 steps
                if losses:
                    gradients = remote("gradients")
                    reference = reference or Reference(name, losses, gradients, remote("rounding"))
                    differs_by = reference.check(name, losses, gradients)
                measured[name] = Measured(losses, [], None, differs_by)
            steps = {
                name: remote("steps_within", timing.seconds) for name, remote in remotes.items()
            }
            for number in range(1, timing.rounds + 1):
                print(f"{case}: round {number} of {timing.rounds}", flush=True)
                for name, remote in remotes.items():
                    seconds = remote("seconds_per_step", steps[name])
                    measured[name].seconds_per_step.append(seconds)
            for name, remote in remotes.items():
                more = dict(peak_memory=remote("peak_memory"), facts=remote("facts"))
                measured[name] = measured[name]._replace(**more)
    return measured


def ratio(a: Measured, b: Measured) -> float:
    """Return the time of a step of a, in steps of b: the median of the ratios of all rounds."""
    pairs = zip(a.seconds_per_step, b.seconds_per_step, strict=True)
    return statistics.median(x / y for x, y in pairs)


def milliseconds(seconds: float) -> str:
    """Format a time with three digits, or all digits before the point."""
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def mebibytes(count: float | None) -> str:
    return "unknown" if count is None else f"{count / 2**20:.0f} MiB"


# Further columns of a table: head -> the text of a cell.
Columns = Mapping[str, Callable[[Measured], str]]


def table(
    measured: Mapping[str, Measured], missing: Mapping[str, str], columns: Columns | None = None
) -> str:
    """Return a table with a row for each peer; the first is the reference."""
    reference = next(iter(measured.values()))
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
    rows += [
        (name, *(write(peer) for write in columns.values())) for name, peer in measured.items()
    ]
    rows += [(name, reason, *[""] * (len(columns) - 1)) for name, reason in missing.items()]
    return align(rows)


def align(rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table: a head, then rows; the first column is flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = tuple("-" * (width - (n > 0)) + ":" * (n > 0) for n, width in enumerate(widths))
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(word.rjust(width) for word, width in others)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def as_dicts(measured: Mapping[str, Measured]) -> dict:
    return {label: peer._asdict() for label, peer in measured.items()}


# --- The share of the matrix products ---


def flops_per_second(square: Measured) -> float:
    return 2 * SIDE**3 / square.seconds


def possible_flops(measured: Mapping[str, Measured]) -> float:
    """Return the best rate of PEAKS."""
    return max(flops_per_second(measured[label]) for label in PEAKS if label in measured)


def show(title: str, measured: Mapping[str, Measured], missing: Mapping[str, str]) -> dict:
    """Print the table of peers, and the share of ours that its matrix products need at the peak.

    Args:
        measured: ours first, other peers, and at least one of PEAKS.
        missing: see `table`.

    Returns:
        The numbers for the file.
    """
    possible = possible_flops(measured)
    peaks = {label: peer for label, peer in measured.items() if label in PEAKS}
    shown = {label: peer for label, peer in measured.items() if label not in PEAKS}
    ours = next(iter(shown.values()))
    work = ours.facts["matmul_flops"]
    print(f"\n{title}\n\n{table(shown, missing, flops_columns(work, possible))}")
    rates = (f"{label} {flops_per_second(peak) / 1e9:.0f}" for label, peak in peaks.items())
    print(
        f"\nThe matrix products of ours are {work / 1e9:.3g} GFLOP. At {possible / 1e9:.0f} GFLOP/s"
        f" ({', '.join(rates)}) they would take {work / possible / ours.seconds:.0%} of its time."
    )
    if ours.facts.get("while_loops"):
        print(
            f"{ours.facts['while_loops']} loop(s) have a length that depends on the data: they "
            "count as one turn each, so the true number of FLOP and the share are larger."
        )
    print(flush=True)
    return dict(matmul_flops=work, peaks=as_dicts(peaks), peers=as_dicts(shown))


def flops_columns(work: float, possible: float) -> Columns:
    """Return the columns of the rate, and of what compiling needed.

    Args:
        work: FLOP of ours, which those peers are credited with that do not count their own.
        possible: FLOP per second.
    """

    def share(peer: Measured) -> str:
        return f"{peer.facts.get('matmul_flops', work) / peer.seconds / possible:.0%}"

    def temporary(peer: Measured) -> str:
        return mebibytes(peer.facts["temporary_bytes"]) if "temporary_bytes" in peer.facts else ""

    def compiling(peer: Measured) -> str:
        return f"{peer.facts['compiling']:.1f} s" if "compiling" in peer.facts else ""

    return {"of the peak": share, "temporary (XLA)": temporary, "compiling": compiling}
