"""Cells inside models of other kinds: cells and loops of one's own, Flax's RNN, NNX."""

from collections.abc import Callable
from itertools import product
from typing import Any

from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ln import GRU, LSTM, RNN, Norm, scan, unroll
from ln.errors import InputError
from ln.rnn import Cell
from tests.cells import FAST, SCHEDULES, Layer, assert_all_close, init
from tests.products import covering

T, B, D, H = 4, 3, 5, 6
XS = np.random.default_rng(0).normal(size=(T, B, D)).astype(np.float32)


def gradients_of(layer, variables):
    def loss(params):
        hs = layer.apply({**variables, "params": params}, XS)
        return (jax.tree.leaves(hs)[0] ** 2).sum()

    return jax.jit(jax.grad(loss))(variables["params"])


# --- Cells and loops of one's own ---


class Leaky(Cell):
    """A cell with a parameter, a module and matrices that the library does not know by name."""

    def setup(self):
        self.W_x, self.W_h = self.input_matrix(1), self.recurrent_matrix(1)
        self.tau = self.param("tau", nn.initializers.ones, (self.units,))
        self.mix = nn.Dense(self.units)
        self.scale = self.norm("a")
        self.first = self.start()

    def project(self, x):
        return self.W_x(x)

    def update(self, carry, a_x, a_h, mask=None):
        h = nn.tanh(self.tau * self.scale(a_h + a_x, mask) + self.mix(carry))
        return h, h


@pytest.mark.parametrize("schedule, kind", covering(1, product(FAST, ["none", "layer"])))
def test_a_user_cell_has_the_gradient_of_plain(schedule, kind):
    norm = Norm(kind, ("a",) if kind == "layer" else ())
    layer = Layer(Leaky(H, norm, learned=("h",)), SCHEDULES[schedule])
    variables = init(layer, XS)
    plain = gradients_of(Layer(layer.cell, "plain"), variables)
    assert_all_close(gradients_of(layer, variables), plain, 1e-5)
    assert all(abs(leaf).max() > 0 for leaf in jax.tree.leaves(plain))


class Loop(nn.Module):
    """A module without norm, whose step uses a Dense of Flax."""

    schedule: str | None = None
    start: object = None

    def setup(self):
        self.dense = nn.Dense(H)

    def __call__(self, xs):
        def step(module, carry, x):
            h = jax.tree.leaves(carry)[0] * jnp.ones(H)
            h = nn.tanh(module.dense(jnp.concatenate([h, x], -1)))
            return h, h

        start = jnp.zeros((B, H)) if self.start is None else self.start
        return scan(step, self, start, xs, schedule=self.schedule)[1]


def test_scan_takes_any_module():
    variables = init(Loop(), XS)
    plain = gradients_of(Loop("plain"), variables)
    assert_all_close(gradients_of(Loop(), variables), plain, 1e-5)


class Counting(nn.Module):
    def setup(self):
        self.count = self.variable("counts", "n", jnp.zeros, ())

    def __call__(self, xs):
        return scan(lambda module, c, x: (c, c + x), self, jnp.zeros((B, D)), xs)


def test_scan_names_collections_that_it_cannot_handle():
    with pytest.raises(InputError, match="Counting has counts. Use flax.linen.scan"):
        Counting().apply({"counts": {"n": jnp.zeros(())}}, XS)


# --- Arguments of unroll ---


def test_lengths_and_batch_major_arrays_give_the_same():
    layer, lengths = Layer(LSTM(H, Norm("layer", ("x", "h", "c")))), np.array([4, 1, 2])
    variables, mask = init(layer, XS), np.arange(T)[:, None] < lengths
    expected = layer.apply(variables, XS, mask)
    assert_all_close(layer.apply(variables, XS, lengths=lengths), expected, 0)
    hs, last = layer.apply(variables, XS.swapaxes(0, 1), mask.T, batch_major=True)
    assert_all_close((hs.swapaxes(0, 1), last), expected, 0)


HALF, ZEROS = np.zeros((B, H), np.float16), np.zeros((B, H), np.float32)


@pytest.mark.wrong_values
@pytest.mark.parametrize(
    "arguments",
    [
        *(dict(carry=carry) for carry in ([0], ZEROS.astype(int), (ZEROS.astype(int),) * 2)),
        *(dict(carry=carry) for carry in ([ZEROS] * 2, {"c": ZEROS}, (ZEROS,) * 3, ZEROS[:, :1])),
        *(dict(mask=mask) for mask in (XS[..., 0], XS[..., 0].astype(int), [[True]], "all")),
        *(dict(lengths=n) for n in ([4, 1, 2], np.ones(B), np.ones(2, int), np.array([0, 1, 1]))),
        dict(lengths=np.array([1, 1, T + 1])),
        dict(lengths=np.ones(B, int), mask=XS[..., 0] < np.inf),
        *(dict(xs=xs) for xs in (XS[0], XS[:0], XS.astype(int), XS.tolist(), None)),
        dict(batch_major="yes"),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_of_unroll_raises_one_line(arguments):
    (name, *_) = arguments
    for cell in (RNN(H), LSTM(H), GRU(H)):
        with pytest.raises(InputError, match=f"^{name} must|{name}, not both") as raised:
            Layer(cell).init(jax.random.key(0), **{"xs": XS} | arguments)
        assert "\n" not in str(raised.value.args[0])


@pytest.mark.parametrize("schedule", [None, "plain"])
def test_a_carry_of_any_float_type_works(schedule):
    variables = init(Loop(), XS)
    hs = Loop(schedule, HALF).apply(variables, XS)
    assert hs.dtype == np.float32
    assert_all_close(hs, Loop(schedule).apply(variables, XS), 0)


@pytest.mark.wrong_values
@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(start=ZEROS.astype(int)), "carry must have leaves of floats; got int"),
        (dict(start=(ZEROS, ZEROS)), "step must return a carry like the first one"),
        (dict(start=ZEROS[:, :1]), "step must return a carry like the first one"),
        (dict(schedule="plane"), "schedule must be None, 'plain' or a fused.Schedule; got 'plane'"),
    ],
)
def test_a_wrong_argument_of_scan_raises_one_line(arguments, words):
    with pytest.raises(InputError, match=words):
        Loop(**arguments).init(jax.random.key(0), XS)


@pytest.mark.wrong_values
def test_scan_over_no_time_steps_raises():
    with pytest.raises(InputError, match="T of 1 or more; got .*0"):
        Loop().init(jax.random.key(0), XS[:0])


@pytest.mark.parametrize("schedule", [None, "plain"])
def test_a_carry_that_changes_raises_after_init_too(schedule):
    """The module was initialized with a carry that fits."""
    variables = init(Loop(), XS)
    with pytest.raises(InputError, match="like the first one, .3, 1.; got .3, "):
        jax.jit(Loop(schedule, ZEROS[:, :1]).apply)(variables, XS)


def test_carries_become_what_a_step_makes_of_them():
    """A float32 carry becomes bfloat16; a leaf promotes the next; numbers and None are carries."""

    class Step(nn.Module):
        step: Callable
        carry: Any

        @nn.compact
        def __call__(self, xs):
            return scan(self.step, self, self.carry, xs)

    half, xs = jnp.ones(3, jnp.float16), jnp.ones((4, 3))
    made = {
        "bfloat16": (lambda _, c, x: ((c + x).astype(jnp.bfloat16), x), jnp.ones(3)),
        "float32": (lambda _, c, x: ((c[0] + c[1], c[1] + x), x), (half, half)),
        "float": (lambda _, c, x: (c + x.sum(), x), 0.0),
        "none": (lambda _, c, x: (c, 2 * x), None),
    }
    for name, (step, carry) in made.items():
        module = Step(step, carry)
        variables = module.init(jax.random.key(0), xs)
        gradient = jax.grad(lambda xs, m=module, v=variables: m.apply(v, xs)[1].sum())(xs)
        assert jnp.isfinite(gradient).all(), name
        for leaf in jax.tree.leaves(module.apply(variables, xs)[0]):
            assert leaf.dtype == (jnp.bfloat16 if name == "bfloat16" else jnp.float32), name


def test_known_lengths_are_constants_under_jit():
    cell, lengths = LSTM(H), jnp.array([1] * XS.shape[1])
    variables = cell.init(jax.random.key(0), XS, method=unroll_with(lengths))
    jax.jit(lambda xs: cell.apply(variables, xs, method=unroll_with(lengths)))(XS)
    none = jnp.zeros_like(lengths)
    with pytest.raises(InputError, match="lengths must be from 1"):
        jax.jit(lambda xs: cell.apply(variables, xs, method=unroll_with(none)))(XS)


def unroll_with(lengths):
    """Return a function of a cell and inputs that reads the first time steps of each example."""
    return lambda cell, xs: unroll(cell, xs, lengths=lengths)


# --- Flax's RNN, NNX ---


@pytest.mark.parametrize("Cell", [RNN, LSTM, GRU])
def test_the_rnn_of_flax_is_unroll(Cell):
    cell = Cell(H, Norm("layer", ("x", "h")))
    theirs = nn.RNN(cell, time_major=True)
    params = init(theirs, XS)["params"]["cell"]
    hs, _ = Layer(cell).apply({"params": {"cell": params}}, XS)
    assert_all_close(theirs.apply({"params": {"cell": params}}, XS), hs, 1e-5)


def test_a_cell_with_batch_norm_trains_in_nnx():
    """As in docs/library.md: parameters and statistics live in the NNX module."""

    class Encoder(nn.Module):
        norm: Norm

        @nn.compact
        def __call__(self, xs):
            return unroll(LSTM(H, self.norm), xs)[0]

    norm = Norm("batch", ("x", "h", "c"), (), train=True)
    encoder = nnx.bridge.ToNNX(Encoder(norm), rngs=nnx.Rngs(0)).lazy_init(XS)
    all_but_keys = nnx.filterlib.Not(nnx.RngState)
    before = jax.tree.map(np.asarray, nnx.state(encoder, all_but_keys))

    @nnx.jit
    def step(encoder):
        def loss(encoder):
            return (encoder(XS, mutable=["stats"]) ** 2).mean()

        gradient = nnx.grad(loss)(encoder)
        params = nnx.state(encoder, nnx.Param)
        nnx.update(encoder, jax.tree.map(lambda p, d: p - 0.1 * d, params, gradient))

    step(encoder)
    after = nnx.state(encoder, all_but_keys)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    paths = {str(path): c for path, c in jax.tree.leaves_with_path(changed)}
    assert any(c for path, c in paths.items() if "kernel" in path)
    assert any(c for path, c in paths.items() if "mean" in path)
