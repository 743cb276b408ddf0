"""Code that the peers in jax share: functions, the trainer's call, and the names of Flax."""

from collections.abc import Callable
from functools import partial
import time

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import optax

import experiments
from ln.rnn import plain_by_default
from ln.training import train
from ln.training.optim import make_optimizer
from ln.training.train import make_lanes
from scripts.benchmarks.flops import count_flops
from scripts.benchmarks.timing import Numbers, Peer

RATE = 1e-3  # of steps along the gradient
FULL = partial(jax.default_matmul_precision, "highest")  # float32 is no TensorFloat-32 then
LAST_DIGIT = 2**-23  # of a float32, relative

# An optimizer whose direction and new state are the gradients that `train_step` computes.
KEEP = optax.GradientTransformation(
    init=optax.identity().init, update=lambda grads, state, params: (grads, grads)
)


# --- Compiling ---


def compile_for(jitted, *arguments, steps: int = 1) -> tuple[Callable, dict[str, float]]:
    """Compile a jitted function for these arguments, a call of which makes so many steps.

    Returns:
        The program; and seconds of compiling, bytes of temporary arrays and FLOP of a step.
    """
    traced = jitted.trace(*arguments)
    began = time.perf_counter()
    compiled = traced.lower().compile()
    return compiled, dict(
        compiling=time.perf_counter() - began,
        temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
        matmul_flops=count_flops(traced.jaxpr) // steps,
    )


def named(tree) -> dict[str, np.ndarray]:
    """Return the arrays of nested dictionaries by name, such as layer_0_W_x_kernel."""
    return {name: np.asarray(leaf) for name, leaf in flatten_dict(tree, sep="_").items()}


# --- The trainer ---


def load(config, plain: bool = False) -> train.Task:
    """Return the task of a config, whose batches all have the same shapes.

    Texts of different lengths are replaced by the example of the task, which is as long as the
    longest.

    Args:
        config: of the experiment.
        plain: differentiate recurrent layers by plain autodiff.
    """
    task = experiments.load(config)
    if task.shape(0) is not None:
        example = task.example()
        task.batch = lambda *_, **__: example
    if plain:
        task.loss = plain_by_default()(task.loss)
    return task


# Static arguments: the task and the optimizer. So a task is compiled once.
INIT = jax.jit(train.init_state, static_argnums=(0, 1))
STEP = jax.jit(train.train_step, static_argnums=(0, 1))


def first_steps(
    task: train.Task, count: int = 1, device=None, change: Callable = lambda params: params
) -> list[Numbers]:
    """Return loss and gradients of the first steps along the gradient, in full precision.

    Args:
        task: of the experiment.
        count: how many steps.
        device: None for the default one. The initial parameters are the CPU's on all devices.
        change: a function of the initial parameters.
    """
    results = []
    with FULL():
        with jax.default_device(jax.devices("cpu")[0]):
            state = INIT(task, KEEP, jnp.int32(0), jnp.float32(RATE))
            state = state.replace(params=change(state.params))
        state = jax.device_put(state, device)
        for n in range(count):
            state, metrics = STEP(task, KEEP, state, jax.device_put(task.batch(n), device))
            results.append(Numbers(float(metrics["loss"]), named(state.opt)))
    return results


def round_anew(params: dict) -> dict:
    """Change the last digit of each parameter."""
    noise = optax.tree.random_like(jax.random.key(0), params)
    return jax.tree.map(lambda p, d: p * (1 + LAST_DIGIT * jnp.sign(d)), params, noise)


def trainer_peer(config, plain: bool = False, compared: bool = True) -> Peer:
    """Return the trainer's call, K steps of all lanes of a config, always with the same batches.

    Args:
        config: of the experiment.
        plain: see `load`.
        compared: False if the config makes it compute something else than the reference.
    """
    task, K = load(config, plain), config.steps_per_call
    jitted, (state, batches) = trainer_call(config, task)
    compiled, facts = compile_for(jitted, state, batches, steps=K)

    def call():
        nonlocal state
        state, metrics = compiled(state, batches)
        return metrics

    lanes = len(state.step)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params)) // lanes
    return Peer(
        call=call,
        wait=jax.block_until_ready,
        steps=K,
        numbers=(lambda: first_steps(task)[0]) if compared else None,
        rounded=lambda: first_steps(task, change=round_anew)[0],
        facts=facts | dict(lanes=lanes, parameters=parameters),
    )


def trainer_call(config, task: train.Task) -> tuple[Callable, tuple[train.State, train.Batch]]:
    """Return the call of the trainer, not yet compiled, and its first arguments."""
    lanes, optimizer = make_lanes(config), make_optimizer(config)
    seeds = train.data_seeds(lanes, config.data_seed)
    call = train.make_call(task, optimizer, own_batches=len(seeds) > 1)
    _, batches = train.batches_of(task, range(config.steps_per_call), seeds=seeds)
    return call, (train.init_lanes(task, optimizer, lanes), batches)


# --- Other libraries ---

FLAX_NAMES = {"gain": "scale", "Identity_0": "Dense_2"}  # of our parameters and modules


def as_flax(params: dict) -> dict:
    """Return our parameters by the names that Flax's modules give them."""
    renamed = {
        tuple(FLAX_NAMES.get(part, part) for part in path): leaf
        for path, leaf in flatten_dict(params).items()
    }
    return unflatten_dict(renamed)
