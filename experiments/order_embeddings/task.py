"""Rank images by captions and captions by images (§6.1)."""

from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import datasets, retrieval
from experiments.datasets import vocabulary
from experiments.datasets.captions import CAPTIONS
from experiments.datasets.vocabulary import SPECIAL
from experiments.order_embeddings.model import Model
from ln.norm import make_norm
from ln.training import data, train

BLOCK = 1000  # captions that are encoded together in evaluation


class Fold(NamedTuple):
    """Images that are ranked among each other, and their captions; on the device.

    Attributes:
        images: features ``[N, D]``.
        blocks: tokens ``[b, T]`` and lengths ``[b]`` of captions of like length.
        where: of each caption in its order, ``[5 N]``, the place in the blocks.
    """

    images: jax.Array
    blocks: list[tuple[jax.Array, jax.Array]]
    where: np.ndarray


class Task(train.Task):
    """Ranking images by captions and captions by images, five captions to an image.

    A batch has images, and of each one caption that is drawn anew in each epoch; all others of the
    batch are what it is contrasted with. Captions end with one END.

    Evaluation ranks within folds of ``config.fold`` images, what is left over is not used: one fold
    of the validation set, and the mean over those of the test set. A split that says which of an
    image's captions say less than others (above) is asked too whether their points are ordered so.
    """

    def __init__(self, config):
        super().__init__(config)
        make_norm(config, train=True)  # refuses a misspelt norm before the data are read
        self.splits = self.load()
        self.vocabulary = SPECIAL + len(vocabulary.split(self.splits["train"]["words"]))
        self.arrays = self.splits["train"]
        longest = self.lengths["train"].reshape(-1, CAPTIONS).max(1)  # caption of each image
        # Equally many images to a bucket, bounds at multiples of pad_to.
        shares = np.arange(1, config.buckets + 1) / config.buckets
        bounds = np.unique([self.padded(n) for n in np.quantile(longest, shares, method="higher")])
        self.buckets = data.Buckets(
            longest,
            bounds,
            config.batch_size,
            config.steps_per_call if len(bounds) > 1 else len(longest),
            data.schedule_seed(config.data_seed),
        )
        self.steps_per_epoch = self.buckets.steps_per_epoch

    def load(self) -> dict[str, dict[str, np.ndarray]]:
        """The data: images are mapped, not read."""
        return datasets.load(self.config.dataset, self.config.data_dir)

    @cached_property
    def lengths(self) -> dict[str, np.ndarray]:
        """Words of each caption of a split, END among them."""
        return {name: np.diff(split["starts"]) + 1 for name, split in self.splits.items()}

    def model(self, train: bool) -> Model:
        config = self.config
        return Model(
            vocabulary=self.vocabulary,
            words=config.embedding_dim,
            hidden=config.hidden,
            symmetric=config.symmetric,
            norm=make_norm(config, train),
        )

    def padded(self, length) -> int:
        """A length, rounded up to one of those that captions are padded to."""
        return int(-(-length // self.config.pad_to) * self.config.pad_to)

    def example(self):
        random, B = np.random.default_rng(0), self.config.batch_size
        T = self.padded(self.lengths["train"].max())  # batch norm wants the longest
        images = random.random((B, self.splits["train"]["images"].shape[1]), dtype=np.float32)
        return dict(
            images=images / np.linalg.norm(images, axis=1, keepdims=True),
            tokens=random.integers(self.vocabulary, size=(B, T), dtype=np.int32),
            length=np.full(B, T, np.int32),
        )

    def init(self, key):
        batch = self.example()
        inputs = batch["tokens"], batch["length"], batch["images"]
        return self.model(train=True).init(key, *inputs)

    def shape(self, step):
        return self.buckets.length(step)

    def indices(self, step, seed, rows=slice(None)):
        """Return the images of a batch, and a caption of each."""
        images = self.buckets.cases(step, seed)[rows]
        chosen = choice(len(self.arrays["images"]), seed, step // self.steps_per_epoch)
        return dict(images=images, captions=CAPTIONS * images + chosen[images])

    def gather(self, arrays, indices, shape):
        tokens, length = pad(arrays, indices["captions"], shape)
        return dict(images=arrays["images"][indices["images"]], tokens=tokens, length=length)

    def energies(self, s, v):
        """E ``[M, N]`` of captions ``[M, H]`` and images ``[N, H]``."""
        return -s @ v.T if self.config.symmetric else retrieval.violations(s, v)

    def loss(self, variables, batch, key, train):
        (s, v), new = self.model(train).apply(
            variables, batch["tokens"], batch["length"], batch["images"], mutable=["stats"]
        )
        loss = retrieval.contrast(self.energies(s, v), self.config.margin)
        return loss, (new.get("stats", {}), {})

    @cached_property
    def folds(self) -> dict[str, list[Fold]]:
        found = {}
        for name in ("valid", "test"):
            N = len(self.splits[name]["images"])
            size = min(self.config.fold, N)
            count = N // size if name == "test" else 1
            found[name] = [self.fold(name, n * size, size) for n in range(count)]
        return found

    def fold(self, name: str, first: int, size: int) -> Fold:
        """A fold of a split, from its first image on."""
        split = self.splits[name]
        captions = CAPTIONS * first + np.arange(CAPTIONS * size)
        order = captions[np.argsort(self.lengths[name][captions], kind="stable")]
        where = np.argsort(order)  # of the first caption, of the second, and so on
        b = min(BLOCK, len(order))
        order = np.append(order, np.repeat(order[-1:], -len(order) % b))  # fills the last block
        blocks = []
        for block in order.reshape(-1, b):
            T = self.padded(self.lengths[name][block].max())
            blocks.append(jax.device_put(pad(split, block, T)))
        return Fold(jax.device_put(split["images"][first : first + size]), blocks, where)

    @cached_property
    def maps(self):
        """The two maps of the model, compiled, (variables, ...) -> points."""

        def captions(variables, tokens, length):
            return self.model(train=False).apply(variables, tokens, length, method="caption")

        def images(variables, features):
            return self.model(train=False).apply(variables, features, method="image")

        return jax.jit(captions), jax.jit(images)

    def points(self, variables, fold: Fold):
        """Captions ``[5 N, H]`` and images ``[N, H]`` of a fold."""
        captions, images = self.maps
        s = jnp.concatenate([captions(variables, *block) for block in fold.blocks])
        return s[fold.where], images(variables, fold.images)

    @cached_property
    def places(self):
        """`retrieval.places` of captions ``[5 N, H]`` and images ``[N, H]``, compiled."""

        def places(s, v):
            blocks = s.reshape(CAPTIONS, *v.shape)  # so that no large array is gone through often
            E = jax.lax.map(lambda block: self.energies(block, v), blocks)
            return retrieval.places(E.reshape(len(s), len(v)))

        return jax.jit(places)

    def score(self, variables, fold: Fold, above) -> dict[str, float]:
        """The metrics of a fold; above: ``[P, 2]``, or None."""
        s, v = self.points(variables, fold)
        found = {
            f"{what}_{metric}": value
            for what, places in jax.device_get(self.places(s, v)).items()
            for metric, value in places.scores().items()
        }
        found["sum"] = sum(found[f"image_{metric}"] for metric in ("r1", "r5", "r10"))
        if above is not None:
            s = s.reshape(len(v), CAPTIONS, -1)
            found |= jax.device_get(hierarchy(s[:, above[:, 0]], s[:, above[:, 1]]))
        return found

    def evaluate(self, variables):
        scores = {}
        for name, folds in self.folds.items():
            above = self.splits[name].get("above")
            found = [self.score(variables, fold, above) for fold in folds]
            scores[name] = {
                metric: float(np.mean([fold[metric] for fold in found])) for metric in found[0]
            }
        return scores


@data.remember_epochs
def choice(images: int, seed: int, epoch: int) -> np.ndarray:
    """Which of its captions stands for each image in an epoch ``[images]``."""
    chosen = np.random.default_rng((seed, epoch, 1)).integers(CAPTIONS, size=images)
    chosen.setflags(write=False)  # shared by all callers
    return chosen


def pad(split, captions, T: int) -> tuple[np.ndarray, np.ndarray]:
    """Captions ``[B]`` of a split: tokens ``[B, T]``, behind each END; and lengths ``[B]``,
    in which one END is counted."""
    tokens, length = vocabulary.pad(split["tokens"], split["starts"], captions, T)
    return tokens, length + 1


@jax.jit
def hierarchy(general, specific) -> dict:
    """Whether captions ``[..., H]`` that say less lie above those ``[..., H]`` that say more.

    Returns:
        order: the share of pairs where the general one is less far from lying above the specific
        one than the other way round. coordinates: the share of coordinates in which it is not the
        greater. every_coordinate: the share of pairs where it is so in all, up to 1e-6. Two points
        of length 1 without negative coordinates are then the same point: so this is about 0, and
        in this model no pair is in order altogether.
    """
    up, down = retrieval.violation(general, specific), retrieval.violation(specific, general)
    return dict(
        order=(up < down).mean(),
        coordinates=(general <= specific).mean(),
        every_coordinate=(general <= specific + 1e-6).all(-1).mean(),
    )
