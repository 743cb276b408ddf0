"""Permutation invariant MNIST (§6.6, figure 6): a 784-1000-1000-10 network on single images."""

from functools import cached_property

import flax.linen as nn
import jax
from jax.nn import logsumexp, relu, softplus
import jax.numpy as jnp
import numpy as np

from experiments import datasets
from experiments.curves import (
    CONFIRMED,
    CONTRADICTED,
    NOT_DECIDED,
    NOT_TESTED,
    Curves,
    Estimate,
    Verdict,
    missing,
)
from ln import data, train
from ln.errors import choose
from ln.norm import Initializer, Norm, make_norm

CLASSES = 10
INITIALIZERS = {
    "he_normal": nn.initializers.he_normal(),
    "glorot_normal": nn.initializers.glorot_normal(),
    "lecun_normal": nn.initializers.lecun_normal(),
}


class Model(nn.Module):
    """h = relu(norm(W x)), twice, and logits norm(W h). Maps x ``[B, D]`` to ``[B, 10]``."""

    hidden: int
    norm: Norm
    init_W: Initializer

    @nn.compact
    def __call__(self, x):
        h = x
        for _ in range(2):
            a = self.norm.dense("a", self.hidden, kernel_init=self.init_W)(h)
            h = relu(self.norm("a")(a))
        a = self.norm.dense("out", CLASSES, kernel_init=self.init_W)(h)
        return self.norm("out")(a)


def negative_log_likelihood(logits, y):
    """−log softmax(logits)[y] in nats; logits ``[B, C]``, y ``[B]`` -> ``[B]``.

    Written as log(1 + Σ_others exp(a_other − a_y)), which stays exact down to 1e-38. The usual
    logsumexp(a) − a_y ends at float32's rounding of 1, 6e-8, where figure 6 goes down to 1e-10.
    """
    margins = logits - jnp.take_along_axis(logits, y[:, None], -1)
    others = jnp.where(jax.nn.one_hot(y, logits.shape[-1], dtype=bool), -jnp.inf, margins)
    return softplus(logsumexp(others, -1))


class Task(train.Task):
    """Classification of images x (uint8 ``[B, D]``) into y (``[B]``)."""

    def __init__(self, config):
        super().__init__(config)
        self.init_W = choose("config.init", config.init, INITIALIZERS)
        make_norm(config, train=True)  # refuses a misspelt norm before the data are read
        self.splits = datasets.load(config.dataset, config.data_dir)
        cases = len(self.splits["train"]["y"])
        data.batch_cases(0, cases, config.batch_size, config.data_seed)
        self.steps_per_epoch = cases // config.batch_size

    def model(self, train: bool) -> Model:
        return Model(self.config.hidden, make_norm(self.config, train), self.init_W)

    def example(self):
        random = np.random.default_rng(0)
        B, D = self.config.batch_size, self.splits["train"]["x"].shape[-1]
        x = random.integers(256, size=(B, D), dtype=np.uint8)
        return dict(x=x, y=random.integers(CLASSES, size=B, dtype=np.int32))

    def batch(self, step):
        x, y = self.splits["train"]["x"], self.splits["train"]["y"]
        cases = data.batch_cases(step, len(y), self.config.batch_size, self.config.data_seed)
        return dict(x=x[cases], y=y[cases])

    def init(self, key):
        return self.model(train=True).init(key, pixels(self.example()["x"]))

    def per_case(self, variables, batch, train):
        """Returns metrics ``[B]`` and the new statistics."""
        model, x = self.model(train), pixels(batch["x"])
        logits, new = model.apply(variables, x, mutable=["stats"])
        error = (logits.argmax(-1) != batch["y"]).astype(jnp.float32)
        nll = negative_log_likelihood(logits, batch["y"])
        return dict(nll=nll, error=error), new.get("stats", {})

    def loss(self, variables, batch, key, train):
        metrics, stats = self.per_case(variables, batch, train)
        means = jax.tree.map(jnp.mean, metrics)
        return means["nll"], (stats, means)

    @cached_property
    def scorers(self):
        def per_case(variables, batch):
            return self.per_case(variables, batch, train=False)[0]

        return {name: train.average(per_case, split) for name, split in self.splits.items()}

    def evaluate(self, variables):
        return {split: score(variables) for split, score in self.scorers.items()}


def pixels(x):
    """Intensities in [0, 1]."""
    return x.astype(jnp.float32) / 255


def claim_25(curves: Curves) -> Verdict:
    """Compares by how much the test error (mean of the last 10 epochs) worsens from batch size 128
    to 4. Confirmed where it worsens less with layer norm than with batch norm, by more than twice
    the standard error over seeds; contradicted where it worsens more by as much.
    """
    sizes, norms = (128, 4), ("layer", "batch")
    wanted = {
        (f"error_batch{size}", norm): f"{norm} norm at batch size {size}"
        for size in sizes
        for norm in norms
    }
    if lacking := missing(curves, wanted):
        return Verdict(NOT_TESTED, f"It {lacking}.")

    def error(norm, size):
        return Estimate.of(100 * curves[f"error_batch{size}", norm].last("mean", 10))

    worse = {norm: error(norm, 4).minus(error(norm, 128)) for norm in norms}
    gap = worse["batch"].minus(worse["layer"])
    word = NOT_DECIDED
    if abs(gap.value) > 2 * gap.error:
        word = CONFIRMED if gap.value > 0 else CONTRADICTED
    changes = " and ".join(
        f"from {error(norm, 128).value:.3f} to {error(norm, 4).value:.3f} % with {norm} norm "
        f"({worse[norm].value:+.3f} ± {worse[norm].error:.3f})"
        for norm in norms
    )
    return Verdict(
        word,
        f"From batch size 128 to 4 the test error goes {changes}. Batch norm's change minus layer "
        f"norm's: {gap.value:+.3f} ± {gap.error:.3f} points (± standard error).",
    )


def claim_26(curves: Curves) -> Verdict:
    """Compares layer norm's training NLL with batch norm's at each batch size, by the median of the
    last fifth of the epochs. Confirmed where every seed of layer norm is below every seed of batch
    norm at each batch size tested; contradicted where every seed is above at one of them.
    """
    words, texts = [], []
    for size in (128, 4):
        panel = f"nll_batch{size}"
        wanted = {(panel, norm): f"{norm} norm" for norm in ("layer", "batch")}
        if lacking := missing(curves, wanted):
            texts.append(f"Batch size {size}: {NOT_TESTED}, it {lacking}.")
            continue
        layer, batch = (curves[key] for key in wanted)
        fifth = len(layer.x) // 5
        end, end_batch = (curve.last("median", fifth) for curve in (layer, batch))
        if end.max() < end_batch.min():
            words.append(CONFIRMED)
        else:
            words.append(CONTRADICTED if end.min() > end_batch.max() else NOT_DECIDED)
        below = layer.mean < batch.mean
        first = len(below) - int(np.argmin(below[::-1])) if not below.all() else 0
        crossing = (
            f"and stays there from epoch {layer.x[first]:g} on" if below[-1] else "but not at last"
        )
        texts.append(
            f"Batch size {size}: {words[-1]}. Layer norm's training NLL is below batch norm's at "
            f"{below.mean():.0%} of the epochs, {crossing}; at the end it is {end.mean():.2g} "
            f"({end.min():.2g} to {end.max():.2g}) against {end_batch.mean():.2g} "
            f"({end_batch.min():.2g} to {end_batch.max():.2g}), "
            f"a ratio of {end.mean() / end_batch.mean():.2g}."
        )
    if not words:
        word = NOT_TESTED
    elif CONTRADICTED in words:
        word = CONTRADICTED
    else:
        word = CONFIRMED if set(words) == {CONFIRMED} else NOT_DECIDED
    return Verdict(word, " ".join(texts))
