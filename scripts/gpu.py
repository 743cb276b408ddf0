r"""Make the most of a few minutes on a machine with a GPU, in two commands.

    python -m scripts.gpu train --minutes=9 --out=DIR
    python -m scripts.gpu time --minutes=4 --out=DIR
    python -m scripts.gpu train --minutes=3 --out=DIR --scale=tiny      the rehearsal on a CPU

train compares loss and gradients of every experiment with the CPU's, measures what bounds the
training step of figure 6, and trains figure 6: batch size 4, then 128, three seeds side by side,
then more seeds. The settings are those of results/plan.toml. Matrix products have full float32
precision, as on a CPU, unless JAX_DEFAULT_MATMUL_PRECISION says otherwise.

time measures an LSTM with layer norm beside other implementations, a training step of each
experiment on random data, and 1 to 16 seeds in one program.

After each part the archive DIR/gpu_train.tar.gz or DIR/gpu_time.tar.gz is rewritten. It holds the
run folders without their checkpoints, a JSON file of each measurement, a log of each part, and
report.json. A part that runs out of time is asked to stop, and a part that fails is reported; the
others go on. The same command resumes the runs in the folder --work.

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

python -m scripts.gpu compare --out=DIR writes the comparison with the CPU by itself. The other
measurements are commands of scripts.benchmark, which report.json lists. --only=mnist,draw compares
and times only these experiments.
"""

import itertools
import os
from pathlib import Path
import signal

from absl import flags

import experiments
from ln.errors import InputError, choose
from scripts import cli
from scripts.engines.timed import LEAST, Session

MINUTES = flags.DEFINE_float("minutes", None, "time after which everything has stopped", 0)
OUT = flags.DEFINE_string("out", None, "folder of the archive")
WORK = flags.DEFINE_string("work", "runs/gpu", "folder of run folders, logs and measurements")
SCALE = flags.DEFINE_enum("scale", "paper", ["paper", "tiny"], "sizes of models and of training")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of all prepared data sets")
ONLY = flags.DEFINE_list("only", [], "the experiments to compare and time; default: all")

FIRST_SEEDS = dict(paper=(0, 3, 6), tiny=(0,))  # of runs of three seeds side by side


def benchmark(session: Session, share: float, name: str, *words: str) -> None:
    """Run a command of scripts.benchmark."""
    out = session.folder / f"{name}.json"
    out.unlink(missing_ok=True)
    quality = "--quick" if SCALE.value == "tiny" else "--rounds=5"
    session.run(name, ("-m", "scripts.benchmark", name, *words, quality, f"--out={out}"), share)


def train(session: Session) -> None:
    """Compare with the CPU, find what bounds the step, and train figure 6."""
    from scripts.benchmarks import gpu

    scale, data_dir = SCALE.value, DATA_DIR.value
    places = f"--out={session.folder}", f"--scale={scale}", f"--data_dir={data_dir}"
    compare = ("-m", "scripts.gpu", "compare", *places, f"--only={','.join(ONLY.value)}")
    session.run("compare", compare, share=1 / 9)
    cases = ("tiny-4",) if scale == "tiny" else ("full-4", "full-128")
    peers = ("ours", "ours, a step a call", "ours, the whole trainer")
    words = (f"--case={case}" for case in cases), (f"--peer={peer}" for peer in peers)
    benchmark(session, 1 / 8, "mnist", *itertools.chain(*words))
    for first in FIRST_SEEDS[scale]:
        seeds = tuple(range(first, first + gpu.LANES))
        todo = gpu.figure_6(session.folder, scale, data_dir, seeds)
        while todo and session.left() >= LEAST:
            going_on = []
            for n, run in enumerate(todo):
                share = run.minutes / sum(later.minutes for later in todo[n:])
                name = f"{run.folder.parent.name}-{run.folder.name}"
                config = session.folder / "configs" / f"{name}.json"
                config.parent.mkdir(exist_ok=True)
                config.write_text(run.job.config)
                words = f"--config_json={config}", f"--workdir={run.folder}"
                train_run = ("-m", "scripts.train", *words)
                if session.run(name, train_run, share) and not run.settled:
                    going_on.append(run)
            todo = going_on


def measure(session: Session) -> None:
    """Time layers, training steps and lanes."""
    scale, data = f"--scale={SCALE.value}", f"--data_dir={session.folder / 'data'}"
    cases = ("--case=tiny",) if SCALE.value == "tiny" else ("--case=draw", "--case=pixels")
    benchmark(session, 5 / 12, "rnn", *cases)
    names = (f"--experiment={name}" for name in ONLY.value or experiments.names())
    benchmark(session, 4 / 7, "step", *names, scale, data, "--peer=ours")
    names = (f"--experiment={name}" for name in ("mnist", "sequential_mnist"))
    benchmark(session, 1, "lanes", *names, scale, data)


COMMANDS = dict(train=train, time=measure, compare=None)


def set_up(command: str) -> None:
    """Set what the processes of jax depend on, unless the user has."""
    variables = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(Path(WORK.value).absolute() / "cache"),
    }
    if command == "train":  # on a GPU the default is TensorFloat-32
        variables["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def main(argv):
    if len(argv) != 2 or not OUT.value:
        raise InputError("Give train or time, --minutes=N and --out=DIR; --help has examples.")
    name, out = argv[1], Path(OUT.value)
    command = choose("command", name, COMMANDS)
    for experiment in ONLY.value:
        choose("experiment in --only", experiment, dict.fromkeys(experiments.names()))
    set_up(name)
    if command is None:
        from scripts.benchmarks import gpu

        out.mkdir(parents=True, exist_ok=True)
        only = ONLY.value or experiments.names()
        return gpu.compare(out / "compare.json", SCALE.value, DATA_DIR.value, only)
    if not MINUTES.value:
        raise InputError(f"Give --minutes=N, the time that {name} may take.")
    if name == "train" and SCALE.value == "paper":
        from experiments import datasets

        datasets.load("mnist", DATA_DIR.value)  # raises if it is not prepared
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    session = Session(name, out, Path(WORK.value).absolute(), MINUTES.value)
    try:
        command(session)
    finally:
        session.write()
        print(f"Wrote {session.archive}", flush=True)


if __name__ == "__main__":
    cli.run(main, positional=True)
