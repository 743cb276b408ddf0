"""Loops of `rnn.unroll` and `rnn.scan`, fast: one custom_vjp that does only what is recurrent.

Autodiff of a scan keeps every intermediate value of a step, and adds up the gradients of matrices
in every turn of the reverse loop. Here the forward loop keeps the carries and the products
a = W h; the reverse loop hands out d a; and the gradient of W is one product after it. For a cell,
whose one product is a_h = W_h h:

    forward     a_h[t] = W_h h[t-1];  carry[t] = update(θ, carry[t-1], a_x[t], a_h[t])
    backward    d carry[t-1], d a_x[t], d a_h[t] = updateᵀ(d carry[t]);  d h[t-1] += d a_h[t] W_hᵀ
    after       d W_h = Σ_t h[t-1]ᵀ d a_h[t]

updateᵀ is autodiff's, of the cell's own equations: there is no second copy of them. In
`rnn.unroll` the products with W_x are outside, so W_x's gradient is one product as well; so is the
centring of both matrices (`norm.Norm.centred`), which saves layer norm its means.
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


def default() -> Schedule:
    """The one for the default device."""
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR


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
    schedule = schedule or default()
    if schedule.ahead:
        run = _ahead(update, dtype, schedule.unroll)
        return run(theta, W_h, carry, a_x, mask, stats)

    def step(product, theta, carry, x):
        a_x, mask, stats = x
        a_h = product(0, hidden(carry), dtype)
        new, stats = update(theta, jax.lax.stop_gradient(stats), carry, a_x, a_h, mask)
        new = keep(mask, new, carry)
        return new, (hidden(new), stats)

    last, (hs, stats) = scan(step, [W_h], theta, carry, (a_x, mask, stats), schedule.unroll)
    return hs, last, stats


def scan(step: Callable, Ws: list, theta, carry, xs, unroll: int = 1):
    """`jax.lax.scan` of carry, y = step(product, theta, carry, x), for any step with products h W.

    It asks for its products as product(k, h, dtype), which is h Ws[k]; one may come out of others.
    The forward loop keeps carries and products a_k; the reverse loop linearizes one step after the
    other, in which the a_k are known, and hands out d a_k; the gradient of every matrix is one
    product after it.

    Args:
        step: a pure function that closes over no array.
        Ws: matrices ``[D, n]``.
        theta: whatever else is differentiated and the same at all steps.
        carry: before the first step; floats.
        xs: leaves ``[T, ...]``.
        unroll: time steps per turn of a loop.

    Returns:
        The last carry, and the ys, which must be floats. It can be differentiated as `recurrence`.
    """
    dtypes: dict = {}  # what is seen while the step is traced, of product k: its dtype,
    operands: dict = {}  # and where its h is among the carry's leaves and the other h
    in_carry: list = []  # of the ys: their structure, and where they are in the carry
    theta, constants, whole_theta = split(theta)
    xs, others, whole_x = split(xs)
    loop = partial(jax.lax.scan, unroll=unroll)

    def forward(Ws, theta, carry, xs, constants, others):
        def body(carry, x):
            products = {}

            def product(k, h, dtype=None):
                dtypes[k], products[k] = dtype, matmul(h, Ws[k], dtype)
                return products[k]

            new, y = step(product, whole_theta(theta, constants), carry, whole_x(*x))
            # What is in the carry is stacked once, also where it is a y.
            y, treedef = jax.tree.flatten(y)
            in_carry[:] = treedef, [index_of(leaf, jax.tree.leaves(new)) for leaf in y]
            rest = [leaf for leaf, n in zip(y, in_carry[1], strict=True) if n is None]
            return new, (new, rest, products)

        last, (carries, rest, products) = loop(body, carry, (xs, others))
        rest, stacked = iter(rest), jax.tree.leaves(carries)
        ys = [next(rest) if n is None else stacked[n] for n in in_carry[1]]
        residuals = Ws, theta, carry, xs, constants, others, carries, products
        return (last, in_carry[0].unflatten(ys)), residuals

    def backward(residuals, cotangents):
        Ws, theta, first, xs, constants, others, carries, products = residuals
        d_last, d_ys = cotangents

        def before(t):
            """The carry that step t began with."""

            def of(first, others):
                return jnp.where(t > 0, others[jnp.maximum(t - 1, 0)], first)

            return jax.tree.map(of, first, carries)

        def linearize(carry, x, others, products):
            def of(theta, carry, x, taps):
                seen = jax.tree.leaves(carry)
                kept = len(seen)

                def product(k, h, dtype=None):
                    operands[k] = index_of(h, seen)
                    if operands[k] is None:
                        operands[k] = len(seen)
                        seen.append(h)
                    return _known_product(dtype, h, Ws[k], products[k], taps[k])

                x = whole_x(x, others)
                return step(product, whole_theta(theta, constants), carry, x), seen[kept:]

            taps = jax.tree.map(jnp.zeros_like, products)
            _, transposed, made = jax.vjp(of, theta, carry, x, taps, has_aux=True)
            return transposed, made

        # d x[t] and d a[t] take the places of x[t] and a[t] in memory. A turn reads for the next
        # one after it has written, or XLA would copy the whole arrays every time.
        def body(sums, inputs):
            d_carry, d_theta, stacks, (x, products) = sums
            t, d_y, others = inputs
            transposed, made = linearize(before(t), x, others, products)
            more, d_carry, *gradients = transposed((d_carry, d_y))
            d_theta = jax.tree.map(jnp.add, d_theta, more)
            stacks = jax.tree.map(lambda s, d: s.at[t].set(d), stacks, tuple(gradients))
            here = jax.tree.map(lambda s: s[jnp.maximum(t - 1, 0)], stacks)
            return (d_carry, d_theta, stacks, here), made

        stacks = xs, products
        here = jax.tree.map(lambda s: s[-1], stacks)
        start = d_last, jax.tree.map(jnp.zeros_like, theta), stacks, here
        steps = jnp.arange(len(jax.tree.leaves(carries)[0])), d_ys, others
        (d_carry, d_theta, stacks, _), made = loop(body, start, steps, reverse=True)
        d_xs, d_products = stacks
        stacked = jax.tree.leaves(befores(first, carries)) + made

        def of_matrix(k):
            h, d = (rows(array) for array in (stacked[operands[k]], d_products[k]))
            return matmul(h.T, d, dtypes[k])

        d_Ws = [of_matrix(k) for k in range(len(Ws))]
        return d_Ws, d_theta, d_carry, d_xs, None, None

    run = jax.custom_vjp(lambda *arguments: forward(*arguments)[0])
    run.defvjp(forward, backward)
    return run(Ws, theta, carry, xs, constants, others)


def split(tree):
    """The leaves of a tree that are floats, the others, and what makes a tree of both again."""
    leaves, treedef = jax.tree.flatten(tree)
    structure: Any = treedef
    is_float = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]
    floats, others = (
        [leaf for leaf, f in zip(leaves, is_float, strict=True) if f == kind]
        for kind in (True, False)
    )

    def join(floats, others):
        of = {True: iter(floats), False: iter(others)}
        return structure.unflatten([next(of[f]) for f in is_float])

    return floats, others, join


def befores(first, carries):
    """The carry that each step began with, ``[T, ...]``."""

    def of(first, others):
        return jnp.concatenate([first[None], others[:-1]])

    return jax.tree.map(of, first, carries)


def index_of(leaf, leaves: list) -> int | None:
    """Where the very same array is among leaves."""
    return next((n for n, other in enumerate(leaves) if other is leaf), None)


def rows(array):
    return array.reshape(-1, array.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _known_product(dtype, h, W, a, tap):
    """a = h W, known already. Its gradient goes to h, and as it is to the tap."""
    return a


def _of_known_product(dtype, W, d):
    return matmul(d, W.T, dtype), jnp.zeros_like(W), jnp.zeros_like(d), d


_known_product.defvjp(lambda dtype, h, W, a, tap: (a, W), _of_known_product)


def _ahead(update: Callable, dtype, unroll: int) -> Callable:
    """`recurrence` with every step linearized before the reverse loop."""
    scan = partial(jax.lax.scan, unroll=unroll)

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
        before = befores(carry, carries)

        def linearize(carry, a_x, a_h, mask, stats):
            def of(theta, carry, a_x, a_h):
                return masked(theta, carry, a_x, a_h, mask, stats)[0]

            return jax.vjp(of, theta, carry, a_x, a_h)[1]

        transposed = jax.vmap(linearize)(before, a_x, a_h, mask, stats)

        def step(d_carry, inputs):
            """Adds d h[t] of the outputs to d carry[t], and goes on to d carry[t-1]."""
            d_h, transposed = inputs
            d_carry = add_to_hidden(d_carry, d_h)
            _, d_before, _, d_a_h = transposed(d_carry)
            d_before = add_to_hidden(d_before, matmul(d_a_h, W_h.T, dtype))
            return d_before, (d_carry, d_a_h)

        d_carry, (d_carries, d_a_h) = scan(step, d_last, (d_hs, transposed), reverse=True)
        of_steps, _, d_a_x, _ = jax.vmap(lambda t, d: t(d))(transposed, d_carries)
        d_theta = jax.tree.map(lambda d: d.sum(0), of_steps)
        d_W_h = matmul(rows(hidden(before)).T, rows(d_a_h), dtype)
        return d_theta, d_W_h, d_carry, d_a_x, None, None

    run = jax.custom_vjp(lambda *arguments: forward(*arguments)[0])
    run.defvjp(forward, backward)
    return run
