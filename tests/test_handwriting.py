"""Handwriting: the network of Graves in numpy, densities that are never NaN, lines in buckets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import handwriting as config_file
from experiments.datasets.lines import CLASSES
from experiments.handwriting.model import Mixture, Model, Noise
from experiments.handwriting.task import Task, pad
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


def made(kind, text=True):
    """Return a model with random parameters in float64; x64 must be on."""
    model = Model(H, K, M, text, PACE, NORMS[kind])
    variables = jax.jit(model.init)(jax.random.key(0), points(T, B), MASK, texts())
    return model, {**variables, "params": randomized(variables["params"])}


# --- The equations, in numpy ---


def linear(p, h):
    return h @ p["Dense_0"]["kernel"] + p["Identity_0"]["bias"]


def network(kind, p, xs, mask, text, conditional):
    """y ``[T, B, 1 + 6M]``, one step, one layer and one example after another."""
    carries = [(np.zeros((B, H)), np.zeros((B, H))) for _ in range(3)]
    kappa, w, ys = np.zeros((B, K)), np.zeros((B, CLASSES)), []
    for x, m in zip(xs, mask, strict=True):
        hs, below = [], None
        for n in range(3):
            inputs = [x] + [w] * conditional if n == 0 else [x] + [w] * conditional + [below]
            carries[n] = reference.lstm(
                kind, p[f"cells_{n}"], carries[n], np.concatenate(inputs, 1), m, EPSILON
            )
            below = carries[n][1]
            hs.append(below)
            if n == 0 and conditional:
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


@pytest.mark.parametrize(
    "kind, text", [*((kind, True) for kind in NORMS), ("layer", False)], ids=str
)
def test_outputs_are_those_of_the_equations(kind, text):
    xs = points(T, B)
    with jax.enable_x64(True):
        model, variables = made(kind, text)
        both = jax.jit(
            lambda variables: [
                model.apply(variables, xs, MASK, texts(), schedule, mutable=["stats"])[0]
                for schedule in (None, "plain")
            ]
        )
        y, plain = both(variables)
    expected = network(kind, variables["params"], xs, MASK, texts(), text)
    real = MASK[..., None]
    np.testing.assert_allclose(np.where(real, y, 0), np.where(real, expected, 0), atol=1e-9)
    np.testing.assert_allclose(np.where(real, plain, 0), np.where(real, expected, 0), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("text", [True, False], ids=["text", "prediction"])
def test_step_by_step_is_the_network(text):
    xs = points(T, B)
    with jax.enable_x64(True):
        model, variables = made("layer", text)
        ys = model.apply(variables, xs, np.ones((T, B), bool), texts())
        noise = Noise.draw(jax.random.key(0), (T, B), M)
        primed = np.ones(T, bool)
        given = np.concatenate([xs[1:], xs[:1]])  # point t + 1 comes out of step t
        start = dict(variables)
        written = model.apply(
            start, texts(), noise, 0.0, given, primed, method="write", mutable=["stats"]
        )[0]
        np.testing.assert_allclose(written.points, given)

        def steps(model):
            zero = jnp.zeros((B, H))
            first = (zero, zero)
            carry = (model.start(B) if text else first, first, first)
            for x in xs:
                carry, y, _ = model.step(carry, x, texts())
                yield y

        actual = np.stack(model.apply(variables, method=lambda model: list(steps(model))))
    np.testing.assert_allclose(actual, ys, atol=1e-10)


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
    model, text = Model(H, K, M, True, PACE, Norm()), jnp.asarray(texts(), jnp.float32)
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
    samples = np.asarray(mixture.sample(Noise.draw(jax.random.key(0), (40_000,), M)))
    mix = jax.tree.map(np.asarray, Mixture.from_outputs(y))
    pi = np.exp(mix.log_pi)
    mean = np.array([pi @ mix.mu_1, pi @ mix.mu_2])
    s_1, s_2 = np.exp(mix.log_sigma_1), np.exp(mix.log_sigma_2)
    second = np.array(
        [
            [pi @ (s_1**2 + mix.mu_1**2), pi @ (mix.rho * s_1 * s_2 + mix.mu_1 * mix.mu_2)],
            [0, pi @ (s_2**2 + mix.mu_2**2)],
        ]
    )
    second[1, 0] = second[0, 1]
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
def test_writing_depends_on_the_key_and_begins_as_primed(task):
    variables = jax.jit(task.init)(jax.random.key(0))
    text, prime = [np.array([1, 2, 3])], points(6).astype(np.float32)
    first, second = (
        task.write(variables, text, jax.random.key(k), 12, prime=prime) for k in (1, 2)
    )
    again = task.write(variables, text, jax.random.key(1), 12, prime=prime)
    assert first.points.shape == (12, 1, 3)
    assert first.phi.shape == (12, 1, 4)
    np.testing.assert_array_equal(first.points, again.points)
    np.testing.assert_array_equal(first.points[:5, 0], prime[1:])
    assert (first.points[5:] != second.points[5:]).any()
