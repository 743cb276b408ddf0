"""Hidden-to-hidden dynamics of a recurrent network (§3.1)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.theory.checks import Check, Result
from ln.norm import Norm
from ln.rnn import RNN

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # s of W_hh = s times an orthogonal matrix
T, EXAMPLES, INPUTS, UNITS = 100, 16, 10, 100
NORMS = {
    "no norm": Norm(),
    "layer norm": Norm("layer", ("a",)),
    "layer norm, gain 0.1": Norm("layer", ("a",), (("gain", 0.1),)),
}
ACTIVATIONS = {"tanh": jnp.tanh, "ReLU": jax.nn.relu}


@partial(jax.jit, static_argnums=0)
def readings(cell, params, xs, direction):
    """Run an RNN (eq. 4) over xs ``[T, B, D]``, and its gradients backwards.

    Returns:
        The rms of the summed inputs a_t, and ‖∂L/∂h_t‖ for the loss L = ⟨direction, h_T⟩; both
        ``[T]``, over all examples.
    """
    a_x = cell.apply(params, xs, method="project")

    def step(h, inputs):
        a_x, push = inputs
        a_h = cell.apply(params, h, method="recur")
        h, _ = cell.apply(params, h, a_x, a_h, method="update")
        return h + push, a_h + a_x

    def loss(pushes):  # all of them 0; the derivative by them is that by the hidden states
        h, a = jax.lax.scan(step, jnp.zeros_like(direction), (a_x, pushes))
        return (direction * h).sum(), a

    G, a = jax.grad(loss, has_aux=True)(jnp.zeros((len(xs), *direction.shape)))
    largest = abs(G).max((1, 2), keepdims=True)  # the square of 1e-156 would be 0
    lengths = largest * jnp.linalg.norm(G / largest, axis=(1, 2), keepdims=True)
    return jnp.sqrt((a**2).mean((1, 2))), lengths[:, 0, 0]


def stability(setting: str, plain, layer) -> Check:
    """Check the pairs (rms, gradients over the last) without norm and with layer norm.

    All are ``[scales, T]``. Layer norm must keep both ranges, in decades, to less than half of
    those without norm; the check fails if both are wider, and is not decided otherwise.
    """

    def decades(pair):
        return np.array([np.log10(values.max() / values.min()) for values in pair])

    without, with_norm = decades(plain), decades(layer)
    holds = True if (with_norm < without / 2).all() else None
    holds = False if (with_norm > without).all() else holds
    because = (
        f"Decades of the rms of a_t: {without[0]:.1f} without norm, {with_norm[0]:.1f} with layer "
        f"norm. Decades of ‖∂L/∂h_t‖ over that at T: {without[1]:.1f} and {with_norm[1]:.1f}."
    )
    return Check(12, f"Layer norm stabilizes the dynamics ({setting}).", holds, because)


def dynamics(seed: int) -> Result:
    """Read RNNs with input at the first step only, and with input at every step."""
    random = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(random.normal(size=(UNITS, UNITS)))
    W_x = random.normal(size=(INPUTS, UNITS)) / np.sqrt(INPUTS)
    every = random.normal(size=(T, EXAMPLES, INPUTS))
    first = every * (np.arange(T) == 0)[:, None, None]
    direction = random.normal(size=(EXAMPLES, UNITS))

    def measure(norm, f, xs):
        """Return the rms, and gradients over the last, both ``[scales, T]``."""
        cell = RNN(UNITS, NORMS[norm], activation=ACTIVATIONS[f])
        params = cell.init(jax.random.key(0), direction, every[0])["params"]
        params = jax.tree.map(np.float64, params) | {"W_x": {"kernel": W_x}}
        recurrent = [{"W_h": {"kernel": s * Q}} for s in SCALES]
        pairs = [readings(cell, {"params": params | W_h}, xs, direction) for W_h in recurrent]
        rms, G = map(np.stack, zip(*pairs, strict=True))
        return rms, G / G[:, -1:]

    checks, by_setting = [], {}
    for f in ACTIVATIONS:
        for name, xs in (("the first step only", first), ("every step", every)):
            by_norm = {norm: measure(norm, f, xs) for norm in NORMS}
            setting = f"{f}, input at {name}"
            checks.append(stability(setting, by_norm["no norm"], by_norm["layer norm"]))
            by_setting[setting] = by_norm
    steps = np.arange(1, T + 1)
    return Result(checks, dict(readings=by_setting, scales=SCALES, steps=steps))
