"""Peers of the benchmark draw that need PyTorch: the model of experiments/draw, written as one
writes it there."""

import torch
from torch import Tensor, nn, sigmoid, tanh
from torch.nn.functional import layer_norm, softplus

from ln.norm import EPSILON
from scripts.benchmarks.common_torch import Training, Weights, prepare
from scripts.benchmarks.draw import Data

SIDE = 28  # of the images


class LSTM(Weights):
    """With layer norm of the cell's output where it has a gain."""

    def forward(self, carry: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        c, h = carry
        f, i, o, g = (x @ self.W_x + h @ self.W_h + self.b).chunk(4, 1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        of_c = c
        if hasattr(self, "gain"):
            of_c = layer_norm(c, self.gain.shape, self.gain, self.bias, EPSILON)
        return c, sigmoid(o) * tanh(of_c)


class Linear(Weights):
    def forward(self, h: Tensor) -> Tensor:
        return h @ self.W + self.b


KINDS = {"encoder": LSTM, "decoder": LSTM}  # else Linear


class Model(nn.Module):
    """DRAW with attention.

    Args:
        weights: see `Data`.
        read_size, write_size: N of the two windows.
    """

    def __init__(self, weights, read_size: int, write_size: int):
        super().__init__()
        self.read_size, self.write_size = read_size, write_size
        modules: dict[str, dict] = {}
        for path, values in weights.items():
            module, name = path.split(".")
            modules.setdefault(module, {})[name] = values
        for module, values in modules.items():
            self.add_module(module, KINDS.get(module, Linear)(values))

    def window(self, a: Tensor, N: int) -> tuple[Tensor, Tensor, Tensor]:
        """Filterbanks F_Y, F_X ``[B, N, 28]`` and intensity ``[B, 1, 1]``, of a ``[B, 5]``."""
        g_X, g_Y, log_sigma2, log_delta, log_gamma = a[:, :, None].unbind(1)
        pixel = torch.arange(1, SIDE + 1, device=a.device)
        offset = torch.arange(1, N + 1, device=a.device) - N / 2 - 0.5
        delta = (SIDE - 1) / max(N - 1, 1) * log_delta.exp()
        sigma2 = log_sigma2.exp()[:, :, None]

        def filters(g):
            mu = (SIDE + 1) / 2 * (g + 1) + offset * delta
            return (-((pixel - mu[:, :, None]) ** 2) / (2 * sigma2)).softmax(-1)

        return filters(g_Y), filters(g_X), log_gamma.exp()[:, :, None]

    def read(self, x: Tensor, x_hat: Tensor, h_dec: Tensor) -> Tensor:
        F_Y, F_X, gamma = self.window(self.W_read(h_dec), self.read_size)
        patches = [(gamma * (F_Y @ image @ F_X.mT)).flatten(1) for image in (x, x_hat)]
        return torch.cat(patches, 1)

    def write(self, h_dec: Tensor) -> Tensor:
        a, N = self.W_write(h_dec), self.write_size
        F_Y, F_X, gamma = self.window(a[:, :5], N)
        w = a[:, 5:].view(-1, N, N)
        return F_Y.mT @ w @ F_X / gamma

    def glimpse(self, c: Tensor, encoder, decoder, x: Tensor, epsilon: Tensor):
        """One step; returns the next carry, and the KL divergence ``[B]`` of its z."""
        h_dec = decoder[1]
        r = self.read(x, x - sigmoid(c), h_dec)
        encoder = self.encoder(encoder, torch.cat([r, h_dec], 1))
        mu, log_sigma = self.W_z(encoder[1]).chunk(2, 1)
        decoder = self.decoder(decoder, mu + log_sigma.exp() * epsilon)
        c = c + self.write(decoder[1])
        kl = 0.5 * (mu**2 + (2 * log_sigma).exp() - 2 * log_sigma - 1).sum(1)
        return c, encoder, decoder, kl

    def forward(self, x: Tensor, epsilon: Tensor) -> Tensor:
        """The bound ``[B]`` of images x ``[B, 28, 28]`` with noise ``[T, B, Z]``."""
        zeros = x.new_zeros(len(x), len(self.encoder.W_h))
        c, encoder, decoder = torch.zeros_like(x), (zeros, zeros), (zeros, zeros)
        bound = x.new_zeros(len(x))
        for epsilon_t in epsilon:
            c, encoder, decoder, kl = self.glimpse(c, encoder, decoder, x, epsilon_t)
            bound = bound + kl
        return bound + (softplus(c) - x * c).sum((1, 2))


class Step(Training):
    """A training step with clipping and the fused Adam.

    Args:
        data: what the first steps are made with; later ones have the same images and fresh noise.
        device: "cpu" or "gpu".
        compiled: whether torch.compile compiles a glimpse. The loop it would roll out.
    """

    def __init__(self, config, data: Data, device: str = "cpu", compiled: bool = False):
        where = prepare(device)
        network = Model(data.weights, config.read_size, config.write_size).to(where)
        if compiled:
            network.glimpse = torch.compile(network.glimpse)
        x, epsilon = (torch.from_numpy(array).to(where) for array in (data.x, data.epsilon))
        super().__init__(network, config, list(zip(x, epsilon, strict=True)))

    def batch(self, step):
        x, epsilon = super().batch(step)
        return x, torch.randn_like(epsilon)
