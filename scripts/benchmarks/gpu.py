"""Compare with the CPU, and find what bounds the training step of figure 6.

Each row is stored at once: a part that runs out of time keeps what it has measured.
"""

from collections.abc import Collection, Iterator
from concurrent import futures
from functools import partial
import importlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import experiments
from experiments import datasets
from ln.training import runs
from scripts.benchmarks import jax_peers
from scripts.benchmarks.timing import TOLERANCE, Peer, differences
from scripts.engines import jobs, stages

PLAN = Path(__file__).resolve().parents[2] / "results" / "plan.toml"

Row = dict


class Setting(NamedTuple):
    """What to measure.

    Attributes:
        scale: paper or tiny.
        data_dir: folder of all prepared data sets.
        only: the experiments to compare; empty for all.
    """

    scale: str
    data_dir: str
    only: tuple[str, ...] = ()

    def selected(self, names: Collection[str]) -> list[str]:
        """Return those of the names that `only` allows."""
        return [name for name in names if name in (self.only or names)]


def write(part: str, folder: Path, setting: Setting) -> None:
    """Store the rows of a part that there are so far after each of them, and print it."""
    folder.mkdir(parents=True, exist_ok=True)
    environment, rows = runs.environment(), list[Row]()
    for row in PARTS[part](setting):
        rows.append(row)
        print("  ".join(f"{name} {text(value)}" for name, value in row.items()), flush=True)
        stored = dict(part=part, **setting._asdict(), environment=environment, rows=rows)
        runs.write_atomically(folder / f"{part}.json", json.dumps(stored, indent=2) + "\n")


def text(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def milliseconds(peer: Peer, seconds: float, rounds: int = 3) -> float:
    """Return the median time of a step."""
    calls = peer.calls_within(seconds)
    return 1e3 * float(np.median([peer.seconds_per_step(calls) for _ in range(rounds)]))


# --- Figure 6 ---

LANES = 3
BATCH_SIZES = (4, 128)
# One call an epoch at batch size 128, 25 calls an epoch at batch size 4. No run saves before its
# end, or before it is asked to stop: a checkpoint takes longer than some epochs.
PAPER = {4: dict(steps_per_call=550), 128: dict(steps_per_call=429)}
TINY = dict(steps_per_call=50, log_every="100 steps", eval_every="100 steps")


def figure_6(
    root: Path, setting: Setting, seeds: tuple[int, ...] = tuple(range(LANES))
) -> list[stages.Run]:
    """Return the runs of figure 6 by the plan of the results, with all seeds in one program.

    At the scale tiny there is only layer norm.
    """
    scale, data_dir, _ = setting
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


def bound(setting: Setting) -> Iterator[Row]:
    """Find what bounds the training step of figure 6, in ms a step of all lanes.

    device is the time of calls whose batches are on the device already, input that of preparing and
    copying batches, which a thread does meanwhile. Calls of one step show what a call itself costs.
    """
    is_paper = setting.scale == "paper"
    seconds = 0.4 if is_paper else 0.02  # of a round
    for run in figure_6(Path("unused"), setting):
        config = jobs.read_config([*run.words, f"--config.steps={run.steps}"])
        if config.norm != "layer":
            continue
        task, K = jax_peers.load(config), config.steps_per_call
        row = dict(batch_size=config.batch_size)
        for count in (1, LANES) if is_paper else (LANES,):
            config.seeds, fastest = tuple(range(count)), np.inf
            for config.steps_per_call in (K, 1):
                device = milliseconds(jax_peers.trainer_peer(config, compared=False), seconds)
                prepared = milliseconds(prepare_peer(config, task), seconds)
                fastest = min(fastest, device)
                yield row | dict(
                    lanes=count,
                    steps_per_call=config.steps_per_call,
                    device=device,
                    input=prepared,
                    verdict=verdict(device, prepared, fastest),
                )
        evaluate = partial(task.evaluate, jax.jit(task.init)(jax.random.key(0)))
        evaluation = milliseconds(Peer(call=evaluate, wait=lambda scores: None), seconds)
        yield row | dict(steps_per_epoch=task.steps_per_epoch, evaluation_of_a_lane=evaluation)


def prepare_peer(config, task) -> Peer:
    """Return the preparing of batches, by the thread that does it in training."""
    batches = jax_peers.prepare_batches(config, task)
    return Peer(call=lambda: next(batches), wait=jax.block_until_ready, steps=config.steps_per_call)


def verdict(device: float, prepared: float, fastest: float) -> str:
    """Name what a step waits for; fastest: its time on the device in a call of many steps."""
    if prepared > device:
        return "input-bound"
    return "dispatch-bound" if device > 2 * fastest else "device-bound"


# --- The same numbers as on a CPU ---


def compare(setting: Setting) -> Iterator[Row]:
    """Compare loss and gradients of two steps on this device with those on the CPU.

    The models are tiny, and both sides run the program of this device. Layer norm comes first; at
    the scale tiny there is nothing else. Programs compile on all cores, so rows come as they are
    done.
    """
    pairs = [
        (name, norm)
        for name in setting.selected(experiments.names())
        for norm in tiny(name).norms
        if setting.scale == "paper" or norm == "layer"
    ]
    pairs.sort(key=lambda pair: pair[1] != "layer")
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = [pool.submit(compare_one, *pair, setting.data_dir) for pair in pairs]
        for future in futures.as_completed(rows):
            yield future.result()


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


PARTS = dict(compare=compare, bound=bound)
