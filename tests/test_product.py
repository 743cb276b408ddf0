"""Matrix products: what XLA makes of the gradient of the weights."""

import jax
import jax.numpy as jnp
import pytest

from ln.product import weight_gradient


@pytest.mark.skipif(jax.device_count() > 1, reason="the batch may be sharded")
def test_one_device_copies_no_input_for_the_gradient_of_weights():
    """XLA for CPUs transposes the input [T, B, D] in memory if the product contracts two axes."""
    arguments = jnp.ones((50, 30, 40)), jnp.ones((50, 30, 20)), jnp.ones((40, 20))
    text = jax.jit(weight_gradient).lower(*arguments).compile().as_text()
    assert "dot(" in text and "transpose(" not in text and "copy(" not in text
