"""The paper's equations in numpy and float64, line by line, to test against.

Independent of ln. One case or one unit at a time, as the equations are written; derivatives are
the closed forms, so that autodiff has something to be compared with. Functions ``*_backward`` take
``d_y``, the derivative of a loss by the outputs, and return its derivatives by the arguments.
"""

import numpy as np


def normalized(v, epsilon):
    """Returns (v − μ)/σ and σ for a vector v ``[n]``, with σ² = (1/n) Σ (v_i − μ)² + epsilon."""
    mu = np.sum(v) / len(v)
    sigma = np.sqrt(np.sum((v - mu) ** 2) / len(v) + epsilon)
    return (v - mu) / sigma, sigma


def normalized_backward(d_v_hat, v, epsilon):
    """∂v̂/∂v = (I − 11ᵀ/n − v̂v̂ᵀ/n)/σ, which is symmetric."""
    n = len(v)
    v_hat, sigma = normalized(v, epsilon)
    jacobian = (np.eye(n) - np.ones((n, n)) / n - np.outer(v_hat, v_hat) / n) / sigma
    return jacobian @ d_v_hat


def layer_norm(a, gain, bias, epsilon):
    """Eqs. 3 and 4: a ``[N, H]``, one μ and σ per case; gain and bias ``[H]``."""
    return np.stack([gain * normalized(case, epsilon)[0] + bias for case in a])


def layer_norm_backward(d_y, a, gain, epsilon):
    a_hat = np.stack([normalized(case, epsilon)[0] for case in a])
    d_a = [normalized_backward(gain * d, case, epsilon) for d, case in zip(d_y, a, strict=True)]
    return np.stack(d_a), np.sum(d_y * a_hat, 0), np.sum(d_y, 0)


def batch_norm(a, gain, bias, epsilon):
    """Eq. 2 with the statistics of the batch: a ``[N, H]``, one μ and σ per unit."""
    units = range(a.shape[1])
    return np.stack([gain[i] * normalized(a[:, i], epsilon)[0] + bias[i] for i in units], axis=1)


def batch_norm_backward(d_y, a, gain, epsilon):
    units = range(a.shape[1])
    a_hat = np.stack([normalized(a[:, i], epsilon)[0] for i in units], axis=1)
    d_a = [normalized_backward(gain[i] * d_y[:, i], a[:, i], epsilon) for i in units]
    return np.stack(d_a, axis=1), np.sum(d_y * a_hat, 0), np.sum(d_y, 0)


def weight_norm(v, gain):
    """§5.1: w_i = g_i v_i/‖v_i‖, with w_i and v_i in column i of ``[D, H]``."""
    units = range(v.shape[1])
    return np.stack([gain[i] * v[:, i] / np.sqrt(np.sum(v[:, i] ** 2)) for i in units], axis=1)


def weight_norm_backward(d_w, v, gain):
    """∂w_i/∂v_i = g_i (I − v̂_i v̂_iᵀ)/‖v_i‖, with v̂_i = v_i/‖v_i‖."""
    d_v, d_gain = np.zeros_like(v), np.zeros_like(gain)
    for i in range(v.shape[1]):
        length = np.sqrt(np.sum(v[:, i] ** 2))
        v_hat = v[:, i] / length
        d_v[:, i] = gain[i] * (np.eye(len(v_hat)) - np.outer(v_hat, v_hat)) @ d_w[:, i] / length
        d_gain[i] = v_hat @ d_w[:, i]
    return d_v, d_gain


def negative_log_likelihood(logits, y):
    """−log(exp a_y / Σ_j exp a_j) of one case ``[C]``, as log(1 + Σ_{j≠y} exp(a_j − a_y))."""
    return np.log1p(np.sum(np.exp(np.delete(logits, y) - logits[y])))


def negative_log_likelihood_backward(logits, y):
    """softmax(a) − onehot(y); at y, where p_y − 1 would cancel, −Σ_{j≠y} p_j."""
    p = np.exp(logits - np.max(logits)) / np.sum(np.exp(logits - np.max(logits)))
    p[y] = -np.sum(np.delete(p, y))
    return p
