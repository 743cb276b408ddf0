r"""Counts the kernels per time step that XLA makes of a recurrent layer on a GPU, without a GPU.

    python -m scripts.count_kernels                             LSTM, T=64, B=128, H=D=256
    python -m scripts.count_kernels --case=order --names        a GRU; names the kernels of a loop
    python -m scripts.count_kernels --schedule=step --unroll=1

The loss Σ hs R of a case of `python -m scripts.benchmark rnn`, ragged mask included, and its
gradients are compiled ahead of time for an H200. On a GPU small steps cost what starting their
kernels costs, so their number tells what the time will be; `ln.fused.ACCELERATOR` was chosen by it.
For each loop it says how many kernels and copies a turn has, and how many that is per time step: a
turn makes --unroll steps. Copies are memory moved without a kernel. Matrix products are compiled
without trying them out, so on the machine one may become another kernel, or two.

Python 3.12 and an own environment are needed, 5 GB: pip install "jax[cuda13]==0.11.2", and what
requirements.txt asks for besides jax. Other versions may write the list of kernels differently.
"""

from collections.abc import Iterator
import importlib.util
import json
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

# What a compiler has to know of an H200 (SXM, compute capability 9.0), from its data sheet and the
# CUDA programming guide's table of compute capabilities.
H200 = dict(
    gpu_device_info=dict(
        cuda_compute_capability=dict(major=9, minor=0, feature_extension=2),  # sm_90a
        core_count=132,
        fpus_per_core=128,
        clock_rate_ghz=1.98,
        device_memory_size=141 * 10**9,
        memory_bandwidth=4800 * 10**9,
        l2_cache_size=50 * 2**20,
        shared_memory_per_core=228 * 2**10,
        shared_memory_per_block=48 * 2**10,
        shared_memory_per_block_optin=227 * 2**10,
        registers_per_core_limit=2**16,
        registers_per_block_limit=2**16,
        threads_per_warp=32,
        threads_per_block_limit=1024,
        threads_per_core_limit=2048,
        thread_dim_limit_x=1024,
        thread_dim_limit_y=1024,
        thread_dim_limit_z=64,
        block_dim_limit_x=2**31 - 1,
        block_dim_limit_y=2**16 - 1,
        block_dim_limit_z=2**16 - 1,
        driver_version="13.0.0",
        runtime_version="13.0.0",
        compile_time_toolkit_version="13.0.0",
    ),
    platform_name="CUDA",
)


def text_proto(fields: dict) -> str:
    """A protocol buffer as text."""
    parts = (
        f"{name} {{ {text_proto(value)} }}"
        if isinstance(value, dict)
        else f"{name}: {json.dumps(value)}"
        for name, value in fields.items()
    )
    return " ".join(parts)


# --- The list of what a compiled program starts ---

# A line of it: indentation, number, kind, [what it waits for], name. Those that only hold others:
HOLDERS = ("kCommandBuffer", "kWhile", "kSequential", "kConditional", "kDynamicSliceFusion")
WAITS = ("kAsyncStart", "kAsyncDone", "kWaitForStreams")
COPIES = ("kCopy", "kCopyDone")
ITEM = re.compile(r"(?P<indent> *)\d+: (?P<kind>k\w+) +\[[^\]]*\] *(?P<name>\S*)")
PART = re.compile(r"(?P<indent> *)(?P<part>condition|body):")


class Section(NamedTuple):
    """What one turn of a loop starts, or the program outside of its loops; by name, in order."""

    kernels: list[str]
    copies: list[str]


def lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Indentation, kind, and name of each line; the kind of a loop's parts is "condition", "body".

    Others, such as empty ones, are left out.
    """
    above = 0
    for line in text.splitlines():
        if found := ITEM.match(line):
            above = len(found["indent"])
            yield above, found["kind"], found["name"]
        elif found := PART.match(line):
            # Both belong under the loop just read, but a condition stands at the left edge always.
            yield len(found["indent"]) if found["part"] == "body" else above + 2, found["part"], ""


def read_sections(text: str) -> tuple[Section, list[Section]]:
    """The program outside of its loops, and the bodies of its loops, as they come.

    What a loop inside a loop starts counts for the inner one alone. The condition of a loop with a
    known number of turns is never run.
    """
    outside = Section([], [])
    bodies: list[Section] = []
    inside = [(-1, outside)]  # of which sections the line is part, with the indentation of each
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
    """Loss and gradients of a case as the list of what the compiled program starts."""
    import jax
    from jax.experimental import topologies
    import jax.numpy as jnp

    from scripts.benchmarks import rnn_jax

    one = topologies.get_topology_desc(
        platform="cuda", target_config=text_proto(H200), topology="1x1x1"
    )
    everywhere = jax.NamedSharding(
        topologies.make_mesh(one, (1,), ("device",)), jax.sharding.PartitionSpec()
    )

    function, arguments = rnn_jax.gradients(case, *rnn_jax.ours(case, schedule), lanes)
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(jnp.shape(a), a.dtype, sharding=everywhere), arguments
    )
    with tempfile.TemporaryDirectory() as folder:
        jax.jit(function).lower(*shapes).compile(compiler_options={"xla_dump_to": folder})
        found = sorted(Path(folder).glob("*thunk_sequence_after_thunk_passes.txt"))
        if len(found) != 1:
            raise InputError(f"jax {jax.__version__} leaves no list of kernels; 0.11.2 does.")
        return found[0].read_text()


def make_schedule(name: str, unroll: int | None):
    """What `unroll` takes, and the time steps per turn.

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
    """Prints a line per loop: forward loops come first, one per layer."""
    outside, bodies = read_sections(text)
    if len(bodies) != 2 * case.layers:
        print(f"There are {len(bodies)} loops, and not one forward and one backward per layer.")
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
        raise InputError(f"What is {argv[1]!r}? There are only flags; --help lists them.")
    case = choose("case of rnn", CASE.value, CASES)
    os.environ["JAX_PLATFORMS"] = "cpu"  # before jax looks for a GPU
    schedule, steps = make_schedule(SCHEDULE.value, UNROLL.value)
    if importlib.util.find_spec("jax_plugins") is None or not importlib.util.find_spec(PLUGIN):
        raise InputError(
            "jax's CUDA plugin is not installed here. Python 3.12 and an own environment with "
            '"jax[cuda13]==0.11.2" are needed, but no GPU; --help says more.'
        )
    lanes = f", {COPIES.value} lanes" if COPIES.value > 1 else ""
    print(f"{describe(case)}{lanes}; schedule {SCHEDULE.value}, {steps} step(s) a turn", flush=True)
    report(compile_for_h200(case, schedule, COPIES.value), case, steps, NAMES.value)


if __name__ == "__main__":
    cli.run(main)
