"""Sequential MNIST (Cooijmans et al. 2016): an LSTM classifies an image pixel by pixel."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ln.norm import Norm
from ln.rnn import LSTM, unroll

orthogonal = nn.initializers.orthogonal()


def identity_candidate(key, shape, dtype=jnp.float_):
    """Draw W_h ``[H, 4H]`` as the code of Cooijmans et al. does.

    The gates f, i and o have an orthogonal matrix ``[H, 3H]``, the candidate g has the identity.
    """
    H = shape[0]
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jnp.concatenate([orthogonal(key, (H, 3 * H), dtype), jnp.eye(H, dtype=dtype)], axis=1)


class Model(nn.Module):
    """An LSTM and logits norm(W h_T) of its last state.

    Attributes:
        hidden: H, units of the LSTM.
        norm: sites x, h and c of the LSTM, and out, of the logits.
        bias_inside: see `ln.rnn.Cell`.
        classes: number of logits.
    """

    hidden: int
    norm: Norm
    bias_inside: bool
    classes: int = 10

    @nn.compact
    def __call__(self, xs, noise):
        """Return logits ``[B, 10]`` of xs ``[T, B, D]``; noise ``[B, H]`` is added to h_0."""
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
        # Images begin with black pixels. From a state of 0 they would leave the state there, where
        # layer norm's gradient is multiplied by 1/√ε = 316 at each step.
        _, (c, h) = unroll(cell, xs, carry=(c, h + noise))
        a = self.norm.dense("out", self.classes, kernel_init=orthogonal)(h)
        return self.norm("out")(a)
