"""Show what a network writes.

    python -m scripts.sample handwriting --workdir=runs/x --text="layer norm" --bias=0.5

    samples.png  each --text, --count times (black), or the texts of `--cases` lines of --split; and
                 those real lines (brown)

A line stops when the window is past the end of the text.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from experiments.curves import Style
from experiments.datasets import lines
from experiments.pictures import DPI, POINT, option, png
from ln.errors import InputError

# Lengths are in pixels.
ZOOM = 8  # standard deviation of the pen's moves; a small letter is two or three times as high
PEN = 1.6  # width of a stroke
FONT = 11
MARGIN = 12

POINTS = 40  # of a character at most: about twice as many as people need on IAM-OnDB's whiteboard
INK, REAL, GREY = "#101010", "#8a5a20", "#808080"


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of the command."""

    text: list[str] | None = option(None, "a text to write; may be repeated")
    bias: float = option(0.0, "above 0 for neater writing")
    seed: int = option(0, "seed of all that is random", lower_bound=0)
    count: int = option(3, "samples of each text", lower_bound=1)
    steps: int = option(0, f"most points of a line; 0: {POINTS} a character", lower_bound=0)
    split: str = option("test", "split of the real lines")
    cases: int = option(2, "real lines that are shown", lower_bound=1)


class Line(NamedTuple):
    """A line to be drawn: its caption, its colour and its normalized points ``[n, 3]``."""

    caption: str
    colour: str
    points: np.ndarray


def sample(task, variables, options: Options) -> dict[str, bytes]:
    """Return the files by name.

    Args:
        task: of the run.
        variables: of one lane.
        options: the flags.

    Raises:
        InputError: a text or bias that cannot be, or a split that does not exist.
    """
    from experiments import tasks

    if not 0 <= options.bias < math.inf:
        raise InputError(f"--bias={options.bias}: it must be finite, and 0 or more.")
    real = tasks.some_cases(task, options.split, options.cases)
    real_lines = [real_line(task, real, n) for n in range(options.cases)]
    texts = checked(options.text) or [text_in(real, n) for n in range(options.cases)]
    written = write(task, variables, options, texts)
    return {"samples.png": png(draw(written + real_lines, task.scale))}


def checked(texts: list[str] | None) -> list[str]:
    """Return the texts that were asked for.

    Raises:
        InputError: the network does not know a character, or a text is empty.
    """
    for text in texts or ():
        unknown = ", ".join(map(repr, sorted(set(text) - set(lines.ALPHABET))))
        if unknown or not text.strip():
            wrong = f"has unknown characters ({unknown})" if unknown else "is empty"
            raise InputError(
                f"--text={text!r} {wrong}; give letters from a to z, small or capital, spaces, "
                f"and {lines.ALPHABET[-3:]!r}."
            )
    return texts or []


def text_in(split, n: int) -> str:
    """Return the text of line n of a split."""
    return lines.decode(split["text"][n, : split["text_length"][n]])


def write(task, variables, options: Options, texts: list[str]) -> list[Line]:
    """Write every text options.count times, one after another."""
    import jax

    steps = options.steps or POINTS * max(map(len, texts))
    texts = [text for text in texts for _ in range(options.count)]
    classes, key = [lines.encode(text) for text in texts], jax.random.key(options.seed)
    points, phi = jax.device_get(task.write(variables, classes, key, steps, options.bias))
    starts = np.pad(points, ((1, 0), (0, 0), (0, 0)))  # where a line begins
    return [until_end(text, starts[:, b], phi[:, b]) for b, text in enumerate(texts)]


def until_end(text: str, points: np.ndarray, phi: np.ndarray) -> Line:
    """Return a line without what comes after the window is at the end of the text.

    Args:
        text: what the window moves along.
        points: normalized, ``[n + 1, 3]``; the first two always stay.
        phi: what the window showed when a point was predicted, ``[n, U + 1]`` or more; see
            model.py.
    """
    at_end = phi[1:, : len(text) + 1].argmax(1) == len(text)
    size = 1 + int(np.append(at_end, True).argmax())
    unfinished = f" (not at the end after {size} points)" if size == len(phi) else ""
    return Line(text + unfinished, INK, points[: size + 1])


def real_line(task, split, n: int) -> Line:
    """Return line n of a split, as a person wrote it."""
    points, longest = split["points"][n, : split["length"][n] + 1], task.config.length
    beginning = f", its first {longest} points" if len(points) > longest else ""
    return Line(f"{text_in(split, n)} (a line of {task.config.dataset}{beginning})", REAL, points)


# --- Pictures ---


def path(points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the path of the pen in pixels from its top left corner, NaN where it is lifted.

    Letters of all runs on a data set have the same size.

    Args:
        points: normalized, ``[n, 3]``.
        scale: mean and standard deviation of the pen's moves, ``[2, 2]``.

    Returns:
        ``[m, 2]`` with m > n.
    """
    moves = points[:, :2] * scale[1] + scale[0]
    moves[0] = 0
    positions = moves.cumsum(0, np.float64) * ZOOM / scale[1].mean()
    positions -= positions.min(0)
    return np.insert(positions, np.flatnonzero(points[:, 2]) + 1, np.nan, axis=0)


def draw(drawn: list[Line], scale: np.ndarray):
    """Return a figure of lines one below another, each under its caption, all at one scale."""
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    # The markers show dots, which are strokes of one point.
    pen: Style = dict(linewidth=PEN * POINT, marker="o", markersize=PEN * POINT, clip_on=False)
    font: Style = dict(fontsize=FONT * POINT, color=GREY, parse_math=False)
    right, y = 0.0, float(MARGIN)
    for line in drawn:
        axes.text(MARGIN, y + FONT, line.caption, **font)
        y += 2 * FONT
        pixels = path(line.points, scale)
        axes.plot(*(pixels + [MARGIN, y]).T, color=line.colour, markeredgewidth=0, **pen)
        width, height = np.nanmax(pixels, 0)
        y += height + 2 * MARGIN
        right = max(right, width, 0.65 * FONT * len(line.caption))  # letters of common fonts
    right += 2 * MARGIN
    axes.set(xlim=(0, right), ylim=(y, 0))
    figure.set_size_inches(right / DPI, y / DPI)
    return figure
