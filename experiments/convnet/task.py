"""Classify images with a convolutional network (§6.7)."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import tasks
from experiments.convnet.model import Model
from ln.errors import InputError
from ln.norm import make_norm
from ln.training import data

COLOURS = {3 * 32 * 32: 3}  # numbers of an image -> its colours, where they are not 1
BLOCK = 1000  # images at once


def image_shape(D: int) -> tuple[int, int, int]:
    """Height, width and colours of an image of D numbers, which is square."""
    colours = COLOURS.get(D, 1)
    side = round((D // colours) ** 0.5)
    return side, side, colours


class Task(tasks.Images):
    """Classification by a convolutional network.

    Evaluation also tells how often units are active: the share of cases in which the ReLU of a unit
    of convolutional layer k is above 0, in the mean over the units at the border of the image
    (border_k) and over all others (inside_k).
    """

    def __init__(self, config):
        if not config.channels:
            raise InputError("config.channels is empty; give the channels of one layer or more.")
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
        return (tasks.pixels(x).reshape(len(x), *image_shape(x.shape[-1])),)

    def per_case(self, variables, batch, key, train):
        (x,) = self.inputs(batch["x"], key)
        (logits, activities), new = self.model(train).apply(variables, x, mutable=["stats"])
        nll = tasks.negative_log_likelihood(logits, batch["y"])
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
