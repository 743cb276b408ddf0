"""Peers that need jax: a compiled function, and training steps of any task."""

from collections.abc import Callable, Iterator
from functools import partial
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import experiments
from ln.rnn import plain_by_default
from ln.training import data, train
from scripts.benchmarks.common import LOSS, Peer, difference, gradients_differ
from scripts.benchmarks.flops import count_flops

# An optimizer whose direction and new state are the gradients that `train_step` computes.
KEEP = optax.GradientTransformation(
    init=optax.identity().init, update=lambda grads, state, params: (grads, grads)
)

LAST_DIGIT = 2**-23  # of a float32, relative


def precise(jitted: Callable, compiled: Callable) -> Callable:
    """Return a function for comparisons, in which float32 does not mean TensorFloat-32."""
    if jax.default_backend() == "cpu":
        return compiled

    def function(*arguments):
        with jax.default_matmul_precision("highest"):
            return jitted(*arguments)

    return function


def compile_for(jitted, *arguments, steps: int = 1) -> tuple[Callable, dict[str, float]]:
    """Compile a jitted function for these arguments, a call of which makes so many steps.

    Returns:
        The program; and seconds of compiling, bytes of temporary arrays and FLOP of a step.
    """
    traced = jitted.trace(*arguments)
    flops = count_flops(traced.jaxpr)
    began = time.perf_counter()
    compiled = traced.lower().compile()
    return compiled, dict(
        compiling=time.perf_counter() - began,
        temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
        matmul_flops=flops.count // steps,
        while_loops=flops.while_loops,
    )


def device_memory() -> dict[str, float]:
    """Return the peak that a GPU's allocator has seen; a CPU has none."""
    stats = jax.devices()[0].memory_stats() or {}
    return {"peak_device_bytes": stats["peak_bytes_in_use"]} if stats else {}


class Compiled(Peer):
    """A pure function of arrays, compiled for these arguments."""

    def __init__(self, function: Callable, *arguments):
        self.function, self.arguments = jax.jit(function), arguments
        self.compiled, self.compilation = compile_for(self.function, *arguments)

    def run(self, steps):
        for _ in range(steps):
            jax.block_until_ready(self.compiled(*self.arguments))
        return steps

    def facts(self):
        return self.compilation | device_memory()


class Square(Compiled):
    """A product of square matrices, which shows the best rate of this machine."""

    def __init__(self, side: int):
        super().__init__(jnp.matmul, jnp.ones((side, side)), jnp.ones((side, side)))


class Training(Peer):
    """The trainer's compiled call, K steps of all lanes, on the same batches again and again.

    Args:
        lanes: (seed, learning rate) of each.
        batches: of the K steps, see `train.make_call`.
        own_batches: each lane has its own.
    """

    def __init__(self, task: train.Task, optimizer, lanes, batches, own_batches: bool = False):
        self.batches, self.steps_per_call = batches, len(jax.tree.leaves(batches)[0])
        self.state = train.init_lanes(task, optimizer, lanes)
        self.call = train.make_call(task, optimizer, own_batches=own_batches)
        self.compiled, self.compilation = compile_for(
            self.call, self.state, batches, steps=self.steps_per_call
        )

    def losses(self, count):
        losses, call = list[float](), precise(self.call, self.compiled)
        while len(losses) < count:
            self.state, metrics = call(self.state, self.batches)
            losses += metrics["loss"][:, 0].tolist()
        return losses[:count]

    def run(self, steps):
        calls, waiting = -(-steps // self.steps_per_call), None
        for _ in range(calls):
            self.state, metrics = self.compiled(self.state, self.batches)
            jax.block_until_ready(waiting)  # as in training; many calls at once may never end
            waiting = metrics
        jax.block_until_ready((waiting, self.state))
        return calls * self.steps_per_call

    def facts(self):
        sizes = dict(lanes=len(self.state.step), steps_per_call=self.steps_per_call)
        return self.compilation | device_memory() | sizes


class Call(Training):
    """The first call of a training by this config, with all its lanes."""

    def __init__(self, config):
        self.task, lanes = experiments.load(config), train.make_lanes(config)
        self.plan = train.Plan.of(config, self.task)
        seeds = train.data_seeds(lanes, config.data_seed)
        self.prepare = partial(train.batches_of, self.task, seeds=seeds)
        _, batches = self.prepare(next(self.plan.calls(0, self.task.shape)))
        optimizer = train.make_optimizer(config)
        super().__init__(self.task, optimizer, lanes, batches, own_batches=len(seeds) > 1)

    def losses(self, count):
        return super().losses(min(count, self.steps_per_call))  # later batches are the first again


class Trainer(Call):
    """The trainer as `fit` uses it.

    A thread prepares batches, K steps go to the device at once, and metrics are fetched one call
    late.
    """

    step = 0

    def calls(self, steps: int) -> Iterator[dict]:
        """Make that many steps or a few more; yield the metrics of each call."""
        stop, plan = self.step + steps, self.plan.calls(self.step, self.task.shape)
        todo = itertools.takewhile(lambda numbers: numbers.start < stop, plan)
        for numbers, batches in data.ahead(self.prepare, todo):
            self.state, metrics = self.call(self.state, batches)
            self.step = numbers.stop
            yield metrics

    def losses(self, count):
        losses = [metrics["loss"][:, 0] for metrics in self.calls(count)]
        return np.concatenate(losses)[:count].tolist()

    def run(self, steps):
        first, waiting = self.step, None
        for metrics in self.calls(steps):
            jax.device_get(waiting)
            waiting = metrics
        jax.block_until_ready((waiting, self.state))
        return self.step - first


def repeat(batch: dict, times: int) -> dict:
    """Return the batches of a call whose steps all have the same one."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * times), batch)


class Step(Training):
    """A training step of an experiment, with the clipping and the optimizer of its config.

    Args:
        config: of the experiment; its first learning rate counts.
        plain: differentiate recurrent layers by plain autodiff.
        compared: False if the config makes it compute something else than the reference.
    """

    def __init__(self, config, plain: bool = False, compared: bool = True):
        task, self.compared = experiments.load(config), compared
        if plain:
            task.loss = plain_by_default()(task.loss)
        self.batch, lanes = task.example(), [(0, config.lr[0])]
        batches = repeat(self.batch, config.steps_per_call)
        super().__init__(task, train.make_optimizer(config), lanes, batches)
        self.first = train.lane(self.state, 0).replace(opt=())
        backward = jax.jit(partial(train.train_step, task, KEEP))
        self.backward = precise(backward, backward)

    def losses(self, count):
        return super().losses(count) if self.compared else []

    def at(self, params) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss and the gradients by name."""
        state, metrics = self.backward(self.first.replace(params=params), self.batch)
        leaves = jax.tree_util.tree_leaves_with_path(state.opt)
        return float(metrics["loss"]), {
            jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
            for path, leaf in leaves
        }

    def gradients(self):
        return self.at(self.first.params)[1]

    def rounding(self):
        params = self.first.params
        noise = optax.tree.random_like(jax.random.key(0), params)
        rounded = jax.tree.map(lambda p, d: p * (1 + LAST_DIGIT * jnp.sign(d)), params, noise)
        (loss, gradients), (new_loss, new_gradients) = self.at(params), self.at(rounded)
        changes = gradients_differ(new_gradients, gradients)
        return changes | {LOSS: difference([new_loss], [loss])}


def describe(config) -> dict:
    """Return the size of the model and of a batch, for the head of a table."""
    task = experiments.load(config)
    params = jax.eval_shape(task.init, jax.random.key(0))["params"]
    return dict(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        batch={name: list(np.shape(leaf)) for name, leaf in task.example().items()},
    )
