"""Pictures of handwriting: where strokes are, where a line ends, and what cannot be written."""

from functools import partial
import math

import jax
import numpy as np
import pytest

from experiments.datasets import lines
from experiments.handwriting import samples
from experiments.handwriting.samples import FONT, INK, Line, Options, draw, path, sample
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


def normalized():
    """Return the points of STROKES."""
    return lines.pack([(lines.offsets(STROKES), "a")], SCALE)["points"]


def strokes_of(path):
    """Return the strokes of a path, which NaN separates."""
    lifted = np.flatnonzero(np.isnan(path[:, 0]))
    return [stroke[~np.isnan(stroke[:, 0])] for stroke in np.split(path, lifted)[: len(lifted)]]


# --- Lines ---


def test_strokes_are_drawn_as_recorded():
    drawn = strokes_of(path(normalized(), SCALE))
    assert [len(stroke) for stroke in drawn] == [3, 1, 2]
    zoom = (drawn[0][1, 0] - drawn[0][0, 0]) / 30
    corner = np.concatenate(STROKES).min(0)
    for stroke, recorded in zip(drawn, STROKES, strict=True):
        np.testing.assert_allclose(stroke, zoom * (recorded - corner), atol=1e-4)


@pytest.mark.parametrize(
    "rows, size, caption",
    [
        (slice(0, 4), 2, "aa"),
        (slice(0, 2), 2, "aa (not at the end after 2 points)"),  # never: all points
        (slice(2, 4), 2, "aa (not at the end after 2 points)"),  # the first point stays
    ],
)
def test_a_line_ends_once_the_window_is_behind_the_text(rows, size, caption):
    phi = np.array([[0.9, 0.1, 0], [0.1, 0.8, 0.7], [0, 0.1, 0.2], [0, 1, 0.5]])[rows]
    line = samples.until_end("aa", np.zeros((len(phi) + 1, 3)), phi)
    assert (len(line.points), line.caption) == (size + 1, caption)


# --- Pictures ---


def test_lines_are_on_the_page_and_not_on_one_another():
    figure = draw([Line("a", INK, normalized())] * 2, SCALE)
    paths = [line.get_xydata() for line in figure.axes[0].lines]
    width, height = 100 * figure.get_size_inches()
    assert [len(stroke) for path in paths for stroke in strokes_of(path)] == [3, 1, 2] * 2
    assert all(np.nanmin(p) > 0 and (np.nanmax(p, 0) < [width, height]).all() for p in paths)
    first, second = (p[:, 1] for p in paths)
    assert np.nanmax(first) + FONT < np.nanmin(second)  # a caption is between them


def test_captions_are_no_formulas():
    (caption,) = draw([Line("<a> & $b$", INK, normalized())], SCALE).axes[0].texts
    assert caption.get_text() == "<a> & $b$" and not caption.get_parse_math()


# --- What is written ---


def written(task, variables, texts=("ab",), **options):
    return samples.write(task, variables, Options(**dict(count=1, steps=5) | options), list(texts))


def test_every_text_is_written_count_times(task, variables):
    lines = written(task, variables, ["ab", "layer"], count=2)
    assert [line.caption.split(" (")[0] for line in lines] == ["ab", "ab", "layer", "layer"]
    for first, second in (lines[:2], lines[2:]):
        n = min(len(first.points), len(second.points))
        assert (first.points[1:n] != second.points[1:n]).any()


def test_batch_norm_writes_lines_longer_than_in_training(make_task):
    task = make_task(norm="batch")
    (line,) = written(task, jax.jit(task.init)(jax.random.key(0)), ["layer"], steps=50)
    assert np.isfinite(line.points).all()


# --- The files ---


def test_without_text_those_of_real_lines_are_written(task, variables, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        samples, "draw", lambda lines, scale: drawn.append(lines) or draw(lines, scale)
    )
    options = Options(cases=3, count=1, steps=3)
    files, again = sample(task, variables, options), sample(task, variables, options)
    assert list(files) == ["samples.png"] and files == again
    captions = [line.caption for line in drawn[0]]
    for n in (0, 66, 133):
        text = samples.text_in(task.splits["test"], n)
        assert f"{text} (not at the end after 3 points)" in captions
        assert f"{text} (a line of pen, its first 20 points)" in captions


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(text=["ab", "  "]), "--text='  ' is empty"),
        (dict(text=["très 2"]), r"--text='très 2' .*unknown characters \('2', 'è'\)"),
        (dict(bias=-0.1), "--bias=-0.1: it must be finite, and 0"),
        (dict(bias=math.nan), "--bias=nan: it must be finite"),
        (dict(split="tset"), "Did you mean 'test'"),
    ],
)
def test_a_line_that_cannot_be_written_raises(task, variables, options, message):
    with pytest.raises(InputError, match=message):
        sample(task, variables, Options(**options))
