"""DRAW on binarized MNIST (§6.4, figure 4): Gregor et al. (2015), with layer norm in its LSTMs.

An encoder looks at an image through a small window, glimpse by glimpse; a decoder, which sees only
samples z of what the encoder says, paints it on a canvas. Section and equation numbers with a G are
those of "DRAW: A Recurrent Neural Network For Image Generation".
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
    """Where an N x N grid of Gaussian filters lies on an image (G eqs. 19-24).

    Attributes:
        g_Y, g_X: its centre ``[B]`` in pixels; the centre of the first pixel is 1, of the last 28.
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
    def of(cls, a, N: int) -> "Window":
        """Of five numbers ``[B, 5]``, all of which may be anything: at 0 it covers the image."""
        g_X, g_Y, log_sigma2, log_delta, log_gamma = jnp.moveaxis(a, -1, 0)
        return cls(
            g_Y=(HEIGHT + 1) / 2 * (g_Y + 1),
            g_X=(WIDTH + 1) / 2 * (g_X + 1),
            delta=(max(HEIGHT, WIDTH) - 1) / max(N - 1, 1) * exp(log_delta),
            sigma=exp(log_sigma2 / 2),
            gamma=exp(log_gamma),
        )

    def filterbanks(self, N: int):
        """F_Y ``[B, N, 28]`` and F_X ``[B, N, 28]``; every filter sums to 1 (G eqs. 25-26)."""

        def filters(g, size):
            i, pixel = np.arange(1, N + 1), np.arange(1, size + 1)
            mu = g[:, None] + (i - N / 2 - 0.5) * self.delta[:, None]
            distance = (pixel - mu[..., None]) / self.sigma[:, None, None]
            return softmax(-(distance**2) / 2, -1)  # no 0 / 0 for a filter far off the image

        return filters(self.g_Y, HEIGHT), filters(self.g_X, WIDTH)

    def read(self, image, N: int):
        """γ F_Y image F_Xᵀ: images ``[B, 28, 28]`` -> patches ``[B, N, N]`` (G eq. 27)."""
        F_Y, F_X = self.filterbanks(N)
        return self.gamma[:, None, None] * (F_Y @ image @ F_X.mT)

    def write(self, w):
        """F_Yᵀ w F_X / γ: patches ``[B, N, N]`` -> images ``[B, 28, 28]`` (G eq. 29)."""
        F_Y, F_X = self.filterbanks(w.shape[-1])
        return (F_Y.mT @ (w @ F_X)) / self.gamma[:, None, None]


class Glimpse(NamedTuple):
    """What happens in one of the T steps; of a whole run, leaves ``[T, B, ...]``.

    Attributes:
        mu, log_sigma: of q(z | x) ``[B, Z]``; None where nothing is looked at.
        z: the sample ``[B, Z]``.
        c: the canvas ``[B, 28, 28]`` after the step; σ(c) is the picture.
        reading, writing: the windows; None without attention.
    """

    mu: jax.Array | None
    log_sigma: jax.Array | None
    z: jax.Array
    c: jax.Array
    reading: Window | None
    writing: Window | None


class Model(nn.Module):
    """DRAW. The norm's site c in both LSTMs gives eqs. 29-31 of the supplement.

    Attributes:
        hidden: units of the encoder and of the decoder.
        latent: Z, numbers in the z of a step.
        read_size, write_size: N of the two windows; with ``attention`` only.
        attention: else the whole image is read and written (G eqs. 17-18).
    """

    hidden: int
    latent: int
    read_size: int
    write_size: int
    attention: bool
    norm: Norm

    def setup(self):
        N = self.write_size
        self.encoder, self.decoder = LSTM(self.hidden, self.norm), LSTM(self.hidden, self.norm)
        self.W_z = Linear(2 * self.latent, self.norm)
        self.W_write = Linear(5 + N * N if self.attention else HEIGHT * WIDTH, self.norm)
        if self.attention:
            self.W_read = Linear(5, self.norm)

    def read(self, x, x_hat, h_dec):
        """What the encoder sees, ``[B, 2 N N]``, of the image and of what is wrong with the
        canvas; and through which window."""
        images, window = (x, x_hat), None
        if self.attention:
            window = Window.of(self.W_read(h_dec), self.read_size)
            images = tuple(window.read(image, self.read_size) for image in images)
        return jnp.concatenate([image.reshape(len(x), -1) for image in images], -1), window

    def write(self, h_dec):
        """What is added to the canvas, ``[B, 28, 28]``; and through which window."""
        a = self.W_write(h_dec)
        if not self.attention:
            return a.reshape(-1, HEIGHT, WIDTH), None
        window, w = Window.of(a[:, :5], self.write_size), a[:, 5:]
        return window.write(w.reshape(-1, self.write_size, self.write_size)), window

    def infer(self, carry, epsilon, x):
        """One step for images x ``[B, 28, 28]`` (G eqs. 3-8)."""
        c, encoder, decoder = carry
        _, h_dec = decoder
        x_hat = x - sigmoid(c)
        r, reading = self.read(x, x_hat, h_dec)
        encoder, h_enc = self.encoder(encoder, jnp.concatenate([r, h_dec], -1))
        mu, log_sigma = jnp.split(self.W_z(h_enc), 2, -1)
        z = mu + exp(log_sigma) * epsilon
        (c, decoder), writing = self.paint((c, decoder), z)
        return (c, encoder, decoder), Glimpse(mu, log_sigma, z, c, reading, writing)

    def paint(self, carry, z):
        """The decoder's part of a step."""
        c, decoder = carry
        decoder, h_dec = self.decoder(decoder, z)
        w, writing = self.write(h_dec)
        return (c + w, decoder), writing

    def imagine(self, carry, z):
        """One step without an image: z comes from the prior (G §2.3)."""
        carry, writing = self.paint(carry, z)
        return carry, Glimpse(None, None, z, carry[0], None, writing)

    def __call__(self, x, epsilon, schedule: str | None = None):
        """Images ``[B, 28, 28]`` and standard normal ε ``[T, B, Z]`` -> `Glimpse` ``[T, ...]``."""
        B = len(x)
        carry = jnp.zeros_like(x), self.encoder.initial(B), self.decoder.initial(B)
        return scan(Model.infer, self, carry, epsilon, x, schedule=schedule)[1]

    def generate(self, z):
        """Pictures out of z ``[T, B, Z]``, standard normal -> `Glimpse` of ``[T, ...]``."""
        B = z.shape[1]
        carry = jnp.zeros((B, HEIGHT, WIDTH)), self.decoder.initial(B)
        return scan(Model.imagine, self, carry, z)[1]


def reconstruction(x, c):
    """−log p(x | z) in nats ``[B]``: pixels x ``[B, 28, 28]`` are 1 with probability σ(c)."""
    return (softplus(c) - x * c).sum((-2, -1))


def divergence(mu, log_sigma):
    """KL(q(z | x) ‖ N(0, 1)) in nats ``[B]``, over all steps ``[T, B, Z]`` (G eq. 11)."""
    return 0.5 * (mu**2 + exp(2 * log_sigma) - 2 * log_sigma - 1).sum((0, 2))


def bound(x, glimpses: Glimpse):
    """An upper bound of −log p(x) in nats ``[B]``, with one sample of z (G eq. 12).

    Its mean over the noise is the bound; one draw of it may be below −log p(x).
    """
    return reconstruction(x, glimpses.c[-1]) + divergence(glimpses.mu, glimpses.log_sigma)


def log_weight(x, glimpses: Glimpse, epsilon):
    """log p(x, z) − log q(z | x) in nats ``[B]`` of the samples; −log of the weights' mean over k
    samples is a tighter bound (Burda et al. 2016, importance weighted autoencoders)."""
    log_ratio = 0.5 * (epsilon**2 - glimpses.z**2) + glimpses.log_sigma
    return log_ratio.sum((0, 2)) - reconstruction(x, glimpses.c[-1])
