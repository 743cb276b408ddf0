"""The trainer: steps, lanes, and when to log, evaluate and save. It does not know what is learned.

A lane is one (seed, learning rate). All lanes of a run train in one vmapped program, so every leaf
of `State` has a leading lane axis that no task or model mentions: ``lane(state, 0)`` returns one. A
single run is a run of one lane.

A lane whose loss or state stops being finite has diverged: it gets no more rows, and the others
continue. Lanes do not mix, so it is computed on and ignored.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
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
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ln.errors import DivergedError, InputError, choose, writing
from ln.product import rounding
from ln.training import data, ranges, runs
from ln.training import devices as machine
from ln.training.console import Output, Progress, live_line, say
from ln.training.devices import ALONE, Spread
from ln.training.optim import make_optimizer

Batch = dict[str, Any]
Variables = dict[str, Any]  # {"params": ..., "stats": ...}
Scores = dict[str, dict[str, float]]  # split -> metric -> value

# config.precision -> how jax multiplies float32, and to how many bits layers round mantissas on a
# CPU. By default CPUs multiply in float32, NVIDIA's GPUs in TF32, and TPUs in bfloat16.
PRECISIONS = {
    "default": (None, None),
    "float32": ("highest", None),
    "tf32": ("tensorfloat32", 10),
    "bfloat16": ("BF16_BF16_F32", 7),  # sums are float32
}


CALL = 0.1  # seconds of a call on an accelerator
ROOM = 2**28  # bytes of the batches of a call there


class Task:
    """One experiment, as the trainer sees it.

    Attributes:
        steps_per_epoch: updates per pass over the training set; None if there is no such thing.
        data: digests of its data sets by name, so that a resumed run notices other data.
        arrays: the training set, from which `gather` takes batches.
        metrics: names of what it evaluates, for config.select; () if they are not known before.
    """

    steps_per_epoch: int | None = None
    data: Mapping[str, str] = MappingProxyType({})
    arrays: Mapping[str, np.ndarray] = MappingProxyType({})
    metrics: tuple[str, ...] = ()

    def __init__(self, config):
        ranges.check(config)
        self.config = config

    def example(self) -> Batch:
        """Return a random batch of the right shapes, to initialize the model and for tests."""
        raise NotImplementedError

    def init(self, key) -> Variables:
        """Return fresh variables; a pure function of the key, which is vmapped over lanes."""
        raise NotImplementedError

    def loss(self, variables: Variables, batch: Batch, key, train: bool):
        """Return loss, (stats, metrics): a scalar, the new running statistics, scalars to log."""
        raise NotImplementedError

    def shape(self, step: int) -> Hashable:
        """Return a label of the shape of a batch, such as their padded length.

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
        """Return the scores of one lane on whole splits, such as {"test": {"error": 0.013}}."""
        raise NotImplementedError


class State(flax.struct.PyTreeNode):
    """Everything that changes or differs between lanes. Leaves are ``[lanes, ...]`` in `fit`."""

    step: jax.Array
    seed: jax.Array
    lr: jax.Array
    params: dict
    stats: dict
    opt: optax.OptState


def init_state(task: Task, optimizer, seed, lr) -> State:
    """Return the state of one lane before its first step."""
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


@contextlib.contextmanager
def products(config) -> Iterator[None]:
    """Trace functions with the precision of a config."""
    name = config.get("precision", "default")
    precision, bits = choose("config.precision", name, PRECISIONS)
    with contextlib.ExitStack() as stack:
        if precision:
            stack.enter_context(jax.default_matmul_precision(precision))
        if jax.default_backend() == "cpu":
            stack.enter_context(rounding(bits))
        yield


def train_step(task: Task, optimizer, state: State, batch: Batch):
    """Return the state of one lane after an update, and scalars: the loss and the task's own."""
    # A function of seed and step: a resumed run has no generator to restore.
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)

    def loss(params):
        return task.loss({"params": params, "stats": state.stats}, batch, key, train=True)

    (value, (stats, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    direction, opt = optimizer.update(grads, state.opt, state.params)
    # The rate is in the state and not in the optimizer, so that lanes can differ in it.
    params = jax.tree.map(lambda p, d: p - state.lr * d, state.params, direction)
    new = state.replace(step=state.step + 1, params=params, stats=stats, opt=opt)
    return new, {"loss": value, **metrics}


def lane(tree, n: int | np.ndarray):
    """Return one lane, or some, of a tree whose leaves are ``[lanes, ...]``."""
    return jax.tree.map(lambda leaf: leaf[n], tree)


def init_lanes(task: Task, optimizer, lanes: list[tuple[int, float]]) -> State:
    """Return the state of every (seed, learning rate) before its first step."""
    # Each lane draws from the key of its seed, so it begins as it would alone.
    seeds, rates = (jnp.array(column) for column in zip(*lanes, strict=True))
    return jax.jit(jax.vmap(partial(init_state, task, optimizer)))(seeds, rates)


def variables_of(state: State, n: int) -> Variables:
    """Return the variables of the model of lane n."""
    return {"params": lane(state.params, n), "stats": lane(state.stats, n)}


def make_call(task: Task, optimizer, spread: Spread = ALONE, own_batches: bool = False) -> Callable:
    """Compile K steps of all lanes as one call: (state, batches) -> (state, metrics).

    ``batches`` has leaves ``[K, ...]`` that all lanes share or, with own_batches, ``[K, lanes,
    ...]``; metrics are ``[K, lanes]``. The memory of the state is reused: do not read the input
    state again.

    With further arguments ``arrays`` and ``shape``, batches are indices, and their examples are
    gathered on the device.
    """
    step = partial(train_step, task, optimizer)

    def call(state, batches, arrays=None, shape=None):
        lanes = len(state.step)

        def examples(batch):
            return batch if arrays is None else task.gather(arrays, batch, shape)

        def one_lane(state, batch):
            return step(state, examples(batch))

        def all_lanes(state, batch):
            if own_batches:
                return jax.vmap(one_lane)(state, batch)
            # One copy of the small batch per lane keeps every matrix product in its natural layout.
            copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * lanes), examples(batch))
            return jax.vmap(step)(state, copies)

        with products(task.config):
            if lanes > 1:
                return jax.lax.scan(all_lanes, state, batches)
            # XLA would lay the gradients out transposed behind a lane axis of length 1, and Adam
            # would take twice as long to read them.
            if own_batches:
                batches = jax.tree.map(lambda leaf: leaf[:, 0], batches)
            state, metrics = jax.lax.scan(one_lane, lane(state, 0), batches)
        metrics = jax.tree.map(lambda values: values[:, None], metrics)
        return jax.tree.map(lambda leaf: leaf[None], state), metrics

    # Donated: parameters and moments are updated in place, so there is one copy of them, not two.
    options: dict = dict(donate_argnums=0, static_argnames="shape", out_shardings=spread.outputs)
    return jax.jit(call, **options)


def data_seeds(lanes: list[tuple[int, float]], data_seed: int) -> list[int]:
    """Return the seed of each lane's order of the data, or the only one that all lanes share.

    Args:
        lanes: seed and learning rate of each.
        data_seed: config.data_seed; -1 means each lane's own seed.
    """
    seeds = [seed for seed, _ in lanes] if data_seed < 0 else [data_seed]
    return seeds[:1] if len(set(seeds)) == 1 else seeds


def batches_of(
    task: Task,
    steps: range,
    spread: Spread = ALONE,
    seeds: Sequence[int] = (0,),
    make: Callable | None = None,
) -> tuple[range, Batch]:
    """Return the batches of a call on the device, behind the steps they are for.

    Args:
        task: makes the batches.
        steps: K steps of one shape.
        spread: which part of them this process loads, and where it goes.
        seeds: as `data_seeds` returns them. Leaves are ``[K, ...]`` for one seed that all lanes
            share, else ``[K, lanes, ...]``.
        make: ``task.batch``, the default, or ``task.indices``.
    """
    make, rows, lanes = make or task.batch, spread.rows, 0
    if len(seeds) == 1:
        batches = [make(step, seeds[0], rows) for step in steps]
    else:
        # Lanes of one seed and several rates have equal batches, which are made once.
        mine, batches, lanes = seeds[spread.lanes(len(seeds))], [], len(seeds)
        for step in steps:
            by_seed = {seed: make(step, seed, rows) for seed in set(mine)}
            batches.append(_stack([by_seed[seed] for seed in mine]))
    return steps, spread.batches(_stack(batches), lanes)


def _stack(trees: list) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def average(per_case: Callable, arrays: Batch, block: int = 1000) -> Callable:
    """Compile the means of per-example metrics over a whole split.

    Args:
        per_case: (variables, batch) -> {metric: ``[B]``}.
        arrays: the split, leaves ``[N, ...]``.
        block: how many examples to hold in memory at once.

    Returns:
        variables -> {metric: float}, each example with the same weight.
    """
    examples = len(next(iter(arrays.values())))
    batches, weights = jax.device_put(data.blocks(arrays, min(block, examples)))

    @jax.jit
    def sums(variables, batches, weights):
        def sum_block(block):
            batch, weight = block
            return jax.tree.map(lambda m: (weight * m).sum(), per_case(variables, batch))

        return jax.lax.map(sum_block, (batches, weights))

    total = float(weights.sum())

    def means(variables):
        # float32 within a block of examples, float64 over blocks: a long split loses no digits.
        blocks = jax.device_get(sums(variables, batches, weights))
        return {name: float(s.sum(dtype=np.float64)) / total for name, s in blocks.items()}

    return means


def in_steps(name: str, text: str, steps_per_epoch: int | None) -> int:
    """Return the number of steps of a length such as "65 epochs", "300 steps" or "300".

    Raises:
        InputError: not of that form, not positive, or in epochs although the task has none.
    """
    number, _, unit = str(text).strip().partition(" ")
    try:
        count = float(number)
    except ValueError:
        count = math.nan
    per = {"": 1, "step": 1, "epoch": steps_per_epoch}.get(unit.strip().removesuffix("s"), 0)
    if per is None:
        raise InputError(f"config.{name} is {text!r}, but this task has no epochs: give steps.")
    # In floats, since "0.5 epochs" may be a whole number of steps.
    exact = count * per
    steps = round(exact) if math.isfinite(exact) else 0
    if steps < 1 or not math.isclose(steps, exact):  # 0.07 epochs of 100 steps are not quite 7
        raise InputError(
            f'config.{name} is {text!r}; write a positive length as "300 steps" or "65 epochs".'
        )
    return steps


@dataclasses.dataclass(frozen=True)
class Plan:
    """When to do what: a function of the step alone, so that resuming changes nothing."""

    steps: int
    log_every: int
    eval_every: int
    save_every: int
    steps_per_call: int

    @classmethod
    def make(cls, config, task: Task) -> "Plan":
        """Return the plan of a config, lengths in steps. Raises InputError if it has none."""
        ranges.check(config)
        names = ("steps", "log_every", "eval_every", "save_every")
        lengths = {name: in_steps(name, config[name], task.steps_per_epoch) for name in names}
        if lengths["steps"] >= 2**31:
            raise InputError(
                f"config.steps is {config.steps!r}; a run has less than 2^31 = {2**31:,} steps."
            )
        choose("config.precision", config.get("precision", "default"), PRECISIONS)
        return cls(**lengths, steps_per_call=config.steps_per_call)

    def due(self, every: int, step: int) -> bool:
        """Return whether something is due after a step: every so many, and at the end."""
        return step % every == 0 or step == self.steps

    def left(self, every: int, step: int) -> int:
        """Return how often something is due after a step, up to the end."""
        return (step < self.steps) * (-(-self.steps // every) - step // every)

    def calls(
        self, step: int, shape: Callable[[int], Hashable] = lambda step: None
    ) -> Iterator[range]:
        """Yield the steps of each call from here to the end.

        A call stops before something is due and before a batch of another shape. With several
        shapes a call has steps_per_call steps or 1: two programs to compile for each shape, not
        one for every length of a call.
        """
        while step < self.steps:
            every = (self.log_every, self.eval_every, self.save_every)
            stop = min(
                step + self.steps_per_call, self.steps, *(step - step % e + e for e in every)
            )
            # A program has one shape, and each length of a call is another program.
            stop = next((k for k in range(step + 1, stop) if shape(k) != shape(step)), stop)
            if shape(step) is not None and stop - step < self.steps_per_call:
                stop = step + 1
            yield range(step, stop)
            step = stop


def make_lanes(config) -> list[tuple[int, float]]:
    """Return all pairs of ``config.seeds`` and ``config.lr``.

    Raises:
        InputError: there is no pair or one twice, or a seed or rate is out of its range.
    """
    ranges.check(config)
    lanes = list(itertools.product(config.seeds, map(float, config.lr)))
    if not lanes or len({(seed, np.float32(lr)) for seed, lr in lanes}) < len(lanes):
        raise InputError(
            f"config.seeds={tuple(config.seeds)} and config.lr={tuple(config.lr)} must each name "
            f"one or more numbers, none twice: rates are numbers of float32."
        )
    return lanes


class Means:
    """The means of the updates' metrics since the last row. Checkpoints contain the sums."""

    def __init__(self, sums: dict[str, np.ndarray]):
        self.sums = dict(sums)  # name -> [lanes], and the count of updates

    def add(self, metrics: dict[str, np.ndarray]) -> None:
        """Add metrics ``[K, lanes]`` of K updates."""
        counted = {**metrics, "count": np.ones_like(metrics["loss"])}
        for name, values in counted.items():
            # On the host, in float64, and saved: a row after a resume has the same digits.
            self.sums[name] = self.sums.get(name, 0.0) + values.sum(0, dtype=np.float64)

    def take(self) -> dict[str, np.ndarray]:
        """Return the means ``[lanes]`` and start anew."""
        sums, self.sums = self.sums, {}
        count = sums.pop("count")
        return {name: values / count for name, values in sums.items()}


class Interrupted(KeyboardInterrupt):
    """Training was stopped by the user and saved; the same command continues."""


STOPPING = signal.SIGINT, signal.SIGTERM, signal.SIGHUP  # a lost connection hangs up


class Interrupt(contextlib.ExitStack):
    """Turn Ctrl-C, SIGTERM or SIGHUP into a request to save and stop after the current call.

    A second Ctrl-C ends the process. A second SIGTERM does not: a cluster and the command that
    started this process may each send one.
    """

    def __init__(self):
        super().__init__()
        self.asked = False

    def __enter__(self):
        # Python sets handlers in the main thread only. In another, `fit` trains on without them.
        if threading.current_thread() is threading.main_thread():
            for s in STOPPING:
                ignored = signal.getsignal(s) == signal.SIG_IGN  # SIGHUP under nohup
                if s == signal.SIGINT or not ignored:
                    self.callback(signal.signal, s, signal.signal(s, self._ask))
        return self

    def _ask(self, number, frame):
        if not self.asked:
            say("Stopping after this call, to save …")
        self.asked = True
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)


def bad_losses(steps: range, loss: np.ndarray) -> dict[int, runs.Divergence]:
    """Return the lanes of a call in which a loss ``[K, lanes]`` is not finite."""
    bad = ~np.isfinite(loss)
    # argmax of booleans is the first step that is not finite.
    first = bad.argmax(0)
    return {
        n: runs.Divergence(steps[first[n]] + 1, f"the loss is {loss[first[n], n]}")
        for n in np.flatnonzero(bad.any(0)).tolist()
    }


def bad_states(state: State, step: int) -> dict[int, runs.Divergence]:
    """Return the lanes in which a parameter, statistic or moment is not finite."""
    divergences: dict[int, runs.Divergence] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        cause = f"State{jax.tree_util.keystr(path)} is not finite"
        for n, part in enumerate(np.asarray(leaf)):
            if not np.isfinite(part).all():
                # The first bad leaf names the cause; the others follow from it.
                divergences.setdefault(n, runs.Divergence(step, cause))
    return divergences


def evaluate(
    task: Task, state: State, lanes: Iterable[int]
) -> dict[str, dict[str, dict[int, float]]]:
    """Return split -> metric -> lane -> value for the lanes of these numbers."""
    values: dict[str, dict[str, dict[int, float]]] = {}
    for n in lanes:
        with products(task.config):
            evaluated = task.evaluate(variables_of(state, n))
        for split, scores in evaluated.items():
            for name, score in scores.items():
                values.setdefault(split, {}).setdefault(name, {})[n] = score
    return values


def step_of(state: State) -> int:
    """Return the step of a state: in runs of earlier versions, diverged lanes are behind."""
    return int(np.max(state.step))


def fit(task: Task, config, workdir: Path | str, devices: int | None = None) -> State:
    """Train every lane of the config, from the newest checkpoint in workdir if there is one.

    All processes of jax.distributed call it. The first writes the run folder, which the others need
    not see; they compute the same, each on its part of the lanes or batches.

    The device gets ``config.steps_per_call`` steps at a time. A thread prepares the next batches
    meanwhile, and metrics are fetched one call late, so that the device never waits.

    Args:
        task: what to train.
        config: the config that the task was made of.
        workdir: the run folder; it is made if it is not there.
        devices: the most devices that the run takes; None: as many as lanes and batch fit on.

    Returns:
        The last state; every leaf has a leading lane axis.

    Raises:
        InputError: a setting or the folder is invalid, devices do not divide lanes and batch, or
            processes differ (before anything is computed); the device has too little memory, or
            the disk is full.
        DivergedError: in every lane a loss or parameter is not finite. The last checkpoint is from
            before the last of them.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the state is saved.
    """
    plan, lanes = Plan.make(config, task), make_lanes(config)
    optimizer = make_optimizer(config)
    usable = machine.visible(devices)
    spread = Spread.over(usable, len(lanes), config.batch_size)
    # Before any other collective: processes that differ would wait for each other without end.
    same = {k: v for k, v in runs.as_json(config).items() if k not in runs.PLACES}
    machine.check_same(json.dumps([same, dict(task.data)], sort_keys=True))
    with (
        contextlib.redirect_stdout(Output(sys.stdout)),
        live_line(),
        writing(workdir, "--workdir", "; the same command continues from the newest checkpoint"),
        runs.open_run(workdir, config, lanes, task.data) as run,
        Interrupt() as interrupt,
    ):
        if machine.unseen_gpu():
            print(
                "WARNING: jax does not see the GPU of this machine; this run is on the CPU. "
                'Run make install DEVICE=cuda13, or pip install "jax[cuda13]".',
                file=sys.stderr,
            )
        print(
            f"{run.folder}: {len(lanes)} lane(s) on {machine.describe(spread, usable, len(lanes))}"
        )
        try:
            return Training(task, plan, run, spread).train(optimizer, interrupt)
        except DivergedError as error:
            raise DivergedError(
                f"{error} Training stopped; {run.kept()}. "
                f"A smaller config.lr or a config.clip may help."
            ) from None
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            # jax has no class for this error, only its code in the text.
            raise InputError(
                f"Out of memory with {len(lanes)} lane(s) and config.batch_size="
                f"{config.batch_size}: make one of them smaller, or config.steps_per_call."
            ) from error


def load(task: Task, workdir: Path | str, which: str = "best") -> State:
    """Return the state in a checkpoint of a run of this task, which may still be training.

    Args:
        task: made of the run's config.
        workdir: the run folder.
        which: "best" by config.select, "newest", or a step.

    Returns:
        The state; every leaf has a leading lane axis.

    Raises:
        InputError: there is no such checkpoint, or it holds another kind of state.
    """
    fresh = init_lanes(task, make_optimizer(task.config), make_lanes(task.config))
    return runs.read_checkpoint(workdir, which, fresh)


@dataclasses.dataclass
class Training:
    """The training of one run.

    Attributes:
        diverged: numbers of the lanes that have diverged. All processes agree on them, also those
            that do not write the run.
    """

    task: Task
    plan: Plan
    run: runs.Run | runs.Elsewhere
    spread: Spread
    diverged: set[int] = dataclasses.field(default_factory=set)

    def resume(self, fresh: State) -> tuple[State, int]:
        """Return the state to start from, the same in all processes, and its step."""
        state, sums = self.run.restore(fresh)
        state, self.means = machine.from_first(state), Means(sums)
        first = step_of(state)
        if first > self.plan.steps:
            raise InputError(
                f"{self.run.folder} has a checkpoint of step {first:,} already: config.steps must "
                f"be that or more."
            )
        self.run.start(first)
        mask = machine.from_first(np.isin(np.arange(len(self.run.lanes)), list(self.run.diverged)))
        self.diverged = set(np.flatnonzero(mask).tolist())
        if first:
            print(f"Resuming at step {first:,}.", flush=True)
        self.progress = Progress(self.task.config.experiment, first, self.plan.steps)
        return self.spread.state(state), first

    def train(self, optimizer, interrupt: Interrupt) -> State:
        """Train to the end, or until the user interrupts; return the last state."""
        state, first = self.resume(init_lanes(self.task, optimizer, self.run.lanes))
        seeds = data_seeds(self.run.lanes, int(machine.from_first(np.int32(self.run.data_seed))))
        self.call = make_call(self.task, optimizer, self.spread, len(seeds) > 1)
        self.arrays, self.compiled = self.on_device(), set[tuple[int, Hashable]]()
        make = None if self.arrays is None else self.task.indices
        prepare = partial(batches_of, self.task, spread=self.spread, seeds=seeds, make=make)
        self.plan = self.timed(state, first, prepare)
        calls = partial(self.plan.calls, first, self.task.shape)
        # 300 calls show the shapes of most runs; the ETA only needs about how many are to compile.
        self.programs = {self.program(steps) for steps in itertools.islice(calls(), 300)}
        waiting = None
        # The device never waits for the host, which is always a call ahead of it and a call late:
        #
        #     thread    prepares the batches of call k + 1
        #     here      dispatches call k, which returns at once; then waits for the metrics of
        #               call k - 1, and writes their row
        #
        # Only to evaluate and to save does it wait for call k itself.
        for steps, batches in data.ahead(prepare, calls()):
            state, metrics = self.dispatch(state, steps, batches)
            self.settle(waiting)
            waiting, step = (steps, metrics), steps[-1] + 1
            # One process may get the signal, and all must leave the loop after the same call.
            stopping = machine.any_of(interrupt.asked)
            evaluating = self.plan.due(self.plan.eval_every, step)
            saving = self.plan.due(self.plan.save_every, step) or stopping
            if evaluating or saving:
                self.settle(waiting)
                waiting, whole = None, self.spread.gathered(state)
            if evaluating:
                with self.progress.between("evaluating"):
                    self.evaluate(whole, step)
            if saving:
                with self.progress.between("saving"):
                    # A loss may be finite although a moment is not. No checkpoint is written before
                    # that is noted, so a resumed run leaves out the same lanes.
                    self.mark(bad_states(whole, step))
                    self.run.save(step, whole, self.means.sums)
            if stopping and step < self.plan.steps:
                raise Interrupted(f"Saved step {step:,} in {self.run.folder}")
        self.run.finish(self.plan.steps)
        print(self.run.summary(), flush=True)
        return state

    def on_device(self) -> dict[str, jax.Array] | None:
        """Return the training set on an accelerator that has room for it; None: batches go there.

        It may take a quarter of the memory, and its indices must fit into 32 bits.
        """
        arrays = {k: v for k, v in self.task.arrays.items() if v.dtype.kind in "biuf"}
        # A task that overrides `batch` has no arrays to gather from.
        gathers = arrays and type(self.task).batch is Task.batch and jax.process_count() == 1
        memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", math.inf)
        fits = sum(array.nbytes for array in arrays.values()) < memory / 4
        fits = fits and all(array.size < 2**31 for array in arrays.values())
        if not (machine.accelerated() and gathers and fits):
            return None
        return jax.device_put(arrays, None if self.spread.mesh is None else self.spread.sharding())

    def timed(self, state: State, first: int, prepare: Callable) -> Plan:
        """Return the plan with the number of steps per call that this run keeps.

        On an accelerator a call lasts about CALL seconds, so that starting it costs nothing. One
        call is timed at the first start of the run, on a copy of the state.
        """
        K, shape = int(machine.from_first(np.int32(self.run.steps_per_call))), self.task.shape
        if K or not machine.accelerated() or first == self.plan.steps:
            return dataclasses.replace(self.plan, steps_per_call=K or self.plan.steps_per_call)
        steps, batches = prepare(next(self.plan.calls(first, shape)))
        # On a copy, since a call consumes its state, and measuring must not train.
        for _ in range(2):  # the first one compiles
            copy = jax.block_until_ready(jax.tree.map(jnp.copy, state))
            began = time.monotonic()
            jax.block_until_ready(self.dispatch(copy, steps, batches))
        per_step = (time.monotonic() - began) / len(steps)
        # Longer calls need more memory for their batches, and with several lengths of batches they
        # would have to be cut at every change of the length.
        most = ROOM // (1 + sum(leaf.nbytes for leaf in jax.tree.leaves(batches)) // len(steps))
        if len({shape(step) for step in range(min(1000, self.plan.steps))}) > 1:
            most = min(most, self.task.config.get("bucket_run", self.plan.steps_per_call))
        K = max(1, min(round(CALL / per_step), most))
        every = min(self.plan.log_every, self.plan.eval_every, self.plan.save_every)
        # Equal calls up to the next row: one program, and not a second, shorter one.
        calls = -(-every // K)  # of the same length until something is due
        K = int(machine.from_first(np.int32(-(-every // calls))))
        self.run.keep_steps_per_call(K)
        return dataclasses.replace(self.plan, steps_per_call=K)

    def program(self, steps: range) -> tuple[int, Hashable]:
        """Return the key of the compiled program of a call."""
        return len(steps), self.task.shape(steps[0])

    def dispatch(self, state: State, steps: range, batches: Batch):
        """Start a call; the first of its program is compiled before."""
        K, shape = program = self.program(steps)
        inputs = (state, batches) if self.arrays is None else (state, batches, self.arrays, shape)
        if program in self.compiled:
            return self.call(*inputs)
        self.compiled.add(program)
        about = "" if shape is None else f" of length {shape}"
        with self.progress.between("compiling", f"Compiling {K} step(s){about}"):
            return self.call(*inputs)

    def settle(self, call: tuple[range, dict[str, jax.Array]] | None) -> None:
        """Fetch the metrics ``[K, lanes]`` of a call's steps, and write a row if one is due."""
        if call is None:
            return
        steps, metrics = call[0], jax.device_get(call[1])
        self.mark(bad_losses(steps, metrics["loss"]))
        step = steps[-1] + 1
        # 0 in place of NaN: these lanes get no row, and the saved sums stay numbers.
        left_out = np.isin(np.arange(len(self.run.lanes)), list(self.diverged))
        self.means.add({name: np.where(left_out, 0.0, x) for name, x in metrics.items()})
        if self.plan.due(self.plan.log_every, step):
            self.write(step, "update", self.means.take())
        self.progress.left = dict(
            compiling=len(self.programs - self.compiled),
            evaluating=self.plan.left(self.plan.eval_every, step - 1),
            saving=self.plan.left(self.plan.save_every, step - 1),
        )
        self.progress.show(step, metrics["loss"][-1])

    def evaluate(self, state: State, step: int) -> None:
        """Write the scores of all lanes that have not diverged, and print their means."""
        lanes = [n for n in range(len(self.run.lanes)) if n not in self.diverged]
        scores, select = evaluate(self.task, state, lanes), self.task.config.select
        metrics = choose("config.select.split", select.split, scores)
        choose("config.select.metric", select.metric, metrics)
        texts = []
        for split, columns in scores.items():
            self.write(step, split, columns)
            means = {name: np.mean([*column.values()]) for name, column in columns.items()}
            texts.append(" ".join([split, *(f"{name} {x:.4g}" for name, x in means.items())]))
        if best := self.run.best():
            texts.append(f"best {select.split} {select.metric} {best[1]:.4g} at step {best[0]:,}")
        say(f"step {step:,}  {'; '.join(texts)}")

    def write(self, step: int, split: str, metrics: Mapping) -> None:
        """Write a row of each lane, with its epoch."""
        epochs = self.task.steps_per_epoch
        self.run.write(step, step / epochs if epochs else None, split, metrics)

    def mark(self, divergences: Mapping[int, runs.Divergence]) -> None:
        """Continue without these lanes.

        Raises:
            DivergedError: no other lane is left.
        """
        for n, (step, cause) in divergences.items():
            if n in self.diverged:
                continue
            self.diverged.add(n)
            self.run.diverge(n, divergences[n])
            seed, lr = self.run.lanes[n]
            words = f"{cause[0].upper()}{cause[1:]} at step {step} in lane {n} "
            words += f"(seed {seed}, lr {lr:g})."
            if len(self.diverged) == len(self.run.lanes):
                raise DivergedError(words + " All lanes have diverged." * (len(self.diverged) > 1))
            say(f"{words} This lane has diverged; the others continue.")
