"""A fast loop for `rnn.scan`, hence for `rnn.unroll`: a custom gradient of what is recurrent.

Autodiff of `jax.lax.scan` keeps every intermediate value of a step for the reverse loop, and adds
the gradients of the weight matrices up in every turn of it. Both are work and memory traffic that
the recurrence does not need. For a cell, whose only recurrent product is a_h = W_h h:

    forward     for t = 1 … T:    a_h[t] = W_h h[t-1]
                                  carry[t] = update(θ, carry[t-1], a_x[t], a_h[t])
                keep carry[t] and a_h[t], and nothing else
    backward    for t = T … 1:    linearize update at (carry[t-1], a_x[t], a_h[t])
                                  d carry[t-1], d a_x[t], d a_h[t] = its transpose at d carry[t]
                                  d h[t-1] += d a_h[t] W_hᵀ
    afterwards  d W_h = Σ_t h[t-1]ᵀ d a_h[t], one product over all time steps and examples

The transpose is autodiff's, of the cell's own equations: they are not written a second time.
`rnn.unroll` computes a_x = W_x x for all time steps before the loop, so the gradient of W_x is one
product as well. Layer norm's mean is also taken out of the loop, by centring both matrices
(`norm.Norm.centred`).

`scan` takes any step with products h W, which are known by the order in which the step asks for
them. On accelerators it linearizes all time steps at once before the reverse loop.
"""

from collections.abc import Callable, Iterator
import contextlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from ln.norm import at_least_float32
from ln.product import AnyArray, is_explicit, matmul, vary_alike, weight_gradient


class Schedule(NamedTuple):
    """Layout of the loops; it changes the speed and nothing else.

    Attributes:
        unroll: the most time steps per turn of a loop (`steps_per_turn`). XLA fuses kernels across
            them, which pays on a GPU, where starting a kernel takes longer than a small kernel
            runs. Compiling takes longer in proportion.
        ahead: whether to linearize `update` at all time steps at once before the reverse loop,
            which then only multiplies, and to take the gradients of θ and a_x after it. This needs
            the fewest kernels per time step (GPU), but the linearization goes through memory.
            Otherwise each turn of the reverse loop linearizes its own step, while it is in the
            cache (CPU).
    """

    unroll: int = 1
    ahead: bool = False


CPU = Schedule(unroll=1, ahead=False)
ACCELERATOR = Schedule(unroll=20, ahead=True)


@contextlib.contextmanager
def explained_jvp() -> Iterator[None]:
    """Add the remedy to jax's error about forward differentiation of a custom gradient."""
    try:
        yield
    except TypeError as error:
        if "forward-mode" not in str(error):
            raise
        raise TypeError(
            "The fast schedules have no forward derivative (jvp). Pass schedule='plain', or use "
            "ln.rnn.plain_by_default()."
        ) from error


def default() -> Schedule:
    """Return the schedule for the default device."""
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR


def steps_per_turn(T: int, most: int) -> int:
    """Return how many of T time steps a turn of a loop makes."""
    # A rest that fills no turn would be compiled once more, and its results copied behind those of
    # the loop. So a turn is shorter, down to half, if there is none then.
    return next((n for n in range(most, most // 2, -1) if T % n == 0), most)


def hidden(carry: Any) -> Any:
    """Return h of a carry, which is (c, h) or h."""
    # jax.tree keeps the order of a tuple, so h is the last leaf of (c, h) as of h alone.
    return jax.tree.leaves(carry)[-1]


def keep(mask: Bool[AnyArray, " B"] | None, new: Any, old: Any) -> Any:
    """Return the new carry where mask ``[B]`` is true, else the old one."""
    if mask is None:
        return new
    # A choice, not a sum with weights 0 and 1: a step on padding may return infinity, and 0 times
    # infinity is NaN.
    return jax.tree.map(lambda new, old: jnp.where(mask[:, None], new, old), new, old)


def scan(
    step: Callable[..., tuple[Any, Any]],
    Ws: list[Float[AnyArray, "..."]],
    theta: Any,
    carry: Any,
    xs: Any,
    schedule: Schedule | None = None,
) -> tuple[Any, Any]:
    """Run carry, y = step(product, theta, carry, x) over xs, for any step with products h W.

    The step asks for its products by product(k, h, dtype), which is h Ws[k]. The input h of one
    product may depend on another product. The forward loop keeps the carries and the products a_k.
    The reverse loop linearizes one step after the other, with the kept a_k as constants, and stacks
    d a_k. After it, the gradient of every matrix is one product.

    Args:
        step: a pure function that closes over no array.
        Ws: matrices ``[D, n]``.
        theta: everything else that is differentiated and the same at all steps.
        carry: before the first step; floats.
        xs: leaves ``[T, ...]``.
        schedule: None: the schedule for the default device.

    Returns:
        The last carry, and the ys, which must be floats. Reverse differentiation works, also
        repeatedly; forward differentiation (jvp) raises jax's TypeError.
    """
    # Each loop computes and keeps, for products a_k = h_k W_k of a step:
    #
    #     forward      carry[t-1], x[t]     -- step -->       carry[t], y[t]     keep carry, a_k
    #     backward     d carry[t], d y[t]   -- transpose -->  d carry[t-1], d x[t], d a_k[t]
    #     afterwards   h_k[t], d a_k[t]     -- product -->    d W_k = sum over t of h_k[t]ᵀ d a_k[t]
    #
    # The transpose needs the values within step t, which are computed again from carry[t-1], x[t]
    # and the kept a_k[t]. So no matrix product is computed twice: with a_k known, W_k is used only
    # to carry d a_k on to d h_k (`_known_product`). The gradient of θ is a sum over t: on a CPU in
    # the loop (`one_by_one`), on an accelerator after it (`all_before`).
    #
    # The step is traced once in each direction. These are filled while it is:
    dtypes: dict = {}  # k -> dtype of product k
    operands: dict = {}  # k -> index of the input h of product k, see `backward`
    in_carry: list = []  # structure of the ys, and for each leaf its index in the carry or None
    # Below, everything is an argument of the custom gradient, also constants such as words and
    # masks: a tracer that it closed over would belong to another level of vmap or grad, and leak.
    Ws, theta, carry, xs = vary_alike(Ws, theta, carry, xs)
    theta, constants, whole_theta = split(theta)
    xs, others, whole_x = split(xs)
    schedule = schedule or default()
    # On Explicit axes, jax 0.11 computes wrong gradients of a vmapped linearization, silently.
    ahead = schedule.ahead and not any(map(is_explicit, jax.tree.leaves((carry, xs))))
    T = len(jax.tree.leaves((xs, others))[0])
    steps = steps_per_turn(T, schedule.unroll)
    # scripts/count_kernels.py reads this name in the compiled program.
    loop = jax.named_call(partial(jax.lax.scan, unroll=steps), name=f"{steps}_steps_per_turn")

    def forward(Ws, theta, carry, xs, constants, others):
        def body(carry, x):
            products = {}

            def product(k, h, dtype=None):
                dtypes[k], products[k] = dtype, matmul(h, Ws[k], dtype)
                return products[k]

            new, y = step(product, whole_theta(theta, constants), carry, whole_x(*x))
            # An LSTM's h is both a y and part of the carry: stack it once.
            y, treedef = jax.tree.flatten(y)
            in_carry[:] = treedef, [index_of(leaf, jax.tree.leaves(new)) for leaf in y]
            rest = [leaf for leaf, n in zip(y, in_carry[1], strict=True) if n is None]
            return new, (new, rest, products)

        last, (carries, rest, products) = loop(body, carry, (xs, others))
        rest, stacked = iter(rest), jax.tree.leaves(carries)
        ys = [next(rest) if n is None else stacked[n] for n in in_carry[1]]
        # The memory of training: T carries and products, the inputs, and no gate and no normalized
        # value. Those are recomputed in the reverse pass; they are elementwise, and cost less than
        # their traffic.
        residuals = Ws, theta, carry, xs, constants, others, carries, products
        return (last, in_carry[0].unflatten(ys)), residuals

    def backward(residuals, cotangents):
        Ws, theta, first, xs, constants, others, carries, products = residuals
        d_last, d_ys = cotangents

        # The carry that each step began with, [T, ...].
        before = jax.tree.map(lambda h, hs: jnp.concatenate([h[None], hs[:-1]]), first, carries)
        # Sums over many time steps. In half precision they would lose their last digits.
        zeros = jax.tree.map(lambda leaf: at_least_float32(jnp.zeros_like(leaf)), theta)

        def linearize(carry, x, others, products):
            def known_step(theta, carry, x, taps):
                # The gradient of W_k needs the h of every step. Most h are leaves of the carry,
                # which is kept already; the others (`made`) are stacked by this loop.
                seen = jax.tree.leaves(carry)
                kept = len(seen)

                def product(k, h, dtype=None):
                    operands[k] = index_of(h, seen)
                    if operands[k] is None:
                        operands[k] = len(seen)
                        seen.append(h)
                    return _known_product(partial(_times_W, Ws[k], dtype), h, products[k], taps[k])

                x = whole_x(x, others)
                return step(product, whole_theta(theta, constants), carry, x), seen[kept:]

            # A tap is a zero that is added to a product: its gradient is d a_k.
            taps = jax.tree.map(jnp.zeros_like, products)
            # The step runs forward once more here, with the kept products in place of its matrix
            # products, and jax.vjp transposes it. So a change of a cell's equations needs no change
            # of a gradient.
            _, transposed, made = jax.vjp(known_step, theta, carry, x, taps, has_aux=True)
            return transposed, made

        def one_by_one():
            # d x[t] and d a[t] overwrite x[t] and a[t]. Each turn reads what the next one needs
            # after it has written; with the reads first, XLA would copy the whole arrays in every
            # turn. For the same reason the carry before step t is selected here.
            def carry_before(t):
                def select(first, stack):
                    return jnp.where(t > 0, stack[jnp.maximum(t - 1, 0)], first)

                return jax.tree.map(select, first, carries)

            def body(sums, inputs):
                d_carry, d_theta, stacks, (x, products) = sums
                t, d_y, others = inputs
                transposed, made = linearize(carry_before(t), x, others, products)
                more, d_carry, *gradients = transposed((d_carry, d_y))
                d_theta = jax.tree.map(
                    lambda total, d: total + d.astype(total.dtype), d_theta, more
                )
                stacks = jax.tree.map(lambda s, d: s.at[t].set(d), stacks, tuple(gradients))
                here = jax.tree.map(lambda s: s[jnp.maximum(t - 1, 0)], stacks)
                return (d_carry, d_theta, stacks, here), made

            stacks = xs, products
            here = jax.tree.map(lambda s: s[-1], stacks)
            start = d_last, zeros, stacks, here
            inputs = jnp.arange(T), d_ys, others
            (d_carry, d_theta, stacks, _), made = loop(body, start, inputs, reverse=True)
            return d_theta, d_carry, *stacks, made

        def all_before():
            # Step t is linear in d carry[t], and what it multiplies by depends on nothing that
            # comes out of the reverse loop. So all of that is computed at once, [T, ...]: the loop
            # then has only the kernels that must wait for each other.
            residuals, at, made = _linearize_all(linearize, (before, xs, others, products))

            def body(d_carry, inputs):
                d_y, step = inputs
                # The gradients of θ and x are not used here, so the compiler removes them from the
                # loop.
                _, d_before, _, d_products = at(step)((d_carry, d_y))
                return d_before, (d_carry, d_products)

            d_carry, (d_carries, d_products) = loop(body, d_last, (d_ys, residuals), reverse=True)
            # Once more for θ and x, outside of the loop: kernels over all time steps instead of T.
            transposed = jax.vmap(lambda step, *d: at(step)(d))
            d_thetas, _, d_xs, _ = transposed(residuals, d_carries, d_ys)
            d_theta = jax.tree.map(
                lambda zero, d: zero + d.sum(0, dtype=zero.dtype), zeros, d_thetas
            )
            return d_theta, d_carry, d_xs, d_products, made

        d_theta, d_carry, d_xs, d_products, made = all_before() if ahead else one_by_one()
        d_theta = jax.tree.map(lambda d, leaf: d.astype(leaf.dtype), d_theta, theta)
        stacked = jax.tree.leaves(before) + made

        # One product [D, T B] x [T B, n] for each matrix. Autodiff of the loop would do T products
        # [D, B] x [B, n], and read and write the sum [D, n] in each turn.
        def gradient(k):
            return weight_gradient(stacked[operands[k]], d_products[k], Ws[k], dtypes[k])

        d_Ws = [gradient(k) for k in range(len(Ws))]
        return d_Ws, d_theta, d_carry, d_xs, None, None

    # Without differentiation nothing reads the residuals, and the compiler drops their stacks.
    run = jax.custom_vjp(lambda *arguments: forward(*arguments)[0])
    run.defvjp(forward, backward)
    return run(Ws, theta, carry, xs, constants, others)


def split(tree: Any) -> tuple[list, list, Callable[[Any, Any], Any]]:
    """Return the leaves of a tree that are floats, the others, and a function that joins both.

    A custom_vjp wants a gradient for every float, and None for integers such as words or masks.
    """
    leaves, treedef = jax.tree.flatten(tree)
    is_float = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]
    floats, others, join = partition(leaves, is_float)
    return floats, others, lambda *parts: jax.tree.unflatten(treedef, join(*parts))


def partition(items: list, chosen: list[bool]) -> tuple[list, list, Callable[[Any, Any], list]]:
    """Return the chosen items, the others, and a function that merges two such lists again."""

    def join(first, second):
        parts = {True: iter(first), False: iter(second)}
        return [next(parts[choice]) for choice in chosen]

    pairs = list(zip(items, chosen, strict=True))
    return [item for item, c in pairs if c], [item for item, c in pairs if not c], join


def index_of(leaf: Any, leaves: list) -> int | None:
    """Return the index of the very same array among leaves, None if it is not there."""
    return next((n for n, candidate in enumerate(leaves) if candidate is leaf), None)


def _times_W(W, dtype, d):
    """Return d Wᵀ, the gradient of h where d is that of h W."""
    return matmul(d, W.T, dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _known_product(transpose, h, a, tap):
    """Return a = h W, which is known already. Its gradient d goes to h as d Wᵀ, and to the tap.

    W is bound in `transpose`, hence is no residual, and gets no gradient: `scan` takes it after the
    loop.
    """
    # a and tap are equal to the product and to 0 wherever this is called, so the gradients that
    # belong to h W alone are those of h and of the tap; a is a residual of the forward loop.
    return a


def _known_product_fwd(transpose, h, a, tap):
    return a, jnp.zeros((), h.dtype)


def _known_product_bwd(transpose, zero, d):
    return transpose(d).astype(zero.dtype), jnp.zeros_like(d), d


_known_product.defvjp(_known_product_fwd, _known_product_bwd)


def _linearize_all(linearize: Callable, steps) -> tuple[list, Callable, Any]:
    """Linearize all time steps at once.

    Args:
        linearize: returns a vjp function, which is a pytree of its residuals, and auxiliary values.
        steps: the arguments of `linearize`, leaves ``[T, ...]``.

    Returns:
        The residuals ``[T, ...]``, a function that makes the vjp function of a step of its
        residuals, and the auxiliary values ``[T, ...]``.
    """
    structure: Any = None

    def residuals(*step):
        nonlocal structure
        transposed, made = linearize(*step)
        leaves, structure = jax.tree.flatten(transposed)
        return leaves, made

    # Values that no step changes, such as the text that attention reads, are kept once: vmap would
    # repeat them T times. These are the residuals that do not depend on an argument.
    jaxpr = jax.make_jaxpr(residuals)(*jax.tree.map(lambda leaf: leaf[0], steps)).jaxpr
    count = structure.num_leaves
    dependent = {id(v) for v in jaxpr.invars}
    for equation in jaxpr.eqns:
        if not dependent.isdisjoint(map(id, equation.invars)):
            dependent |= set(map(id, equation.outvars))
    varies = [id(v) in dependent for v in jaxpr.outvars[:count]]
    leaves, made = jax.vmap(residuals, out_axes=([0 if v else None for v in varies], 0))(*steps)
    varying, same, join = partition(leaves, varies)
    return varying, lambda step: structure.unflatten(join(step, same)), made
