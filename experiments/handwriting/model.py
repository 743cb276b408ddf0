"""Handwriting synthesis (§6.5, figure 5): the network of Graves (2013), with layer norm.

Three LSTMs predict the next movement of a pen from the last; the first moves a window along the
text that is to be written. Section and equation numbers with a G are those of "Generating Sequences
With Recurrent Neural Networks".
"""

from typing import NamedTuple

import flax.linen as nn
import jax
from jax.nn import log_sigmoid, log_softmax, logsumexp, sigmoid
import jax.numpy as jnp
from jax.numpy import exp, tanh
import numpy as np

from ln.norm import Linear, Norm
from ln.rnn import LSTM, scan, unroll

# Strokes never need exp of a larger number (or of a smaller one), which could overflow.
LARGEST = 10.0


class Mixture(NamedTuple):
    """The predicted distribution of the next point (G eqs. 17-22).

    Leaves are ``[..., M]``, one number for each of M Gaussians; e is ``[...]``.

    Attributes:
        e: logit of the probability that the stroke ends with this point.
        log_pi: logarithms of the weights.
        mu_1: means of dx.
        mu_2: means of dy.
        log_sigma_1: logarithms of the standard deviations of dx.
        log_sigma_2: logarithms of the standard deviations of dy.
        rho: correlations of dx and dy; their absolute values are at most 0.9995.
    """

    e: jax.Array
    log_pi: jax.Array
    mu_1: jax.Array
    mu_2: jax.Array
    log_sigma_1: jax.Array
    log_sigma_2: jax.Array
    rho: jax.Array

    @classmethod
    def from_outputs(cls, y, bias: float = 0.0) -> "Mixture":
        """Return the mixture of outputs y ``[..., 1 + 6 M]``; a bias above 0 is neater (G §5.4)."""
        e, *parts = jnp.split(y, [1 + n * ((y.shape[-1] - 1) // 6) for n in range(6)], -1)
        pi, mu_1, mu_2, sigma_1, sigma_2, rho = parts
        return cls(
            e=e[..., 0],
            log_pi=log_softmax(pi * (1 + bias)),
            mu_1=mu_1,
            mu_2=mu_2,
            log_sigma_1=jnp.clip(sigma_1 - bias, -LARGEST, LARGEST),
            log_sigma_2=jnp.clip(sigma_2 - bias, -LARGEST, LARGEST),
            rho=0.9995 * tanh(rho),  # so that 1 − ρ² never rounds to 0
        )

    def negative_log_likelihood(self, points):
        """Return −log p of points ``[..., 3]`` in nats ``[...]`` (G eqs. 23-26).

        Points are (dx, dy, end), with end = 1 if the stroke ends. The density is that of normalized
        offsets: it can be above 1, and the result below 0.
        """
        dx, dy, end = points[..., :1], points[..., 1:2], points[..., 2]

        def deviations(difference, log_sigma):
            # Avoid overflow here and in the squares below: ∞ − ∞ and 0 · ∞ are NaN.
            difference = jnp.clip(difference, -1e30, 1e30)
            return jnp.clip(difference * exp(-log_sigma), -1e4, 1e4)

        a = deviations(dx - self.mu_1, self.log_sigma_1)
        b = deviations(dy - self.mu_2, self.log_sigma_2)
        rest = 1 - self.rho**2
        log_density = -(a**2 + b**2 - 2 * self.rho * a * b) / (2 * rest)
        log_density -= np.log(2 * np.pi) + self.log_sigma_1 + self.log_sigma_2 + jnp.log(rest) / 2
        log_p_end = end * log_sigmoid(self.e) + (1 - end) * log_sigmoid(-self.e)
        return -logsumexp(self.log_pi + log_density, -1) - log_p_end

    def sample(self, key):
        """Return points ``[..., 3]`` drawn from the mixture."""
        which, where, whether = jax.random.split(key, 3)
        component = jax.random.categorical(which, self.log_pi)[..., None]

        def chosen(array):
            return jnp.take_along_axis(array, component, -1)[..., 0]

        rho = chosen(self.rho)
        n_1, n_2 = jax.random.normal(where, (2, *self.e.shape), rho.dtype)
        dx = chosen(self.mu_1) + exp(chosen(self.log_sigma_1)) * n_1
        along = rho * n_1 + jnp.sqrt(1 - rho**2) * n_2
        dy = chosen(self.mu_2) + exp(chosen(self.log_sigma_2)) * along
        end = jax.random.bernoulli(whether, sigmoid(self.e))
        return jnp.stack([dx, dy, end.astype(dx.dtype)], -1)


class Written(NamedTuple):
    """Generated lines of handwriting.

    Attributes:
        points: ``[T, B, 3]``, normalized offsets and ends of strokes.
        phi: ``[T, B, U + 1]``, the window's weight of each character and of one position after the
            last (G eq. 46); the text is finished once that position has the largest weight.
    """

    points: jax.Array
    phi: jax.Array


class Model(nn.Module):
    """Three LSTMs, the first of which moves a soft window along the text (G figure 1, §5.1).

    The input is connected to each LSTM, and each LSTM to the output.

    Attributes:
        hidden: units of each LSTM.
        components: K, Gaussians of the window.
        mixtures: M, Gaussians of the output.
        kappa_bias: added to κ̂: the logarithm of the characters per point by which the window
            advances at first. At 0 it would pass the whole text in a few strokes.
        norm: of the LSTMs, sites x, h and c, and of the other matrices, site out.
        classes: C, number of different characters.
    """

    hidden: int
    components: int
    mixtures: int
    kappa_bias: float
    norm: Norm
    classes: int = 57

    def setup(self):
        """Define the modules."""
        self.cells = [LSTM(self.hidden, self.norm) for _ in range(3)]
        self.W_y = Linear(1 + 6 * self.mixtures, self.norm)
        self.W_window = Linear(3 * self.components, self.norm)

    def window(self, kappa, h, text):
        """Move the window along the text (G eqs. 46-51).

        Args:
            kappa: κ ``[B, K]``, its position.
            h: states of the first LSTM ``[B, H]``.
            text: one-hot ``[B, U, C]``, 0 after the end.

        Returns:
            The new κ, the window's content w ``[B, C]``, and φ ``[B, U + 1]``.
        """
        alpha, beta, step = jnp.split(self.W_window(h), 3, -1)
        kappa = kappa + exp(jnp.clip(step + self.kappa_bias, -LARGEST, LARGEST))
        # One position more than the text has: the window is done when it is there.
        u = np.arange(1, text.shape[1] + 2, dtype=np.float32)
        beta = exp(jnp.clip(beta, -LARGEST, LARGEST))[..., None]
        log_phi = jnp.clip(alpha, -LARGEST, LARGEST)[..., None] - beta * (kappa[..., None] - u) ** 2
        phi = exp(log_phi).sum(1)
        return kappa, jnp.einsum("bu,buc->bc", phi[:, :-1], text), phi

    def first(self, carry, inputs, text):
        """Return carry and outputs (h, w, φ) of a step of the first LSTM and the window.

        Args:
            carry: of the LSTM, κ and w.
            inputs: x ``[B, 3]`` and the mask ``[B]`` of the step.
            text: see `window`.
        """
        (x, mask), (carry, kappa, w) = inputs, carry
        carry, h = self.cells[0](carry, jnp.concatenate([x, w], -1), mask)
        kappa, w, phi = self.window(kappa, h, text)
        return (carry, kappa, w), (h, w, phi)

    def start(self, B: int):
        """Return the carry of `first` before the first step."""
        kappa, w = jnp.zeros((B, self.components)), jnp.zeros((B, self.classes))
        return self.cells[0].initial(B), kappa, w

    def __call__(self, xs, mask, text, schedule: str | None = None):
        """Return y ``[T, B, 1 + 6 M]``, which `Mixture.from_outputs` reads.

        Args:
            xs: points ``[T, B, 3]``.
            mask: ``[T, B]``, True at real points.
            text: one-hot ``[B, U, C]``.
            schedule: of the gradient, see `ln.rnn.scan`.
        """
        start = self.start(xs.shape[1])
        _, (h, ws, _) = scan(Model.first, self, start, (xs, mask), text, schedule=schedule)
        xs = jnp.concatenate([xs, ws], -1)
        hs = [h]
        for cell in self.cells[1:]:
            h, _ = unroll(cell, jnp.concatenate([xs, h], -1), mask, schedule=schedule)
            hs.append(h)
        return self.W_y(jnp.concatenate(hs, -1))

    def step(self, carry, x, text):
        """Return carry, y ``[B, 1 + 6 M]`` and φ of a step of the whole network, x ``[B, 3]``."""
        first, *others = carry
        first, (h, w, phi) = self.first(first, (x, None), text)
        x = jnp.concatenate([x, w], -1)
        hs, carries = [h], [first]
        for cell, c in zip(self.cells[1:], others, strict=True):
            c, h = cell(c, jnp.concatenate([x, h], -1))
            hs.append(h)
            carries.append(c)
        return tuple(carries), self.W_y(jnp.concatenate(hs, -1)), phi

    def write(self, text, keys, bias: float) -> Written:
        """Write a text.

        Args:
            text: one-hot ``[B, U, C]``.
            keys: of random numbers, as arrays ``[T, ...]``; T is the number of points.
            bias: see `Mixture.from_outputs`.
        """

        def step(self, carry, key, text):
            carry, x = carry
            carry, y, phi = self.step(carry, x, text)
            point = Mixture.from_outputs(y, bias).sample(jax.random.wrap_key_data(key))
            return (carry, point), (point, phi)

        B = len(text)
        rest = tuple(cell.initial(B) for cell in self.cells[1:])
        start = self.start(B), *rest
        _, (points, phi) = scan(step, self, (start, jnp.zeros((B, 3))), keys, text)
        return Written(points, phi)
