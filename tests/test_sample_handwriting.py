"""Pictures of handwriting: where strokes are, where a line ends, and what cannot be written."""

from functools import partial
import io
import math

import jax
from matplotlib.colors import to_hex
import numpy as np
from PIL import Image
import pytest

from experiments.datasets import lines
from experiments.handwriting.samples import (
    FONT,
    GIVEN,
    INK,
    Line,
    Options,
    Sample,
    draw,
    points_in,
    sample,
    sample_line,
    text_in,
    until_end,
    write,
)
from experiments.pictures import svg
from ln.errors import InputError
from tests.learning import tiny_task

pytestmark = pytest.mark.slow  # pictures

SCALE = np.array([[10, -2], [30, 40]], np.float32)
STROKES = [  # as recorded; the second is a dot
    np.array([[100, 50], [130, 90], [90, 200]]),
    np.array([[300, 40]]),
    np.array([[250, 60], [240, 60]]),
]


@pytest.fixture(scope="module")
def make_task(data_dir):
    return partial(tiny_task, "handwriting", data_dir)


@pytest.fixture(scope="module")
def task(make_task):
    return make_task()


def a_sample(given=0, finished=True, U=2):
    """Return a sample of the points of STROKES, normalized."""
    points = lines.pack([(lines.offsets(STROKES), "a")], SCALE)["points"]
    phi = np.random.default_rng(0).random((len(points) - 1, U + 1))
    return Sample("a" * U, points, phi, given, finished)


def pixels_of(file):
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int)


def strokes_of(figure):
    """Return (colour, points) of each stroke of a figure."""
    return [(to_hex(line.get_color()), line.get_xydata()) for line in figure.axes[0].lines]


# --- Lines ---


def test_strokes_are_drawn_as_recorded():
    drawn = [stroke for _, stroke in sample_line(a_sample(), SCALE).strokes]
    assert [len(stroke) for stroke in drawn] == [3, 1, 2]
    zoom = (drawn[0][1, 0] - drawn[0][0, 0]) / 30
    for stroke, recorded in zip(drawn, STROKES, strict=True):
        np.testing.assert_allclose(stroke, zoom * (recorded - STROKES[0][0]), atol=1e-4)


@pytest.mark.parametrize("given, sizes", [(1, [2, 1, 2]), (2, [1, 2]), (4, [2])])
def test_a_sample_continues_the_open_stroke_of_its_prime(given, sizes):
    """Strokes of 3, 1 and 2 points; the given points are those behind the first."""
    strokes = sample_line(a_sample(given), SCALE).strokes
    assert [len(stroke) for colour, stroke in strokes if colour == INK] == sizes
    primed = [stroke for colour, stroke in strokes if colour == GIVEN]
    assert sum(map(len, primed)) == given + 1
    whole = [stroke for _, stroke in sample_line(a_sample(), SCALE).strokes]
    np.testing.assert_array_equal(np.concatenate(primed), np.concatenate(whole)[: given + 1])


@pytest.mark.parametrize(
    "rows, given, size, finished",
    [
        (slice(0, 4), 0, 2, True),
        (slice(0, 2), 0, 2, False),  # never: all points
        (slice(0, 4), 3, 4, False),  # the given points stay
        (slice(2, 4), 0, 2, False),  # and the first
    ],
)
def test_a_line_ends_once_the_window_is_behind_the_text(rows, given, size, finished):
    phi = np.array([[0.9, 0.1, 0], [0.1, 0.8, 0.7], [0, 0.1, 0.2], [0, 1, 0.5]])[rows]
    end = until_end(Sample("aa", np.zeros((len(phi) + 1, 3)), phi, given))
    assert (len(end.phi), len(end.points), end.finished) == (size, size + 1, finished)


# --- Pictures ---


def test_lines_are_on_the_page_and_not_on_one_another():
    figure = draw([sample_line(a_sample(), SCALE), sample_line(a_sample(given=2), SCALE)])
    (width, height), points = 100 * figure.get_size_inches(), [p for _, p in strokes_of(figure)]
    assert [len(p) for p in points] == [3, 1, 2, 1, 2, 3]
    assert all((p > 0).all() and (p < [width, height]).all() for p in points)
    first, second = (np.concatenate(points[n : n + 3])[:, 1] for n in (0, 3))
    assert first.max() + FONT < second.min()  # a caption is between them


def test_the_svg_has_captions_as_text():
    assert "&lt;a&gt; &amp; $b$</text>" in svg(draw([Line("<a> & $b$", [(INK, np.eye(2))])]))


# --- What is written ---


def written(task, variables, texts=("ab",), **options):
    return write(task, variables, Options(**dict(count=1, steps=5) | options), list(texts))


def test_every_text_is_written_count_times(task, variables):
    samples = written(task, variables, ["ab", "layer"], count=2)
    assert [s.text for s in samples] == ["ab", "ab", "layer", "layer"]
    assert [s.phi.shape[1] for s in samples] == [3, 3, 6, 6]
    for first, second in (samples[:2], samples[2:]):
        n = min(len(first.points), len(second.points))
        assert (first.points[1:n] != second.points[1:n]).any()


def test_a_sample_begins_with_its_prime(task, variables):
    (line,) = written(task, variables, prime="valid:7")
    valid = task.splits["valid"]
    real = points_in(valid, 7)
    assert line.given == len(real) - 1 == valid["length"][7]
    np.testing.assert_array_equal(line.points[: len(real)], real)
    assert line.text == f"{text_in(valid, 7)} ab"
    assert line.phi.shape[1] == len(line.text) + 1


def test_batch_norm_writes_lines_longer_than_in_training(make_task):
    task = make_task(norm="batch")
    (line,) = written(task, jax.jit(task.init)(jax.random.key(0)), ["layer"], steps=50)
    assert np.isfinite(line.points).all()


# --- The files ---


def test_without_text_those_of_real_lines_are_written(task, variables):
    options = Options(cases=3, count=1, steps=3)
    files, again = sample(task, variables, options), sample(task, variables, options)
    assert list(files) == ["samples.png", "samples.svg", "window.png"] and files == again
    for n in (0, 66, 133):
        text = text_in(task.splits["test"], n)
        assert f">{text} (not at the end after 3 points)</text>" in files["samples.svg"]
        assert f">{text} (a line of pen, its first 20 points)</text>" in files["samples.svg"]


@pytest.mark.parametrize("prime", [None, "test:1"])
def test_a_network_without_text_writes_lines_only(make_task, prime):
    task = make_task(text=False)
    variables = jax.jit(task.init)(jax.random.key(0))
    files = sample(task, variables, Options(count=2, prime=prime))
    assert list(files) == ["samples.png", "samples.svg"]
    assert INK in files["samples.svg"] and (GIVEN in files["samples.svg"]) == (prime is not None)
    (line,) = written(task, variables, [""], prime=prime, steps=0)
    assert len(line.points) - 1 - line.given == task.config.length
    with pytest.raises(InputError, match="--text: this run writes without text"):
        sample(task, variables, Options(text=["layer"]))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(text=["ab", "  "]), "--text='  ' is empty"),
        (dict(text=["très 2"]), r"--text='très 2' .*unknown characters \('2', 'è'\)"),
        (dict(bias=-0.1), "--bias=-0.1: it must be finite, and 0"),
        (dict(bias=math.nan), "--bias=nan: it must be finite"),
        (dict(prime="5"), "Unknown split in --prime=SPLIT:N"),
        (dict(prime="tset:5"), "Did you mean 'test'"),
        (dict(prime="test:200"), "--prime=test:200: the split 'test' has the lines 0 to 199"),
        (dict(prime="test:-1"), "--prime=test:-1: the split 'test' has the lines 0 to 199"),
        (dict(split="tset"), "Did you mean 'test'"),
    ],
)
def test_a_line_that_cannot_be_written_raises(task, variables, options, message):
    with pytest.raises(InputError, match=message):
        sample(task, variables, Options(**options))
