"""What peers that need jax have in common."""

from collections.abc import Callable, Mapping
import contextlib
from functools import partial
import time

from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ln.norm import matmul
from ln.training import train
from scripts.benchmarks.common import Peer


def precise():
    """While peers are compared, float32 means float32: on a GPU it is TensorFloat-32 otherwise."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    return jax.default_matmul_precision("highest")


def device_memory() -> dict[str, float]:
    """What a GPU's allocator says; a CPU has none."""
    found = jax.devices()[0].memory_stats() or {}
    return {"peak_device_bytes": found["peak_bytes_in_use"]} if found else {}


class Compiled(Peer):
    """A pure function of arrays, compiled for these arguments."""

    def __init__(self, function: Callable, *arguments):
        self.function, self.arguments = jax.jit(function), arguments
        began = time.perf_counter()
        self.compiled = self.function.lower(*arguments).compile()
        self.compiling = time.perf_counter() - began

    def losses(self, count):
        return []

    def run(self, steps):
        for _ in range(steps):
            jax.block_until_ready(self.compiled(*self.arguments))
        return steps

    def facts(self):
        temporary = self.compiled.memory_analysis().temp_size_in_bytes
        return dict(compiling=self.compiling, temporary_bytes=temporary, **device_memory())


def in_order(inputs, Ws):
    """Products of inputs ``[T, B, D]`` with matrices ``[D, n]``, or of lists of both: of one time
    step after the other. Returns the last ones, which nobody can leave out."""
    start = jax.tree.map(lambda x, W: jnp.zeros((x.shape[1], W.shape[1])), inputs, Ws)
    return jax.lax.scan(lambda _, x: (jax.tree.map(matmul, x, Ws), None), start, inputs)[0]


class Square(Compiled):
    """A product of square matrices: the most that one can hope for."""

    def __init__(self, side: int):
        super().__init__(jnp.matmul, jnp.ones((side, side)), jnp.ones((side, side)))


class Training(Peer):
    """Steps of the trainer in one lane, the first batches again and again, as many steps a call as
    losses are compared."""

    STEPS_PER_CALL = 4

    def __init__(self, task: train.Task, optimizer, lr: float):
        init = jax.jit(jax.vmap(partial(train.init_state, task, optimizer)))
        self.state = init(jnp.zeros(1, jnp.int32), jnp.full(1, lr))
        _, self.batches = train.batches_of(task, range(self.STEPS_PER_CALL))
        self.call = train.make_call(task, optimizer)
        began = time.perf_counter()
        self.compiled = self.call.lower(self.state, self.batches).compile()
        self.compiling = time.perf_counter() - began

    def losses(self, count):
        with precise():
            self.state, metrics = self.call(self.state, self.batches)
        return metrics["loss"][:count, 0].tolist()

    def run(self, steps):
        calls = -(-steps // self.STEPS_PER_CALL)
        for _ in range(calls):
            self.state, metrics = self.compiled(self.state, self.batches)
        jax.block_until_ready((metrics, self.state))
        return calls * self.STEPS_PER_CALL

    facts = Compiled.facts


class Step(Training):
    """A training step of a task with the clipping and the optimizer of its config.

    Args:
        names: where a parameter lies in its module -> its name there, see `named`.
    """

    def __init__(self, task: train.Task, names: Mapping[str, str]):
        self.task, self.names = task, names
        super().__init__(task, train.make_optimizer(task.config), task.config.lr[0])
        self.first = train.lane(self.state, 0)

    def gradients(self):
        # An optimizer whose new state is the gradients: so they are what train_step computes.
        keep = optax.GradientTransformation(
            init=optax.identity().init,
            update=lambda grads, state, params: (grads, grads),
        )
        with precise():
            step = jax.jit(partial(train.train_step, self.task, keep))
            state, _ = step(self.first, train.lane(self.batches, 0))
        return named(state.opt, self.names)


def named(params, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The parameters, or their gradients, by module and name: "encoder.W_x"."""
    flat = flatten_dict(params)
    return {f"{module}.{names['.'.join(path)]}": np.array(p) for (module, *path), p in flat.items()}
