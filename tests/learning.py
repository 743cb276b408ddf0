"""Train tasks for a few updates, as tests of tasks do."""

from functools import partial
import importlib

import jax
import jax.numpy as jnp

import experiments
from ln.training import train


def tiny_config(name, place, /, **settings):
    """Return the config of an experiment at tiny scale, with data in this place."""
    config = importlib.import_module(f"configs.{name}").get_config("tiny")
    config.data_dir = str(place)
    config.update_from_flattened_dict(settings)
    return config


def tiny_task(name, place, **settings):
    """Return the task of an experiment at tiny scale."""
    return experiments.load(tiny_config(name, place, **settings))


def states_of(task, steps: int, lr: float = 1e-2):
    """Return the states before each of some updates on one batch and at the end, and the losses."""
    optimizer = train.make_optimizer(task.config)
    init = jax.jit(partial(train.init_state, task, optimizer))
    step = jax.jit(partial(train.train_step, task, optimizer))
    states, losses = [init(jnp.int32(0), jnp.float32(lr))], []
    for _ in range(steps):
        state, metrics = step(states[-1], task.batch(0))
        states.append(state)
        losses.append(float(metrics["loss"]))
    return states, losses


def variables_of(state):
    return {"params": state.params, "stats": state.stats}
