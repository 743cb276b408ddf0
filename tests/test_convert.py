"""Weights of PyTorch and of the authors' layers.py: equal outputs, and the way back."""

import jax
import numpy as np
import pytest

from ln import GRU, LSTM, RNN, Norm
from ln.convert import from_layers_py, from_torch, to_layers_py, to_torch
from ln.errors import InputError
from tests.cells import Layer, assert_equal
from tests.reference import layer_norm, sigmoid

T, B, D, H = 5, 3, 4, 6
RANDOM = np.random.default_rng(0)


def draw(*shape):
    return RANDOM.normal(size=shape)


def run(cell, params, xs, carry=None):
    with jax.enable_x64(True):
        return jax.device_get(Layer(cell).apply({"params": {"cell": params}}, xs, None, carry))


# --- PyTorch ---


def torch_weights(gates: int) -> dict:
    shapes = dict(weight_ih=(D,), weight_hh=(H,), bias_ih=(), bias_hh=())
    return {f"{name}_l0": draw(gates * H, *shape) for name, shape in shapes.items()}


def test_candle_gives_the_same_numbers():
    """The test "lstm" of candle-nn, whose weights have PyTorch's names and order."""
    b = np.tile([-1, 1, -0.5, 2], 3)
    weights = dict(weight_ih_l0=np.cos(np.arange(24.0)).reshape(12, 2), bias_ih_l0=b)
    weights |= dict(weight_hh_l0=np.sin(np.arange(36.0)).reshape(12, 3), bias_hh_l0=np.cos(b))
    inputs = np.array([3, 1, 4, 1, 5, 9, 2.0])
    xs = np.stack([inputs, inputs / 2], -1)[:, None]
    _, (c, h) = run(LSTM(3), from_torch(weights, LSTM), xs)
    np.testing.assert_allclose(h, [[0.9919, 0.1738, -0.1451]], atol=5e-5)
    np.testing.assert_allclose(c, [[5.725, 0.4458, -0.2908]], atol=5e-5)


def test_a_gru_has_the_equations_of_torch():
    """r, z, n = σ, σ, tanh(W x + b + r (U h)); h = (1 − z) n + z h, as PyTorch documents it."""
    weights = torch_weights(3)
    weights["bias_hh_l0"][2 * H :] = 0
    xs, h = draw(T, B, D), np.zeros((B, H))
    hs, _ = run(GRU(H), from_torch(weights, GRU), xs)
    for x, actual in zip(xs, hs, strict=True):
        a_x = np.split(x @ weights["weight_ih_l0"].T + weights["bias_ih_l0"], 3, -1)
        a_h = np.split(h @ weights["weight_hh_l0"].T + weights["bias_hh_l0"], 3, -1)
        r, z = sigmoid(a_x[0] + a_h[0]), sigmoid(a_x[1] + a_h[1])
        h = (1 - z) * np.tanh(a_x[2] + r * a_h[2]) + z * h
        np.testing.assert_allclose(actual, h, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell, gates", [(LSTM, 4), (GRU, 3)])
def test_weights_come_back_from_torch(cell, gates):
    weights = torch_weights(gates)
    weights["bias_ih_l0"], weights["bias_hh_l0"] = weights["bias_ih_l0"], np.zeros(gates * H)
    params = from_torch(weights, cell)
    assert_equal(dict(to_torch(params, cell)), weights)


# --- layers.py ---


def layers_weights(cell, has_norms: bool) -> dict:
    matrices = {"W": (D, 4 * H), "U": (H, 4 * H), "b": (4 * H,)}
    norms = (4 * H, 4 * H, H)
    if cell is GRU:
        matrices = {"W": (D, 2 * H), "U": (H, 2 * H), "b": (2 * H,)}
        matrices |= {"Wx": (D, H), "Ux": (H, H), "bx": (H,)}
        norms = (2 * H, H, 2 * H, H)
    shapes = matrices
    if has_norms:
        for n, size in enumerate(norms, start=1):
            shapes |= {f"s{n}": (size,), f"b{n}": (size,)}
    return {f"layer_{name}": draw(*shape) for name, shape in shapes.items()}


def layers_py(cell, w: dict, xs):
    """Run the equations of layers.py, in which every norm has its number."""

    def norm(a, n):
        if f"layer_s{n}" not in w:
            return a
        return layer_norm(a, w[f"layer_s{n}"], w[f"layer_b{n}"], 1e-5)

    h, c, hs = np.zeros((B, H)), np.zeros((B, H)), []
    for x in xs:
        a_x = x @ w["layer_W"] + w["layer_b"]
        if cell is LSTM:
            a = norm(a_x, 1) + norm(h @ w["layer_U"], 2) + w["layer_b"]
            i, f, o, g = np.split(a, 4, -1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(norm(c, 3))
        else:
            r, u = np.split(sigmoid(norm(a_x, 1) + norm(h @ w["layer_U"], 3)), 2, -1)
            a = norm(x @ w["layer_Wx"] + w["layer_bx"], 2) + r * norm(h @ w["layer_Ux"], 4)
            h = u * h + (1 - u) * np.tanh(a)
        hs.append(h)
    return np.stack(hs)


@pytest.mark.parametrize("has_norms", [False, True])
@pytest.mark.parametrize("cell", [LSTM, GRU])
def test_layers_of_the_authors_give_equal_outputs(cell, has_norms):
    weights, xs = layers_weights(cell, has_norms), draw(T, B, D)
    sites = ("x", "h", "c") if cell is LSTM else ("x", "h")
    norm = Norm("layer", sites) if has_norms else Norm()
    params = from_layers_py(weights, cell, "layer")
    hs, _ = run(cell(H, norm, bias_inside=True), params, xs)
    np.testing.assert_allclose(hs, layers_py(cell, weights, xs), rtol=1e-10, atol=1e-10)
    assert_equal(dict(to_layers_py(params, cell, "layer")), weights)


# --- Golden numbers of cells with layer norm ---


def constant(params, value: float):
    params = jax.tree.map(np.asarray, params)
    for name in ("W_x", "W_h"):
        params[name] = {"kernel": np.full_like(params[name]["kernel"], value)}
    return params


@pytest.mark.parametrize(
    "bias, forget, expected",
    [
        (0.5, 0.5, 0.47406167),  # LayerNormLSTMCell of TensorFlow Addons
        (0.0, 1.0, 0.38079708),  # LayerNormBasicLSTMCell of TensorFlow's contrib
    ],
)
def test_cells_of_tensorflow_give_the_same_h(bias, forget, expected):
    """All weights are .5, so the norms of equal sums are 0; c [0, .1] becomes LN(c) = [-1, 1].

    Their cells return LN(c) as the new c. By eqs. 21-22 the carried c is not normalized, as here.
    """
    cell = LSTM(2, Norm("layer", ("x", "h", "c"), {"epsilon": 1e-12}))
    xs, carry = np.ones((1, 1, 2)), (np.array([[0.0, 0.1]]), np.array([[0.2, 0.3]]))
    with jax.enable_x64(True):
        params = Layer(cell).init(jax.random.key(0), xs, None, carry)["params"]["cell"]
    params = constant(params, 0.5)
    params["b"] = np.repeat([forget, bias, bias, bias], 2)
    _, (c, h) = run(cell, params, xs, carry)
    np.testing.assert_allclose(h, [[-expected, expected]], rtol=1e-6)
    assert (abs(c) < 0.5).all()


# --- Wrong weights ---


LSTM_WEIGHTS, GRU_WEIGHTS = torch_weights(4), torch_weights(3)
PARAMS = from_layers_py(layers_weights(LSTM, True), LSTM, "layer")
PLAIN = {name: PARAMS[name] for name in ("W_x", "W_h", "b")}


@pytest.mark.wrong_values
@pytest.mark.parametrize(
    "convert, words",
    [
        (lambda: from_torch(LSTM_WEIGHTS, LSTM, "_l1"), "no 'weight_hh_l1'.*'weight_hh_l0'"),
        (lambda: from_torch(LSTM_WEIGHTS, RNN), "must be ln.LSTM or ln.GRU"),
        (lambda: from_torch(LSTM_WEIGHTS, []), "must be ln.LSTM or ln.GRU"),
        (lambda: from_torch(LSTM_WEIGHTS, GRU), r"\(18, any\); got \(24, 4\)"),
        (lambda: from_torch(None, LSTM), "The weights have no"),
        (lambda: from_torch(GRU_WEIGHTS, GRU), "multiplied by the reset gate"),
        (lambda: to_torch(PARAMS, LSTM), "have no norm; the cell has norm_c"),
        (lambda: to_torch({"params": PLAIN}, LSTM), "no 'W_h.kernel'.*'params.W_h.kernel'"),
        (lambda: to_torch(PLAIN | {"b": np.zeros(H)}, LSTM), r"'b' must have the shape \(24\)"),
        (lambda: to_torch(PLAIN, GRU), "must have the shape"),
        (lambda: from_layers_py(PLAIN, LSTM, "layer"), "no 'layer_U'"),
        (
            lambda: to_layers_py(PLAIN | {"norm_x": PARAMS["norm_x"]}, LSTM, "l"),
            "all sites or none",
        ),
        (lambda: to_layers_py(None, LSTM, "l"), "no 'W_h.kernel'"),
    ],
)
def test_wrong_weights_raise(convert, words):
    with pytest.raises(InputError, match=words):
        convert()
