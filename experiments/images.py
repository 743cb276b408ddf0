"""Classification of MNIST-like images into ten classes: the task that several networks share."""

import flax.linen as nn
import jax
from jax.nn import logsumexp, softplus
import jax.numpy as jnp
import numpy as np

from experiments.cases import Cases

CLASSES = 10


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


class Task(Cases):
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
