"""Pictures of DRAW: the places of frames, and what the files show."""

from functools import partial
import io

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from experiments.draw import samples
from experiments.draw.model import Window
from experiments.draw.samples import GAP, WRITING, ZOOM, Options, corners, sample, tile
from tests.learning import tiny_task

pytestmark = pytest.mark.slow  # pictures
BLACK = np.zeros((28, 28))


@pytest.fixture(scope="module")
def make_task(data_dir):
    return partial(tiny_task, "draw", data_dir)


def pictures_of(task, **options):
    variables = jax.jit(task.init)(jax.random.key(0))
    return sample(task, variables, Options(**dict(count=5, cases=3) | options))


def pixels_of(image):
    image = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
    return np.asarray(image.convert("RGB")).astype(int)


def coloured(png):
    """Return where a picture has a colour, ``[height, width]``."""
    pixels = pixels_of(png)
    return pixels.max(-1) - pixels.min(-1) > 30


def window_of(g_Y, g_X, delta, sigma):
    return Window(*map(np.float32, (g_Y, g_X, delta, sigma, 1.0)))


@pytest.mark.parametrize("N", [1, 2, 5])
def test_corners_are_centres_of_the_outermost_filters(N):
    window = Window(*(jnp.array([value]) for value in (11.0, 16.0, 2.5, 0.7, 1.0)))
    left, top, right, bottom = corners(window, N)
    F_Y, F_X = window.filterbanks(N)
    pixel = np.arange(1, 29)
    np.testing.assert_allclose(F_X[0, [0, -1]] @ pixel, np.ravel([left, right]), atol=0.05)
    np.testing.assert_allclose(F_Y[0, [0, -1]] @ pixel, np.ravel([top, bottom]), atol=0.05)


def test_a_frame_surrounds_its_pixels():
    colours = coloured(tile(BLACK, (window_of(g_Y=8, g_X=6, delta=2, sigma=1), 5, WRITING)))
    for places, centre in zip(np.nonzero(colours), (8, 6), strict=True):
        first, last = places.min() / ZOOM, (places.max() + 1) / ZOOM
        # Pixel p of the picture goes from p - 1 to p.
        assert (first + last) / 2 == pytest.approx(centre - 0.5, abs=0.4)
        assert last - first == pytest.approx(4 * 2 + 0.4, abs=0.4)
    assert not colours[5 * ZOOM : 10 * ZOOM, 3 * ZOOM : 8 * ZOOM].any()  # it is hollow


@pytest.mark.parametrize("g_X, delta", [(26, 4), (1e9, 1e-9), (-1e9, 1e9)])
def test_a_frame_beyond_the_picture_is_cut(g_X, delta):
    colours = coloured(tile(BLACK, (window_of(g_Y=14, g_X=g_X, delta=delta, sigma=2), 5, WRITING)))
    assert colours.shape == (28 * ZOOM, 28 * ZOOM) and colours.any() == (g_X == 26)


@pytest.mark.parametrize("T", [1, 2, samples.COLUMNS, 64])
def test_first_and_last_glimpse_are_shown(T):
    shown = samples.selected(T)
    assert shown[0] == 0 and shown[-1] == T - 1 and len(set(shown)) == min(T, samples.COLUMNS)


def test_the_animation_shows_every_glimpse_and_holds_the_last(make_task):
    movie = Image.open(io.BytesIO(pictures_of(make_task(glimpses=4))["samples.gif"]))
    durations = []
    for n in range(movie.n_frames):
        movie.seek(n)
        durations.append(movie.info["duration"])
    assert len(durations) == 4 and movie.info["loop"] == 0
    assert durations[-1] > max(durations[:-1])


def test_windows_are_drawn_but_on_finished_pictures(make_task):
    for name, picture in pictures_of(make_task()).items():
        assert coloured(picture).any() == (name != "samples.png"), name


def test_a_reconstruction_is_beside_its_image(make_task):
    task = make_task()
    first, again, reseeded = (pictures_of(task, split="valid", seed=seed) for seed in (0, 0, 1))
    assert first == again and first["samples.png"] != reseeded["samples.png"]
    pixels = pixels_of(first["reconstructions.png"])
    x = task.splits["valid"]["x"][[0, 66, 133]].reshape(3, 28, 28)
    side = 28 * ZOOM + GAP
    for row in range(3):
        image = pixels[-(3 - row) * side :][: 28 * ZOOM : ZOOM, : 28 * ZOOM : ZOOM, 0]
        np.testing.assert_array_equal(image, 255 * x[row])
    assert pixels.shape[1] == (2 + task.config.glimpses) * side
