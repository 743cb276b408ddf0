"""DRAW: equations against numpy, the bound against integrals, training with every norm."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import draw as config_file
from experiments.draw import model as draw
from experiments.draw.model import Model, Window
from experiments.draw.task import Task
from ln.norm import EPSILON, Norm
from tests import reference
from tests.cells import draw as normal
from tests.cells import randomized

B, T, H, Z = 3, 4, 5, 2
NORMS = {
    "none": Norm(),
    "layer": Norm("layer", ("c",)),
    "weight": Norm("weight", ("x", "h", "out")),
    "batch": Norm("batch", ("x", "h", "c"), (), True),
}


def pictures(B, seed=0):
    return np.random.default_rng(seed).integers(2, size=(B, 28, 28)).astype(float)


def made(norm, sizes=(2, 3), hidden=H, latent=Z):
    """Return a model with random parameters in float64; x64 must be on."""
    model = Model(hidden, latent, *sizes, norm)
    arguments = jnp.zeros((B, 28, 28)), jnp.zeros((T, B, latent))
    variables = jax.jit(model.init)(jax.random.key(0), *arguments)
    return model, {**variables, "params": randomized(variables["params"])}


# --- The equations, in numpy: one example, one filter, one pixel at a time ---


def filterbank(g, delta, sigma, N):
    """Rows of Gaussians at 1…28 about μ_i = g + (i − N/2 − ½) δ, each summing to 1."""
    F = np.zeros((N, 28))
    for i in range(1, N + 1):
        for a in range(1, 29):
            F[i - 1, a - 1] = np.exp(-((a - (g + (i - N / 2 - 0.5) * delta)) ** 2) / (2 * sigma**2))
        F[i - 1] /= np.sum(F[i - 1])
    return F


def banks(a, N):
    """F_Y, F_X and γ of the five numbers of a window."""
    g_X, g_Y = 29 / 2 * (a[0] + 1), 29 / 2 * (a[1] + 1)
    sigma, delta, gamma = np.sqrt(np.exp(a[2])), 27 / max(N - 1, 1) * np.exp(a[3]), np.exp(a[4])
    return filterbank(g_Y, delta, sigma, N), filterbank(g_X, delta, sigma, N), gamma


def linear(p, h):
    matrix = "Dense_0" if "Dense_0" in p else "WeightNormDense_0"
    return h @ reference.weights(p, matrix) + p["Identity_0"]["bias"]


def run(kind, p, x, epsilon, sizes):
    """Return the canvases ``[T, B, 28, 28]``, mu and sigma, as the paper writes a step."""
    c = np.zeros((B, 28, 28))
    encoder = decoder = (np.zeros((B, H)), np.zeros((B, H)))
    real, outputs = np.ones(B, bool), []
    for e in epsilon:
        x_hat = x - reference.sigmoid(c)
        h_dec = decoder[1]
        r = np.zeros((B, 2 * sizes[0] ** 2))
        for n in range(B):
            F_Y, F_X, gamma = banks(linear(p["W_read"], h_dec[n]), sizes[0])
            seen = [gamma * F_Y @ image @ F_X.T for image in (x[n], x_hat[n])]
            r[n] = np.concatenate([patch.ravel() for patch in seen])
        inputs = np.concatenate([r, h_dec], 1)
        encoder = reference.lstm(kind, p["encoder"], encoder, inputs, real, EPSILON)
        mu, log_sigma = np.split(linear(p["W_z"], encoder[1]), 2, 1)
        z = mu + np.exp(log_sigma) * e
        decoder = reference.lstm(kind, p["decoder"], decoder, z, real, EPSILON)
        c = c.copy()
        for n in range(B):
            a = linear(p["W_write"], decoder[1][n])
            N = sizes[1]
            F_Y, F_X, gamma = banks(a[:5], N)
            c[n] += F_Y.T @ a[5:].reshape(N, N) @ F_X / gamma
        outputs.append((c, mu, np.exp(log_sigma)))
    return tuple(np.stack(arrays) for arrays in zip(*outputs, strict=True))


@pytest.mark.parametrize("kind", NORMS)
def test_canvases_and_the_bound_are_those_of_the_equations(kind):
    x, epsilon, sizes = pictures(B), normal(T, B, Z), (2, 3)
    with jax.enable_x64(True):
        model, variables = made(NORMS[kind], sizes)
        glimpses, _ = jax.jit(partial(model.apply, mutable=["stats"]))(variables, x, epsilon)
        bound = np.asarray(draw.bound(x, glimpses))
    c, mu, sigma = run(kind, variables["params"], x, epsilon, sizes)
    np.testing.assert_allclose(glimpses.c, c, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(glimpses.mu, mu, rtol=1e-9, atol=1e-9)
    p = reference.sigmoid(c[-1])
    expected = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum((1, 2))
    expected += 0.5 * (mu**2 + sigma**2 - np.log(sigma**2)).sum((0, 2)) - T * Z / 2
    np.testing.assert_allclose(bound, expected, rtol=1e-9)


def test_a_window_of_zeros_covers_the_whole_image():
    window = Window.from_numbers(jnp.zeros((1, 5)), 5)
    offsets = (np.array([1, 5]) - 5 / 2 - 0.5) * window.delta[0]
    np.testing.assert_allclose(window.g_X + offsets, [1, 28])
    np.testing.assert_allclose(window.g_Y + offsets, [1, 28])


def test_a_filter_far_off_the_image_is_no_zero_by_zero():
    far = jnp.array([[40.0, -40.0, -8.0, 3.0, 0.0]])

    def total(a):
        banks = Window.from_numbers(a, 2).filterbanks(2)
        return sum(F.sum() for F in banks), banks

    (_, banks), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(far)
    assert np.isfinite(gradient).all()
    for F in banks:
        np.testing.assert_allclose(F.sum(-1), 1, rtol=1e-6)


# --- The bound ---


@pytest.mark.slow
def test_importance_weights_have_the_likelihood_as_their_mean():
    """Their mean is p(x) exactly; that of their logarithm is minus the bound, which is higher.

    The model has one number z in each of two steps, on one image; all means are quadratures.
    """
    grid, step = np.linspace(-8, 8, 81, retstep=True)
    z = np.stack(np.meshgrid(grid, grid, indexing="ij")).reshape(2, -1, 1)
    x = np.broadcast_to(pictures(1), (z.shape[1], 28, 28))
    density = np.exp(-(z[..., 0] ** 2).sum(0) / 2) * step**2 / (2 * np.pi)  # of z and of its noise
    with jax.enable_x64(True):
        model, variables = made(Norm(), hidden=4, latent=1)  # smooth
        apply = jax.jit(model.apply, static_argnames="method")
        c = apply(variables, z, method="generate").c[-1]
        log_p = np.log(density) - np.asarray(draw.reconstruction(x, c))
        glimpses = apply(variables, x, z)
        bound = float((density * draw.bound(x, glimpses)).sum())
        weight = np.asarray(draw.log_weight(x, glimpses, z))
    nll = -np.logaddexp.reduce(log_p)
    assert nll + 0.01 < bound < nll + 100
    np.testing.assert_allclose(np.logaddexp.reduce(np.log(density) + weight), -nll, rtol=1e-6)
    np.testing.assert_allclose((density * weight).sum(), -bound, rtol=1e-6)


# --- The task ---


def make_task(**options):
    config = config_file.get_config("tiny")
    config.update(options)
    return Task(config)


@pytest.mark.slow
def test_generating_from_the_z_of_an_image_reconstructs_it():
    task = make_task()
    variables = jax.jit(task.init)(jax.random.key(0))
    seen = task.reconstruct(variables, task.splits["test"]["x"][:4], jax.random.key(1))
    generate = jax.jit(partial(task.model(train=False).apply, method="generate"))
    painted = generate(variables, seen.z)
    np.testing.assert_allclose(painted.c, seen.c, rtol=1e-5, atol=1e-6)
    assert task.generate(variables, jax.random.key(2), 7).c.shape == (2, 7, 28, 28)
