"""DRAW on binarized MNIST (§6.4, figure 4): Gregor et al. (2015), with layer norm in its LSTMs.

An encoder looks at an image through a small window, glimpse by glimpse. A decoder, which receives
only samples z of the encoder's distribution, paints the image on a canvas. Section and equation
numbers with a G are those of "DRAW: A Recurrent Neural Network For Image Generation".
"""

from typing import NamedTuple

import flax.linen as nn
import jax
from jax.nn import sigmoid, softmax, softplus
import jax.numpy as jnp
from jax.numpy import exp
import numpy as np

from ln.norm import Linear, Norm
from ln.rnn import LSTM, scan

HEIGHT, WIDTH = 28, 28


class Window(NamedTuple):
    """The position of an N x N grid of Gaussian filters on an image (G eqs. 19-24).

    Attributes:
        g_Y: row of its centre ``[B]`` in pixels; the first pixel is 1, the last 28.
        g_X: column of its centre ``[B]``, likewise.
        delta: the stride ``[B]`` between neighbouring filters, in pixels.
        sigma: the width ``[B]`` of the filters, in pixels.
        gamma: the intensity ``[B]``.
    """

    g_Y: jax.Array
    g_X: jax.Array
    delta: jax.Array
    sigma: jax.Array
    gamma: jax.Array

    @classmethod
    def from_numbers(cls, a, N: int) -> "Window":
        """Return the window for five numbers a ``[B, 5]`` of any size; 0 covers the image."""
        g_X, g_Y, log_sigma2, log_delta, log_gamma = jnp.moveaxis(a, -1, 0)
        return cls(
            g_Y=(HEIGHT + 1) / 2 * (g_Y + 1),
            g_X=(WIDTH + 1) / 2 * (g_X + 1),
            delta=(max(HEIGHT, WIDTH) - 1) / max(N - 1, 1) * exp(log_delta),
            sigma=exp(log_sigma2 / 2),
            gamma=exp(log_gamma),
        )

    def filterbanks(self, N: int):
        """Return F_Y and F_X, both ``[B, N, 28]``; each filter sums to 1 (G eqs. 25-26)."""

        def filters(g, size):
            i, pixel = np.arange(1, N + 1), np.arange(1, size + 1)
            mu = g[:, None] + (i - N / 2 - 0.5) * self.delta[:, None]
            distance = (pixel - mu[..., None]) / self.sigma[:, None, None]
            return softmax(-(distance**2) / 2, -1)  # no 0 / 0 for a filter far off the image

        return filters(self.g_Y, HEIGHT), filters(self.g_X, WIDTH)

    def read(self, image, N: int):
        """Return γ F_Y image F_Xᵀ, patches ``[B, N, N]`` of images ``[B, 28, 28]`` (G eq. 27)."""
        F_Y, F_X = self.filterbanks(N)
        return self.gamma[:, None, None] * (F_Y @ image @ F_X.mT)

    def write(self, w):
        """Return F_Yᵀ w F_X / γ, images ``[B, 28, 28]`` of patches ``[B, N, N]`` (G eq. 29)."""
        F_Y, F_X = self.filterbanks(w.shape[-1])
        return (F_Y.mT @ (w @ F_X)) / self.gamma[:, None, None]


class Glimpse(NamedTuple):
    """The variables of one of the T steps; after a scan the leaves are ``[T, B, ...]``.

    Attributes:
        mu: mean of q(z | x) ``[B, Z]``; None if there is no image.
        log_sigma: logarithm of its standard deviation ``[B, Z]``, likewise.
        z: the sample ``[B, Z]``.
        c: the canvas ``[B, 28, 28]`` after the step; σ(c) is the picture.
        reading: the encoder's window; None if there is no image.
        writing: the decoder's window.
    """

    mu: jax.Array | None
    log_sigma: jax.Array | None
    z: jax.Array
    c: jax.Array
    reading: Window | None
    writing: Window


class Model(nn.Module):
    """DRAW. The norm's site c in both LSTMs gives eqs. 29-31 of the supplement.

    Attributes:
        hidden: units of the encoder and of the decoder.
        latent: Z, the dimension of z in each step.
        read_size: N of the encoder's window.
        write_size: N of the decoder's window.
        norm: of both LSTMs, sites x, h and c, and of the other matrices, site out.
    """

    hidden: int
    latent: int
    read_size: int
    write_size: int
    norm: Norm

    def setup(self):
        """Define the modules."""
        self.encoder, self.decoder = LSTM(self.hidden, self.norm), LSTM(self.hidden, self.norm)
        self.W_z = Linear(2 * self.latent, self.norm)
        self.W_read = Linear(5, self.norm)
        self.W_write = Linear(5 + self.write_size**2, self.norm)

    def read(self, x, x_hat, h_dec):
        """Read the image x and the error image x_hat (G eqs. 4, 27).

        Returns:
            Both patches side by side, ``[B, 2 N N]``, and the window.
        """
        window = Window.from_numbers(self.W_read(h_dec), self.read_size)
        patches = [window.read(image, self.read_size) for image in (x, x_hat)]
        return jnp.concatenate([patch.reshape(len(x), -1) for patch in patches], -1), window

    def write(self, h_dec):
        """Return what the decoder adds to the canvas, ``[B, 28, 28]``, and the window."""
        a = self.W_write(h_dec)
        window, w = Window.from_numbers(a[:, :5], self.write_size), a[:, 5:]
        return window.write(w.reshape(-1, self.write_size, self.write_size)), window

    def infer(self, carry, epsilon, x):
        """Return carry and `Glimpse` of a step for images x ``[B, 28, 28]`` (G eqs. 3-8)."""
        c, encoder, decoder = carry
        _, h_dec = decoder
        x_hat = x - sigmoid(c)  # what is still missing on the canvas
        r, reading = self.read(x, x_hat, h_dec)
        encoder, h_enc = self.encoder(encoder, jnp.concatenate([r, h_dec], -1))
        mu, log_sigma = jnp.split(self.W_z(h_enc), 2, -1)
        z = mu + exp(log_sigma) * epsilon
        (c, decoder), writing = self.paint((c, decoder), z)
        return (c, encoder, decoder), Glimpse(mu, log_sigma, z, c, reading, writing)

    def paint(self, carry, z):
        """Return the carry (canvas, decoder) and the window after the decoder's part of a step."""
        c, decoder = carry
        decoder, h_dec = self.decoder(decoder, z)
        w, writing = self.write(h_dec)
        return (c + w, decoder), writing

    def imagine(self, carry, z):
        """Return carry and `Glimpse` of a step without image; z is from the prior (G §2.3)."""
        # The encoder has no part in it: the decoder alone turns z into pictures.
        carry, writing = self.paint(carry, z)
        return carry, Glimpse(None, None, z, carry[0], None, writing)

    def __call__(self, x, epsilon, schedule: str | None = None):
        """Return the `Glimpse` ``[T, B, ...]`` of all steps.

        Args:
            x: images ``[B, 28, 28]``.
            epsilon: standard normal ``[T, B, Z]``.
            schedule: of the gradient, see `ln.rnn.scan`.
        """
        B = len(x)
        carry = jnp.zeros_like(x), self.encoder.initial(B), self.decoder.initial(B)
        return scan(Model.infer, self, carry, epsilon, x, schedule=schedule)[1]

    def generate(self, z):
        """Return the `Glimpse` ``[T, B, ...]`` of pictures from standard normal z ``[T, B, Z]``."""
        B = z.shape[1]
        carry = jnp.zeros((B, HEIGHT, WIDTH)), self.decoder.initial(B)
        return scan(Model.imagine, self, carry, z)[1]


def reconstruction(x, c):
    """Return −log p(x | z) in nats ``[B]``; p(pixel = 1) is σ(c) for x ``[B, 28, 28]``."""
    return (softplus(c) - x * c).sum((-2, -1))


def divergence(mu, log_sigma):
    """Return KL(q(z | x) ‖ N(0, 1)) in nats ``[B]``, over all steps ``[T, B, Z]`` (G eq. 11)."""
    return 0.5 * (mu**2 + exp(2 * log_sigma) - 2 * log_sigma - 1).sum((0, 2))


def bound(x, glimpses: Glimpse):
    """Return an upper bound of −log p(x) in nats ``[B]``, with one sample of z (G eq. 12).

    Its mean over the noise is the bound; a single draw can be below −log p(x).
    """
    return reconstruction(x, glimpses.c[-1]) + divergence(glimpses.mu, glimpses.log_sigma)


def log_weight(x, glimpses: Glimpse, epsilon):
    """Return log p(x, z) − log q(z | x) in nats ``[B]``, the logarithm of each sample's weight.

    −log of the mean weight of k samples is a tighter bound (Burda et al. 2016, importance weighted
    autoencoders).
    """
    log_ratio = 0.5 * (epsilon**2 - glimpses.z**2) + glimpses.log_sigma
    return log_ratio.sum((0, 2)) - reconstruction(x, glimpses.c[-1])
