"""The built-in handwriting: its writers and lines, and that it can be read."""

import copy
import hashlib
from itertools import pairwise

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import lines
from experiments.datasets.synthetic import pen
from experiments.datasets.synthetic.letters import CORNER, JOINED, LETTERS, LIFT, SMOOTH

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


@pytest.fixture(scope="module")
def hands():
    """Return two writers: one who joins no letters, and one who joins all that can be."""
    numbers = [next(n for n in range(20) if len(hand(n).joins) == joins) for joins in (0, 12)]
    return [hand(number) for number in numbers]


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


def test_no_writer_is_in_two_splits(prepared, written):
    everybody = [number for split in SPLITS for number in pen.WRITERS[split]]
    assert len(set(everybody)) == len(everybody)
    assert len({hand(number).slant for number in everybody}) == len(everybody)
    for split in SPLITS:
        assert texts(prepared[split]) == [text for _, text in written[split]]


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


def test_every_letter_is_written_where_it_stands(hands):
    for writer in hands:
        for character, letter in LETTERS.items():
            drawn = np.concatenate(write(character, upright(writer))) / pen.UNIT * [1, -1]
            np.testing.assert_allclose(drawn.min(0), letter.points.min(0), atol=3)
            np.testing.assert_allclose(drawn.max(0), letter.points.max(0), atol=3)


def test_letters_run_to_the_right_and_words_stand_apart(hands):
    writer = upright(hands[0])
    strokes = write("lo lo", writer)
    (l0, _), (o0, o1), (l2, _), _ = [(s[:, 0].min(), s[:, 0].max()) for s in strokes]
    assert l0 < o0 < o1 < l2
    assert l2 - o1 > writer.space * pen.UNIT


def test_y_grows_downwards(hands):
    (high,), (low,) = write("'", hands[0]), write(",", hands[0])
    assert high[:, 1].max() < low[:, 1].min()


def test_strokes_end_with_letters_or_join_them(hands):
    for writer in hands:
        for seed in range(20):
            text = pen.compose(np.random.RandomState(seed))
            strokes = write(text, writer, seed)
            lifts = sum(
                (LETTERS[character].ends == LIFT).sum() for character in text.replace(" ", "")
            )
            joins = sum(one in writer.joins and two in JOINED for one, two in pairwise(text))
            assert len(strokes) == lifts - joins
            for stroke in strokes:
                assert len(stroke) >= 2
                assert np.ptp(stroke, axis=0).max() > 0  # it leaves ink


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


# --- Curves ---


def test_a_curve_through_points_of_a_circle_is_round():
    angles = np.linspace(0, 2 * np.pi, 9)
    points = np.stack([np.cos(angles), np.sin(angles)], 1)
    segments, lifted = pen.curves(points, np.array([SMOOTH] * 8 + [LIFT]))
    np.testing.assert_allclose(segments[:, 0], points[:-1], atol=1e-12)
    np.testing.assert_allclose(segments[:, -1], points[1:], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(segments, axis=-1), 1, atol=0.02)
    assert lifted.tolist() == [False] * 7 + [True]


def test_a_corner_stays_sharp_between_straight_lines():
    points = np.array([[0.0, 0], [3, 4], [6, 0]])
    (up, down), _ = pen.curves(points, np.array([SMOOTH, CORNER, LIFT]))
    along = np.linspace(0, 1, pen.FINE + 1)[:, None]
    np.testing.assert_allclose(up, along * [3, 4], atol=1e-12)
    np.testing.assert_allclose(down, [3, 4] + along * [3, -4], atol=1e-12)


def test_nothing_is_drawn_while_the_pen_is_lifted():
    points = np.array([[0.0, 0], [1, 0], [5, 5], [6, 5]])
    segments, lifted = pen.curves(points, np.array([SMOOTH, LIFT, SMOOTH, LIFT]))
    np.testing.assert_allclose(segments[:, [0, -1]], points.reshape(2, 2, 2), atol=1e-12)
    assert lifted.tolist() == [True, True]


def test_the_pen_is_slower_in_curves(hands):
    def pace(character):
        (stroke,) = write(character, hands[0])
        return np.linalg.norm(np.diff(stroke, axis=0), axis=1).mean()

    assert pace("o") < 0.8 * pace("'")
