"""Half precision: dtypes of gradients and carries, and agreement of the schedules."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ln import GRU, LSTM, RNN, Norm, fused, unroll
from ln.norm import BatchNorm, LayerNorm, RMSNorm, batch_moments

T, B, D, H = 4, 4, 3, 8
SITES = {RNN: ("x", "h", "a"), LSTM: ("x", "h", "c"), GRU: ("x", "h")}
SCHEDULES = {"cpu": fused.CPU, "accelerator": fused.Schedule(2, ahead=True)}
HALVES = [jnp.bfloat16, jnp.float16]


class Layer(nn.Module):
    cell: nn.Module
    schedule: object = None

    @nn.compact
    def __call__(self, xs, carry=None):
        return unroll(self.cell, xs, carry=carry, schedule=self.schedule)


def zeros(Cell):
    h = jnp.zeros((B, H))
    return (h, h) if Cell is LSTM else h


def as_dtype(tree, dtype):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


# --- Statistics ---

MODULES = [LayerNorm(), RMSNorm(), BatchNorm(train=True)]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("scale", [1.0, 300.0, 2000.0])
def test_statistics_have_at_least_float32(module, dtype, scale):
    """Squares of numbers above 255 are infinite in float16, and bfloat16 has three digits."""
    a = jnp.asarray(scale * np.random.default_rng(0).normal(size=(6, 5)), dtype)
    variables = as_dtype(module.init(jax.random.key(0), a)["params"], dtype)

    weights = np.random.default_rng(1).normal(size=(6, 5))

    def loss(variables, a):
        y, _ = module.apply({"params": variables}, a, mutable=["stats"])
        return (y.astype(jnp.float32) * weights).sum(), y

    (_, y), (d_variables, d_a) = jax.value_and_grad(loss, (0, 1), has_aux=True)(variables, a)
    (_, exact), (_, d_exact) = jax.value_and_grad(loss, (0, 1), has_aux=True)(
        as_dtype(variables, jnp.float32), a.astype(jnp.float32)
    )
    assert y.dtype == d_a.dtype == dtype
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(d_variables))
    tolerance = 2 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=tolerance, atol=tolerance)
    size = float(abs(d_exact).max())
    np.testing.assert_allclose(d_a.astype(jnp.float32), d_exact, rtol=0, atol=8 * tolerance * size)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("constant", [0.0, 1.0, 3000.0])
def test_constant_inputs_have_finite_gradients(module, dtype, constant):
    a = jnp.full((4, 6), constant, dtype)
    variables = module.init(jax.random.key(0), a)

    def loss(a):
        y, _ = module.apply(variables, a, mutable=["stats"])
        return (y.astype(jnp.float32) * jnp.arange(6)).sum()

    value, gradient = jax.value_and_grad(loss)(a)
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


def test_batch_moments_of_halves_are_those_of_float32():
    a = jnp.asarray([[300.0], [-300.0]], jnp.float16)
    mu, var = batch_moments(a)
    assert (mu.dtype, mu[0], var[0]) == (jnp.float32, 0, 90_000)


# --- Cells ---


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("Cell", SITES)
def test_halves_give_gradients_in_their_own_dtype(Cell, schedule, dtype):
    kind = "batch" if Cell is GRU else "layer"
    layer = Layer(Cell(H, Norm(kind, SITES[Cell], (), True)), SCHEDULES[schedule])
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    variables = layer.init(jax.random.key(0), xs)
    params, stats = variables["params"], variables.get("stats", {})
    carry = zeros(Cell)

    def loss(params, xs, carry, schedule):
        (hs, last), _ = Layer(layer.cell, schedule).apply(
            {"params": params, "stats": stats}, xs, carry, mutable=["stats"]
        )
        assert all(part.dtype == dtype for part in jax.tree.leaves((hs, last)))
        return (hs.astype(jnp.float32) ** 2).sum()

    halves = as_dtype((params, xs, carry), dtype)
    gradients = jax.grad(partial(loss, schedule=SCHEDULES[schedule]), (0, 1, 2))(*halves)
    plain = jax.grad(partial(loss, schedule="plain"), (0, 1, 2))(*halves)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(gradients))
    # Rounding errors add up over the time steps and the products of a step.
    tolerance = 4 * T * float(jnp.finfo(dtype).eps)
    for found, expected in zip(jax.tree.leaves(gradients), jax.tree.leaves(plain), strict=True):
        size = float(abs(expected).max()) + 1e-3
        found, expected = (np.asarray(g, np.float32) for g in (found, expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize("dtypes", [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float16)])
@pytest.mark.parametrize("schedule", [*SCHEDULES.values(), "plain"], ids=[*SCHEDULES, "plain"])
def test_the_last_carry_has_the_result_type(schedule, dtypes):
    of_xs, of_carry = dtypes
    layer = Layer(LSTM(H, Norm("layer", SITES[LSTM])), schedule)
    xs = jnp.ones((T, B, D), of_xs)
    params = layer.init(jax.random.key(0), xs)
    carry = as_dtype(zeros(LSTM), of_carry)
    _, last = layer.apply(params, xs, carry)
    assert {part.dtype for part in last} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("schedule", [*SCHEDULES.values(), "plain"], ids=[*SCHEDULES, "plain"])
@pytest.mark.parametrize("kind", ["layer", "rms", "batch", "weight"])
def test_strict_promotion_works(kind, schedule):
    sites = ("x", "h") if kind == "weight" else ("x", "h", "c")
    layer = Layer(LSTM(H, Norm(kind, sites, (), True)), schedule)
    xs = jnp.ones((T, B, D))
    with jax.numpy_dtype_promotion("strict"):
        variables = layer.init(jax.random.key(0), xs)

        def loss(params):
            variables_ = {**variables, "params": params}
            return layer.apply(variables_, xs, mutable=["stats"])[0][0].sum()

        gradients = jax.grad(loss)(variables["params"])
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
