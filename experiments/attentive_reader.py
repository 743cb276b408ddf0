"""Answering cloze questions about news (§6.2, figure 2): the attentive reader of Hermann et al.
(2015), with recurrent batch norm as by Cooijmans et al. (2016), and with layer norm.

Two LSTMs read passage and question; the question's last state then attends to the passage's states,
and what it finds names the answer. The paper describes no model: it takes the code of Cooijmans
et al. (branch bn of Attentive_reader), to which "code" refers.
"""

from collections.abc import Callable
from functools import cached_property
import math
from typing import NamedTuple

import flax.linen as nn
import jax
from jax.nn import log_softmax, softmax
import jax.numpy as jnp
from jax.numpy import tanh
import numpy as np

from experiments import datasets
from experiments.curves import (
    CONFIRMED,
    CONTRADICTED,
    NOT_DECIDED,
    NOT_TESTED,
    ONE_SEED,
    Curves,
    Estimate,
    Pace,
    Verdict,
    missing,
)
from experiments.datasets import cloze, vocabulary
from experiments.datasets.vocabulary import SPECIAL
from ln.errors import InputError
from ln.norm import Norm, make_norm
from ln.rnn import LSTM, orthogonal_blocks, unroll
from ln.training import data, train
from ln.training.train import Batch


def uniform(key, shape, dtype=float):
    """Numbers within ± √(6 / (D + H + 1)), for W ``[D, H]``."""
    limit = np.sqrt(6 / (sum(shape) + 1))
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def orthogonal(key, shape, dtype=float):
    """0.05 times an orthogonal matrix for every square block of W ``[H, n H]``.

    In the code all blocks of a cell start as the same matrix, since its generator is seeded anew
    for each; these are independent.
    """
    return 0.05 * orthogonal_blocks(key, shape, dtype)


def input_blocks(key, shape, dtype=float):
    """W_x ``[D, 4 H]`` of an LSTM: `orthogonal` where D = H, as in the paper, else `uniform`."""
    D, H = shape[0], shape[1] // 4
    if D == H:
        return orthogonal(key, shape, dtype)
    blocks = [uniform(k, (D, H), dtype) for k in jax.random.split(key, 4)]
    return jnp.concatenate(blocks, axis=1)


def by_size(key, shape, dtype=float):
    """Numbers within ± 1 / √H, for v ``[H]``."""
    limit = 1 / np.sqrt(shape[-1])
    return jax.random.uniform(key, shape, dtype, -limit, limit)


class Noise(NamedTuple):
    """What dropout multiplies: 0 or 1 in training, in test the chance of a 1.

    Attributes:
        passage, question: of the embedded words ``[T, B, D]``, ``[S, B, D]``.
        g: of the read-out ``[B, H]``.
    """

    passage: jax.Array | float
    question: jax.Array | float
    g: jax.Array | float


class Model(nn.Module):
    """The reader.

        d_t, q   states of the passage, last state of the question
        m_t = tanh(W_d d_t + W_q q + (M d_t) · (M q)),  α = softmax(v · m_t),  r = Σ α_t d_t
        g = tanh(W_r r + W_u q + W_m mean_t(d_t)),  p = softmax(W_y g)


    Attributes:
        vocabulary: rows of the table of words, and the answers to choose from.
        words: D, numbers of a word's vector.
        hidden: H, units of each LSTM and of attention and read-out.
        bidirectional: whether passage and question are also read backwards, by LSTMs of their own;
            states of the two directions are concatenated.
        norm: of the LSTMs, sites x, h and c; and, site a, of the five summed inputs of attention
            and read-out, each by itself (BN-everywhere).
    """

    vocabulary: int
    words: int
    hidden: int
    bidirectional: bool
    norm: Norm

    def setup(self):
        D, H, norm = self.words, self.hidden, self.norm
        self.table = self.param("table", uniform, (self.vocabulary, D))

        def cells():
            directions = 2 if self.bidirectional else 1
            return [
                LSTM(H, norm, ("h",), init_W_x=input_blocks, init_W_h=orthogonal)
                for _ in range(directions)
            ]

        self.of_passage, self.of_question = cells(), cells()

        # The code has a bias in W_d and W_u alone. Here each of the five belongs to its norm
        # (site a): a sum of several biases is one bias.
        def summed(init: Callable):
            return norm.dense("a", H, kernel_init=init), norm("a")

        square = uniform if self.bidirectional else orthogonal
        self.W_d, self.norm_d = summed(square)
        self.W_q, self.norm_q = summed(uniform)
        self.W_r, self.norm_r = summed(uniform)
        self.W_u, self.norm_u = summed(uniform)
        self.W_m, self.norm_m = summed(uniform)
        self.M = self.param("M", square, (H * len(self.of_passage), H))
        self.v = self.param("v", by_size, (H,))
        self.W_y, self.norm_y = norm.dense("out", self.vocabulary, kernel_init=uniform), norm("out")

    def states(self, cells, xs, mask, schedule):
        """All states ``[T, B, H]`` and the last ones ``[B, H]``: of each direction's own end."""
        hs, (_, h) = unroll(cells[0], xs, mask, schedule=schedule)
        if len(cells) == 1:
            return hs, h
        back, (_, first) = unroll(cells[1], xs[::-1], mask[::-1], schedule=schedule)
        return jnp.concatenate([hs, back[::-1]], -1), jnp.concatenate([h, first], -1)

    def similarity(self, d, q):
        """(M d_t) · (M q) ``[T, B]`` as d_t · (Mᵀ M q): so M meets q alone, not every d_t."""
        return jnp.einsum("tbh,bh->tb", d, q @ self.M @ self.M.T)

    def attend(self, d, q, mask):
        """Attention α ``[T, B]`` of q ``[B, H]`` to d ``[T, B, H]``, 0 where the mask is false."""
        T, B, _ = d.shape
        a_d = self.norm_d(self.W_d(d).reshape(T * B, -1), mask.reshape(-1)).reshape(T, B, -1)
        a_q = self.norm_q(self.W_q(q), mask.any(0))
        m = tanh(a_d + a_q + self.similarity(d, q)[..., None])
        e = jnp.where(mask, m @ self.v, -1e30)  # not -inf: a case without words has no NaN
        return softmax(e, axis=0)

    def __call__(self, passage, mask, question, question_mask, noise: Noise, schedule=None):
        """Logits of all words ``[B, V]`` and the attention ``[T, B]`` they come of.

        Args:
            passage, mask: words by number and which of them are some, ``[T, B]``.
            question, question_mask: ``[S, B]``.
            schedule: of the LSTMs, see `ln.rnn.unroll`.
        """
        d, _ = self.states(self.of_passage, self.table[passage] * noise.passage, mask, schedule)
        embedded = self.table[question] * noise.question
        _, q = self.states(self.of_question, embedded, question_mask, schedule)
        alpha = self.attend(d, q, mask)
        r = jnp.einsum("tb,tbh->bh", alpha, d)
        words = mask.astype(d.dtype)
        mean = jnp.einsum("tb,tbh->bh", words, d) / jnp.maximum(words.sum(0), 1)[:, None]
        real = mask.any(0)
        g = tanh(
            self.norm_r(self.W_r(r), real)
            + self.norm_u(self.W_u(q), real)
            + self.norm_m(self.W_m(mean), real)
        )
        return self.norm_y(self.W_y(g * noise.g), real), alpha


class Task(train.Task):
    """Finding the entity that a question about a passage asks for.

    In a batch of training all entities change names, by one random permutation in passages,
    questions and answers alike, so that nothing can be learned about them (§6.2); as in the code,
    not in validation. Passages are padded to the bounds of `data.Buckets`.

    The metrics: nll, −log p of the answer among all words, which is the loss; error, how often
    another word is more probable (figure 2); entity_error, how often another entity is.
    """

    def __init__(self, config):
        super().__init__(config)
        for name in ("embedding_dim", "hidden", "buckets", "bucket_run"):
            if config[name] < 1:
                raise InputError(f"config.{name} is {config[name]}; it must be 1 or more.")
        if not 0 <= config.dropout_rate <= 0.99:
            raise InputError(
                f"config.dropout_rate is {config.dropout_rate}; it must be from 0 to 0.99."
            )
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


NAMES = dict(
    none="no norm",
    batch="batch norm",
    everywhere="batch norm everywhere",
    layer="layer norm",
    layer_small="layer norm with gains of 0.1",
)


def wanted(*norms: str) -> dict[tuple[str, str], str]:
    """The curves that a claim compares."""
    return {("valid", norm): NAMES[norm] for norm in norms}


OTHERS = ("none", "batch", "everywhere")


def claim_16(curves: Curves) -> Verdict:
    """Compares how many updates it takes without norm, with batch norm in the LSTMs and with batch
    norm everywhere, each, and with layer norm until the validation error (mean over seeds) first
    falls to a level. The levels are the lowest errors that the other has reached at each tenth of
    its length but the first; the factor is its number of updates divided by layer norm's (between
    two readings by linear interpolation; 0 where layer norm never arrives). Since readings are
    noisy, faster is a factor of 1.1 or more. Confirmed where layer norm is faster than each of the
    three at three quarters of the levels or more; contradicted where its factor is 1 or less at
    three quarters or more against any of them; in between the factors say how fast. It takes two
    seeds to decide.
    """
    if lacking := missing(curves, wanted(*OTHERS, "layer"), single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    layer = curves["valid", "layer"]
    paces = {norm: Pace.of(curves["valid", norm], layer) for norm in OTHERS}
    text = " ".join(
        f"Layer norm against {NAMES[norm]}: {np.median(pace.factors):.2f} times as fast (median "
        f"over {len(pace.levels)} levels, errors from {pace.levels[0]:.3f} to "
        f"{pace.levels[-1]:.3f}; from {pace.factors.min():.2f} to {pace.factors.max():.2f}), at "
        f"{(pace.factors >= 1.1).sum()} of them 1.1 times or more, at {(pace.factors <= 1).sum()} "
        f"not faster."
        for norm, pace in paces.items()
    )
    if min(len(curves["valid", norm].lanes) for norm in (*OTHERS, "layer")) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    if any((pace.factors <= 1).mean() >= 0.75 for pace in paces.values()):
        return Verdict(CONTRADICTED, text)
    faster = all((pace.factors >= 1.1).mean() >= 0.75 for pace in paces.values())
    return Verdict(CONFIRMED if faster else NOT_DECIDED, text)


def lower(curves: Curves, others: tuple[str, ...], what: str, count: Callable) -> Verdict:
    """Whether the errors of layer norm are lower than each of the others', as claims 17 and 18 ask.

    Args:
        what: of the curve is compared, for `Curve.last`, "min" or "median".
        count: a curve -> how many of its last readings.
    """
    norms = (*others, "layer")
    if lacking := missing(curves, wanted(*norms), single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    found = {norm: curves["valid", norm].last(what, count(curves["valid", norm])) for norm in norms}
    text = ", ".join(f"{error.mean():.3f} with {NAMES[n]}" for n, error in found.items())
    text = f"The errors are {text}."
    if min(map(len, found.values())) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    layer = Estimate.of(found["layer"])
    gaps = {norm: layer.minus(Estimate.of(found[norm])) for norm in others}
    text += " Differences of layer norm (± standard error): " + ", ".join(
        f"{gap.value:+.3f} ± {gap.error:.3f} to {NAMES[norm]}" for norm, gap in gaps.items()
    )
    if any(gap.value > 2 * gap.error for gap in gaps.values()):
        return Verdict(CONTRADICTED, text + ".")
    lower = all(gap.value < -2 * gap.error for gap in gaps.values())
    return Verdict(CONFIRMED if lower else NOT_DECIDED, text + ".")


def claim_17(curves: Curves) -> Verdict:
    """Compares the lowest validation error of all readings, of each seed. Confirmed where layer
    norm's is lower than each of the other three (no norm, batch norm in the LSTMs, batch norm
    everywhere) by more than twice the standard error over seeds; contradicted where it is higher
    than any of them by as much. It takes two seeds to decide.
    """
    return lower(curves, OTHERS, "min", lambda curve: 0)


def claim_18(curves: Curves) -> Verdict:
    """Compares where layer norm ends with gains that start at 1 and at 0.1: the median validation
    error of the last tenth of the readings, of each seed. Confirmed where it is lower with 1 by
    more than twice the standard error over seeds, contradicted where it is higher by as much. It
    takes two seeds to decide. What the paper had in mind besides, that batch norm needs 0.1 and
    layer norm does not, is not asked.
    """
    return lower(curves, ("layer_small",), "median", lambda curve: max(1, len(curve.x) // 10))
