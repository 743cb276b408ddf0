"""Matrix products: what XLA makes of the gradient of the weights, and operands that are rounded."""

from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from ln.product import matmul, rounding, weight_gradient


@pytest.mark.skipif(jax.device_count() > 1, reason="the batch may be sharded")
def test_one_device_copies_no_input_for_the_gradient_of_weights():
    """XLA for CPUs transposes the input [T, B, D] in memory if the product contracts two axes."""
    arguments = jnp.ones((50, 30, 40)), jnp.ones((50, 30, 20)), jnp.ones((40, 20))
    text = jax.jit(weight_gradient).lower(*arguments).compile().as_text()
    assert "dot(" in text and "transpose(" not in text and "copy(" not in text


@pytest.mark.parametrize(
    "shape, dtype", [((5,), None), ((3, 5), None), ((3, 5), jnp.bfloat16)], ids=str
)
def test_rounding_rounds_operands_of_both_directions(shape, dtype):
    """A dtype does the same in one product. Sums are float32 either way.

    Both have as wide a range as float32, unlike float16, whose largest number is 65,504.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    x, W = 1e6 * jax.random.normal(keys[0], (*shape, 4)), jax.random.normal(keys[1], (4, 2))
    d_a = jax.random.normal(keys[2], (*shape, 2))

    def three(x, W, d_a):
        a, back = jax.vjp(partial(matmul, dtype=dtype), x, W)
        return a, *back(d_a)

    with rounding(None if dtype else 7):
        got = jax.jit(three)(x, W, d_a)
    x, W, d_a = (np.asarray(v).astype(ml_dtypes.bfloat16).astype(np.float64) for v in (x, W, d_a))
    wanted = x @ W, d_a @ W.T, np.tensordot(x, d_a, (range(len(shape)),) * 2)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * abs(b).max())
