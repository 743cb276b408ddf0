"""Normalization: the paper's equations as functions, and Flax modules that own their parameters.

A model receives one object, ``norm``, and asks it for modules by site. It never knows which
normalization runs:

    a = norm.dense("a", H)(x)        # summed inputs a = W x, never with a bias of their own
    h = relu(norm("a")(a))           # h = f(normalized a)

The sites of the models in this project are

    x, h    input and recurrent half of a cell's gates; the cell adds its own bias b
    c       the cell state on its way to the output
    a       a feed-forward layer; its norm owns the bias, as in eq. 1
    conv    a convolutional layer, likewise, a bias for each channel
    out     the output layer, likewise

`declare_site` adds a site of another model.

No bias ever sits under a norm: its gradient would be rounding noise, which Adam divides by itself.

Shapes: B cases of a batch, D inputs, H units of a layer. ``[..., H]`` has any leading axes.
"""

from collections.abc import Callable
import dataclasses
import numbers
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ln.errors import InputError, choose

EPSILON = 1e-5  # inside the root, as in the authors' layers.py; the paper's equations have none
SITES = ("x", "h", "c", "a", "conv", "out")  # of every model in this project
_DECLARED: list[str] = []  # by `declare_site`
# At site conv, summed inputs [B, height, width, channels]. What is normalized together: the whole
# layer, which is what a layer is in eqs. 3-4, or the channels of a position, as later work does;
# and what has a gain and a bias of its own. Each by how many of the last axes it has.
OVER = {"layer": 3, "position": 1}
GAINS = {"channel": 1, "unit": 3}

Initializer = Callable[..., jax.Array]


def layer_norm(a, gain, bias, epsilon=EPSILON, axes=-1):
    """Eqs. 3-4: mean and deviation over the H units of a layer, separately for every case.

    Args:
        a: summed inputs ``[..., H]``.
        gain, bias: ``[H]`` or scalars, shared by all cases and time steps.
        epsilon: added to the variance. A constant ``a`` gives ``bias``, up to the rounding of its
            mean divided by √epsilon.
        axes: of the units, where they are more than the last one.

    The deviation is taken about the mean (two passes): E[a²] − E[a]² would lose all digits in
    float32 where the mean is large.
    """
    mu = a.mean(axes, keepdims=True)
    return layer_norm_of_centred(a - mu, gain, bias, epsilon, axes)


def layer_norm_of_centred(a, gain, bias, epsilon=EPSILON, axes=-1):
    """`layer_norm` of summed inputs ``[..., H]`` whose mean over the units is 0 already."""
    one_over_sigma = jax.lax.rsqrt((a**2).mean(axes, keepdims=True) + epsilon)
    return gain * (a * one_over_sigma) + bias


def batch_norm(a, mu, var, gain, bias, epsilon=EPSILON):
    """Eq. 2: normalizes every unit with its own mean and variance over the cases.

    Args:
        a: summed inputs ``[..., H]``.
        mu, var: ``[H]``, of a batch (`batch_moments`) or of the training set.
        gain, bias: ``[H]`` or scalars.
        epsilon: added to the variance.
    """
    return gain * (a - mu) / jnp.sqrt(var + epsilon) + bias


def weight_norm(v, gain):
    """§5.1: W = gain v / ‖v‖. ``v [D, H]`` holds the weight vector of unit i in column i."""
    return gain * v / jnp.linalg.norm(v, axis=0)


def batch_moments(a, mask=None, unbiased=False):
    """Mean and variance ``[H]`` over those cases of ``a [B, H]`` where mask ``[B]`` is true.

    ``unbiased`` divides the squares by n − 1 instead of n (§6.6 at batch size 4). With no case at
    all both are 0.
    """
    m = jnp.ones(a.shape[:1], a.dtype) if mask is None else mask.astype(a.dtype)
    n = jnp.maximum(m.sum(), 1)
    a = jnp.where(m[:, None] > 0, a, 0)  # padding may hold anything, also NaN
    mu = a.sum(0) / n
    squares = (m[:, None] * (a - mu) ** 2).sum(0)
    return mu, squares / (jnp.maximum(n - 1, 1) if unbiased else n)


class Identity(nn.Module):
    """No normalization; with ``bias`` it is the a + b of eq. 1."""

    bias: bool = False

    @nn.compact
    def __call__(self, a, mask=None):
        return a + self.param("bias", nn.initializers.zeros, a.shape[-1:]) if self.bias else a


class LayerNorm(nn.Module):
    """Layer normalization of ``a [..., H]``.

    It looks at no other case, so it has neither a use for the mask nor a training mode.

    Attributes:
        gain: what the gains start at.
        epsilon: added to the variance.
        centred: whether the mean of ``a`` over the units is known to be 0 (see `Norm.centred`).
        over: how many of the last axes are the units of a layer.
        gains: over how many of the last axes gains and biases differ.
    """

    gain: float = 1.0
    epsilon: float = EPSILON
    centred: bool = False
    over: int = 1
    gains: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_options("LayerNorm", gain=self.gain, epsilon=self.epsilon, centred=self.centred)
        for name in ("over", "gains"):
            axes = getattr(self, name)
            if not isinstance(axes, numbers.Integral) or isinstance(axes, bool) or axes < 1:
                raise InputError(f"LayerNorm: {name} must be a whole number >= 1; got {axes!r}.")

    @nn.compact
    def __call__(self, a, mask=None):
        shape = a.shape[-self.gains :]
        gain = self.param("gain", nn.initializers.constant(self.gain), shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        normalize = layer_norm_of_centred if self.centred else layer_norm
        return normalize(a, gain, bias, self.epsilon, tuple(range(-self.over, 0)))


class BatchNorm(nn.Module):
    """Batch normalization of ``a [B, H]``: batch statistics in training, running ones in test.

    The running averages ("stats": mean, var, count) start as a plain mean over the first batches,
    weight 1/n for the n-th, and go over to an exponential one: an average that starts at 0 and 1
    would make every early test result an artifact.

    Attributes:
        train: whether the statistics are the batch's (and the averages move) or the averages.
        gain: what the gains start at.
        bias: whether there is one; at x and h the cell's own b does its work (Cooijmans et al.).
        momentum: weight of the old average, once enough batches have been seen.
        unbiased: divides by n − 1, as §6.6 does at batch size 4.
        averages: whether there are any; else the statistics are the batch's in test too (the
            BN-LSTM of figure 2), and scores depend on what is evaluated together.
        epsilon: added to the variance.
        spatial: whether ``a`` is ``[B, height, width, H]``, where every position is a case.

    Raises:
        ValueError: a has not two axes, or four where it is spatial.
    """

    train: bool
    gain: float = 1.0
    bias: bool = True
    momentum: float = 0.99
    unbiased: bool = False
    averages: bool = True
    epsilon: float = EPSILON
    spatial: bool = False

    def __post_init__(self):
        super().__post_init__()
        names = ("train", "gain", "bias", "momentum", "unbiased", "averages", "epsilon", "spatial")
        check_options("BatchNorm", **{name: getattr(self, name) for name in names})

    @nn.compact
    def __call__(self, a, mask=None):
        if self.spatial and a.ndim == 4:
            return self.normalized(a.reshape(-1, a.shape[-1])).reshape(a.shape)
        return self.normalized(a, mask)

    def normalized(self, a, mask=None):
        if a.ndim != 2:
            raise ValueError(f"batch norm wants summed inputs a [B, H], one batch; got {a.shape}")
        units = a.shape[-1:]
        gain = self.param("gain", nn.initializers.constant(self.gain), units)
        bias = self.param("bias", nn.initializers.zeros, units) if self.bias else 0.0
        if not self.averages:
            mu, s2 = batch_moments(a, mask, self.unbiased)
            return batch_norm(a, mu, s2, gain, bias, self.epsilon)

        mean = self.variable("stats", "mean", jnp.zeros, units)
        var = self.variable("stats", "var", jnp.ones, units)
        count = self.variable("stats", "count", jnp.zeros, ())
        if not self.train:
            return batch_norm(a, mean.value, var.value, gain, bias, self.epsilon)

        mu, s2 = batch_moments(a, mask, self.unbiased)
        if not self.is_initializing():
            # A time step past the end of every sequence has no case and teaches nothing.
            seen = jnp.bool_(True) if mask is None else mask.any()
            keep = jnp.minimum(self.momentum, count.value / (count.value + 1))
            keep = jnp.where(seen, keep, 1.0)
            mean.value = keep * mean.value + (1 - keep) * mu
            var.value = keep * var.value + (1 - keep) * s2
            count.value = count.value + seen
        return batch_norm(a, mu, s2, gain, bias, self.epsilon)


def matmul(x, W, dtype=None):
    """x W with operands rounded to ``dtype`` (bfloat16, say), summed in the precision of x.

    x ``[..., D]`` is flattened to two axes: on a CPU its gradient is a faster product that way.
    """
    rows, result = x.reshape(-1, x.shape[-1]), jnp.result_type(x, W)
    if dtype is not None:
        rows, W = rows.astype(dtype), W.astype(dtype)
    a = jnp.matmul(rows, W, preferred_element_type=result)
    return a.reshape(*x.shape[:-1], W.shape[-1])


class Dense(nn.Module):
    """Summed inputs ``a = W x [..., H]`` of x ``[..., D]``; no bias of its own.

    Attributes:
        features: H.
        kernel_init: of W ``[D, H]``.
        dtype: what the operands of the product are rounded to; None: not at all.
        centre: subtracts from every input's weights their mean over the H units. The mean of ``a``
            over the units is then 0 for every x, and layer norm, which would subtract it, sees no
            difference: LN is invariant to re-centring of W (Table 1).
    """

    features: int
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: Any = None
    centre: bool = False

    @nn.compact
    def weights(self, D: int):
        """W ``[D, H]`` as it is used."""
        return self.centred(self.param("kernel", self.kernel_init, (D, self.features)))

    def centred(self, W):
        return W - W.mean(-1, keepdims=True) if self.centre else W

    def product(self, x):
        """W x and nothing else: what `rnn.scan` does in a way of its own."""
        return matmul(x, self.weights(x.shape[-1]), self.dtype)

    def __call__(self, x, bias=None):
        """W x, plus a bias ``[H]`` of somebody else's, where given, under the norm."""
        a = self.product(x)
        return a if bias is None else a + self.centred(bias)


class WeightNormDense(Dense):
    """Its twin with W = gain v / ‖v‖ (§5.1)."""

    gain: float = 1.0

    @nn.compact
    def weights(self, D: int):
        v = self.param("kernel", self.kernel_init, (D, self.features))
        gain = self.param("gain", nn.initializers.constant(self.gain), (self.features,))
        return weight_norm(v, gain)


# The options of each kind.
KINDS = {
    "none": (),
    "layer": ("gain", "epsilon", "over", "gains"),
    "batch": ("gain", "momentum", "unbiased", "averages", "epsilon"),
    "weight": ("gain",),
}
# Options that are names, and those that are numbers: least, greatest, and both in words.
NAMED = {"over": OVER, "gains": GAINS}
RANGES = {
    "gain": (-np.inf, np.inf, "a finite number"),
    "epsilon": (0.0, np.inf, "a finite number, 0 or more"),
    "momentum": (0.0, 1.0, "a number from 0 to 1"),
}


def check_options(where: str, **options) -> None:
    """Check the values of options of a norm; options that are in no table are flags.

    Raises:
        InputError: a value is none of the known names, out of its range, or no bool.
    """
    for name, value in options.items():
        if name in NAMED:
            choose(f"{name} of {where}", value, NAMED[name])
        elif name in RANGES:
            least, most, words = RANGES[name]
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not (number and np.isfinite(value) and least <= value <= most):
                raise InputError(f"{where}: {name} must be {words}; got {value!r}.")
        elif not isinstance(value, bool):
            raise InputError(f"{where}: {name} must be True or False; got {value!r}.")


def choose_site(site: str) -> str:
    """Return the name of a site; raise InputError if no model has such a site."""
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

    Attributes:
        kind: "none", "layer", "batch" or "weight".
        sites: where it sits. Anywhere else there is no normalization. A site that the model does
            not have is ignored, so that one Norm serves a cell and the layers around it.
        options: fields of the module (of LayerNorm, BatchNorm or WeightNormDense), as a dict or as
            pairs; see `KINDS`.
        train: bound here, so that no ``train=`` travels through cells and models.
        centred: computes the same faster: at x and h, where layer norm follows a matrix product
            and nothing else, centres the matrix once instead of ``a`` at every step (see `Dense`).

    Raises:
        InputError: an unknown kind, site or option, or a value out of its range. A misspelt name
            would otherwise build a network without any norm.
    """

    kind: str = "none"
    sites: tuple[str, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    train: bool = False
    centred: bool = False

    def __post_init__(self):
        known = choose("norm kind", self.kind, KINDS)
        if not isinstance(self.sites, tuple | list):
            raise InputError(
                f"Norm sites must be a tuple of names, such as ('x', 'h'); got {self.sites!r}."
            )
        sites = tuple(map(choose_site, self.sites))
        if self.kind != "none" and not sites:
            raise InputError(
                f"Norm({self.kind!r}) has no sites and would normalize nothing. "
                f"Give some of {', '.join((*SITES, *_DECLARED))}."
            )
        if self.kind == "weight" and "c" in sites:
            raise InputError("weight norm needs a matrix, and site 'c' has none: leave 'c' out.")
        try:
            options = dict(self.options)
        except (TypeError, ValueError):
            raise InputError(
                f"Norm options must be a dict, such as {{'gain': 1.0}}; got {self.options!r}."
            ) from None
        if options and not known:
            raise InputError(f"{self.kind} norm has no options; got {options!r}.")
        for name in options:
            choose(f"{self.kind} norm option", name, dict.fromkeys(known))
        check_options(f"Norm({self.kind!r})", train=self.train, centred=self.centred, **options)
        # One form of equal norms: jit and Flax compare and hash attributes.
        object.__setattr__(self, "sites", tuple(sorted(set(sites))))
        object.__setattr__(self, "options", tuple(sorted(options.items())))

    def centres(self, site: str) -> bool:
        return self.centred and self.kind == "layer" and site in self.sites and site in ("x", "h")

    def __call__(self, site: str, **module) -> nn.Module:
        """Return the module of a site, which normalizes its summed inputs: norm(a, mask) -> a."""
        kind = self.kind if choose_site(site) in self.sites else "none"
        options = dict(self.options) | module
        # Where the bias is: at x and h the cell has its own b, and only layer norm keeps one more
        # (eqs. 20 and 26; BN: §3.2); at c the norm brings it, if there is a norm; at all other
        # sites the norm brings it, also the norm "none".
        match kind:
            case "layer":
                over, gains = options.pop("over", "layer"), options.pop("gains", "channel")
                if site == "conv":
                    options |= dict(over=OVER[over], gains=GAINS[gains])
                return LayerNorm(centred=self.centres(site), **options)
            case "batch":
                return BatchNorm(
                    self.train, bias=site not in ("x", "h"), spatial=site == "conv", **options
                )
        return Identity(bias=site not in ("x", "h", "c"), **module)

    def dense(self, site: str, features: int, **module) -> nn.Module:
        """Return the matrix product before a site, x ``[..., D]`` -> W x ``[..., features]``."""
        if choose_site(site) in self.sites and self.kind == "weight":
            return WeightNormDense(features, **dict(self.options), **module)
        return Dense(features, centre=self.centres(site), **module)


class Linear(nn.Module):
    """W h + b ``[..., features]`` of h ``[..., H]``: an output layer; site out.

    Attributes:
        features: how many numbers come out.
        norm: makes the matrix product and, where out is one of its sites, the norm.
    """

    features: int
    norm: Norm

    @nn.compact
    def __call__(self, h, mask=None):
        return self.norm("out")(self.norm.dense("out", self.features)(h), mask)


def make_norm(config, train: bool) -> Norm:
    """Turn ``config.norm``, a key of the table ``config.norms``, into a Norm.

    This is the only code that reads ``config.norm``.

    Raises:
        InputError: an unknown name, kind, site or option, with the nearest right one.
    """
    options = dict(choose("config.norm", config.norm, config.norms))
    kind, sites = options.pop("kind", "none"), options.pop("sites", ())
    try:
        return Norm(kind, sites, tuple(options.items()), train)
    except InputError as error:
        raise InputError(f"config.norms.{config.norm}: {error}") from None
