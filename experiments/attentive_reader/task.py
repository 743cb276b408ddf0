"""Answer cloze questions about passages (§6.2)."""

from collections.abc import Callable
from functools import cached_property
import math

import jax
from jax.nn import log_softmax
import jax.numpy as jnp
import numpy as np

from experiments import tasks
from experiments.attentive_reader.model import Model, Noise
from experiments.datasets import cloze, vocabulary
from experiments.datasets.vocabulary import SPECIAL
from experiments.tasks import padded, round_up
from ln.training.train import Batch

LENGTHS = 8  # passages are padded to its multiples


class Task(tasks.Cases):
    """Find the entity that a question about a passage asks for.

    In each training batch one random permutation renames the entities of passages, questions and
    answers, so that a model cannot learn facts about single entities (§6.2). As in the code,
    validation keeps the names. Passages are padded to the bounds of `data.Buckets`.

    The metrics are nll, −log p of the answer among all words, which is the loss; error, the share
    of examples in which another word is more probable (figure 2); and entity_error, the share in
    which another entity is.
    """

    scored = ("valid", "test")  # if there are any
    metrics = ("error", "nll", "entity_error")

    def __init__(self, config):
        super().__init__(config)
        words = vocabulary.split(self.arrays["words"])
        self.vocabulary = SPECIAL + len(words)
        is_entity = [word.startswith(cloze.ENTITY) for word in words]
        self.entities = SPECIAL + np.flatnonzero(is_entity).astype(np.int32)

    def schedule(self):
        """Return batches of examples of similar length."""
        lengths, config = self.lengths["train"], self.config
        self.bounds = tasks.even_bounds(lengths, config.buckets, LENGTHS)
        return self.buckets(lengths, self.bounds, config.bucket_run)

    @cached_property
    def lengths(self) -> dict[str, np.ndarray]:
        """The number of words of each passage of a split."""
        return {name: np.diff(split["passage_starts"]) for name, split in self.splits.items()}

    @cached_property
    def longest_question(self) -> int:
        """The length to which all questions are padded."""
        return int(max(np.diff(split["question_starts"]).max() for split in self.splits.values()))

    def model(self, train: bool) -> Model:
        """Return the network."""
        return tasks.build(Model, self.config, train, vocabulary=self.vocabulary)

    def cases(self, arrays, cases, T: int) -> Batch:
        """Return some examples ``[B]`` of a split as a batch whose passages are padded to T."""
        passages = arrays["passages"], arrays["passage_starts"], cases, T
        questions = arrays["questions"], arrays["question_starts"], cases, self.longest_question
        answers = dict(answer=arrays["answers"][cases])
        return padded("passage", *passages) | padded("question", *questions) | answers

    def drawn(self, cases, step, seed):
        """Return the examples of a batch, and the new name of each word of the vocabulary."""
        renamed = np.arange(self.vocabulary, dtype=np.int32)
        random = np.random.default_rng((seed, step, 2))
        renamed[self.entities] = random.permutation(self.entities)
        return dict(cases=cases, renamed=renamed)

    def gather(self, arrays, indices, shape):
        """Return a batch with renamed entities, whose passages are padded to ``shape``."""
        batch, renamed = self.cases(arrays, indices["cases"], shape), indices["renamed"]
        return batch | {name: renamed[batch[name]] for name in ("passage", "question", "answer")}

    def inputs(self, batch, key, train):
        """Return passage, question, their masks (time-major) and the factors of dropout."""
        noise = self.noise(batch, key, train)
        return *tasks.time_major(batch, "passage", "question"), noise

    def noise(self, batch, key, train: bool) -> Noise:
        """Return the factors of dropout.

        As in the code, dropout does not divide by the probability of a 1 in training; it multiplies
        by it in test.
        """
        config, keep = self.config, 1 - self.config.dropout_rate
        if not train:
            return Noise(keep, keep, keep)

        def draw(key, *shape):
            # Four bytes of each random word: jax's own bytes take ten times as long.
            size = math.prod(shape)
            words = jax.random.bits(key, (-(-size // 4),), jnp.uint32)
            drawn = (words >> jnp.arange(0, 32, 8, dtype=jnp.uint32)[:, None]) & 255
            return (drawn.ravel()[:size].reshape(shape) < round(256 * keep)).astype(jnp.float32)

        (B, T), S = batch["passage"].shape, batch["question"].shape[1]
        shapes = (T, B, config.embedding_dim), (S, B, config.embedding_dim), (B, config.hidden)
        keys = jax.random.split(key, 3)
        return Noise(*(draw(key, *shape) for key, shape in zip(keys, shapes, strict=True)))

    def per_case(self, variables, batch, key, train):
        """Return the metrics of each example ``[B]`` and the new statistics."""
        (logits, _), stats = self.apply(variables, batch, key, train)
        answer = batch["answer"]
        # The code's loss is −log(p + 1e-8), which stops teaching where p is small.
        nll = -jnp.take_along_axis(log_softmax(logits), answer[:, None], 1)[:, 0]
        guess = logits.argmax(-1)
        entity = jnp.asarray(self.entities)[logits[:, self.entities].argmax(-1)]
        metrics = dict(nll=nll, error=guess != answer, entity_error=entity != answer)
        return {name: value.astype(jnp.float32) for name, value in metrics.items()}, stats

    @tasks.compiled
    def read(self, variables, batch):
        """Return logits ``[B, V]`` and attention ``[T, B]`` of a batch."""
        return self.apply(variables, batch, None, train=False)[0]

    def blocks(self, split: str) -> list[Batch]:
        """Return the examples of a split in order of length, config.batch_size at a time."""
        blocks, lengths = [], self.lengths[split]
        for cases in tasks.by_length(lengths, self.config.batch_size):
            longest = lengths[cases].max()
            fitting = [bound for bound in self.bounds if bound >= longest]
            T = int(min(fitting, default=round_up(longest, LENGTHS)))
            block = self.cases(self.splits[split], cases, T)
            blocks.append(tasks.filled(block, self.config.batch_size))
        return blocks

    @tasks.compiled
    def sums(self, variables, block):
        """Return the sums of the metrics over the real examples of a block."""
        metrics, _ = self.per_case(variables, block, None, train=False)
        real = block["passage_length"] > 0
        return {name: (value * real).sum() for name, value in metrics.items()}

    @cached_property
    def scorers(self):
        """The function variables -> means of the metrics, for each split."""
        return {name: self.scorer(name) for name in self.scored if name in self.splits}

    def scorer(self, split: str) -> Callable:
        """Return the function variables -> means of the metrics over a split."""
        blocks, N = jax.device_put(self.blocks(split)), len(self.lengths[split])

        def means(variables):
            sums = tasks.add_up(self.sums, variables, blocks)
            return {name: float(total / N) for name, total in sums.items()}

        return means
