"""Optimizers, clips and schedules by config, which return the direction of an update.

Some are those of the code behind the paper rather than of the literature: see each docstring.
"""

import jax
import jax.numpy as jnp
import optax

from ln.errors import InputError, choose
from ln.training import ranges


def scale_by_adam_uncorrected(b1=0.9, b2=0.999, eps=1e-8) -> optax.GradientTransformation:
    """Return Adam with the bias correction of the authors' code for §6.1 and §6.3.

    At update t = 1, 2, … it is

        direction = √(1 − (1−b2)^t) / (1 − (1−b1)^t) · m / (√v + eps)

    It uses the complements of b1 and b2 in place of b1 and b2. So the correction is
    about 1 from the second step on: with the usual values an update is 3.5 times the learning rate
    at first, 6.6 times around step 12, and close to Adam's after some 2,000 steps.
    """

    def update(grads, state, params=None):
        t = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, grads)
        correction = jnp.sqrt(1 - (1 - b2) ** t) / (1 - (1 - b1) ** t)
        # v is not corrected within the root: the common factor has the corrections of both.
        direction = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + eps), mu, nu)
        return direction, optax.ScaleByAdamState(t, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def clip_each(most: float) -> optax.GradientTransformation:
    """Clip the gradient of each array separately, to an L2 norm of at most ``most``."""

    def clip(grad):
        # A quotient of 1 or more, so that small gradients stay as they are, bit for bit.
        return grad / jnp.maximum(1, jnp.linalg.norm(grad.ravel()) / most)

    return optax.stateless(lambda grads, params: jax.tree.map(clip, grads))


def clip_root(above: float) -> optax.GradientTransformation:
    """Multiply all gradients by √(above / norm) if their common norm is larger than ``above``.

    This is the clipping of the reader's code for §6.2, with 100. The code intends a norm of 10, but
    compares the norm with its square and divides by its root. So large gradients, such as those of
    layer norm in long loops at the start, stay larger.
    """

    def clip(grads, params=None):
        # The norm is that of all arrays together, as one vector.
        norm = optax.tree.norm(grads)
        scale = jnp.sqrt(above / jnp.maximum(norm, above))
        return jax.tree.map(lambda grad: scale * grad, grads)

    return optax.stateless(clip)


CLIPS = dict(clip=optax.clip_by_global_norm, clip_each=clip_each, clip_root=clip_root)
OPTIMIZERS = {
    "adam": optax.scale_by_adam,
    "adam_uncorrected": scale_by_adam_uncorrected,
    "rmsprop": optax.scale_by_rms,
}


def inverse_sqrt(tau: float) -> optax.Schedule:
    """Return the factor 1 / √(1 + t / tau) of update t.

    The updates are t = 0, 1, … The decay of the convergence analysis of Adam (Kingma and Ba 2015,
    §4), begun after tau updates.
    """
    return lambda t: 1 / jnp.sqrt(1 + t / tau)


def make_schedule(config) -> optax.Schedule | None:
    """Return the factor of the learning rates of all lanes, None if they are constant.

    Raises:
        InputError: an unknown kind, or a tau that the kind does not take.
    """
    schedule = config.get("schedule") or dict(kind="constant", tau=0.0)
    kinds, tau = dict(constant=None, inverse_sqrt=inverse_sqrt), schedule["tau"]
    make = choose("config.schedule.kind", schedule["kind"], kinds)
    # A tau that has no effect is an error, like every setting that would be ignored.
    if bool(make) != (tau > 0):
        raise InputError(
            f"config.schedule.tau is {tau}; inverse_sqrt needs a positive number of updates, and a "
            f"constant learning rate 0."
        )
    return make and make(tau)


def make_optimizer(config) -> optax.GradientTransformation:
    """Return the gradient transformation of ``config.optimizer``, which returns a direction.

    First it clips gradients: ``config.clip`` bounds their common norm, ``config.clip_each`` that of
    each array, and ``config.clip_root`` is the bound of `clip_root`; 0 means no clip, and the last
    two are optional keys. The step size is ``state.lr``, so that lanes can differ in it, times
    the factor of ``config.schedule``.

    Raises:
        InputError: an unknown kind or schedule, or options that the kind does not take.
    """
    ranges.check(config)
    schedule, options = make_schedule(config), dict(config.optimizer)
    kind = options.pop("kind")
    make = choose("config.optimizer.kind", kind, OPTIMIZERS)
    try:
        direction = make(**options)
    except TypeError as error:
        raise InputError(
            f"config.optimizer: {kind} does not take all of {', '.join(options)} ({error}). Give "
            f"only options of {kind} in the config file."
        ) from error
    # Clips come before the moments, which would otherwise remember the gradient that is clipped.
    clips = [clip(most) for key, clip in CLIPS.items() if (most := config.get(key, 0.0))]
    # A constant rate adds nothing, so that its state is that of checkpoints without a schedule.
    factor = [optax.scale_by_schedule(schedule)] if schedule else []
    return optax.chain(*clips, direction, *factor)
