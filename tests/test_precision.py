"""Half precision: dtypes of gradients and carries, and agreement of the schedules."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ln import GRU, LSTM
from ln.norm import BatchNorm, LayerNorm, RMSNorm
from tests.cells import FAST, SCHEDULES, SITES, Layer, init, norm_of
from tests.products import covering

T, B, D, H = 4, 4, 3, 8
HALVES = [jnp.bfloat16, jnp.float16]


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
    variables = as_dtype(init(module, a)["params"], dtype)

    weights = np.random.default_rng(1).normal(size=(6, 5))

    def loss(variables, a):
        y, _ = module.apply({"params": variables}, a, mutable=["stats"])
        return (y.astype(jnp.float32) * weights).sum(), y

    both = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, y), (d_variables, d_a) = both(variables, a)
    (_, exact), (_, d_exact) = both(*as_dtype((variables, a), jnp.float32))
    assert y.dtype == d_a.dtype == dtype
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(d_variables))
    tolerance = 2 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=tolerance, atol=tolerance)
    size = float(abs(d_exact).max())
    np.testing.assert_allclose(d_a.astype(jnp.float32), d_exact, rtol=0, atol=8 * tolerance * size)


@pytest.mark.parametrize("dtype", [*HALVES, jnp.float32])
@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("constant", [0.0, 1.0, -2000.0])
def test_constant_inputs_give_the_bias_and_finite_gradients(module, dtype, constant):
    a = jnp.full((4, 6), constant, dtype)
    fresh = init(module, a)
    variables = fresh | {"params": {"gain": jnp.ones(6), "bias": jnp.arange(6.0)}}

    def loss(a):
        y, _ = module.apply(variables, a, mutable=["stats"])
        return (y.astype(jnp.float32) * jnp.arange(6)).sum(), y

    (_, y), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(a)
    assert isinstance(module, RMSNorm) or (y == jnp.arange(6)).all()
    assert jnp.isfinite(gradient).all()


# --- Cells ---


@pytest.mark.parametrize("Cell, schedule, dtype", covering(2, product(SITES, FAST, HALVES)))
def test_halves_give_gradients_in_their_own_dtype(Cell, schedule, dtype):
    layer = Layer(Cell(H, norm_of("batch" if Cell is GRU else "layer", Cell)))
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    variables = init(layer, xs)
    params, stats = variables["params"], variables.get("stats", {})

    def loss(params, xs, carry, schedule):
        variables = {"params": params, "stats": stats}
        layer_ = layer.clone(schedule=SCHEDULES[schedule])
        (hs, last), _ = layer_.apply(variables, xs, None, carry, mutable=["stats"])
        assert all(part.dtype == dtype for part in jax.tree.leaves((hs, last)))
        return (hs.astype(jnp.float32) ** 2).sum()

    halves = as_dtype((params, xs, zeros(Cell)), dtype)
    gradients, plain = (
        jax.jit(jax.grad(partial(loss, schedule=name), (0, 1, 2)))(*halves)
        for name in (schedule, "plain")
    )
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(gradients))
    # Rounding errors add up over the time steps and the products of a step.
    tolerance = 4 * T * float(jnp.finfo(dtype).eps)
    for actual, expected in zip(jax.tree.leaves(gradients), jax.tree.leaves(plain), strict=True):
        size = float(abs(expected).max()) + 1e-3
        actual, expected = (np.asarray(g, np.float32) for g in (actual, expected))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize(
    "schedule, xs_dtype, carry_dtype",
    covering(1, product(SCHEDULES, (jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float16))),
)
def test_the_last_carry_has_the_result_type(schedule, xs_dtype, carry_dtype):
    layer = Layer(LSTM(H, norm_of("layer", LSTM)), SCHEDULES[schedule])
    xs = jnp.ones((T, B, D), xs_dtype)
    carry = as_dtype(zeros(LSTM), carry_dtype)
    _, last = jax.eval_shape(layer.apply, init(layer, xs), xs, None, carry)
    assert {part.dtype for part in last} == {jnp.result_type(xs_dtype, carry_dtype)}


@pytest.mark.parametrize(
    "kind, schedule", covering(1, product(("layer", "rms", "batch", "weight"), SCHEDULES))
)
def test_strict_promotion_works(kind, schedule):
    layer = Layer(LSTM(H, norm_of(kind, LSTM)), SCHEDULES[schedule])
    xs = jnp.ones((T, B, D))
    with jax.numpy_dtype_promotion("strict"):
        variables = init(layer, xs)

        def loss(params):
            return layer.apply(variables | {"params": params}, xs, mutable=["stats"])[0][0].sum()

        gradients = jax.jit(jax.grad(loss))(variables["params"])
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
