"""Section 5: what normalization does to the geometry of a layer, as pure functions.

A layer maps inputs x ``[N, D]`` to outputs ``[N, H]``

    z_i = g_i â_i + b_i,    â_i = (a_i − μ_i) / σ_i,    a_i = w_iᵀ x                        (eq. 5)

where batch norm takes μ_i and σ_i from the N cases (here all there are), weight norm has μ_i = 0
and σ_i = ‖w_i‖, and layer norm takes both from the H units of each case. There is no epsilon, as in
the paper, and the outputs are those of ln/norm.py.

Two forms of the parameters: W ``[D, H]`` as everywhere in this library, one column per unit (the
paper writes its transpose), and for Fisher information, whose blocks are pairs of units, theta
``[H, D + 2]``, one row (w_i, b_i, g_i) per unit. So F is ``[H, D + 2, H, D + 2]``, and F[i, :, j]
is block (i, j).

All of this is meant for float64: ``with jax.enable_x64(True)``.
"""

import jax
from jax.nn import sigmoid, softplus
import jax.numpy as jnp
import numpy as np

from ln.errors import choose
from ln.norm import batch_moments, batch_norm, layer_norm, weight_norm

NORMS = ("batch", "weight", "layer")


def outputs(norm, W, bias, gain, x):
    """The normalized summed inputs z ``[N, H]`` (eq. 5), for "none" the a + b of eq. 1.

    Raises:
        InputError: there is no such norm.
    """
    a = x @ W
    mu, var = batch_moments(a)
    makers = dict(
        none=lambda: a + bias,
        batch=lambda: batch_norm(a, mu, var, gain, bias, epsilon=0.0),
        weight=lambda: x @ weight_norm(W, gain) + bias,
        layer=lambda: layer_norm(a, gain, bias, epsilon=0.0),
    )
    return choose("norm", norm, makers)()


def standardized(norm, W, x):
    """â ``[N, H]`` and the σ of eq. 5, which is ``[N, 1]`` (layer) or ``[H]`` (batch, weight)."""
    a = x @ W
    makers = dict(
        batch=lambda: (a.mean(0), a.std(0)),
        weight=lambda: (0.0, jnp.linalg.norm(W, axis=0)),
        layer=lambda: (a.mean(1, keepdims=True), a.std(1, keepdims=True)),
    )
    mu, sigma = choose("norm", norm, makers)()
    return (a - mu) / sigma, sigma


# --- Invariances: Table 1 ---

# Per norm, in the order of `transformations`: whether the outputs stay as they are.
TABLE_1 = dict(
    batch=(True, False, True, True, True, False),
    weight=(True, False, True, False, False, False),
    layer=(True, True, False, True, False, True),
)


def transformations(W, x, delta, gamma, deltas_of_units, shift, deltas_of_cases):
    """The columns of Table 1: name -> (W, x) transformed.

    Args:
        W, x: weights ``[D, H]`` and inputs ``[N, D]``.
        delta: one scale for all.
        gamma: ``[D]``, added to the weight vector of every unit (eq. 6).
        deltas_of_units: ``[H]``.
        shift: ``[D]``, added to every case.
        deltas_of_cases: ``[N]``.
    """
    return {
        "weight matrix re-scaling": (delta * W, x),
        "weight matrix re-centring": (W + gamma[:, None], x),
        "weight vector re-scaling": (W * deltas_of_units, x),
        "data set re-scaling": (W, delta * x),
        "data set re-centring": (W, x + shift),
        "single case re-scaling": (W, deltas_of_cases[:, None] * x),
    }


# --- Generalized linear models: §5.2.1 ---


def pack(W, bias, gain):
    """theta ``[H, D + 2]``."""
    return jnp.concatenate([W.T, bias[:, None], gain[:, None]], axis=1)


def unpack(theta):
    """W ``[D, H]``, bias ``[H]``, gain ``[H]``."""
    return theta[:, :-2].T, theta[:, -2], theta[:, -1]


def log_likelihood(z, y):
    """log P(y | z) ``[...]`` of H independent Bernoulli outputs with logits z, both ``[..., H]``.

    This is eq. 10 with φ = 1 and η = softplus, so that f = η' is the sigmoid.
    """
    return (y * z - softplus(z)).sum(-1)


def bernoulli_covariance(z):
    """Cov[y | x] ``[N, H, H]`` for logits z ``[N, H]``: diagonal, since outputs are independent."""
    p = sigmoid(z)
    return (p * (1 - p))[:, :, None] * jnp.eye(z.shape[-1])


def fisher_information(norm, theta, x):
    """Eqs. 9-10 by brute force: F = E_x E_y [∇ log P(y|x) ∇ log P(y|x)ᵀ], Bernoulli outputs.

    The expectation is over the N cases and over all 2^H outputs y of each; gradients go through the
    whole model, statistics included.
    """
    H = theta.shape[0]
    ys = (np.arange(2**H)[:, None] >> np.arange(H) & 1).astype(float)

    def log_p(theta):
        W, bias, gain = unpack(theta)
        z = outputs(norm, W, bias, gain, x)
        return log_likelihood(z[:, None, :], ys)  # [N, 2^H]

    p, score = jnp.exp(log_p(theta)), jax.jacfwd(log_p)(theta)
    return jnp.einsum("ny,nyip,nyjq->ipjq", p, score, score) / len(x)


# --- Fisher information of normalized models: §5.2.2 ---


def chi(norm, W, x):
    """Eq. 14: χ_i = x − ∂μ_i/∂w_i − â_i ∂σ_i/∂w_i, as ``[N, H, D]``."""
    a_hat, _ = standardized(norm, W, x)
    x_i = x[:, None, :]  # the same for all units
    makers = dict(
        batch=lambda: (x.mean(0), jnp.einsum("ni,nd->id", a_hat, x - x.mean(0)) / len(x)),
        weight=lambda: (0.0, (W / jnp.linalg.norm(W, axis=0)).T),
        layer=lambda: (x_i / W.shape[1], a_hat[:, :, None] * x_i / W.shape[1]),
    )
    d_mu, d_sigma = choose("norm", norm, makers)()
    return x_i - d_mu - a_hat[:, :, None] * d_sigma


def eq_13(norm, theta, x, cov):
    """The paper's Fisher information, ``[H, D + 2, H, D + 2]``.

    Each of its blocks is E_x Cov(y_i, y_j | x)/φ² times the outer product of (χ_i g_i/σ_i, 1, â_i)
    with the same of j.

    Args:
        cov: Cov[y | x]/φ², ``[N, H, H]``.
    """
    W, _, gain = unpack(theta)
    a_hat, sigma = standardized(norm, W, x)
    scale = (gain / sigma * jnp.ones_like(a_hat))[:, :, None]
    v = jnp.concatenate([scale * chi(norm, W, x), jnp.ones_like(scale), a_hat[:, :, None]], axis=-1)
    return jnp.einsum("nij,nip,njq->ipjq", cov, v, v) / len(x)


def layer_norm_fisher(theta, x, cov):
    """Eq. 13 for layer norm with the terms that the paper leaves out.

    All units share μ and σ, so w_i moves every output z_k:

        ∂z_k/∂w_i = g_k/σ (δ_ki − 1/H − â_k â_i/H) x

    Eq. 13 has k = i only. Arguments and result as there.
    """
    W, _, gain = unpack(theta)
    H = len(gain)
    a_hat, sigma = standardized("layer", W, x)
    own = jnp.eye(H)
    d_w = own - 1 / H - a_hat[:, :, None] * a_hat[:, None, :] / H  # [N, k, i]
    d_w = (gain / sigma)[:, :, None] * d_w
    d_g = own * a_hat[:, :, None]
    J = jnp.concatenate(
        [
            d_w[..., None] * x[:, None, None, :],
            jnp.broadcast_to(own, d_w.shape)[..., None],
            d_g[..., None],
        ],
        axis=-1,
    )
    return jnp.einsum("nkl,nkip,nljq->ipjq", cov, J, J) / len(x)


def quadratic_form(F, delta):
    """δᵀ F δ; half of it is the squared length ds² of a small step δ (eq. 8)."""
    return jnp.einsum("ip,ipjq,jq->", delta, F, delta)


# --- Learning the magnitude of weights: eqs. 32-35 ---
#
# ds² = ½ δᵀ M δ for a step δ in the gains, with cov as in eq. 13 and M ``[H, H]``.


def gain_metric(norm, W, x, cov):
    """M = E[Cov/φ² â_i â_j]: eq. 33 (layer), eq. 34 (weight), and what eq. 32 (batch) leaves out.

    It is the gain-gain block of eq. 13.
    """
    a_hat, _ = standardized(norm, W, x)
    return jnp.einsum("nij,ni,nj->ij", cov, a_hat, a_hat) / len(x)


def eq_32(cov):
    """M = E[Cov/φ²], the paper's for batch norm, without the factor â_i â_j."""
    return cov.mean(0)


def eq_35(W, x, cov):
    """M = E[Cov/φ² a_i a_j/(‖w_i‖ ‖w_j‖)]: a model without norm whose weights move along
    themselves, δw_i = δ_i w_i/‖w_i‖.
    """
    along = x @ W / jnp.linalg.norm(W, axis=0)
    return jnp.einsum("nij,ni,nj->ij", cov, along, along) / len(x)


# --- Directions ---


def angle(v, w):
    """Between two arrays as vectors, in radians; exact for small angles, where a cosine is not."""
    v, w = v / jnp.linalg.norm(v), w / jnp.linalg.norm(w)
    return 2 * jnp.arctan2(jnp.linalg.norm(v - w), jnp.linalg.norm(v + w))
