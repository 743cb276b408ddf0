"""Classify images that are read pixel by pixel."""

import jax
import numpy as np

from experiments import tasks
from experiments.sequential_mnist.model import Model
from ln.errors import InputError


class Task(tasks.Images):
    """Classify images, which are sequences of steps of ``config.pixels_per_step`` pixels."""

    scored = ("valid", "test")

    def load(self):
        """Return the data with the last ``config.valid_cases`` training images for validation.

        The images of training and validation set are first joined in their original order.

        Raises:
            InputError: config.valid_cases or config.pixels_per_step does not fit the data.
        """
        splits, config = super().load(), self.config
        x, y = (np.concatenate([splits[s][k] for s in ("valid", "train")]) for k in ("x", "y"))
        if config.valid_cases >= len(y):
            raise InputError(
                f"config.valid_cases is {config.valid_cases}; this data set has {len(y)} examples "
                f"to divide into training and validation."
            )
        D, first = x.shape[1], len(y) - config.valid_cases
        if D % config.pixels_per_step:
            raise InputError(
                f"config.pixels_per_step is {config.pixels_per_step}; it must divide the "
                f"{D} pixels of an image, as 1 does."
            )
        # A true permutation. (The code of Cooijmans et al. draws indices with replacement: a third
        # of the pixels never appear.) RandomState's numbers are the same in every numpy.
        self.order = np.arange(D)
        if config.permuted:
            self.order = np.random.RandomState(config.permutation_seed).permutation(D)
        return splits | dict(
            train=dict(x=x[:first], y=y[:first]), valid=dict(x=x[first:], y=y[first:])
        )

    def model(self, train):
        """Return the network."""
        return tasks.build(Model, self.config, train)

    def inputs(self, batch, key, train):
        """Return pixels ``[T, B, D]`` and the noise ``[B, H]`` on the first state."""
        x, config = tasks.pixels(batch["x"])[:, self.order], self.config
        xs = x.reshape(len(x), -1, config.pixels_per_step).swapaxes(0, 1)
        return xs, config.noise * jax.random.normal(key, (len(x), config.hidden))
