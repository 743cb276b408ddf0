"""Recurrent layers with a place for a norm: the RNN of eq. 4, the supplement's LSTM and GRU.

    cell = LSTM(256, Norm("layer", ("x", "h", "c")))
    hs, carry = unroll(cell, xs, mask)        # inside a Flax module: xs [T, B, D] -> hs [T, B, H]

A cell computes summed inputs a_x = W_x x, which depend on nothing recurrent, and a_h = W_h h, which
does; `update` is the rest of its equations. From these three parts come

    project(x) -> a_x                     the part that `unroll` does for all time steps at once
    step(carry, a_x, mask) -> carry, h    what must happen in order
    cell(carry, x, mask) -> carry, h      both, for models whose inputs depend on the state

A cell with batch norm keeps separate statistics for every time step (Cooijmans et al. 2016): each
leaf of "stats" has a leading time axis. They are not differentiated.

Shapes: T time steps, B examples, D inputs, H units; arrays are time-major. The carry is (c, h) for
the LSTM and h for the others. If a mask ``[T, B]`` is false, the carry does not change, so the
last carry is each example's carry at its own end, and ``unroll(cell, xs[::-1], mask[::-1])`` runs
backwards in time.
"""

from collections.abc import Callable, Mapping
import dataclasses
import itertools
from typing import Any, ClassVar

import flax.linen as nn
import jax
from jax.nn import sigmoid
import jax.numpy as jnp
from jax.numpy import tanh
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from ln import fused
from ln.errors import InputError, check_flag, check_positive, check_whole
from ln.norm import Checked, Dense, Initializer, Mask, Norm, check_mask
from ln.product import AnyArray, is_plain, matmul, vary_alike
from ln.product import plain_by_default as plain_by_default

Carry = Any  # (c, h) or h, each [B, H]; cells of other projects may have more parts
Sums = Float[AnyArray, "B nH"]  # summed inputs of the n gates of a cell at a time step
AfterStep = tuple[Carry, Float[Array, "B H"]]  # the next carry, and h


def orthogonal_blocks(
    key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float_
) -> Float[Array, "H nH"]:
    """Draw W_h ``[H, n H]`` of orthogonal H x H blocks, as in the authors' layers.py.

    Args:
        key: of jax.random.
        shape: (H, n H).
        dtype: of the matrix.

    Raises:
        InputError: the matrix does not consist of square blocks.
    """
    if len(shape) != 2 or min(shape) < 1 or shape[1] % shape[0]:
        raise InputError(f"orthogonal_blocks needs a shape (H, n H); got {shape}.")
    H, n = shape[0], shape[1] // shape[0]
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    # One block after the other, also under vmap: two batched QR decompositions at once can wait for
    # each other forever in jaxlib 0.10 on a CPU (three LSTMs of 400 units on two cores).
    block = jax.custom_batching.sequential_vmap(
        lambda key: nn.initializers.orthogonal()(key, (H, H), dtype)
    )
    return jnp.concatenate(jax.lax.map(block, jax.random.split(key, n)), axis=1)


def uniform(limit: float) -> Initializer:
    """Return an initializer that draws from -limit to limit; raise InputError if it is below 0."""
    check_positive("limit", limit)
    return lambda key, shape, dtype=float: jax.random.uniform(key, shape, dtype, -limit, limit)


class Cell(Checked):
    """Base class of the three cells.

    A cell defines `setup`, which makes W_x, W_h and b, and `update`; of its parameters `update` may
    use ``b`` and those of modules named ``norm_…``. With further matrices it overrides `project`
    and `recur`.

    Attributes:
        units: H.
        norm: makes the norms of the cell's sites.
        learned: parts of the initial carry, "h" and (LSTM) "c", that are parameters. All parts
            start at 0. The authors' attentive reader learns "h" (learn_h0).
        bias_inside: whether b is added to W_x x before its norm, as in the authors' code
            (layers.py); the LSTM then adds it again after the norm. The paper's equations add it
            after the norm only. Without bias_inside, layer norm forgets the size of a single input
            (D = 1): LN(w x) = sign(x) LN(w).
        init_W_x, init_W_h: initializers.
        dtype: type to which the operands of matrix products are rounded, such as jnp.bfloat16;
            statistics, carries and sums keep their precision.

    Raises:
        InputError: an attribute has a wrong type or value.
    """

    units: int
    norm: Norm = Norm()
    learned: tuple[str, ...] = ()
    bias_inside: bool = False
    init_W_x: Initializer = nn.initializers.lecun_normal()
    init_W_h: Initializer = orthogonal_blocks
    dtype: Any = None

    PARTS: ClassVar[tuple[str, ...]] = ("h",)  # of the carry; h is the last
    num_feature_axes: ClassVar[int] = 1  # read by flax.linen.RNN

    def __post_init__(self):
        super().__post_init__()
        named = isinstance(self.learned, tuple) and all(part in self.PARTS for part in self.learned)
        if not named:
            raise InputError(
                f"learned must be a tuple of names from {self.PARTS}; got {self.learned!r}."
            )

    def input_matrix(self, n: int) -> nn.Module:
        """Return W_x of n gates."""
        return self.norm.dense("x", n * self.units, kernel_init=self.init_W_x, dtype=self.dtype)

    def recurrent_matrix(self, n: int) -> nn.Module:
        """Return W_h of n gates."""
        return self.norm.dense("h", n * self.units, kernel_init=self.init_W_h, dtype=self.dtype)

    def start(self) -> dict:
        """Return the learned parts of the initial carry."""
        zeros = nn.initializers.zeros
        return {part: self.param(f"{part}_0", zeros, (self.units,)) for part in self.learned}

    def initial(self, B: int, like: Float[AnyArray, "B D"] | None = None) -> Carry:
        """Return the carry before the first step, for B examples.

        Args:
            B: number of examples.
            like: input of a step ``[B, D]``, whose dtype and sharding the carry gets.

        Returns:
            (c, h) or h, each ``[B, H]``.

        Raises:
            InputError: B is not a whole number of 1 or more.
        """
        check_whole("B, the number of examples,", B)
        zeros = jnp.zeros((B, self.units))
        if like is not None:
            # Zeros made of the input are sharded as its examples are, on Auto and Explicit meshes,
            # and vary over the same axes under jax.shard_map; new zeros would be the same
            # everywhere.
            zeros = jnp.broadcast_to(jnp.zeros_like(like[:, :1]), zeros.shape)
        parts = tuple(zeros + self.first.get(part, 0.0) for part in self.PARTS)
        return parts if len(parts) > 1 else parts[0]

    def initialize_carry(self, rng: Any, input_shape: tuple[int, ...]) -> Carry:
        """Return the carry before the first step, as `flax.linen.RNN` asks for it."""
        return self.initial(input_shape[0])

    def project(self, x: Float[AnyArray, "*B D"]) -> Float[Array, "*B nH"]:
        """Return a_x = W_x x ``[..., n H]`` for x ``[..., D]``."""
        return self.W_x(x, self.b if self.bias_inside else None)

    def recur(self, h: Float[AnyArray, "B H"]) -> Float[Array, "B nH"]:
        """Return a_h = W_h h ``[B, n H]`` for h ``[B, H]``."""
        return self.W_h(h)

    def update(self, carry: Carry, a_x: Sums, a_h: Sums, mask: Mask = None) -> AfterStep:
        """Do a step after its matrix products: a_x, a_h ``[B, n H]`` -> the next carry, and h."""
        raise NotImplementedError

    def step(self, carry: Carry, a_x: Sums, mask: Mask = None) -> AfterStep:
        """Do the recurrent part of a step: a_x ``[B, n H]`` -> the next carry, and h."""
        return self.update(carry, a_x, self.recur(fused.hidden(carry)), mask)

    def __call__(self, carry: Carry, x: Float[AnyArray, "B D"], mask: Mask = None) -> AfterStep:
        """Do one time step: x ``[B, D]``, mask ``[B]`` -> the next carry, and h ``[B, H]``."""
        return self.step(carry, self.project(x), mask)


class RNN(Cell):
    """The RNN of eq. 4: a = W_h h + W_x x, h = f(norm(a)), with the norm of the sum at site a.

    Sites x and h normalize the two products separately, as the gated cells do. The norm at a owns
    the bias; ``bias_inside`` adds another one to W_x x. The carry is h.

    Attributes:
        activation: f.
    """

    activation: Callable = tanh

    def setup(self):
        """Make the matrices, the norms and b."""
        self.W_x, self.W_h = self.input_matrix(1), self.recurrent_matrix(1)
        self.b = self.param("b", nn.initializers.zeros, (self.units,)) if self.bias_inside else None
        self.norm_x, self.norm_h, self.norm_a = self.norm("x"), self.norm("h"), self.norm("a")
        self.first = self.start()

    def update(self, carry: Carry, a_x: Sums, a_h: Sums, mask: Mask = None) -> AfterStep:
        """Return the next carry, and h, by eq. 4."""
        # Without norms at x and h these are identities, and only the sum is normalized, as in eq.
        # 4.
        a = self.norm_h(a_h, mask) + self.norm_x(a_x, mask)
        h = self.activation(self.norm_a(a, mask))
        return h, h


class LSTM(Cell):
    """The LSTM of eqs. 20-22; with a norm at site c alone, eqs. 29-31. The carry is (c, h).

    The norms at x and h are each over the summed inputs of all four gates f, i, o, g together. The
    carried c is never normalized.

    Attributes:
        forget_bias: initial b of the gate f; 0 in the authors' code, 1 in Cooijmans et al.
    """

    forget_bias: float = 0.0

    PARTS: ClassVar[tuple[str, ...]] = ("c", "h")

    def setup(self):
        """Make the matrices, the norms and b."""
        self.W_x, self.W_h = self.input_matrix(4), self.recurrent_matrix(4)
        self.b = self.param("b", self.init_b, (4 * self.units,))
        self.norm_x, self.norm_h, self.norm_c = self.norm("x"), self.norm("h"), self.norm("c")
        self.first = self.start()

    def init_b(self, key, shape):
        """Return the initial b ``[4H]``, which is 0 except at the gate f."""
        # f is the first of the four gates.
        return jnp.zeros(shape).at[: self.units].set(self.forget_bias)

    def update(self, carry: Carry, a_x: Sums, a_h: Sums, mask: Mask = None) -> AfterStep:
        """Return the next carry, and h, by eqs. 20-22."""
        c, _ = carry
        f, i, o, g = gates(self.norm_h(a_h, mask) + self.norm_x(a_x, mask) + self.b)
        # The carried c is that of eq. 21, without the norm. Some libraries carry LN(c) instead:
        # their cell then forgets the size of its state at every step.
        c = f * c + i * g
        h = o * tanh(self.norm_c(c, mask))
        return (c, h), h


def gates(a: Float[Array, "B H4"]) -> list[Float[Array, "B H"]]:
    """Return σ(f), σ(i), σ(o) and tanh(g) of the sums a ``[B, 4H]`` of the four gates."""
    # σ(a) = ½ + ½ tanh(½ a), so that there is one tanh of the whole array. XLA for CPUs compiles it
    # to a vectorized loop; four functions of slices take four times as long.
    H = a.shape[-1] // 4
    # A numpy constant: the compiler folds it, and no gradient is taken.
    half = np.repeat(np.array([0.5, 1.0], a.dtype), (3 * H, H))  # at f, i, o; at g
    return jnp.split((1 - half) + half * tanh(half * a), 4, axis=-1)


class GRU(Cell):
    """The GRU of eqs. 26-28; the reset gate multiplies after the product. The carry is h.

    The gates z, r share one norm on each side, the candidate has its own: W_x, W_h ``[D, 2H]``,
    ``[H, 2H]`` and W, U ``[D, H]``, ``[H, H]``. The paper writes no bias. Here b ``[3H]`` belongs
    to the input side, before its norm with ``bias_inside`` (layers.py), after it without. The
    update gate of the authors' code is 1 − z.
    """

    def setup(self):
        """Make the matrices, the norms and b."""
        self.W_x, self.W_h, self.W, self.U = (
            self.input_matrix(2),
            self.recurrent_matrix(2),
            self.input_matrix(1),
            self.recurrent_matrix(1),
        )
        self.b = self.param("b", nn.initializers.zeros, (3 * self.units,))
        self.norm_zr_x, self.norm_zr_h = self.norm("x"), self.norm("h")
        self.norm_x, self.norm_h = self.norm("x"), self.norm("h")
        self.first = self.start()

    def split(self, a: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Split a into the gates z, r ``[..., 2H]`` and the candidate ``[..., H]``."""
        return a[..., : 2 * self.units], a[..., 2 * self.units :]

    def project(self, x: Float[AnyArray, "*B D"]) -> Float[Array, "*B H3"]:
        """Return the products with W_x and W, ``[..., 3H]``."""
        b_zr, b = self.split(self.b) if self.bias_inside else (None, None)
        return jnp.concatenate([self.W_x(x, b_zr), self.W(x, b)], -1)

    def recur(self, h: Float[AnyArray, "B H"]) -> Float[Array, "B H3"]:
        """Return the products with W_h and U ``[B, 3H]``."""
        # One product in place of two: on a GPU each is a kernel, forward and backward.
        return self.W_h.product(h, self.U)

    def update(self, carry: Carry, a_x: Sums, a_h: Sums, mask: Mask = None) -> AfterStep:
        """Return the next carry, and h, by eqs. 26-28."""
        h = carry
        # r multiplies U h, not h (eq. 27). So U h does not wait for r, and all products of h come
        # first.
        (W_x_x, W_x), (W_h_h, U_h) = self.split(a_x), self.split(a_h)
        b_zr, b = (0.0, 0.0) if self.bias_inside else self.split(self.b)
        zr = self.norm_zr_h(W_h_h, mask) + self.norm_zr_x(W_x_x, mask) + b_zr
        z, r = jnp.split(sigmoid(zr), 2, axis=-1)
        h_hat = tanh(self.norm_x(W_x, mask) + b + r * self.norm_h(U_h, mask))
        h = (1 - z) * h + z * h_hat
        return h, h


def scan(
    step: Callable[..., tuple[Any, Any]],
    module: nn.Module,
    carry: Any,
    xs: Any,
    *shared: Any,
    schedule: fused.Schedule | str | None = None,
) -> tuple[Any, Any]:
    """Run carry, y = step(module, carry, x, *shared) over xs, for a step that uses modules.

    For models with other loops, such as attention that reads the state. Parameters are
    shared by all time steps; running statistics get a leading time axis.

    The fast schedule needs the step as a function of its matrix products, for `fused.scan`. The
    step is Python code that calls modules, so the products are replaced while it is traced:

        1. trace the step once on the side, and note the matrix W_k of every `ln.norm.Dense` that it
           calls, in the order of the calls (`collect`)
        2. run `fused.scan` with these matrices over a step (`turn`) in which the k-th call of a
           Dense returns product(k, x)

    Steps must therefore call the same Dense modules in the same order at every time step, which
    holds for every step without Python branches on the time step.

    Args:
        step: may use ``module``, its submodules, and no other module or array.
        module: bound. If it has an attribute ``norm``, a Norm, this makes all its norms.
        carry: before the first step, a pytree of floats, which are promoted to the dtypes that a
            step returns.
        xs: pytree with leaves ``[T, ...]`` of any dtype.
        *shared: arrays that are the same at all time steps.
        schedule: None: as above, by `fused.scan`; the gradient of every matrix is one product after
            the loop. "plain": autodiff of the loop, the same function, slower; also the default
            within `plain_by_default`.

    Returns:
        The last carry, and the ys, leaves ``[T, ...]``, which must be floats.

    Raises:
        InputError: an argument has a wrong type or shape, the schedule is unknown, the step returns
            a carry of another structure, or the module has collections besides "params" and
            "stats".
    """
    _check_scan(step, module, carry, xs, schedule)
    step = _with_checked_carry(step)
    # A loop returns its carry in the dtypes in which it got it. A step on a float16 carry and
    # float32 parameters returns float32, so the loop must begin with float32.
    carry = _promoted(step, module, carry, xs, shared)
    carry, xs, shared = vary_alike(carry, xs, shared)
    # Flax's own loop makes variables, which pure functions cannot; all further loops are ours.
    if module.is_initializing():  # make the parameters, and the statistics of every time step
        lifted = nn.scan(
            step,
            variable_broadcast="params",
            variable_axes={"stats": 0},
            split_rngs={"params": False},
            in_axes=(0, *(nn.broadcast for _ in shared)),
        )
        return lifted(module, carry, xs, *shared)

    # From here on the module is a pure function of its variables. Its statistics are inputs and
    # outputs of each time step, and are put back into the caller's module after the loop.
    scope, train = module.scope, module.is_mutable_collection("stats")
    module, variables = module.unbind()
    if unknown := sorted(set(variables) - {"params", "stats"}):
        raise InputError(
            f"scan handles the collections 'params' and 'stats' of a module; "
            f"{type(module).__name__} has {', '.join(unknown)}. Use flax.linen.scan."
        )
    if isinstance(norm := getattr(module, "norm", None), Norm):
        train = norm.train
    params, stats = variables.get("params", {}), variables.get("stats", {})
    inputs = _stats_at_steps(stats, len(jax.tree.leaves(xs)[0]), train), xs
    if _is_plain(schedule):

        def body(carry, inputs):
            stats, x = inputs
            (carry, y), new = _apply(module, params, stats, step, carry, x, *shared)
            return carry, (y, new)

        carry, (ys, new) = jax.lax.scan(body, carry, inputs)
    else:
        loop = _fast_loop(step, _centred(module))
        carry, (ys, new) = loop(params, shared, carry, inputs, schedule)
    if train and stats:
        _put_stats(scope, new, stats)
    return carry, ys


def _with_checked_carry(step: Callable) -> Callable:
    """Return the step with a check, whenever it is traced, of the carry that it returns."""

    # Within the step, so that one check serves the first call of a model and all others, every
    # schedule, and models whose carry depends on their input; it costs nothing once compiled.
    def checked(module, carry, x, *shared):
        new, y = step(module, carry, x, *shared)
        before, after = (jax.tree.map(np.shape, tree) for tree in (carry, new))
        if before != after:
            raise InputError(f"step must return a carry like the first one, {before}; got {after}.")
        return new, y

    return checked


def _is_plain(schedule) -> bool:
    return schedule == "plain" or (schedule is None and is_plain())


def _centred(module: nn.Module) -> nn.Module:
    """Return a module whose matrices are centred, once, in place of their products at each step."""
    norm = getattr(module, "norm", None)
    if not isinstance(norm, Norm):
        return module
    return module.clone(norm=dataclasses.replace(norm, centred=True))


def _fast_loop(step: Callable, module: nn.Module) -> Callable:
    """Return the loop over a step of an unbound module by `fused.scan`."""

    # Three layers of functions turn the user's step into one that `fused.scan` can take apart:
    #
    #     step(module, carry, x)               calls Dense modules, which multiply by themselves
    #     apply(product, params, …, carry, x)  the same as a pure function, which asks product(…)
    #                                          for every multiplication
    #     turn(product, theta, carry, inputs)  the same, in which product k is known by its number
    #
    # `apply` runs once on the side with `collect`, which multiplies and notes W_k, and then within
    # the loops with the product of `fused.scan`: forward it multiplies by W_k, backward it returns
    # what the forward loop kept.
    def apply(product, params, stats, carry, x, *shared):
        """Do one step in which every product W x of a Dense is product(dense, x, *others)."""

        def intercept(call, arguments, options, context):
            if context.method_name == "product" and isinstance(context.module, Dense):
                return product(context.module, *arguments)
            return call(*arguments, **options)

        with nn.intercept_methods(intercept):
            (carry, y), new = _apply(module, params, stats, step, carry, x, *shared)
        return carry, y, new

    def turn(product, theta, carry, inputs):
        (params, shared), (stats, x) = theta, inputs
        number = itertools.count()  # a product is known by its place in the order of calls
        carry, y, new = apply(
            lambda dense, x, *others: product(next(number), x, dense.dtype),
            *(params, jax.lax.stop_gradient(stats), carry, x, *shared),
        )
        return carry, (y, new)

    def loop(params, shared, carry, inputs, schedule):
        weights = []

        def collect(dense, x, *others):
            # Centred, or divided by its norm, as the module wants it: here, once, and not in the
            # loop. Autodiff continues from the gradient of this matrix to the parameters behind it.
            weights.append(dense.joint_weights(x.shape[-1], *others))
            return matmul(x, weights[-1], dense.dtype)

        # The step on the side is traced for its matrices; the compiler drops its results.
        # Shapes are those of every step, and only shapes matter here.
        stats, x = jax.tree.map(lambda leaf: leaf[0], inputs)
        apply(collect, params, stats, carry, x, *shared)
        with fused.explained_jvp():
            return fused.scan(turn, weights, (params, shared), carry, inputs, schedule)

    return loop


def _apply(module: nn.Module, params, stats, method: Callable | str, *arguments):
    """Return the result of a method of an unbound module, and its new statistics."""
    variables = {"params": params, "stats": stats}
    result, new = module.apply(variables, *arguments, mutable=["stats"], method=method)
    return result, new.get("stats", {})


def _put_stats(scope, new, stats):
    """Write the statistics of the first time steps, and keep those of the later ones."""
    # A loop over fewer steps than were known leaves the rest of the statistics as they are.
    for name, leaf in new.items():
        if isinstance(leaf, Mapping):
            _put_stats(scope.push(name, reuse=True), leaf, stats[name])
        else:
            scope.put_variable("stats", name, jnp.concatenate([leaf, stats[name][len(leaf) :]]))


def unroll(
    cell: Cell,
    xs: Float[AnyArray, "T B D"],
    mask: Bool[AnyArray, "T B"] | None = None,
    carry: Carry | None = None,
    schedule: fused.Schedule | str | None = None,
    *,
    lengths: Int[AnyArray, " N"] | None = None,
    batch_major: bool = False,
) -> tuple[Float[Array, "T B H"], Carry]:
    """Run a cell over whole sequences. Call it inside a Flax module, where the cell is bound.

    With batch norm there are statistics for each time step of the sequences that initialized the
    model, which must be as long as the longest in training. At later steps, evaluation uses the
    statistics of the last one (Cooijmans et al.).

    Args:
        cell: an RNN, LSTM or GRU.
        xs: ``[T, B, D]``.
        mask: booleans ``[T, B]``; None: all true. If it is false, the carry does not change, and
            xs may hold anything.
        carry: before the first step; None: `Cell.initial`.
        schedule: layout of the loop and of its derivative. None chooses a `fused.Schedule` for the
            default device. "plain" is autodiff of the cell's equations, step by step: slower, but
            it can also be differentiated forwards; the default within `plain_by_default`.
        lengths: number of time steps of each example ``[B]``, in place of a mask.
        batch_major: whether xs and mask are ``[B, T, ...]``; hs then is, too.

    Returns:
        hs ``[T, B, H]``, and the last carry, in the result type of parameters, xs and carry. If
        the mask is false, h is that of the step before.

    Raises:
        InputError: an argument has a wrong type or shape, the schedule is unknown, a length is not
            from 1 to T, or the mask is false at every step of an example (if their values are
            known, which they are not under jit).
    """
    check_flag("batch_major", batch_major)
    _check(cell, xs, mask)
    if batch_major:
        xs, mask = jnp.swapaxes(xs, 0, 1), None if mask is None else jnp.swapaxes(mask, 0, 1)
    if lengths is not None:
        mask = _as_mask(lengths, mask, *xs.shape[:2])
    _check_ends(mask)
    if carry is None:
        carry = cell.initial(xs.shape[1], like=xs[0])
    else:
        _check_carry(cell, carry, xs.shape[1])
    if mask is not None:  # padding may hold NaN, and NaN times 0 is not 0
        xs = jnp.where(mask[..., None], xs, 0)
    step: Callable = _whole_step
    inputs: Any = xs, mask
    if not (cell.is_initializing() or _is_plain(schedule)):
        # W_x x does not depend on h: one product for all time steps, before the loop.
        module, variables = cell.unbind()
        with fused.explained_jvp():
            a_x = _centred(module).apply(variables, xs, method="project")
        # The loop has the recurrent half of a step left, of which `scan` takes the products apart.
        step, inputs = _recurrent_step, (a_x, mask)
    carry, hs = scan(step, cell, carry, inputs, schedule=schedule)
    return (jnp.swapaxes(hs, 0, 1) if batch_major else hs), carry


def _whole_step(cell, carry, inputs):
    """Do one time step that keeps the carry where the mask is false."""
    x, mask = inputs
    carry = fused.keep(mask, cell(carry, x, mask)[0], carry)
    return carry, fused.hidden(carry)


def _recurrent_step(cell, carry, inputs):
    """Do a `_whole_step` whose summed inputs a_x are known."""
    a_x, mask = inputs
    carry = fused.keep(mask, cell.step(carry, a_x, mask)[0], carry)
    return carry, fused.hidden(carry)


def _stats_at_steps(stats, T: int, train: bool):
    """Return the statistics of T time steps; at steps past the known ones, those of the last one.

    Raises:
        ValueError: there are not enough of them in training.
    """

    def select(leaf):
        if train and len(leaf) < T:
            raise ValueError(
                f"xs has {T} time steps, but the cell's statistics were made for {len(leaf)}: "
                f"initialize the model with a batch as long as the longest in training"
            )
        # T and the number of known steps are shapes, so the places are constants of the program.
        return leaf[np.minimum(np.arange(T), len(leaf) - 1)]

    return jax.tree.map(select, stats)


def _as_mask(lengths, mask, T: int, B: int):
    """Return the mask ``[T, B]`` of lengths ``[B]``; InputError if they are none, or give both."""
    if mask is not None:
        raise InputError("Give unroll a mask or lengths, not both.")
    if not isinstance(lengths, AnyArray) or lengths.shape != (B,) or lengths.dtype.kind not in "iu":
        raise InputError(f"lengths must be an array of integers ({B},); got {_described(lengths)}.")
    known = np.asarray(lengths) if _is_known(lengths) else np.ones(B)  # under jit a constant, too
    if not ((known >= 1) & (known <= T)).all():
        raise InputError(f"lengths must be from 1 to {T}, the time steps of xs; got {lengths}.")
    # The first steps of each example count: padding is at the end, as in all of our batches.
    return jnp.arange(T)[:, None] < jnp.asarray(lengths)


def _is_known(array: AnyArray) -> bool:
    """Return whether the values of an array can be looked at, which under jit they cannot."""
    return not isinstance(array, jax.core.Tracer)


def _check(cell: Any, xs: Any, mask: Any) -> None:
    """Check what needs no knowledge of the layout of xs ``[T, B, D]`` or ``[B, T, D]``."""
    if not isinstance(cell, Cell):
        raise InputError(f"cell must be an RNN, LSTM or GRU; got {cell!r}.")
    if cell.scope is None:
        raise InputError("unroll needs a cell with parameters: call it inside a Flax module.")
    if not _is_float(xs):
        raise InputError(f"xs must be an array of floats [T, B, D]; got {_described(xs)}.")
    if xs.ndim != 3 or 0 in xs.shape:
        raise InputError(f"xs must be [T, B, D], none of them 0; got {xs.shape}.")
    check_mask(mask, xs.shape[:2])


def _check_ends(mask) -> None:
    """Raise InputError if an example of a mask ``[T, B]`` has no time step."""
    # Such an example would end in the initial carry, which looks like a result.
    if mask is not None and _is_known(mask) and not np.asarray(mask).any(0).all():
        examples = np.flatnonzero(~np.asarray(mask).any(0)).tolist()
        raise InputError(f"mask is false at every step of example(s) {examples}.")


def _check_carry(cell: Cell, carry: Any, B: int) -> None:
    """Raise InputError if a carry is not of the form of `Cell.initial`."""
    # By hand rather than by a comparison of trees, so that the message names the part that is
    # wrong.
    names, shape = cell.PARTS, (B, cell.units)
    form = f"({', '.join(names)})" if len(names) > 1 else names[0]
    wanted = f"carry must be {form}, each an array of floats [B, H] = {shape}"
    parts = carry if len(names) > 1 else (carry,)
    if not isinstance(parts, tuple) or len(parts) != len(names):
        raise InputError(f"{wanted}, in a tuple of {len(names)}; got {type(carry).__name__}.")
    for name, part in zip(names, parts, strict=True):
        if not _is_float(part) or part.shape != shape:
            raise InputError(f"{wanted}; got {_described(part)} for {name}.")


def _is_float(array: Any) -> bool:
    return isinstance(array, AnyArray) and jnp.issubdtype(array.dtype, jnp.floating)


def _described(value: Any) -> str:
    """Return the dtype and shape of an array, the type of anything else."""
    is_array = isinstance(value, AnyArray)
    return f"{value.dtype} {value.shape}" if is_array else type(value).__name__


def _check_scan(step: Any, module: Any, carry: Any, xs: Any, schedule: Any) -> None:
    """Check the arguments of `scan`."""
    if not (schedule is None or schedule == "plain" or isinstance(schedule, fused.Schedule)):
        raise InputError(f"schedule must be None, 'plain' or a fused.Schedule; got {schedule!r}.")
    if not callable(step):
        raise InputError(f"step must be a function (module, carry, x, ...); got {step!r}.")
    if not isinstance(module, nn.Module) or module.scope is None:
        raise InputError("scan needs a module with parameters: call it inside a Flax module.")
    if wrong := sorted(
        str(dtype) for dtype in set(_dtypes(carry)) if not jnp.issubdtype(dtype, jnp.floating)
    ):
        raise InputError(f"carry must have leaves of floats; got {', '.join(wrong)}.")
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(xs)}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise InputError(f"xs must have leaves [T, ...], T of 1 or more; got {sorted(lengths)}.")


def _dtypes(tree: Any) -> list:
    return [jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)]


def _promoted(step: Callable, module: nn.Module, carry: Any, xs: Any, shared: tuple) -> Any:
    """Return the carry of `scan` in the dtypes with which a step returns it."""
    unbound, variables = module.unbind()

    def once(carry, xs, *shared):
        x, rngs = jax.tree.map(lambda leaf: leaf[0], xs), {"params": jax.random.key(0)}
        # mutable: without parameters yet, as at init, this makes some, and drops them.
        params = {"params": variables.get("params", {})}
        (carry, _), _ = unbound.apply(
            params, carry, x, *shared, mutable=True, rngs=rngs, method=step
        )
        return carry

    for _ in jax.tree.leaves(carry):  # a leaf may promote the next one
        before, after = _dtypes(carry), jax.eval_shape(once, carry, xs, *shared)
        carry = jax.tree.map(lambda leaf, new: jnp.asarray(leaf, new.dtype), carry, after)
        if _dtypes(carry) == before:
            break
    return carry
