"""Section 5: outputs, Table 1, Fisher information and metrics against brute force in numpy.

The references move parameters by small steps and count outcomes; they share no formula with
ln/geometry.py. W is ``[D, H]``, and theta has one row (w_i, b_i, g_i) per unit.
"""

from functools import partial
from itertools import product

import jax
import numpy as np
import pytest

from experiments.theory import geometry
from experiments.theory.geometry import NORMS, TABLE_1
from ln.errors import InputError
from tests import reference

N, D, H = 6, 3, 4  # cases, inputs, units
random = np.random.default_rng(0)
W, X = random.normal(size=(D, H)), random.normal(size=(N, D))
BIAS, GAIN = random.normal(size=H), 1 + 0.3 * random.normal(size=H)
THETA = np.concatenate([W.T, BIAS[:, None], GAIN[:, None]], axis=1)
ROOT = random.normal(size=(N, H, H))
CORRELATED = ROOT @ ROOT.transpose(0, 2, 1)  # Cov[y | x] of outputs that hang together


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def assert_all_close(found, expected, tolerance=1e-12):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def outputs(norm, theta=THETA, x=X):
    """z ``[N, H]`` in numpy."""
    W, bias, gain = theta[:, :D].T, theta[:, D], theta[:, D + 1]
    match norm:
        case "none":
            return x @ W + bias
        case "batch":
            return reference.batch_norm(x @ W, gain, bias, 0.0)
        case "weight":
            return x @ reference.weight_norm(W, gain) + bias
        case "layer":
            return reference.layer_norm(x @ W, gain, bias, 0.0)


def derivative(function, theta=THETA, step=1e-5):
    """d function/d theta ``[..., H, D + 2]`` by central differences, exact to about 1e-10."""
    columns = []
    for place in np.ndindex(theta.shape):
        moved = np.zeros_like(theta)
        moved[place] = step
        columns.append((function(theta + moved) - function(theta - moved)) / (2 * step))
    return np.stack(columns, axis=-1).reshape(*columns[0].shape, *theta.shape)


def log_p(norm, theta, y):
    """log P(y | x) ``[N]`` of independent Bernoulli outputs, by their probabilities."""
    p = 1 / (1 + np.exp(-outputs(norm, theta)))
    return np.log(np.where(y, p, 1 - p)).sum(1)


def brute_force(norm):
    """F ``[H, D + 2, H, D + 2]`` from all outcomes, with scores by finite differences."""
    F = 0
    for y in map(np.array, product((False, True), repeat=H)):
        score = derivative(partial(log_p, norm, y=y))
        F += np.einsum("n,nip,njq->ipjq", np.exp(log_p(norm, THETA, y)), score, score) / N
    return F


def cov_of(norm):
    p = 1 / (1 + np.exp(-outputs(norm)))
    return np.stack([np.diag(row * (1 - row)) for row in p])


# --- Outputs and Table 1 ---


@pytest.mark.parametrize("norm", ["none", *NORMS])
def test_outputs_are_those_of_the_equations(norm):
    assert_all_close(geometry.outputs(norm, W, BIAS, GAIN, X), outputs(norm))


@pytest.mark.parametrize("norm", NORMS)
def test_outputs_are_gain_times_standardized_plus_bias(norm):
    a_hat, sigma = geometry.standardized(norm, W, X)
    assert_all_close(GAIN * a_hat + BIAS, outputs(norm))
    a, mu = X @ W, X @ W - a_hat * sigma
    axis = dict(batch=0, layer=1)
    expected = a.mean(axis[norm], keepdims=True) if norm in axis else 0
    assert_all_close(mu, np.broadcast_to(expected, mu.shape))


def test_a_misspelt_norm_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="'layer'"):
        geometry.outputs("layr", W, BIAS, GAIN, X)


def transformed():
    random = np.random.default_rng(2)
    scales = np.exp(random.uniform(-1.6, 1.6, H)), np.exp(random.uniform(-1.6, 1.6, N))
    shifts = random.normal(size=D), random.normal(size=D)
    found = geometry.transformations(W, X, 3.7, shifts[0], scales[0], shifts[1], scales[1])
    expected = [
        ([[3.7 * w for w in row] for row in W], X),
        ([[w + shift for w in row] for row, shift in zip(W, shifts[0], strict=True)], X),
        ([[w * scale for w, scale in zip(row, scales[0], strict=True)] for row in W], X),
        (W, [3.7 * x for x in X]),
        (W, [x + shifts[1] for x in X]),
        (W, [x * scale for x, scale in zip(X, scales[1], strict=True)]),
    ]
    return found, expected


def test_transformations_are_the_columns_of_table_1_in_order():
    found, expected = transformed()
    for name, (W_expected, x_expected) in zip(found, expected, strict=True):
        assert_all_close(found[name][0], W_expected)
        assert_all_close(found[name][1], x_expected)
    words = "matrix re-scaling, matrix re-centring, vector, set re-scaling, set re-centring, case"
    assert all(word in name for word, name in zip(words.split(", "), found, strict=True))


@pytest.mark.parametrize("norm", NORMS)
def test_table_1_says_what_brute_force_says(norm):
    found, _ = transformed()
    for invariant, (W_new, x_new) in zip(TABLE_1[norm], found.values(), strict=True):
        theta = np.concatenate([W_new.T, THETA[:, D:]], axis=1)
        change = abs(outputs(norm, theta, x_new) - outputs(norm)).max()
        assert (change < 1e-12) if invariant else (change > 1e-2)


# --- Generalized linear models ---


def test_theta_has_a_row_of_weights_bias_and_gain_per_unit():
    assert_all_close(geometry.pack(W, BIAS, GAIN), THETA, 0)
    for found, expected in zip(geometry.unpack(THETA), (W, BIAS, GAIN), strict=True):
        assert_all_close(found, expected, 0)


def test_the_likelihood_is_that_of_independent_coins():
    for y in product((0, 1), repeat=H):
        found = geometry.log_likelihood(outputs("layer"), np.array(y))
        assert_all_close(found, log_p("layer", THETA, np.array(y, bool)))


def test_the_covariance_of_bernoulli_outputs_is_that_of_all_outcomes():
    p = 1 / (1 + np.exp(-outputs("none")))
    expected = np.zeros((N, H, H))
    for y in product((0, 1), repeat=H):
        chance = np.where(y, p, 1 - p).prod(1)
        expected += chance[:, None, None] * (y - p)[:, :, None] * (y - p)[:, None, :]
    assert_all_close(geometry.bernoulli_covariance(outputs("none")), expected)


@pytest.mark.parametrize("norm", ["none", *NORMS])
def test_fisher_information_is_the_mean_square_of_scores_over_all_outcomes(norm):
    found = jax.jit(geometry.fisher_information, static_argnums=0)(norm, THETA, X)
    assert_all_close(found, brute_force(norm), 1e-8)


def test_without_a_norm_it_is_that_of_a_generalized_linear_model():  # eq. 12
    with_one = np.concatenate([X, np.ones((N, 1))], axis=1)
    expected = np.einsum("nij,np,nq->ipjq", cov_of("none"), with_one, with_one) / N
    found = geometry.fisher_information("none", THETA, X)
    assert_all_close(found[:, : D + 1, :, : D + 1], expected)


@pytest.mark.parametrize("norm", NORMS)
def test_half_its_quadratic_form_is_the_divergence_of_a_small_step(norm):  # eq. 8
    delta = 1e-4 * np.random.default_rng(1).normal(size=THETA.shape)
    divergence = 0
    for y in map(np.array, product((False, True), repeat=H)):
        before, after = (log_p(norm, theta, y) for theta in (THETA, THETA + delta))
        divergence += (np.exp(before) * (before - after)).mean()
    F = geometry.fisher_information(norm, THETA, X)
    assert_all_close(geometry.quadratic_form(F, delta) / 2 / divergence, 1, 1e-3)


# --- Eqs. 13 and 14 ---


@pytest.mark.parametrize("norm", NORMS)
def test_chi_is_what_w_i_does_to_the_output_of_unit_i(norm):
    J = derivative(partial(outputs, norm))  # [N, k, i, D + 2]
    own = np.einsum("niip->nip", J)[:, :, :D]
    _, sigma = geometry.standardized(norm, W, X)
    scale = np.broadcast_to(GAIN / sigma, (N, H))[:, :, None]
    assert_all_close(scale * geometry.chi(norm, W, X), own, 1e-8)


@pytest.mark.parametrize("norm", ["batch", "weight"])
def test_eq_13_is_exact_for_batch_and_weight_norm(norm):
    assert_all_close(geometry.eq_13(norm, THETA, X, cov_of(norm)), brute_force(norm), 1e-8)


def test_eq_13_is_exact_for_layer_norm_only_with_the_terms_across_units():
    F, cov = brute_force("layer"), cov_of("layer")
    assert_all_close(geometry.layer_norm_fisher(THETA, X, cov), F, 1e-8)
    of_paper = geometry.eq_13("layer", THETA, X, cov)
    between = ~np.eye(H, dtype=bool)
    assert abs(of_paper - F).max() > 1e-2
    assert abs(F.transpose(0, 2, 1, 3)[between]).max() > 1e-2
    assert abs(of_paper.transpose(0, 2, 1, 3)[between]).max() == 0
    for p in (D, D + 1):  # biases and gains move their own unit only
        for q in (D, D + 1):
            assert_all_close(of_paper[:, p, :, q], F[:, p, :, q], 1e-8)


@pytest.mark.parametrize("norm", NORMS)
def test_correlated_outputs_couple_the_units(norm):
    J = derivative(partial(outputs, norm))
    expected = np.einsum("nkl,nkip,nljq->ipjq", CORRELATED, J, J) / N
    if norm == "layer":
        found = geometry.layer_norm_fisher(THETA, X, CORRELATED)
    else:
        found = geometry.eq_13(norm, THETA, X, CORRELATED)
    assert_all_close(found, expected, 1e-8)


# --- Eqs. 32 to 35: for Gaussian outputs of variance 1 a divergence is half a squared distance ---

DELTA = random.normal(size=H)
UNIT = np.broadcast_to(np.eye(H), (N, H, H))


@pytest.mark.parametrize("norm", NORMS)
def test_the_gain_metric_is_the_divergence_of_gaussians(norm):
    moved = outputs(norm, THETA + DELTA[:, None] * np.eye(D + 2)[-1])
    divergence = ((moved - outputs(norm)) ** 2).sum(1).mean() / 2
    M = geometry.gain_metric(norm, W, X, UNIT)
    assert_all_close(DELTA @ M @ DELTA / 2, divergence)


def test_eq_32_is_the_gain_metric_of_batch_norm_for_constant_variances_only():
    def diagonals(cov):
        return np.diag(geometry.gain_metric("batch", W, X, cov)), np.diag(geometry.eq_32(cov))

    assert_all_close(*diagonals(UNIT))
    exact, printed = diagonals(cov_of("batch"))
    assert abs(exact - printed).max() > 1e-2
    assert_all_close(exact, np.einsum("ipip->ip", brute_force("batch"))[:, -1], 1e-8)
    assert_all_close(printed, np.einsum("nii->i", cov_of("batch")) / N)


@pytest.mark.parametrize("cov", [UNIT, CORRELATED], ids=["unit", "correlated"])
def test_eq_35_is_the_divergence_when_weights_move_along_themselves(cov):
    moved = X @ (W + DELTA * W / np.linalg.norm(W, axis=0)) - X @ W
    expected = np.einsum("nij,ni,nj->n", cov, moved, moved).mean() / 2
    assert_all_close(DELTA @ geometry.eq_35(W, X, cov) @ DELTA / 2, expected)


@pytest.mark.parametrize("theta", [1e-9, 0.3, 3.0])
def test_angles_are_exact_also_where_they_are_small(theta):
    v, w = np.array([2.0, 0, 0, 0]), 5 * np.array([np.cos(theta), np.sin(theta), 0, 0])
    assert geometry.angle(v, w) == pytest.approx(theta, rel=1e-6)
    assert geometry.angle(v.reshape(2, 2), w.reshape(2, 2)) == pytest.approx(theta, rel=1e-6)
