r"""Count the kernels that XLA makes of a training step on a GPU, without a GPU.

    python -m scripts.count_kernels --experiment=draw      64 glimpses, 2 minutes

The trainer's call is compiled ahead of time for an H200. On a GPU the time of a small step is the
time to start its kernels, so their number predicts it; `ln.fused.ACCELERATOR` was chosen by it. For
each loop the command prints the kernels and copies of a turn, which makes several time steps, and
the number of turns. Copies move memory without a kernel. Matrix products are compiled without
autotuning, so on a real GPU one may become another kernel, or two.

It needs Python 3.12 and a separate environment of 5 GB: pip install "jax[cuda13]==0.11.2", and the
other packages of requirements.txt.
"""

import dataclasses
from functools import partial
import importlib.util
import os
from pathlib import Path
import re
import tempfile
from unittest import mock

from absl import flags

from ln.errors import InputError
from scripts import cli

EXPERIMENT = flags.DEFINE_string("experiment", None, "the name of a file in configs/")
SCALE = flags.DEFINE_string("scale", "paper", "of the experiment")

PLUGIN = "jax_plugins.xla_cuda13"

H200 = Path(__file__).with_name("h200.txtpb")  # its data sheet, as a protocol buffer


# --- The compiled program: blocks of instructions, the body of a loop before the loop ---

BLOCK = re.compile(r"(?:ENTRY )?%(\S+) .*\{$")
INSTRUCTION = re.compile(r" +(?:ROOT )?%\S+ = .*? ([a-z-]+)\(")
BODY = re.compile(r"body=%([\w.-]+)")
TURNS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
STEPS = re.compile(r"(\d+)_steps_per_turn/while")
COPIES_MEMORY = ("copy", "copy-start", "fusion-start")  # the last one from a computed place
UPDATES = "training steps"  # the loop over them
NO_KERNEL = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast")


@dataclasses.dataclass
class Block:
    """The body of a loop, or the program itself.

    Attributes:
        way: "forward", "backward" or, around these, UPDATES; "" for the program.
        turns: of the loop; 1 if their number is unknown.
        steps: time steps of a turn.
        kernels, copies: their numbers in a turn, without those of the loops inside.
        inside: the loops in it.
    """

    way: str = ""
    turns: int = 1
    steps: int = 1
    kernels: int = 0
    copies: int = 0
    inside: list["Block"] = dataclasses.field(default_factory=list)

    @property
    def launches(self) -> int:
        """Return the number of kernels of all turns, with those of the loops inside."""
        return self.turns * (self.kernels + sum(loop.launches for loop in self.inside))


def way(line: str) -> str:
    """Return what a loop is for, by the functions in which it was traced."""
    if "transpose(" in line:
        return "backward"
    return "forward" if "jvp(" in line else UPDATES


def number(pattern: re.Pattern, line: str) -> int:
    """Return the number that a pattern finds in a line, 1 if there is none."""
    match = pattern.search(line)
    return int(match[1]) if match else 1


def read_program(text: str) -> list[Block]:
    """Return the loops of a compiled program in their order, and the program itself as the last.

    The branches of conditionals do not count.
    """
    blocks, loops = {}, []
    for line in text.splitlines():
        if match := BLOCK.match(line):
            block = blocks[match[1]] = Block()
        elif match := INSTRUCTION.match(line):
            kind = match[1]
            if kind == "while":
                loop, loop.way = blocks[BODY.findall(line)[0]], way(line)
                loop.turns, loop.steps = number(TURNS, line), number(STEPS, line)
                block.inside.append(loop)
                loops.append(loop)
            elif kind in COPIES_MEMORY:
                block.copies += 1
            elif kind not in NO_KERNEL and not kind.endswith("-done"):
                block.kernels += 1
    return [*loops, block]


def report(text: str, updates: int) -> None:
    """Print a line for each loop, and the kernels of an update."""
    *loops, program = read_program(text)
    for loop in loops:
        line = f"{loop.way}: {loop.kernels} kernels and {loop.copies} copies a turn"
        if loop.way != UPDATES:
            line += f" of {loop.steps} time step(s), {loop.kernels / loop.steps:.1f} kernels a step"
        print(f"{line}; {loop.turns} turn(s)")
    print(f"{program.launches / updates:,.0f} kernels an update")


# --- Compiling ---


def compile_for_h200(jitted, arguments) -> str:
    """Return the text of the compiled program."""
    import jax
    from jax.experimental import topologies

    target = dict(target_config=H200.read_text(), topology="1x1x1")
    topology = topologies.get_topology_desc(platform="cuda", **target)
    mesh = topologies.make_mesh(topology, (1,), ("device",))
    everywhere = jax.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shaped = partial(jax.ShapeDtypeStruct, sharding=everywhere)
    shapes = jax.tree.map(lambda a: shaped(a.shape, a.dtype), arguments)
    return jitted.lower(*shapes).compile().as_text()


def main(_):
    """Compile the training step that the flags choose, and print its kernels."""
    if EXPERIMENT.value is None:
        raise InputError("Give --experiment=NAME; --help has examples.")
    os.environ["JAX_PLATFORMS"] = "cpu"  # before jax looks for a GPU
    from ln import fused
    from scripts.benchmarks import jax_peers, step

    # jax itself runs on a CPU here, for which the default is another schedule.
    schedule = mock.patch.object(fused, "default", return_value=fused.ACCELERATOR)
    with tempfile.TemporaryDirectory() as folder, schedule:
        config = step.make_config(folder, EXPERIMENT.value, SCALE.value)
        if importlib.util.find_spec("jax_plugins") is None or not importlib.util.find_spec(PLUGIN):
            raise InputError('Install "jax[cuda13]==0.11.2" in another environment; see --help.')
        print(f"{EXPERIMENT.value}, {SCALE.value}", flush=True)
        text = compile_for_h200(*jax_peers.trainer_call(config, jax_peers.load(config)))
    report(text, config.steps_per_call)


if __name__ == "__main__":
    cli.run(main)
