"""The recurrence of `rnn.unroll`, fast: one custom_vjp whose loops do only what is recurrent.

Autodiff of a scan keeps every intermediate value of a step, and adds up the gradient of W_h, a
matrix, in every turn of the reverse loop. Here the forward loop keeps the carries and a_h = W_h h;
the reverse loop hands out d a_x and d a_h; and the gradient of W_h is one product after it:

    forward     a_h[t] = W_h h[t-1];  carry[t] = update(θ, carry[t-1], a_x[t], a_h[t])
    backward    d carry[t-1], d a_x[t], d a_h[t] = updateᵀ(d carry[t]);  d h[t-1] += d a_h[t] W_hᵀ
    after       d W_h = Σ_t h[t-1]ᵀ d a_h[t]

updateᵀ is autodiff's, of the cell's own equations: there is no second copy of them. The products
with W_x are outside, so W_x's gradient is one product as well; so is the centring of both matrices
(`norm.Norm.centred`), which saves layer norm its means.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ln.norm import matmul


class Schedule(NamedTuple):
    """How the loops are laid out; it changes the speed and nothing else.

    Attributes:
        unroll: time steps per turn of a loop. Kernels are fused across them, which pays where
            starting a kernel costs (GPU).
        ahead: linearizes `update` at all time steps at once before the reverse loop, which then
            only multiplies; and takes the gradients of θ and a_x after it. Fewest kernels per time
            step (GPU), but the linearization goes through memory. Else each turn of the reverse
            loop linearizes its own step, while it is in the cache (CPU).
    """

    unroll: int = 1
    ahead: bool = False


CPU = Schedule(unroll=1, ahead=False)
ACCELERATOR = Schedule(unroll=8, ahead=True)


def hidden(carry):
    """h of a carry, (c, h) or h."""
    return jax.tree.leaves(carry)[-1]


def add_to_hidden(carry, d_h):
    *rest, h = jax.tree.leaves(carry)
    return jax.tree.unflatten(jax.tree.structure(carry), [*rest, h + d_h])


def keep(mask, new, old):
    """The new carry where mask ``[B]`` is true, else the old one."""
    if mask is None:
        return new
    return jax.tree.map(lambda new, old: jnp.where(mask[:, None], new, old), new, old)


def recurrence(
    update: Callable,
    theta,
    W_h,
    carry,
    a_x,
    mask,
    stats,
    dtype: Any = None,
    schedule: Schedule | None = None,
):
    """Runs ``carry, stats = update(theta, stats, carry, a_x, W_h h, mask)`` over all time steps.

    Args:
        update: a pure function that closes over no array.
        theta: its parameters, those of all steps.
        W_h: ``[H, n H]``.
        carry: before the first step; the last leaf is h ``[B, H]``.
        a_x: ``[T, B, n H]``.
        mask: ``[T, B]`` or None; where false, the carry stands still.
        stats: leaves ``[T, ...]``, not differentiated.
        dtype: of the operands of matrix products, see `norm.matmul`.
        schedule: None: the one for the default device.

    Returns:
        hs ``[T, B, H]``, the last carry, and the new stats ``[T, ...]``. It can be differentiated
        backwards, also more than once; forward differentiation (jvp) is a TypeError of jax.
    """
    if schedule is None:
        schedule = CPU if jax.default_backend() == "cpu" else ACCELERATOR
    run = _make(update, dtype, schedule)
    return run(theta, W_h, carry, a_x, mask, stats)


def _make(update: Callable, dtype, schedule: Schedule) -> Callable:
    scan = partial(jax.lax.scan, unroll=schedule.unroll)

    def masked(theta, carry, a_x, a_h, mask, stats):
        new, stats = update(theta, stats, carry, a_x, a_h, mask)
        return keep(mask, new, carry), stats

    def forward(theta, W_h, carry, a_x, mask, stats):
        def step(carry, inputs):
            a_x, mask, stats = inputs
            a_h = matmul(hidden(carry), W_h, dtype)
            new, stats = masked(theta, carry, a_x, a_h, mask, stats)
            return new, (new, a_h, stats)

        last, (carries, a_h, new_stats) = scan(step, carry, (a_x, mask, stats))
        residuals = theta, W_h, carry, carries, a_x, a_h, mask, stats
        return (hidden(carries), last, new_stats), residuals

    def backward(residuals, cotangents):
        theta, W_h, carry, carries, a_x, a_h, mask, stats = residuals
        d_hs, d_last, _ = cotangents
        before = jax.tree.map(  # the carry that each step began with
            lambda first, others: jnp.concatenate([first[None], others[:-1]]), carry, carries
        )

        def linearize(carry, a_x, a_h, mask, stats):
            def of(theta, carry, a_x, a_h):
                return masked(theta, carry, a_x, a_h, mask, stats)[0]

            return jax.vjp(of, theta, carry, a_x, a_h)[1]

        def back(d_carry, d_h, transposed):
            """Adds d h[t] of the outputs to d carry[t], and goes on to d carry[t-1] and others."""
            d_carry = add_to_hidden(d_carry, d_h)
            d_theta, d_before, d_a_x, d_a_h = transposed(d_carry)
            d_before = add_to_hidden(d_before, matmul(d_a_h, W_h.T, dtype))
            return d_carry, d_before, d_theta, d_a_x, d_a_h

        if schedule.ahead:
            transposed = jax.vmap(linearize)(before, a_x, a_h, mask, stats)

            def step(d_carry, inputs):
                d_carry, d_before, _, _, d_a_h = back(d_carry, *inputs)
                return d_before, (d_carry, d_a_h)

            d_carry, (d_carries, d_a_h) = scan(step, d_last, (d_hs, transposed), reverse=True)
            of_steps, _, d_a_x, _ = jax.vmap(lambda t, d: t(d))(transposed, d_carries)
            d_theta = jax.tree.map(lambda d: d.sum(0), of_steps)
        else:
            # d a_x[t] and d a_h[t] take the places of a_x[t] and a_h[t] in memory. A turn reads for
            # the next one after it has written, or XLA would copy the whole arrays every time.
            def step(sums, inputs):
                d_carry, d_theta, (a_x, a_h), here = sums
                t, d_h, carry, mask, stats = inputs
                transposed = linearize(carry, here[0], here[1], mask, stats)
                _, d_before, more, d_a_x, d_a_h = back(d_carry, d_h, transposed)
                a_x, a_h = a_x.at[t].set(d_a_x), a_h.at[t].set(d_a_h)
                before_t = jnp.maximum(t - 1, 0)
                d_theta = jax.tree.map(jnp.add, d_theta, more)
                return (d_before, d_theta, (a_x, a_h), (a_x[before_t], a_h[before_t])), None

            start = d_last, jax.tree.map(jnp.zeros_like, theta), (a_x, a_h), (a_x[-1], a_h[-1])
            steps = jnp.arange(len(a_x)), d_hs, before, mask, stats
            (d_carry, d_theta, (d_a_x, d_a_h), _), _ = scan(step, start, steps, reverse=True)

        n = d_a_h.shape[-1]
        h = hidden(before).reshape(-1, len(W_h))
        d_W_h = matmul(h.T, d_a_h.reshape(-1, n), dtype)
        return d_theta, d_W_h, d_carry, d_a_x, None, None

    run = jax.custom_vjp(lambda *arguments: forward(*arguments)[0])
    run.defvjp(forward, backward)
    return run
