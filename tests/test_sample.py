"""Pictures of DRAW: where frames lie, what the files hold, and what the command refuses."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from configs import draw as config_file
import experiments
from experiments.draw.model import Window
from experiments.draw.samples import (
    COLUMNS,
    GAP,
    WRITING,
    ZOOM,
    Frames,
    corners,
    in_rows,
    sample,
    selected,
    sheet,
)
from ln.errors import InputError
from ln.training import train
from tests.test_scripts import run

pytestmark = pytest.mark.slow  # pictures and whole commands

FILES = ["samples.png", "samples.gif", "samples_over_time.png", "reconstructions.png"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def make_config(data_dir):
    def make(**overrides):
        config = config_file.get_config("tiny")
        config.update_from_flattened_dict(dict(data_dir=data_dir, **overrides))
        return config

    return make


@pytest.fixture(scope="module")
def workdir(make_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "draw"
    config = make_config(seeds=(0, 1))
    train.fit(experiments.load(config), config, folder)
    return folder


def pictures_of(config, seed=0, split="test", count=5, cases=3):
    task = experiments.load(config)
    variables = task.init(jax.random.key(0))
    return sample(task, variables, seed=seed, split=split, count=count, cases=cases)


def pixels_of(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def coloured(png):
    """Where a picture has a colour, ``[height, width]``."""
    pixels = pixels_of(png)
    return pixels.max(-1) - pixels.min(-1) > 30


def window_of(g_Y, g_X, delta, sigma):
    return Window(*(np.full((1, 2), float(value)) for value in (g_Y, g_X, delta, sigma, 1.0)))


# --- Frames ---


@pytest.mark.parametrize("N", [1, 2, 5])
def test_the_corners_are_the_centres_of_the_outermost_filters(N):
    window = Window(*(jnp.array([value]) for value in (11.0, 16.0, 2.5, 0.7, 1.0)))
    left, top, right, bottom = corners(window, N)
    F_Y, F_X = window.filterbanks(N)
    pixel = np.arange(1, 29)
    np.testing.assert_allclose(F_X[0, [0, -1]] @ pixel, np.ravel([left, right]), atol=0.05)
    np.testing.assert_allclose(F_Y[0, [0, -1]] @ pixel, np.ravel([top, bottom]), atol=0.05)


def test_a_frame_lies_on_the_pixels_that_it_names():
    frames = [Frames(window_of(g_Y=8, g_X=6, delta=2, sigma=1), 5, WRITING)]
    found = coloured(sheet(np.zeros((1, 2, 28, 28)), frames))
    for picture in (0, 1):
        of_picture = found[:, picture * (28 + GAP) * ZOOM :][:, : 28 * ZOOM]
        for places, centre in zip(np.nonzero(of_picture), (8, 6), strict=True):
            first, last = places.min() / ZOOM, (places.max() + 1) / ZOOM
            # Pixel p of the picture goes from p - 1 to p. The line itself is 0.4 pixels wide.
            assert (first + last) / 2 == pytest.approx(centre - 0.5, abs=0.2)
            assert last - first == pytest.approx(4 * 2 + 0.4, abs=0.4)
        assert not of_picture[5 * ZOOM : 10 * ZOOM, 3 * ZOOM : 8 * ZOOM].any()  # it is hollow


def test_a_frame_is_wider_where_the_filters_are():
    black = np.zeros((1, 2, 28, 28))
    areas = [
        coloured(sheet(black, [Frames(window_of(14, 14, 3, sigma), 5, WRITING)])).sum()
        for sigma in (0.75, 1.5, 3)
    ]
    assert areas[0] < 0.7 * areas[1] < 0.5 * areas[2]


def test_a_frame_never_reaches_the_picture_beside():
    window = window_of(g_Y=14, g_X=26, delta=4, sigma=2)
    window.sigma[0, 1] = np.nan  # the second picture has none
    found = coloured(sheet(np.zeros((1, 2, 28, 28)), [Frames(window, 5, WRITING)]))
    assert found[:, : 28 * ZOOM].any() and not found[:, 28 * ZOOM :].any()


# --- Layout ---


def test_black_is_0_white_is_1_and_every_pixel_is_a_square():
    pictures = np.random.default_rng(0).integers(2, size=(2, 3, 28, 28)).astype(float)
    pixels = pixels_of(sheet(pictures))[ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM, 0] / 255
    for row, column in np.ndindex(2, 3):
        y, x = row * (28 + GAP), column * (28 + GAP)
        np.testing.assert_array_equal(pixels[y : y + 28, x : x + 28], pictures[row, column])


@pytest.mark.parametrize("T", [1, 2, COLUMNS, 64])
def test_the_first_and_the_last_glimpse_are_shown(T):
    shown = selected(T)
    assert shown[0] == 0 and shown[-1] == T - 1 and len(shown) == min(T, COLUMNS)
    assert (np.diff(shown) > 0).all()


def test_pictures_fill_a_square_row_by_row():
    square = in_rows(np.arange(5))
    np.testing.assert_array_equal(square, [[0, 1, 2], [3, 4, np.nan]])


# --- The files ---


def test_the_animation_shows_every_glimpse_for_ever_and_holds_the_last(make_config):
    movie = Image.open(io.BytesIO(pictures_of(make_config(glimpses=4))["samples.gif"]))
    durations = []
    for n in range(movie.n_frames):
        movie.seek(n)
        durations.append(movie.info["duration"])
    assert len(durations) == 4 and movie.info["loop"] == 0
    assert durations[-1] > max(durations[:-1])


def test_windows_are_drawn_where_there_is_attention(make_config):
    with_windows, without = (pictures_of(make_config(attention=a)) for a in (True, False))
    assert list(with_windows) == list(without) == FILES
    for name in FILES:
        assert coloured(with_windows[name]).any() == (name != "samples.png"), name
        assert not coloured(without[name]).any(), name


def test_a_reconstruction_stands_beside_its_image(make_config):
    config = make_config()
    png = pictures_of(config, split="valid", cases=3)["reconstructions.png"]
    x = experiments.load(config).splits["valid"]["x"][[0, 66, 133]].reshape(3, 28, 28)
    pixels = pixels_of(png)
    pixels = pixels[-3 * (28 + GAP) * ZOOM :][ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM, 0]
    for row in range(3):
        found = pixels[row * (28 + GAP) :][:28, :28]
        np.testing.assert_array_equal(found, 255 * x[row])
    assert pixels.shape[1] == (2 + config.glimpses) * (28 + GAP)


def test_samples_are_a_function_of_the_seed(make_config):
    config = make_config()
    first, again, other = (pictures_of(config, seed)["samples.png"] for seed in (0, 0, 1))
    assert first == again != other


def test_a_split_that_cannot_be_is_refused(make_config):
    with pytest.raises(InputError, match="Did you mean 'test'"):
        pictures_of(make_config(), split="tset")
    with pytest.raises(InputError, match="--cases=301: the split 'test' has 300 cases"):
        pictures_of(make_config(), cases=301)


# --- The command ---


@pytest.mark.slow
def test_the_command_writes_the_files_and_says_what_they_are_of(workdir, data_dir):
    words = ("draw", f"--workdir={workdir}", "--lane=1", "--count=4", "--cases=2")
    done = run("scripts.sample", *words)
    assert done.returncode == 0, done.stderr
    folder = workdir / "samples"
    assert {path.name for path in folder.iterdir()} == {*FILES, "samples.json"}
    assert all(str(folder / name) in done.stdout for name in FILES)
    made = json.loads((folder / "samples.json").read_text())
    assert (made["step"], made["seed"], made["files"]) == (4, 1, FILES)
    assert "--lane=1" in made["command"]
    assert run("scripts.sample", *words).returncode == 0  # once more, over its own files


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "Give one experiment of attentive_reader"),
        (["draw"], "--workdir=DIR"),
        (["drwa", "--workdir=x"], "Did you mean 'draw'"),
        (["draw", "--workdir=x", "--count=0"], "--count=0"),
        (["draw", "--workdir=x", "--text=layer norm"], "--text is not for draw"),
        (["draw", "--workdir=x", "--out=configs"], "configs is not empty"),
        (["draw", "--workdir=x", "--out=README.md"], "README.md is not empty"),
        (["draw", "--workdir=configs"], "configs is no run folder"),
        (["draw", "--workdir=results/paper/mnist/norm=layer,batch_size=128"], "a run of mnist"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(words, message):
    done = run("scripts.sample", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "word, message",
    [
        ("--lane=2", "has lanes 0 to 1"),
        ("--lane=-1", "has lanes 0 to 1"),
        ("--checkpoint=nwest", "Did you mean 'newest'"),
        ("--checkpoint=3", "Known: 2, 4, best, newest"),
    ],
)
def test_what_the_run_does_not_have_is_refused_in_one_line(workdir, tmp_path, word, message):
    done = run("scripts.sample", "draw", f"--workdir={workdir}", f"--out={tmp_path / 'out'}", word)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
