"""Predict lines of handwriting point by point, and write texts (§6.5)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import tasks
from experiments.datasets.lines import CLASSES
from experiments.handwriting.model import Mixture, Model, Written


class Task(tasks.Cases):
    """Minimize the negative log likelihood of lines, in nats per line as in figure 5.

    Lines are cut after ``config.length`` predicted points. The arrays of a split have for each line
    its points ``[length + 1, 3]``, the number of predicted points, its text ``[U]`` and the number
    of characters (`pad`). All points but the last are inputs; all but the first are targets.
    """

    scored = ("valid", "test")
    metrics = ("nll", "nll_per_point")

    def load(self):
        """Return the padded arrays of each split."""
        splits = super().load()
        self.scale = splits["train"]["scale"]
        return {name: pad(split, self.config.length) for name, split in splits.items()}

    def schedule(self):
        """Return batches of examples of similar length."""
        config = self.config
        bounds = config.length * np.arange(1, config.buckets + 1) // config.buckets
        return self.buckets(self.arrays["length"], bounds, config.bucket_run)

    def model(self, train: bool) -> Model:
        """Return the network."""
        return tasks.build(Model, self.config, train, classes=CLASSES)

    def gather(self, arrays, indices, shape):
        """Return a batch whose lines are cut to ``shape`` predicted points."""
        batch = super().gather(arrays, indices, shape)
        return batch | {"points": batch["points"][:, : shape + 1]}

    def inputs(self, batch, key, train):
        """Return xs ``[T, B, 3]``, mask ``[T, B]`` and text ``[B, U, C]`` of a batch."""
        xs = batch["points"][:, :-1].swapaxes(0, 1)
        mask = tasks.mask_of(len(xs), batch["length"])
        return xs, mask, one_hot(batch["text"], batch["text_length"])

    def per_case(self, variables, batch, key, train):
        """Return the metrics of each example ``[B]`` and the new statistics."""
        y, stats = self.apply(variables, batch, key, train)
        targets = batch["points"][:, 1:].swapaxes(0, 1)
        nll = Mixture.from_outputs(y).negative_log_likelihood(targets)
        nll = jnp.where(tasks.mask_of(len(nll), batch["length"]), nll, 0).sum(0)
        return dict(nll=nll, nll_per_point=nll / batch["length"]), stats

    def write(self, variables, texts: list[np.ndarray], key, steps: int, bias=0.0) -> Written:
        """Write texts with a trained network.

        Args:
            variables: of the network.
            texts: classes of characters ``[U]`` of each text.
            key: of the random numbers.
            steps: number of points.
            bias: see `Mixture.from_outputs`.
        """
        B, lengths = len(texts), np.array([len(classes) for classes in texts])
        padded = np.zeros((B, lengths.max()), np.uint8)
        padded[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(texts)
        keys = jax.random.key_data(jax.random.split(key, steps))
        arguments = one_hot(padded, lengths), keys, bias
        written: Any = self.model(train=False).apply(variables, *arguments, method="write")
        return written


def one_hot(text, length):
    """Return classes ``[B, U]`` as one-hot ``[B, U, C]``, 0 after the length ``[B]`` of a text."""
    real = jnp.arange(text.shape[1]) < jnp.asarray(length)[:, None]
    return jax.nn.one_hot(text, CLASSES) * real[..., None]


def pad(split, length: int) -> dict[str, np.ndarray]:
    """Return a split of ragged lines (experiments/datasets/lines.py) as the arrays of `Task`.

    If a line is cut to a share of its points, its text is cut to twice that share: no window gets
    further, and the window's sums over the whole text would take longer than the LSTMs.
    """
    sizes, characters = np.diff(split["point_starts"]), np.diff(split["text_starts"])
    predicted = np.minimum(sizes - 1, length).astype(np.int32)
    read = np.ceil(characters * np.minimum(1, 2 * (predicted + 1) / sizes)).astype(np.int32)
    points = np.zeros((len(sizes), length + 1, 3), np.float32)
    text = np.zeros((len(sizes), read.max()), np.uint8)
    for n, (k, u) in enumerate(zip(predicted + 1, read, strict=True)):
        points[n, :k] = split["points"][split["point_starts"][n] :][:k]
        text[n, :u] = split["text"][split["text_starts"][n] :][:u]
    return dict(points=points, length=predicted, text=text, text_length=read)
