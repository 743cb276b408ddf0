"""Classify images with a convolutional network (§6.7)."""

import numpy as np

from experiments import tasks
from experiments.convnet.model import Model
from ln.errors import InputError

COLOURS = {3 * 32 * 32: 3}  # numbers of an image -> its colours, if more than 1


def image_shape(D: int) -> tuple[int, int, int]:
    """Return height, width and colours of a square image of D numbers."""
    colours = COLOURS.get(D, 1)
    side = round((D // colours) ** 0.5)
    return side, side, colours


class Task(tasks.Images):
    """Classify images with a convolutional network.

    Evaluation adds how often units are active: the share of examples for which the ReLU of a unit
    of convolutional layer k is above 0, as the mean over the units at the border of the image
    (border_k) and over all other units (inside_k).
    """

    def __init__(self, config):
        super().__init__(config)
        side, *_ = image_shape(self.arrays["x"].shape[-1])
        most = side.bit_length() - 1
        if not 1 <= len(config.channels) <= most:
            raise InputError(
                f"config.channels has {len(config.channels)} layers; give one or more. Images of "
                f"{side} x {side} pixels, which every layer halves, allow {most}."
            )
        layers = range(1, len(config.channels) + 1)
        places = (f"{place}_{k}" for place in ("border", "inside") for k in layers)
        self.metrics = (*self.metrics, *places)

    def load(self):
        """Return the data with the first config.train_cases examples of the training set."""
        splits = super().load()
        train = {k: array[: self.config.train_cases] for k, array in splits["train"].items()}
        return {**splits, "train": train}

    def model(self, train):
        """Return the network."""
        channels = tuple(self.config.channels)
        return tasks.build(Model, self.config, train, channels=channels)

    def inputs(self, batch, key, train):
        """Return the images ``[B, height, width, colours]`` of a batch, from 0 to 1."""
        x = batch["x"]
        return (tasks.pixels(x).reshape(len(x), *image_shape(x.shape[-1])),)

    def per_case(self, variables, batch, key, train):
        """Return the metrics of each example ``[B]`` and the new statistics."""
        (logits, activities), stats = self.apply(variables, batch, key, train)
        metrics = tasks.class_metrics(logits, batch["y"])
        if not train:
            for k, h in enumerate(activities, start=1):
                active = (h > 0).mean(-1)
                edge = border(*active.shape[1:])
                metrics[f"border_{k}"] = active[:, edge].mean(1)
                if not edge.all():
                    metrics[f"inside_{k}"] = active[:, ~edge].mean(1)
        return metrics, stats


def border(height: int, width: int) -> np.ndarray:
    """Return which positions are at the border: bool ``[height, width]``."""
    edge = np.ones((height, width), bool)
    edge[1:-1, 1:-1] = False
    return edge
