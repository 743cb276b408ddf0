"""Show what a network writes, and how its window moves along the text meanwhile.

    python -m scripts.sample handwriting --workdir=runs/x --text="layer norm" --bias=0.5
    python -m scripts.sample handwriting --workdir=runs/x --text="layer norm" --prime=test:3

    samples.png, .svg  each --text, --count times (black), or the texts of `--cases` lines of
                       --split; and those real lines (brown). With --prime the network continues a
                       real line (blue)
    window.png         for the first sample of each text, which character the window on the text
                       showed at which point

A line stops when the window is past the end of the text. A run with config.text=False has no window
and takes no --text: its lines say nothing, and stop after --steps points.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from experiments.curves import Style
from experiments.datasets import lines
from experiments.pictures import DPI, POINT, option, png, svg
from ln.errors import InputError, choose

# Lengths are in pixels.
ZOOM = 8  # standard deviation of the pen's moves; a small letter is two or three times as high
PEN = 1.6  # width of a stroke
FONT = 11
MARGIN = 12

INK, GIVEN, REAL, GREY = "#101010", "#1060d0", "#8a5a20", "#808080"


@dataclasses.dataclass(frozen=True)
class Options:
    text: list[str] | None = option(None, "a text to write; may be repeated")
    bias: float = option(0.0, "above 0 for neater writing")
    seed: int = option(0, "seed of all that is random", lower_bound=0)
    count: int = option(3, "samples of each text", lower_bound=1)
    prime: str | None = option(None, "SPLIT:N, a real line to continue")
    steps: int = option(0, "most points behind the prime; 0: twice the usual", lower_bound=0)
    split: str = option("test", "split of the real lines")
    cases: int = option(2, "real lines that are shown", lower_bound=1)


class Sample(NamedTuple):
    """A line that was written, as far as it is shown.

    Attributes:
        text: all that the window moves along; with a prime, its text is the beginning.
        points: normalized, ``[n + 1, 3]``; the first is where the line begins.
        phi: what the window showed when a point was predicted, ``[n, U + 1]``, see model.py; None
            without text.
        given: how many of the n points are of the prime.
        finished: whether the window came to the end of the text.
    """

    text: str
    points: np.ndarray
    phi: np.ndarray | None
    given: int
    finished: bool = True


class Line(NamedTuple):
    """A caption and strokes ``[k, 2]``, each with a colour, in pixels from anywhere."""

    caption: str
    strokes: list[tuple[str, np.ndarray]]


def sample(task, variables, options: Options) -> dict[str, bytes | str]:
    """Return the files by name; window.png is among them if there is a window.

    Args:
        variables: of one lane.

    Raises:
        InputError: a text or bias that cannot be; a split or a line that does not exist.
    """
    from experiments import tasks

    if not 0 <= options.bias < math.inf:
        raise InputError(f"--bias={options.bias}: it must be finite, and 0 or more.")
    real = tasks.some_cases(task, options.split, options.cases)
    samples = write(task, variables, options, texts_of(task, options.text, real))
    drawn = [sample_line(sample, task.scale) for sample in samples]
    figure = draw(drawn + [real_line(task, real, n) for n in range(options.cases)])
    files: dict[str, bytes | str] = {"samples.png": png(figure), "samples.svg": svg(figure)}
    if task.config.text:
        files["window.png"] = windows(samples[:: options.count])
    return files


def texts_of(task, given: list[str] | None, real) -> list[str]:
    """Return the texts to be written; one empty text if there is no window to read it with.

    Raises:
        InputError: a text for a network that reads none, or one that it cannot read.
    """
    if given and not task.config.text:
        raise InputError("--text: this run writes without text (config.text); leave it out.")
    for text in given or ():
        unknown = ", ".join(map(repr, sorted(set(text) - set(lines.ALPHABET))))
        if unknown or not text.strip():
            wrong = f"has unknown characters ({unknown})" if unknown else "is empty"
            raise InputError(
                f"--text={text!r} {wrong}; give letters from a to z, small or capital, spaces, "
                f"and {lines.ALPHABET[-3:]!r}."
            )
    if not task.config.text:
        return [""]
    return given or [text_in(real, n) for n in range(len(real["text"]))]


def text_in(split, n: int) -> str:
    return lines.decode(split["text"][n, : split["text_length"][n]])


def points_in(split, n: int) -> np.ndarray:
    """Return the points of a line of a split, the first 0."""
    return split["points"][n, : split["length"][n] + 1]


def find(task, prime: str) -> tuple[dict[str, np.ndarray], int]:
    """Return the split and the number of a line by its name, "SPLIT:N".

    Raises:
        InputError: there is no such line.
    """
    name, _, number = prime.rpartition(":")
    split = choose("split in --prime=SPLIT:N", name, task.splits)
    last = len(split["length"]) - 1
    if not number.isdecimal() or int(number) > last:
        raise InputError(f"--prime={prime}: the split {name!r} has the lines 0 to {last}.")
    return split, int(number)


def write(task, variables, options: Options, texts: list[str]) -> list[Sample]:
    """Write every text options.count times, one after another."""
    import jax

    steps = options.steps or steps_for(task, max(map(len, texts)))
    beginning, given = None, 0
    if options.prime is not None:
        split, n = find(task, options.prime)
        beginning, given = points_in(split, n), int(split["length"][n])
        texts = [f"{text_in(split, n)} {text}" for text in texts]
    texts = [text for text in texts for _ in range(options.count)]
    classes, key = [lines.encode(text) for text in texts], jax.random.key(options.seed)
    inputs = variables, classes, key, given + steps
    written = jax.device_get(task.write(*inputs, bias=options.bias, prime=beginning))
    samples = []
    for b, text in enumerate(texts):
        points = np.pad(written.points[:, b], ((1, 0), (0, 0)))
        phi = None if written.phi is None else written.phi[:, b, : len(text) + 1]
        samples.append(until_end(Sample(text, points, phi, given)))
    return samples


def steps_for(task, characters: int) -> int:
    """Return twice the points of as many characters in the training set; all without text."""
    train = task.splits["train"]
    whole = train["length"] < task.config.length  # not cut; but better those than none
    whole |= ~whole.any()
    ratio = train["length"][whole].sum() / train["text_length"][whole].sum()
    return math.ceil(2 * ratio * characters) if characters else task.config.length


def until_end(sample: Sample) -> Sample:
    """Return a sample without what comes after the window is at the end of the text.

    The given points always stay, and the first.
    """
    if sample.phi is None:
        return sample
    first, end = max(sample.given, 1), len(sample.text)
    size = first + int(np.append(sample.phi[first:].argmax(1) == end, True).argmax())
    points, phi = sample.points[: size + 1], sample.phi[:size]
    return sample._replace(points=points, phi=phi, finished=size < len(sample.phi))


# --- Lines, and a page of them ---


def positions_of(points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return where the pen is at normalized points ``[n, 3]``, in pixels ``[n, 2]`` from the first.

    Letters of all runs on a data set have the same size.
    """
    moves = points[:, :2] * scale[1] + scale[0]
    moves[0] = 0
    return moves.cumsum(0, np.float64) * ZOOM / scale[1].mean()


def cut(positions: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """Return strokes ``[k, 2]``, none of them empty, of positions ``[n, 2]`` and ends ``[n]``."""
    return np.split(positions, np.flatnonzero(ends[:-1]) + 1)


def sample_line(sample: Sample, scale: np.ndarray) -> Line:
    """Return a sample as a line; its prime has another colour."""
    positions, ends, given = positions_of(sample.points, scale), sample.points[:, 2], sample.given
    strokes = [(INK, stroke) for stroke in cut(positions[given:], ends[given:])]
    if given:
        # The sample continues a stroke of the prime that does not end with it.
        strokes = strokes[int(ends[given]) :]
        strokes += [(GIVEN, stroke) for stroke in cut(positions[: given + 1], ends[: given + 1])]
    unfinished = f" (not at the end after {len(positions) - 1 - given} points)"
    return Line(sample.text + ("" if sample.finished else unfinished), strokes)


def real_line(task, split, n: int) -> Line:
    """Return line n of a split, as a person wrote it."""
    points, longest = points_in(split, n), task.config.length
    beginning = f", its first {longest} points" if len(points) > longest else ""
    strokes = cut(positions_of(points, task.scale), points[:, 2])
    caption = f"{text_in(split, n)} (a line of {task.config.dataset}{beginning})"
    return Line(caption, [(REAL, stroke) for stroke in strokes])


def draw(drawn: list[Line]):
    """Return a figure of lines one below another, each under its caption, all at one scale."""
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    pen: Style = dict(linewidth=PEN * POINT, solid_capstyle="round", clip_on=False)
    pen |= dict(markersize=PEN * POINT, markeredgewidth=0)
    font: Style = dict(fontsize=FONT * POINT, color=GREY, parse_math=False)
    right, y = 0.0, float(MARGIN)
    for line in drawn:
        points = np.concatenate([stroke for _, stroke in line.strokes])
        corner, (width, height) = points.min(0), np.ptp(points, 0)
        axes.text(MARGIN, y + FONT, line.caption, **font)
        y += 2 * FONT
        for colour, stroke in line.strokes:
            placed, is_dot = stroke - corner + [MARGIN, y], len(stroke) == 1
            axes.plot(*placed.T, color=colour, marker="o" if is_dot else "", **pen)
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
        assert sample.phi is not None  # the caller has a window
        characters = [*sample.text.replace(" ", "␣"), "end"]
        # A window shows most of a character in passing; roots are seen also where it stays.
        shades = PowerNorm(0.5, vmin=0)
        ax.imshow(sample.phi.T, cmap="gray_r", norm=shades, aspect="auto", interpolation="none")
        ax.set_yticks(range(len(characters)), characters, fontsize=8)
        ax.set_xlabel("point")
    return png(figure)
