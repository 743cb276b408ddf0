"""Evaluates a checkpoint of a run again, and estimates −log p(x) where the task can.

    python -m scripts.evaluate --workdir=runs/x
    python -m scripts.evaluate --workdir=runs/x --checkpoint=newest --samples=100
    python -m scripts.evaluate --workdir=runs/x --samples=1000 --cases=500 --split=valid

First it computes what training computes at config.eval_every. With --samples=K it also weighs K
samples for each case of --split (draw; Burda et al. 2016): with K = 1 their mean is the bound
again, with more it comes down towards −log p(x).

Appends a line per lane and number to WORKDIR/evaluations.jsonl: what it is, of which step, by which
command and commit, and for an estimate its standard error over the cases. The run may still be
training.
"""

from pathlib import Path

from absl import flags

from ln.errors import InputError
from scripts import cli

WORKDIR = flags.DEFINE_string("workdir", None, "the run folder")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best (by config.select), newest, or a step")
SAMPLES = flags.DEFINE_integer("samples", None, "K: samples for each case", lower_bound=1)
SPLIT = flags.DEFINE_string("split", "test", "with --samples: of which cases")
CASES = flags.DEFINE_integer(
    "cases", None, "with --samples: only so many, spread evenly over the split", lower_bound=1
)
BLOCK = flags.DEFINE_integer(
    "block", 100, "with --samples: cases at once; more need more memory", lower_bound=1
)
DATA_DIR = flags.DEFINE_string("data_dir", None, "folder of the prepared data; default: the run's")


def main(_):
    if WORKDIR.value is None:
        raise InputError("Give --workdir=DIR; --help has examples.")
    for flag in (SPLIT, CASES, BLOCK):
        if flag.present and SAMPLES.value is None:
            raise InputError(f"--{flag.name} goes with --samples=K.")
    import experiments
    from experiments import tasks
    from ln.training import runs, train

    folder = Path(WORKDIR.value)
    config = runs.read_config(folder)
    config.data_dir = DATA_DIR.value or config.data_dir
    task, lanes = experiments.load(config), train.make_lanes(config)
    if SAMPLES.value is not None:
        if not hasattr(task, "estimate"):
            raise InputError(f"{config.experiment} estimates no −log p(x): leave --samples out.")
        x = tasks.some_cases(task, SPLIT.value, CASES.value)["x"]
    state = train.load(task, folder, CHECKPOINT.value)
    step = int(state.step[0])
    origin = runs.provenance(step)
    print(f"{folder}, step {step:,}", flush=True)

    def report(lane: int, split: str, metric: str, **number) -> None:
        """Prints and appends a number, with what else there is to say of it."""
        seed, lr = lanes[lane]
        row = dict(step=step, split=split, metric=metric, seed=seed, lr=lr, **number)
        print(line(row), flush=True)
        path = folder / "evaluations.jsonl"
        runs.write_rows(path, [*runs.read_rows(path), row | origin])

    for split, metrics in train.evaluate(task, state).items():
        for metric, values in metrics.items():
            for lane, value in enumerate(values):
                report(lane, split, metric, value=value)
    if SAMPLES.value is not None:
        for lane in range(len(lanes)):
            variables = train.variables_of(state, lane)
            found = estimate(task, variables, x, SAMPLES.value, BLOCK.value)
            report(lane, SPLIT.value, task.objective, **found)


def estimate(task, variables, x, samples: int, block: int) -> dict:
    """The mean of −log p(x) in nats over cases ``[N, D]``, and its standard error."""
    import jax
    import numpy as np

    from ln.training import data, train

    N = len(x)
    blocks = data.blocks(dict(x=x), min(block, N))[0]["x"]  # padded, so that one program does all
    of_block = jax.jit(task.estimate, static_argnames="samples")
    progress = train.Progress("estimate", 0, N, unit="case", value="nats")
    values = np.zeros(0)
    for n, cases in enumerate(blocks):
        key = jax.random.fold_in(jax.random.key(0), n)  # the same noise each time
        new = jax.device_get(of_block(variables, cases, key, samples=samples))
        values = np.append(values, new)[:N]
        progress.show(len(values), np.array([values.mean()]))
    error = values.std(ddof=1) / N**0.5 if N > 1 else None
    return dict(value=values.mean(), error=error, samples=samples, cases=N)


def line(row: dict) -> str:
    """A row as it is printed."""
    text = (
        f"seed {row['seed']}, lr {row['lr']:g}  {row['split']} {row['metric']} {row['value']:.6g}"
    )
    if "samples" in row:
        error = "" if row["error"] is None else f" ± {row['error']:.2g} (standard error)"
        text += f"{error}, K = {row['samples']:,}, over {row['cases']:,} cases"
    return text


if __name__ == "__main__":
    cli.run(main)
