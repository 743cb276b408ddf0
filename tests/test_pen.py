"""The built-in handwriting: its writers and lines, and that it can be read."""

import copy
import hashlib
from itertools import pairwise

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import lines
from experiments.datasets.synthetic import pen
from experiments.datasets.synthetic.letters import LETTERS

DIGEST = "b4da52ca373d60d8defde4118b61d0d4c1d86505bc4cf897db984acb1fb321df"
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return datasets.load("pen", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def written():
    """The lines of each split's writers."""
    return {
        split: [line for number in numbers for line in pen.written_by(number)]
        for split, numbers in pen.WRITERS.items()
    }


def hand(number):
    return pen.Hand(np.random.RandomState(number))


def upright(writer):
    """Return the hand on the alphabet's own grid."""
    writer = copy.copy(writer)
    writer.slant, writer.size, writer.width = 0, 1, 1
    return writer


def write(text, writer, seed=0):
    return pen.write(text, writer, np.random.RandomState(seed))


def texts(split):
    parts = pairwise(split["text_starts"])
    return [lines.decode(split["text"][start:stop]) for start, stop in parts]


# --- Which lines there are ---


def test_the_lines_are_the_same_on_every_machine(written):
    found = [line for split in SPLITS for line in written[split]]
    offsets = np.concatenate([offsets for offsets, _ in found])
    np.testing.assert_array_equal(offsets, np.round(offsets))
    content = offsets.astype("<i2").tobytes() + "\n".join(text for _, text in found).encode()
    assert hashlib.sha256(content).hexdigest() == DIGEST


def test_lines_are_short_and_made_of_known_words(prepared):
    words = {word.lower() for word in pen.WORDS}
    assert [len(texts(prepared[split])) for split in SPLITS] == [1600, 200, 200]
    for split in SPLITS:
        for text in texts(prepared[split]):
            assert 6 <= len(text) <= 16
            assert {word.rstrip(".,").lower() for word in text.split(" ")} <= words
        points = np.diff(prepared[split]["point_starts"])
        assert points.min() >= 60 and points.max() <= 240
        assert 8 <= points.sum() / len(prepared[split]["text"]) <= 12  # points a character


def test_training_has_every_character_of_the_alphabet(prepared):
    assert set(np.unique(prepared["train"]["text"])) == set(range(1, lines.CLASSES))
    assert set(LETTERS) == set(lines.ALPHABET) - {" "}


# --- What a line looks like ---


def test_a_letter_is_recognized_by_the_template_nearest_to_it():
    templates = [
        pen.curves(letter.points, letter.ends)[0].reshape(-1, 2) for letter in LETTERS.values()
    ]
    misread = []
    for number in pen.WRITERS["test"][:4]:
        for character in LETTERS:
            read = list(LETTERS)[np.argmin(distances(ink(character, number), templates))]
            misread += [(number, character, read)] if read != character else []
    assert len(misread) <= 0.03 * 4 * len(LETTERS), misread


def ink(character, number):
    """Points all along a letter, upright and of one size, on the alphabet's grid, ``[n, 2]``."""
    along = np.linspace(0, 1, 6)[:, None, None]
    strokes = write(character, upright(hand(number)), seed=number)
    pieces = [((1 - along) * s[:-1] + along * s[1:]).reshape(-1, 2) for s in strokes]
    return np.concatenate(pieces) / pen.UNIT * [1, -1]


def distances(points, templates):
    """From the points to the nearest of each template, in the mean, and the other way."""
    starts = lines.starts(templates)
    between = np.hypot(*(points[:, None] - np.concatenate(templates)).T).T
    there = np.minimum.reduceat(between, starts[:-1], axis=1).mean(0)
    back = np.add.reduceat(between.min(0), starts[:-1]) / np.diff(starts)
    return there + back
