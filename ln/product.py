"""Matrix products of layers, and their gradients, for batches on one device or on many.

A layer multiplies all time steps of a batch at once: a = x W for x ``[T, B, D]``. The gradient of W
sums over T and B. Merging the two axes first, x ``[T B, D]``, gives a fast product on a CPU, but
with the batch sharded over devices, the merged axis cannot be sharded, and XLA gathers the whole
batch on every device. Autodiff of the unmerged product is up to three times slower on a CPU, since
it computes the transposed gradient. `matmul` therefore has its own gradient, which contracts T and
B together without merging them: as fast as merging, and it communicates nothing but the sum.
"""

from collections.abc import Iterator
import contextlib
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num
import numpy as np

AnyArray = jax.Array | np.ndarray  # what layers accept; they return jax.Array

# Each thread has its own value: one may trace a model while another times plain autodiff.
_PLAIN = ContextVar("plain", default=False)
_BITS: ContextVar[int | None] = ContextVar("bits", default=None)  # of mantissas that are rounded


@contextlib.contextmanager
def plain_by_default() -> Iterator[None]:
    """Make "plain" the default schedule of `unroll` and `scan`, and use autodiff for all products.

    For models that choose no schedule: to time them with plain autodiff, or to differentiate them
    forwards. The default is read while a function is traced, so a compiled function keeps its own.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def is_plain() -> bool:
    """Return whether `plain_by_default` is active."""
    return _PLAIN.get()


@contextlib.contextmanager
def rounding(bits: int | None) -> Iterator[None]:
    """Round the operands of all products of layers, and of their gradients, to mantissas of bits.

    An accelerator does this itself: TensorFloat-32 has 10 bits, bfloat16 has 7. On a CPU, which
    multiplies float32 exactly, this shows what a run would lose there. None: no rounding. Like
    `plain_by_default`, it acts on what is traced meanwhile.
    """
    token = _BITS.set(bits)
    try:
        yield
    finally:
        _BITS.reset(token)


def _rounded(a, dtype):
    if dtype is not None:
        return a.astype(dtype)
    bits = _BITS.get()
    return a if bits is None else jax.lax.reduce_precision(a, exponent_bits=8, mantissa_bits=bits)


def matmul(
    x: Num[AnyArray, "*B D"], W: Num[AnyArray, "D H"], dtype: Any = None
) -> Num[Array, "*B H"]:
    """Return x W.

    Args:
        x: ``[..., D]``.
        W: ``[D, H]``.
        dtype: type to which the operands of the product, and of the products of its gradient, are
            rounded, such as bfloat16; None: not at all. Sums keep the precision of x and W.

    Returns:
        ``[..., H]`` in the result type of x and W. With three or more axes of x, forward
        differentiation (jvp) needs `plain_by_default`.
    """
    # The custom gradient pays only if there are axes to merge: in a loop x is [B, D], and autodiff
    # of that product is the same, unless it rounds the gradient by a, too. The custom gradient has
    # no forward derivative, which plain schedules promise.
    if (x.ndim <= 2 and _BITS.get() is None) or is_plain():
        return _multiply(x, W, dtype)
    x, W = vary_alike(x, W)
    return _product(dtype, x, W)


def _multiply(x, W, dtype):
    result = jnp.result_type(x, W)
    # Only the operands are rounded: a sum of bfloat16 products in bfloat16 would lose its digits.
    x, W = _rounded(x, dtype), _rounded(W, dtype)
    return jnp.matmul(x, W, preferred_element_type=result)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(dtype, x, W):
    return _multiply(x, W, dtype)


def _product_forward(dtype, x, W):
    return _multiply(x, W, dtype), (x, W)


def _product_backward(dtype, residuals, d_a):
    x, W = residuals
    # A custom gradient must have the dtype of its primal, whatever the product was computed in.
    return _multiply(d_a, W.T, dtype).astype(x.dtype), weight_gradient(x, d_a, W, dtype)


_product.defvjp(_product_forward, _product_backward)


def weight_gradient(
    x: Num[AnyArray, "*B D"], d_a: Num[AnyArray, "*B H"], W: Num[AnyArray, "D H"], dtype: Any = None
) -> Num[Array, "D H"]:
    """Return d W = Σ xᵀ d a, summed over all leading axes.

    Args:
        x: inputs ``[..., D]`` of the product.
        d_a: gradient by its result ``[..., H]``.
        W: the matrix ``[D, H]``.
        dtype: as in `matmul`.

    Returns:
        ``[D, H]`` in the dtype of W, and on an explicit mesh with the sharding of W.
    """
    result = jnp.result_type(x, d_a)
    x, d_a = _rounded(x, dtype), _rounded(d_a, dtype)
    # XLA for CPUs copies x, transposed, to contract several axes at once, and not to contract one.
    # So one device merges them. A merged axis of a sharded batch would be gathered.
    if jax.device_count() == 1:
        x, d_a = x.reshape(-1, x.shape[-1]), d_a.reshape(-1, d_a.shape[-1])
    leading = tuple(range(x.ndim - 1))
    out_sharding = None  # XLA chooses it, except where the mesh says that types carry shardings
    if is_explicit(x):
        mesh = jax.typeof(x).sharding.mesh
        out_sharding = jax.sharding.NamedSharding(mesh, jax.typeof(W).sharding.spec)
    d_W = jax.lax.dot_general(
        x,
        d_a,
        ((leading, leading), ((), ())),
        preferred_element_type=result,
        out_sharding=out_sharding,
    )
    return d_W.astype(W.dtype)


def is_explicit(x) -> bool:
    """Return whether x is on a mesh with Explicit axes."""
    return jax.sharding.AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types


def vary_alike(*trees):
    """Return the trees with all arrays varying over the same axes of a `jax.shard_map`.

    Parameters are the same on every device, and inputs differ. A custom gradient must have the type
    of its primal, so the parameters are cast before it, and the transpose of the cast sums over
    devices. Outside of `jax.shard_map` nothing changes.
    """
    axes = frozenset().union(*map(_varying, jax.tree.leaves(trees)))

    def cast(leaf):
        # Sorted, since a set has no order, and every process must compile the same program.
        missing = tuple(sorted(axes - _varying(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, trees)


def _varying(array) -> frozenset:
    kind = jax.typeof(array)
    if hasattr(kind, "vma"):  # jax before 0.10
        return kind.vma
    return kind.manual_axis_type.varying
