"""Section 5: outputs, Table 1, Fisher information and metrics against brute force in numpy.

The references move parameters by small steps. They share no formula with
experiments/theory/geometry.py. theta has one row (w_i, b_i, g_i) per unit.
"""

from functools import partial

import jax
import numpy as np
import pytest

from experiments.theory import geometry
from experiments.theory.geometry import NORMS, TABLE_1
from tests import reference
from tests.cells import assert_all_close

N, D, H = 6, 3, 4  # examples, inputs, units
random = np.random.default_rng(0)
W, X = random.normal(size=(H, D)), random.normal(size=(N, D))
BIAS, GAIN = random.normal(size=H), 1 + 0.3 * random.normal(size=H)
THETA = np.column_stack([W, BIAS, GAIN])
DELTA = random.normal(size=H)
ROOT = random.normal(size=(N, H, H))
CORRELATED = ROOT @ ROOT.transpose(0, 2, 1)  # Cov[y | x] of dependent outputs
UNIT = np.broadcast_to(np.eye(H), (N, H, H))


pytestmark = pytest.mark.usefixtures("float64")


def outputs(norm, theta=THETA, x=X):
    """Return z ``[N, H]`` by numpy."""
    w, bias, gain = theta[:, :-2], theta[:, -2], theta[:, -1]
    return {
        "none": lambda: x @ w.T + bias,
        "batch": lambda: reference.batch_norm(x @ w.T, gain, bias, 0.0),
        "weight": lambda: x @ reference.weight_norm(w.T, gain) + bias,
        "layer": lambda: reference.layer_norm(x @ w.T, gain, bias, 0.0),
    }[norm]()


def derivative(function, theta=THETA, step=1e-5):
    """Return d function/d theta ``[..., H, D + 2]`` by central differences, good to 1e-10."""
    columns = []
    for place in np.ndindex(theta.shape):
        moved = np.zeros_like(theta)
        moved[place] = step
        columns.append((function(theta + moved) - function(theta - moved)) / (2 * step))
    return np.stack(columns, axis=-1).reshape(*columns[0].shape, *theta.shape)


def covariance(norm):
    return geometry.bernoulli_covariance(outputs(norm))


@pytest.mark.parametrize("norm", ["none", *NORMS])
def test_outputs_follow_the_equations(norm):
    assert_all_close(geometry.outputs(norm, THETA, X), outputs(norm), 1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_table_1_agrees_with_brute_force(norm):
    transformed = geometry.transformations(np.random.default_rng(2), W, X)
    assert list(transformed) == list(TABLE_1)
    for name, (w, x) in transformed.items():
        assert abs(w - W).max() > 0.01 or abs(x - X).max() > 0.01
        change = abs(outputs(norm, np.column_stack([w, BIAS, GAIN]), x) - outputs(norm)).max()
        assert (change < 1e-12) if norm in TABLE_1[name] else (change > 1e-2)


@pytest.mark.parametrize("norm", ["none", *NORMS])
def test_fisher_information_is_that_of_the_derivatives(norm):
    """Independent outputs, by all outcomes and by the formulas of dependent outputs, agree."""
    J = derivative(partial(outputs, norm))

    def expected(cov):
        return np.einsum("nkl,nkip,nljq->ipjq", cov, J, J) / N

    F = jax.jit(geometry.fisher_information, static_argnums=0)(norm, THETA, X)
    assert_all_close(F, expected(covariance(norm)), 1e-8)
    if norm != "none":
        formula = geometry.layer_norm_fisher if norm == "layer" else partial(geometry.eq_13, norm)
        assert_all_close(formula(THETA, X, CORRELATED), expected(CORRELATED), 1e-8)


def test_eq_13_lacks_terms_across_units_for_layer_norm():
    F = geometry.layer_norm_fisher(THETA, X, covariance("layer"))
    printed = geometry.eq_13("layer", THETA, X, covariance("layer"))
    between = ~np.eye(H, dtype=bool)
    assert abs(F.transpose(0, 2, 1, 3)[between]).max() > 1e-2
    assert abs(printed.transpose(0, 2, 1, 3)[between]).max() == 0
    assert_all_close(printed[:, D:, :, D:], F[:, D:, :, D:], 1e-8)  # biases and gains


@pytest.mark.parametrize("norm", NORMS)
def test_gain_metric_is_the_block_of_the_gains(norm):
    block = geometry.eq_13(norm, THETA, X, CORRELATED)[:, -1, :, -1]
    assert_all_close(geometry.gain_metric(norm, W, X, CORRELATED), block, 1e-12)


def test_eq_32_holds_for_constant_variances_only():
    def diagonals(cov):
        return np.diag(geometry.gain_metric("batch", W, X, cov)), np.diag(cov.mean(0))

    assert_all_close(*diagonals(UNIT), 1e-12)
    exact, printed = diagonals(covariance("batch"))
    assert abs(exact - printed).max() > 1e-2


def test_eq_35_is_the_divergence_of_weights_along_themselves():
    moved = X @ (DELTA * W.T / np.linalg.norm(W, axis=1))
    expected = np.einsum("nij,ni,nj->n", CORRELATED, moved, moved).mean() / 2
    metric = geometry.gain_metric("weight", W, X, CORRELATED)
    assert_all_close(DELTA @ metric @ DELTA / 2, expected, 1e-12)


@pytest.mark.parametrize("theta", [1e-9, 0.3, 3.0])
def test_small_angles_are_exact(theta):
    v, w = np.array([2.0, 0, 0, 0]), 5 * np.array([np.cos(theta), np.sin(theta), 0, 0])
    assert geometry.angle(v.reshape(2, 2), w.reshape(2, 2)) == pytest.approx(theta, rel=1e-6)
