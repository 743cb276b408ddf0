"""Peers of the benchmark order_embeddings that need jax: ours, the same written plainly, and the
matrix products alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import retrieval
from experiments.datasets import vocabulary
from experiments.datasets.captions import CAPTIONS
from experiments.datasets.vocabulary import SPECIAL
from experiments.order_embeddings import task as order_embeddings
from ln.norm import matmul
from ln.rnn import unroll
from ln.training import train
from scripts.benchmarks import common_jax
from scripts.benchmarks.common import Peer
from scripts.benchmarks.common_jax import Compiled, Training, device_memory, in_order, precise
from scripts.benchmarks.order_embeddings import Case, Data, make_config


class PlainModel(order_embeddings.Model):
    """Autodiff of the loop over the words as it stands, all products within."""

    def caption(self, tokens, length):
        mask = jnp.arange(tokens.shape[1])[:, None] < length
        return self.point(unroll(self.encoder, self.table[tokens.T], mask, schedule="plain")[1])


class Task(order_embeddings.Task):
    """Order embeddings with random features and captions.

    Args:
        plain: whether the model is PlainModel, and energies are what their formula says, of all
            pairs and coordinates.
    """

    def __init__(self, case: Case, plain: bool = False):
        self.case, self.plain = case, plain
        super().__init__(make_config(case))

    def load(self):
        random, case = np.random.default_rng(0), self.case

        def split(N: int) -> dict[str, np.ndarray]:
            images = np.maximum(random.normal(size=(N, case.D)) - 1, 0)  # most of them 0, as fc7's
            images /= np.linalg.norm(images, axis=1, keepdims=True) + 1e-6
            words = case.T - 1  # before the END
            return dict(
                images=images.astype(np.float32),
                tokens=random.integers(
                    SPECIAL, case.vocabulary, size=CAPTIONS * N * words, dtype=np.int32
                ),
                starts=words * np.arange(CAPTIONS * N + 1),
            )

        splits = dict(train=split(Training.STEPS_PER_CALL * self.config.batch_size))
        splits["train"]["words"] = vocabulary.join(map(str, range(case.vocabulary - SPECIAL)))
        if case.fold:
            splits["test"] = split(case.fold)
        return splits

    def model(self, train):
        model = super().model(train)
        if not self.plain:
            return model
        fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
        return PlainModel(**fields)

    def init(self, key):
        """With biases and gains a little off 0 and 1: so all are seen to be in their places."""

        def moved(p, noise):
            return p + 0.05 * noise if p.ndim == 1 else p

        variables = super().init(key)
        return jax.tree.map(moved, variables, optax.tree.random_like(key, variables))

    def energies(self, s, v):
        return retrieval.violation(s[:, None], v) if self.plain else super().energies(s, v)


# --- Weights and data for others ---

# Where a parameter lies in its module -> its name in `Data`.
NAMES = {
    "": "W",
    "kernel": "W",
    "bias": "b",
    "b": "b",
    **{f"{name}.kernel": name for name in ("W_x", "W_h", "W", "U")},
    **{
        f"norm_{site}.{p}": f"{p}_{site}"
        for site in ("zr_x", "zr_h", "x", "h")
        for p in ("gain", "bias")
    },
}


def make_data(case: Case) -> Data:
    """What a step of `Training` with seed 0 begins with, or what `Fold` is made of."""
    task = Task(case)
    weights = common_jax.named(jax.jit(task.init)(jax.random.key(0))["params"], NAMES)
    if case.fold:
        test = task.splits["test"]
        tokens, _ = order_embeddings.pad(test, np.arange(CAPTIONS * case.fold), case.T)
        return Data(weights, tokens, test["images"])
    _, batches = train.batches_of(task, range(Training.STEPS_PER_CALL))
    return Data(weights, np.array(batches["tokens"]), np.array(batches["images"]))


# --- Peers ---


class Step(common_jax.Step):
    """A training step with clipping and Adam."""

    def __init__(self, case: Case, plain: bool = False):
        super().__init__(Task(case, plain), NAMES)


class Fold(Peer):
    """The points of a fold, and the scores of their ranks."""

    def __init__(self, case: Case, plain: bool = False):
        self.task = Task(case, plain)
        self.variables = jax.jit(self.task.init)(jax.random.key(0))
        self.fold = self.task.fold("test", 0, case.fold)

    def losses(self, count):
        with precise():
            self.s, self.v = map(np.asarray, self.task.points(self.variables, self.fold))
            found = self.task.score(self.variables, self.fold, None)
        self.run(1)  # compiles what is not as precise
        return [found[name] for name in sorted(found) if name != "sum"]

    def gradients(self):
        return dict(captions=self.s, images=self.v)

    def run(self, steps):
        for _ in range(steps):
            self.task.score(self.variables, self.fold, None)
        return steps

    def facts(self):
        return device_memory()


class Products(Compiled):
    """The matrix products of forward and backward: the shapes and loops of ours, nothing else."""

    def __init__(self, data: Data):
        random, (_, B, T) = np.random.default_rng(0), data.tokens.shape

        def normal(*shape):
            return jnp.array(random.standard_normal(shape, np.float32))

        shapes = {name.split(".")[1]: n for name, n in data.matrices.items() if "encoder" in name}
        W_x, W, W_h, U = (normal(*shapes[name]) for name in ("W_x", "W", "W_h", "U"))
        W_image = normal(*data.matrices["W_image.W"])
        x, h = normal(T, B, len(W_x)), normal(T, B, len(W_h))
        d_zr, d_h = normal(T, B, W_h.shape[1]), normal(T, B, U.shape[1])
        features, d_v = normal(B, len(W_image)), normal(B, W_image.shape[1])

        def of_matrix(x, d_a):
            x, d_a = (array.reshape(-1, array.shape[-1]) for array in (x, d_a))
            return x.T @ d_a

        def products(W_x, W, W_h, U, W_image, x, h, d_zr, d_h, features, d_v):
            of_h, d_a = jnp.concatenate([W_h, U], 1), jnp.concatenate([d_zr, d_h], 2)
            forward = matmul(x, W_x), matmul(x, W), in_order(h, of_h), features @ W_image
            backward = in_order(d_a, of_h.T), matmul(d_zr, W_x.T), matmul(d_h, W.T)
            matrices = of_matrix(x, d_zr), of_matrix(x, d_h), of_matrix(h, d_a), features.T @ d_v
            return forward, backward, matrices

        arguments = W_x, W, W_h, U, W_image, x, h, d_zr, d_h, features, d_v
        super().__init__(products, *arguments)
