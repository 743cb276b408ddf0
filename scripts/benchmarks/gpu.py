"""Measurements of scripts/gpu.py. A part yields rows, and each row is stored at once: a part that
runs out of time keeps what it has measured."""

from collections.abc import Callable, Collection, Iterator
from concurrent import futures
from functools import partial
import importlib
import json
import math
import os
from pathlib import Path
import statistics
import tempfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import experiments
from experiments import datasets
from ln.errors import DivergedError
from ln.training import runs, train
from scripts.benchmarks import common, common_jax, lanes, rnn, step
from scripts.benchmarks.common import TOLERANCE, Peer, Timing
from scripts.engines import stages

PLAN = Path(__file__).resolve().parents[2] / "results" / "plan.toml"

Row = dict


class Setting(NamedTuple):
    """What to measure.

    Attributes:
        scale: paper or tiny.
        data_dir: folder of all prepared data sets.
        only: the experiments to compare and time; empty for all.
    """

    scale: str
    data_dir: str
    only: tuple[str, ...] = ()

    @property
    def timing(self) -> Timing:
        return Timing(5, 0.4) if self.scale == "paper" else Timing(2, 0.02)

    def selected(self, names: Collection[str]) -> list[str]:
        """Return those of the names that `only` allows."""
        return [name for name in names if name in (self.only or names)]


def write(part: str, folder: Path, setting: Setting) -> None:
    """Print the rows of a part, and store those so far after each."""
    folder.mkdir(parents=True, exist_ok=True)
    environment, rows = runs.environment(), list[Row]()
    for row in PARTS[part](setting):
        rows.append(row)
        if part != "rnn":  # which prints tables
            print("  ".join(f"{name} {text(value)}" for name, value in row.items()), flush=True)
        stored = dict(part=part, **setting._asdict(), environment=environment, rows=rows)
        runs.write_atomically(folder / f"{part}.json", json.dumps(stored, indent=2) + "\n")
    if part == "compare":
        beyond = [f"{row['experiment']}/{row['norm']}" for row in rows if not row.get("agrees")]
        print(f"{len(rows) - len(beyond)} of {len(rows)} agree within {TOLERANCE:g}.", *beyond)


def text(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def milliseconds(peer: Peer, timing: Timing) -> float:
    """Return the median time of a step over the rounds; the first step compiles."""
    peer.run(1)
    steps = peer.steps_within(timing.seconds)
    rounds = [peer.seconds_per_step(steps) for _ in range(timing.rounds)]
    return 1e3 * statistics.median(rounds)


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


class Chunk(Peer):
    """Calls of K steps of all lanes, as in training, on the same batches again and again."""

    def __init__(self, task: train.Task, K: int):
        config = task.config
        self.task, self.K, self.first = task, K, 0
        self.lanes = train.make_lanes(config)
        self.seeds = train.data_seeds(self.lanes, config.data_seed)
        optimizer = train.make_optimizer(config)
        self.call = train.make_call(task, optimizer, own_batches=len(self.seeds) > 1)
        self.state = train.init_lanes(task, optimizer, self.lanes)
        self.batches = self.prepare()

    def prepare(self) -> train.Batch:
        """Return the next batches on the device."""
        steps = range(self.first, self.first + self.K)
        self.first += self.K
        return jax.block_until_ready(train.batches_of(self.task, steps, seeds=self.seeds)[1])

    def run(self, steps):
        calls, waiting = -(-steps // self.K), None
        for _ in range(calls):
            self.state, metrics = self.call(self.state, self.batches)
            jax.block_until_ready(waiting)  # one call late, as in training
            waiting = metrics
        jax.block_until_ready((waiting, self.state))
        return calls * self.K


class Repeated(Peer):
    """A function as a peer; a call counts as several steps."""

    def __init__(self, function: Callable, steps: int = 1):
        self.function, self.steps = function, steps

    def run(self, steps):
        calls = -(-steps // self.steps)
        for _ in range(calls):
            self.function()
        return calls * self.steps


def bound(setting: Setting) -> Iterator[Row]:
    """Find what bounds the training step of figure 6, in ms a step of all lanes.

    device is the time of calls whose batches are on the device already, input that of preparing and
    copying batches, which a thread does meanwhile. Calls of one step show what a call itself costs.
    """
    timing = setting.timing._replace(rounds=3)
    for run in figure_6(Path("unused"), setting):
        config = run.resolved()
        if config.norm != "layer":
            continue
        task = experiments.load(config)
        for count in (1, LANES) if setting.scale == "paper" else (LANES,):
            config.seeds = tuple(range(count))
            fastest = math.inf
            for K in (config.steps_per_call, 1):
                chunk = Chunk(task, K)
                device = milliseconds(chunk, timing)
                prepared = milliseconds(Repeated(chunk.prepare, K), timing)
                fastest = min(fastest, device)
                yield dict(
                    batch_size=config.batch_size,
                    lanes=count,
                    steps_per_call=K,
                    device=device,
                    input=prepared,
                    verdict=verdict(device, prepared, fastest),
                )
        variables = train.variables_of(chunk.state, 0)
        evaluation = milliseconds(Repeated(partial(task.evaluate, variables)), timing)
        yield dict(
            batch_size=config.batch_size,
            steps_per_epoch=task.steps_per_epoch,
            evaluation_of_a_lane=evaluation,
        )


def verdict(device: float, prepared: float, fastest: float) -> str:
    """Name what a step waits for; fastest: its time on the device in a call of many steps."""
    if prepared > device:
        return "input-bound"
    return "dispatch-bound" if device > 2 * fastest else "device-bound"


# --- The same numbers as on a CPU ---

# An optimizer whose direction and new state are the gradients that train_step computes.
KEEP = optax.GradientTransformation(
    init=optax.identity().init, update=lambda grads, state, params: (grads, grads)
)
RATE = 1e-3


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
    """Return the largest relative differences of one experiment with one norm."""
    row, config = dict(experiment=experiment, norm=norm), tiny(experiment)
    config.norm, config.data_dir = norm, data_dir
    if "noise" in config:
        config.noise = 0.1  # the first pixels are black
    try:
        config.dataset = datasets.real(config.dataset, data_dir)
        task = experiments.load(config)
        ours, reference = (two_steps(task, d) for d in (jax.devices()[0], jax.devices("cpu")[0]))
    except Exception as error:  # one of many: it is reported, and the others go on
        return row | dict(agrees=False, error=f"{type(error).__name__}: {error}")
    loss = common.difference(ours[0], reference[0])
    gradient, where = max(map(gradients_differ, ours[1], reference[1]))
    agrees = max(loss, gradient) <= TOLERANCE
    return row | dict(agrees=agrees, loss=loss, gradient=gradient, where=where)


def two_steps(task: train.Task, device) -> tuple[list[float], list]:
    """Return the losses and gradients of the first two steps."""
    losses, gradients = [], []
    with jax.default_matmul_precision("highest"):
        with jax.default_device(jax.devices("cpu")[0]):  # the same start for both
            state = jax.jit(partial(train.init_state, task, KEEP))(jnp.int32(0), jnp.float32(RATE))
        state = jax.device_put(state, device)
        step = jax.jit(partial(train.train_step, task, KEEP))
        for n in range(2):
            state, metrics = step(state, jax.device_put(task.batch(n), device))
            losses.append(float(metrics["loss"]))
            gradients.append(jax.device_get(state.opt))
            if not np.isfinite([losses[-1], optax.tree.norm(gradients[-1])]).all():
                raise DivergedError(
                    f"The loss of step {n} on {device} or its gradient is not finite"
                )
    return losses, gradients


def gradients_differ(gradients, reference) -> tuple[float, str]:
    """Return the largest difference relative to the largest element of its array, and the array.

    Gradients that are zero but for rounding, as of a bias under a norm, are compared with a
    thousandth of the largest element of all arrays.
    """
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(reference), strict=True
    )
    least = 1e-3 * max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(reference))
    return max(
        (
            float(np.abs(leaf - wanted).max() / max(np.abs(wanted).max(), least)),
            jax.tree_util.keystr(path),
        )
        for (path, leaf), wanted in pairs
    )


# --- Speed, on random data ---


def recurrent(setting: Setting) -> Iterator[Row]:
    """Time forward and backward of whole sequences, then a training step, beside others'."""
    device = common.choose_device()
    missing = common.torch_missing(device)
    if missing:
        print(f"PyTorch is {missing}", flush=True)
    left_out = (*common.PEAKS, "PyTorch script")
    for name in ("draw", "pixels") if setting.scale == "paper" else ("tiny",):
        kinds = dict(gradient=rnn.gradient_peers, training=rnn.training_peers)
        for kind, make_peers in kinds.items():
            peers = make_peers(rnn.CASES[name], device, missing is None)
            peers = {label: make for label, make in peers.items() if label not in left_out}
            try:
                measured = common.compare(f"{name}, {kind}", peers, setting.timing)
            except RuntimeError as error:  # a process failed, or computes something else
                yield dict(case=name, kind=kind, error=str(error))
                continue
            print(f"\n{rnn.describe(rnn.CASES[name])}, {kind}\n\n{common.table(measured, {})}\n")
            yield dict(case=name, kind=kind, peers=common.as_dicts(measured))


def steps(setting: Setting) -> Iterator[Row]:
    """Time a training step of each experiment, in ms."""
    with tempfile.TemporaryDirectory() as folder:
        for name in setting.selected(experiments.names()):
            config = step.make_config(step.Setting(name, setting.scale, data_dir=folder), folder)
            if not datasets.arrays.is_prepared(folder, config.dataset):
                datasets.prepare(config.dataset, folder)
            row = time_step(partial(common.make, "common_jax", "Step", config), setting.timing)
            yield dict(experiment=name) | row
            jax.clear_caches()


def time_step(make: Callable[[], Peer], timing: Timing) -> Row:
    try:
        peer = make()
        return dict(step=milliseconds(peer, timing)) | peer.facts()
    except Exception as error:  # one of many: it is reported, and the others go on
        return dict(error=f"{type(error).__name__}: {error}")


def side_by_side(setting: Setting) -> Iterator[Row]:
    """Time training steps of 1 to 16 lanes in one program, in ms."""
    scale = setting.scale
    with tempfile.TemporaryDirectory() as folder:
        for name in setting.selected(("mnist", "sequential_mnist")):
            for count in (1, 2, 4, 8, 16) if scale == "paper" else (1, 2):
                config = lanes.make_config(lanes.Case(name, scale), count, folder)
                if name == "mnist" and scale == "paper":
                    config.steps_per_call = PAPER[config.batch_size]["steps_per_call"]
                each = milliseconds(common_jax.Call(config), setting.timing)
                yield dict(experiment=name, lanes=count, step=each, step_of_a_lane=each / count)


PARTS = dict(compare=compare, bound=bound, rnn=recurrent, steps=steps, lanes=side_by_side)
