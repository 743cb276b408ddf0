"""A network with one normalized layer under plain SGD: the growth of its weights (§5.2.2)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.theory.checks import EXACT, Check, Result, check, sci
from experiments.theory.geometry import angle
from ln.norm import layer_norm

SCALES = (0.5, 1, 2, 4)  # k of k W_0
STEPS, RATE = 400, 0.5
TENTH = STEPS // 10


def network(random: np.random.Generator, D: int, H: int, C: int) -> dict[str, np.ndarray]:
    """Return the parameters of V tanh(LN(W x)) + c."""
    W, V = (random.normal(size=shape) / np.sqrt(shape[0]) for shape in ((D, H), (H, C)))
    return dict(W=W, gain=np.ones(H), bias=np.zeros(H), V=V, c=np.zeros(C))


def cross_entropy(params, x, y):
    """Return the mean loss in nats of inputs x ``[N, D]`` and classes y ``[N]``."""
    h = jnp.tanh(layer_norm(x @ params["W"], params["gain"], params["bias"], epsilon=0.0))
    log_p = jax.nn.log_softmax(h @ params["V"] + params["c"])
    return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()


@partial(jax.jit, static_argnames="hold")
def descend(params, x, y, batches, rate_W, rate, hold=False):
    """Run plain SGD on batches ``[steps, examples]``; W has a separate learning rate.

    With `hold`, W is set back to its first length after each step.

    Returns:
        The loss of all examples before each step ``[steps]``, ∂L/∂W ``[steps, D, H]``, and W
        ``[steps + 1, D, H]``.
    """
    length = jnp.linalg.norm(params["W"])

    def step(params, batch):
        loss = cross_entropy(params, x, y)
        G = jax.grad(cross_entropy)(params, x[batch], y[batch])
        new = {name: params[name] - rate * G[name] for name in params}
        new["W"] = params["W"] - rate_W * G["W"]
        if hold:
            new["W"] *= length / jnp.linalg.norm(new["W"])
        return new, (loss, G["W"], new["W"])

    loss, G, W = jax.lax.scan(step, params, batches)[1]
    return loss, G, jnp.concatenate([params["W"][None], W])


def size(path) -> np.ndarray:
    """Return the Frobenius norms of matrices ``[steps, D, H]``."""
    return np.linalg.norm(path, axis=(1, 2))


def shrinking(W) -> float:
    """Return the mean angle of the last tenth of the steps over that of the first tenth."""
    angles = np.asarray(jax.vmap(angle)(W[:-1], W[1:]))
    return angles[-TENTH:].mean() / angles[:TENTH].mean()


def growth(seed: int) -> Result:
    """Train from k W_0 for four k, at one learning rate, and at k² times this rate for W.

    Powers of two scale floating point numbers exactly, so that differences can be 0.
    """
    random = np.random.default_rng(seed)
    N, D, H, C = 128, 10, 20, 3
    x = random.normal(size=(N, D))
    y = (x @ random.normal(size=(D, C))).argmax(1)
    y = np.where(random.random(N) < 0.2, random.integers(C, size=N), y)  # so that gradients stay
    params = network(random, D, H, C)
    batches = random.integers(N, size=(STEPS, 16))

    def run(k, rate, hold=False):
        start = params | {"W": k * params["W"]}
        return jax.tree.map(np.asarray, descend(start, x, y, batches, rate, RATE, hold))

    runs = {k: run(k, RATE) for k in SCALES}
    losses, lengths = {k: runs[k][0] for k in SCALES}, {k: size(runs[k][2]) for k in SCALES}
    scaled = {k: run(k, k**2 * RATE)[0] for k in SCALES}
    first = max(abs(losses[k][0] - losses[1][0]) for k in SCALES)
    every = max(abs(scaled[k] - losses[1]).max() for k in SCALES)

    _, G, W = runs[1]
    shrunk, held_shrunk = shrinking(W), shrinking(run(1, RATE, hold=True)[2])
    grown = np.diff(size(W) ** 2)
    balance = (abs(grown - RATE**2 * size(G) ** 2) / size(W)[:-1] ** 2).max()
    because = (
        f"‖W‖ grows at {(grown > 0).mean():.0%} of the steps, from {lengths[1][0]:.3g} to "
        f"{lengths[1][-1]:.3g}; ‖W‖² by η²‖∂L/∂W‖², to {sci(balance)}. The angle of a step goes to "
        f"{shrunk:.3f} of its first value; with ‖W‖ held, to {held_shrunk:.3f}."
    )
    holds = (grown > 0).all() and balance < EXACT and shrunk < held_shrunk
    inverse = "The norm of the weights acts as an inverse learning rate."
    checks = check(9, [first, every], statement=inverse), Check(10, "", bool(holds), because)
    return Result(checks, dict(losses=losses, scaled=scaled, lengths=lengths))
