"""Handwriting: the network of Graves in numpy, densities that are never NaN, lines in buckets."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import handwriting as config_file
from experiments.datasets.lines import CLASSES
from experiments.handwriting.model import Mixture, Model
from experiments.handwriting.task import Task, one_hot, pad
from ln.norm import EPSILON, Norm
from tests import reference
from tests.cells import draw as normal
from tests.cells import randomized

T, B, U, H, K, M = 4, 3, 5, 6, 2, 3
PACE = -1.0
NORMS = {
    "none": Norm(),
    "layer": Norm("layer", ("x", "h", "c")),
    "batch": Norm("batch", ("x", "h", "c"), (), True),
}
MASK = np.arange(T)[:, None] < np.array([4, 2, 3])


def points(*shape, seed=0):
    array = normal(*shape, 3, seed=seed)
    array[..., 2] = array[..., 2] > 0.5
    return array


def texts(seed=0):
    """Return one-hot texts ``[B, U, C]``, the second text shorter."""
    classes = np.random.default_rng(seed).integers(CLASSES, size=(B, U))
    real = np.arange(U) < np.array([5, 3, 5])[:, None]
    return np.eye(CLASSES)[classes] * real[..., None]


def made(kind):
    """Return a model with random parameters in float64; x64 must be on."""
    model = Model(H, K, M, PACE, NORMS[kind])
    variables = jax.jit(model.init)(jax.random.key(0), points(T, B), MASK, texts())
    return model, {**variables, "params": randomized(variables["params"])}


# --- The equations, in numpy ---


def linear(p, h):
    return h @ p["Dense_0"]["kernel"] + p["Identity_0"]["bias"]


def network(kind, p, xs, mask, text):
    """y ``[T, B, 1 + 6M]``, one step, one layer and one example after another."""
    carries = [(np.zeros((B, H)), np.zeros((B, H))) for _ in range(3)]
    kappa, w, ys = np.zeros((B, K)), np.zeros((B, CLASSES)), []
    for x, m in zip(xs, mask, strict=True):
        hs, below = [], None
        for n in range(3):
            inputs = [x, w] if n == 0 else [x, w, below]
            carries[n] = reference.lstm(
                kind, p[f"cells_{n}"], carries[n], np.concatenate(inputs, 1), m, EPSILON
            )
            below = carries[n][1]
            hs.append(below)
            if n == 0:
                kappa, w = kappa.copy(), np.zeros((B, CLASSES))
                for case in range(B):
                    a = linear(p["W_window"], below[case])
                    for k in range(K):
                        alpha, beta = np.exp(a[k]), np.exp(a[K + k])
                        kappa[case, k] += np.exp(a[2 * K + k] + PACE)
                        for u in range(1, U + 1):
                            phi = alpha * np.exp(-beta * (kappa[case, k] - u) ** 2)
                            w[case] += phi * text[case, u - 1]
        ys.append(linear(p["W_y"], np.concatenate(hs, 1)))
    return np.stack(ys)


def density(y, point):
    """−log p of one point by G eqs. 18-26, as they are written."""
    e, rest = 1 / (1 + np.exp(-y[0])), y[1:].reshape(6, M)
    pi = np.exp(rest[0]) / np.sum(np.exp(rest[0]))
    total = 0.0
    for j in range(M):
        mu_1, mu_2, s_1, s_2 = rest[1, j], rest[2, j], np.exp(rest[3, j]), np.exp(rest[4, j])
        rho = 0.9995 * np.tanh(rest[5, j])
        a, b = (point[0] - mu_1) / s_1, (point[1] - mu_2) / s_2
        z = a**2 + b**2 - 2 * rho * a * b
        scale = 2 * np.pi * s_1 * s_2 * np.sqrt(1 - rho**2)
        total += pi[j] * np.exp(-z / (2 * (1 - rho**2))) / scale
    return -np.log(total) - np.log(e if point[2] else 1 - e)


@pytest.mark.parametrize("kind", NORMS)
def test_outputs_are_those_of_the_equations(kind):
    xs = points(T, B)
    with jax.enable_x64(True):
        model, variables = made(kind)
        apply = jax.jit(partial(model.apply, mutable=["stats"]))
        y, _ = apply(variables, xs, MASK, texts())
    expected = network(kind, variables["params"], xs, MASK, texts())
    real = MASK[..., None]
    np.testing.assert_allclose(np.where(real, y, 0), np.where(real, expected, 0), atol=1e-9)


# --- Densities ---


def test_the_negative_log_likelihood_is_that_of_the_equations():
    y, target = normal(T, B, 1 + 6 * M), points(T, B)
    with jax.enable_x64(True):
        actual = Mixture.from_outputs(jnp.array(y)).negative_log_likelihood(target)
    expected = [[density(y[t, b], target[t, b]) for b in range(B)] for t in range(T)]
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


def test_no_finite_output_and_no_finite_point_makes_a_nan():
    random = np.random.default_rng(0)

    def loss(y, point):
        return Mixture.from_outputs(y).negative_log_likelihood(point)

    both = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    for size in (1e-30, 1.0, 1e3, 1e15, 3e38):
        y = size * random.choice([-1, -0.5, 0, 0.5, 1], size=(200, 1 + 6 * M))
        target = size * random.choice([-1, 0, 1], size=(200, 3))
        target[:, 2] = random.integers(2, size=200)
        value, gradient = both(y.astype(np.float32), target.astype(np.float32))
        # The logarithm of a weight may be -3e38 or less: so may these be infinite, but never NaN.
        assert not np.isnan(value).any()
        assert not np.isnan(gradient).any()


def test_no_finite_state_makes_a_nan_of_the_window():
    model, text = Model(H, K, M, PACE, Norm()), jnp.asarray(texts(), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), points(T, B), MASK, text)
    params = jax.tree.map(jnp.zeros_like, variables["params"])
    random = np.random.default_rng(0)

    def loss(bias):
        own = {**params["W_window"], "Identity_0": {"bias": bias}}
        arguments = jnp.full((B, K), 7.0), jnp.zeros((B, H)), text
        outputs = model.apply({"params": {**params, "W_window": own}}, *arguments, method="window")
        return sum(array.sum() * 1e-9 for array in outputs)

    both = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    for size in (1.0, 1e3, 1e15, 3e38):
        bias = size * random.choice([-1, 0, 1], size=(200, 3 * K))
        value, gradient = both(bias.astype(np.float32))
        assert np.isfinite(value).all()
        assert np.isfinite(gradient).all()


def test_samples_have_the_moments_of_the_mixture():
    y = jnp.asarray(normal(1 + 6 * M))
    mixture = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (40_000, *leaf.shape)), Mixture.from_outputs(y)
    )
    samples = np.asarray(mixture.sample(jax.random.key(0)))
    mix = jax.tree.map(np.asarray, Mixture.from_outputs(y))
    pi = np.exp(mix.log_pi)
    mean = np.array([pi @ mix.mu_1, pi @ mix.mu_2])
    s_1, s_2 = np.exp(mix.log_sigma_1), np.exp(mix.log_sigma_2)
    mixed = pi @ (mix.rho * s_1 * s_2 + mix.mu_1 * mix.mu_2)
    second = np.diag([pi @ (s_1**2 + mix.mu_1**2), pi @ (s_2**2 + mix.mu_2**2)])
    second[[0, 1], [1, 0]] = mixed
    np.testing.assert_allclose(samples[:, :2].mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(samples[:, :2].T), second - np.outer(mean, mean), atol=0.1)
    np.testing.assert_allclose(samples[:, 2].mean(), 1 / (1 + np.exp(-mix.e)), atol=0.02)


# --- The task ---


@pytest.fixture(scope="module")
def task():
    return Task(config_file.get_config("tiny"))


def test_a_cut_line_keeps_twice_the_share_of_its_text():
    sizes, characters = np.array([10, 40, 12, 200]), np.array([3, 8, 8, 20])
    split = dict(
        points=np.arange(3 * sizes.sum(), dtype=np.float32).reshape(-1, 3),
        point_starts=np.append(0, sizes.cumsum()),
        text=np.arange(characters.sum(), dtype=np.uint8),
        text_starts=np.append(0, characters.cumsum()),
    )
    padded = pad(split, length=9)
    np.testing.assert_array_equal(padded["length"], [9, 9, 9, 9])
    np.testing.assert_array_equal(padded["text_length"], [3, 4, 8, 2])
    np.testing.assert_array_equal(padded["text"][1], [3, 4, 5, 6, 0, 0, 0, 0])
    np.testing.assert_array_equal(padded["points"][3], split["points"][62:72])


@pytest.mark.slow
def test_points_after_the_last_prediction_change_no_score(task):
    variables = jax.jit(task.init)(jax.random.key(0))
    batch = task.batch(0)
    batch["length"] = batch["length"] - 3
    changed = {**batch, "points": batch["points"].copy()}
    for line, length in zip(changed["points"], batch["length"], strict=True):
        line[length + 1 :] = 1e6
    first, second = (task.per_case(variables, b, None, False)[0]["nll"] for b in (batch, changed))
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_writing_feeds_points_back_and_depends_on_the_key(task):
    """Step by step from its own points, the network gives the distributions they are from."""
    variables = jax.jit(task.init)(jax.random.key(0))
    text = [np.array([1, 2, 3], np.uint8)]
    first, again, second = (task.write(variables, text, jax.random.key(k), 12) for k in (1, 1, 2))
    assert first.points.shape == (12, 1, 3) and first.phi.shape == (12, 1, 4)
    np.testing.assert_array_equal(first.points, again.points)
    assert (first.points != second.points).any()
    xs = np.concatenate([np.zeros((1, 1, 3)), first.points[:-1]]).astype(np.float32)
    inputs = xs, np.ones((12, 1), bool), one_hot(text[0][None], [3])
    y = task.model(train=False).apply(variables, *inputs)
    keys = jax.random.split(jax.random.key(1), 12)
    points = jax.vmap(Mixture.sample)(Mixture.from_outputs(y), keys)
    np.testing.assert_allclose(points, first.points, atol=1e-5)
