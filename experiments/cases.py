"""Tasks on independent cases in arrays: what most experiments share."""

from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from experiments import datasets
from ln.errors import InputError
from ln.norm import make_norm
from ln.training import data, train


def redraw_matrices(variables, key, std: float):
    """Return variables with every matrix drawn from N(0, std²); unchanged if std is 0."""
    if not std:
        return variables
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
    drawn = [
        std * jax.random.normal(key, leaf.shape, leaf.dtype) if leaf.ndim > 1 else leaf
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return {**variables, "params": jax.tree.unflatten(tree, drawn)}


class Cases(train.Task):
    """A task on independent cases, in arrays that fit into memory.

    An experiment gives the metrics of each case with `per_case`; they become the loss, what is
    logged and the scores.

    Attributes:
        scored: the splits that are evaluated.
        objective: the metric whose mean is the loss.
        splits: the data, ``splits["train"][name]``, one row a case.
    """

    scored: tuple[str, ...] = ("train", "valid", "test")
    objective: str = "nll"

    def __init__(self, config):
        super().__init__(config)
        if not 0 <= config.get("init_std", 0) < np.inf:
            raise InputError(f"config.init_std is {config.init_std}; it must be 0 or more.")
        make_norm(config, train=True)  # refuses a misspelt norm before the data are read
        self.splits = self.load()
        self.arrays = self.splits["train"]
        data.batch_cases(0, self.cases, config.batch_size, 0)  # raises if the batch is too large
        self.steps_per_epoch = self.cases // config.batch_size

    @property
    def cases(self) -> int:
        """The size of the training set."""
        return len(next(iter(self.splits["train"].values())))

    def load(self) -> dict[str, dict[str, np.ndarray]]:
        """The data, ``load()["train"][name]``."""
        return datasets.load(self.config.dataset, self.config.data_dir)

    def per_case(self, variables, batch, key, train: bool):
        """Returns metrics ``[B]`` and the new statistics."""
        raise NotImplementedError

    def indices(self, step, seed, rows=slice(None)):
        return data.batch_cases(step, self.cases, self.config.batch_size, seed)[rows]

    def gather(self, arrays, indices, shape):
        return {name: array[indices] for name, array in arrays.items()}

    def loss(self, variables, batch, key, train):
        metrics, stats = self.per_case(variables, batch, key, train)
        means = jax.tree.map(jnp.mean, metrics)
        return means[self.objective], (stats, means)

    @cached_property
    def scorers(self):
        def per_case(variables, batch):
            # The same key each time, so that scores are a function of the variables alone.
            return self.per_case(variables, batch, jax.random.key(0), train=False)[0]

        return {name: train.average(per_case, self.splits[name]) for name in self.scored}

    def evaluate(self, variables):
        return {split: score(variables) for split, score in self.scorers.items()}
