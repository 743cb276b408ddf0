"""The trainer. It knows steps, lanes and when to log, evaluate and save; it does not know what is
being learned.

A lane is one (seed, learning rate). All lanes of a run train in one vmapped program on the same
batches, so every leaf of `State` has a leading lane axis that no task or model mentions:
``lane(state, 0)`` is the way to look at one. A single run is a run of one lane.

A lane whose loss or state stops being finite is dead: nothing more is written of it, checkpoints
keep its state from before, and the others go on. Lanes do not mix: it is computed on and ignored.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
import dataclasses
import datetime
from functools import partial
import itertools
import json
import math
from pathlib import Path
import signal
import sys
import threading
import time
from types import MappingProxyType
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ln.errors import DivergedError, InputError, choose, writing
from ln.training import data, ranges, runs
from ln.training.devices import ALONE, Anybody, Spread, check_same, of_first
from ln.training.optim import make_optimizer

Batch = dict[str, Any]
Variables = dict[str, Any]  # {"params": ..., "stats": ...}
Scores = dict[str, dict[str, float]]  # split -> metric -> value


class Task:
    """One experiment of the paper, as the trainer sees it.

    Attributes:
        steps_per_epoch: updates per pass over the training set; None where there is no such thing.
        data: digests of its data sets by name, by which a resumed run knows that they are the same.
        arrays: the training set, from which `gather` takes batches.
    """

    steps_per_epoch: int | None = None
    data: Mapping[str, str] = MappingProxyType({})
    arrays: Mapping[str, np.ndarray] = MappingProxyType({})

    def __init__(self, config):
        ranges.check(config)
        self.config = config

    def example(self) -> Batch:
        """A random batch of the right shapes: it initializes the model and feeds the tests."""
        raise NotImplementedError

    def init(self, key) -> Variables:
        """Fresh variables. A pure function of the key: the trainer vmaps it over the lanes."""
        raise NotImplementedError

    def loss(self, variables: Variables, batch: Batch, key, train: bool):
        """Returns loss, (stats, metrics): a scalar, the new running statistics, scalars to log."""
        raise NotImplementedError

    def shape(self, step: int) -> Hashable:
        """Return what tells batches of different shapes apart, such as their padded length.

        It depends on the step alone: all lanes have batches of one shape, and so have the steps of
        one call.
        """
        return None

    def indices(self, step: int, seed: int, rows: slice = slice(None)) -> Any:
        """Return which examples make a batch, and whatever else is drawn for it.

        Args:
            step: of training, from 0.
            seed: of the order of the data. Two lanes of one seed have the same batches.
            rows: which of the config.batch_size examples to load: each of several processes needs
                only some. Anything that concerns the whole batch must not depend on it.

        Returns:
            Small numpy arrays in any pytree; a pure function of the arguments.
        """
        raise NotImplementedError

    def gather(self, arrays: Mapping[str, Any], indices: Any, shape: Hashable) -> Batch:
        """Return the batch of these indices, arrays ``[rows, ...]`` or numbers.

        A pure function that works on numpy arrays as on jax arrays with traced indices, so that it
        can run on the device.
        """
        raise NotImplementedError

    def batch(self, step: int, seed: int = 0, rows: slice = slice(None)) -> Batch:
        """Return the batch of a step in the order of a seed; a pure function, as numpy arrays.

        A task whose batches are not gathered from arrays overrides this instead of `indices` and
        `gather`.
        """
        return self.gather(self.arrays, self.indices(step, seed, rows), self.shape(step))

    def evaluate(self, variables: Variables) -> Scores:
        """Scores of one lane on whole splits, {"test": {"error": 0.013}}, from held-out data."""
        raise NotImplementedError


class State(flax.struct.PyTreeNode):
    """Everything that changes, or that may differ between lanes. In `fit` every leaf is
    ``[lanes, ...]``."""

    step: jax.Array
    seed: jax.Array
    lr: jax.Array
    params: dict
    stats: dict
    opt: optax.OptState


def init_state(task: Task, optimizer, seed, lr) -> State:
    """The state of one lane before its first step."""
    variables = task.init(jax.random.key(seed))
    params = variables["params"]
    return State(
        step=jnp.int32(0),
        seed=seed,
        lr=lr,
        params=params,
        stats=variables.get("stats", {}),
        opt=optimizer.init(params),
    )


def train_step(task: Task, optimizer, state: State, batch: Batch):
    """One update of one lane. Returns the new state, and scalars: the loss, and the task's own."""
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)

    def loss(params):
        return task.loss({"params": params, "stats": state.stats}, batch, key, train=True)

    (value, (stats, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    direction, opt = optimizer.update(grads, state.opt, state.params)
    params = jax.tree.map(lambda p, d: p - state.lr * d, state.params, direction)
    new = state.replace(step=state.step + 1, params=params, stats=stats, opt=opt)
    return new, {"loss": value, **metrics}


def lane(tree, n: int):
    """One lane of a tree whose leaves are ``[lanes, ...]``."""
    return jax.tree.map(lambda leaf: leaf[n], tree)


def init_lanes(task: Task, optimizer, lanes: list[tuple[int, float]]) -> State:
    """The state of every (seed, learning rate) before its first step."""
    seeds, rates = (jnp.array(column) for column in zip(*lanes, strict=True))
    return jax.jit(jax.vmap(partial(init_state, task, optimizer)))(seeds, rates)


def variables_of(state: State, n: int) -> Variables:
    """What the model of lane n is applied with."""
    return {"params": lane(state.params, n), "stats": lane(state.stats, n)}


def make_call(task: Task, optimizer, spread: Spread = ALONE, own_batches: bool = False) -> Callable:
    """Compiles K steps of all lanes as one call: (state, batches) -> (state, metrics).

    ``batches`` has leaves ``[K, ...]`` that all lanes share or, with own_batches, ``[K, lanes,
    ...]``; metrics are ``[K, lanes]``. The state's memory is reused: the state that went in must
    not be read again.
    """
    step = partial(train_step, task, optimizer)

    def all_lanes(state, batch):
        if not own_batches:
            # One copy of the small batch per lane keeps every matrix product in its natural layout.
            batch = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(state.step)), batch)
        return jax.vmap(step)(state, batch)

    def call(state, batches):
        if len(state.step) > 1:
            return jax.lax.scan(all_lanes, state, batches)
        # XLA would lay the gradients out transposed behind a lane axis of length 1, and Adam would
        # take twice as long to read them.
        if own_batches:
            batches = jax.tree.map(lambda leaf: leaf[:, 0], batches)
        state, metrics = jax.lax.scan(step, lane(state, 0), batches)
        metrics = jax.tree.map(lambda values: values[:, None], metrics)
        return jax.tree.map(lambda leaf: leaf[None], state), metrics

    return jax.jit(call, donate_argnums=0, out_shardings=spread.outputs)


def data_seeds(lanes: list[tuple[int, float]], data_seed: int) -> list[int]:
    """Return the seed of each lane's order of the data, or the only one that all lanes share.

    Args:
        data_seed: config.data_seed; -1 means each lane's own seed.
    """
    seeds = [seed for seed, _ in lanes] if data_seed < 0 else [data_seed]
    return seeds[:1] if len(set(seeds)) == 1 else seeds


def batches_of(
    task: Task, steps: range, spread: Spread = ALONE, seeds: Sequence[int] = (0,)
) -> tuple[range, Batch]:
    """Return the batches of a call on the device, behind the steps they are for.

    Args:
        seeds: as `data_seeds` returns them. Leaves are ``[K, ...]`` for one seed that all lanes
            share, else ``[K, lanes, ...]``.
    """
    rows = spread.rows
    if len(seeds) == 1:
        batches = [task.batch(step, seeds[0], rows) for step in steps]
        return steps, spread.batches(_stack(batches))
    mine, batches = seeds[spread.lanes(len(seeds))], []
    for step in steps:
        by_seed = {seed: task.batch(step, seed, rows) for seed in set(mine)}
        batches.append(_stack([by_seed[seed] for seed in mine]))
    return steps, spread.batches(_stack(batches), lanes=len(seeds))


def _stack(trees: list) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def average(per_case: Callable, arrays: Batch, block: int = 1000) -> Callable:
    """Compiles the means of per-case metrics over a whole split.

    Args:
        per_case: (variables, batch) -> {metric: ``[B]``}.
        arrays: the split, leaves ``[N, ...]``.
        block: how many cases to hold in memory at once.

    Returns:
        variables -> {metric: float}, each case with the same weight.
    """
    cases = len(next(iter(arrays.values())))
    batches, weights = jax.device_put(data.blocks(arrays, min(block, cases)))

    @jax.jit
    def sums(variables, batches, weights):
        def of_block(block):
            batch, weight = block
            return jax.tree.map(lambda m: (weight * m).sum(), per_case(variables, batch))

        return jax.lax.map(of_block, (batches, weights))

    total = float(weights.sum())

    def means(variables):
        found = jax.device_get(sums(variables, batches, weights))
        return {name: float(s.sum(dtype=np.float64)) / total for name, s in found.items()}

    return means


def in_steps(name: str, text: str, steps_per_epoch: int | None) -> int:
    """Reads a length such as "65 epochs", "300 steps" or "300".

    Raises:
        InputError: not of that form, not positive, or epochs where the task has none.
    """
    number, _, unit = str(text).strip().partition(" ")
    try:
        count = float(number)
    except ValueError:
        count = math.nan
    per = {"": 1, "step": 1, "epoch": steps_per_epoch}.get(unit.strip().removesuffix("s"), 0)
    if per is None:
        raise InputError(f"config.{name} is {text!r}, but this task has no epochs: give steps.")
    steps = count * per
    if not 1 <= steps < math.inf or steps != int(steps):
        raise InputError(
            f'config.{name} is {text!r}; write a positive length as "300 steps" or "65 epochs".'
        )
    return int(steps)


@dataclasses.dataclass(frozen=True)
class Plan:
    """When to do what, in steps; a function of the step alone, so that resuming changes nothing."""

    steps: int
    log_every: int
    eval_every: int
    save_every: int
    steps_per_call: int

    @classmethod
    def of(cls, config, task: Task) -> "Plan":
        ranges.check(config)
        lengths = ("steps", "log_every", "eval_every", "save_every")
        found = {k: in_steps(k, config[k], task.steps_per_epoch) for k in lengths}
        return cls(**found, steps_per_call=config.steps_per_call)

    def due(self, every: int, step: int) -> bool:
        return step % every == 0 or step == self.steps

    def calls(
        self, step: int, shape: Callable[[int], Hashable] = lambda step: None
    ) -> Iterator[range]:
        """The steps of each call from here to the end. Calls stop where something is due, and where
        the next batch has another shape. With several shapes a call has steps_per_call steps or 1:
        two programs to compile for each shape, not one for every length of a call.
        """
        while step < self.steps:
            every = (self.log_every, self.eval_every, self.save_every)
            stop = min(
                step + self.steps_per_call, self.steps, *(step - step % e + e for e in every)
            )
            stop = next((k for k in range(step + 1, stop) if shape(k) != shape(step)), stop)
            if shape(step) is not None and stop - step < self.steps_per_call:
                stop = step + 1
            yield range(step, stop)
            step = stop


def make_lanes(config) -> list[tuple[int, float]]:
    """Return all pairs of ``config.seeds`` and ``config.lr``.

    Raises:
        InputError: there is no pair or one twice, or a seed, rate or config.data_seed is invalid.
    """
    lanes = list(itertools.product(config.seeds, config.lr))
    if not lanes or len(set(lanes)) < len(lanes):
        raise InputError(
            f"config.seeds={tuple(config.seeds)} and config.lr={tuple(config.lr)} must each name "
            f"one or more numbers, none twice."
        )
    for seed, lr in lanes:
        if not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise InputError(
                f"config.seeds has {seed!r}; a seed is a whole number from 0 to 2³¹−1."
            )
        if not isinstance(lr, int | float) or not 0 < lr < math.inf:
            raise InputError(f"config.lr has {lr!r}; a learning rate is a positive number.")
    data_seed = config.get("data_seed", -1)
    if not isinstance(data_seed, int) or not -1 <= data_seed < 2**31:
        raise InputError(
            f"config.data_seed is {data_seed!r}; give -1, for an order of the data by seed, or a "
            f"whole number from 0 to 2³¹−1, for one order in all lanes."
        )
    return [(seed, float(lr)) for seed, lr in lanes]


class Call(NamedTuple):
    """A dispatched call: the steps it makes, and its metrics ``[K, lanes]``, still on their way."""

    steps: range
    metrics: dict[str, jax.Array]


class Means:
    """Means of the updates' metrics since the last row. The sums are part of a checkpoint."""

    def __init__(self, sums: dict[str, np.ndarray]):
        self.sums = dict(sums)  # name -> [lanes], and the count of updates

    def add(self, metrics: dict[str, np.ndarray]) -> None:
        """Adds metrics ``[K, lanes]`` of K updates."""
        counted = {**metrics, "count": np.ones_like(metrics["loss"])}
        for name, values in counted.items():
            self.sums[name] = self.sums.get(name, 0.0) + values.sum(0, dtype=np.float64)

    def take(self) -> dict[str, np.ndarray]:
        """Returns the means ``[lanes]`` and starts anew."""
        sums, self.sums = self.sums, {}
        count = sums.pop("count")
        return {name: values / count for name, values in sums.items()}


class Progress:
    """One line: a living one on a terminal, else a plain one every ten seconds."""

    def __init__(self, name: str, first: int, steps: int, unit: str = "step", value: str = "loss"):
        self.name, self.first, self.steps = name, first, steps
        self.unit, self.value = unit, value
        self.is_terminal = sys.stdout.isatty()
        self.began = self.shown = time.monotonic()

    def show(self, step: int, loss: np.ndarray) -> None:
        now, last = time.monotonic(), step == self.steps
        if now - self.shown < (0.2 if self.is_terminal else 10) and not last:
            return
        self.shown = now
        rate = (step - self.first) / max(now - self.began, 1e-9)  # of this session only
        eta = datetime.timedelta(seconds=round((self.steps - step) / rate))
        losses = " ".join(f"{value:.4g}" for value in loss[:4]) + (" …" if len(loss) > 4 else "")
        line = (
            f"{self.name}  {self.unit} {step:,}/{self.steps:,} ({step / self.steps:.0%})  "
            f"{rate:,.1f} {self.unit}s/s  {self.value} {losses}  ETA {eta}"
        )
        print(f"\r\033[K{line}" if self.is_terminal else line, end="", flush=True)
        if last or not self.is_terminal:
            print(flush=True)


class Interrupted(KeyboardInterrupt):
    """Training was stopped by the user and saved; running the same command goes on."""


class Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a request to save and stop after the current call.

    What comes within the same second is the same request: a cluster's signal may come from the
    cluster and from the process that started this one.
    """

    def __init__(self):
        self.asked, self.since = False, 0.0
        self.before: dict = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            signals = (signal.SIGINT, signal.SIGTERM)
            self.before = {s: signal.signal(s, self._ask) for s in signals}
        return self

    def _ask(self, number, frame):
        if not self.asked:
            self.asked, self.since = True, time.monotonic()
            print("\nStopping after this call, to save …", flush=True)
        elif time.monotonic() - self.since > 1:
            self.__exit__()  # it ends the process as usual
            signal.raise_signal(number)

    def __exit__(self, *_):
        for s, handler in self.before.items():
            signal.signal(s, handler)


class Death(NamedTuple):
    """What ended a lane, and after which step."""

    lane: int
    step: int
    cause: str


def bad_losses(call: Call, loss: np.ndarray) -> list[Death]:
    """The lanes of a call in which a loss ``[K, lanes]`` is not finite, each at the first one."""
    bad = ~np.isfinite(loss)
    first = bad.argmax(0)
    return [
        Death(int(n), call.steps[first[n]] + 1, f"the loss is {loss[first[n], n]}")
        for n in np.flatnonzero(bad.any(0))
    ]


def bad_states(state: State, step: int) -> list[Death]:
    """The lanes in which a parameter, statistic or moment is not finite, with one of these."""
    found: dict[int, Death] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        finite = np.isfinite(np.asarray(leaf)).reshape(len(leaf), -1).all(1)
        for n in np.flatnonzero(~finite).tolist():
            cause = f"State{jax.tree_util.keystr(path)} is not finite"
            found.setdefault(n, Death(n, step, cause))
    return list(found.values())


def evaluate(
    task: Task, state: State, dead: Collection[int] = ()
) -> dict[str, dict[str, list[float]]]:
    """Evaluates the lanes; returns split -> metric -> one value per lane, NaN for dead ones."""
    lanes = range(len(state.step))
    scores = {n: task.evaluate(variables_of(state, n)) for n in lanes if n not in dead}
    return {
        split: {
            name: [scores[n][split][name] if n in scores else math.nan for n in lanes]
            for name in values
        }
        for split, values in next(iter(scores.values())).items()
    }


def fit(task: Task, config, workdir: Path | str) -> State:
    """Trains every lane of the config, from the newest checkpoint in workdir if there is one.

    All processes of jax.distributed call it alike. The first writes the run folder, and only there
    need it be; the others compute the same, each on its part of the lanes or batches.

    Steps go to the device ``config.steps_per_call`` at a time; the next batches are prepared on a
    thread meanwhile, and metrics are fetched one call late, so that the device never waits.

    Returns:
        The last state; every leaf has a leading lane axis.

    Raises:
        InputError: a setting or the folder cannot be used, devices do not divide lanes and batch,
            or processes differ (before anything is computed); the device has too little memory, or
            the disk is full.
        DivergedError: in every lane a loss or parameter is not finite. The last checkpoint is from
            before.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    plan, lanes, optimizer = Plan.of(config, task), make_lanes(config), make_optimizer(config)
    spread = Spread.over(jax.devices(), len(lanes), config.batch_size)
    same = {k: v for k, v in runs.as_json(config).items() if k not in runs.PLACES}
    check_same(json.dumps([same, dict(task.data)], sort_keys=True))
    with (
        writing(workdir, "--workdir", "; the same command goes on from the newest checkpoint"),
        runs.open_run(workdir, config, lanes, task.data) as run,
        Interrupt() as interrupt,
    ):
        devices = f"{jax.device_count()} x " if jax.device_count() > 1 else ""
        devices += jax.devices()[0].device_kind
        devices += f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
        print(f"{run.folder}: {len(lanes)} lane(s) on {devices}", flush=True)
        try:
            fresh = init_lanes(task, optimizer, lanes)
            # Process 0 alone knows the folder, whose run may be from before data orders by lane.
            seeds = data_seeds(lanes, int(of_first(np.int32(run.data_seed))))
            call = make_call(task, optimizer, spread, len(seeds) > 1)
            prepare = partial(batches_of, task, spread=spread, seeds=seeds)
            return _train(task, plan, call, prepare, fresh, run, interrupt, spread)
        except DivergedError as error:
            raise DivergedError(
                f"{error} Training stopped; {run.kept()}. "
                f"A smaller config.lr or a config.clip may help."
            ) from None
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise InputError(
                f"Out of memory with {len(lanes)} lane(s) and config.batch_size="
                f"{config.batch_size}: make one of them smaller, or config.steps_per_call."
            ) from error


def load(task: Task, workdir: Path | str, which: str = "best") -> State:
    """The state in a checkpoint of a run of this task, which may still go on.

    Args:
        which: "best" by config.select, "newest", or a step.

    Returns:
        The state; every leaf has a leading lane axis.

    Raises:
        InputError: there is no such checkpoint, or it holds another kind of state.
    """
    fresh = init_lanes(task, make_optimizer(task.config), make_lanes(task.config))
    return runs.read_checkpoint(workdir, which, fresh)


def _train(
    task: Task,
    plan: Plan,
    call: Callable,
    prepare: Callable[[range], tuple[range, Batch]],
    state: State,
    run: runs.Run | runs.Elsewhere,
    interrupt: Interrupt,
    spread: Spread,
) -> State:
    state, sums = run.restore(state)
    state = of_first(state)
    steps_of_lanes = np.asarray(state.step)
    state = spread.state(state)
    first, means = int(steps_of_lanes.max()), Means(sums)
    dead = set(np.flatnonzero(steps_of_lanes < first).tolist())
    if first > plan.steps:
        raise InputError(
            f"{run.folder} has a checkpoint of step {first:,} already: config.steps must be that "
            f"or more."
        )
    run.start(first)
    for n in dead - run.buried():
        run.bury(n, int(steps_of_lanes[n]) + 1, "what ended it is not in dead.jsonl any more")
    if first:
        print(f"Resuming at step {first:,}.", flush=True)
    progress, select = Progress(task.config.experiment, first, plan.steps), task.config.select

    def write(step, split, metrics):
        epoch = step / task.steps_per_epoch if task.steps_per_epoch else None
        run.write(step, epoch, split, metrics, dead)

    def bury(deaths: list[Death]) -> None:
        """Goes on without these lanes, where any other is left."""
        for death in deaths:
            if death.lane in dead:
                continue
            dead.add(death.lane)
            run.bury(*death)
            seed, lr = run.lanes[death.lane]
            where = f"at step {death.step} in lane {death.lane} (seed {seed}, lr {lr:g})."
            words = f"{death.cause[0].upper()}{death.cause[1:]} {where}"
            if len(dead) == len(run.lanes):
                raise DivergedError(words if len(dead) == 1 else f"{words} All lanes are dead.")
            print(f"{words} This lane is dead; the others go on.", flush=True)

    def settle(done: Call | None) -> None:
        """Fetches the metrics of a call, and writes a row where one is due."""
        if done is None:
            return
        step, metrics = done.steps[-1] + 1, jax.device_get(done.metrics)
        bury(bad_losses(done, metrics["loss"]))
        is_dead = np.isin(np.arange(len(run.lanes)), list(dead))
        means.add({name: np.where(is_dead, 0.0, values) for name, values in metrics.items()})
        if plan.due(plan.log_every, step):
            write(step, "update", means.take())
        progress.show(step, metrics["loss"][-1])

    waiting, anybody = None, Anybody()
    for steps, batches in data.ahead(prepare, plan.calls(first, task.shape)):
        state, metrics = call(state, batches)
        settle(waiting)
        waiting, step, score = Call(steps, metrics), steps[-1] + 1, None
        stopping = anybody(interrupt.asked)
        evaluating, saving = plan.due(plan.eval_every, step), plan.due(plan.save_every, step)
        if not (evaluating or saving or stopping):
            continue

        settle(waiting)
        waiting, whole = None, spread.gathered(state)
        if evaluating:
            scores = evaluate(task, whole, dead)
            for split, columns in scores.items():
                write(step, split, columns)
            split = choose("config.select.split", select.split, scores)
            score = float(np.nanmean(choose("config.select.metric", select.metric, split)))
        if saving or stopping:
            bury(bad_states(whole, step))
            run.save(step, whole, means.sums, score, dead)
        if stopping and step < plan.steps:
            raise Interrupted(f"Saved step {step:,} in {run.folder}")
    run.finish(plan.steps)
    return state
