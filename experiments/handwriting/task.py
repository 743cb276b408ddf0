"""Predict lines of handwriting point by point, and write texts (§6.5)."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.datasets.lines import CLASSES
from experiments.handwriting.model import Mixture, Model, Noise
from experiments.tasks import Cases, redraw_matrices
from ln.norm import make_norm
from ln.training import data


class Task(Cases):
    """Negative log likelihood of lines: nats per line, all its points added up, as in figure 5.

    Lines are cut after ``config.length`` predicted points. In the arrays of a split a line is
    points ``[length + 1, 3]``, of which all but the last are inputs and all but the first are
    predicted, its number of predicted points, and text ``[U]`` with its number of characters; see
    `pad` for how much of a cut line's text.
    """

    scored = ("valid", "test")

    def __init__(self, config):
        super().__init__(config)
        self.buckets = data.Buckets(
            self.splits["train"]["length"],
            [config.length * (n + 1) // config.buckets for n in range(config.buckets)],
            config.batch_size,
            config.bucket_run,
            data.schedule_seed(config.data_seed),
        )
        self.steps_per_epoch = self.buckets.steps_per_epoch

    def load(self):
        splits = super().load()
        self.scale = splits["train"]["scale"]
        return {name: pad(split, self.config.length) for name, split in splits.items()}

    def model(self, train: bool) -> Model:
        config = self.config
        return Model(
            hidden=config.hidden,
            components=config.components,
            mixtures=config.mixtures,
            text=config.text,
            pace=config.kappa_bias,
            norm=make_norm(config, train),
            classes=CLASSES,
        )

    def example(self):
        config, random = self.config, np.random.default_rng(0)
        B, U = config.batch_size, self.splits["train"]["text"].shape[1]
        points = random.normal(size=(B, config.length + 1, 3)).astype(np.float32)
        points[..., 2] = points[..., 2] > 1
        return dict(
            points=points,
            length=np.full(B, config.length, np.int32),
            text=random.integers(CLASSES, size=(B, U), dtype=np.uint8),
            text_length=np.full(B, U, np.int32),
        )

    def shape(self, step):
        return self.buckets.length(step)

    def indices(self, step, seed, rows=slice(None)):
        return self.buckets.cases(step, seed)[rows]

    def gather(self, arrays, indices, shape):
        batch = super().gather(arrays, indices, shape)
        return batch | {"points": batch["points"][:, : shape + 1]}

    def init(self, key):
        variables = self.model(train=True).init(key, *inputs(self.example()))
        return redraw_matrices(variables, key, self.config.init_std)

    def per_case(self, variables, batch, key, train):
        xs, mask, text = inputs(batch)
        y, new = self.model(train).apply(variables, xs, mask, text, mutable=["stats"])
        targets = batch["points"][:, 1:].swapaxes(0, 1)
        nll = Mixture.of(y).negative_log_likelihood(targets)
        nll = jnp.where(mask, nll, 0).sum(0)
        return dict(nll=nll, nll_per_point=nll / batch["length"]), new.get("stats", {})

    def write(self, variables, texts: list[np.ndarray], key, steps: int, bias=0.0, prime=None):
        """Writes texts (classes ``[U]`` each) with a network's variables.

        Args:
            steps: how many points at most.
            prime: points ``[n, 3]`` to begin with, the first 0; the texts are those of the prime
                followed by what is to be written.
        """
        B, U = len(texts), max(map(len, texts))
        padded = np.zeros((B, U), np.uint8)
        for row, classes in zip(padded, texts, strict=True):
            row[: len(classes)] = classes
        text = one_hot(padded, np.array([len(classes) for classes in texts]))
        given = np.zeros((steps, B, 3), np.float32)
        count = 0 if prime is None else len(prime) - 1
        if count:
            given[:count] = prime[1 : count + 1, None]
        noise = Noise.draw(key, (steps, B), self.config.mixtures)
        return self.model(train=False).apply(
            variables, text, noise, bias, given, np.arange(steps) < count, method="write"
        )


def one_hot(text, length):
    """Classes ``[B, U]`` as ``[B, U, C]``; 0 behind the length ``[B]`` of each text."""
    real = jnp.arange(text.shape[1]) < jnp.asarray(length)[:, None]
    return jax.nn.one_hot(text, CLASSES) * real[..., None]


def inputs(batch):
    """xs ``[T, B, 3]``, mask ``[T, B]`` and text ``[B, U, C]`` of a batch."""
    xs = batch["points"][:, :-1].swapaxes(0, 1)
    mask = jnp.arange(len(xs))[:, None] < batch["length"]
    return xs, mask, one_hot(batch["text"], batch["text_length"])


def pad(split, length: int) -> dict[str, np.ndarray]:
    """The arrays of a split of ragged lines (experiments/datasets/lines.py), as `Task` has them.

    Of a line that is cut, the text is cut to twice the share that is kept of the points: what a
    window would see of the rest is not written here, and its sums over the text would take longer
    than the LSTMs.
    """
    sizes, characters = np.diff(split["point_starts"]), np.diff(split["text_starts"])
    predicted = np.minimum(sizes - 1, length).astype(np.int32)
    read = np.ceil(characters * np.minimum(1, 2 * (predicted + 1) / sizes)).astype(np.int32)
    N = len(sizes)
    points = np.zeros((N, length + 1, 3), np.float32)
    text = np.zeros((N, read.max()), np.uint8)
    for n in range(N):
        line = split["points"][split["point_starts"][n] :][: predicted[n] + 1]
        points[n, : len(line)] = line
        text[n, : read[n]] = split["text"][split["text_starts"][n] :][: read[n]]
    return dict(points=points, length=predicted, text=text, text_length=read)
