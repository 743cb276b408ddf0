"""Show what a network writes, and how its window moves along the text meanwhile.

    python -m scripts.sample handwriting --workdir=runs/x --text="layer norm" --bias=0.5

    samples.png  each --text, --count times (black), or the texts of `--cases` lines of --split; and
                 those real lines (brown)
    window.png   for the first sample of each text, which character the window on the text showed at
                 which point

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

INK, REAL, GREY = "#101010", "#8a5a20", "#808080"


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of the command."""

    text: list[str] | None = option(None, "a text to write; may be repeated")
    bias: float = option(0.0, "above 0 for neater writing")
    seed: int = option(0, "seed of all that is random", lower_bound=0)
    count: int = option(3, "samples of each text", lower_bound=1)
    steps: int = option(0, "most points of a line; 0: twice the usual", lower_bound=0)
    split: str = option("test", "split of the real lines")
    cases: int = option(2, "real lines that are shown", lower_bound=1)


class Sample(NamedTuple):
    """A line that was written, as far as it is shown.

    Attributes:
        text: what the window moves along.
        points: normalized, ``[n + 1, 3]``; the first is where the line begins.
        phi: what the window showed when a point was predicted, ``[n, U + 1]``, see model.py.
        finished: whether the window came to the end of the text.
    """

    text: str
    points: np.ndarray
    phi: np.ndarray
    finished: bool = True

    @property
    def caption(self) -> str:
        """Return the text, and a note if the line does not end."""
        unfinished = f" (not at the end after {len(self.phi)} points)"
        return self.text + ("" if self.finished else unfinished)


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
        InputError: a text or bias that cannot be, a split that does not exist, or a run without
            text.
    """
    from experiments import tasks

    if not task.config.text:
        raise InputError("This run was trained without text (config.text): it can write none.")
    if not 0 <= options.bias < math.inf:
        raise InputError(f"--bias={options.bias}: it must be finite, and 0 or more.")
    real = tasks.some_cases(task, options.split, options.cases)
    real_lines = [real_line(task, real, n) for n in range(options.cases)]
    texts = checked(options.text) or [text_in(real, n) for n in range(options.cases)]
    samples = write(task, variables, options, texts)
    drawn = [Line(sample.caption, INK, sample.points) for sample in samples]
    figure = draw(drawn + real_lines, task.scale)
    first = windows(samples[:: options.count])
    return {"samples.png": png(figure), "window.png": first}


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


def write(task, variables, options: Options, texts: list[str]) -> list[Sample]:
    """Write every text options.count times, one after another."""
    import jax

    steps = options.steps or steps_for(task, max(map(len, texts)))
    texts = [text for text in texts for _ in range(options.count)]
    classes, key = [lines.encode(text) for text in texts], jax.random.key(options.seed)
    points, phi = jax.device_get(task.write(variables, classes, key, steps, options.bias))
    starts = np.pad(points, ((1, 0), (0, 0), (0, 0)))
    return [
        until_end(text, starts[:, b], phi[:, b, : len(text) + 1]) for b, text in enumerate(texts)
    ]


def steps_for(task, characters: int) -> int:
    """Return twice the points of as many characters in the training set."""
    train = task.splits["train"]
    whole = train["length"] < task.config.length  # not cut; but better those than none
    whole |= ~whole.any()
    ratio = train["length"][whole].sum() / train["text_length"][whole].sum()
    return math.ceil(2 * ratio * characters)


def until_end(text: str, points: np.ndarray, phi: np.ndarray) -> Sample:
    """Return a sample without what comes after the window is at the end of the text.

    The first point always stays.
    """
    size = 1 + int(np.append(phi[1:].argmax(1) == len(text), True).argmax())
    return Sample(text, points[: size + 1], phi[:size], finished=size < len(phi))


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


def windows(samples: list[Sample]) -> bytes:
    """Draw for each sample where its window was over time; return a PNG."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    heights = [1 + 0.16 * len(sample.text) for sample in samples]
    figure = Figure((11, sum(heights)), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    for sample, ax in zip(samples, axes, strict=True):
        characters = [*sample.text.replace(" ", "␣"), "end"]
        # A window shows most of a character in passing; roots are seen also where it stays.
        shades = PowerNorm(0.5, vmin=0)
        ax.imshow(sample.phi.T, cmap="gray_r", norm=shades, aspect="auto", interpolation="none")
        ax.set_yticks(range(len(characters)), characters, fontsize=8)
        ax.set_xlabel("point")
    return png(figure)
