"""Peers of the benchmark rnn that need jax: ours, Flax's, and the matrix products alone."""

from collections.abc import Callable, Mapping
from functools import partial
import time
from typing import Any

import flax.linen as nn
from flax.training.train_state import TrainState
from flax.traverse_util import flatten_dict, unflatten_dict
import jax
from jax.experimental import rnn as cudnn
import jax.numpy as jnp
import numpy as np
import optax

from ln.norm import EPSILON, Norm, matmul
from ln.rnn import GRU, LSTM, unroll
from ln.training import train
from scripts.benchmarks.common import Peer
from scripts.benchmarks.common_jax import Compiled, Training, in_order, precise
from scripts.benchmarks.rnn import LEARNING_RATE, Case, Data, make_data

# --- Where the numbers of `Data` lie in the parameters of a layer ---

MATRICES = {
    "lstm": {"W_x": ("W_x",), "W_h": ("W_h",)},
    "gru": {"W_x": ("W_x", "W"), "W_h": ("W_h", "U")},  # z, r and candidate
}
ONE_MATRIX = {"W_x": ("W_x",), "W_h": ("W_h",)}
NORMS = {
    "lstm": {"x": ("norm_x",), "h": ("norm_h",), "c": ("norm_c",)},
    "gru": {"x": ("norm_zr_x", "norm_x"), "h": ("norm_zr_h", "norm_h")},
}

Layout = Mapping[str, list[tuple[str, ...]]]


def layout(cell: str, matrices: Mapping[str, tuple[str, ...]], gain: str) -> Layout:
    """Name in `Data` -> the parameters that hold it, side by side on the last axis."""
    found = {"b": [("b",)]}
    found |= {name: [(part, "kernel") for part in parts] for name, parts in matrices.items()}
    for site, parts in NORMS[cell].items():
        found[f"gain_{site}"] = [(part, gain) for part in parts]
        found[f"bias_{site}"] = [(part, "bias") for part in parts]
    return found


def to_params(layout: Layout, layers: list[dict]) -> dict:
    """The numbers of `Data.layers` as the parameters layer_0, layer_1, ..."""
    params = {}
    for n, weights in enumerate(layers):
        for name, paths in layout.items():
            w = jnp.array(weights[name])
            parts = jnp.split(w, [2 * w.shape[-1] // 3], axis=-1) if len(paths) > 1 else [w]
            for path, part in zip(paths, parts, strict=True):
                params[(f"layer_{n}", *path)] = part
    return unflatten_dict(params)


def from_params(layout: Layout, params: dict) -> dict[str, np.ndarray]:
    """The way back, for gradients: {"0.W_x": ...}."""
    flat = flatten_dict(params)
    layers = sorted({path[0] for path in flat})
    return {
        f"{n}.{name}": np.concatenate([flat[(layer, *path)] for path in paths], axis=-1)
        for n, layer in enumerate(layers)
        for name, paths in layout.items()
    }


# --- Models: layers on top of each other, xs [T, B, D] and mask [T, B] -> hs [T, B, H] ---


class Layers(nn.Module):
    """Ours, with layer norm at x, h and c."""

    cell: str
    units: int
    layers: int
    schedule: Any = None

    @nn.compact
    def __call__(self, xs, mask):
        kind, norm = {"lstm": LSTM, "gru": GRU}[self.cell], Norm("layer", ("x", "h", "c"))
        for n in range(self.layers):
            cell = kind(self.units, norm, name=f"layer_{n}")
            xs, _ = unroll(cell, xs, mask, schedule=self.schedule)
        return xs


def flax_norm(name: str) -> nn.Module:
    return nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, name=name)


def keep(mask, new, old):
    return jax.tree.map(lambda new, old: jnp.where(mask[:, None], new, old), new, old)


class FlaxLSTM(nn.RNNCellBase):
    """A cell as one writes it with Flax's own modules. Its inputs are x and mask of a step."""

    features: int

    num_feature_axes = 1

    @nn.compact
    def __call__(self, carry, inputs):
        (c, h), (x, mask) = carry, inputs
        n = 4 * self.features
        a_x = flax_norm("norm_x")(nn.Dense(n, use_bias=False, name="W_x")(x))
        a_h = flax_norm("norm_h")(nn.Dense(n, use_bias=False, name="W_h")(h))
        b = self.param("b", nn.initializers.zeros, (n,))
        f, i, o, g = jnp.split(a_x + a_h + b, 4, axis=-1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
        h = nn.sigmoid(o) * nn.tanh(flax_norm("norm_c")(c))
        carry = keep(mask, (c, h), carry)
        return carry, carry[1]

    def initialize_carry(self, rng, input_shape):
        zeros = jnp.zeros((*input_shape[:-1], self.features))
        return zeros, zeros


class FlaxGRU(nn.RNNCellBase):
    features: int

    num_feature_axes = 1

    @nn.compact
    def __call__(self, h, inputs):
        x, mask = inputs
        n, gates = 3 * self.features, 2 * self.features
        a_x = nn.Dense(n, use_bias=False, name="W_x")(x)
        a_h = nn.Dense(n, use_bias=False, name="W_h")(h)
        b = self.param("b", nn.initializers.zeros, (n,))
        zr = flax_norm("norm_zr_x")(a_x[:, :gates]) + flax_norm("norm_zr_h")(a_h[:, :gates])
        z, r = jnp.split(nn.sigmoid(zr + b[:gates]), 2, axis=-1)
        of_x = flax_norm("norm_x")(a_x[:, gates:]) + b[gates:]
        h_hat = nn.tanh(of_x + r * flax_norm("norm_h")(a_h[:, gates:]))
        h = keep(mask, (1 - z) * h + z * h_hat, h)
        return h, h

    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape[:-1], self.features))


class FlaxLayers(nn.Module):
    """What nn.RNN does, which takes one array and has no room for a mask beside it."""

    cell: str
    units: int
    layers: int

    @nn.compact
    def __call__(self, xs, mask):
        scan = nn.scan(
            lambda cell, carry, inputs: cell(carry, inputs),
            variable_broadcast="params",
            split_rngs={"params": False},
        )
        for n in range(self.layers):
            cell = {"lstm": FlaxLSTM, "gru": FlaxGRU}[self.cell](self.units, name=f"layer_{n}")
            carry = cell.initialize_carry(jax.random.key(0), xs.shape[1:])
            _, xs = scan(cell, carry, (xs, mask))
        return xs


# --- Peers ---


def loss(model: nn.Module, params, x, mask, R):
    return (model.apply({"params": params}, x, mask) * R).sum()


def gradients(case: Case, model: nn.Module, layout: Layout, lanes: int) -> tuple[Callable, tuple]:
    """Loss and gradients by the parameters and, where wanted, the inputs; and arguments for it."""
    data = make_data(case)
    params = to_params(layout, data.layers)
    function = jax.value_and_grad(partial(loss, model), argnums=(0, 1) if case.d_x else (0,))
    if lanes > 1:
        params = jax.tree.map(lambda p: jnp.stack([p] * lanes), params)
        function = jax.vmap(function, in_axes=(0, None, None, None))
    return function, (params, *map(jnp.array, (data.x, data.mask, data.R)))


class Gradients(Compiled):
    """What `gradients` computes."""

    def __init__(self, case: Case, model: nn.Module, layout: Layout, lanes: int = 1):
        self.layout, self.lanes = layout, lanes
        function, arguments = gradients(case, model, layout, lanes)
        super().__init__(function, *arguments)

    def at_the_start(self):
        with precise():
            found = self.function(*self.arguments)
        return train.lane(found, 0) if self.lanes > 1 else found

    def losses(self, count):
        return [float(self.at_the_start()[0])]

    def gradients(self):
        d_params, *d_x = self.at_the_start()[1]
        found = from_params(self.layout, d_params)
        return found | ({"x": np.asarray(*d_x)} if d_x else {})

    def facts(self):
        return super().facts() | dict(lanes=self.lanes)


def ours(case: Case, schedule=None) -> tuple[nn.Module, Layout]:
    model = Layers(case.cell, case.H, case.layers, schedule)
    return model, layout(case.cell, MATRICES[case.cell], "gain")


def flaxs(case: Case) -> tuple[nn.Module, Layout]:
    return FlaxLayers(case.cell, case.H, case.layers), layout(case.cell, ONE_MATRIX, "scale")


class Ours(Gradients):
    def __init__(self, case, schedule=None, lanes=1):
        super().__init__(case, *ours(case, schedule), lanes)


class Flax(Gradients):
    def __init__(self, case):
        super().__init__(case, *flaxs(case))


class Products(Compiled):
    """The matrix products of forward and backward: the shapes and loops of ours, nothing else."""

    def __init__(self, case: Case):
        data = make_data(case)

        def layer(weights, x, hs, d_a, d_x):
            W_x, W_h = weights["W_x"], weights["W_h"]
            rows = partial(jnp.reshape, shape=(case.T * case.B, -1))

            found = [matmul(x, W_x), in_order(hs, W_h), in_order(d_a, W_h.T)]
            found += [matmul(rows(hs).T, rows(d_a)), matmul(rows(x).T, rows(d_a))]
            return found + ([matmul(d_a, W_x.T)] if d_x else [])

        def layers(weights, x, hs, d_a):
            return [
                layer(w, hs if n else x, hs, d_a, bool(n) or case.d_x)
                for n, w in enumerate(weights)
            ]

        d_a = np.tile(data.R, case.gates)
        super().__init__(layers, *jax.tree.map(jnp.array, (data.layers, data.x, data.R, d_a)))


class CuDNN(Compiled):
    """jax.experimental.rnn.lstm, which is cuDNN's: without norm or mask, so not compared."""

    def __init__(self, case: Case):
        data = make_data(case)
        sizes = dict(input_size=case.D, hidden_size=case.H, num_layers=case.layers)
        weights = cudnn.init_lstm_weight(jax.random.key(0), **sizes, bidirectional=False)
        state = jnp.zeros((case.layers, case.B, case.H))
        lengths = jnp.full(case.B, case.T, jnp.int32)

        def loss(weights, x, R):
            run = partial(cudnn.lstm, **sizes, dropout=0.0, bidirectional=False)
            return (run(x, state, state, weights, lengths)[0] * R).sum()

        function = jax.value_and_grad(loss, argnums=(0, 1) if case.d_x else (0,))
        x, R = (jnp.array(a.swapaxes(0, 1)) for a in (data.x, data.R))
        super().__init__(function, weights, x, R)


class OursTraining(Training):
    def __init__(self, case: Case, schedule=None):
        task = SumTask(make_data(case), *ours(case, schedule))
        super().__init__(task, optax.scale_by_adam(), LEARNING_RATE)


class SumTask(train.Task):
    """Σ hs R as the trainer sees it."""

    def __init__(self, data: Data, model: nn.Module, layout: Layout):
        super().__init__(config=None)
        self.data, self.model, self.layout = data, model, layout

    def init(self, key):
        return {"params": to_params(self.layout, self.data.layers)}

    def batch(self, step, seed=0, rows=slice(None)):
        return dict(x=self.data.x, mask=self.data.mask, R=self.data.R)  # on one device: all rows

    def loss(self, variables, batch, key, train):
        return loss(self.model, variables["params"], **batch), ({}, {})


class FlaxTraining(Peer):
    """The usual loop with Flax and Optax, one dispatch per step."""

    def __init__(self, case: Case):
        data, (model, layout) = make_data(case), flaxs(case)
        self.batch = tuple(map(jnp.array, (data.x, data.mask, data.R)))
        self.state = TrainState.create(
            apply_fn=model.apply,
            params=to_params(layout, data.layers),
            tx=optax.adam(LEARNING_RATE),
        )

        @partial(jax.jit, donate_argnums=0)
        def train_step(state, x, mask, R):
            value, grads = jax.value_and_grad(partial(loss, model))(state.params, x, mask, R)
            return state.apply_gradients(grads=grads), value

        self.train_step = train_step
        began = time.perf_counter()
        self.compiled = train_step.lower(self.state, *self.batch).compile()
        self.compiling = time.perf_counter() - began

    def losses(self, count):
        found = []
        for _ in range(count):
            with precise():
                self.state, value = self.train_step(self.state, *self.batch)
            found.append(float(value))
        return found

    def run(self, steps):
        for _ in range(steps):
            self.state, value = self.compiled(self.state, *self.batch)
        jax.block_until_ready((value, self.state))
        return steps

    facts = Compiled.facts
