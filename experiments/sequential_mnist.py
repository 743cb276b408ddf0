"""Sequential MNIST (Cooijmans et al. 2016): an LSTM reads an image pixel by pixel, and names it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import images
from ln.errors import InputError
from ln.norm import Norm, make_norm
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
        a = self.norm.dense("out", images.CLASSES, kernel_init=orthogonal)(h)
        return self.norm("out")(a)


class Task(images.Task):
    """Images as sequences of ``config.pixels_per_step`` pixels."""

    scored = ("valid", "test")

    def load(self):
        """All but the test cases anew: the last ``config.valid_cases`` in their original order are
        for validation.

        Raises:
            InputError: units, cases for validation or pixels per step that cannot be.
        """
        splits, config = super().load(), self.config
        if config.hidden < 1:
            raise InputError(f"config.hidden is {config.hidden}; it must be 1 or more.")
        x, y = (np.concatenate([splits[s][k] for s in ("valid", "train")]) for k in ("x", "y"))
        train = len(y) - config.valid_cases
        if not 0 < config.valid_cases < len(y):
            raise InputError(
                f"config.valid_cases is {config.valid_cases}; this data set has {len(y)} cases to "
                f"divide into training and validation."
            )
        D = x.shape[1]
        if config.pixels_per_step < 1 or D % config.pixels_per_step:
            raise InputError(
                f"config.pixels_per_step is {config.pixels_per_step}; it must divide the "
                f"{D} pixels of an image, as 1 does."
            )
        # A true permutation. (That code draws indices with replacement: a third of the pixels
        # never appear.) RandomState's numbers are the same in every version of numpy.
        self.order = np.arange(D)
        if config.permuted:
            self.order = np.random.RandomState(config.permutation_seed).permutation(D)
        return dict(
            train=dict(x=x[:train], y=y[:train]),
            valid=dict(x=x[train:], y=y[train:]),
            test=splits["test"],
        )

    def model(self, train):
        config = self.config
        return Model(config.hidden, make_norm(config, train), config.bias_inside)

    def inputs(self, x, key):
        B = len(x)
        xs = images.pixels(x)[:, self.order].reshape(B, -1, self.config.pixels_per_step)
        noise = self.config.noise * jax.random.normal(key, (B, self.config.hidden))
        return xs.swapaxes(0, 1), noise
