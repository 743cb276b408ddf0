"""Show what DRAW paints out of noise, and what it paints when it looks at images.

    python -m scripts.sample draw --workdir=runs/x

    samples.png            --count pictures that the model makes of noise
    samples.gif            the same, glimpse by glimpse, with the window it writes through
    samples_over_time.png  the first --cases of them in rows, at some of the glimpses
    reconstructions.png    --cases images of --split, what the model paints when it looks at them,
                           and how: where it reads (blue) and where it writes (red)

A window's frame goes through the centres of its outermost filters, the thicker the wider they are.
"""

import dataclasses
import io
from typing import NamedTuple

import numpy as np

from experiments.pictures import DPI, POINT, option, png

GAP = 2  # pixels between two pictures
ZOOM = 3  # pixels of the file for each pixel of a picture
COLUMNS = 12  # of pictures over time; further glimpses are left out
SECONDS, HELD = 5, 3  # of the animation without its last frame, and of that frame
READING, WRITING = "#56b4e9", "#d55e00"  # Okabe and Ito's, told apart by the colour-blind
THINNEST, THICKEST = 0.3, 1.2  # lines of frames, in pixels of a picture


@dataclasses.dataclass(frozen=True)
class Options:
    seed: int = option(0, "seed of all that is random", lower_bound=0)
    split: str = option("test", "split of the images")
    count: int = option(64, "pictures in samples.png and samples.gif", lower_bound=1)
    cases: int = option(8, "rows of pictures over time and reconstructions", lower_bound=1)


class Frames(NamedTuple):
    """Windows to be drawn on a sheet of pictures: leaves ``[R, C]``, NaN if there is none."""

    windows: NamedTuple  # of g_Y, g_X, delta, sigma, as in model.py
    N: int
    colour: str


def sample(task, variables, options: Options) -> dict[str, bytes]:
    """Return the files by name.

    Args:
        variables: of one lane.

    Raises:
        InputError: there is no such split, or it has fewer examples.
    """
    import jax

    from experiments import tasks

    count, cases = options.count, options.cases
    x = tasks.some_cases(task, options.split, cases)["x"]
    keys = jax.random.split(jax.random.key(options.seed))
    generate = jax.jit(task.generate, static_argnums=2)
    samples = jax.device_get(generate(variables, keys[0], max(count, cases)))
    shown = jax.tree.map(lambda leaf: leaf[:, :count], samples)
    in_detail = jax.tree.map(lambda leaf: leaf[:, :cases], samples)
    painted = jax.device_get(jax.jit(task.reconstruct)(variables, x, keys[1]))
    images = x.reshape(painted.c[-1].shape)
    ends = dict(image=images, painted=sigmoid(painted.c[-1]))
    return {
        "samples.png": sheet(in_rows(sigmoid(shown.c[-1]))),
        "samples.gif": animation(shown, task.config.write_size),
        "samples_over_time.png": over_time(in_detail, task.config),
        "reconstructions.png": over_time(painted, task.config, ends),
    }


def over_time(glimpses, config, ends=None) -> bytes:
    """Draw a row for each example: the ends, then the canvas after some of the glimpses.

    Args:
        ends: title -> pictures ``[B, H, W]``.
    """
    ends, shown = ends or {}, selected(len(glimpses.c))

    def lay_out(leaf):
        return np.pad(leaf[shown].T, ((0, 0), (len(ends), 0)), constant_values=np.nan)

    frames = frames_of(glimpses.reading, config.read_size, READING, lay_out)
    frames += frames_of(glimpses.writing, config.write_size, WRITING, lay_out)
    pictures = np.stack([*ends.values(), *sigmoid(glimpses.c[shown])], axis=1)
    return sheet(pictures, frames, [*ends, *(f"t = {t + 1}" for t in shown)])


def animation(glimpses, N: int) -> bytes:
    """Return a GIF that shows glimpse by glimpse how all pictures are painted, in a loop."""
    from PIL import Image

    T = len(glimpses.c)
    stills = []
    for t in range(T):
        frames = frames_of(glimpses.writing, N, WRITING, lambda leaf, t=t: in_rows(leaf[t]))
        still = sheet(in_rows(sigmoid(glimpses.c[t])), frames, [f"t = {t + 1} of {T}"])
        stills.append(Image.open(io.BytesIO(still)).convert("RGB"))
    durations = [1000 * SECONDS // T] * (T - 1) + [1000 * HELD]
    movie = dict(append_images=stills[1:], duration=durations, loop=0)  # 0: for ever
    file = io.BytesIO()
    stills[0].save(file, format="GIF", save_all=True, **movie)
    return file.getvalue()


def sigmoid(c):
    return (1 + np.tanh(c / 2)) / 2


def selected(T: int) -> np.ndarray:
    """Return up to COLUMNS of T glimpses, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, T - 1, min(T, COLUMNS)).round().astype(int))


def in_rows(a: np.ndarray) -> np.ndarray:
    """Return ``[B, ...]`` as a square ``[R, C, ...]``, row by row; the rest of it is NaN."""
    columns = int(np.ceil(np.sqrt(len(a))))
    rows = -(-len(a) // columns)
    square = np.full((rows * columns, *a.shape[1:]), np.nan)
    square[: len(a)] = a
    return square.reshape(rows, columns, *a.shape[1:])


def frames_of(window, N: int, colour: str, lay_out) -> list[Frames]:
    """Return the frames of a window ``[T, B]`` on a sheet; none without attention."""
    return [] if window is None else [Frames(type(window)(*map(lay_out, window)), N, colour)]


def corners(window, N: int) -> tuple:
    """Return left, top, right and bottom of a window: the centres of its outermost filters.

    In the window's own pixels, of which the first has its centre at 1.
    """
    half = (N - 1) / 2 * window.delta
    return window.g_X - half, window.g_Y - half, window.g_X + half, window.g_Y + half


def sheet(pictures: np.ndarray, frames=(), titles=()) -> bytes:
    """Draw pictures ``[R, C, H, W]`` from 0, black, to 1, white, side by side; return a PNG.

    Args:
        frames: windows on them, a list of `Frames`.
        titles: of the columns, from the first on.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    R, C, H, W = pictures.shape
    page = np.full((R, H + GAP, C, W + GAP), np.nan)
    page[:, :H, :, :W] = pictures.swapaxes(1, 2)
    page = page.reshape(R * (H + GAP), C * (W + GAP))
    height, width = page.shape
    head = 7 if titles else 0

    size = ZOOM * width / DPI, ZOOM * (height + head) / DPI
    figure = Figure(figsize=size, dpi=DPI)
    axes = figure.add_axes((0, 0, 1, height / (height + head)))
    axes.set_axis_off()
    extent = (0.5, width + 0.5, height + 0.5, 0.5)  # pixel 1 is the first, as in a window
    grey = colormaps["gray"].with_extremes(bad="white")
    axes.imshow(page, cmap=grey, vmin=0, vmax=1, extent=extent, interpolation="nearest")
    for column, title in enumerate(titles):
        axes.text(column * (W + GAP) + 0.5, -1, title, fontsize=8)
    for windows, N, colour in frames:
        for row, column in np.argwhere(np.isfinite(windows.sigma)):
            window = type(windows)(*(leaf[row, column] for leaf in windows))
            draw_frame(axes, window, N, colour, row * (H + GAP), column * (W + GAP), (W, H))
    return png(figure)


def draw_frame(axes, window, N: int, colour: str, y: int, x: int, size: tuple[int, int]) -> None:
    """Draw the frame of a window on the picture behind row y and column x, clipped to it."""
    from matplotlib.patches import Rectangle

    left, top, right, bottom = corners(window, N)
    frame = Rectangle(
        (x + left, y + top),
        right - left,
        bottom - top,
        fill=False,
        color=colour,
        snap=False,  # or it would be moved by up to a third of a pixel
        linewidth=ZOOM * POINT * np.clip(0.4 * window.sigma, THINNEST, THICKEST),
    )
    axes.add_patch(frame)
    frame.set_clip_path(Rectangle((x + 0.5, y + 0.5), *size, transform=axes.transData))
