"""Section 5 as pure functions: what normalization does to the geometry of a layer.

A layer maps inputs x ``[N, D]`` to outputs z ``[N, H]``

    z_i = g_i â_i + b_i,    â_i = (a_i − μ_i) / σ_i,    a_i = w_iᵀ x                        (eq. 5)

Batch norm takes μ_i and σ_i from the N examples (here the whole data set), weight norm has μ_i = 0
and σ_i = ‖w_i‖, layer norm takes both from the H units of each example. As in the paper, there is
no epsilon.

The parameters theta ``[H, D + 2]`` have one row (w_i, b_i, g_i) per unit. So the Fisher information
F is ``[H, D + 2, H, D + 2]``, and F[i, :, j] is its block (i, j).

All functions are meant for float64: ``with jax.enable_x64(True)``.
"""

import jax
from jax import Array
from jax.nn import sigmoid, softplus
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from ln.norm import batch_moments, batch_norm, layer_norm, weight_norm

NORMS = ("batch", "weight", "layer")


def pack(w: ArrayLike, bias: ArrayLike, gain: ArrayLike) -> Array:
    """Return rows (w_i, b_i, g_i) ``[..., H, D + 2]`` of w ``[..., H, D]`` and two ``[..., H]``."""
    both = [jnp.broadcast_to(value, jnp.shape(w)[:-1]) for value in (bias, gain)]
    return jnp.concatenate([jnp.asarray(w), jnp.stack(both, axis=-1)], axis=-1)


def unpack(theta: Array) -> tuple[Array, Array, Array]:
    """Return w ``[H, D]``, bias ``[H]`` and gain ``[H]``."""
    return theta[:, :-2], theta[:, -2], theta[:, -1]


def outputs(norm: str, theta: Array, x: Array) -> Array:
    """Return z ``[N, H]`` (eq. 5) by the functions of ln/norm.py; for "none" the a + b of eq. 1."""
    w, bias, gain = unpack(theta)
    a = x @ w.T
    mu, var = batch_moments(a)
    return {
        "none": a + bias,
        "batch": batch_norm(a, mu, var, gain, bias, epsilon=0.0),
        "weight": x @ weight_norm(w.T, gain) + bias,
        "layer": layer_norm(a, gain, bias, epsilon=0.0),
    }[norm]


def standardized(norm: str, w: Array, x: Array) -> tuple[Array, Array]:
    """Return â ``[N, H]`` and the σ of eq. 5, ``[N, 1]`` (layer) or ``[H]`` (batch, weight)."""
    a = x @ w.T
    mu, sigma = {
        "batch": (a.mean(0), a.std(0)),
        "weight": (jnp.zeros(len(w)), jnp.linalg.norm(w, axis=1)),
        "layer": (a.mean(1, keepdims=True), a.std(1, keepdims=True)),
    }[norm]
    return (a - mu) / sigma, sigma


# --- Invariances: Table 1 ---

# Transformation -> the norms that leave the outputs unchanged under it.
TABLE_1 = {
    "weight matrix re-scaling": ("batch", "weight", "layer"),
    "weight matrix re-centring": ("layer",),
    "weight vector re-scaling": ("batch", "weight"),
    "data set re-scaling": ("batch", "layer"),
    "data set re-centring": ("batch",),
    "single example re-scaling": ("layer",),
}


def transformations(random: np.random.Generator, w: Array, x: Array) -> dict[str, tuple]:
    """Return name -> (w, x) after each transformation of Table 1, with random scales and shifts."""
    unit_scales, example_scales = (
        np.exp(random.uniform(np.log(0.2), np.log(5), (len(rows), 1))) for rows in (w, x)
    )
    gamma, shift = random.normal(size=(2, x.shape[1]))
    return {
        "weight matrix re-scaling": (3.7 * w, x),
        "weight matrix re-centring": (w + gamma, x),  # the same γ for all units: eq. 6
        "weight vector re-scaling": (unit_scales * w, x),
        "data set re-scaling": (w, 3.7 * x),
        "data set re-centring": (w, x + shift),
        "single example re-scaling": (w, example_scales * x),
    }


# --- Generalized linear models: §5.2.1 ---


def log_likelihood(z: Array, y: Array) -> Array:
    """Return log P(y | z) ``[...]`` of H independent Bernoulli outputs with logits z ``[..., H]``.

    This is eq. 10 with φ = 1 and η = softplus, so that f = η' is the sigmoid.
    """
    return (y * z - softplus(z)).sum(-1)


def bernoulli_covariance(z: Array) -> Array:
    """Return Cov[y | x] ``[N, H, H]`` for logits z ``[N, H]``, diagonal by independence."""
    p = sigmoid(z)
    return (p * (1 - p))[:, :, None] * jnp.eye(z.shape[-1])


def fisher_information(norm: str, theta: Array, x: Array) -> Array:
    """Return F = E_x E_y [∇ log P(y|x) ∇ log P(y|x)ᵀ] of Bernoulli outputs by brute force (eq. 9).

    The expectation runs over the N examples and over all 2^H outputs y of each. The gradients go
    through the whole model, its statistics included.
    """
    H = len(theta)
    ys = (jnp.arange(2**H)[:, None] >> jnp.arange(H) & 1).astype(float)

    def log_p(theta):
        return log_likelihood(outputs(norm, theta, x)[:, None, :], ys)  # [N, 2^H]

    p, score = jnp.exp(log_p(theta)), jax.jacfwd(log_p)(theta)
    return jnp.einsum("ny,nyip,nyjq->ipjq", p, score, score) / len(x)


# --- Fisher information of normalized models: §5.2.2 ---


def chi(norm: str, w: Array, x: Array) -> Array:
    """Return χ_i = x − ∂μ_i/∂w_i − â_i ∂σ_i/∂w_i as ``[N, H, D]`` (eq. 14)."""
    H = len(w)
    a_hat, _ = standardized(norm, w, x)
    x_i = x[:, None, :]  # the same for all units
    d_mu, d_sigma = {
        "batch": (x.mean(0), jnp.einsum("ni,nd->id", a_hat, x - x.mean(0)) / len(x)),
        "weight": (jnp.zeros_like(w), w / jnp.linalg.norm(w, axis=1, keepdims=True)),
        "layer": (x_i / H, a_hat[:, :, None] * x_i / H),
    }[norm]
    return x_i - d_mu - a_hat[:, :, None] * d_sigma


def eq_13(norm: str, theta: Array, x: Array, cov: Array) -> Array:
    """Return the paper's Fisher information.

    Its block (i, j) is E_x Cov(y_i, y_j | x)/φ² times the outer product of (χ_i g_i/σ_i, 1, â_i)
    and the same vector of j.

    Args:
        norm: "batch", "weight" or "layer".
        theta: the parameters ``[H, D + 2]``.
        x: inputs ``[N, D]``.
        cov: Cov[y | x]/φ², ``[N, H, H]``.
    """
    w, _, gain = unpack(theta)
    a_hat, sigma = standardized(norm, w, x)
    scale = gain / sigma * jnp.ones_like(a_hat)
    v = pack(scale[:, :, None] * chi(norm, w, x), jnp.ones_like(a_hat), a_hat)
    return jnp.einsum("nij,nip,njq->ipjq", cov, v, v) / len(x)


def layer_norm_fisher(theta: Array, x: Array, cov: Array) -> Array:
    """Return eq. 13 for layer norm, with the terms that the paper leaves out.

    All units share μ and σ, so that w_i moves each output z_k:

        ∂z_k/∂w_i = g_k/σ (δ_ki − 1/H − â_k â_i/H) x

    Eq. 13 has k = i only. Arguments and result are the same.
    """
    w, _, gain = unpack(theta)
    H = len(w)
    a_hat, sigma = standardized("layer", w, x)
    own = jnp.eye(H)  # δ_ki: biases and gains move their own unit only
    d_w = own - 1 / H - a_hat[:, :, None] * a_hat[:, None, :] / H  # [N, k, i]
    d_w = (gain / sigma)[:, :, None] * d_w
    J = pack(d_w[..., None] * x[:, None, None, :], own, own * a_hat[:, :, None])
    return jnp.einsum("nkl,nkip,nljq->ipjq", cov, J, J) / len(x)


# --- Learning the magnitude of weights: eqs. 32-35 ---
#
# ds² = ½ δᵀ M δ for a step δ in the gains, with cov as in eq. 13 and M ``[H, H]``.


def gain_metric(norm: str, w: Array, x: Array, cov: Array | np.ndarray) -> Array:
    """Return M = E[Cov/φ² â_i â_j], the gain-gain block of eq. 13.

    It is eq. 33 for layer norm and eq. 34 for weight norm. Eq. 32 for batch norm lacks â_i â_j: it
    is ``cov.mean(0)``. Eq. 35, without norm, has a_i/‖w_i‖ in place of â_i, as weight norm has,
    since its weight vectors move along themselves: δw_i = δ_i w_i/‖w_i‖.
    """
    a_hat, _ = standardized(norm, w, x)
    return jnp.einsum("nij,ni,nj->ij", cov, a_hat, a_hat) / len(x)


def angle(v: Array, w: Array) -> Array:
    """Return the angle between two arrays as vectors, in radians.

    It is exact for small angles, unlike the inverse of the cosine.
    """
    v, w = v / jnp.linalg.norm(v), w / jnp.linalg.norm(w)
    return 2 * jnp.arctan2(jnp.linalg.norm(v - w), jnp.linalg.norm(v + w))
