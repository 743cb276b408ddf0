"""Peers of the benchmark skip_thoughts that need jax: ours, and the same written plainly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.datasets import vocabulary
from experiments.datasets.vocabulary import SPECIAL
from experiments.skip_thoughts import task as skip_thoughts
from ln.rnn import unroll
from ln.training import train
from scripts.benchmarks import common_jax
from scripts.benchmarks.order_embeddings_jax import NAMES
from scripts.benchmarks.skip_thoughts import STEPS, Case, Data, make_config


class PlainModel(skip_thoughts.Model):
    """Autodiff of the loops over the words as they stand, and the logits of all words at once."""

    def unroll(self, gru, x, mask, h=None):
        return unroll(gru, x, mask, h, schedule="plain")

    def nats(self, h, target, real):
        log_p = jax.nn.log_softmax(h @ self.W_y + self.b_y)
        return -(real * jnp.take_along_axis(log_p, target[:, None], 1)[:, 0]).sum()


class Task(skip_thoughts.Task):
    """Skip-thoughts on random words, some more frequent than others.

    Args:
        plain: whether the model is PlainModel.
    """

    def __init__(self, case: Case, plain: bool = False, norm: str = "layer"):
        self.case, self.plain = case, plain
        super().__init__(make_config(case, norm))

    def load(self):
        random, V = np.random.default_rng(0), self.case.vocabulary - SPECIAL
        B, longest = self.config.batch_size, self.config.max_words - 1
        # Triples one behind another: middle sentences as long as can be, and so is one neighbour
        # of each batch.
        lengths = random.integers(1, longest, size=(STEPS, B, 3), endpoint=True)
        lengths[:, :, 1] = longest
        lengths[:, 0, 0] = longest
        starts = np.append(0, lengths.cumsum())
        tokens = SPECIAL + V ** random.random(starts[-1]) - 1
        split = dict(
            tokens=tokens.astype(np.int32),
            starts=starts,
            books=np.array([0, lengths.size]),
            words=vocabulary.join(map(str, range(V))),
        )
        return dict(train=split, valid=split)

    def batch(self, step, seed=0, rows=slice(None)):
        B = self.config.batch_size
        triples = (step % STEPS * B + np.arange(B))[rows]
        return self.gather(self.arrays, 3 * triples + 1, self.padded(self.config.max_words - 1))

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


def make_data(case: Case) -> Data:
    """What a step of `Step` with seed 0 begins with."""
    task = Task(case)
    weights = common_jax.named(jax.jit(task.init)(jax.random.key(0))["params"], NAMES)
    _, batches = train.batches_of(task, range(STEPS))
    return Data(weights, jax.tree.map(np.array, batches))


class Step(common_jax.Step):
    """A training step with clipping and Adam.

    Args:
        compared: whether it computes the same as the others.
    """

    STEPS_PER_CALL = STEPS

    def __init__(self, case: Case, plain: bool = False, norm: str = "layer", compared: bool = True):
        super().__init__(Task(case, plain, norm), NAMES)
        self.compared = compared and norm == "layer"

    def losses(self, count):
        return super().losses(count) if self.compared else []
