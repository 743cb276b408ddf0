"""Peers of the benchmark order_embeddings that need PyTorch: the model of
experiments/order_embeddings, written as one writes it there."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm, normalize

from experiments.datasets.captions import CAPTIONS
from experiments.order_embeddings.task import BLOCK
from experiments.retrieval import Places
from ln.norm import EPSILON
from scripts.benchmarks import common_torch
from scripts.benchmarks.common import Peer
from scripts.benchmarks.common_torch import Weights, device_memory, prepare, set_precise
from scripts.benchmarks.order_embeddings import Case, Data, make_config

# Captions that are held against all images of a fold at once: so that the differences fit into the
# cache, or make the kernels worth starting.
CHUNK = {"cpu": 1, "cuda": 64}


class GRU(Weights):
    """With layer norm at x and h; the first carry is 0. Of all time steps it makes one product with
    W_x and W, and of each time step one with W_h and U."""

    def project(self, xs: Tensor) -> tuple[Tensor, Tensor]:
        n, H = self.gain_zr_x.shape, self.gain_x.shape
        zr, a = (xs @ torch.cat([self.W_x, self.W], 1)).split([*n, *H], -1)
        zr = layer_norm(zr, n, self.gain_zr_x, self.bias_zr_x + self.b[: n[0]], EPSILON)
        return zr, layer_norm(a, H, self.gain_x, self.bias_x + self.b[n[0] :], EPSILON)

    def step(self, h: Tensor, zr_x: Tensor, a_x: Tensor, W_h: Tensor) -> Tensor:
        n, H = self.gain_zr_h.shape, self.gain_h.shape
        zr, a = (h @ W_h).split([*n, *H], 1)
        zr = zr_x + layer_norm(zr, n, self.gain_zr_h, self.bias_zr_h, EPSILON)
        z, r = zr.sigmoid().chunk(2, 1)
        h_hat = (a_x + r * layer_norm(a, H, self.gain_h, self.bias_h, EPSILON)).tanh()
        return (1 - z) * h + z * h_hat

    def forward(self, xs: Tensor) -> Tensor:
        """The last carry ``[B, H]`` of xs ``[T, B, D]``."""
        h, W_h = xs.new_zeros(xs.shape[1], len(self.W_h)), torch.cat([self.W_h, self.U], 1)
        for zr_x, a_x in zip(*self.project(xs), strict=True):
            h = self.step(h, zr_x, a_x, W_h)
        return h


class Model(nn.Module):
    """Both maps, and the loss.

    Args:
        weights: see `Data`.
    """

    def __init__(self, weights, margin: float):
        super().__init__()
        kinds = dict(table=Weights, encoder=GRU, W_image=Weights)
        for module, kind in kinds.items():
            start = f"{module}."
            found = {k.removeprefix(start): w for k, w in weights.items() if k.startswith(start)}
            self.add_module(module, kind(found))
        self.margin = margin

    def caption(self, tokens: Tensor) -> Tensor:
        """The points ``[B, H]`` of tokens ``[B, T]``."""
        return normalize(self.encoder(embedding(tokens.T, self.table.W)), dim=1).abs()

    def image(self, features: Tensor) -> Tensor:
        return normalize(features @ self.W_image.W + self.W_image.b, dim=1).abs()

    def contrast(self, s: Tensor, v: Tensor) -> Tensor:
        E = energies(s, v)
        own = E.diag()
        hinges = (self.margin - E + own).clamp(min=0) + (self.margin - E + own[:, None]).clamp(
            min=0
        )
        return hinges.masked_fill(torch.eye(len(E), dtype=torch.bool, device=E.device), 0).sum()

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """The loss of a batch: tokens ``[B, T]``, features ``[B, D]``."""
        return self.contrast(self.caption(tokens), self.image(features))


def energies(s: Tensor, v: Tensor) -> Tensor:
    """E ``[M, N]`` of captions ``[M, H]`` and images ``[N, H]``."""
    return (s[:, None] - v).clamp(min=0).square().sum(-1)


class Step(common_torch.Training):
    """A training step with clipping and the fused Adam.

    Args:
        data: what the first steps are made with, and all later ones again.
        device: "cpu" or "gpu".
        compiled: whether torch.compile compiles a time step, and the loss of points. The loop it
            would roll out.
    """

    def __init__(self, case: Case, data: Data, device: str = "cpu", compiled: bool = False):
        where, config = prepare(device), make_config(case)
        network = Model(data.weights, config.margin).to(where)
        if compiled:
            network.encoder.step = torch.compile(network.encoder.step)
            network.contrast = torch.compile(network.contrast)
        tokens, images = (torch.from_numpy(a).to(where) for a in (data.tokens, data.images))
        super().__init__(network, config, list(zip(tokens.long(), images, strict=True)))
        self.clip_each = config.clip_each

    def step(self, *batch):
        loss = self.backward(*batch)
        for parameter in self.parameters:
            nn.utils.clip_grad_norm_(parameter, self.clip_each)
        self.optimizer.step()
        return loss


class Fold(Peer):
    """The points of a fold, and the scores of their ranks."""

    def __init__(self, case: Case, data: Data, device: str = "cpu"):
        self.device = prepare(device)
        self.network = Model(data.weights, make_config(case).margin).to(self.device)
        self.tokens, self.images = (
            torch.from_numpy(a).to(self.device) for a in (data.tokens, data.images)
        )

    def points(self) -> tuple[Tensor, Tensor]:
        s = torch.cat([self.network.caption(block) for block in self.tokens.split(BLOCK)])
        return s, self.network.image(self.images)

    @torch.no_grad()
    def scores(self) -> dict[str, float]:
        s, v = self.points()
        E = s.new_empty(len(s), len(v))
        chunk = CHUNK[self.device.type]
        for of_s, of_E in zip(s.split(chunk), E.split(chunk), strict=True):
            of_E[:] = energies(of_s, v)
        image = torch.arange(len(s), device=self.device) // CAPTIONS
        own = E.gather(1, image[:, None])  # [5 N, 1]

        def untied(places):
            return Places(places, 0 * places, 0 * places + 1)

        before = dict(
            image=(E < own).sum(1),
            caption=(E < own.view(-1, CAPTIONS).min(1).values).sum(0),
        )
        return {
            f"{what}_{metric}": value
            for what, places in before.items()
            for metric, value in untied(places.cpu().numpy()).scores().items()
        }

    def losses(self, count):
        set_precise(True)
        with torch.no_grad():
            self.s, self.v = (points.cpu().numpy() for points in self.points())
        found = self.scores()
        set_precise(False)
        return [found[name] for name in sorted(found)]

    def gradients(self):
        return dict(captions=self.s, images=self.v)

    def run(self, steps):
        for _ in range(steps):
            self.scores()
        return steps

    def facts(self):
        return device_memory(self.device)
