"""Peers of the benchmark draw that need jax: ours, and the matrix products alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.draw import task as draw
from experiments.draw.model import HEIGHT, WIDTH
from ln.rnn import scan
from ln.training import train
from scripts.benchmarks import common_jax
from scripts.benchmarks.common_jax import Compiled, Training, in_order
from scripts.benchmarks.draw import Data, matrices

# --- Formulations of the model: images [B, 28, 28] and noise [T, B, Z] -> Glimpse ---


def plain(model: draw.Model, x, epsilon):
    """Autodiff of the loop as it stands."""
    return model(x, epsilon, schedule="plain")


def rematerialized(model: draw.Model, x, epsilon):
    """The same with nothing kept of a glimpse but its carry."""
    B = len(x)
    carry = jnp.zeros_like(x), model.encoder.initial(B), model.decoder.initial(B)
    infer = nn.remat(draw.Model.infer, prevent_cse=False)  # a loop needs no barriers
    return scan(infer, model, carry, epsilon, x, schedule="plain")[1]


FORMULATIONS = {"plain": plain, "rematerialized": rematerialized}


class Task(draw.Task):
    """DRAW on random zeros and ones.

    Args:
        formulation: one of FORMULATIONS; None: as it is trained.
    """

    def __init__(self, config, formulation: str | None = None):
        super().__init__(config)
        self.formulation = formulation

    def load(self):
        shape = Training.STEPS_PER_CALL * self.config.batch_size, HEIGHT * WIDTH
        return dict(train=dict(x=np.random.default_rng(0).integers(2, size=shape, dtype=np.uint8)))

    def init(self, key):
        """With biases and gains a little off 0 and 1: so all are seen to be in their places."""

        def moved(p, noise):
            return p + 0.05 * noise if p.ndim == 1 else p

        variables = super().init(key)
        return jax.tree.map(moved, variables, optax.tree.random_like(key, variables))

    def per_case(self, variables, batch, key, train):
        if self.formulation is None:
            return super().per_case(variables, batch, key, train)
        x, formulation = draw.images(batch["x"]), FORMULATIONS[self.formulation]
        glimpses = self.model(train).apply(
            variables, x, self.noise(key, len(x)), method=formulation
        )
        return dict(bound=draw.bound(x, glimpses)), {}


# --- Weights, batches and noise for others ---

# Where a parameter lies in its module -> its name in `Data`.
NAMES = {
    "W_x.kernel": "W_x",
    "W_h.kernel": "W_h",
    "b": "b",
    "norm_c.gain": "gain",
    "norm_c.bias": "bias",
    "Dense_0.kernel": "W",
    "Identity_0.bias": "b",
}


def make_data(config) -> Data:
    """What a step of `Training` with seed 0 begins with."""
    task = Task(config)
    weights = jax.jit(task.init)(jax.random.key(0))["params"]
    steps, batches = train.batches_of(task, range(Training.STEPS_PER_CALL))
    x = np.array(batches["x"], np.float32).reshape(len(steps), -1, HEIGHT, WIDTH)
    keys = [jax.random.fold_in(jax.random.key(0), step) for step in steps]  # as train_step
    epsilon = np.stack([task.noise(key, x.shape[1]) for key in keys])
    return Data(common_jax.named(weights, NAMES), x, epsilon)


# --- Peers ---


class Step(common_jax.Step):
    """A training step with clipping and Adam."""

    def __init__(self, config, formulation: str | None = None):
        super().__init__(Task(config, formulation), NAMES)


class Products(Compiled):
    """The matrix products of forward and backward: the shapes and loops of ours, nothing else."""

    def __init__(self, data: Data):
        random, leading = np.random.default_rng(0), data.epsilon.shape[1:3]

        def normal(*shape):
            return jnp.array(random.standard_normal(shape, np.float32))

        Ws = [normal(D, n) for D, n in matrices(data)]
        xs = [normal(*leading, len(W)) for W in Ws]
        d_as = [normal(*leading, W.shape[1]) for W in Ws]

        def of_matrix(x, d_a):
            x, d_a = (array.reshape(-1, array.shape[-1]) for array in (x, d_a))
            return x.T @ d_a

        def products(Ws, xs, d_as):
            d_xs = in_order(d_as, [W.T for W in Ws])
            return in_order(xs, Ws), d_xs, jax.tree.map(of_matrix, xs, d_as)

        super().__init__(products, Ws, xs, d_as)
