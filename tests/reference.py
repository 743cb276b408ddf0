"""The paper's equations in numpy and float64, line by line, to test against.

Independent of ln. One example or one unit at a time, as the equations are written; derivatives are
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
    """Eqs. 3 and 4: a ``[N, H]``, one μ and σ per example; gain and bias ``[H]``."""
    return np.stack([gain * normalized(case, epsilon)[0] + bias for case in a])


def rms_norm(a, gain, bias, epsilon):
    """a over the root of its mean square: a ``[N, H]``, one root per example."""
    roots = np.sqrt(np.array([np.sum(example**2) / len(example) for example in a]) + epsilon)
    return gain * a / roots[:, None] + bias


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
    """−log(exp a_y / Σ_j exp a_j) of one example ``[C]``, as log(1 + Σ_{j≠y} exp(a_j − a_y))."""
    return np.log1p(np.sum(np.exp(np.delete(logits, y) - logits[y])))


def negative_log_likelihood_backward(logits, y):
    """softmax(a) − onehot(y); at y, where p_y − 1 would cancel, −Σ_{j≠y} p_j."""
    p = np.exp(logits - np.max(logits)) / np.sum(np.exp(logits - np.max(logits)))
    p[y] = -np.sum(np.delete(p, y))
    return p


# --- Recurrent layers: one time step and one example after another, gates by name ---


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def normalize(kind, p, site, a, mask, epsilon):
    """Return ``a [B, n]`` at one time step normalized with the parameters p[site]."""
    own = p.get(site, {})
    gain, bias = own.get("gain", 1.0), own.get("bias", 0.0)
    if not isinstance(kind, str) and "gain" in own:  # a class of a norm
        return kind.equation(a, gain) + bias
    if kind == "layer" and "gain" in own:
        return layer_norm(a, gain, bias, epsilon)
    if kind == "rms" and "gain" in own:
        return rms_norm(a, gain, bias, epsilon)
    if kind == "batch" and "gain" in own and mask.any():
        real = np.flatnonzero(mask)  # statistics of real examples only
        out = np.zeros_like(a)
        out[real] = batch_norm(a[real], gain, np.broadcast_to(bias, gain.shape), epsilon)
        return out
    return a + bias


def weights(p, name):
    """Return a matrix ``[D, n]``, normalized by weight norm if it has a gain."""
    own = p[name]
    return weight_norm(own["kernel"], own["gain"]) if "gain" in own else own["kernel"]


def rnn(kind, p, h, x, mask, epsilon, inside=False):
    """Eq. 4 with the norm at site a; the sites x and h are normalized before the sum."""
    b = p["b"] if inside else 0.0
    a = normalize(kind, p, "norm_x", x @ weights(p, "W_x") + b, mask, epsilon)
    a = a + normalize(kind, p, "norm_h", h @ weights(p, "W_h"), mask, epsilon)
    return np.tanh(normalize(kind, p, "norm_a", a, mask, epsilon))


def lstm(kind, p, carry, x, mask, epsilon, inside=False):
    """Eqs. 20-22; inside: b under the input's norm too, as in layers.py."""
    c, h = carry
    b = p["b"] if inside else 0.0
    a = normalize(kind, p, "norm_h", h @ weights(p, "W_h"), mask, epsilon)
    a = a + normalize(kind, p, "norm_x", x @ weights(p, "W_x") + b, mask, epsilon) + p["b"]
    H = c.shape[1]
    f, i, o, g = a[:, :H], a[:, H : 2 * H], a[:, 2 * H : 3 * H], a[:, 3 * H :]
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(normalize(kind, p, "norm_c", c, mask, epsilon))


def gru(kind, p, h, x, mask, epsilon, inside=False):
    """Eqs. 26-28; b, which the paper does not write, behind the input's norm, or under it."""
    H = h.shape[1]
    under, behind = (p["b"], 0 * p["b"]) if inside else (0 * p["b"], p["b"])
    zr = normalize(kind, p, "norm_zr_x", x @ weights(p, "W_x") + under[: 2 * H], mask, epsilon)
    zr = zr + normalize(kind, p, "norm_zr_h", h @ weights(p, "W_h"), mask, epsilon)
    zr = zr + behind[: 2 * H]
    z, r = sigmoid(zr[:, :H]), sigmoid(zr[:, H:])
    Wx = normalize(kind, p, "norm_x", x @ weights(p, "W") + under[2 * H :], mask, epsilon)
    Uh = normalize(kind, p, "norm_h", h @ weights(p, "U"), mask, epsilon)
    h_hat = np.tanh(Wx + behind[2 * H :] + r * Uh)
    return (1 - z) * h + z * h_hat


def unrolled(cell, kind, p, carry, xs, mask, epsilon, **options):
    """h at every step ``[T, B, H]`` and the last carry; where the mask is false nothing moves."""
    hs = []
    for x, m in zip(xs, mask, strict=True):
        new = cell(kind, p, carry, x, m, epsilon, **options)
        if isinstance(carry, tuple):
            carry = tuple(np.where(m[:, None], n, o) for n, o in zip(new, carry, strict=True))
        else:
            carry = np.where(m[:, None], new, carry)
        hs.append(carry[1] if isinstance(carry, tuple) else carry)
    return np.stack(hs), carry
