"""Share parts of the tests of recurrent layers: cells, their sites and schedules, and a layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ln import GRU, LSTM, RNN, Norm, fused, unroll

SITES = {RNN: ("x", "h", "a"), LSTM: ("x", "h", "c"), GRU: ("x", "h")}
SCHEDULES = {"plain": "plain", "cpu": fused.CPU, "accelerator": fused.Schedule(2, ahead=True)}
FAST = ("cpu", "accelerator")


class Layer(nn.Module):
    """One cell, unrolled: as a model of a user."""

    cell: nn.Module
    schedule: object = None

    def __call__(self, xs, mask=None, carry=None, **options):
        return unroll(self.cell, xs, mask, carry, self.schedule, **options)


class Shorter(nn.Module):
    """A norm of one's own: make every example shorter than its gain."""

    gain: float = 1.0
    train: bool = False

    @staticmethod
    def equation(a, gain):
        return gain * a / np.sqrt(1 + (a**2).sum(-1, keepdims=True))

    @nn.compact
    def __call__(self, a, mask=None):
        gain = self.param("gain", nn.initializers.constant(self.gain), a.shape[-1:])
        return gain * a / jnp.sqrt(1 + (a**2).sum(-1, keepdims=True))


def norm_of(kind, Cell, train=True):
    sites = {"none": (), "weight": ("x", "h")}.get(kind, SITES[Cell])
    return Norm(kind, sites, (), train)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def randomized(variables, seed=1):
    """Return parameters of the same shapes, none at its initial value."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: np.asarray(leaf) + 0.2 * random.normal(size=leaf.shape), variables
    )


def init(module, *arguments):
    return jax.jit(module.init)(jax.random.key(0), *arguments)


def assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def assert_all_close(actual, expected, tolerance):
    def close(value, wanted):
        np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=tolerance)

    jax.tree.map(close, actual, expected)
