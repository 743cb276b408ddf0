r"""Count the kernels per time step that XLA makes of a recurrent layer on a GPU, without a GPU.

    python -m scripts.count_kernels                             LSTM, T=64, B=128, H=D=256
    python -m scripts.count_kernels --case=order --names        a GRU; names the kernels of a loop
    python -m scripts.count_kernels --schedule=step --unroll=1

The loss Σ hs R of a case of `python -m scripts.benchmark rnn`, ragged mask included, and its
gradients are compiled ahead of time for an H200. On a GPU the time of a small step is the time to
start its kernels, so their number predicts it; `ln.fused.ACCELERATOR` was chosen by it. For each
loop the command prints the kernels and copies of a turn, which makes --unroll time steps, and the
kernels per time step. Copies move memory without a kernel. Matrix products are compiled without
autotuning, so on a real GPU one may become another kernel, or two.

It needs Python 3.12 and a separate environment of 5 GB: pip install "jax[cuda13]==0.11.2", and the
other packages of requirements.txt. Other versions may write the list of kernels differently.
"""

from collections.abc import Iterator
import importlib.util
import os
from pathlib import Path
import re
import tempfile
from typing import NamedTuple

from absl import flags

from ln.errors import InputError, choose
from scripts import cli
from scripts.benchmarks.rnn import CASES, Case, describe

CASE = flags.DEFINE_string("case", "draw", "case of the benchmark rnn")
SCHEDULE = flags.DEFINE_enum("schedule", "ahead", ["ahead", "step", "plain"], "of ln.rnn.unroll")
UNROLL = flags.DEFINE_integer("unroll", None, "time steps per turn of a loop", lower_bound=1)
COPIES = flags.DEFINE_integer("copies", 1, "of the parameters, vmapped: lanes", lower_bound=1)
NAMES = flags.DEFINE_bool("names", False, "lists the kernels of every loop in their order")

PLUGIN = "jax_plugins.xla_cuda13"

H200 = Path(__file__).with_name("h200.txtpb")  # its data sheet, as a protocol buffer


# --- The list of kernels of a compiled program ---

# A line of it: indentation, number, kind, [its neighbours], name. Kinds that only contain others:
HOLDERS = ("kCommandBuffer", "kWhile", "kSequential", "kConditional", "kDynamicSliceFusion")
WAITS = ("kAsyncStart", "kAsyncDone", "kWaitForStreams")
COPIES = ("kCopy", "kCopyDone")
ITEM = re.compile(r"(?P<indent> *)\d+: (?P<kind>k\w+) +\[[^\]]*\] *(?P<name>\S*)")
PART = re.compile(r"(?P<indent> *)(?P<part>condition|body):")


class Section(NamedTuple):
    """The kernels and copies of one turn of a loop, or of the program outside of its loops."""

    kernels: list[str]
    copies: list[str]


def lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the indentation, kind and name of each line that has them.

    The kinds of a loop's parts are "condition" and "body".
    """
    above = 0
    for line in text.splitlines():
        if match := ITEM.match(line):
            above = len(match["indent"])
            yield above, match["kind"], match["name"]
        elif match := PART.match(line):
            # Both belong under the loop just read, but a condition is never indented.
            yield len(match["indent"]) if match["part"] == "body" else above + 2, match["part"], ""


def read_sections(text: str) -> tuple[Section, list[Section]]:
    """Return the program outside of its loops, and the bodies of its loops, in order.

    A kernel of a loop inside a loop counts for the inner one alone. The condition of a loop with a
    known number of turns is never run.
    """
    outside = Section([], [])
    bodies: list[Section] = []
    inside = [(-1, outside)]  # the sections around the line, each with its indentation
    for indent, kind, name in lines(text):
        while indent <= inside[-1][0]:
            inside.pop()
        if kind in ("condition", "body"):
            inside.append((indent, Section([], [])))
            if kind == "body":
                bodies.append(inside[-1][1])
        elif kind in COPIES:
            inside[-1][1].copies.append(name)
        elif kind not in HOLDERS + WAITS:
            inside[-1][1].kernels.append(name)
    return outside, bodies


# --- Compiling ---


def compile_for_h200(case: Case, schedule, lanes: int) -> str:
    """Compile loss and gradients of a case; return the list of kernels."""
    import jax
    from jax.experimental import topologies
    import jax.numpy as jnp

    from scripts.benchmarks import rnn_jax

    device = topologies.get_topology_desc(
        platform="cuda", target_config=H200.read_text(), topology="1x1x1"
    )
    mesh = topologies.make_mesh(device, (1,), ("device",))
    everywhere = jax.NamedSharding(mesh, jax.sharding.PartitionSpec())

    function, arguments = rnn_jax.gradients(case, *rnn_jax.ours(case, schedule), lanes)
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(jnp.shape(a), a.dtype, sharding=everywhere), arguments
    )
    with tempfile.TemporaryDirectory() as folder:
        jax.jit(function).lower(*shapes).compile(compiler_options={"xla_dump_to": folder})
        lists = sorted(Path(folder).glob("*thunk_sequence_after_thunk_passes.txt"))
        if len(lists) != 1:
            raise InputError(f"jax {jax.__version__} writes no list of kernels; 0.11.2 does.")
        return lists[0].read_text()


def make_schedule(name: str, unroll: int | None):
    """Return the schedule for `unroll`, and the time steps per turn.

    Raises:
        InputError: the plain schedule has one.
    """
    if name == "plain":
        if unroll not in (None, 1):
            raise InputError(f"--schedule=plain makes one time step per turn: no --unroll={unroll}")
        return "plain", 1
    from ln import fused

    schedule = fused.Schedule(unroll or fused.ACCELERATOR.unroll, ahead=name == "ahead")
    return schedule, schedule.unroll


def report(text: str, case: Case, steps: int, names: bool) -> None:
    """Print a line per loop: forward loops come first, one per layer."""
    outside, bodies = read_sections(text)
    if len(bodies) != 2 * case.layers:
        print(f"There are {len(bodies)} loops, not one forward and one backward per layer.")
    for n, body in enumerate(bodies):
        way = "forward" if n < len(bodies) / 2 else "backward"
        print(
            f"{way}: {len(body.kernels)} kernels and {len(body.copies)} copies per turn of {steps} "
            f"time step(s): {len(body.kernels) / steps:.1f} kernels per time step"
        )
        if names:
            print("".join(f"    {name}\n" for name in body.kernels), end="")
    print(f"outside of the loops: {len(outside.kernels)} kernels and {len(outside.copies)} copies")


def main(argv):
    if len(argv) != 1:
        raise InputError(f"Unknown argument {argv[1]!r}: there are only flags; --help lists them.")
    case = choose("case of rnn", CASE.value, CASES)
    os.environ["JAX_PLATFORMS"] = "cpu"  # before jax looks for a GPU
    schedule, steps = make_schedule(SCHEDULE.value, UNROLL.value)
    if importlib.util.find_spec("jax_plugins") is None or not importlib.util.find_spec(PLUGIN):
        raise InputError(
            "jax's CUDA plugin is not installed here. Python 3.12 and a separate environment with "
            '"jax[cuda13]==0.11.2" are needed, but no GPU; --help says more.'
        )
    lanes = f", {COPIES.value} lanes" if COPIES.value > 1 else ""
    print(f"{describe(case)}{lanes}; schedule {SCHEDULE.value}, {steps} step(s) a turn", flush=True)
    report(compile_for_h200(case, schedule, COPIES.value), case, steps, NAMES.value)


if __name__ == "__main__":
    cli.run(main, positional=True)
