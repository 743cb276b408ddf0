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
DATA_DIR = flags.DEFINE_string("data_dir", None, "folder of the prepared data; default: the run's")
SAMPLES = flags.DEFINE_integer("samples", None, "K: samples for each example", **cli.COUNT)
SPLIT = flags.DEFINE_string("split", "test", "with --samples: the split of the examples")
CASES = flags.DEFINE_integer("cases", None, "with --samples: so many of the split", **cli.COUNT)
BLOCK = flags.DEFINE_integer("block", 100, "with --samples: examples at a time", **cli.COUNT)


def main(_):
    """Evaluate the checkpoint that the flags name."""
    if WORKDIR.value is None:
        raise InputError("Give --workdir=DIR; --help has examples.")
    for flag in (SPLIT, CASES, BLOCK):
        if flag.present and SAMPLES.value is None:
            raise InputError(f"--{flag.name} goes with --samples=K.")
    import experiments
    from experiments import tasks
    from ln.training import runs, train

    folder, K, rows = Path(WORKDIR.value), SAMPLES.value, []
    trained = experiments.open_run(folder, CHECKPOINT.value, DATA_DIR.value)
    task, step = trained.task, trained.step
    if K is not None:
        if not hasattr(task, "estimate"):
            name = task.config.experiment
            raise InputError(f"{name} estimates no −log p(x): leave --samples out.")
        x = tasks.some_cases(task, SPLIT.value, CASES.value)["x"]
    print(f"{folder}, step {step:,}", flush=True)
    for n, (seed, lr) in enumerate(trained.stored.lanes):
        if n not in trained.lanes:
            cause = trained.stored.diverged[seed, lr].cause
            print(f"seed {seed}, lr {lr:g} has diverged and is left out: {cause}", flush=True)

    numbers = [
        (n, split, metric, dict(value=value))
        for split, metrics in train.evaluate(task, trained.state, trained.lanes).items()
        for metric, values in metrics.items()
        for n, value in values.items()
    ]
    for n in trained.lanes if K is not None else ():
        result = estimate(task, trained.variables(n), x, K)
        numbers.append((n, SPLIT.value, task.objective, result))
    for n, split, metric, result in numbers:
        seed, lr = trained.lanes[n]
        about = ", ".join(f"{k} {v:.6g}" for k, v in result.items() if v is not None)
        print(f"seed {seed}, lr {lr:g}  {split} {metric}: {about}", flush=True)
        rows.append(dict(step=step, split=split, metric=metric, seed=seed, lr=lr) | result)
    origin = runs.provenance(step)
    runs.append_rows(folder / "evaluations.jsonl", [row | origin for row in rows])


def estimate(task, variables, x, samples: int) -> dict:
    """Return the mean of −log p(x) in nats over examples ``[N, D]``, and its standard error."""
    import jax
    import numpy as np

    from ln.training import console, data, train

    N = len(x)
    blocks = data.blocks(dict(x=x), min(BLOCK.value, N))[0]["x"]  # padded: one program does all
    estimate_block = jax.jit(task.estimate, static_argnames="samples")
    progress, values = console.Progress("estimate", 0, N, unit="case", value="nats"), np.zeros(0)
    for n, examples in enumerate(blocks):
        key = jax.random.fold_in(jax.random.key(0), n)  # the same noise each time
        with train.products(task.config):
            new = jax.device_get(estimate_block(variables, examples, key, samples=samples))
        values = np.append(values, new)[:N]
        progress.show(len(values), [values.mean()])
    error = values.std(ddof=1) / N**0.5 if N > 1 else None
    return dict(value=values.mean(), error=error, samples=samples, cases=N)


if __name__ == "__main__":
    cli.run(main)
