"""Peers of the benchmark attentive_reader that need jax: ours, the same written plainly, and the
matrix products alone."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.attentive_reader import task as attentive_reader
from experiments.datasets import cloze, vocabulary
from experiments.datasets.vocabulary import SPECIAL
from ln.norm import matmul
from ln.training import train
from scripts.benchmarks import common_jax
from scripts.benchmarks.attentive_reader import Case, Data, make_config
from scripts.benchmarks.common_jax import Compiled, Training, in_order


class PlainModel(attentive_reader.Model):
    """Autodiff of the loops over the words as they stand, all products within; and the similarity
    as its formula has it, (M d_t) · (M q)."""

    def similarity(self, d, q):
        return ((d @ self.M) * (q @ self.M)).sum(-1)

    def __call__(self, *inputs):
        return super().__call__(*inputs, schedule="plain")


class Task(attentive_reader.Task):
    """The attentive reader on random words.

    Args:
        plain: whether the model is PlainModel.
    """

    def __init__(self, case: Case, plain: bool = False):
        self.case, self.plain = case, plain
        super().__init__(make_config(case))

    def load(self):
        random, (_, V, T, S) = np.random.default_rng(0), self.case
        N = Training.STEPS_PER_CALL * self.config.batch_size
        V -= SPECIAL
        entities = min(500, V // 2)
        words = [f"{cloze.ENTITY}{n}" if n < entities else str(n) for n in range(V)]

        def texts(longest: int):
            """Some frequent words and many rare ones; every batch has one of the longest texts."""
            lengths = random.integers(-(-longest // 2), longest, size=N, endpoint=True)
            lengths[:: self.config.batch_size] = longest
            tokens = SPECIAL + V ** random.random(lengths.sum()) - 1
            return tokens.astype(np.int32), np.append(0, lengths.cumsum())

        (passages, passage_starts), (questions, question_starts) = texts(T), texts(S)
        return dict(
            train=dict(
                passages=passages,
                passage_starts=passage_starts,
                questions=questions,
                question_starts=question_starts,
                answers=random.integers(SPECIAL, SPECIAL + entities, size=N, dtype=np.int32),
                words=vocabulary.join(words),
            )
        )

    def batch(self, step, seed=0, rows=slice(None)):
        B = self.config.batch_size
        cases = step % Training.STEPS_PER_CALL * B + np.arange(B)
        return self.cases(self.arrays, cases[rows], self.case.T)

    def model(self, train):
        model = super().model(train)
        if not self.plain:
            return model
        fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
        return PlainModel(**fields)

    def init(self, key):
        """With biases and gains a little off their first values: so all are seen to be in their
        places. With gains of 1 at h and small inputs passages are chaotic: after 300 words
        gradients consist of rounding errors."""
        times = {"norm_h": 0.35, "table": 100.0}

        def moved(path, p, noise):
            p = p + 0.05 * noise if p.ndim == 1 else p
            return p * math.prod(times.get(part.key, 1.0) for part in path)

        variables = super().init(key)
        noise = optax.tree.random_like(key, variables)
        return jax.tree_util.tree_map_with_path(moved, variables, noise)


# --- Weights, batches and noise for others ---

# Where a parameter lies in its module -> its name in `Data`.
NAMES = {
    "": "W",
    "kernel": "W",
    "bias": "b",
    "b": "b",
    "h_0": "h_0",
    "W_x.kernel": "W_x",
    "W_h.kernel": "W_h",
    **{f"norm_{site}.{p}": f"{p}_{site}" for site in "xhc" for p in ("gain", "bias")},
}


def make_data(case: Case) -> Data:
    """What a step of `Training` with seed 0 begins with."""
    task = Task(case)
    weights = common_jax.named(jax.jit(task.init)(jax.random.key(0))["params"], NAMES)
    steps, batches = train.batches_of(task, range(Training.STEPS_PER_CALL))
    keys = [jax.random.fold_in(jax.random.key(0), step) for step in steps]  # as train_step
    noise = [task.noise(train.lane(batches, n), key, train=True) for n, key in enumerate(keys)]
    stacked = (np.stack(leaves).astype(np.uint8) for leaves in zip(*noise, strict=True))
    return Data(weights, jax.tree.map(np.array, batches), tuple(stacked))


# --- Peers ---


class Step(common_jax.Step):
    """A training step with clipping and Adam.

    Args:
        compared: whether it computes the same as the others.
    """

    def __init__(self, case: Case, plain: bool = False, compared: bool = True):
        super().__init__(Task(case, plain), NAMES)
        self.compared = compared

    def losses(self, count):
        return super().losses(count) if self.compared else []


class Products(Compiled):
    """The matrix products of forward and backward: the shapes and loops of ours, nothing else.

    Args:
        shapes: see `Data.products`.
    """

    def __init__(self, shapes):
        random = np.random.default_rng(0)

        def normal(*shape):
            return jnp.array(random.standard_normal(shape, np.float32))

        Ws = {name: normal(*shape) for name, (_, shape) in shapes.items()}
        xs = {name: normal(*leading, D) for name, (leading, (D, _)) in shapes.items()}
        d_as = {name: normal(*leading, n) for name, (leading, (_, n)) in shapes.items()}

        def all_of(inputs, Ws):
            def product(name):
                in_loop = name.endswith("W_h")
                return (in_order if in_loop else matmul)(inputs[name], Ws[name])

            return [product(name) for name in Ws]

        def of_matrix(x, d_a):
            x, d_a = (array.reshape(-1, array.shape[-1]) for array in (x, d_a))
            return x.T @ d_a

        def products(Ws, xs, d_as):
            d_xs = all_of(d_as, {name: W.T for name, W in Ws.items()})
            return all_of(xs, Ws), d_xs, jax.tree.map(of_matrix, xs, d_as)

        super().__init__(products, Ws, xs, d_as)
