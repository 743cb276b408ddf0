r"""Measure speed and memory side by side with other implementations of the same computation.

    python -m scripts.benchmark --out=results/speed          all tables of docs/speed.md, 90 minutes
    python -m scripts.benchmark step --case=draw             a training step, 5 minutes
    python -m scripts.benchmark rnn                          layers on whole sequences, 15 minutes
    python -m scripts.benchmark start reproduce              commands by parts, 20 minutes
    python -m scripts.benchmark rnn --case=tiny --quick      a check that it works, no more

First each implementation must compute the same loss and gradients as ours from the same weights and
batch. Then all are timed in turn, round after round, so that other work slows all of them. A table
shows the median time of a step, and its ratio to that of the first implementation within each
round: median, lowest and highest. An implementation that fails, or computes something else, is
named and left out.

rnn times forward and backward of a ragged batch of sequences with layer norm at x, h and c. Cases:
draw (LSTM, T=64, B=128, H=D=256), handwriting (three LSTMs, T=400, B=8, H=400, D=460), reader
(LSTM, T=300, B=64, H=D=240), order (GRU, T=30, B=128, H=1024, D=300), pixels (LSTM, T=784, B=64,
H=100, D=1). The other implementations are in Flax (nn.scan of a cell) and PyTorch (eager, and by
torch.jit.script); PyTorch's own layer, without norm and mask, is not compared.

step times a training step of each experiment in configs/: ours, with the norm of the config or
--norm; the same with plain autodiff of its recurrent layers; ours without norm; and for mnist, also
at batch size 4 and in small, Flax with Optax, and PyTorch. "the trainer" is the whole training loop
around the first of them, without evaluations and checkpoints, of experiments whose batches have one
shape; its rounds are ten times as long. At --scale=paper data sets have random
numbers in the paper's sizes; so have mnist and digits at all scales; other built-in data sets are
read from --data_dir. All texts are as long as the longest. GFLOP/s counts matrix products and
convolutions. If the memory does not hold all peers (skip_thoughts needs 20 GB), choose one with
--peer. lanes times several seeds in one program. memory compiles the training steps, and reports
their temporary arrays; no other work disturbs it. device compares loss and gradients of each tiny
experiment and norm on this device with those on the CPU, such as --case=draw-layer.

start times each run of scripts.train from the start of its process to the end of its first call,
first without compiled programs, then --rounds times with them. reproduce times one run of each
experiment as make reproduce trains it, and in --case=whole all of make reproduce: in an empty
folder, then again. "compiling" includes reading compiled programs.

--out=DIR stores each row in DIR/<benchmark>.json, with commit, load and variables. Rows of peers
that are not measured, such as PyTorch's where it is not installed, stay; rows that the benchmark no
longer has are removed. In results/speed the tables of docs/speed.md are written anew.

All implementations of a case run in one process, so allocator, threads and XLA flags are the same.
glibc by default returns large arrays to the system after every call and pages them in
again, half a second for a gigabyte; on Linux huge pages make that cheap for all peers:

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m scripts.benchmark rnn

On a busy machine set OMP_WAIT_POLICY=PASSIVE, or PyTorch's waiting threads compete for the cores.
"""

from collections.abc import Callable, Container, Mapping
import contextlib
from functools import partial
import importlib.metadata
import json
import os
from pathlib import Path
import sys
import tempfile
import traceback

from absl import flags

from ln.errors import InputError, choose
from scripts import cli

ROUNDS = flags.DEFINE_integer("rounds", 5, "rounds of timing", lower_bound=1)
CASE = flags.DEFINE_multi_string("case", [], "a case to measure; may be repeated; default: all")
PEER = flags.DEFINE_multi_string("peer", [], "a row of the table to measure; default: all")
SCALE = flags.DEFINE_string("scale", None, "of the models [of start and reproduce small, or paper]")
NORM = flags.DEFINE_string("norm", None, "of step, lanes and memory: a key of config.norms")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "likewise: built-in data sets")
QUICK = flags.DEFINE_bool("quick", False, "time two very short rounds, which mean nothing")
OUT = flags.DEFINE_string("out", None, "folder of a JSON file for each benchmark")

SPEED = Path(__file__).parents[1] / "results" / "speed"
COMMANDS = ("start", "reproduce")  # first, before this process holds memory
TABLES = (*COMMANDS, "rnn", "step", "lanes", "memory")  # of docs/speed.md
# How the names of the variables of allocators, threads and compilers begin.
TUNING = ("JAX_", "XLA_", "MALLOC_", "GLIBC_", "LD_PRELOAD", "OMP_", "GOMP_", "MKL_", "TORCH")


def environment() -> dict:
    """Return all that the numbers depend on besides the code of the peers."""
    from ln.training import runs

    facts = runs.environment()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        facts["versions"]["torch"] = importlib.metadata.version("torch")
    variables = {k: v for k, v in sorted(os.environ.items()) if k.startswith(TUNING)}
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return dict(**facts, variables=variables, load_average=load)


def benchmarks() -> dict[str, Mapping[str, Callable]]:
    """Return benchmark -> case -> a function of a folder for data, which makes the peers.

    Functions of COMMANDS also take the number of rounds, and return rows.
    """
    from scripts.benchmarks import commands, rnn, step

    def cases(benchmark: str, settings: dict[str, dict]) -> dict[str, Callable]:
        common = dict(norm=NORM.value, data_dir=DATA_DIR.value)
        return {name: partial(step.make_peers, benchmark, **common | setting)
                for name, setting in settings.items()}  # fmt: skip

    def setting(name: str, scale: str = SCALE.value or "paper", **more) -> dict:
        return dict(experiment=name, scale=scale, **more)

    full = {name: setting(name) for name in step.experiments.names()}
    sizes = {"mnist-4": setting("mnist", batch_size=4), "mnist-small": setting("mnist", "small")}
    sizes["mnist-small-4"] = setting("mnist", "small", batch_size=4)
    several = {f"{name}-small": setting(name, "small") for name in ("mnist", "sequential_mnist")}
    pairs = [(name, norm) for name in full for norm in step.norms(name)]
    norms = sorted(pairs, key=lambda pair: pair[1] != "layer")
    tiny = {f"{name}-{norm}": setting(name, "tiny", norm=norm) for name, norm in norms}
    small: dict = dict(scale=SCALE.value or ("tiny" if QUICK.value else "small"))
    starts = {name: partial(commands.start, name, **small) for name in full}
    runs: dict = {name: partial(commands.reproduced, name, **small) for name in full}
    runs["whole"] = partial(commands.whole, ["mnist"] if QUICK.value else [], **small)
    return dict(
        start=starts,
        reproduce=runs,
        rnn={name: partial(rnn.make_peers, case) for name, case in rnn.CASES.items()},
        step=cases("step", full | sizes),
        lanes=cases("lanes", several),
        memory=cases("memory", full),
        device=cases("device", tiny),
    )


def measure(benchmark: str, cases: dict[str, Callable], known: Container, folder: str) -> bool:
    """Measure cases, and return whether none failed.

    Args:
        benchmark: its name.
        cases: those to measure.
        known: the names of all its cases.
        folder: for data.
    """
    from ln.training import runs
    from scripts.benchmarks.timing import compare, table

    rounds, seconds = (2, 0.05) if QUICK.value else (ROUNDS.value, 0.5)
    rounds = 0 if benchmark in ("memory", "device") else rounds
    path, succeeded = OUT.value and Path(OUT.value, f"{benchmark}.json"), True
    stored = json.loads(path.read_text()) if path and path.exists() else {}
    for name, make in cases.items():
        conditions = environment()
        try:
            if benchmark in COMMANDS:
                print(f"{name}: starting", flush=True)
                rows = peers = make(folder=folder, rounds=rounds)
            else:
                peers = make(folder=folder)
                rows = compare(name, peers, rounds, seconds, PEER.value)
        except InputError:
            raise
        except Exception:  # such as too little memory: the others continue
            traceback.print_exc()
            succeeded = False
            continue
        for row in rows.values():
            variables = conditions["variables"] | row.pop("variables", {})
            row["environment"] = conditions | dict(variables=variables)
        print(f"\n{table({name: rows})}\n", flush=True)
        if path:
            both = stored.get(name, {}) | rows
            stored = {case: old for case, old in stored.items() if case in known}
            stored[name] = {peer: both[peer] for peer in peers if peer in both}
            runs.write_atomically(path, json.dumps(stored, indent=1) + "\n")
    return succeeded


def main(argv):
    """Time the cases that the flags choose, and print a table of each."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves a GPU to PyTorch, too
    known = benchmarks()
    for name in argv[1:]:
        choose("benchmark", name, known)
    if OUT.value and not Path(OUT.value).is_dir():
        raise InputError(f"--out={OUT.value} is not a folder: make it, or give another one.")
    names = argv[1:] or TABLES
    if PEER.value and {*names} & {*COMMANDS}:
        raise InputError(f"--peer: {' and '.join(COMMANDS)} always measure all rows; leave it out.")
    if CASE.value and len(argv) != 2:
        raise InputError(f"--case needs one benchmark of {', '.join(known)} before it.")
    todo = {}
    for name in names:
        cases = CASE.value or [case for case in known[name] if not case.startswith("tiny")]
        todo[name] = {case: choose(f"case of {name}", case, known[name]) for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        succeeded = [measure(name, cases, known[name], folder) for name, cases in todo.items()]
    if OUT.value and Path(OUT.value).resolve() == SPEED:
        from scripts.pages import documents

        documents.write()
    if not all(succeeded):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main, positional=True)
