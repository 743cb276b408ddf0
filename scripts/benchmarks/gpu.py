"""The runs of figure 6, and the comparison of all experiments with the CPU."""

from collections.abc import Sequence
from concurrent import futures
import importlib
import json
import os
from pathlib import Path

import jax
import numpy as np

import experiments
from experiments import datasets
from ln.training import runs
from scripts.benchmarks import jax_peers
from scripts.benchmarks.timing import TOLERANCE, differences
from scripts.engines import stages

PLAN = Path(__file__).resolve().parents[2] / "results" / "plan.toml"

Row = dict

# --- Figure 6 ---

LANES = 3
BATCH_SIZES = (4, 128)
# One call an epoch at batch size 128, 25 calls an epoch at batch size 4. No run saves before its
# end, or before it is asked to stop: a checkpoint takes longer than some epochs.
PAPER = {4: dict(steps_per_call=550), 128: dict(steps_per_call=429)}
TINY = dict(steps_per_call=50, log_every="100 steps", eval_every="100 steps")


def figure_6(root: Path, scale: str, data_dir: str, seeds: tuple[int, ...]) -> list[stages.Run]:
    """Return the runs of figure 6 by the plan of the results, with all seeds in one program.

    At the scale tiny there is only layer norm.
    """
    planned, figure = {stage.name: stage for stage in stages.read(PLAN, root)}, []
    for size in BATCH_SIZES:
        stage = planned[f"figure_6_batch{size}"]
        stage.config = f"configs/mnist.py:{scale}"
        steps, norms = str(np.atleast_1d(stage.steps)[-1]), stage.grid["norm"]
        point = PAPER[size]
        if scale == "tiny":
            steps, norms = "200 steps", ["layer"]
            point = TINY | dict(dataset=datasets.real("digits", data_dir))
        point = point | dict(save_every=steps, data_dir=data_dir, seeds=seeds)
        for norm in norms:
            run = stage.run(point | dict(norm=norm), steps, stage.minutes)
            folder = stage.folder / f"{norm}-seeds-{'-'.join(map(str, seeds))}"
            figure.append(run._replace(folder=folder))
    return figure


# --- The same numbers as on a CPU ---


def compare(out: Path, scale: str, data_dir: str, only: Sequence[str]) -> None:
    """Compare loss and gradients of two steps on this device with those on the CPU.

    All rows so far are stored in a file after each, so that nothing is lost when time is up.

    Args:
        out: the file.
        scale: at tiny, only layer norm is compared. The models are tiny at all scales.
        only: the experiments.
    """
    environment, rows = runs.environment(), list[Row]()
    pairs = [(name, norm) for name in only for norm in tiny(name).norms]
    pairs = [pair for pair in pairs if scale == "paper" or pair[1] == "layer"]
    pairs.sort(key=lambda pair: pair[1] != "layer")
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # all cores compile
        todo = [pool.submit(compare_one, *pair, data_dir) for pair in pairs]
        for future in futures.as_completed(todo):
            rows.append(row := future.result())
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            stored = dict(environment=environment, rows=rows)
            runs.write_atomically(out, json.dumps(stored, indent=2) + "\n")


def tiny(experiment: str):
    return importlib.import_module(f"configs.{experiment}").get_config("tiny")


def compare_one(experiment: str, norm: str, data_dir: str) -> Row:
    """Return the largest relative difference of one experiment with one norm, and where it is."""
    config = tiny(experiment)
    config.norm, config.data_dir = norm, data_dir
    if "noise" in config:
        config.noise = 0.1  # the first pixels are black

    row = dict(experiment=experiment, norm=norm)
    try:
        config.dataset = datasets.real(config.dataset, data_dir)
        task, devices = experiments.load(config), (jax.devices()[0], jax.devices("cpu")[0])
        ours, reference = (jax_peers.first_steps(task, 2, device) for device in devices)
    except Exception as error:  # one of many: it is reported, and the others go on
        return row | dict(agrees=False, error=f"{type(error).__name__}: {error}")
    changes = {
        f"{name} of step {n}": change
        for n, numbers in enumerate(zip(ours, reference, strict=True))
        for name, change in differences(*numbers).items()
    }
    where = max(changes, key=lambda name: np.nan_to_num(changes[name], nan=np.inf))
    return row | dict(agrees=changes[where] <= TOLERANCE, difference=changes[where], where=where)
