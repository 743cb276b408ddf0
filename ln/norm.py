"""Normalization: the paper's equations as functions, and Flax modules that own their parameters.

A model receives one object, ``norm``, and asks it for modules by site. It never knows which
normalization runs:

    a = norm.dense("a", H)(x)        # summed inputs a = W x, never with a separate bias
    h = relu(norm("a")(a))           # h = f(normalized a)

The sites of the models in this project are

    x, h    input and recurrent half of a cell's gates; the cell adds its own bias b
    c       the cell state on its way to the output
    a       a feed-forward layer; its norm owns the bias, as in eq. 1
    conv    a convolutional layer, likewise, a bias for each channel
    out     the output layer, likewise

`declare_site` adds a site of another model. A norm of your own is a Flax module, see `Norm`.

No bias ever sits under a norm: its gradient would be rounding noise, which Adam divides by itself.

Shapes: B examples of a batch, D inputs, H units of a layer. ``[..., H]`` has any leading axes.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from functools import partial
import importlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Num

from ln.errors import InputError, check_flag, check_positive, check_whole, choose, is_number, must
from ln.product import AnyArray, matmul

EPSILON = 1e-5  # inside the root, as in the authors' layers.py; the paper's equations have none
SITES = ("x", "h", "c", "a", "conv", "out")  # of every model in this project
_DECLARED: list[str] = []  # by `declare_site`
# Summed inputs at site conv are [B, height, width, channels]. How many of the last axes are
# normalized together: those of a whole layer, as in eqs. 3-4, or the channels of a position, as in
# later work; and how many of the last axes the gains and biases have.
OVER = {"layer": 3, "position": 1}
GAINS = {"channel": 1, "unit": 3}

Initializer = Callable[..., jax.Array]
Mask = Bool[AnyArray, "*B"] | None  # true at the examples that count; None: at all
Gain = Num[ArrayLike, "..."]  # [H] or a scalar; also of biases
Scalar = Num[ArrayLike, ""]
Axes = int | tuple[int, ...]


def layer_norm(
    a: Num[AnyArray, "*B H"], gain: Gain, bias: Gain, epsilon: Scalar = EPSILON, axes: Axes = -1
) -> Float[Array, "*B H"]:
    """Normalize every example by the mean and standard deviation over its H units (eqs. 3-4).

    Args:
        a: summed inputs ``[..., H]``.
        gain: ``[H]`` or a scalar, shared by all examples and time steps.
        bias: ``[H]`` or a scalar, likewise.
        epsilon: added to the variance. A constant ``a`` gives ``bias``, up to the rounding of its
            mean divided by √epsilon.
        axes: of the units, if there are several.

    Returns:
        ``[..., H]`` in the result type of a, gain and bias; the statistics are in at least float32.
    """
    dtype = jnp.result_type(a, gain, bias)
    a, gain, bias = map(at_least_float32, (a, gain, bias))
    # One rounding, at the end: gain and bias, too, act in float32 on inputs of half precision.
    return (gain * standardize(a, epsilon, axes) + bias).astype(dtype)


# A custom jvp rather than a vjp: the map of tangents is linear, so jax transposes it for the
# reverse pass, and forward differentiation, which the "plain" schedules promise, works as well.
@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def standardize(a, epsilon: float, axes):
    """Return (a − μ) / σ, with the mean and variance of every example over its units (eq. 4)."""
    return _standardize(a, epsilon, axes)[0]


def _standardize(a, epsilon, axes):
    # Two passes, about the mean: E[a²] − E[a]² loses all digits in float32 if the mean is large.
    a = a - a.mean(axes, keepdims=True)
    one_over_sigma = jax.lax.rsqrt((a**2).mean(axes, keepdims=True) + epsilon)
    return a * one_over_sigma, one_over_sigma


@standardize.defjvp
def _standardize_jvp(epsilon, axes, primals, tangents):
    # Autodiff would take the mean of the gradient only after it has the gradient of σ. Both sums
    # are independent of each other, since the mean of â is 0: on a GPU that is a kernel fewer.
    # With â = (a − μ) / σ:   dâ = (d − mean(d) − â mean(â d)) / σ. It is symmetric, so the reverse
    # pass is the same formula. ε is within σ, and so changes nothing in it.
    (a,), (d,) = primals, tangents
    a_hat, one_over_sigma = _standardize(a, epsilon, axes)
    mean = partial(jnp.mean, axis=axes, keepdims=True)
    return a_hat, one_over_sigma * (d - mean(d) - a_hat * mean(a_hat * d))


def rms_norm(
    a: Num[AnyArray, "*B H"], gain: Gain, epsilon: Scalar = EPSILON, axes: Axes = -1
) -> Float[Array, "*B H"]:
    """Divide every example by the root of the mean square of its H units (Zhang, Sennrich 2019).

    It is `layer_norm` without a bias if the mean of ``a`` over the units is 0.

    Args:
        a: summed inputs ``[..., H]``.
        gain: ``[H]`` or a scalar.
        epsilon: added to the mean square.
        axes: of the units, if there are several.

    Returns:
        ``[..., H]`` in the result type of a and gain; the mean square is in at least float32.
    """
    dtype = jnp.result_type(a, gain)
    a, gain = map(at_least_float32, (a, gain))
    # One reduction, where layer norm needs two that follow one another.
    one_over_rms = jax.lax.rsqrt((a**2).mean(axes, keepdims=True) + epsilon)
    return jnp.asarray(gain * (a * one_over_rms), dtype)


def at_least_float32(a: Any) -> Any:
    """Return ``a`` in float32 if it is an array of half precision or of integers, else as it is.

    Statistics need it: in float16 the square of 256 is infinite, and in bfloat16 a mean has three
    digits.
    """
    if isinstance(a, int | float):  # takes the type of the array that it meets
        return a
    dtype = jnp.result_type(a)
    whole = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32
    return a if whole else jnp.asarray(a, jnp.float32)


def batch_norm(
    a: Num[AnyArray, "*B H"],
    mu: Float[ArrayLike, "#H"],
    var: Float[ArrayLike, "#H"],
    gain: Gain,
    bias: Gain,
    epsilon: Scalar = EPSILON,
) -> Float[Array, "*B H"]:
    """Normalize every unit by its own mean and variance over the examples (eq. 2).

    Args:
        a: summed inputs ``[..., H]``.
        mu: mean ``[H]`` of a batch (`batch_moments`) or of the training set.
        var: variance ``[H]``, likewise.
        gain: ``[H]`` or a scalar.
        bias: ``[H]`` or a scalar.
        epsilon: added to the variance.

    Returns:
        ``[..., H]`` in the result type of a, gain and bias.
    """
    dtype = jnp.result_type(a, gain, bias)
    a, gain, bias = map(at_least_float32, (a, gain, bias))
    # mu and var may be averages of other batches, so there is no gradient formula to share.
    return jnp.asarray(gain * (a - mu) / jnp.sqrt(var + epsilon) + bias, dtype)


def weight_norm(v: Num[AnyArray, "D H"], gain: Gain) -> Float[Array, "D H"]:
    """Return W = gain v / ‖v‖ (§5.1) for ``v [D, H]``, one column for each unit."""
    dtype = jnp.result_type(v, gain)
    v, gain = map(at_least_float32, (v, gain))
    # Axis 0 has the weights of one unit.
    return (gain * v / jnp.linalg.norm(v, axis=0)).astype(dtype)


def batch_moments(
    a: Num[AnyArray, "*B H"], mask: Mask = None, unbiased: bool = False
) -> tuple[Float[Array, " H"], Float[Array, " H"]]:
    """Return mean and variance of every unit over the examples (eq. 2).

    Args:
        a: summed inputs ``[B, H]``, or ``[T, B, H]``, in which every position is an example.
        mask: ``[B]`` or ``[T, B]``, true at the examples that count; None: all.
        unbiased: whether to divide the squares by n − 1 instead of n (§6.6 at batch size 4).

    Returns:
        Two arrays ``[H]`` in at least float32; 0 if the mask is false for all examples.

    Raises:
        InputError: the mask has a wrong shape or dtype.
    """
    check_mask(mask, a.shape[:-1])
    a = at_least_float32(a)
    m = jnp.ones(a.shape[:-1], a.dtype) if mask is None else mask.astype(a.dtype)
    # At least 1: a time step past every sequence has no example, and 0/0 would spread as NaN.
    n, leading = jnp.maximum(m.sum(), 1), tuple(range(a.ndim - 1))
    a = jnp.where(m[..., None] > 0, a, 0)  # padding may hold anything, also NaN
    mu = a.sum(leading) / n
    # Two passes, as in `_standardize`.
    squares = (m[..., None] * (a - mu) ** 2).sum(leading)
    return mu, squares / (jnp.maximum(n - 1, 1) if unbiased else n)


def check_mask(mask: Any, shape: tuple[int, ...]) -> None:
    """Raise InputError if a mask is not booleans of this shape; None is a mask."""
    if mask is None:
        return
    if not isinstance(mask, AnyArray):
        raise InputError(f"mask must be an array of booleans {shape}; got {mask!r}.")
    if mask.shape != shape or mask.dtype != jnp.bool_:
        raise InputError(f"mask must be booleans {shape}; got {mask.dtype} {mask.shape}.")


def is_float_type(value: Any) -> bool:
    """Return whether a value names a type of floats."""
    try:
        return jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except TypeError:
        return False


_FLAGS = "averages bias bias_inside centre centred spatial train unbiased"
# Checks of the fields of all modules of the layers, by their names.
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(_FLAGS.split(), check_flag),
    **dict.fromkeys(("features", "units"), check_whole),
    **dict.fromkeys(("gain", "forget_bias"), must(is_number, "a finite number")),
    **dict.fromkeys(("init_W_x", "init_W_h"), must(callable, "an initializer")),
    "activation": must(callable, "a function"),
    "dtype": must(
        lambda value: value is None or is_float_type(value),
        "None or a float type, such as jnp.bfloat16",
    ),
    "epsilon": check_positive,
    "gains": partial(choose, choices=GAINS),
    "momentum": must(lambda value: is_number(value, 0, 1), "a number from 0 to 1"),
    "norm": must(lambda value: isinstance(value, Norm), "a Norm, such as ln.Norm()"),
    "over": partial(choose, choices=OVER),
}


class Checked(nn.Module):
    """Base class of modules whose fields are checked at construction, by `CHECKS`."""

    def __post_init__(self):
        super().__post_init__()
        for name in fields_of(type(self)):
            if name in CHECKS:
                CHECKS[name](f"{type(self).__name__}: {name}", getattr(self, name))


def fields_of(module: type[nn.Module]) -> list[str]:
    """Return the fields that a module class adds to those of every Flax module."""
    return [f.name for f in dataclasses.fields(module) if f.name not in ("parent", "name")]


class Identity(nn.Module):
    """No normalization; with ``bias`` it is the a + b of eq. 1."""

    bias: bool = False

    @nn.compact
    def __call__(self, a: Num[AnyArray, "*B H"], mask: Mask = None) -> Num[AnyArray, "*B H"]:
        """Return a, plus the bias ``[H]`` if there is one."""
        return a + self.param("bias", nn.initializers.zeros, a.shape[-1:]) if self.bias else a


class ExampleNorm(Checked):
    """Base class of norms that normalize every example by itself, whatever the batch.

    There is no use for the mask, and no training mode.

    Attributes:
        gain: initial value of the gains.
        epsilon: added to the variance or the mean square.
        spatial: whether ``a`` is ``[B, height, width, channels]``.
        over: if spatial, whether the units of a "layer" or of a "position" are normalized together.
        gains: if spatial, whether each "channel" or each "unit" has its own gain and bias.

    Raises:
        InputError: an attribute has a wrong type or value.
    """

    gain: float = 1.0
    epsilon: float = EPSILON
    spatial: bool = False
    over: str = "layer"
    gains: str = "channel"

    def spans(self, a) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the axes of ``a`` that are normalized together, and the shape of the gains."""
        over, gains = (OVER[self.over], GAINS[self.gains]) if self.spatial else (1, 1)
        least = max(over, gains)
        if a.ndim < least or 0 in a.shape[-least:]:
            raise InputError(
                f"{type(self).__name__} needs summed inputs with {least} axes or more, none of "
                f"the last {least} of size 0; got {a.shape}."
            )
        return tuple(range(-over, 0)), a.shape[-gains:]


class LayerNorm(ExampleNorm):
    """Layer normalization of ``a [..., H]`` (eqs. 3-4), with the attributes of `ExampleNorm`."""

    @nn.compact
    def __call__(self, a: Num[AnyArray, "*B H"], mask: Mask = None) -> Float[Array, "*B H"]:
        """Return the normalized summed inputs."""
        axes, shape = self.spans(a)
        # The names of parameters, here and below, are those of stored checkpoints, and initial
        # values depend on them: they never change.
        gain = self.param("gain", nn.initializers.constant(self.gain), shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        return layer_norm(a, gain, bias, self.epsilon, axes)


class RMSNorm(ExampleNorm):
    """Layer normalization that subtracts no mean, with the attributes of `ExampleNorm`.

    Attributes:
        bias: whether there is one; at the sites x and h the cell has its own b.
    """

    bias: bool = True

    @nn.compact
    def __call__(self, a: Num[AnyArray, "*B H"], mask: Mask = None) -> Float[Array, "*B H"]:
        """Return the normalized summed inputs."""
        axes, shape = self.spans(a)
        gain = self.param("gain", nn.initializers.constant(self.gain), shape)
        a = rms_norm(a, gain, self.epsilon, axes)
        return a + self.param("bias", nn.initializers.zeros, shape) if self.bias else a


class BatchNorm(Checked):
    """Batch normalization of ``a [B, H]``: batch statistics in training, running ones in test.

    The running averages ("stats": mean, var, count) start as a plain mean over the first batches,
    weight 1/n for the n-th, and go over to an exponential one: an average that starts at 0 and 1
    would make every early test result an artifact.

    Attributes:
        train: whether the statistics are the batch's (and the averages move) or the averages.
        gain: initial value of the gains.
        bias: whether there is one; at the sites x and h the cell has its own b.
        momentum: weight of the old average, once enough batches have been seen.
        unbiased: divides by n − 1, as §6.6 does at batch size 4.
        averages: whether to keep any. Without them the statistics are the batch's in test too (the
            BN-LSTM of figure 2), and the scores depend on which examples share a batch.
        epsilon: added to the variance.
        spatial: whether ``a`` is ``[B, height, width, H]``, where every position is an example.

    Raises:
        InputError: an attribute has a wrong type or value, or ``a`` does not have two axes (four,
            if spatial). ``a [T, B, H]`` needs a mask ``[T, B]``, and every position is an example
            then.
    """

    train: bool
    gain: float = 1.0
    bias: bool = True
    momentum: float = 0.99
    unbiased: bool = False
    averages: bool = True
    epsilon: float = EPSILON
    spatial: bool = False

    @nn.compact
    def __call__(self, a: Num[AnyArray, "*B H"], mask: Mask = None) -> Float[Array, "*B H"]:
        """Return the normalized summed inputs, and in training update the running averages."""
        if self.spatial and a.ndim == 4:
            return self.normalized(a.reshape(-1, a.shape[-1])).reshape(a.shape)
        return self.normalized(a, mask)

    def normalized(self, a, mask=None):
        """Return the normalized ``a [B, H]``, or ``[T, B, H]`` with a mask ``[T, B]``."""
        # [T, B, H] needs a mask: over padded sequences, the mean of all positions would be wrong,
        # and nothing would show it.
        if 0 in a.shape or (a.ndim != 2 and (a.ndim != 3 or mask is None)):
            raise InputError(f"BatchNorm needs summed inputs [B, H], one batch; got {a.shape}.")
        units = a.shape[-1:]
        gain = self.param("gain", nn.initializers.constant(self.gain), units)
        bias = self.param("bias", nn.initializers.zeros, units) if self.bias else 0.0
        if self.averages:
            mean = self.variable("stats", "mean", jnp.zeros, units)
            var = self.variable("stats", "var", jnp.ones, units)
            count = self.variable("stats", "count", jnp.zeros, ())
        if self.averages and not self.train:
            mu, s2 = mean.value, var.value
        else:
            mu, s2 = batch_moments(a, mask, self.unbiased)
        if self.averages and self.train and not self.is_initializing():
            # A time step past the end of every sequence has no example, and teaches nothing.
            seen = jnp.bool_(True) if mask is None else mask.any()
            # n/(n+1) makes the average of the first batches a plain mean, in which the initial 0
            # and 1 have no weight; from the 99th batch on it is exponential.
            keep = jnp.minimum(self.momentum, count.value / (count.value + 1))
            keep = jnp.where(seen, keep, 1.0)
            mean.value = keep * mean.value + (1 - keep) * mu
            var.value = keep * var.value + (1 - keep) * s2
            count.value = count.value + seen.astype(count.value.dtype)
        return batch_norm(a, mu, s2, gain, bias, self.epsilon)


class Dense(Checked):
    """Matrix product ``a = W x [..., H]`` of x ``[..., D]``, without a bias.

    Attributes:
        features: H.
        kernel_init: initializer of W ``[D, H]``.
        dtype: type to which the operands of the product are rounded; None: not at all.
        centre: whether to subtract from every input's weights their mean over the H units. The
            mean of ``a`` over the units is then 0 for every x. Layer norm, which would subtract it,
            gives the same result: it is invariant to re-centring of W (Table 1).
    """

    features: int
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: Any = None
    centre: bool = False

    @nn.compact
    def weights(self, D: int) -> Float[AnyArray, "D H"]:
        """Return W ``[D, H]`` as the product uses it."""
        return self.centred(self.param("kernel", self.kernel_init, (D, self.features)))

    def centred(self, W: Float[AnyArray, "*D H"]) -> Float[AnyArray, "*D H"]:
        """Return W, or a bias, minus its mean over the units if the module centres it."""
        if not self.centre:
            return W
        # In bfloat16 the mean would have three digits, and the rest of it would stay in every a.
        # Autodiff centres the gradient in turn, so training moves W as if a were centred.
        centred = at_least_float32(W)
        return (centred - centred.mean(-1, keepdims=True)).astype(W.dtype)

    def product(self, x: Num[AnyArray, "*B D"], *others: "Dense") -> Num[Array, "*B nH"]:
        """Return W x, and behind it the products of other modules with the same x.

        `rnn.scan` replaces this method inside its loops.
        """
        return matmul(x, self.joint_weights(x.shape[-1], *others), self.dtype)

    def joint_weights(self, D: int, *others: "Dense") -> Float[AnyArray, "D nH"]:
        """Return the matrices of this and other modules side by side, for one product."""
        matrices = [dense.weights(D) for dense in (self, *others)]
        return jnp.concatenate(matrices, -1) if others else matrices[0]

    def __call__(
        self, x: Num[AnyArray, "*B D"], bias: Float[AnyArray, " H"] | None = None
    ) -> Num[Array, "*B H"]:
        """Return W x, plus a bias ``[H]`` under the norm if a cell has one (`Cell.bias_inside`)."""
        # The bias is outside of `product`, which in a loop is the kept product of a matrix.
        a = self.product(x)
        return a if bias is None else a + self.centred(bias)


class WeightNormDense(Dense):
    """`Dense` with W = gain v / ‖v‖ (§5.1).

    Attributes:
        gain: initial value of the gains.
    """

    gain: float = 1.0

    @nn.compact
    def weights(self, D: int) -> Float[AnyArray, "D H"]:
        """Return W ``[D, H]`` as the product uses it."""
        v = self.param("kernel", self.kernel_init, (D, self.features))
        gain = self.param("gain", nn.initializers.constant(self.gain), (self.features,))
        return weight_norm(v, gain)


KINDS: dict[str, type[nn.Module]] = {
    "none": Identity,
    "layer": LayerNorm,
    "rms": RMSNorm,
    "batch": BatchNorm,
    "weight": WeightNormDense,
}
# Fields that `Norm` sets if a module has them; all other fields are options.
GIVEN = ("train", "bias", "spatial")


def find_kind(kind: str | type) -> type[nn.Module]:
    """Return the module class of a kind of norm.

    Args:
        kind: a name in `KINDS`, "package.module:Class", or the class.

    Raises:
        InputError: there is no such kind, or the class is not a Flax module.
    """
    if isinstance(kind, str) and ":" not in kind:
        return choose("norm kind", kind, KINDS)
    if isinstance(kind, str):
        # By name, since a config is data: it is stored as JSON, and read by other processes.
        module, _, name = kind.partition(":")
        try:
            kind = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"norm kind {kind!r} cannot be imported ({error}). Write package.module:Class of a "
                f"module that Python finds, or one of {', '.join(KINDS)}."
            ) from error
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(f"A norm must be a subclass of flax.linen.Module; got {kind!r}.")
    return kind


def choose_site(site: str) -> str:
    """Return the name of a site; raise InputError if no model has such a site."""
    # A site that no model has is misspelt, and would mean no normalization at all.
    return choose("norm site", site, {name: name for name in (*SITES, *_DECLARED)})


def declare_site(name: str) -> str:
    """Declare a site of a model outside this project and return its name.

    The norm at this site owns the bias, as at site "a". Call this at the top of the module that
    defines the model: from then on, `Norm` accepts the name, and a misspelt one still raises.

    Raises:
        InputError: the name is not an identifier.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"A norm site must be an identifier, such as 'attention'; got {name!r}.")
    if name not in (*SITES, *_DECLARED):
        _DECLARED.append(name)
    return name


@dataclasses.dataclass(frozen=True)
class Norm:
    """Make the modules of one choice of normalization; every model and cell receives a Norm.

    A norm of your own is one class, here or as "package.module:MyNorm" in a config:

        class MyNorm(nn.Module):
            gain: float = 1.0

            @nn.compact
            def __call__(self, a, mask=None): ...       # summed inputs a [..., H] -> [..., H]

        norm = Norm(MyNorm, ("x", "h", "c"), {"gain": 0.1})

    Its fields are its options, except for those in `GIVEN`, which Norm sets if the class has them:
    ``train``; ``bias``, whether the norm owns the bias at its site; ``spatial``, whether ``a`` is
    an image. Statistics belong in the collection "stats". A subclass of `Dense` replaces the matrix
    before the site instead, as weight norm does.

    Attributes:
        kind: "none", "layer", "rms", "batch", "weight", "package.module:Class", or a class.
        sites: where it sits. Anywhere else there is no normalization. A site that the model does
            not have is ignored, so that one Norm serves a cell and the layers around it.
        options: fields of the module, as a dict or as pairs.
        train: bound here, so that no ``train=`` travels through cells and models.
        centred: whether to compute the same faster: at x and h, where layer norm follows a matrix
            product and nothing else, the matrix is centred once instead of ``a`` at every step (see
            `Dense`).

    Raises:
        InputError: an unknown kind, site or option, or a value out of its range. A misspelt name
            would otherwise build a network without any norm.
    """

    kind: str | type[nn.Module] = "none"
    sites: Sequence[str] = ()
    options: Mapping[str, Any] | Sequence[tuple[str, Any]] = ()
    train: bool = False
    centred: bool = False

    def __post_init__(self):
        module = find_kind(self.kind)
        if not isinstance(self.sites, tuple | list):
            raise InputError(
                f"Norm sites must be a tuple of names, such as ('x', 'h'); got {self.sites!r}."
            )
        sites = tuple(map(choose_site, self.sites))
        if module is not Identity and not sites:
            raise InputError(
                f"Norm({self.name!r}) has no sites and would normalize nothing. "
                f"Give some of {', '.join((*SITES, *_DECLARED))}."
            )
        if issubclass(module, Dense) and "c" in sites:
            raise InputError(
                f"{self.name} norm needs a matrix, and site 'c' has none: leave 'c' out."
            )
        try:
            options = dict(self.options)
        except (TypeError, ValueError):
            raise InputError(
                f"Norm options must be a dict, such as {{'gain': 1.0}}; got {self.options!r}."
            ) from None
        fixed = (*GIVEN, *(fields_of(Dense) if issubclass(module, Dense) else ()))
        # A field that Norm sets by the site is no option: a second bias would make the gradients of
        # both noise.
        known = {name: name for name in fields_of(module) if name not in fixed}
        for name in options:
            choose(f"{self.name} norm option", name, known)
        for name in ("train", "centred"):
            check_flag(f"Norm {name}", getattr(self, name))
        # The class is frozen; this is its construction.
        # One form of equal norms: jit and Flax compare and hash attributes.
        object.__setattr__(self, "sites", tuple(sorted(set(sites))))
        object.__setattr__(self, "options", tuple(sorted(options.items())))
        for site in self.sites:  # the modules check their own fields
            self(site, parent=None)
            self.dense(site, 1, parent=None)

    @property
    def name(self) -> str:
        """Return the kind as messages show it."""
        # A class has no name in a config, but messages and the report need one.
        return self.kind if isinstance(self.kind, str) else self.kind.__name__

    def module(self, site: str) -> type[nn.Module]:
        """Return the class that acts at a site: `Identity` if the norm does not sit there."""
        return find_kind(self.kind) if choose_site(site) in self.sites else Identity

    def centres(self, site: str) -> bool:
        """Return whether the matrix before a site is centred, and its norm need not be."""
        # Only at sites whose sums are a product and nothing else: c is none, and at a there may be
        # a sum of two. A subclass may do more than subtract the mean.
        return self.centred and site in ("x", "h") and self.module(site) is LayerNorm

    def __call__(self, site: str, **fields) -> nn.Module:
        """Return the module of a site, which normalizes its summed inputs: norm(a, mask) -> a."""
        module = self.module(site)
        # Who owns the bias: at x and h the cell has its own b, and only layer norm keeps one more
        # (eqs. 20 and 26; BN: §3.2); at c a norm brings it, if there is one; at all other sites the
        # norm brings it, also the norm "none".
        if module is Identity or issubclass(module, Dense):
            return Identity(bias=site not in ("x", "h", "c"), **fields)
        given = dict(train=self.train, bias=site not in ("x", "h"), spatial=site == "conv")
        # With a mean of 0 layer norm is RMSNorm and a bias, with the same parameters: a reduction
        # fewer at every time step.
        if self.centres(site):
            module, given = RMSNorm, given | dict(bias=True)
        given = {name: given[name] for name in fields_of(module) if name in given}
        return module(**given, **dict(self.options), **fields)

    def dense(self, site: str, features: int, **fields) -> nn.Module:
        """Return the matrix product before a site, x ``[..., D]`` -> W x ``[..., features]``."""
        module = self.module(site)
        if issubclass(module, Dense):
            # Weight norm acts on W, so it replaces the product; `__call__` returns the bias alone
            return module(features, **dict(self.options), **fields)
        return Dense(features, centre=self.centres(site), **fields)


class Linear(Checked):
    """Output layer W h + b ``[..., features]`` of h ``[..., H]``; site out.

    Attributes:
        features: size of the output.
        norm: makes the matrix product and, if out is one of its sites, the norm.
    """

    features: int
    norm: Norm

    @nn.compact
    def __call__(self, h: Num[AnyArray, "*B H"], mask: Mask = None) -> Num[Array, "*B features"]:
        """Return the outputs."""
        return self.norm("out")(self.norm.dense("out", self.features)(h), mask)


def make_norm(config, train: bool) -> Norm:
    """Turn ``config.norm``, a key of the table ``config.norms``, into a Norm.

    This is the only code that reads ``config.norm``.

    Raises:
        InputError: an unknown name, kind, site or option, with the nearest right one.
    """
    if ":" in str(config.norm):
        raise InputError(
            f"config.norm is {config.norm!r}; a class needs a row in config.norms, such as "
            f"mine=dict(kind={config.norm!r}, sites=('a',)), and config.norm its name."
        )
    options = dict(choose("config.norm", config.norm, config.norms))
    kind, sites = options.pop("kind", "none"), options.pop("sites", ())
    try:
        return Norm(kind, sites, tuple(options.items()), train)
    except InputError as error:
        raise InputError(f"config.norms.{config.norm}: {error}") from None
