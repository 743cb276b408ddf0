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

# exp of more, or of less, is of no use for strokes and would one day be infinite.
LARGEST = 10.0


class Mixture(NamedTuple):
    """What the network says of the next point (G eqs. 17-22); leaves ``[..., M]``, e ``[...]``.

    Attributes:
        e: logit of the probability that the stroke ends with this point.
        log_pi: logarithms of the weights.
        mu_1, mu_2: means of dx and dy.
        log_sigma_1, log_sigma_2: logarithms of their standard deviations.
        rho: their correlation, at most 0.999 or so in size.
    """

    e: jax.Array
    log_pi: jax.Array
    mu_1: jax.Array
    mu_2: jax.Array
    log_sigma_1: jax.Array
    log_sigma_2: jax.Array
    rho: jax.Array

    @classmethod
    def of(cls, y, bias: float = 0.0) -> "Mixture":
        """Of the outputs y ``[..., 1 + 6 M]``. A bias b above 0 makes neater writing (G §5.4)."""
        e, *parts = jnp.split(y, [1 + n * ((y.shape[-1] - 1) // 6) for n in range(6)], -1)
        pi, mu_1, mu_2, sigma_1, sigma_2, rho = parts
        return cls(
            e=e[..., 0],
            log_pi=log_softmax(pi * (1 + bias)),
            mu_1=mu_1,
            mu_2=mu_2,
            log_sigma_1=jnp.clip(sigma_1 - bias, -LARGEST, LARGEST),
            log_sigma_2=jnp.clip(sigma_2 - bias, -LARGEST, LARGEST),
            rho=0.9995 * tanh(rho),
        )

    def negative_log_likelihood(self, points):
        """−log p of points ``[..., 3]`` in nats ``[...]`` (G eqs. 23-26).

        Points are (dx, dy, 1 where the stroke ends); the density is that of normalized offsets, so
        it may be above 1 and this below 0.
        """
        dx, dy, end = points[..., :1], points[..., 1:2], points[..., 2]

        def deviations(difference, log_sigma):
            # Neither may overflow, nor later their squares: ∞ − ∞ and 0 · ∞ are no numbers.
            difference = jnp.clip(difference, -1e30, 1e30)
            return jnp.clip(difference * exp(-log_sigma), -1e4, 1e4)

        a = deviations(dx - self.mu_1, self.log_sigma_1)
        b = deviations(dy - self.mu_2, self.log_sigma_2)
        rest = 1 - self.rho**2
        log_density = -(a**2 + b**2 - 2 * self.rho * a * b) / (2 * rest)
        log_density -= np.log(2 * np.pi) + self.log_sigma_1 + self.log_sigma_2 + jnp.log(rest) / 2
        of_end = end * log_sigmoid(self.e) + (1 - end) * log_sigmoid(-self.e)
        return -logsumexp(self.log_pi + log_density, -1) - of_end

    def sample(self, noise: "Noise"):
        """Points ``[..., 3]``."""
        component = (self.log_pi + noise.gumbel).argmax(-1)[..., None]

        def of(array):
            return jnp.take_along_axis(array, component, -1)[..., 0]

        rho = of(self.rho)
        n_1, n_2 = noise.normal[..., 0], noise.normal[..., 1]
        dx = of(self.mu_1) + exp(of(self.log_sigma_1)) * n_1
        along = rho * n_1 + jnp.sqrt(1 - rho**2) * n_2
        dy = of(self.mu_2) + exp(of(self.log_sigma_2)) * along
        end = noise.uniform < sigmoid(self.e)
        return jnp.stack([dx, dy, end.astype(dx.dtype)], -1)


class Noise(NamedTuple):
    """Gumbel ``[..., M]``, normal ``[..., 2]`` and uniform ``[...]`` numbers for points."""

    gumbel: jax.Array
    normal: jax.Array
    uniform: jax.Array

    @classmethod
    def draw(cls, key, shape: tuple[int, ...], M: int) -> "Noise":
        gumbel, normal, uniform = jax.random.split(key, 3)
        return cls(
            jax.random.gumbel(gumbel, (*shape, M)),
            jax.random.normal(normal, (*shape, 2)),
            jax.random.uniform(uniform, shape),
        )


class Written(NamedTuple):
    """What a network wrote, leaves ``[T, B, ...]``.

    Attributes:
        points: ``[T, B, 3]``, normalized offsets and ends of strokes.
        phi: ``[T, B, U + 1]``: how much of each character the window shows, and of what would come
            behind the last (G eq. 46); it is at the end where that is more than of any other.
            None without text.
    """

    points: jax.Array
    phi: jax.Array | None


class Model(nn.Module):
    """Three LSTMs with connections from the input to all, from all to the output (G figure 1), and
    a soft window on the text in the first (G §5.1).

    Attributes:
        hidden: units of each LSTM.
        components: K Gaussians of the window.
        mixtures: M Gaussians of the output.
        text: else there is no window, and points are predicted from points alone (G §4).
        pace: added to κ̂: the logarithm of the characters per point that the window advances at
            first. At 0 it would leave every text after a few strokes.
        classes: C, of characters.
    """

    hidden: int
    components: int
    mixtures: int
    text: bool
    pace: float
    norm: Norm
    classes: int = 57

    def setup(self):
        self.cells = [LSTM(self.hidden, self.norm) for _ in range(3)]
        self.W_y = Linear(1 + 6 * self.mixtures, self.norm)
        if self.text:
            self.W_window = Linear(3 * self.components, self.norm)

    def window(self, kappa, h, text):
        """Moves the window κ ``[B, K]`` along text ``[B, U, C]``, one-hot, 0 behind the end.

        Returns κ, w ``[B, C]`` that it shows, and φ ``[B, U + 1]`` (G eqs. 46-51).
        """
        alpha, beta, step = jnp.split(self.W_window(h), 3, -1)
        kappa = kappa + exp(jnp.clip(step + self.pace, -LARGEST, LARGEST))
        u = np.arange(1, text.shape[1] + 2, dtype=np.float32)
        beta = exp(jnp.clip(beta, -LARGEST, LARGEST))[..., None]
        log_phi = jnp.clip(alpha, -LARGEST, LARGEST)[..., None] - beta * (kappa[..., None] - u) ** 2
        phi = exp(log_phi).sum(1)
        return kappa, jnp.einsum("bu,buc->bc", phi[:, :-1], text), phi

    def first(self, carry, inputs, text):
        """The first LSTM and the window, one step: x ``[B, 3]``, mask ``[B]``."""
        (x, mask), (carry, kappa, w) = inputs, carry
        carry, h = self.cells[0](carry, jnp.concatenate([x, w], -1), mask)
        kappa, w, phi = self.window(kappa, h, text)
        return (carry, kappa, w), (h, w, phi)

    def start(self, B: int):
        """The carry of `first` before the first step."""
        kappa, w = jnp.zeros((B, self.components)), jnp.zeros((B, self.classes))
        return self.cells[0].initial(B), kappa, w

    def __call__(self, xs, mask, text, schedule: str | None = None):
        """Points xs ``[T, B, 3]``, mask ``[T, B]``, text ``[B, U, C]`` -> y ``[T, B, 1 + 6 M]``."""
        if self.text:
            start = self.start(xs.shape[1])
            _, (h, ws, _) = scan(Model.first, self, start, (xs, mask), text, schedule=schedule)
            xs = jnp.concatenate([xs, ws], -1)
        else:
            h, _ = unroll(self.cells[0], xs, mask, schedule=schedule)
        hs = [h]
        for cell in self.cells[1:]:
            h, _ = unroll(cell, jnp.concatenate([xs, h], -1), mask, schedule=schedule)
            hs.append(h)
        return self.W_y(jnp.concatenate(hs, -1))

    def step(self, carry, x, text):
        """One step of the whole network: x ``[B, 3]`` -> y ``[B, 1 + 6 M]``, and φ."""
        (first, *others), phi = carry, None
        if self.text:
            first, (h, w, phi) = self.first(first, (x, None), text)
            x = jnp.concatenate([x, w], -1)
        else:
            first, h = self.cells[0](first, x)
        hs, carries = [h], [first]
        for cell, c in zip(self.cells[1:], others, strict=True):
            c, h = cell(c, jnp.concatenate([x, h], -1))
            hs.append(h)
            carries.append(c)
        return tuple(carries), self.W_y(jnp.concatenate(hs, -1)), phi

    def write(self, text, noise: Noise, bias: float, prime, primed):
        """Writes text ``[B, U, C]``, a point for each step of the noise (leaves ``[T, B, ...]``).

        Where primed ``[T]`` is true the points are those of prime ``[T, B, 3]``, so that it goes on
        in the manner of a line that somebody wrote (G §5.5).
        """

        def step(self, carry, inputs, text):
            (noise, given, is_given), (carry, x) = inputs, carry
            carry, y, phi = self.step(carry, x, text)
            point = jnp.where(is_given, given, Mixture.of(y, bias).sample(noise))
            return (carry, point), (point, phi)

        B = len(text)
        rest = tuple(cell.initial(B) for cell in self.cells[1:])
        start = (self.start(B) if self.text else self.cells[0].initial(B), *rest)
        x = jnp.zeros((B, 3))
        _, (points, phi) = scan(step, self, (start, x), (noise, prime, primed), text)
        return Written(points, phi)
