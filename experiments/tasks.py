"""Share what most experiments need: tasks on arrays of independent examples, and on images."""

from functools import cached_property

import flax.linen as nn
import jax
from jax.nn import logsumexp, softplus
import jax.numpy as jnp
import numpy as np

from experiments import datasets
from ln.errors import InputError, choose
from ln.norm import make_norm
from ln.training import data, train

CLASSES = 10


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


def pixels(x):
    """Intensities in [0, 1]."""
    return x.astype(jnp.float32) / 255


def negative_log_likelihood(logits, y):
    """−log softmax(logits)[y] in nats; logits ``[B, C]``, y ``[B]`` -> ``[B]``.

    Written as log(1 + Σ_others exp(a_other − a_y)), which stays exact down to 1e-38. The usual
    logsumexp(a) − a_y ends at float32's rounding of 1, 6e-8, where figure 6 goes down to 1e-10.
    """
    margins = logits - jnp.take_along_axis(logits, y[:, None], -1)
    others = jnp.where(jax.nn.one_hot(y, logits.shape[-1], dtype=bool), -jnp.inf, margins)
    return softplus(logsumexp(others, -1))


class Images(Cases):
    """Classification of images x (uint8 ``[B, D]``) into y (``[B]``).

    An experiment says which `model`, and with `inputs` how it sees the images.
    """

    def model(self, train: bool) -> nn.Module:
        """The network: what `inputs` returns -> logits ``[B, 10]``."""
        raise NotImplementedError

    def inputs(self, x, key) -> tuple:
        """The model's arguments for images x (uint8 ``[B, D]``); key for what is random in them."""
        return (pixels(x),)

    def example(self):
        random = np.random.default_rng(0)
        B, D = self.config.batch_size, self.splits["train"]["x"].shape[-1]
        x = random.integers(256, size=(B, D), dtype=np.uint8)
        return dict(x=x, y=random.integers(CLASSES, size=B, dtype=np.int32))

    def init(self, key):
        return self.model(train=True).init(key, *self.inputs(self.example()["x"], key))

    def per_case(self, variables, batch, key, train):
        inputs = self.inputs(batch["x"], key)
        logits, new = self.model(train).apply(variables, *inputs, mutable=["stats"])
        error = (logits.argmax(-1) != batch["y"]).astype(jnp.float32)
        nll = negative_log_likelihood(logits, batch["y"])
        return dict(nll=nll, error=error), new.get("stats", {})


def some_cases(task, split: str, count: int | None):
    """The arrays ``[count, ...]`` of cases of a split of a task, of all where count is None.

    They are spread evenly: binarized MNIST's test set, for one, begins with all its zeros.

    Raises:
        InputError: there is no such split, or it has fewer cases.
    """
    arrays = choose("split", split, task.splits)
    if count is None:
        return arrays
    N = len(next(iter(arrays.values())))
    if count > N:
        raise InputError(f"--cases={count}: the split {split!r} has {N} cases.")
    cases = [n * N // count for n in range(count)]
    return {name: array[cases] for name, array in arrays.items()}
