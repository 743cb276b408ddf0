"""Evaluate a checkpoint of a run again, and estimate −log p(x) if the task can.

    python -m scripts.evaluate --workdir=runs/x
    python -m scripts.evaluate --workdir=runs/x --checkpoint=newest --samples=100
    python -m scripts.evaluate --workdir=runs/x --samples=1000 --cases=500 --split=valid

The command computes what training computes at config.eval_every. With --samples=K it also weighs K
samples for each example of --split (draw; Burda et al. 2016): with K = 1 their mean is the bound
again, with more it decreases towards −log p(x).

It appends a line for each lane and number to WORKDIR/evaluations.jsonl: the metric, the step, the
command and commit, and for an estimate its standard error over the examples. Lanes that have
diverged are left out. The run may still be training.
"""

from pathlib import Path

from absl import flags

from ln.errors import InputError
from scripts import cli

WORKDIR = flags.DEFINE_string("workdir", None, "the run folder")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best (by config.select), newest, or a step")
SAMPLES = flags.DEFINE_integer("samples", None, "K: samples for each example", lower_bound=1)
SPLIT = flags.DEFINE_string("split", "test", "with --samples: the split of the examples")
CASES = flags.DEFINE_integer(
    "cases", None, "with --samples: only so many, spread evenly over the split", lower_bound=1
)
BLOCK = flags.DEFINE_integer(
    "block", 100, "with --samples: examples at a time; more need more memory", lower_bound=1
)
DATA_DIR = flags.DEFINE_string("data_dir", None, "folder of the prepared data; default: the run's")


def main(_):
    """Evaluate the checkpoint that the flags name."""
    if WORKDIR.value is None:
        raise InputError("Give --workdir=DIR; --help has examples.")
    for flag in (SPLIT, CASES, BLOCK):
        if flag.present and SAMPLES.value is None:
            raise InputError(f"--{flag.name} goes with --samples=K.")
    import numpy as np

    import experiments
    from experiments import tasks
    from ln.training import runs, train

    folder = Path(WORKDIR.value)
    config, stored = runs.read_config(folder), runs.read(folder)
    config.data_dir = DATA_DIR.value or config.data_dir
    task, K = experiments.load(config), SAMPLES.value
    if K is not None:
        if not hasattr(task, "estimate"):
            raise InputError(f"{config.experiment} estimates no −log p(x): leave --samples out.")
        x = tasks.some_cases(task, SPLIT.value, CASES.value)["x"]
    state = train.load(task, folder, CHECKPOINT.value)
    step = train.step_of(state)
    print(f"{folder}, step {step:,}", flush=True)
    diverged = {lane: cause for lane, (first, cause) in stored.diverged.items() if first <= step}
    for (seed, lr), cause in diverged.items():
        print(f"seed {seed}, lr {lr:g} has diverged and is left out: {cause}", flush=True)
    lanes = {n: lane for n, lane in enumerate(stored.lanes) if lane not in diverged}
    state, rows = train.lane(state, np.array([*lanes], int)), []

    def report(lane: tuple[int, float], split: str, metric: str, **number) -> None:
        """Print a number, and keep its row."""
        row = dict(step=step, split=split, metric=metric, seed=lane[0], lr=lane[1], **number)
        print(line(row), flush=True)
        rows.append(row)

    for split, metrics in train.evaluate(task, state).items():
        for metric, values in metrics.items():
            for n, lane in enumerate(lanes.values()):
                report(lane, split, metric, value=values[n])
    if K is not None:
        for n, lane in enumerate(lanes.values()):
            estimated = estimate(task, train.variables_of(state, n), x, K, BLOCK.value)
            report(lane, SPLIT.value, task.objective, **estimated)
    origin = runs.provenance(step)
    runs.append_rows(folder / "evaluations.jsonl", [row | origin for row in rows])


def estimate(task, variables, x, samples: int, block: int) -> dict:
    """Return the mean of −log p(x) in nats over examples ``[N, D]``, and its standard error."""
    import jax
    import numpy as np

    from ln.training import data, train

    N = len(x)
    blocks = data.blocks(dict(x=x), min(block, N))[0]["x"]  # padded, so that one program does all
    estimate_block = jax.jit(task.estimate, static_argnames="samples")
    progress = train.Progress("estimate", 0, N, unit="case", value="nats")
    values = np.zeros(0)
    for n, examples in enumerate(blocks):
        key = jax.random.fold_in(jax.random.key(0), n)  # the same noise each time
        new = jax.device_get(estimate_block(variables, examples, key, samples=samples))
        values = np.append(values, new)[:N]
        progress.show(len(values), np.array([values.mean()]))
    error = values.std(ddof=1) / N**0.5 if N > 1 else None
    return dict(value=values.mean(), error=error, samples=samples, cases=N)


def line(row: dict) -> str:
    """Return a row as it is printed."""
    lane = f"seed {row['seed']}, lr {row['lr']:g}"
    text = f"{lane}  {row['split']} {row['metric']} {row['value']:.6g}"
    if "samples" in row:
        error = "" if row["error"] is None else f" ± {row['error']:.2g} (standard error)"
        text += f"{error}, K = {row['samples']:,}, over {row['cases']:,} examples"
    return text


if __name__ == "__main__":
    cli.run(main)
