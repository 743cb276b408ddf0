"""Predict the sentences before and behind a sentence (§6.3)."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments import datasets, sentence_evaluation
from experiments.datasets import text, vocabulary
from experiments.datasets.vocabulary import END, SPECIAL, UNKNOWN
from experiments.skip_thoughts.model import Model
from ln.errors import InputError, choose
from ln.norm import make_norm
from ln.training import data, train
from ln.training.train import Batch

CONDITIONING = ("start", "every")
ENCODED = 512  # sentences at once
LENGTHS = 8  # sentences to be encoded are padded to multiples of it


def triples(split, longest: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Triples of neighbouring sentences, each in one book and all three of them shorter than
    ``longest`` words: the middle sentences, of those from first to before last; and their words.

    Args:
        split: with starts of sentences and of books, as of the data sets "docs" and "books".
    """
    starts, books = split["starts"], split["books"]
    first, last = max(1, first), min(last, len(starts) - 2)
    lengths = np.diff(starts[first - 1 : last + 2])
    short = (0 < lengths) & (lengths < longest)
    inner = short[:-2] & short[1:-1] & short[2:]
    for edge in (books, books - 1):  # the first and the last sentences of books
        inner[edge[(first <= edge) & (edge < last)] - first] = False
    return first + np.flatnonzero(inner), lengths[1:-1][inner]


class Triples:
    """The triples of a text, in batches whose middle sentences are equally long.

    The text is gone through in blocks, in an order that every epoch draws anew; a block's triples
    are batched by `data.Buckets`. So the memory needed is that of one or two blocks, however long
    the text.

    Args:
        split, longest: see `triples`.
        block: sentences of a block.
        batch_size, run, seed: see `data.Buckets`.

    Raises:
        InputError: no length has triples enough for a batch.
    """

    def __init__(self, split, longest: int, block: int, batch_size: int, run: int, seed: int):
        self.split, self.longest, self.block = split, longest, block
        self.batch_size, self.run, self.seed = batch_size, run, seed
        blocks = range(-(-(len(split["starts"]) - 1) // block))
        counts = np.array([np.bincount(self.of_block(k)[1], minlength=longest) for k in blocks])
        steps = (counts // batch_size).sum(1) if batch_size > 0 else np.zeros(1)
        if not steps.any():
            raise InputError(
                f"config.batch_size is {batch_size}; of {counts.sum():,} triples of sentences of "
                f"less than {longest} words, at most {counts.max(initial=0):,} have middle "
                f"sentences of one length in one block."
            )
        self.used, self.steps = np.flatnonzero(steps), steps[steps > 0]
        self.steps_per_epoch = int(steps.sum())
        self.buckets = lru_cache(maxsize=2)(self._buckets)
        self.plan = lru_cache(maxsize=2)(self._plan)

    def of_block(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        return triples(self.split, self.longest, k * self.block, (k + 1) * self.block)

    def _buckets(self, k: int) -> tuple[np.ndarray, data.Buckets]:
        middles, lengths = self.of_block(k)
        bounds = np.arange(1, self.longest)
        return middles, data.Buckets(lengths, bounds, self.batch_size, self.run, self.seed)

    def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The blocks of an epoch in order, and the steps up to the end of each."""
        order = data.epoch_order(len(self.used), self.seed, epoch)
        return order, self.steps[order].cumsum()

    def _block(self, step: int) -> tuple[np.ndarray, data.Buckets, int]:
        """Return the triples of the block of a step, their buckets, and the step among them."""
        epoch, at = divmod(step, self.steps_per_epoch)
        order, ends = self.plan(epoch)
        n = int(np.searchsorted(ends, at, side="right"))
        steps = int(self.steps[order[n]])
        middles, buckets = self.buckets(int(self.used[order[n]]))
        return middles, buckets, epoch * steps + at - (int(ends[n]) - steps)

    def length(self, step: int) -> int:
        """Return how many words the middle sentences of a step have."""
        _, buckets, at = self._block(step)
        return buckets.length(at)

    def middles(self, step: int, seed: int) -> np.ndarray:
        """Return the middle sentences ``[B]`` of the batch of a step in the order of a seed."""
        middles, buckets, at = self._block(step)
        return middles[buckets.cases(at, seed)]


class Task(train.Task):
    """Predict the neighbours of a sentence, word by word.

    As in the code, the middle sentences of a batch are equally long, every sentence ends with one
    END that is predicted too, and the loss is the sum over batch, words and both neighbours. Unlike
    there, a batch is full: triples with a sentence that is too long are left out before batches are
    made, not after.

    The metric nll is −log p in nats per word. Evaluation also scores, if config.tasks names their
    data set, what the vectors are good for; see `sentence_evaluation.evaluate`.
    """

    def __init__(self, config):
        super().__init__(config)
        choose("config.conditioning", config.conditioning, dict.fromkeys(CONDITIONING))
        make_norm(config, train=True)  # refuses a misspelt norm before the data are read
        self.splits = self.load()
        words = vocabulary.split(self.splits["train"]["words"])
        self.words = words[: config.vocab_size - SPECIAL]
        self.vocabulary = SPECIAL + len(self.words)
        self.tasks = datasets.load(config.tasks, config.data_dir) if config.tasks else {}
        self.arrays = self.splits["train"]
        seed = data.schedule_seed(config.data_seed)
        options = (config.batch_size, config.bucket_run, seed)
        self.triples = Triples(
            self.splits["train"], config.max_words, config.shuffle_block, *options
        )
        valid = self.splits["valid"]
        if not len(triples(valid, config.max_words, 0, len(valid["starts"]))[0]):
            raise InputError(
                f"The validation set of {config.dataset} has no three sentences in a row of less "
                f"than config.max_words={config.max_words} words."
            )
        self.steps_per_epoch = self.triples.steps_per_epoch

    def load(self) -> dict[str, dict[str, np.ndarray]]:
        """The running text: mapped, not read."""
        return datasets.load(self.config.dataset, self.config.data_dir)

    def model(self, train: bool) -> Model:
        config = self.config
        return Model(
            vocabulary=self.vocabulary,
            words=config.embedding_dim,
            hidden=config.hidden,
            conditioning=config.conditioning,
            chunk=config.chunk,
            norm=make_norm(config, train),
        )

    def padded(self, length: int) -> int:
        """What middle sentences of some words, and END, are padded to."""
        return -(-(length + 1) // self.config.pad_to) * self.config.pad_to

    def example(self):
        random, B, S = np.random.default_rng(0), self.config.batch_size, self.config.max_words
        T = self.padded(S - 1)  # batch norm wants the longest
        batch = {}
        for name, size in (("sentence", T), ("previous", S), ("next", S)):
            batch[name] = random.integers(self.vocabulary, size=(B, size), dtype=np.int32)
            batch[f"{name}_length"] = np.full(B, size, np.int32)
        return batch

    def init(self, key):
        return self.model(train=True).init(key, *inputs(self.example()))

    def shape(self, step):
        return self.padded(self.triples.length(step))

    def indices(self, step, seed, rows=slice(None)):
        return self.triples.middles(step, seed)[rows]

    def gather(self, arrays, indices, shape) -> Batch:
        """Return triples by their middle sentences, which are padded to shape words.

        Lengths count END.
        """
        middles, T, S, batch = indices, shape, self.config.max_words, {}
        for name, sentences, size in (
            ("sentence", middles, T),
            ("previous", middles - 1, S),
            ("next", middles + 1, S),
        ):
            tokens, length = vocabulary.pad(arrays["tokens"], arrays["starts"], sentences, size)
            known = tokens < self.vocabulary
            tokens = tokens * known + (UNKNOWN * ~known).astype(np.int32)
            batch |= {name: tokens, f"{name}_length": length + 1}
        return batch

    def loss(self, variables, batch, key, train):
        (nats, count), new = self.model(train).apply(variables, *inputs(batch), mutable=["stats"])
        return nats, (new.get("stats", {}), dict(nll=nats / count))

    @cached_property
    def scored(self) -> list:
        """At most config.valid_triples of the validation set, spread evenly, on the device."""
        config, split = self.config, self.splits["valid"]
        middles, _ = triples(split, config.max_words, 0, len(split["starts"]))
        places = np.linspace(0, len(middles) - 1, min(config.valid_triples, len(middles)))
        middles, blocks = middles[places.round().astype(int)], []
        for n in range(0, len(middles), config.batch_size):
            middles_of_block = middles[n : n + config.batch_size]
            block = self.gather(split, middles_of_block, config.max_words)
            short = config.batch_size - len(block["sentence"])
            for name, array in block.items():  # cases without words fill up the last block
                block[name] = np.pad(array, [(0, short)] + [(0, 0)] * (array.ndim - 1))
            blocks.append(jax.device_put(block))
        return blocks

    @cached_property
    def nats(self):
        """(variables, block) -> −log p and the number of words, compiled."""

        def nats(variables, block):
            return self.model(train=False).apply(variables, *inputs(block))

        return jax.jit(nats)

    def evaluate(self, variables):
        found = jax.device_get([self.nats(variables, block) for block in self.scored])
        nats, words = map(sum, zip(*found, strict=True))
        scores = {"valid": {"nll": float(nats / words)}}
        return scores | sentence_evaluation.evaluate(self.encoder(variables), self.tasks)

    @cached_property
    def vectors(self):
        """(variables, table, tokens ``[B, T]``, lengths ``[B]``) -> vectors ``[B, H]``."""

        def vectors(variables, table, tokens, length):
            mask = jnp.arange(tokens.shape[1])[:, None] < length
            h = self.model(train=False).apply(variables, table[tokens.T], mask, method="encode")
            return h / jnp.linalg.norm(h, axis=-1, keepdims=True)

        return jax.jit(vectors)

    def encoder(self, variables) -> Callable[[Sequence[str], bool], np.ndarray]:
        """Return a function (sentences, whether to append END) -> unit vectors ``[N, H]``.

        Sentences are strings; `text.tokenize` splits them. With config.word_vectors, words that the
        model was not trained with get vectors by `sentence_evaluation.expand`.
        """
        words, table = self.words, variables["params"]["table"]
        if path := self.config.word_vectors:
            others = sentence_evaluation.read_vectors(path)
            words, of_words = sentence_evaluation.expand(table[SPECIAL:], words, others)
            table = jnp.concatenate([table[:SPECIAL], of_words])
        numbers = vocabulary.numbers(words)

        def encode(sentences, end: bool = False):
            tokens = [[numbers.get(w, UNKNOWN) for w in text.tokenize(s)] for s in sentences]
            # A sentence without a word is an END.
            tokens = [[*found, END] if end or not found else found for found in tokens]
            lengths = np.array([len(found) for found in tokens], np.int32)
            starts = np.concatenate([[0], lengths.cumsum()])
            flat = np.fromiter(itertools.chain.from_iterable(tokens), np.int32, starts[-1])
            order = np.argsort(lengths, kind="stable")
            h = np.empty((len(tokens), self.config.hidden), np.float32)
            for n in range(0, len(order), ENCODED):
                some = order[n : n + ENCODED]
                filled = np.resize(some, ENCODED)  # one program for each padded length
                T = int(-(-lengths[some[-1]] // LENGTHS) * LENGTHS)
                block = vocabulary.pad(flat, starts, filled, T)
                h[some] = self.vectors(variables, table, *block)[: len(some)]
            return h

        return encode


def inputs(batch):
    """The sentences of a batch, time-major, each with its mask."""
    found = []
    for name in ("sentence", "previous", "next"):
        tokens = batch[name].T
        found += [tokens, jnp.arange(len(tokens))[:, None] < batch[f"{name}_length"]]
    return found
