"""Bound the log likelihood of binary images with DRAW (§6.4)."""

from typing import Any

import jax
from jax.nn import logsumexp
import jax.numpy as jnp

from experiments import tasks
from experiments.draw.model import HEIGHT, WIDTH, Glimpse, Model, bound, divergence, log_weight


class Task(tasks.Cases):
    """Minimize the bound on −log p of binary images x, uint8 ``[B, 784]`` of 0 and 1.

    The metrics are the bound, which is the loss, and the kl in it, in nats per image.
    """

    scored = ("valid", "test")
    objective = "bound"
    metrics = ("bound", "kl")

    def model(self, train: bool) -> Model:
        """Return the network."""
        return tasks.build(Model, self.config, train)

    def noise(self, key, B: int):
        """Return standard normal numbers ``[T, B, Z]``: ε, or a z of the prior."""
        return jax.random.normal(key, (self.config.glimpses, B, self.config.latent))

    def inputs(self, batch, key, train):
        """Return the images ``[B, 28, 28]`` of a batch and ε ``[T, B, Z]``."""
        x = images(batch["x"])
        return x, self.noise(key, len(x))

    def per_case(self, variables, batch, key, train):
        """Return the metrics of each example ``[B]`` and the new statistics."""
        glimpses, stats = self.apply(variables, batch, key, train)
        kl = divergence(glimpses.mu, glimpses.log_sigma)
        return dict(bound=bound(images(batch["x"]), glimpses), kl=kl), stats

    def estimate(self, variables, x, key, samples: int):
        """Return −log p(x) in nats ``[B]`` by importance weighting, for images x ``[B, 784]``.

        With one sample its mean is the bound; with more samples it is tighter, and still an upper
        bound.
        """

        def weigh(key):
            glimpses, _ = self.apply(variables, dict(x=x), key, train=False)
            return log_weight(images(x), glimpses, self.noise(key, len(x)))

        weights = jax.lax.map(weigh, jax.random.split(key, samples))
        return jnp.log(samples) - logsumexp(weights, 0)

    def generate(self, variables, key, B: int) -> Glimpse:
        """Return the glimpses of B pictures that the model generates."""
        z = self.noise(key, B)
        glimpses: Any = self.model(train=False).apply(variables, z, method="generate")
        return glimpses

    def reconstruct(self, variables, x, key) -> Glimpse:
        """Return how the model paints images x ``[B, 784]`` that it looks at."""
        return self.apply(variables, dict(x=x), key, train=False)[0]


def images(x):
    """Return rows ``[B, 784]`` as images ``[B, 28, 28]``."""
    return x.reshape(-1, HEIGHT, WIDTH).astype(jnp.float32)
