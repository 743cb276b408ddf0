"""Show what DRAW paints out of noise, and what it paints when it looks at images.

    python -m scripts.sample draw --workdir=runs/x

    samples.png            --count pictures that the model makes of noise
    samples.gif            the same, glimpse by glimpse, with the window it writes through
    samples_over_time.png  the first `--cases` of them in rows, at some of the glimpses
    reconstructions.png    `--cases` images of --split, what the model paints when it looks at them,
                           and how: where it reads (blue) and where it writes (red)

A window's frame goes through the centres of its outermost filters, the thicker the wider they are.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from scipy.special import expit as sigmoid

from experiments.pictures import encoded, option

GAP = 6  # pixels between two pictures
ZOOM = 3  # pixels of the file for each pixel of a picture
HEAD = 14  # pixels for the titles of columns
COLUMNS = 12  # of pictures over time; further glimpses are left out
SECONDS, HELD = 5, 3  # of the animation without its last frame, and of that frame
READING, WRITING = "#56b4e9", "#d55e00"  # Okabe and Ito's, distinct for colour-blind readers
FAR = 1000  # pixels: beyond any picture


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of the command."""

    seed: int = option(0, "seed of all that is random", lower_bound=0)
    split: str = option("test", "split of the images")
    count: int = option(64, "pictures in samples.png and samples.gif", lower_bound=1)
    cases: int = option(8, "rows of pictures over time and reconstructions", lower_bound=1)


def sample(task, variables, options: Options) -> dict[str, bytes]:
    """Return the files by name.

    Args:
        task: of the run.
        variables: of one lane.
        options: the flags.

    Raises:
        InputError: there is no such split, or it has fewer examples.
    """
    import jax

    from experiments import tasks

    config, count, cases = task.config, options.count, options.cases
    x = tasks.some_cases(task, options.split, cases)["x"]
    keys = jax.random.split(jax.random.key(options.seed))
    generate = jax.jit(task.generate, static_argnums=2)
    samples = jax.device_get(generate(variables, keys[0], max(count, cases)))
    painted = jax.device_get(jax.jit(task.reconstruct)(variables, x, keys[1]))
    ends = dict(image=x.reshape(painted.c[-1].shape), painted=sigmoid(painted.c[-1]))
    return {
        "samples.png": encoded(sheet([tile(c) for c in sigmoid(samples.c[-1, :count])])),
        "samples.gif": animation(samples, config, count),
        "samples_over_time.png": over_time(samples, config, cases, {}),
        "reconstructions.png": over_time(painted, config, cases, ends),
    }


def over_time(glimpses, config, cases: int, ends: Mapping[str, np.ndarray]) -> bytes:
    """Draw a row for each example: the ends, then the canvas after some of the glimpses.

    Args:
        glimpses: of all examples, ``[T, B, ...]``.
        config: of the run.
        cases: how many examples.
        ends: title -> pictures ``[B, H, W]``.
    """
    shown, tiles = selected(len(glimpses.c)), []
    for b in range(cases):
        tiles += [tile(pictures[b]) for pictures in ends.values()]
        tiles += [canvas(glimpses, config, t, b) for t in shown]
    titles = [*ends, *(f"t = {t + 1}" for t in shown)]
    return encoded(sheet(tiles, titles, len(titles)))


def animation(glimpses, config, count: int) -> bytes:
    """Return a GIF that shows glimpse by glimpse how all pictures are painted, in a loop."""
    T, pages = len(glimpses.c), []
    for t in range(T):
        tiles = [canvas(glimpses, config, t, b) for b in range(count)]
        pages.append(sheet(tiles, [f"t = {t + 1} of {T}"]))
    durations = [1000 * SECONDS // T] * (T - 1) + [1000 * HELD]
    movie = dict(save_all=True, append_images=pages[1:], duration=durations, loop=0)  # 0: for ever
    return encoded(pages[0], "GIF", **movie)


def selected(T: int) -> np.ndarray:
    """Return up to COLUMNS of T glimpses, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, T - 1, min(T, COLUMNS)).round().astype(int))


def canvas(glimpses, config, t: int, b: int) -> Image.Image:
    """Draw what example b has on its canvas after glimpse t, and the windows."""
    import jax

    glimpse = jax.tree.map(lambda leaf: leaf[t, b], glimpses)
    frames = [(glimpse.writing, config.write_size, WRITING)]
    if glimpse.reading:
        frames = [(glimpse.reading, config.read_size, READING), *frames]
    return tile(sigmoid(glimpse.c), *frames)


def tile(picture: np.ndarray, *frames) -> Image.Image:
    """Draw a picture ``[H, W]`` from 0, black, to 1, white, and frames (window, N, colour)."""
    grey = Image.fromarray(np.uint8(np.round(255 * picture)))
    image = ImageOps.scale(grey, ZOOM, Image.Resampling.NEAREST).convert("RGB")
    for window, N, colour in frames:
        # A window's first pixel has its centre at 1.
        box = [float(np.clip(ZOOM * (edge - 0.5), -FAR, FAR)) for edge in corners(window, N)]
        width = int(np.clip(np.round(0.4 * ZOOM * window.sigma), 1, ZOOM))
        ImageDraw.Draw(image).rectangle(box, outline=colour, width=width)
    return image


def corners(window, N: int) -> tuple:
    """Return left, top, right and bottom of a window: the centres of its outermost filters.

    In the window's own pixels, of which the first has its centre at 1.
    """
    half = (N - 1) / 2 * window.delta
    return window.g_X - half, window.g_Y - half, window.g_X + half, window.g_Y + half


def sheet(
    tiles: Sequence[Image.Image], titles: Sequence[str] = (), columns: int = 0
) -> Image.Image:
    """Lay out tiles row by row, below the titles of columns; 0 columns make a square."""
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    width, height = (side + GAP for side in tiles[0].size)
    top, rows = HEAD if titles else 0, -(-len(tiles) // columns)
    page = Image.new("RGB", (width * columns, top + height * rows), "white")
    for column, title in enumerate(titles):
        ImageDraw.Draw(page).text((column * width, 1), title, fill="black")
    for n, image in enumerate(tiles):
        page.paste(image, (n % columns * width, top + n // columns * height))
    return page
