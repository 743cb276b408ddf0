"""What every benchmark does: peers in processes of their own, compared, then timed in turn."""

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

SIDE = 2048  # of the square matrices whose product shows what the machine can do
PRODUCTS = "the matrix products alone"
PEAKS = (f"{SIDE}³, jax", f"{SIDE}³, PyTorch")


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


def make(module: str, name: str, *arguments, **options) -> Peer:
    """Makes a peer of rnn_jax, say, in its own process: what that imports stays there."""
    kind = getattr(importlib.import_module(f"scripts.benchmarks.{module}"), name)
    return kind(*arguments, **options)


def choose_device() -> str:
    """What jax runs on, such as "cpu" or "gpu"; to be called before peers are made."""
    device = in_process(backend)
    if device == "gpu":  # else the first process takes the memory of all
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return device


def backend() -> str:
    import jax

    return jax.default_backend()


def torch_missing(device: str) -> str | None:
    """Why there is no PyTorch to compare with on this device."""
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
    case: str,
    peers: Mapping[str, Callable[[], Peer]],
    timing: Timing,
    references: Mapping[str, str] | None = None,
    together: bool = True,
) -> dict[str, Measured]:
    """Checks and times peers, all alive at once, in interleaved rounds A B C A B C ...

    Args:
        case: for the progress lines.
        peers: name -> what makes the peer, to be called in its process. The first is the reference.
        references: name -> another reference, itself or an earlier peer, for those that compute
            something else than the first one on purpose.
        together: else one is alive at a time and has all of its rounds, A A B B C C: where the
            memory does not hold all of them.

    Raises:
        RuntimeError: a peer computes something else than its reference, or fails.
    """
    references, found = references or {}, {}
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
                    peer = Reference(name, losses, remote("gradients"))
                    if not found or name in references.values():  # gradients may be large
                        found[name] = peer
                    differs_by = found[references.get(name, next(iter(found)))].check(*peer)
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


def ratios(a: Measured, b: Measured) -> list[float]:
    """Time of a step of a, in steps of b, by round."""
    return [x / y for x, y in zip(a.seconds_per_step, b.seconds_per_step, strict=True)]


def ratio(a: Measured, b: Measured) -> float:
    """The median of `ratios`."""
    return statistics.median(ratios(a, b))


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


def as_dicts(measured: Mapping[str, Measured]) -> dict:
    return {label: peer._asdict() for label, peer in measured.items()}


# --- What the matrix products are of it ---


def flops_per_second(square: Measured) -> float:
    return 2 * SIDE**3 / square.seconds


def possible_flops(measured: Mapping[str, Measured]) -> float:
    """Per second: the best of PEAKS."""
    return max(flops_per_second(measured[label]) for label in PEAKS if label in measured)


def show_with_products(
    title: str, measured: Mapping[str, Measured], missing: Mapping[str, str], work: int
) -> dict:
    """Prints the table, and what of ours' time is matrix products.

    Args:
        measured: ours, other peers, PRODUCTS and at least one of PEAKS.
        missing: see `table`.
        work: flops of the matrix products of a step.

    Returns:
        All of it for the file.
    """
    possible = possible_flops(measured)
    peaks = {label: peer for label, peer in measured.items() if label in PEAKS}
    shown = {label: peer for label, peer in measured.items() if label not in PEAKS}
    print(f"\n{title}\n\n{table(shown, missing, products_columns(work, possible))}")
    products = shown.pop(PRODUCTS)
    print_limits(work, peaks, possible, shown["ours"], products)
    return dict(
        matmul_flops=work,
        peaks=as_dicts(peaks),
        products=products._asdict(),
        peers=as_dicts(shown),
    )


def print_limits(
    work: int, peaks: Mapping[str, Measured], possible: float, ours: Measured, products: Measured
) -> None:
    """What of ours' time is matrix products: at the peak, and in their own shapes and loops."""
    found = (f"{label} {flops_per_second(peak) / 1e9:.0f}" for label, peak in peaks.items())
    print(
        f"\nThe matrix products are {work / 1e9:.3g} GFLOP. At {possible / 1e9:.0f} GFLOP/s, the "
        f"best of {' and '.join(found)}, they would take {work / possible / ours.seconds:.0%} of "
        f"ours; alone, in the same shapes and loops, they take {ratio(products, ours):.0%}.\n",
        flush=True,
    )


def products_columns(work: int, possible: float) -> Columns:
    """How much of the possible flops per second is reached; what XLA needed and how long it took.

    Peers that compute less, such as those without norm, have the same matrix products.
    """

    def temporary(peer: Measured) -> str:
        return mebibytes(peer.facts["temporary_bytes"]) if "temporary_bytes" in peer.facts else ""

    def compiling(peer: Measured) -> str:
        return f"{peer.facts['compiling']:.1f} s" if "compiling" in peer.facts else ""

    return {
        "of the peak": lambda peer: f"{work / peer.seconds / possible:.0%}",
        "temporary (XLA)": temporary,
        "compiling": compiling,
    }
