"""Peers of the benchmark rnn that need jax: ours and Flax's."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
from flax.training.train_state import TrainState
from flax.traverse_util import flatten_dict, unflatten_dict
import jax
from jax.experimental import rnn as cudnn
import jax.numpy as jnp
import numpy as np
import optax

from ln.norm import EPSILON, Norm
from ln.rnn import GRU, LSTM, unroll
from ln.training import train
from scripts.benchmarks.common import Peer
from scripts.benchmarks.common_jax import (
    Compiled,
    Training,
    compile_for,
    precise,
    repeat,
)
from scripts.benchmarks.rnn import LEARNING_RATE, Case, Data, make_data

# --- The numbers of `Data` as parameters of a layer ---

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
    """Return the paths of the parameters that hold each name of `Data`, side by side."""
    paths = {"b": [("b",)]}
    paths |= {name: [(part, "kernel") for part in parts] for name, parts in matrices.items()}
    for site, parts in NORMS[cell].items():
        paths[f"gain_{site}"] = [(part, gain) for part in parts]
        paths[f"bias_{site}"] = [(part, "bias") for part in parts]
    return paths


def to_params(layout: Layout, layers: list[dict]) -> dict:
    """Return the numbers of `Data.layers` as the parameters layer_0, layer_1, ..."""
    params = {}
    for n, weights in enumerate(layers):
        for name, paths in layout.items():
            w = jnp.array(weights[name])
            parts = jnp.split(w, [2 * w.shape[-1] // 3], axis=-1) if len(paths) > 1 else [w]
            for path, part in zip(paths, parts, strict=True):
                params[(f"layer_{n}", *path)] = part
    return unflatten_dict(params)


def from_params(layout: Layout, params: dict) -> dict[str, np.ndarray]:
    """Return parameters, or their gradients, by the names of `Data`: {"0.W_x": ...}."""
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
    """An LSTM of Flax's own modules. Its inputs are x and mask of a step."""

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
    """A GRU of Flax's own modules. Its inputs are x and mask of a step."""

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
    """The loop of nn.RNN, which takes no mask besides its one array of inputs."""

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


def gradients(
    case: Case, model: nn.Module, layout: Layout, lanes: int = 1
) -> tuple[Callable, tuple]:
    """Return a function of the loss and its gradients, and arguments for it."""
    data = make_data(case)
    params = to_params(layout, data.layers)
    function = jax.value_and_grad(partial(loss, model), argnums=(0, 1) if case.d_x else (0,))
    if lanes > 1:
        params = jax.tree.map(lambda p: jnp.stack([p] * lanes), params)
        function = jax.vmap(function, in_axes=(0, None, None, None))
    return function, (params, *map(jnp.array, (data.x, data.mask, data.R)))


class Gradients(Compiled):
    """The loss and its gradients by the parameters and, if wanted, the inputs."""

    def __init__(self, case: Case, model: nn.Module, layout: Layout):
        self.layout = layout
        function, arguments = gradients(case, model, layout)
        super().__init__(function, *arguments)

    def at_the_start(self):
        return precise(self.function, self.compiled)(*self.arguments)

    def losses(self, count):
        return [float(self.at_the_start()[0])]

    def gradients(self):
        d_params, *d_x = self.at_the_start()[1]
        named = from_params(self.layout, d_params)
        return named | ({"x": np.asarray(*d_x)} if d_x else {})


def ours(case: Case, schedule=None) -> tuple[nn.Module, Layout]:
    model = Layers(case.cell, case.H, case.layers, schedule)
    return model, layout(case.cell, MATRICES[case.cell], "gain")


def flaxs(case: Case) -> tuple[nn.Module, Layout]:
    return FlaxLayers(case.cell, case.H, case.layers), layout(case.cell, ONE_MATRIX, "scale")


class Ours(Gradients):
    def __init__(self, case, schedule=None):
        super().__init__(case, *ours(case, schedule))


class Flax(Gradients):
    def __init__(self, case):
        super().__init__(case, *flaxs(case))


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
    """A training step of the trainer."""

    def __init__(self, case: Case, schedule=None):
        task = SumTask(make_data(case), *ours(case, schedule))
        lanes, batches = [(0, LEARNING_RATE)], repeat(task.example(), 4)
        super().__init__(task, optax.scale_by_adam(), lanes, batches)


class SumTask(train.Task):
    """The loss Σ hs R as a task."""

    def __init__(self, data: Data, model: nn.Module, layout: Layout):
        super().__init__(config=None)
        self.data, self.model, self.layout = data, model, layout

    def init(self, key):
        return {"params": to_params(self.layout, self.data.layers)}

    def example(self):
        return dict(x=self.data.x, mask=self.data.mask, R=self.data.R)

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
        self.compiled, self.compilation = compile_for(train_step, self.state, *self.batch)

    def losses(self, count):
        losses, train_step = [], precise(self.train_step, self.compiled)
        for _ in range(count):
            self.state, value = train_step(self.state, *self.batch)
            losses.append(float(value))
        return losses

    def run(self, steps):
        for _ in range(steps):
            self.state, value = self.compiled(self.state, *self.batch)
        jax.block_until_ready((value, self.state))
        return steps

    facts = Compiled.facts
