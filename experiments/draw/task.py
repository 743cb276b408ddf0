"""Bound the log likelihood of binary images with DRAW (§6.4)."""

import jax
from jax.nn import logsumexp
import jax.numpy as jnp
import numpy as np

from experiments.draw.model import HEIGHT, WIDTH, Glimpse, Model, bound, divergence, log_weight
from experiments.tasks import Cases, redraw_matrices
from ln.norm import make_norm


class Task(Cases):
    """The bound on binary images x, uint8 ``[B, 784]`` of 0 and 1."""

    scored = ("valid", "test")
    objective = "bound"

    def model(self, train: bool) -> Model:
        config = self.config
        return Model(
            hidden=config.hidden,
            latent=config.latent,
            read_size=config.read_size,
            write_size=config.write_size,
            attention=config.attention,
            norm=make_norm(config, train),
        )

    def noise(self, key, B: int):
        """ε ``[T, B, Z]``; also the z of the prior."""
        return jax.random.normal(key, (self.config.glimpses, B, self.config.latent))

    def example(self):
        shape = self.config.batch_size, HEIGHT * WIDTH
        return dict(x=np.random.default_rng(0).integers(2, size=shape, dtype=np.uint8))

    def init(self, key):
        x = images(self.example()["x"])
        variables = self.model(train=True).init(key, x, self.noise(key, len(x)))
        return redraw_matrices(variables, key, self.config.init_std)

    def per_case(self, variables, batch, key, train):
        x = images(batch["x"])
        epsilon = self.noise(key, len(x))
        glimpses, new = self.model(train).apply(variables, x, epsilon, mutable=["stats"])
        kl = divergence(glimpses.mu, glimpses.log_sigma)
        return dict(bound=bound(x, glimpses), kl=kl), new.get("stats", {})

    def estimate(self, variables, x, key, samples: int):
        """−log p(x) in nats ``[B]`` by importance weighting, for images x ``[B, 784]``.

        With one sample its mean is the bound; with more it is tighter, and still an upper bound.
        """
        x, model = images(x), self.model(train=False)

        def weigh(key):
            epsilon = self.noise(key, len(x))
            return log_weight(x, model.apply(variables, x, epsilon), epsilon)

        weights = jax.lax.map(weigh, jax.random.split(key, samples))
        return jnp.log(samples) - logsumexp(weights, 0)

    def generate(self, variables, key, B: int) -> Glimpse:
        """B pictures of the model's own."""
        z = self.noise(key, B)
        return self.model(train=False).apply(variables, z, method="generate")

    def reconstruct(self, variables, x, key) -> Glimpse:
        """What it paints when it looks at images x ``[B, 784]``."""
        x = images(x)
        return self.model(train=False).apply(variables, x, self.noise(key, len(x)))


def images(x):
    """Rows ``[B, 784]`` as images ``[B, 28, 28]``."""
    return x.reshape(-1, HEIGHT, WIDTH).astype(jnp.float32)
