"""Rank images by captions and captions by images (§6.1)."""

from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import retrieval, tasks
from experiments.datasets import vocabulary
from experiments.datasets.captions import CAPTIONS
from experiments.datasets.vocabulary import SPECIAL
from experiments.order_embeddings.model import Model
from ln.training import data

BLOCK = 1000  # captions that are encoded together in evaluation


class Fold(NamedTuple):
    """Images that are ranked among each other, and their captions, on the device.

    Attributes:
        images: features ``[N, D]``.
        blocks: tokens ``[b, T]`` and lengths ``[b]`` of captions of similar length.
        where: the place of each caption ``[5 N]`` in the blocks.
    """

    images: jax.Array
    blocks: list[tuple[jax.Array, jax.Array]]
    where: np.ndarray


SCORES = ("r1", "r5", "r10", "median", "mean")  # of `retrieval.Places`


class Task(tasks.Prepared):
    """Rank images by captions and captions by images; an image has five captions.

    A batch has images and one caption of each, drawn anew in each epoch. The other images and
    captions of the batch are its contrast. Captions end with one END.

    Evaluation ranks within folds of ``config.fold`` images and omits the rest: one fold of the
    validation set, and the mean over all folds of the test set. If a split lists which captions of
    an image are more general than others (``above``), the order of their points is scored too.
    """

    metrics = (
        *(f"{kind}_{rank}" for kind in ("caption", "image") for rank in SCORES),
        *("sum", "coordinates", "every_coordinate", "order"),
    )

    def schedule(self):
        """Return batches of examples of similar length."""
        config = self.config
        longest = self.lengths["train"].reshape(-1, CAPTIONS).max(1)  # caption of each image
        bounds = tasks.even_bounds(longest, config.buckets, config.pad_to)
        run = config.steps_per_call if len(bounds) > 1 else len(longest)
        return self.buckets(longest, bounds, run)

    @cached_property
    def lengths(self) -> dict[str, np.ndarray]:
        """The number of words of each caption of a split, with END."""
        return {name: np.diff(split["starts"]) + 1 for name, split in self.splits.items()}

    @cached_property
    def vocabulary(self) -> int:
        """The number of words, with the special ones."""
        return SPECIAL + len(vocabulary.split(self.arrays["words"]))

    def model(self, train: bool) -> Model:
        """Return the network."""
        return tasks.build(Model, self.config, train, vocabulary=self.vocabulary)

    def padded(self, length) -> int:
        """Return the length to which captions of some length are padded."""
        return int(tasks.round_up(length, self.config.pad_to))

    def drawn(self, images, step, seed):
        """Return the images of a batch and one caption of each."""
        chosen = choice(len(self.arrays["images"]), seed, step // self.steps_per_epoch)
        return dict(images=images, captions=CAPTIONS * images + chosen[images])

    def gather(self, arrays, indices, shape):
        """Return a batch whose captions are padded to ``shape`` words."""
        tokens, length = pad(arrays, indices["captions"], shape)
        return dict(images=arrays["images"][indices["images"]], tokens=tokens, length=length)

    def inputs(self, batch, key, train):
        """Return tokens ``[B, T]`` and lengths ``[B]`` of captions, and images ``[B, D]``."""
        return batch["tokens"], batch["length"], batch["images"]

    def loss(self, variables, batch, key, train):
        """Return the contrastive loss of a batch (§6.1), the new statistics, and no metrics."""
        (s, v), stats = self.apply(variables, batch, key, train)
        return retrieval.contrast(retrieval.violations(s, v), self.config.margin), (stats, {})

    @cached_property
    def folds(self) -> dict[str, list[Fold]]:
        """The folds of the splits that are evaluated."""
        folds = {}
        for name in ("valid", "test"):
            N = len(self.splits[name]["images"])
            size = min(self.config.fold, N)
            count = N // size if name == "test" else 1
            folds[name] = [self.fold(name, n * size, size) for n in range(count)]
        return folds

    def fold(self, name: str, first: int, size: int) -> Fold:
        """Return the fold of a split that has ``size`` images from image ``first`` on."""
        split, lengths = self.splits[name], self.lengths[name][CAPTIONS * first :]
        sorted_by_length = tasks.by_length(lengths[: CAPTIONS * size], BLOCK)
        blocks, b = [], len(sorted_by_length[0])
        for captions in sorted_by_length:
            T = self.padded(lengths[captions].max())
            captions = CAPTIONS * first + np.resize(captions, b)  # fills the last block
            blocks.append(jax.device_put(pad(split, captions, T)))
        where = np.argsort(np.concatenate(sorted_by_length))
        return Fold(jax.device_put(split["images"][first : first + size]), blocks, where)

    @tasks.compiled
    def captions(self, variables, tokens, length):
        """Return the points ``[B, H]`` of captions with tokens ``[B, T]`` and lengths ``[B]``."""
        return self.model(train=False).apply(variables, tokens, length, method="caption")

    @tasks.compiled
    def images(self, variables, features):
        """Return the points ``[B, H]`` of images with features ``[B, D]``."""
        return self.model(train=False).apply(variables, features, method="image")

    def points(self, variables, fold: Fold):
        """Return captions ``[5 N, H]`` and images ``[N, H]`` of a fold."""
        s = jnp.concatenate([self.captions(variables, *block) for block in fold.blocks])
        return s[fold.where], self.images(variables, fold.images)

    @tasks.compiled
    def places(self, s, v):
        """Return `retrieval.places` of captions ``[5 N, H]`` and images ``[N, H]``."""
        blocks = s.reshape(CAPTIONS, *v.shape)  # so that no large array is gone through often
        E = jax.lax.map(lambda block: retrieval.violations(block, v), blocks)
        return retrieval.places(E.reshape(len(s), len(v)))

    def score(self, variables, fold: Fold, above) -> dict[str, float]:
        """Return the metrics of a fold; above has pairs of captions ``[P, 2]``, or is None."""
        s, v = self.points(variables, fold)
        scores = {
            f"{what}_{metric}": value
            for what, places in jax.device_get(self.places(s, v)).items()
            for metric, value in places.scores().items()
        }
        scores["sum"] = sum(scores[f"image_{metric}"] for metric in ("r1", "r5", "r10"))
        if above is not None:
            s = s.reshape(len(v), CAPTIONS, -1)
            scores |= jax.device_get(hierarchy(s[:, above[:, 0]], s[:, above[:, 1]]))
        return scores

    def evaluate(self, variables):
        """Return the scores of each split, as means over its folds."""
        scores = {}
        for split, folds in self.folds.items():
            above = self.splits[split].get("above")
            by_fold = [self.score(variables, fold, above) for fold in folds]
            means = {name: np.mean([fold[name] for fold in by_fold]) for name in by_fold[0]}
            scores[split] = {name: float(mean) for name, mean in means.items()}
        return scores


@data.remember_epochs
def choice(images: int, seed: int, epoch: int) -> np.ndarray:
    """Return which of its captions stands for each image ``[images]`` in an epoch."""
    chosen = np.random.default_rng((seed, epoch, 1)).integers(CAPTIONS, size=images)
    chosen.setflags(write=False)  # shared by all callers
    return chosen


def pad(split, captions, T: int) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens ``[B, T]`` of captions ``[B]`` and their lengths ``[B]``.

    Each caption is padded with END; its length includes one END.
    """
    tokens, length = vocabulary.pad(split["tokens"], split["starts"], captions, T)
    return tokens, length + 1


@jax.jit
def hierarchy(general, specific) -> dict:
    """Return whether general captions ``[..., H]`` are above more specific ones ``[..., H]``.

    Returns:
        order: the share of pairs in which the general caption violates the order less than the
        reversed pair does. coordinates: the share of coordinates in which the general caption is
        not greater. every_coordinate: the share of pairs for which this holds in all coordinates,
        up to 1e-6; it is about 0, because two such points of norm 1 without negative coordinates
        are equal.
    """
    up, down = retrieval.violation(general, specific), retrieval.violation(specific, general)
    return dict(
        order=(up < down).mean(),
        coordinates=(general <= specific).mean(),
        every_coordinate=(general <= specific + 1e-6).all(-1).mean(),
    )
