"""Answer cloze questions about passages (§6.2)."""

from functools import cached_property
import math

import jax
from jax.nn import log_softmax
import jax.numpy as jnp
import numpy as np

from experiments import datasets
from experiments.attentive_reader.model import Model, Noise
from experiments.datasets import cloze, vocabulary
from experiments.datasets.vocabulary import SPECIAL
from ln.norm import make_norm
from ln.training import data, train
from ln.training.train import Batch


class Task(train.Task):
    """Find the entity that a question about a passage asks for.

    In each training batch one random permutation renames the entities of passages, questions and
    answers, so that a model cannot learn facts about single entities (§6.2). As in the code,
    validation keeps the names. Passages are padded to the bounds of `data.Buckets`.

    The metrics: nll, −log p of the answer among all words, which is the loss; error, how often
    another word is more probable (figure 2); entity_error, how often another entity is.
    """

    def __init__(self, config):
        super().__init__(config)
        make_norm(config, train=True)  # refuses a misspelt norm before the data are read
        self.splits = self.load()
        self.arrays = self.splits["train"]
        words = vocabulary.split(self.splits["train"]["words"])
        self.vocabulary = SPECIAL + len(words)
        is_entity = [word.startswith(cloze.ENTITY) for word in words]
        self.entities = SPECIAL + np.flatnonzero(is_entity).astype(np.int32)
        lengths = self.lengths["train"]
        # Equally many passages to a bucket, bounds at multiples of 8.
        shares = np.arange(1, config.buckets + 1) / config.buckets
        bounds = np.unique(-(-np.quantile(lengths, shares, method="higher") // 8) * 8)
        self.buckets = data.Buckets(
            lengths,
            bounds.astype(int),
            config.batch_size,
            config.bucket_run,
            data.schedule_seed(config.data_seed),
        )
        self.steps_per_epoch = self.buckets.steps_per_epoch

    def load(self) -> dict[str, dict[str, np.ndarray]]:
        """The data."""
        return datasets.load(self.config.dataset, self.config.data_dir)

    @cached_property
    def lengths(self) -> dict[str, np.ndarray]:
        """Words of each passage of a split."""
        return {name: np.diff(split["passage_starts"]) for name, split in self.splits.items()}

    @cached_property
    def longest_question(self) -> int:
        """To which all questions are padded."""
        return int(max(np.diff(split["question_starts"]).max() for split in self.splits.values()))

    def model(self, train: bool) -> Model:
        config = self.config
        return Model(
            vocabulary=self.vocabulary,
            words=config.embedding_dim,
            hidden=config.hidden,
            bidirectional=config.bidirectional,
            norm=make_norm(config, train),
        )

    def example(self):
        random = np.random.default_rng(0)
        B, T, S = self.config.batch_size, int(self.buckets.bounds[-1]), self.longest_question
        return dict(
            passage=random.integers(self.vocabulary, size=(B, T), dtype=np.int32),
            passage_length=np.full(B, T, np.int32),  # batch norm wants the longest
            question=random.integers(self.vocabulary, size=(B, S), dtype=np.int32),
            question_length=np.full(B, S, np.int32),
            answer=random.choice(self.entities, B),
        )

    def init(self, key):
        noise = Noise(1.0, 1.0, 1.0)
        return self.model(train=True).init(key, *inputs(self.example()), noise)

    def shape(self, step):
        return self.buckets.length(step)

    def cases(self, arrays, cases, T: int) -> Batch:
        """Return some examples ``[B]`` of a split as a batch whose passages are padded to T."""
        passage, passage_length = vocabulary.pad(
            arrays["passages"], arrays["passage_starts"], cases, T
        )
        question, question_length = vocabulary.pad(
            arrays["questions"], arrays["question_starts"], cases, self.longest_question
        )
        return dict(
            passage=passage,
            passage_length=passage_length,
            question=question,
            question_length=question_length,
            answer=arrays["answers"][cases],
        )

    def indices(self, step, seed, rows=slice(None)):
        """Return the examples, and the word that each word of the vocabulary becomes."""
        renamed = np.arange(self.vocabulary, dtype=np.int32)
        random = np.random.default_rng((seed, step, 2))
        renamed[self.entities] = random.permutation(self.entities)
        return dict(cases=self.buckets.cases(step, seed)[rows], renamed=renamed)

    def gather(self, arrays, indices, shape):
        batch, renamed = self.cases(arrays, indices["cases"], shape), indices["renamed"]
        return batch | {name: renamed[batch[name]] for name in ("passage", "question", "answer")}

    def noise(self, batch, key, train: bool) -> Noise:
        """As the code has it dropout does not divide by the chance of a 1: in test it multiplies
        by that."""
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
        D, keys = config.embedding_dim, jax.random.split(key, 3)
        return Noise(
            draw(keys[0], T, B, D), draw(keys[1], S, B, D), draw(keys[2], B, config.hidden)
        )

    def per_case(self, variables, batch, key, train: bool):
        """Metrics ``[B]`` and the new statistics."""
        noise = self.noise(batch, key, train)
        (logits, _), new = self.model(train).apply(
            variables, *inputs(batch), noise, mutable=["stats"]
        )
        answer = batch["answer"]
        # The code's loss is −log(p + 1e-8), which stops teaching where p is small.
        nll = -jnp.take_along_axis(log_softmax(logits), answer[:, None], 1)[:, 0]
        guess = logits.argmax(-1)
        entity = jnp.asarray(self.entities)[logits[:, self.entities].argmax(-1)]
        metrics = dict(nll=nll, error=guess != answer, entity_error=entity != answer)
        metrics = {name: value.astype(jnp.float32) for name, value in metrics.items()}
        return metrics, new.get("stats", {})

    def loss(self, variables, batch, key, train):
        metrics, stats = self.per_case(variables, batch, key, train)
        means = jax.tree.map(jnp.mean, metrics)
        return means["nll"], (stats, means)

    @cached_property
    def reader(self):
        """(variables, batch) -> logits ``[B, V]`` and attention ``[T, B]``, compiled."""

        def read(variables, batch):
            noise = self.noise(batch, None, train=False)
            return self.model(train=False).apply(variables, *inputs(batch), noise)

        return jax.jit(read)

    def read(self, variables, batch):
        """How one lane's model reads a batch: logits ``[B, V]`` and attention ``[T, B]``."""
        return self.reader(variables, batch)

    def blocks(self, split: str) -> list[dict[str, np.ndarray]]:
        """The cases of a split in order of length, batch_size at a time; the last block is filled
        up with cases without words, which batch norm leaves out."""
        B, order = self.config.batch_size, np.argsort(self.lengths[split], kind="stable")
        bounds, found = self.buckets.bounds, []
        for n in range(0, len(order), B):
            cases = order[n : n + B]
            longest = self.lengths[split][cases].max()
            T = int(min((b for b in bounds if b >= longest), default=-(-longest // 8) * 8))
            block = self.cases(self.splits[split], cases, T)
            filled = {
                name: np.pad(array, [(0, B - len(cases))] + [(0, 0)] * (array.ndim - 1))
                for name, array in block.items()
            }
            found.append(filled)
        return found

    @cached_property
    def scored(self) -> dict[str, list]:
        """The blocks of the splits that are evaluated, on the device."""
        splits = [name for name in ("valid", "test") if name in self.splits]
        return {name: jax.device_put(self.blocks(name)) for name in splits}

    @cached_property
    def sums(self):
        """(variables, block) -> sums of the metrics over its real cases, compiled."""

        def sums(variables, block):
            metrics, _ = self.per_case(variables, block, None, train=False)
            return {
                name: (value * (block["passage_length"] > 0)).sum()
                for name, value in metrics.items()
            }

        return jax.jit(sums)

    def evaluate(self, variables):
        scores = {}
        for split, blocks in self.scored.items():
            sums = jax.device_get([self.sums(variables, block) for block in blocks])
            N = len(self.lengths[split])
            scores[split] = {name: float(sum(s[name] for s in sums) / N) for name in sums[0]}
        return scores


def inputs(batch):
    """Passage and question of a batch, time-major, each with its mask."""
    passage, question = batch["passage"].T, batch["question"].T
    mask = jnp.arange(len(passage))[:, None] < batch["passage_length"]
    question_mask = jnp.arange(len(question))[:, None] < batch["question_length"]
    return passage, mask, question, question_mask
