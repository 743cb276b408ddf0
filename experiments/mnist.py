"""Permutation invariant MNIST (§6.6, figure 6): a 784-1000-1000-10 network on single images."""

from functools import cached_property

import flax.linen as nn
import jax
from jax.nn import logsumexp, relu, softplus
import jax.numpy as jnp
import numpy as np

from experiments import datasets
from ln import data, train
from ln.errors import choose
from ln.norm import Initializer, Norm, make_norm

CLASSES = 10
INITIALIZERS = {
    "he_normal": nn.initializers.he_normal(),
    "glorot_normal": nn.initializers.glorot_normal(),
    "lecun_normal": nn.initializers.lecun_normal(),
}


class Model(nn.Module):
    """h = relu(norm(W x)), twice, and logits norm(W h). Maps x ``[B, D]`` to ``[B, 10]``."""

    hidden: int
    norm: Norm
    init_W: Initializer

    @nn.compact
    def __call__(self, x):
        h = x
        for _ in range(2):
            a = self.norm.dense("a", self.hidden, kernel_init=self.init_W)(h)
            h = relu(self.norm("a")(a))
        a = self.norm.dense("out", CLASSES, kernel_init=self.init_W)(h)
        return self.norm("out")(a)


def negative_log_likelihood(logits, y):
    """−log softmax(logits)[y] in nats; logits ``[B, C]``, y ``[B]`` -> ``[B]``.

    Written as log(1 + Σ_others exp(a_other − a_y)), which stays exact down to 1e-38. The usual
    logsumexp(a) − a_y ends at float32's rounding of 1, 6e-8, where figure 6 goes down to 1e-10.
    """
    correct = jnp.take_along_axis(logits, y[:, None], -1)[:, 0]
    others = jnp.where(jax.nn.one_hot(y, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    return softplus(logsumexp(others, -1) - correct)


class Task(train.Task):
    """Classification of images x (uint8 ``[B, D]``) into y (``[B]``)."""

    def __init__(self, config):
        super().__init__(config)
        self.init_W = choose("config.init", config.init, INITIALIZERS)
        make_norm(config, train=True)  # refuses a misspelt norm before the data are read
        self.splits = datasets.load(config.dataset, config.data_dir)
        cases = len(self.splits["train"]["y"])
        data.batch_cases(0, cases, config.batch_size, config.data_seed)
        self.steps_per_epoch = cases // config.batch_size

    def model(self, train: bool) -> Model:
        return Model(self.config.hidden, make_norm(self.config, train), self.init_W)

    def example(self):
        random = np.random.default_rng(0)
        B, D = self.config.batch_size, self.splits["train"]["x"].shape[-1]
        x = random.integers(256, size=(B, D), dtype=np.uint8)
        return dict(x=x, y=random.integers(CLASSES, size=B, dtype=np.int32))

    def batch(self, step):
        x, y = self.splits["train"]["x"], self.splits["train"]["y"]
        cases = data.batch_cases(step, len(y), self.config.batch_size, self.config.data_seed)
        return dict(x=x[cases], y=y[cases])

    def init(self, key):
        return self.model(train=True).init(key, pixels(self.example()["x"]))

    def per_case(self, variables, batch, train):
        """Returns metrics ``[B]`` and the new statistics."""
        model, x = self.model(train), pixels(batch["x"])
        logits, new = model.apply(variables, x, mutable=["stats"])
        error = (logits.argmax(-1) != batch["y"]).astype(jnp.float32)
        nll = negative_log_likelihood(logits, batch["y"])
        return dict(nll=nll, error=error), new.get("stats", {})

    def loss(self, variables, batch, key, train):
        metrics, stats = self.per_case(variables, batch, train)
        means = jax.tree.map(jnp.mean, metrics)
        return means["nll"], (stats, means)

    @cached_property
    def scorers(self):
        def per_case(variables, batch):
            return self.per_case(variables, batch, train=False)[0]

        return {name: train.average(per_case, split) for name, split in self.splits.items()}

    def evaluate(self, variables):
        return {split: score(variables) for split, score in self.scorers.items()}


def pixels(x):
    """Intensities in [0, 1]."""
    return x.astype(jnp.float32) / 255
