"""Peers of the benchmark handwriting that need jax: ours, the same in one plain scan, and the
matrix products alone."""

import dataclasses

from flax.traverse_util import unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np

from experiments.handwriting import task as handwriting
from ln.norm import matmul
from ln.rnn import scan
from scripts.benchmarks import common_jax
from scripts.benchmarks.common_jax import Compiled, in_order
from scripts.benchmarks.handwriting import BATCHES, Case, make_config, make_data

# --- Where the weights of `Data` lie in the parameters ---

NORMS = {f"{part}_{site}": f"norm_{site}.{part}" for site in "xhc" for part in ("gain", "bias")}
LSTM = {"W_x": "W_x.kernel", "W_h": "W_h.kernel", "b": "b"}
LINEAR = {"W": "Dense_0.kernel", "b": "Identity_0.bias"}
NAMES = {place: name for names in (LSTM, NORMS, LINEAR) for name, place in names.items()}


def to_params(weights, norm: str) -> dict:
    """The weights as the parameters of a model with this norm, "layer" or "none"."""
    of_cell, params = LSTM | (NORMS if norm == "layer" else {}), {}
    for path, values in weights.items():
        module, name = path.split(".")
        places = of_cell if module.startswith("cells") else LINEAR
        if name in places:
            params[(module, *places[name].split("."))] = jnp.array(values)
    return unflatten_dict(params)


# --- Models and their task ---


class PlainModel(handwriting.Model):
    """Every time step goes through the whole network, and autodiff through the loop as it stands.

    There is no mask: all lines have the full length.
    """

    def __call__(self, xs, mask, text):
        def step(self, carry, x, text):
            carry, y, _ = self.step(carry, x, text)
            return carry, y

        B = xs.shape[1]
        start = self.start(B), *(cell.initial(B) for cell in self.cells[1:])
        return scan(step, self, start, xs, text, schedule="plain")[1]


class Task(handwriting.Task):
    """Handwriting with the numbers of `Data`.

    Args:
        plain: whether the model is PlainModel.
    """

    def __init__(self, config, data, plain: bool):
        self.data, self.plain = data, plain
        super().__init__(config)

    def load(self):
        text = self.data.text.reshape(-1, self.data.text.shape[-1])
        N, U = text.shape
        lines = dict(
            points=self.data.points.reshape(N, -1, 3),
            length=np.full(N, self.config.length, np.int32),
            text=text,
            text_length=np.full(N, U, np.int32),
        )
        return dict(train=lines)

    def batch(self, step, seed=0, rows=slice(None)):
        B = self.config.batch_size
        start = step % BATCHES * B
        return {name: array[start:][:B][rows] for name, array in self.splits["train"].items()}

    def model(self, train):
        model = super().model(train)
        if not self.plain:
            return model
        fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
        return PlainModel(**fields)

    def init(self, key):
        return {"params": to_params(self.data.weights, self.config.norm)}


# --- Peers ---


class Step(common_jax.Step):
    """A training step with clipping and Adam."""

    def __init__(self, case: Case, norm: str = "layer", plain: bool = False):
        super().__init__(Task(make_config(case, norm), make_data(case), plain), NAMES)


# The matrices that ours multiplies with in each of its loops, and with all time steps at once.
LOOPS = (("cells_0.W_x", "cells_0.W_h", "W_window.W"), ("cells_1.W_h",), ("cells_2.W_h",))
AT_ONCE = ("cells_1.W_x", "cells_2.W_x", "W_y.W")


class Products(Compiled):
    """The matrix products of forward and backward: the shapes and loops of ours, nothing else."""

    def __init__(self, case: Case):
        data, random = make_data(case), np.random.default_rng(1)

        def normal(*shape):
            return jnp.array(random.standard_normal(shape, np.float32))

        Ws = {name: jnp.array(W) for name, W in data.matrices.items()}
        xs = {name: normal(*data.steps, len(W)) for name, W in Ws.items()}
        d_as = {name: normal(*data.steps, W.shape[1]) for name, W in Ws.items()}

        def all_of(inputs, Ws):
            def of(names, tree):
                return [tree[name] for name in names]

            at_once = [matmul(inputs[name], Ws[name]) for name in AT_ONCE]
            return [in_order(of(names, inputs), of(names, Ws)) for names in LOOPS] + at_once

        def of_matrix(x, d_a):
            x, d_a = (array.reshape(-1, array.shape[-1]) for array in (x, d_a))
            return x.T @ d_a

        def products(Ws, xs, d_as):
            d_xs = all_of(d_as, {name: W.T for name, W in Ws.items()})
            return all_of(xs, Ws), d_xs, jax.tree.map(of_matrix, xs, d_as)

        super().__init__(products, Ws, xs, d_as)
