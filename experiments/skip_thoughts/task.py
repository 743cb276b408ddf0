"""Predict the sentences before and after a sentence (§6.3)."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from experiments import datasets, sentence_evaluation, tasks
from experiments.datasets import text, vocabulary
from experiments.datasets.vocabulary import END, SPECIAL, UNKNOWN
from experiments.skip_thoughts.model import Model
from ln.errors import InputError
from ln.training import data
from ln.training.train import Batch

SENTENCES = ("sentence", "previous", "next")  # of a batch
ENCODED = 512  # sentences at once
LENGTHS = 8  # sentences to be encoded are padded to its multiples, or those of config.pad_to


def triples(split, longest: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle sentences of triples of neighbours, and their numbers of words.

    Args:
        split: tokens, starts of sentences and of books, as in the data sets "docs" and "books".
        longest: all three sentences have fewer words, and are in one book.
        first: the first sentence that can be a middle one.
        last: the end of the range of middle sentences, exclusive.
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

    The text is read in blocks, in an order that is drawn anew in each epoch, and `data.Buckets`
    makes the batches of a block. Memory therefore holds one or two blocks, however long the text
    is.

    Args:
        split: see `triples`.
        longest: see `triples`.
        block: number of sentences of a block.
        batch_size: see `data.Buckets`.
        run: see `data.Buckets`.
        seed: see `data.Buckets`.

    Raises:
        InputError: no length has enough triples for a batch.
    """

    def __init__(self, split, longest: int, block: int, batch_size: int, run: int, seed: int):
        self.split, self.longest, self.block = split, longest, block
        self.batch_size, self.run, self.seed = batch_size, run, seed
        blocks = range(-(-(len(split["starts"]) - 1) // block))
        counts = np.array([np.bincount(self.triples(k)[1], minlength=longest) for k in blocks])
        steps = (counts // batch_size).sum(1)
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

    def triples(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the `triples` of block k."""
        return triples(self.split, self.longest, k * self.block, (k + 1) * self.block)

    def _buckets(self, k: int) -> tuple[np.ndarray, data.Buckets]:
        middles, lengths = self.triples(k)
        bounds = np.arange(1, self.longest)
        return middles, data.Buckets(lengths, bounds, self.batch_size, self.run, self.seed)

    def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the blocks of an epoch in order, and the steps up to the end of each."""
        order = data.epoch_order(len(self.used), self.seed, epoch)
        return order, self.steps[order].cumsum()

    def _place(self, step: int) -> tuple[np.ndarray, data.Buckets, int]:
        """Return the triples of the block of a step, their buckets, and the step among them."""
        epoch, at = divmod(step, self.steps_per_epoch)
        order, ends = self.plan(epoch)
        n = int(np.searchsorted(ends, at, side="right"))
        steps = int(self.steps[order[n]])
        middles, buckets = self.buckets(int(self.used[order[n]]))
        return middles, buckets, epoch * steps + at - (int(ends[n]) - steps)

    def length(self, step: int) -> int:
        """Return the number of words of the middle sentences of a step."""
        _, buckets, at = self._place(step)
        return buckets.length(at)

    def cases(self, step: int, seed: int) -> np.ndarray:
        """Return the middle sentences ``[B]`` of the batch of a step in the order of a seed."""
        middles, buckets, at = self._place(step)
        return middles[buckets.cases(at, seed)]


class Task(tasks.Prepared):
    """Predict the neighbours of a sentence, word by word.

    As in the code, the middle sentences of a batch are equally long, each sentence ends with one
    END that is predicted too, and the loss is the sum over batch, words and both neighbours. Unlike
    in the code, batches are full: triples with a sentence that is too long are left out before
    batches are made, not after.

    The metric nll is −log p in nats per word. Evaluation also scores the vectors of sentences if
    config.tasks names the data set for it; see `sentence_evaluation.evaluate`.
    """

    metrics = ("nll",)

    def __init__(self, config):
        super().__init__(config)
        self.words = vocabulary.split(self.arrays["words"])[: config.vocab_size - SPECIAL]
        self.vocabulary = SPECIAL + len(self.words)
        self.tasks = datasets.load(config.tasks, config.data_dir) if config.tasks else {}
        if not len(self.valid_middles()):
            raise InputError(
                f"The validation set of {config.dataset} has no three sentences in a row of less "
                f"than config.max_words={config.max_words} words."
            )

    def schedule(self):
        """Return batches of examples of similar length."""
        config, seed = self.config, data.schedule_seed(self.config.data_seed)
        sizes = config.max_words, config.shuffle_block, config.batch_size, config.bucket_run
        return Triples(self.arrays, *sizes, seed)

    def valid_middles(self) -> np.ndarray:
        """Return the middle sentences of the triples of the validation set."""
        split = self.splits["valid"]
        return triples(split, self.config.max_words, 0, len(split["starts"]))[0]

    def model(self, train: bool) -> Model:
        """Return the network."""
        return tasks.build(Model, self.config, train, vocabulary=self.vocabulary)

    def padded(self, length: int) -> int:
        """Return the length to which middle sentences of some words, and END, are padded."""
        return tasks.round_up(length + 1, self.config.pad_to)

    @property
    def largest(self):
        """The padded length of the longest middle sentences."""
        return self.padded(self.config.max_words - 1)

    def inputs(self, batch, key, train):
        """Return tokens and mask (time-major) of the three sentences of each example."""
        return tuple(tasks.time_major(batch, *SENTENCES))

    def shape(self, step):
        """Return the padded length of the middle sentences of a step."""
        return self.padded(super().shape(step))

    def gather(self, arrays, indices, shape) -> Batch:
        """Return triples by their middle sentences, which are padded to shape words.

        Lengths count END.
        """
        ragged, S = (arrays["tokens"], arrays["starts"]), self.config.max_words
        batch: Batch = {}
        for name, step, size in zip(SENTENCES, (0, -1, 1), (shape, S, S), strict=True):
            batch |= tasks.padded(name, *ragged, indices + step, size, ends=1)
            known = batch[name] < self.vocabulary
            batch[name] = batch[name] * known + (UNKNOWN * ~known).astype(np.int32)
        return batch

    def loss(self, variables, batch, key, train):
        """Return −log p of a batch in nats, the new statistics and the metric nll."""
        (nats, count), stats = self.apply(variables, batch, key, train)
        return nats, (stats, dict(nll=nats / count))

    @cached_property
    def scored(self) -> list[Batch]:
        """At most config.valid_triples of the validation set, spread evenly, on the device."""
        config, middles = self.config, self.valid_middles()
        places = np.linspace(0, len(middles) - 1, min(config.valid_triples, len(middles)))
        middles, blocks = middles[places.round().astype(int)], []
        for n in range(0, len(middles), config.batch_size):
            chosen = middles[n : n + config.batch_size]
            block = self.gather(self.splits["valid"], chosen, config.max_words)
            blocks.append(jax.device_put(tasks.filled(block, config.batch_size)))
        return blocks

    @tasks.compiled
    def nats(self, variables, block):
        """Return −log p of a block and its number of words."""
        return self.apply(variables, block, None, train=False)[0]

    def evaluate(self, variables):
        """Return nll on the validation set and, with config.tasks, the scores of the vectors."""
        nats, words = tasks.add_up(self.nats, variables, self.scored)
        scores = {"valid": {"nll": float(nats / words)}}
        return scores | sentence_evaluation.evaluate(self.encoder(variables), self.tasks)

    @tasks.compiled
    def vectors(self, variables, table, tokens, length):
        """Return the unit vectors ``[B, H]`` of tokens ``[B, T]`` by a table of word vectors."""
        mask = tasks.mask_of(tokens.shape[1], length)
        h = self.model(train=False).apply(variables, table[tokens.T], mask, method="encode")
        return h / jnp.linalg.norm(h, axis=-1, keepdims=True)

    def encoder(self, variables) -> Callable[[Sequence[str], bool], np.ndarray]:
        """Return a function (sentences, end) -> unit vectors ``[N, H]``; end appends END to each.

        Sentences are strings; `text.tokenize` splits them. With config.word_vectors, words outside
        the training vocabulary get vectors by `sentence_evaluation.expand`.
        """
        words, table = self.words, variables["params"]["table"]
        if path := self.config.word_vectors:
            others = sentence_evaluation.read_vectors(path)
            words, vectors = sentence_evaluation.expand(table[SPECIAL:], words, others)
            table = jnp.concatenate([table[:SPECIAL], vectors])
        end_mark = ""  # never a word of a text
        number_of = {**vocabulary.numbers(words), end_mark: END}

        def encode(sentences, end: bool = False):
            texts = [text.tokenize(sentence) for sentence in sentences]
            # The model needs a token: a sentence without words becomes END.
            texts = [[*words, end_mark] if end or not words else words for words in texts]
            tokens, starts = vocabulary.ragged(texts, number_of)
            lengths, multiple = np.diff(starts), max(LENGTHS, self.config.pad_to)
            h = np.empty((len(texts), self.config.hidden), np.float32)
            for chosen in tasks.by_length(lengths, ENCODED):
                block = np.resize(chosen, ENCODED)  # one program for each padded length
                T = int(tasks.round_up(lengths[chosen[-1]], multiple))
                padded = vocabulary.pad(tokens, starts, block, T)
                h[chosen] = self.vectors(variables, table, *padded)[: len(chosen)]
            return h

        return encode
