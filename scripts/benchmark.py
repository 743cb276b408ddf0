r"""Measure speed side by side with other implementations of the same computation.

    python -m scripts.benchmark step --experiment=draw              a training step, 5 minutes
    python -m scripts.benchmark step --experiment=mnist --scale=small --out=speed.json
    python -m scripts.benchmark rnn                 LSTMs and GRUs over whole sequences, 20 minutes
    python -m scripts.benchmark rnn --case=tiny --quick         a check that it works, no more
    python -m scripts.benchmark mnist               the trainer on §6.6's network, 6 minutes
    python -m scripts.benchmark lanes               1, 2, 4 and 8 runs in one program, 5 minutes

Each implementation runs in a separate process. First it must compute the same as ours from the same
weights and batches: losses and, in step and rnn, gradients. Then all are timed in turn, round after
round, so that other work on the machine slows all of them; a table shows medians over the rounds,
and the median of the ratios to ours within each round. PyTorch is a peer in rnn and for mnist if it
is installed: pip install torch.

step times a training step of any experiment in configs/: ours, with the norm of the config or
--norm; the same with plain autodiff of its recurrent layers; ours without norm; and for mnist Flax
with Optax, and PyTorch. At --scale=paper data sets have random numbers in the paper's sizes; so
have mnist and digits at all scales; other built-in data sets are read from --data_dir. The batch is
random, all texts and lines as long as the longest. FLOP are those of the matrix products and
convolutions. If the memory does not hold all peers, --notogether times them one after another
(skip_thoughts needs 20 GB otherwise).

Cases of rnn, all with layer norm at x, h and c: draw (LSTM, T=64, B=128, H=D=256), handwriting
(three LSTMs, T=400, B=8, H=400, D=460), reader (LSTM, T=300, B=64, H=D=240), order (GRU, T=30,
B=128, H=1024, D=300), pixels (LSTM, T=784, B=64, H=100, D=1). It times forward and backward of a
ragged batch of sequences, then training steps with Adam, and prints the share of the matrix
products; on a GPU also cuDNN's LSTM.

Cases of mnist, by network and batch size: full-128, full-4, small-128, small-4. It times the whole
trainer, which prepares batches and fetches metrics, and parts of it; on a machine with a GPU set
JAX_PLATFORMS=cpu.

Cases of lanes: pixels, the LSTM of configs/sequential_mnist.py:small; mnist-small, the network of
configs/mnist.py:small; mnist, that of §6.6; all at their own batch sizes. It times the compiled
call of 1, 2, 4 and 8 lanes, and prints the cost of a lane relative to a single one.

The processes inherit the environment of this command, so allocator, threads and XLA flags are the
same for all. glibc by default returns large arrays to the system after every call and pages them in
again, half a second for a gigabyte; on Linux huge pages make that cheap for all peers:

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m scripts.benchmark rnn

On a busy machine set OMP_WAIT_POLICY=PASSIVE, or PyTorch's waiting threads compete for the cores.
"""

import contextlib
import importlib.metadata
import json
import os
from pathlib import Path

from absl import flags

from ln.errors import InputError, choose
from scripts import cli
from scripts.benchmarks.common import Timing, in_process
from scripts.benchmarks.lanes import lanes
from scripts.benchmarks.mnist import mnist
from scripts.benchmarks.rnn import rnn
from scripts.benchmarks.step import Setting, step

ROUNDS = flags.DEFINE_integer("rounds", 10, "rounds of timing", lower_bound=1)
CASE = flags.DEFINE_multi_string("case", [], "rnn, mnist, lanes: a case to time; may be repeated")
EXPERIMENT = flags.DEFINE_string("experiment", None, "step: the name of a file in configs/")
SCALE = flags.DEFINE_string("scale", "paper", "step: sizes of the model")
NORM = flags.DEFINE_string("norm", None, "step: a key of config.norms; default: the config's norm")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "step: folder of the built-in data sets")
TOGETHER = flags.DEFINE_bool("together", True, "step: have all peers in memory at once")
QUICK = flags.DEFINE_bool("quick", False, "time two very short rounds, which mean nothing")
OUT = flags.DEFINE_string("out", None, "JSON file for the numbers of every round")

# How the names of the variables of allocators, threads and compilers begin.
TUNING = (
    "JAX_",
    "XLA_",
    "MALLOC_",
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "OMP_",
    "GOMP_",
    "MKL_",
    "TORCH",
)


def any_step(cases: list[str], timing: Timing) -> dict:
    if cases or not EXPERIMENT.value:
        raise InputError("step takes --experiment=NAME, and --scale in place of --case.")
    return step(
        Setting(EXPERIMENT.value, SCALE.value, NORM.value, DATA_DIR.value, TOGETHER.value), timing
    )


# Name -> (names of cases, Timing) -> the content of --out.
BENCHMARKS = {"step": any_step, "rnn": rnn, "mnist": mnist, "lanes": lanes}


def environment() -> dict:
    """Return all that the numbers depend on besides the code of the peers."""
    from ln.training import runs

    facts = runs.environment()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        facts["versions"]["torch"] = importlib.metadata.version("torch")
    variables = {k: v for k, v in sorted(os.environ.items()) if k.startswith(TUNING)}
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return dict(**facts, variables=variables, load_average=load)


def main(argv):
    if len(argv) != 2:
        raise InputError(f"Give one benchmark of {', '.join(BENCHMARKS)}; --help has examples.")
    benchmark = choose("benchmark", argv[1], BENCHMARKS)
    if argv[1] != "step" and EXPERIMENT.value:
        raise InputError(f"--experiment is for step; {argv[1]} takes --case.")
    out = OUT.value and Path(OUT.value)
    if out and (out.exists() or not out.parent.is_dir()):
        raise InputError(f"--out={out} exists, or its folder does not: give another name.")
    timing = Timing(2, 0.05) if QUICK.value else Timing(ROUNDS.value, 0.5)

    where = in_process(environment)
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    variables = ", ".join(f"{name}={value}" for name, value in where["variables"].items())
    print(
        f"{where['cores']} cores, load average {where['load_average']}, device {where['device']}, "
        f"{where['system']}, commit {where['commit']}\n"
        f"python {where['python']}, {versions}\n"
        f"Environment: {variables or 'no variable that sets allocator, threads or compiler'}\n",
        flush=True,
    )
    results = dict(benchmark=argv[1], timing=timing._asdict(), environment=where)
    results |= benchmark(CASE.value, timing)
    if out:
        from ln.training import runs

        runs.write_atomically(out, json.dumps(results, indent=2) + "\n")
        print(f"Wrote {out}")


if __name__ == "__main__":
    cli.run(main, positional=True)
