"""What DRAW paints out of nothing, and what it paints when it looks at images."""

import io
from typing import NamedTuple

import numpy as np

from experiments import tasks
from experiments.pictures import DPI, POINT, png

GAP = 2  # pixels between two pictures
ZOOM = 3  # pixels of the file for each pixel of a picture
COLUMNS = 12  # of pictures over time; further glimpses are left out
SECONDS, HELD = 5, 3  # of the animation without its last frame, and of that frame
READING, WRITING = "#00c000", "#ff2020"
THINNEST, THICKEST = 0.3, 1.2  # lines of frames, in pixels of a picture


class Frames(NamedTuple):
    """Windows to be drawn on pictures: leaves ``[R, C]``, NaN where there is none."""

    windows: NamedTuple  # of g_Y, g_X, delta, sigma, as in experiments/draw.py
    N: int
    colour: str


def sample(
    task, variables, *, seed: int = 0, split: str = "test", count: int = 64, cases: int = 8
) -> dict[str, bytes]:
    """Returns the files by name.

    Args:
        variables: of one lane.
        seed: of all that is random.
        split: where the images come from.
        count: pictures in samples.png and samples.gif.
        cases: rows of each of the pictures over time.

    Raises:
        InputError: there is no such split, or it has fewer cases.
    """
    import jax

    x = tasks.some_cases(task, split, cases)["x"]
    keys = jax.random.split(jax.random.key(seed))
    generate = jax.jit(task.generate, static_argnums=2)
    samples = jax.device_get(generate(variables, keys[0], max(count, cases)))
    painted = jax.device_get(jax.jit(task.reconstruct)(variables, x, keys[1]))
    shown = jax.tree.map(lambda leaf: leaf[:, :count], samples)
    read_size, write_size = task.config.read_size, task.config.write_size
    return {
        "samples.png": sheet(in_rows(sigmoid(shown.c[-1]))),
        "samples.gif": animation(shown, write_size),
        "samples_over_time.png": samples_over_time(samples, cases, write_size),
        "reconstructions.png": reconstructions(x, painted, read_size, write_size),
    }


def samples_over_time(glimpses, cases: int, N: int) -> bytes:
    """A row for each of the first cases: the canvas after some of the glimpses."""
    shown = selected(len(glimpses.c))
    frames = frames_of(glimpses.writing, N, WRITING, lambda leaf: leaf[shown, :cases].T)
    titles = [f"t = {t + 1}" for t in shown]
    return sheet(sigmoid(glimpses.c[shown, :cases]).swapaxes(0, 1), frames, titles)


def reconstructions(x, glimpses, read_size: int, write_size: int) -> bytes:
    """A row for each image: itself, what came of it, and the canvas after some of the glimpses."""
    shown = selected(len(glimpses.c))
    over_time = sigmoid(glimpses.c[shown]).swapaxes(0, 1)  # [B, glimpses, 28, 28]
    ends = [x.reshape(over_time[:, 0].shape), sigmoid(glimpses.c[-1])]
    titles = ["image", "painted", *(f"t = {t + 1}" for t in shown)]

    def beside_ends(leaf):
        return np.pad(leaf[shown].T, ((0, 0), (len(ends), 0)), constant_values=np.nan)

    frames = frames_of(glimpses.reading, read_size, READING, beside_ends)
    frames += frames_of(glimpses.writing, write_size, WRITING, beside_ends)
    return sheet(np.concatenate([np.stack(ends, 1), over_time], 1), frames, titles)


def animation(glimpses, N: int) -> bytes:
    """A GIF of all pictures as they come about, again and again."""
    from PIL import Image

    T = len(glimpses.c)
    stills = []
    for t in range(T):
        frames = frames_of(glimpses.writing, N, WRITING, lambda leaf, t=t: in_rows(leaf[t]))
        still = sheet(in_rows(sigmoid(glimpses.c[t])), frames, [f"t = {t + 1} of {T}"])
        stills.append(Image.open(io.BytesIO(still)).convert("RGB"))
    file = io.BytesIO()
    stills[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=stills[1:],
        duration=[1000 * SECONDS // T] * (T - 1) + [1000 * HELD],
        loop=0,  # for ever
    )
    return file.getvalue()


def sigmoid(c):
    return (1 + np.tanh(c / 2)) / 2


def selected(T: int) -> np.ndarray:
    """Up to COLUMNS of T glimpses, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, T - 1, min(T, COLUMNS)).round().astype(int))


def in_rows(a: np.ndarray) -> np.ndarray:
    """Lays ``[B, ...]`` out as a square ``[R, C, ...]``, row by row; the rest of it is NaN."""
    columns = int(np.ceil(np.sqrt(len(a))))
    rows = -(-len(a) // columns)
    padding = [(0, rows * columns - len(a))] + [(0, 0)] * (a.ndim - 1)
    padded = np.pad(a.astype(float), padding, constant_values=np.nan)
    return padded.reshape(rows, columns, *a.shape[1:])


def frames_of(window, N: int, colour: str, laid_out) -> list[Frames]:
    """The frames of a window ``[T, B]`` as they lie on a sheet; none without attention."""
    if window is None:
        return []
    return [Frames(type(window)(*map(laid_out, window)), N, colour)]


def corners(window, N: int) -> tuple:
    """Left, top, right and bottom of a window: the centres of its outermost filters.

    In the window's own pixels, of which the first has its centre at 1.
    """
    half = (N - 1) / 2 * window.delta
    return window.g_X - half, window.g_Y - half, window.g_X + half, window.g_Y + half


def sheet(pictures: np.ndarray, frames=(), titles=()) -> bytes:
    """Draws pictures ``[R, C, H, W]`` from 0, black, to 1, white, side by side; returns a PNG.

    Args:
        frames: windows on them, a list of `Frames`. The wider the filters, the thicker the line:
            0.4 sigma, within limits.
        titles: of the columns, from the first on.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

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

    pixel = ZOOM * POINT  # of a picture, as a line's width
    for windows, N, colour in frames:
        for row, column in zip(*np.nonzero(np.isfinite(windows.sigma)), strict=True):
            window = type(windows)(*(leaf[row, column] for leaf in windows))
            left, top, right, bottom = corners(window, N)
            x, y = column * (W + GAP), row * (H + GAP)
            frame = Rectangle(
                (x + left, y + top),
                right - left,
                bottom - top,
                fill=False,
                color=colour,
                snap=False,  # or it would be moved by up to a third of a pixel
                linewidth=pixel * np.clip(0.4 * window.sigma, THINNEST, THICKEST),
            )
            axes.add_patch(frame)
            picture = Rectangle((x + 0.5, y + 0.5), W, H, transform=axes.transData)
            frame.set_clip_path(picture)
    return png(figure)
