r"""Make the most of a few minutes on a machine with a GPU, in two commands.

    python -m scripts.gpu train --minutes=9 --out=DIR
    python -m scripts.gpu time --minutes=4 --out=DIR
    python -m scripts.gpu train --minutes=3 --out=DIR --scale=tiny      the rehearsal on a CPU

train compares loss and gradients of every experiment and norm with the CPU's, those of layer norm
first, and trains the runs of figure 6 in results/plan.toml, three at a time. Matrix products have
full float32 precision, as on a CPU, unless JAX_DEFAULT_MATMUL_PRECISION says otherwise.

time measures an LSTM with layer norm beside other implementations, and a training step of each
experiment on random data.

After each part the archive DIR/gpu_train.tar.gz or DIR/gpu_time.tar.gz is rewritten. It holds the
run folders without their checkpoints, a JSON file of each measurement, a log of each part, and
report.json. A part that runs out of time is asked to stop, and a part that fails is reported; the
others continue. The same command resumes the runs in the folder --work.

A machine without network needs jax with CUDA, flax, optax, orbax-checkpoint and matplotlib. Copy
this checkout to it, and into a folder CARRIED the wheels of ml_collections and filelock (if it
lacks them) and the four original files of MNIST. Data sets that need scikit-learn (digits,
binarized_digits, scenes) can be prepared elsewhere and copied in data/. Then run

    python -m pip install --no-index --no-deps CARRIED/*.whl
    python -m scripts.data mnist --from=CARRIED
    python -m scripts.gpu train --minutes=9 --out=DIR

and, with the wheels alone, since it takes random data,

    python -m pip install --no-index --no-deps CARRIED/*.whl
    python -m scripts.gpu time --minutes=4 --out=DIR

All measurements are commands of scripts.benchmark, which report.json lists. --only=mnist,draw
compares, with layer norm, and times only these experiments.
"""

import os
from pathlib import Path
import signal

from absl import flags

import experiments
from ln.errors import InputError, choose
from scripts import cli
from scripts.engines import timed
from scripts.engines.timed import Part

MINUTES = flags.DEFINE_float("minutes", None, "time after which everything has stopped", 0)
OUT = flags.DEFINE_string("out", None, "folder of the archive")
WORK = flags.DEFINE_string("work", "runs/gpu", "folder of run folders, logs and measurements")
SCALE = flags.DEFINE_enum("scale", "paper", ["paper", "tiny"], "sizes of models and of training")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of the data sets to compare on")
ONLY = flags.DEFINE_list("only", [], "the experiments to compare and time; default: all")

BENCHMARK, SWEEP = ["-m", "scripts.benchmark"], ["-m", "scripts.sweep"]
PLAN = [*SWEEP, "--plan=results/plan.toml", "--only=figure_6_batch", "--workers=3"]
TINY = "--config=configs/mnist.py:tiny", "--grid=norm=layer", "--grid=batch_size=4,128"


def train(folder: Path) -> list[Part]:
    """Return the parts that compare with the CPU, and train figure 6."""
    tiny = SCALE.value == "tiny"
    names = ONLY.value or (experiments.names() if tiny else [])
    compare = [*BENCHMARK, "device", f"--data_dir={DATA_DIR.value}", f"--out={folder}"]
    compare += [f"--case={name}-layer" for name in names]
    words = [*SWEEP, *TINY, f"--config.data_dir={DATA_DIR.value}"] if tiny else PLAN
    return [("device", 1 / 4, compare), ("figure_6", 1, [*words, f"--root={folder}/figure_6"])]


def measure(folder: Path) -> list[Part]:
    """Return the parts that time layers and training steps."""
    tiny = SCALE.value == "tiny"
    layers = ["--case=tiny"] if tiny else ["--case=draw", "--case=pixels"]
    steps = [f"--case={name}" for name in ONLY.value or experiments.names()]
    steps += [f"--scale={SCALE.value}", f"--data_dir={folder / 'data'}", "--peer=ours"]
    rest = "--quick" if tiny else "--rounds=5", f"--out={folder}"
    return [
        ("rnn", 1 / 2, [*BENCHMARK, "rnn", *layers, *rest]),
        ("step", 1, [*BENCHMARK, "step", *steps, *rest]),
    ]


COMMANDS = dict(train=train, time=measure)


def main(argv):
    """Carry out one of the commands."""
    if len(argv) != 2 or not OUT.value:
        raise InputError("Give train or time, --minutes=N and --out=DIR; --help has examples.")
    name, work = argv[1], Path(WORK.value).absolute()
    make = choose("command", name, COMMANDS)
    for experiment in ONLY.value:
        choose("experiment in --only", experiment, dict.fromkeys(experiments.names()))
    # The processes of jax depend on these variables, which the user may have set.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "cache"))
    if name == "train":  # on a GPU the default is TensorFloat-32
        os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
    if not MINUTES.value:
        raise InputError(f"Give --minutes=N, the time that {name} may take.")
    if name == "train" and SCALE.value == "paper":
        from experiments import datasets

        datasets.load("mnist", "data")  # raises if it is not prepared
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = work / name
    timed.run(make(folder), folder, Path(OUT.value) / f"gpu_{name}.tar.gz", MINUTES.value)


if __name__ == "__main__":
    cli.run(main, positional=True)
