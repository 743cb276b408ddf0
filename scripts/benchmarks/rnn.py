"""rnn: whole sequences through recurrent layers with layer norm, forward and backward.

The loss Σ hs R under a ragged mask is timed with its gradients by all parameters and the inputs.
Parameters have the names of ours in all peers.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ln.norm import EPSILON, Norm
from ln.rnn import GRU, LSTM, unroll
from scripts.benchmarks import jax_peers
from scripts.benchmarks.jax_peers import named
from scripts.benchmarks.timing import Makers, Numbers, Peer


class Case(NamedTuple):
    """A stack of equal recurrent layers, and a batch for it."""

    cell: str  # "lstm" or "gru"
    T: int
    B: int
    H: int
    D: int
    layers: int = 1
    d_x: bool = True  # also the gradient by the inputs


CASES = {
    "draw": Case("lstm", T=64, B=128, H=256, D=256),
    "handwriting": Case("lstm", T=400, B=8, H=400, D=460, layers=3),
    "reader": Case("lstm", T=300, B=64, H=240, D=240),
    "order": Case("gru", T=30, B=128, H=1024, D=300),
    "pixels": Case("lstm", T=784, B=64, H=100, D=1, d_x=False),  # MNIST, pixel by pixel
    "tiny": Case("lstm", T=5, B=3, H=8, D=4, layers=2),
    "tiny-gru": Case("gru", T=5, B=3, H=8, D=4),
}


# --- Models: layers on top of each other, xs [T, B, D] and mask [T, B] -> hs [T, B, H] ---


class Layers(nn.Module):
    """Ours, with layer norm at x, h and c."""

    case: Case
    schedule: str | None = None

    @nn.compact
    def __call__(self, xs, mask):
        """Return the states of all steps."""
        kind, norm = {"lstm": LSTM, "gru": GRU}[self.case.cell], Norm("layer", ("x", "h", "c"))
        for n in range(self.case.layers):
            cell = kind(self.case.H, norm, name=f"layer_{n}")
            xs, _ = unroll(cell, xs, mask, schedule=self.schedule)
        return xs


def flax_norm(name: str) -> nn.Module:
    """Return layer norm as Flax has it, computed as ours."""
    return nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, name=name)


class FlaxLSTM(nn.Module):
    """An LSTM of Flax's own modules; the carry is (c, h)."""

    H: int

    @nn.compact
    def __call__(self, carry, x, mask):
        """Return the states of all steps."""
        c, h = carry
        dense = partial(nn.Dense, 4 * self.H, use_bias=False)
        a = flax_norm("norm_x")(dense(name="W_x")(x)) + flax_norm("norm_h")(dense(name="W_h")(h))
        a = a + self.param("b", nn.initializers.zeros, (4 * self.H,))
        f, i, o, g = jnp.split(a, 4, axis=-1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
        h = nn.sigmoid(o) * nn.tanh(flax_norm("norm_c")(c))
        carry = tuple(jnp.where(mask[:, None], *pair) for pair in zip((c, h), carry, strict=True))
        return carry, carry[1]


class FlaxGRU(nn.Module):
    """A GRU of Flax's own modules with our equations; the carry is (h,)."""

    H: int

    @nn.compact
    def __call__(self, carry, x, mask):
        """Return the states of all steps."""
        (h,), n, dense = carry, 2 * self.H, partial(nn.Dense, use_bias=False)
        b_zr, b = jnp.split(self.param("b", nn.initializers.zeros, (3 * self.H,)), [n])
        zr_x, zr_h = dense(n, name="W_x")(x), dense(n, name="W_h")(h)
        zr = flax_norm("norm_zr_x")(zr_x) + flax_norm("norm_zr_h")(zr_h) + b_zr
        z, r = jnp.split(nn.sigmoid(zr), 2, axis=-1)
        U_h = flax_norm("norm_h")(dense(self.H, name="U")(h))
        h_hat = nn.tanh(flax_norm("norm_x")(dense(self.H, name="W")(x)) + b + r * U_h)
        h = jnp.where(mask[:, None], (1 - z) * h + z * h_hat, h)
        return (h,), h


class FlaxLayers(nn.Module):
    """The same layers in Flax: nn.scan of a cell, which nn.RNN does too, but without a mask."""

    case: Case

    @nn.compact
    def __call__(self, xs, mask):
        """Return the states of all steps."""
        cell, parts = {"lstm": (FlaxLSTM, 2), "gru": (FlaxGRU, 1)}[self.case.cell]
        carry = (jnp.zeros((self.case.B, self.case.H)),) * parts
        scan = nn.scan(cell, variable_broadcast="params", split_rngs={"params": False})
        for n in range(self.case.layers):
            _, xs = scan(self.case.H, name=f"layer_{n}")(carry, xs, mask)
        return xs


# --- The numbers of a case ---


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


def make_params(case: Case) -> dict:
    """Return the parameters of all implementations."""
    batch, key = make_batch(case), jax.random.key(0)
    params = jax.jit(Layers(case).init)(key, batch["x"], batch["mask"])["params"]
    noise = optax.tree.random_like(key, params)
    return jax.tree_util.tree_map_with_path(vary, params, noise)


def gradients(case: Case, model: nn.Module) -> tuple[Callable, tuple]:
    """Return a function of the loss and its gradients, and arguments for it."""
    rename = jax_peers.as_flax if isinstance(model, FlaxLayers) else lambda params: params

    def loss(params, x, mask, R):
        return (model.apply({"params": rename(params)}, x, mask) * R).sum()

    function = jax.value_and_grad(loss, argnums=(0, 1) if case.d_x else (0,))
    return function, jax.device_put((make_params(case), *make_batch(case).values()))


# --- Peers ---


def in_jax(case: Case, model: nn.Module) -> Peer:
    """Return an implementation in jax."""
    function, arguments = gradients(case, model)
    jitted = jax.jit(function)
    compiled, facts = jax_peers.compile_for(jitted, *arguments)

    def numbers() -> Numbers:
        with jax_peers.FULL():
            value, (d_params, *d_x) = jitted(*arguments)
        return Numbers(float(value), named(d_params) | ({"x": np.asarray(*d_x)} if d_x else {}))

    return Peer(partial(compiled, *arguments), jax.block_until_ready, numbers=numbers, facts=facts)


def in_torch(case: Case, kind: str) -> Peer:
    """Return an implementation in PyTorch; see `torch_peers.recurrent`."""
    from scripts.benchmarks import torch_peers

    return torch_peers.recurrent(case, named(make_params(case)), make_batch(case), kind)


def make_peers(case: Case, folder: str) -> Makers:
    """Return the implementations of a case, which needs no folder of data."""
    return {
        "ours": partial(in_jax, case, Layers(case)),
        "ours, schedule=plain": partial(in_jax, case, Layers(case, "plain")),
        "Flax, nn.scan of a cell": partial(in_jax, case, FlaxLayers(case)),
        "PyTorch eager": partial(in_torch, case, "eager"),
        "PyTorch script": partial(in_torch, case, "script"),
        f"PyTorch's {case.cell.upper()} without norm or mask": partial(in_torch, case, "own"),
    }
