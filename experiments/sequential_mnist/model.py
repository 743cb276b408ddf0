"""Sequential MNIST (Cooijmans et al. 2016): an LSTM reads an image pixel by pixel, and names it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ln.norm import Norm
from ln.rnn import LSTM, unroll

orthogonal = nn.initializers.orthogonal()


def identity_candidate(key, shape, dtype=jnp.float_):
    """W_h ``[H, 4H]`` of Cooijmans et al.'s code: the identity for the gate g, for f, i, o one
    orthogonal matrix ``[H, 3H]``."""
    H = shape[0]
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jnp.concatenate([orthogonal(key, (H, 3 * H), dtype), jnp.eye(H, dtype=dtype)], axis=1)


class Model(nn.Module):
    """Logits norm(W h_T) of an LSTM's last state.

    Maps xs ``[T, B, D]`` and noise ``[B, H]``, which is added to the initial h, to ``[B, 10]``.
    """

    hidden: int
    norm: Norm
    bias_inside: bool
    classes: int = 10

    @nn.compact
    def __call__(self, xs, noise):
        cell = LSTM(
            self.hidden,
            self.norm,
            learned=("c", "h"),
            bias_inside=self.bias_inside,
            forget_bias=1.0,
            init_W_x=orthogonal,
            init_W_h=identity_candidate,
        )
        c, h = cell.initial(xs.shape[1])
        _, (c, h) = unroll(cell, xs, carry=(c, h + noise))
        a = self.norm.dense("out", self.classes, kernel_init=orthogonal)(h)
        return self.norm("out")(a)
