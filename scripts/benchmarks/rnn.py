"""rnn: whole sequences through recurrent layers with layer norm, forward and backward.

The loss Σ hs R under a ragged mask is timed with its gradients by all parameters and the inputs;
then a whole training step with Adam. Parameters have the names of ours in all peers.
"""

from functools import partial
import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
from jax.experimental import rnn as cudnn
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from ln.norm import EPSILON, Norm
from ln.rnn import GRU, LSTM, unroll
from ln.training import train
from scripts.benchmarks import jax_peers
from scripts.benchmarks.jax_peers import named
from scripts.benchmarks.timing import PEAK, Makers, Numbers, Peer, Timing, compare, show


class Case(NamedTuple):
    """A stack of equal recurrent layers, and a batch for it."""

    cell: str  # "lstm" or "gru"
    T: int
    B: int
    H: int
    D: int
    layers: int = 1
    d_x: bool = True  # also the gradient by the inputs

    def __str__(self):
        count = f"{self.layers} layers, " if self.layers > 1 else ""
        return f"{self.cell.upper()}, {count}T={self.T}, B={self.B}, H={self.H}, D={self.D}"


CASES = {
    "draw": Case("lstm", T=64, B=128, H=256, D=256),
    "handwriting": Case("lstm", T=400, B=8, H=400, D=460, layers=3),
    "reader": Case("lstm", T=300, B=64, H=240, D=240),
    "order": Case("gru", T=30, B=128, H=1024, D=300),
    "pixels": Case("lstm", T=784, B=64, H=100, D=1, d_x=False),  # MNIST, pixel by pixel
    "tiny": Case("lstm", T=5, B=3, H=8, D=4, layers=2),
    "tiny-gru": Case("gru", T=5, B=3, H=8, D=4),
}
USUAL = ("draw", "handwriting", "reader", "order", "pixels")

TRAINING = ConfigDict(
    dict(
        seeds=(0,),
        data_seed=0,
        lr=(1e-4,),  # small: Adam goes as far along rounding noise as along a gradient
        steps_per_call=4,
    )
)


# --- Models: layers on top of each other, xs [T, B, D] and mask [T, B] -> hs [T, B, H] ---


class Layers(nn.Module):
    """Ours, with layer norm at x, h and c."""

    case: Case
    schedule: str | None = None

    @nn.compact
    def __call__(self, xs, mask):
        kind, norm = {"lstm": LSTM, "gru": GRU}[self.case.cell], Norm("layer", ("x", "h", "c"))
        for n in range(self.case.layers):
            cell = kind(self.case.H, norm, name=f"layer_{n}")
            xs, _ = unroll(cell, xs, mask, schedule=self.schedule)
        return xs


def flax_norm(name: str) -> nn.Module:
    return nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, name=name)


def keep(mask, new, old):
    return jax.tree.map(lambda new, old: jnp.where(mask[:, None], new, old), new, old)


class FlaxLSTM(nn.Module):
    """An LSTM of Flax's own modules; the carry is (c, h)."""

    H: int

    @nn.compact
    def __call__(self, carry, x, mask):
        c, h = carry
        dense = partial(nn.Dense, 4 * self.H, use_bias=False)
        a = flax_norm("norm_x")(dense(name="W_x")(x)) + flax_norm("norm_h")(dense(name="W_h")(h))
        a = a + self.param("b", nn.initializers.zeros, (4 * self.H,))
        f, i, o, g = jnp.split(a, 4, axis=-1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
        h = nn.sigmoid(o) * nn.tanh(flax_norm("norm_c")(c))
        carry = keep(mask, (c, h), carry)
        return carry, carry[1]


class FlaxGRU(nn.Module):
    """A GRU of Flax's own modules; the carry is (h,)."""

    H: int

    @nn.compact
    def __call__(self, carry, x, mask):
        (h,), H = carry, self.H
        b = self.param("b", nn.initializers.zeros, (3 * H,))
        dense = partial(nn.Dense, use_bias=False)
        zr_x = flax_norm("norm_zr_x")(dense(2 * H, name="W_x")(x))
        zr_h = flax_norm("norm_zr_h")(dense(2 * H, name="W_h")(h))
        z, r = jnp.split(nn.sigmoid(zr_x + zr_h + b[: 2 * H]), 2, axis=-1)
        h_x = flax_norm("norm_x")(dense(H, name="W")(x)) + b[2 * H :]
        h_hat = nn.tanh(h_x + r * flax_norm("norm_h")(dense(H, name="U")(h)))
        h = keep(mask, (1 - z) * h + z * h_hat, h)
        return (h,), h


class FlaxLayers(nn.Module):
    """The same layers in Flax: nn.scan of a cell, which nn.RNN does too, but without a mask."""

    case: Case

    @nn.compact
    def __call__(self, xs, mask):
        kind, states = {"lstm": (FlaxLSTM, 2), "gru": (FlaxGRU, 1)}[self.case.cell]
        carry = (jnp.zeros((self.case.B, self.case.H)),) * states
        scan = nn.scan(kind, variable_broadcast="params", split_rngs={"params": False})
        for n in range(self.case.layers):
            _, xs = scan(self.case.H, name=f"layer_{n}")(carry, xs, mask)
        return xs


# --- The task ---


def make_batch(case: Case) -> dict[str, np.ndarray]:
    """Return x ``[T, B, D]``, mask ``[T, B]`` and R ``[T, B, H]``.

    Every example is at least half as long as the longest.
    """
    random, (T, B) = np.random.default_rng(0), (case.T, case.B)
    lengths = random.integers(-(-T // 2), T, size=B, endpoint=True)
    lengths[0] = T
    R = random.standard_normal((T, B, case.H), np.float32) / np.float32(T * B * case.H) ** 0.5
    x = random.standard_normal((T, B, case.D), np.float32)
    return dict(x=x, mask=np.arange(T)[:, None] < lengths, R=R)


def vary(path, leaf, noise):
    """Return a parameter that is not zero; gains at h are small, or gradients explode."""
    if leaf.ndim > 1:
        return leaf
    site, name = path[-2].key, path[-1].key
    small = name == "gain" and site.endswith("_h")
    return (0.35 if small else 1) * (leaf + 0.1 * noise)


class Sum(train.Task):
    """The loss Σ hs R as a task, on the same batch at every step."""

    def __init__(self, case: Case, model: nn.Module | None = None):
        super().__init__(TRAINING)
        self.data, self.model = make_batch(case), model or Layers(case)

    def init(self, key):
        variables = self.model.init(key, self.data["x"], self.data["mask"])
        noise = optax.tree.random_like(key, variables["params"])
        return {"params": jax.tree_util.tree_map_with_path(vary, variables["params"], noise)}

    def example(self):
        return self.data

    def batch(self, step, seed=0, rows=slice(None)):
        return self.data

    def loss(self, variables, batch, key=None, train=True):
        hs = self.model.apply({"params": variables["params"]}, batch["x"], batch["mask"])
        return (hs * batch["R"]).sum(), ({}, {})


def make_params(case: Case) -> dict:
    return jax.jit(Sum(case).init)(jax.random.key(0))["params"]


# --- Peers ---


def gradients_in_jax(case: Case, model: nn.Module) -> Peer:
    """Return the loss and its gradients by the parameters and, if wanted, the inputs."""
    task, params = Sum(case, model), make_params(case)
    if isinstance(model, FlaxLayers):
        params = jax_peers.as_flax(params)

    def loss(params, x, mask, R):
        return task.loss({"params": params}, dict(x=x, mask=mask, R=R))[0]

    def numbers(result) -> Numbers:
        value, (d_params, *d_x) = result
        gradients = {name.replace("scale", "gain"): d for name, d in named(d_params).items()}
        return Numbers([float(value)], gradients | ({"x": np.asarray(*d_x)} if d_x else {}))

    function = jax.value_and_grad(loss, argnums=(0, 1) if case.d_x else (0,))
    arguments = jax.device_put((params, *task.data.values()))
    return jax_peers.function_peer(function, *arguments, numbers=numbers)


def training(case: Case, schedule: str | None = None) -> Peer:
    task = Sum(case, Layers(case, schedule))
    return jax_peers.trainer_peer(TRAINING, task, optax.scale_by_adam(), gradients=False)


def training_in_flax(case: Case) -> Peer:
    task = Sum(case, FlaxLayers(case))
    return jax_peers.flax_peer(
        lambda params, batch: task.loss({"params": params}, batch),
        make_params(case),
        optax.adam(TRAINING.lr[0]),
        itertools.repeat(jax.device_put(task.data)),
    )


def cudnn_lstm(case: Case) -> Peer:
    """Return jax.experimental.rnn.lstm, which is cuDNN's: without norm or mask."""
    sizes = dict(input_size=case.D, hidden_size=case.H, num_layers=case.layers)
    weights = cudnn.init_lstm_weight(jax.random.key(0), **sizes, bidirectional=False)
    state, lengths = jnp.zeros((case.layers, case.B, case.H)), jnp.full(case.B, case.T, jnp.int32)

    def loss(weights, x, R):
        run = partial(cudnn.lstm, **sizes, dropout=0.0, bidirectional=False)
        return (run(x, state, state, weights, lengths)[0] * R).sum()

    function = jax.value_and_grad(loss, argnums=(0, 1) if case.d_x else (0,))
    x, R = (jnp.array(make_batch(case)[name].swapaxes(0, 1)) for name in ("x", "R"))
    return jax_peers.function_peer(function, weights, x, R)


def torch_peer(case: Case, kind: str, trains: bool = False) -> Peer:
    from scripts.benchmarks import torch_peers

    lr = TRAINING.lr[0] if trains else None
    return torch_peers.recurrent(case, kind, named(make_params(case)), make_batch(case), lr)


def gradient_peers(case: Case) -> Makers:
    """Return the peers that compute loss and gradients, and the peak of matrix products."""
    peers = {
        "ours": partial(gradients_in_jax, case, Layers(case)),
        "ours, schedule=plain": partial(gradients_in_jax, case, Layers(case, "plain")),
        "Flax, nn.scan of a cell": partial(gradients_in_jax, case, FlaxLayers(case)),
        "PyTorch eager": partial(torch_peer, case, "eager"),
        "PyTorch script": partial(torch_peer, case, "script"),
        f"PyTorch's {case.cell.upper()} without norm or mask": partial(torch_peer, case, "own"),
        PEAK: jax_peers.square,
    }
    if jax.default_backend() == "gpu" and case.cell == "lstm":
        peers["cuDNN's LSTM through jax, without norm or mask"] = partial(cudnn_lstm, case)
    return peers


def training_peers(case: Case) -> Makers:
    """Return the peers that make a training step."""
    return {
        "ours": partial(training, case),
        "ours, schedule=plain": partial(training, case, "plain"),
        "Flax + Optax": partial(training_in_flax, case),
        "PyTorch eager": partial(torch_peer, case, "eager", trains=True),
        "PyTorch script": partial(torch_peer, case, "script", trains=True),
        PEAK: jax_peers.square,
    }


def run(name: str, case: Case, timing: Timing, folder: str) -> dict:
    """Time forward and backward, then training steps."""
    kinds = {"forward and backward": gradient_peers, "a training step with Adam": training_peers}
    results = [
        show(f"{name}: {case}; {kind}", compare(f"{name}, {kind}", make_peers(case), timing))
        for kind, make_peers in kinds.items()
    ]
    return results[0] | dict(case=case._asdict(), training=results[1]["peers"])
