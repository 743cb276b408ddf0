"""Share what the tasks of the experiments have in common.

`Prepared` is a task on a prepared data set. `Cases` is one whose loss and scores are means over
independent examples, and `Images` classifies images.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
from functools import cached_property, partial, wraps
from typing import Any, TypeVar

import flax.linen as nn
import jax
from jax.nn import logsumexp, softplus
import jax.numpy as jnp
import numpy as np

from experiments import datasets
from experiments.datasets import vocabulary
from ln.errors import InputError, choose
from ln.norm import make_norm
from ln.training import data, train
from ln.training.train import Batch, Scores, Variables

CLASSES = 10

Network = TypeVar("Network", bound=nn.Module)


class Shuffled:
    """Batches of n examples of one shape, in an order that every epoch draws anew.

    Raises:
        InputError: a batch has more examples than the data set.
    """

    bounds = (None,)  # there is one shape

    def __init__(self, n: int, batch_size: int):
        self.n, self.batch_size = n, batch_size
        self.cases(0, seed=0)  # raises
        self.steps_per_epoch = n // batch_size

    def length(self, step: int) -> None:
        """Return the padded length of a batch, as `data.Buckets` does: all have one shape."""
        return None

    def cases(self, step: int, seed: int) -> np.ndarray:
        """Return the examples ``[batch_size]`` of a batch in the order of a seed."""
        return data.batch_cases(step, self.n, self.batch_size, seed)


class Prepared(train.Task):
    """A task on the splits of a prepared data set.

    An experiment gives its `model` and the model's `inputs`. Everything that costs time comes after
    what can be wrong in a config.

    Attributes:
        splits: the data, ``splits["train"][name]``.
        batches: which examples make the batch of each step.
    """

    def __init__(self, config):
        super().__init__(config)
        make_norm(config, train=True)  # raises for a misspelt norm, before the data are read
        self.splits = self.load()
        self.arrays = self.splits["train"]
        self.batches = self.schedule()
        self.steps_per_epoch = self.batches.steps_per_epoch

    def load(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the data, ``load()["train"][name]``; large arrays are mapped, not read."""
        return datasets.load(self.config.dataset, self.config.data_dir)

    def schedule(self) -> Any:
        """Return the batches of training: `Shuffled`, `data.Buckets` or a class like them."""
        return Shuffled(count(self.arrays), self.config.batch_size)

    def buckets(self, lengths: np.ndarray, bounds: np.ndarray, run: int) -> data.Buckets:
        """Return batches of examples of similar length; see `data.Buckets`."""
        seed = data.schedule_seed(self.config.data_seed)
        return data.Buckets(lengths, bounds, self.config.batch_size, run, seed)

    def model(self, train: bool) -> nn.Module:
        """Return the network, for training or for tests."""
        raise NotImplementedError

    def inputs(self, batch: Batch, key, train: bool) -> tuple:
        """Return the model's arguments for a batch; the key is for anything random in them."""
        raise NotImplementedError

    def init(self, key) -> Variables:
        """Return fresh variables; config.init_std redraws all matrices."""
        inputs = self.inputs(self.example(), key, train=True)
        variables = self.model(train=True).init(key, *inputs)
        return redraw_matrices(dict(variables), key, self.config.get("init_std", 0))

    @property
    def largest(self) -> int | None:
        """The largest `shape` of a batch."""
        return self.batches.bounds[-1]

    def example(self) -> Batch:
        """Return a batch of the largest shape, in which texts are as long as they can be."""
        cases = np.resize(self.batches.cases(0, 0), self.config.batch_size)
        batch = self.gather(self.arrays, self.drawn(cases, 0, 0), self.largest)
        full = {f"{name}_length": array.shape[-1] for name, array in batch.items()}
        return batch | {
            name: np.full_like(batch[name], T) for name, T in full.items() if name in batch
        }

    def apply(self, variables: Variables, batch: Batch, key, train: bool) -> tuple[Any, dict]:
        """Return the model's outputs for a batch, and the new running statistics."""
        inputs = self.inputs(batch, key, train)
        outputs, new = self.model(train).apply(variables, *inputs, mutable=["stats"])
        return outputs, new.get("stats", {})

    def shape(self, step):
        """Return the padded length of the batch of a step; None if all have one shape."""
        return self.batches.length(step)

    def indices(self, step, seed, rows=slice(None)):
        """Return what `drawn` returns for the examples of a step."""
        return self.drawn(self.batches.cases(step, seed)[rows], step, seed)

    def drawn(self, cases: np.ndarray, step: int, seed: int) -> Any:
        """Return the examples of a batch, and whatever else is drawn for it."""
        return cases

    def gather(self, arrays, indices, shape) -> Batch:
        """Return the rows of these examples of all arrays."""
        return {name: array[indices] for name, array in arrays.items()}


class Cases(Prepared):
    """A task on independent examples.

    An experiment gives the metrics of each example with `per_case`; their means are the loss, what
    is logged and the scores.

    Attributes:
        scored: the splits that are evaluated.
        objective: the metric whose mean is the loss.
    """

    scored: tuple[str, ...] = ("train", "valid", "test")
    objective: str = "nll"

    def per_case(self, variables: Variables, batch: Batch, key, train: bool):
        """Return metrics ``[B]`` and the new statistics."""
        raise NotImplementedError

    def loss(self, variables, batch, key, train):
        """Return the mean of the objective, the new statistics, and the means of all metrics."""
        metrics, stats = self.per_case(variables, batch, key, train)
        means = jax.tree.map(jnp.mean, metrics)
        return means[self.objective], (stats, means)

    @cached_property
    def scorers(self):
        """The function variables -> means of the metrics, for each split."""

        def per_case(variables, batch):
            # The same key each time, so that scores are a function of the variables alone.
            return self.per_case(variables, batch, jax.random.key(0), train=False)[0]

        return {name: train.average(per_case, self.splits[name]) for name in self.scored}

    def evaluate(self, variables) -> Scores:
        """Return the means of the metrics on each split that is scored."""
        return {split: score(variables) for split, score in self.scorers.items()}


class Images(Cases):
    """Classification of images x (uint8 ``[B, D]``) into y (``[B]``) by a model's logits."""

    metrics: tuple[str, ...] = ("error", "nll")

    def load(self):
        """Return the data; raise InputError if a split is missing."""
        splits = super().load()
        if missing := [name for name in ("train", "valid", "test") if name not in splits]:
            raise InputError(f"The data set {self.config.dataset!r} has no split {missing[0]!r}.")
        return splits

    def inputs(self, batch, key, train):
        """Return the images ``[B, D]``, from 0 to 1."""
        return (pixels(batch["x"]),)

    def per_case(self, variables, batch, key, train):
        """Return nll and error of each image ``[B]`` and the new statistics."""
        logits, stats = self.apply(variables, batch, key, train)
        return class_metrics(logits, batch["y"]), stats


def pixels(x):
    """Return intensities from 0 to 1."""
    return x.astype(jnp.float32) / 255


def class_metrics(logits, y) -> dict:
    """Return how wrong logits ``[B, C]`` are about classes y ``[B]``: nll and error, ``[B]``."""
    error = (logits.argmax(-1) != y).astype(jnp.float32)
    return dict(nll=negative_log_likelihood(logits, y), error=error)


def negative_log_likelihood(logits, y):
    """Return −log softmax(logits)[y] in nats; logits ``[B, C]``, y ``[B]`` -> ``[B]``.

    Written as log(1 + Σ_others exp(a_other − a_y)), which stays exact down to 1e-38. The usual
    logsumexp(a) − a_y ends at float32's rounding of 1, 6e-8, where figure 6 goes down to 1e-10.
    """
    margins = logits - jnp.take_along_axis(logits, y[:, None], -1)
    others = jnp.where(jax.nn.one_hot(y, logits.shape[-1], dtype=bool), -jnp.inf, margins)
    return softplus(logsumexp(others, -1))


# --- Models ---


def build(network: type[Network], config, train: bool, **attributes) -> Network:
    """Return a network with these attributes; all others are the config's values of their names.

    Its norm is that of the config, for training or for tests.
    """
    fields = {field.name: field.default for field in dataclasses.fields(network)}
    values = {name: config[name] for name in fields if name in config}
    given = {*values, *attributes, "norm"}
    lacking = [n for n, d in fields.items() if d is dataclasses.MISSING and n not in given]
    if lacking:
        raise InputError(f"The config lacks {', '.join(lacking)}, which this network needs.")
    return network(**values | dict(norm=make_norm(config, train)) | attributes)


def redraw_matrices(variables: Variables, key, std: float) -> Variables:
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


def compiled(method: Callable) -> cached_property:
    """Compile a method once for each task."""
    return cached_property(wraps(method)(lambda task: jax.jit(partial(method, task))))


# --- Sequences of different lengths ---


def round_up(n, multiple: int):
    """Return the least multiple that is at least n."""
    return -(-n // multiple) * multiple


def even_bounds(lengths: np.ndarray, buckets: int, multiple: int) -> np.ndarray:
    """Return the bounds of buckets with about as many examples each, at multiples of a number."""
    shares = np.arange(1, buckets + 1) / buckets
    bounds = round_up(np.quantile(lengths, shares, method="higher"), multiple)
    return np.unique(bounds).astype(int)


def padded(name: str, tokens, starts, texts, T: int, ends: int = 0) -> Batch:
    """Return some texts of a ragged array as entries ``name`` and ``name_length`` of a batch.

    Args:
        name: what the batch calls the texts.
        tokens: words by number, all texts one behind the other; see `vocabulary.pad`.
        starts: where each text starts in ``tokens``.
        texts: the numbers of the chosen texts ``[B]``.
        T: the length to which they are padded.
        ends: how many of the END behind a text belong to it.
    """
    tokens, length = vocabulary.pad(tokens, starts, texts, T)
    return {name: tokens, f"{name}_length": length + ends}


def time_major(batch: Batch, *names: str) -> list:
    """Return the named texts ``[B, T]`` of a batch as ``[T, B]``, each with its mask behind it."""
    arrays = []
    for name in names:
        tokens = batch[name].T
        arrays += [tokens, mask_of(len(tokens), batch[f"{name}_length"])]
    return arrays


def mask_of(T: int, lengths):
    """Return which of T steps are in sequences of these lengths ``[B]``: bool ``[T, B]``."""
    return jnp.arange(T)[:, None] < lengths


def by_length(lengths: np.ndarray, size: int) -> list[np.ndarray]:
    """Return the numbers of examples in order of length, in blocks ``[size]``; the last is rest."""
    order = np.argsort(lengths, kind="stable")
    return [order[n : n + size] for n in range(0, len(order), size)]


def filled(batch: Batch, size: int) -> Batch:
    """Return a batch with examples without words behind it, up to some size.

    One program then does all blocks, and batch norm leaves these examples out.
    """
    return {name: data.fill(array, size) for name, array in batch.items()}


def add_up(function: Callable, variables: Variables, blocks: Iterable[Batch]):
    """Return the sums over blocks of the numbers that a compiled function returns for each."""
    numbers = jax.device_get([function(variables, block) for block in blocks])
    return jax.tree.map(lambda *values: sum(values), *numbers)


# --- Examples ---


def count(arrays: Mapping[str, np.ndarray]) -> int:
    """Return the number of examples in the arrays of a split."""
    return len(next(iter(arrays.values())))


def some_cases(task: Prepared, split: str, wanted: int | None) -> Mapping[str, np.ndarray]:
    """Return the arrays ``[wanted, ...]`` of examples of a split; of all if wanted is None.

    Raises:
        InputError: there is no such split, or it has fewer examples.
    """
    arrays = choose("split", split, task.splits)
    if wanted is None:
        return arrays
    chosen = spread(count(arrays), wanted, f"the split {split!r} has {count(arrays)} examples")
    return {name: array[chosen] for name, array in arrays.items()}


def spread(N: int, wanted: int, available: str) -> np.ndarray:
    """Return so many of N examples, spread evenly.

    Binarized MNIST's test set, for example, begins with all its zeros.

    Raises:
        InputError: there are fewer; the message says what is available.
    """
    if wanted > N:
        raise InputError(f"--cases={wanted}: {available}.")
    return np.arange(wanted) * N // wanted
