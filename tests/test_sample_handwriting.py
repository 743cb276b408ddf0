"""Pictures of handwriting: where strokes lie, where a line ends, and what the command refuses."""

import io
import json
import math
import re
from xml.etree import ElementTree

import jax
import numpy as np
from PIL import Image
import pytest

from configs import handwriting as config_file
import experiments
from experiments.datasets import lines
from experiments.handwriting.samples import (
    FONT,
    GIVEN,
    INK,
    LARGEST,
    Line,
    Sample,
    cut,
    line_of,
    page,
    picture,
    points_in,
    svg,
    text_in,
    until_end,
    windows,
    write,
)
from experiments.handwriting.samples import sample as handwriting
from ln.errors import InputError
from ln.training import train
from tests.test_scripts import run

pytestmark = pytest.mark.slow  # pictures and whole commands

FILES = ["samples.png", "samples.svg", "window.png"]
SVG = "{http://www.w3.org/2000/svg}"
SCALE = np.array([[10, -2], [30, 40]], np.float32)
STROKES = [  # as recorded; the second is a dot
    np.array([[100, 50], [130, 90], [90, 200]]),
    np.array([[300, 40]]),
    np.array([[250, 60], [240, 60]]),
]


@pytest.fixture(scope="module")
def make_task(tmp_path_factory):
    data_dir = str(tmp_path_factory.mktemp("data"))

    def make(**overrides):
        config = config_file.get_config("tiny")
        config.update(dict(data_dir=data_dir, **overrides))
        return experiments.load(config)

    return make


@pytest.fixture(scope="module")
def task(make_task):
    return make_task()


@pytest.fixture(scope="module")
def variables(task):
    return task.init(jax.random.key(0))


@pytest.fixture(scope="module")
def workdir(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "handwriting"
    train.fit(task, task.config, folder)
    return folder


def sample(given=0, points=None, finished=True, U=2):
    """A sample of the points of STROKES, normalized."""
    if points is None:
        points = lines.pack([(lines.offsets(STROKES), "a")], SCALE)["points"]
    phi = np.random.default_rng(0).random((len(points) - 1, U + 1))
    return Sample("a" * U, points, phi, given, finished)


def pixels_of(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def polylines_of(text):
    """Colour and points of each polyline of an SVG, and its width and height."""
    root = ElementTree.fromstring(text)
    found = [
        (line.get("stroke"), np.array(re.split("[ ,]", line.get("points")), float).reshape(-1, 2))
        for line in root.iter(f"{SVG}polyline")
    ]
    return found, [float(number) for number in root.get("viewBox").split()]


def captions_of(text):
    return [node.text for node in ElementTree.fromstring(text).iter(f"{SVG}text")]


# --- Strokes ---


def test_strokes_are_drawn_as_they_were_recorded():
    drawn = [stroke for _, stroke in line_of(sample(), SCALE).strokes]
    assert [len(stroke) for stroke in drawn] == [3, 1, 2]
    zoom = (drawn[0][1, 0] - drawn[0][0, 0]) / 30
    for stroke, recorded in zip(drawn, STROKES, strict=True):
        np.testing.assert_allclose(stroke, zoom * (recorded - STROKES[0][0]), atol=1e-4)


def test_no_stroke_is_empty_whether_or_not_the_last_one_ends():
    positions = np.arange(8.0).reshape(4, 2)
    for ends, sizes in (([0, 1, 0, 1], [2, 2]), ([0, 1, 0, 0], [2, 2]), ([1, 1, 1, 0], [1] * 4)):
        assert [len(stroke) for stroke in cut(positions, np.array(ends))] == sizes


@pytest.mark.parametrize("given, sizes", [(1, [2, 1, 2]), (2, [1, 2]), (4, [2])])
def test_a_prime_has_a_colour_and_a_stroke_that_it_left_open_is_gone_on_with(given, sizes):
    """Strokes of 3, 1 and 2 points; the given points are those behind the first."""
    strokes = line_of(sample(given), SCALE).strokes
    assert [len(stroke) for colour, stroke in strokes if colour == INK] == sizes
    of_prime = [stroke for colour, stroke in strokes if colour == GIVEN]
    assert sum(map(len, of_prime)) == given + 1
    whole = [stroke for _, stroke in line_of(sample(), SCALE).strokes]
    np.testing.assert_array_equal(np.concatenate(of_prime), np.concatenate(whole)[: given + 1])


def test_a_line_ends_where_the_window_shows_most_of_what_is_behind_the_text():
    phi = np.array([[0.9, 0.1, 0], [0.1, 0.8, 0.7], [0, 0.1, 0.2], [0, 1, 0.5]])
    assert until_end(phi, 0) == 2
    assert until_end(phi[:2], 0) == 2  # never: all points
    assert until_end(phi, 3) == 4  # what is given is there in any case
    assert until_end(phi[2:], 0) == 2  # and the first point


def test_an_unfinished_line_says_so():
    caption = line_of(sample(given=2, finished=False), SCALE).caption
    assert caption == "aa (not at the end after 3 points)"


# --- Pages ---


def test_the_svg_has_every_stroke_within_its_view_and_none_on_another():
    drawn = page([line_of(sample(), SCALE), line_of(sample(given=2), SCALE)])
    found, (left, top, width, height) = polylines_of(svg(drawn))
    assert (left, top) == (0, 0)
    assert [colour for colour, _ in found] == [colour for colour, _ in drawn.strokes]
    assert [len(points) for _, points in found] == [3, 2, 2, 2, 2, 3]  # a dot is twice its point
    for (_, points), (_, stroke) in zip(found, drawn.strokes, strict=True):
        np.testing.assert_allclose(points[: len(stroke)], stroke, atol=0.051)
        assert (points > 0).all() and (points < [width, height]).all()
    first, second = (np.concatenate([p for _, p in found[n : n + 3]])[:, 1] for n in (0, 3))
    assert first.max() + FONT < second.min()  # a caption is between them


def test_an_svg_may_say_anything():
    text = svg(page([Line("<a> & 'b'", [(INK, np.zeros((1, 2)))])]))
    assert captions_of(text) == ["<a> & 'b'"]


def test_the_png_shows_strokes_where_the_page_has_them():
    stroke = np.array([[0.0, 0.0], [0.0, 40.0], [100.0, 40.0]])  # down, then to the right: an L
    drawn = page([Line("", [(INK, stroke)])])
    pixels = pixels_of(picture(drawn))
    assert pixels.shape[:2] == pytest.approx((drawn.height, drawn.width), abs=1)
    rows, columns = np.nonzero(pixels.max(-1) < 100)
    (left, top), (right, bottom) = drawn.strokes[0][1][[0, 2]]
    assert (columns.min(), columns.max()) == pytest.approx((left, right), abs=2)
    assert (rows.min(), rows.max()) == pytest.approx((top, bottom), abs=2)
    assert (rows > bottom - 3).sum() > 2 * (rows < top + 20).sum()


def test_a_dot_is_seen():
    drawn = page([Line("", [(INK, np.zeros((1, 2)))])])
    assert pixels_of(picture(drawn)).min() < 200


def test_a_pen_that_runs_away_makes_no_larger_picture():
    drawn = page([Line("far", [(INK, np.array([[0.0, 0.0], [1e6, 1e4]]))])])
    assert max(pixels_of(picture(drawn)).shape) <= LARGEST


# --- The window ---


def test_the_window_is_shown_above_a_line_in_the_colours_of_the_characters():
    pixels = pixels_of(windows([sample(U=4)], SCALE))
    coloured = pixels.max(-1) - pixels.min(-1) > 60
    rows, columns = np.nonzero(coloured)
    height, width = coloured.shape
    assert coloured[: height // 2, : width // 10].any()  # names of characters, at the left
    assert coloured[height // 2 :, width // 10 :].any()
    dark = pixels[: height // 2, width // 10 :].max(-1) < 100
    assert dark.any() and not coloured[: height // 2, width // 10 :].any()


def test_every_sample_has_a_window_of_its_own():
    one, two = (pixels_of(windows([sample()] * n, SCALE)) for n in (1, 2))
    assert len(two) == pytest.approx(2 * len(one), abs=1)


# --- What is written ---


def written(task, variables, texts=("ab",), bias=0.0, seed=0, count=1, prime=None, steps=5):
    return write(task, variables, list(texts), bias, seed, count, prime, steps)


def test_every_text_is_written_count_times_each_time_otherwise(task, variables):
    found = written(task, variables, ["ab", "layer"], count=2)
    assert [s.text for s in found] == ["ab", "ab", "layer", "layer"]
    assert [s.phi.shape[1] for s in found] == [3, 3, 6, 6]
    for one, two in (found[:2], found[2:]):
        n = min(len(one.points), len(two.points))
        assert (one.points[1:n] != two.points[1:n]).any()


def test_a_line_begins_with_the_real_line_that_it_is_primed_with(task, variables):
    (found,) = written(task, variables, prime="valid:7")
    valid = task.splits["valid"]
    real = points_in(valid, 7)
    assert found.given == len(real) - 1 == valid["length"][7]
    np.testing.assert_array_equal(found.points[: len(real)], real)
    assert found.text == f"{text_in(valid, 7)} ab"
    assert found.phi.shape[1] == len(found.text) + 1


def test_a_large_bias_leaves_little_to_chance(task, variables):
    free, neat = (
        [s.points[1, :2] for s in written(task, variables, bias=bias, count=9)] for bias in (0, 9)
    )
    assert np.std(neat, 0).max() < 1e-2 < np.std(free, 0).min()


def test_without_steps_there_are_enough_of_them_for_the_text_and_behind_the_prime(task, variables):
    ratio = task.splits["train"]["length"].sum() / task.splits["train"]["text_length"].sum()
    text = "a" * 30
    for prime, before in ((None, 0), ("test:0", task.config.length)):
        (found,) = written(task, variables, [text], steps=None, prime=prime)
        assert len(found.points) <= 1 + before + math.ceil(60 * ratio)
        if not found.finished:
            assert len(found.points) == 1 + before + math.ceil(60 * ratio)


# --- The files ---


def test_files_are_a_function_of_the_seed(task, variables):
    first, again, other = (
        handwriting(task, variables, text=["ab"], seed=seed, steps=9) for seed in (0, 0, 1)
    )
    assert list(first) == FILES
    assert first == again
    assert all(first[name] != other[name] for name in FILES[:2])


def test_without_a_text_those_of_the_real_lines_are_written(task, variables):
    files = handwriting(task, variables, cases=3, count=1, steps=3)
    captions = captions_of(files["samples.svg"])
    real = [text_in(task.splits["test"], n) for n in (0, 66, 133)]
    assert all(ours.startswith(text) for text, ours in zip(real, captions[:3], strict=True))
    assert captions[3:] == [f"{text} (a line of pen, its first 20 points)" for text in real]


@pytest.mark.parametrize("prime", [None, "test:1"])
def test_a_network_without_text_writes_lines_and_refuses_texts(make_task, prime):
    task = make_task(text=False)
    variables = task.init(jax.random.key(0))
    files = handwriting(task, variables, count=2, prime=prime)
    assert list(files) == FILES[:2]
    strokes, _ = polylines_of(files["samples.svg"])
    assert any(colour == INK for colour, _ in strokes)
    assert any(colour == GIVEN for colour, _ in strokes) == (prime is not None)
    (found,) = written(task, variables, [""], prime=prime, steps=None)
    assert len(found.points) - 1 - found.given == task.config.length
    with pytest.raises(InputError, match="--text: this run writes without text"):
        handwriting(task, variables, text=["layer"])


def test_batch_norm_writes_lines_longer_than_those_it_has_seen(make_task):
    task = make_task(norm="batch")
    (found,) = written(task, task.init(jax.random.key(0)), ["layer"], steps=50)
    assert np.isfinite(found.points).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(text=[""]), "--text='': there is nothing to write"),
        (dict(text=["ab", "  "]), "--text='  ': there is nothing to write"),
        (dict(text=["très 2"]), "--text='très 2': a network does not know '2', 'è', only"),
        (dict(bias=-0.1), "--bias=-0.1: it must be 0"),
        (dict(bias=math.nan), "--bias=nan: it must be 0"),
        (dict(prime="5"), "--prime=5: name a line as SPLIT:N"),
        (dict(prime="tset:5"), "Did you mean 'test'"),
        (dict(prime="test:200"), "--prime=test:200: the split 'test' has the lines 0 to 199"),
        (dict(prime="test:-1"), "--prime=test:-1: the split 'test' has the lines 0 to 199"),
        (dict(split="tset"), "Did you mean 'test'"),
        (dict(cases=201), "--cases=201: the split 'test' has 200 cases"),
    ],
)
def test_what_cannot_be_written_is_refused(task, variables, options, message):
    with pytest.raises(InputError, match=message):
        handwriting(task, variables, **options)


# --- The command ---


@pytest.mark.slow
def test_the_command_writes_the_files_and_says_what_they_are_of(workdir):
    words = ("handwriting", f"--workdir={workdir}", "--text=layer norm", "--text=it's", "--count=2")
    done = run("scripts.sample", *words, "--bias=0.5", "--prime=test:0", "--steps=7")
    assert done.returncode == 0, done.stderr
    folder = workdir / "samples"
    assert {path.name for path in folder.iterdir()} == {*FILES, "samples.json"}
    made = json.loads((folder / "samples.json").read_text())
    assert (made["step"], made["seed"], made["files"]) == (4, 0, FILES)
    assert "it's" in (folder / "samples.svg").read_text()


@pytest.mark.slow
def test_what_the_command_refuses_it_says_in_one_line(workdir, tmp_path):
    for word in ("--text=", "--bias=-1", "--prime=test:999"):
        words = (f"--workdir={workdir}", f"--out={tmp_path / 'out'}", word)
        done = run("scripts.sample", "handwriting", *words)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert word.removesuffix("1") in done.stderr
        assert not (tmp_path / "out").exists()
