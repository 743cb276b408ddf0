"""Classify images that are read pixel by pixel."""

import jax
import numpy as np

from experiments import tasks
from experiments.sequential_mnist.model import Model
from ln.errors import InputError
from ln.norm import make_norm


class Task(tasks.Images):
    """Images as sequences of ``config.pixels_per_step`` pixels."""

    scored = ("valid", "test")

    def load(self):
        """All but the test cases anew: the last ``config.valid_cases`` in their original order are
        for validation.

        Raises:
            InputError: units, cases for validation or pixels per step that cannot be.
        """
        splits, config = super().load(), self.config
        x, y = (np.concatenate([splits[s][k] for s in ("valid", "train")]) for k in ("x", "y"))
        train = len(y) - config.valid_cases
        if not 0 < config.valid_cases < len(y):
            raise InputError(
                f"config.valid_cases is {config.valid_cases}; this data set has {len(y)} cases to "
                f"divide into training and validation."
            )
        D = x.shape[1]
        if config.pixels_per_step < 1 or D % config.pixels_per_step:
            raise InputError(
                f"config.pixels_per_step is {config.pixels_per_step}; it must divide the "
                f"{D} pixels of an image, as 1 does."
            )
        # A true permutation. (That code draws indices with replacement: a third of the pixels
        # never appear.) RandomState's numbers are the same in every version of numpy.
        self.order = np.arange(D)
        if config.permuted:
            self.order = np.random.RandomState(config.permutation_seed).permutation(D)
        return dict(
            train=dict(x=x[:train], y=y[:train]),
            valid=dict(x=x[train:], y=y[train:]),
            test=splits["test"],
        )

    def model(self, train):
        config = self.config
        return Model(config.hidden, make_norm(config, train), config.bias_inside)

    def inputs(self, x, key):
        B = len(x)
        xs = tasks.pixels(x)[:, self.order].reshape(B, -1, self.config.pixels_per_step)
        noise = self.config.noise * jax.random.normal(key, (B, self.config.hidden))
        return xs.swapaxes(0, 1), noise
