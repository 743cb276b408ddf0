r"""Measure speed side by side with other implementations of the same computation.

    python -m scripts.benchmark step --experiment=draw              a training step, 5 minutes
    python -m scripts.benchmark step --experiment=mnist --scale=small --out=speed.json
    python -m scripts.benchmark rnn                 LSTMs and GRUs over whole sequences, 12 minutes
    python -m scripts.benchmark rnn --case=tiny --quick         a check that it works, no more
    python -m scripts.benchmark mnist               the network of §6.6, 8 minutes

First each implementation must compute the same as ours from the same weights and batches: losses
and, in step and rnn, gradients. Then all are timed in turn, round after round, so that other work
slows all of them. A table shows the median time of a step, and the ratio to ours within each round:
its median and its middle half. An implementation that fails, or computes something else, is listed
below the table. PyTorch is a peer in rnn and for mnist if it is installed: pip install torch.

step times a training step of any experiment in configs/: ours, with the norm of the config or
--norm; the same with plain autodiff of its recurrent layers; ours without norm; and for mnist Flax
with Optax, and PyTorch. At --scale=paper data sets have random numbers in the paper's sizes; so
have mnist and digits at all scales; other built-in data sets are read from --data_dir. All texts
are as long as the longest. GFLOP/s counts matrix products and convolutions. --lanes=4 trains four
seeds in one program. If the memory does not hold all peers (skip_thoughts needs 20 GB), choose one
with --peer.

Cases of rnn, all with layer norm at x, h and c: draw (LSTM, T=64, B=128, H=D=256), handwriting
(three LSTMs, T=400, B=8, H=400, D=460), reader (LSTM, T=300, B=64, H=D=240), order (GRU, T=30,
B=128, H=1024, D=300), pixels (LSTM, T=784, B=64, H=100, D=1). It times forward and backward of a
ragged batch of sequences.

Cases of mnist, by network and batch size: full-128, full-4, small-128, small-4. It is step for
these sizes.

All implementations run in one process, so allocator, threads and XLA flags are the same for all.
glibc by default returns large arrays to the system after every call and pages them in
again, half a second for a gigabyte; on Linux huge pages make that cheap for all peers:

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m scripts.benchmark rnn

On a busy machine set OMP_WAIT_POLICY=PASSIVE, or PyTorch's waiting threads compete for the cores.
"""

from collections.abc import Callable
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

ROUNDS = flags.DEFINE_integer("rounds", 10, "rounds of timing", lower_bound=1)
CASE = flags.DEFINE_multi_string("case", [], "rnn, mnist: a case to time; may be repeated")
EXPERIMENT = flags.DEFINE_multi_string(
    "experiment", [], "step: a file in configs/; may be repeated"
)
PEER = flags.DEFINE_multi_string("peer", [], "a row of the table to measure; default: all")
SCALE = flags.DEFINE_string("scale", "paper", "of --experiment: sizes of the model")
NORM = flags.DEFINE_string("norm", None, "of --experiment: a key of config.norms")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "of --experiment: built-in data sets")
LANES = flags.DEFINE_integer("lanes", 1, "of --experiment: seeds in a program", lower_bound=1)
QUICK = flags.DEFINE_bool("quick", False, "time two very short rounds, which mean nothing")
OUT = flags.DEFINE_string("out", None, "JSON file for the numbers of every round")

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


def choose_cases(benchmark: str) -> tuple[Callable, dict]:
    """Return the function that measures a case, and the cases by name."""
    from scripts.benchmarks import rnn, step

    if benchmark == "step":
        if CASE.value or not EXPERIMENT.value:
            raise InputError("step takes --experiment=NAME, and --scale in place of --case.")
        case = "full" if SCALE.value == "paper" else SCALE.value  # the name in results/speed
        setting = partial(step.Setting, norm=NORM.value, data_dir=DATA_DIR.value, lanes=LANES.value)
        several = len(EXPERIMENT.value) > 1
        return step.step, {
            f"{name}-{case}" if several else case: setting(name, SCALE.value)
            for name in EXPERIMENT.value
        }
    benchmarks = {"step": None, "rnn": (rnn.run, rnn.CASES), "mnist": (step.step, step.MNIST)}
    run, cases = choose("benchmark", benchmark, benchmarks)
    if EXPERIMENT.value:
        raise InputError(f"--experiment is for step; {benchmark} takes --case.")
    names = CASE.value or [name for name in cases if not name.startswith("tiny")]
    return run, {name: choose(f"case of {benchmark}", name, cases) for name in names}


def main(argv):
    """Time the cases that the flags choose, and print a table of each."""
    if len(argv) != 2:
        raise InputError("Give one benchmark of step, rnn, mnist; --help has examples.")
    out = OUT.value and Path(OUT.value)
    if out and (out.exists() or not out.parent.is_dir()):
        raise InputError(f"--out={out} exists, or its folder does not: give another name.")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves a GPU to PyTorch, too
    run, cases = choose_cases(argv[1])
    from ln.training import runs
    from scripts.benchmarks.timing import Options

    rounds, seconds = (2, 0.05) if QUICK.value else (ROUNDS.value, 0.5)
    options = Options(rounds, seconds, tuple(PEER.value))
    results = dict(benchmark=argv[1], timing=options._asdict(), environment=environment())
    print("\n".join(f"{name}: {value}" for name, value in results["environment"].items()))
    results["cases"] = measured = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, case in cases.items():
            try:
                measured[name] = run(name, case, options, folder)
            except InputError:
                raise
            except Exception:  # such as too little memory: the others continue
                traceback.print_exc()
            if out and measured:
                runs.write_atomically(out, json.dumps(results, indent=2) + "\n")
                print(f"Wrote {out}")
    if len(measured) < len(cases):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main, positional=True)
