"""The trainer. It knows steps, lanes and when to log, evaluate and save; it does not know what is
being learned.

A lane is one (seed, learning rate). All lanes of a run train in one vmapped program on the same
batches, so every leaf of `State` has a leading lane axis that no task or model mentions:
``lane(state, 0)`` is the way to look at one. A single run is a run of one lane.
"""

from collections.abc import Callable, Iterator
import dataclasses
from functools import partial
import itertools
import math
from pathlib import Path
import signal
import sys
import threading
import time
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ln import data, runs
from ln.errors import DivergedError, InputError, choose

Batch = dict[str, Any]
Variables = dict[str, Any]  # {"params": ..., "stats": ...}
Scores = dict[str, dict[str, float]]  # split -> metric -> value


class Task:
    """One experiment of the paper, as the trainer sees it.

    Attributes:
        steps_per_epoch: updates per pass over the training set; None where there is no such thing.
    """

    steps_per_epoch: int | None = None

    def __init__(self, config):
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

    def batch(self, step: int) -> Batch:
        """Numpy arrays as a pure function of the step, so that a resumed run sees the same."""
        raise NotImplementedError

    def evaluate(self, variables: Variables) -> Scores:
        """Scores of one lane on whole splits, {"test": {"error": 0.013}}, from held-out data."""
        raise NotImplementedError


@flax.struct.dataclass
class State:
    """Everything that changes, or that may differ between lanes. In `fit` every leaf is
    ``[lanes, ...]``."""

    step: jax.Array
    seed: jax.Array
    lr: jax.Array
    params: dict
    stats: dict
    opt: optax.OptState


OPTIMIZERS = {"adam": optax.scale_by_adam}


def make_optimizer(config) -> optax.GradientTransformation:
    """The gradient transformation of ``config.optimizer``, ending in a direction.

    The step size is ``state.lr``, so that lanes can differ in it.

    Raises:
        InputError: an unknown kind.
    """
    options = dict(config.optimizer)
    kind = options.pop("kind")
    direction = choose("config.optimizer.kind", kind, OPTIMIZERS)(**options)
    return optax.chain(optax.clip_by_global_norm(config.clip), direction) if config.clip else direction


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
    """One update of one lane. Returns the new state and scalars: the loss and what the task logs."""
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


def make_call(task: Task, optimizer) -> Callable:
    """Compiles K steps of all lanes as one call: (state, batches) -> (state, metrics).

    ``batches`` has leaves ``[K, ...]``, metrics ``[K, lanes]``. The state's memory is reused: the
    state that went in must not be read again.
    """
    step = partial(train_step, task, optimizer)

    def all_lanes(state, batch):
        # One copy of the small batch per lane keeps every matrix product in its natural layout.
        copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(state.step)), batch)
        return jax.vmap(step)(state, copies)

    def call(state, batches):
        if len(state.step) > 1:
            return jax.lax.scan(all_lanes, state, batches)
        # XLA would lay the gradients out transposed behind a lane axis of length 1, and Adam would
        # take twice as long to read them.
        state, metrics = jax.lax.scan(step, lane(state, 0), batches)
        return jax.tree.map(lambda leaf: leaf[None], state), {k: v[:, None] for k, v in metrics.items()}

    return jax.jit(call, donate_argnums=0)


def average(per_case: Callable, arrays: Batch, block: int = 1000) -> Callable:
    """Compiles the means of per-case metrics over a whole split.

    Args:
        per_case: (variables, batch) -> {metric: ``[B]``}.
        arrays: the split, leaves ``[N, ...]``.
        block: how many cases to hold in memory at once.

    Returns:
        variables -> {metric: float}, each case with the same weight.
    """
    batches, weights = jax.device_put(data.blocks(arrays, min(block, len(next(iter(arrays.values()))))))

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
        count = float(number.replace("_", ""))
    except ValueError:
        count = math.nan
    per = {"": 1, "step": 1, "epoch": steps_per_epoch}.get(unit.strip().removesuffix("s"), 0)
    if per is None:
        raise InputError(f"config.{name} is {text!r}, but this task has no epochs: give steps.")
    steps = count * per
    if not steps >= 1 or steps != int(steps):
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
        if config.steps_per_call < 1:
            raise InputError(f"config.steps_per_call is {config.steps_per_call}; it must be 1 or more.")
        lengths = ("steps", "log_every", "eval_every", "save_every")
        found = {k: in_steps(k, config[k], task.steps_per_epoch) for k in lengths}
        return cls(**found, steps_per_call=config.steps_per_call)

    def due(self, every: int, step: int) -> bool:
        return step % every == 0 or step == self.steps

    def calls(self, step: int) -> Iterator[range]:
        """The steps of each call from here to the end. Calls stop where something is due."""
        while step < self.steps:
            every = (self.log_every, self.eval_every, self.save_every)
            stop = min(step + self.steps_per_call, self.steps, *(step - step % e + e for e in every))
            yield range(step, stop)
            step = stop


def make_lanes(config) -> list[tuple[int, float]]:
    """All pairs of ``config.seeds`` and ``config.lr``.

    Raises:
        InputError: none, one twice, or a number that cannot be one.
    """
    lanes = list(itertools.product(config.seeds, config.lr))
    if not lanes or len(set(lanes)) < len(lanes):
        raise InputError(
            f"config.seeds={tuple(config.seeds)} and config.lr={tuple(config.lr)} must each name "
            f"one or more numbers, none twice."
        )
    for seed, lr in lanes:
        if not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise InputError(f"config.seeds has {seed!r}; a seed is a whole number from 0 to 2³¹−1.")
        if not isinstance(lr, int | float) or not 0 < lr < math.inf:
            raise InputError(f"config.lr has {lr!r}; a learning rate is a positive number.")
    return [(seed, float(lr)) for seed, lr in lanes]


class Call(NamedTuple):
    """A dispatched call: the steps it makes, and its metrics, still on their way."""

    steps: range
    metrics: dict[str, jax.Array]


class Progress:
    """One line: a living one on a terminal, else a plain one every few seconds."""

    def __init__(self, name: str, first: int, steps: int):
        self.name, self.first, self.steps = name, first, steps
        self.living = sys.stdout.isatty()
        self.began = self.shown = time.monotonic()

    def show(self, step: int, loss: np.ndarray, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self.shown < (0.2 if self.living else 10):
            return
        self.shown = now
        rate = (step - self.first) / max(now - self.began, 1e-9)  # this session's steps only
        eta = time.strftime("%H:%M:%S", time.gmtime((self.steps - step) / rate))
        losses = " ".join(f"{value:.4g}" for value in loss[:4]) + (" …" if len(loss) > 4 else "")
        line = (
            f"{self.name}  step {step:,}/{self.steps:,} ({step / self.steps:.0%})  "
            f"{rate:,.1f} steps/s  loss {losses}  ETA {eta}"
        )
        print(f"\r\033[K{line}" if self.living else line, end="", flush=True)
        if last or not self.living:
            print(flush=True)


class Interrupt:
    """Turns the first Ctrl-C (or SIGTERM) into a request to stop after the current call."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.asked = False

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self._ask) for s in self.SIGNALS}
        else:
            self.before = {}
        return self

    def _ask(self, number, frame):
        self.asked = True
        for s, handler in self.before.items():  # a second one ends the process as usual
            signal.signal(s, handler)
        print("\nStopping after this call, to save …", flush=True)

    def __exit__(self, *_):
        for s, handler in self.before.items():
            signal.signal(s, handler)


class Interrupted(KeyboardInterrupt):
    """Training was stopped by the user and saved; running the same command goes on."""


def check_finite(call: Call, metrics: dict[str, np.ndarray], lanes) -> None:
    bad = ~np.isfinite(metrics["loss"])  # [K, lanes]
    if bad.any():
        k, n = np.argwhere(bad)[0]
        raise DivergedError(
            f"The loss is {metrics['loss'][k, n]} at step {call.steps[k] + 1} in lane {n} "
            f"(seed {lanes[n][0]}, lr {lanes[n][1]:g})"
        )


def fit(task: Task, config, workdir: Path | str) -> State:
    """Trains every lane of the config, from the newest checkpoint in workdir if there is one.

    Steps go to the device ``config.steps_per_call`` at a time; the next batches are prepared on a
    thread meanwhile, and metrics are fetched one call late, so that the device never waits.

    Returns:
        The last state; every leaf has a leading lane axis.

    Raises:
        InputError: a setting or the folder cannot be used; before anything is computed.
        DivergedError: a loss or parameter is not finite. The last checkpoint is from before.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    plan, lanes, optimizer = Plan.of(config, task), make_lanes(config), make_optimizer(config)
    with runs.Run(workdir, config, lanes) as run, Interrupt() as interrupt:
        seeds, rates = (jnp.array(column) for column in zip(*lanes, strict=True))
        fresh = jax.jit(jax.vmap(partial(init_state, task, optimizer)))(seeds, rates)
        state, sums = run.restore(fresh)
        first = int(state.step[0])
        run.start(first)
        if first:
            print(f"Resuming {run.folder} at step {first:,}.", flush=True)
        return _train(task, plan, lanes, run, interrupt, make_call(task, optimizer), state, sums)


def _train(task, plan, lanes, run, interrupt, call, state, sums):
    """The loop of `fit`; sums holds what was summed since the last row of split "update"."""
    first, began = int(state.step[0]), time.monotonic()
    progress = Progress(task.config.experiment, first, plan.steps)
    sums = dict(sums)

    def epoch(step):
        return step / task.steps_per_epoch if task.steps_per_epoch else None

    def settle(done: Call | None) -> None:
        """Fetches a call's metrics, and writes the mean since the last row where one is due."""
        if done is None:
            return
        step, metrics = done.steps[-1] + 1, jax.device_get(done.metrics)
        check_finite(done, metrics, lanes)
        for name, values in metrics.items():
            sums[name] = sums.get(name, 0.0) + values.sum(0, dtype=np.float64)
        sums["count"] = sums.get("count", 0.0) + np.full(len(lanes), len(done.steps), np.float64)
        if plan.due(plan.log_every, step):
            count = sums.pop("count")
            run.write(step, epoch(step), "update", {k: v / count for k, v in sums.items()})
            sums.clear()
        progress.show(step, metrics["loss"][-1])

    def evaluate(step) -> float:
        """Writes a row per lane and split; returns the mean of config.select over lanes."""
        scores = [
            task.evaluate({"params": lane(state.params, n), "stats": lane(state.stats, n)})
            for n in range(len(lanes))
        ]
        for split in scores[0]:
            columns = {name: [s[split][name] for s in scores] for name in scores[0][split]}
            run.write(step, epoch(step), split, columns)
        select = task.config.select
        metrics = choose("config.select.split", select.split, scores[0])
        choose("config.select.metric", select.metric, metrics)
        return float(np.mean([s[select.split][select.metric] for s in scores]))

    def save(step, score) -> None:
        finite = jax.tree.map(lambda leaf: np.isfinite(leaf).all(), state)
        if not all(jax.tree.leaves(finite)):
            raise DivergedError(f"A parameter is not finite after step {step}")
        run.save(step, state, sums, score)

    def prepare(steps: range):
        batches = [task.batch(n) for n in steps]
        return steps, jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *batches))

    waiting = None
    try:
        for steps, batches in data.ahead(prepare, plan.calls(first)):
            state, metrics = call(state, batches)
            settle(waiting)
            waiting, step = Call(steps, metrics), steps[-1] + 1
            evaluating, saving = plan.due(plan.eval_every, step), plan.due(plan.save_every, step)
            if evaluating or saving or interrupt.asked:
                settle(waiting)
                waiting = None
                score = evaluate(step) if evaluating else None
                if saving or interrupt.asked:
                    save(step, score)
            if interrupt.asked and step < plan.steps:
                raise Interrupted(f"Saved step {step:,} in {run.folder}")
    except DivergedError as error:
        raise DivergedError(
            f"{error}. Training stopped; the last good checkpoint is kept in "
            f"{run.folder / 'checkpoints'}. A smaller config.lr or a config.clip may help."
        ) from None
    if first < plan.steps:
        progress.show(plan.steps, jax.device_get(metrics["loss"])[-1], last=True)
    run.finish(dict(step=plan.steps, seconds_of_last_session=time.monotonic() - began))
    return state
