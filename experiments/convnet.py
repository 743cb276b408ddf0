"""Convolutional networks (§6.7), about which the paper has two paragraphs and no number: with layer
norm they learn faster than without norm, with batch norm faster still, because units whose fields
of view lie at the border of the image are rarely active, unlike the others of their layer.

Network and data are ours.
"""

import flax.linen as nn
import jax
from jax.nn import relu
import jax.numpy as jnp
import numpy as np

from experiments import images
from experiments.curves import (
    CONFIRMED,
    CONTRADICTED,
    NOT_DECIDED,
    NOT_TESTED,
    ONE_SEED,
    Curves,
    Pace,
    Verdict,
    missing,
)
from ln.errors import InputError
from ln.norm import Norm, make_norm
from ln.training import data

COLOURS = {3 * 32 * 32: 3}  # numbers of an image -> its colours, where they are not 1
SIZE = 3  # of the fields of view: 3 x 3
BLOCK = 1000  # images at once
he_normal = nn.initializers.he_normal()


def image_shape(D: int) -> tuple[int, int, int]:
    """Height, width and colours of an image of D numbers, which is square."""
    colours = COLOURS.get(D, 1)
    side = round((D // colours) ** 0.5)
    return side, side, colours


def patches(x):
    """The fields of view around the positions of x ``[B, height, width, C]``, zeros beyond the
    border: ``[B, height, width, 9 C]``.

    A convolution is a matrix product with them. So it is one in lanes too, where XLA would make it
    a convolution by groups of channels, which on a CPU takes many times as long.
    """
    (_, height, width, _), edge = x.shape, SIZE // 2
    around = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    views = [around[:, i : i + height, j : j + width] for i in range(SIZE) for j in range(SIZE)]
    return jnp.concatenate(views, -1)


class Model(nn.Module):
    """h = relu(norm(W ∗ x)), the largest of every 2 x 2 of which go on, for each layer; then
    h = relu(norm(W h)), and logits norm(W h).

    Maps x ``[B, height, width, colours]`` to ``[B, 10]``, and the activities of the convolutional
    layers, each ``[B, height, width, channels]``.

    Attributes:
        channels: of the convolutional layers.
        hidden: units of the layer behind them.
        norm: sites conv, a and out.
    """

    channels: tuple[int, ...]
    hidden: int
    norm: Norm

    @nn.compact
    def __call__(self, x):
        h, activities = x, []
        for channels in self.channels:
            W = self.norm.dense("conv", channels, kernel_init=he_normal)
            h = relu(self.norm("conv")(W(patches(h))))
            activities.append(h)
            h = nn.max_pool(h, (2, 2), (2, 2))
        h = h.reshape(len(h), -1)
        h = relu(self.norm("a")(self.norm.dense("a", self.hidden, kernel_init=he_normal)(h)))
        a = self.norm.dense("out", images.CLASSES, kernel_init=he_normal)(h)
        return self.norm("out")(a), activities


class Task(images.Task):
    """Classification by a convolutional network.

    Evaluation also tells how often units are active: the share of cases in which the ReLU of a unit
    of convolutional layer k is above 0, in the mean over the units at the border of the image
    (border_k) and over all others (inside_k).
    """

    def __init__(self, config):
        if config.hidden < 1 or min(config.channels, default=0) < 1:
            raise InputError(
                f"config.hidden is {config.hidden} and config.channels {tuple(config.channels)}; "
                f"all of them must be 1 or more, of one layer at least."
            )
        super().__init__(config)
        side, *_ = image_shape(self.splits["train"]["x"].shape[-1])
        if side >> len(config.channels) < 1:
            raise InputError(
                f"config.channels has {len(config.channels)} layers; images of {side} x {side} "
                f"pixels, which every layer halves, allow {side.bit_length() - 1}."
            )

    def load(self):
        """The data, but only config.train_cases of the training set, if there are more."""
        splits = super().load()
        train = {k: array[: self.config.train_cases] for k, array in splits["train"].items()}
        return {**splits, "train": train}

    def model(self, train):
        config = self.config
        return Model(tuple(config.channels), config.hidden, make_norm(config, train))

    def inputs(self, x, key):
        return (images.pixels(x).reshape(len(x), *image_shape(x.shape[-1])),)

    def per_case(self, variables, batch, key, train):
        (x,) = self.inputs(batch["x"], key)
        (logits, activities), new = self.model(train).apply(variables, x, mutable=["stats"])
        nll = images.negative_log_likelihood(logits, batch["y"])
        error = (logits.argmax(-1) != batch["y"]).astype(jnp.float32)
        metrics = dict(nll=nll, error=error)
        if not train:
            for k, h in enumerate(activities, start=1):
                active = (h > 0).mean(-1)
                edge = border(*active.shape[1:])
                metrics[f"border_{k}"] = active[:, edge].mean(1)
                if not edge.all():
                    metrics[f"inside_{k}"] = active[:, ~edge].mean(1)
        return metrics, new.get("stats", {})

    def activity(self, variables, x) -> list[np.ndarray]:
        """How often units are active over images x (uint8 ``[N, D]``): of each convolutional layer
        the share of cases, ``[height, width]``, in the mean over channels."""

        @jax.jit
        def sums(variables, x, weights):
            _, activities = self.model(train=False).apply(variables, *self.inputs(x, None))
            return [jnp.tensordot(weights, (h > 0).mean(-1), 1) for h in activities]

        batches, weights = data.blocks(dict(x=x), min(BLOCK, len(x)))
        found = [sums(variables, *block) for block in zip(batches["x"], weights, strict=True)]
        return [np.asarray(sum(layer)) / len(x) for layer in zip(*found, strict=True)]


def border(height: int, width: int) -> np.ndarray:
    """Which positions are at the border, ``[height, width]``."""
    edge = np.ones((height, width), bool)
    edge[1:-1, 1:-1] = False
    return edge


NAMES = dict(none="no norm", layer="layer norm", batch="batch norm")


def claim_27(curves: Curves) -> Verdict:
    """Compares how many epochs each takes until the training NLL (mean over seeds) first falls to a
    level: layer norm with no norm, and batch norm with layer norm. The levels are the lowest NLLs
    that the former has reached at each tenth of its length but the first; faster is a factor of 1.1
    or more at three quarters of the levels or more, and not faster 1 or less at as many.
    Confirmed where layer norm is faster than no norm, and batch norm faster than layer norm;
    contradicted where either is not faster. It takes two seeds to decide.
    """
    wanted = {("train_nll", norm): name for norm, name in NAMES.items()}
    if lacking := missing(curves, wanted, single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    paces, texts = [], []
    for slower, faster in (("none", "layer"), ("layer", "batch")):
        pace = Pace.of(curves["train_nll", slower], curves["train_nll", faster])
        paces.append(pace.factors)
        texts.append(
            f"{NAMES[faster].capitalize()} is {np.median(pace.factors):.2f} times as fast as "
            f"{NAMES[slower]} (median over {len(pace.levels)} levels; from "
            f"{pace.factors.min():.2f} to {pace.factors.max():.2f})."
        )
    text = " ".join(texts)
    if min(len(curves[key].lanes) for key in wanted) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    if any((factors <= 1).mean() >= 0.75 for factors in paces):
        return Verdict(CONTRADICTED, text)
    faster = all((factors >= 1.1).mean() >= 0.75 for factors in paces)
    return Verdict(CONFIRMED if faster else NOT_DECIDED, text)


def claim_28(curves: Curves) -> Verdict:
    """Compares how often units at the border of the image and all others are active, over the test
    set, in the first convolutional layer at the end of training; without norm, with layer norm and
    with batch norm. "Rarely" is read as half as often or less. Confirmed where it is that with all
    three (mean over seeds); contradicted where the units at the border are active as often as the
    others or more with any of them. It takes two seeds to decide.
    """
    where = ("border", "inside")
    wanted = {(place, n): f"{name} ({place})" for n, name in NAMES.items() for place in where}
    if lacking := missing(curves, wanted, single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    shares, texts = [], []
    for norm, name in NAMES.items():
        border, inside = (curves[place, norm].last("mean", 1) for place in where)
        shares.append(border.mean() / inside.mean())
        texts.append(f"{border.mean():.0%} of the time against {inside.mean():.0%} with {name}")
    text = f"Units at the border are active {', '.join(texts)}."
    if min(len(curves[key].lanes) for key in wanted) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    if max(shares) >= 1:
        return Verdict(CONTRADICTED, text)
    return Verdict(CONFIRMED if max(shares) <= 0.5 else NOT_DECIDED, text)
