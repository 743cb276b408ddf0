"""Exact claims about single examples, with the modules of ln/norm.py, their epsilon included."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.theory.checks import Check, Result, check
from experiments.theory.layers import draw, largest
from experiments.theory.training import STEPS, TENTH, descend, network
from ln.norm import Norm
from ln.rnn import RNN, unroll

EXAMPLE = 3  # any of them


@partial(jax.jit, static_argnums=(0, 1))
def one_example(kind, train, theta, x, n, direction):
    """Return the outputs of example n, and ∂L/∂w of a loss L of this example alone."""
    H = len(theta)
    stats = dict(mean=jnp.zeros(H), var=jnp.ones(H), count=jnp.zeros(()))
    variables = {"params": dict(bias=theta[:, -2], gain=theta[:, -1]), "stats": stats}
    norm = Norm(kind, ("a",), train=train)("a")

    def loss(w):
        z, _ = norm.apply(variables, x @ w.T, mutable=["stats"])
        y = jnp.tanh(z)[n]
        return direction @ y, y

    G, y = jax.grad(loss, has_aux=True)(theta[:, :-2])
    return y, G


def online(random: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return the losses of SGD on one example a step, and that of the best constant outputs.

    A constant is all that batch norm could learn.
    """
    x = random.normal(size=(128, 10))
    y = (x @ random.normal(size=(10, 3))).argmax(1)
    params = network(random, 10, 20, 3)
    losses, _, _ = descend(params, x, y, random.integers(128, size=(STEPS, 1)), 0.05, 0.05)
    shares = np.bincount(y, minlength=3) / 128
    return np.asarray(losses), -(shares * np.log(shares)).sum()


def over_time(kind: str, xs) -> tuple[int, float]:
    """Return how many arrays of an RNN depend on the steps, and how more of them change states.

    The RNN is made for half of the steps. An array depends on the steps if its shape is another in
    an RNN made for all of them. The states are those of the first half.
    """
    half, cell = xs[: len(xs) // 2], RNN(5, Norm(kind, ("a",)))
    init, run = nn.init(unroll, cell), jax.jit(nn.apply(unroll, cell))
    made, made_for_half = (init(jax.random.key(0), inputs) for inputs in (xs, half))
    arrays = zip(jax.tree.leaves(made), jax.tree.leaves(made_for_half), strict=True)
    changed = sum(a.shape != b.shape for a, b in arrays)
    longer, shorter = (run(made_for_half, inputs)[0] for inputs in (xs, half))
    return changed, largest(longer[: len(half)] - shorter)


def examples(seed: int) -> Result:
    """Compare layer norm with batch norm on single examples, online, and over time."""
    random, theta, x, _ = draw(seed, N=16, D=6, H=5)
    others = 2 + random.normal(size=x.shape)
    others[EXAMPLE] = x[EXAMPLE]
    direction = random.normal(size=5)

    def changes(kind):
        """Return the change by replacing all other examples, and from training to test."""
        y, G = one_example(kind, True, theta, x, EXAMPLE, direction)
        y_others, G_others = one_example(kind, True, theta, others, EXAMPLE, direction)
        y_test, _ = one_example(kind, False, theta, x, EXAMPLE, direction)
        return [max(largest(y_others - y), largest(G_others - G))], [largest(y_test - y)]

    (layer_others, layer_test), (batch_others, batch_test) = map(changes, ("layer", "batch"))
    y, G = one_example("batch", True, theta, x[:1], 0, direction)
    losses, constant = online(random)
    learned = losses[-TENTH:].mean()
    xs = random.normal(size=(20, 16, 6))
    (layer_arrays, longer), (batch_arrays, _) = (over_time(kind, xs) for kind in ("layer", "batch"))
    because = (
        f"{STEPS} steps of SGD on one example each take the training loss from {losses[0]:.3f} to "
        f"{learned:.3f} nats; constant outputs reach {constant:.3f}."
    )
    checks = (
        check(1, layer_others, batch_others),
        check(2, layer_test, batch_test),
        Check(3, "", bool(learned < constant), because),
        check(4, [layer_arrays, longer], [batch_arrays]),
        check(31, [largest(y - jnp.tanh(theta[:, -2])), largest(G)]),
    )
    return Result(checks, dict(x=x, theta=theta))
