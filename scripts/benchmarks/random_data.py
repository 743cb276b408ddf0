"""Random data in the layout and sizes of the data sets of the paper.

A benchmark needs the sizes of the paper, but not its data. Sizes that decide the time of a step are
those of the data set: pixels, features, the vocabulary, and the lengths of texts and lines.
"""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from experiments.datasets import arrays, vocabulary
from experiments.datasets.captions import CAPTIONS
from experiments.datasets.cloze import ENTITY
from experiments.datasets.lines import CLASSES
from experiments.datasets.vocabulary import SPECIAL

Split = dict[str, np.ndarray]
Random = np.random.Generator


def images(random: Random, count: int, pixels: int) -> Split:
    """Return images with labels of ten classes."""
    x = random.integers(256, size=(count, pixels), dtype=np.uint8)
    return dict(x=x, y=random.integers(10, size=count, dtype=np.int32))


def binary_images(random: Random, count: int, pixels: int) -> Split:
    """Return images of zeros and ones."""
    return dict(x=random.integers(2, size=(count, pixels), dtype=np.uint8))


def texts(random: Random, count: int, length: int, vocab_size: int):
    """Return tokens and starts of texts with some frequent words and many rare ones."""
    tokens = SPECIAL + (vocab_size - SPECIAL) ** random.random(count * length) - 1
    return tokens.astype(np.int32), length * np.arange(count + 1)


def words(vocab_size: int, entities: int = 0) -> np.ndarray:
    """Return a vocabulary that begins with entities."""
    count = vocab_size - SPECIAL
    return vocabulary.join(f"{ENTITY}{n}" if n < entities else str(n) for n in range(count))


def questions(random: Random, count: int, vocab_size: int, T: int, S: int) -> Split:
    """Return passages of T words with questions of S words."""
    entities, split = 500, dict[str, np.ndarray]()
    for name, length in (("passage", T), ("question", S)):
        split[f"{name}s"], split[f"{name}_starts"] = texts(random, count, length, vocab_size)
    answers = random.integers(SPECIAL, SPECIAL + entities, size=count, dtype=np.int32)
    return split | dict(answers=answers, words=words(vocab_size, entities))


def captions(random: Random, count: int, vocab_size: int, D: int, T: int) -> Split:
    """Return images of D features with captions of T words, the end included."""
    features = np.maximum(random.normal(size=(count, D)) - 1, 0)  # most are 0, after a ReLU
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    split = sentences(random, CAPTIONS * count, vocab_size, T - 1)
    del split["books"]
    return split | dict(images=features.astype(np.float32))


def sentences(random: Random, count: int, vocab_size: int, length: int) -> Split:
    """Return a book of sentences."""
    tokens, starts = texts(random, count, length, vocab_size)
    return dict(tokens=tokens, starts=starts, books=np.array([0, count]), words=words(vocab_size))


def lines(random: Random, count: int, T: int, U: int) -> Split:
    """Return lines of T points with texts of U characters."""
    points = random.standard_normal((count * T, 3), np.float32)
    points[:, 2] = points[:, 2] > 1
    return dict(
        points=points,
        point_starts=T * np.arange(count + 1),
        text=random.integers(CLASSES, size=count * U, dtype=np.uint8),
        text_starts=U * np.arange(count + 1),
        scale=np.array([[0, 0], [1, 1]], np.float32),
    )


# Data set -> how to make a split, the number of examples for training, and their sizes.
KINDS: dict[Any, Any] = {
    "mnist": (images, 55_000, dict(pixels=784)),
    "digits": (images, 1_297, dict(pixels=64)),
    "cifar10": (images, 5_000, dict(pixels=3072)),
    "binarized_mnist": (binary_images, 50_000, dict(pixels=784)),
    "cnn": (questions, 1_000, dict(vocab_size=65_829, T=300, S=30)),
    "coco": (captions, 1_000, dict(vocab_size=10_000, D=4096, T=20)),
    "books": (sentences, 20_000, dict(vocab_size=20_000, length=29)),
    "iam": (lines, 1_000, dict(T=700, U=51)),
}


def prepare(name: str, data_dir: str | Path) -> None:
    """Write random data as a prepared data set, unless it is there."""
    if arrays.is_prepared(data_dir, name):
        return
    (make, count, sizes), random = KINDS[name], np.random.default_rng(0)
    counts = dict(train=count, valid=count // 10, test=count // 10)
    splits = {split: make(random, n, **sizes) for split, n in counts.items()}
    for split in ("valid", "test"):  # the vocabulary is the training set's
        splits[split].pop("words", None)
    with contextlib.redirect_stdout(io.StringIO()):
        arrays.write(data_dir, name, splits, dict(source="random numbers"))
