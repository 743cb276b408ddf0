"""What a network writes, and how its window moves along the text meanwhile."""

import math
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np

from experiments import tasks
from experiments.datasets import lines
from experiments.pictures import DPI, POINT, png
from ln.errors import InputError, choose

# Lengths are in pixels, of an SVG at its own size as of a PNG.
ZOOM = 8  # standard deviation of the pen's moves; a small letter is two or three times as high
PEN = 1.6  # width of a stroke
FONT = 11
MARGIN = 12
LARGEST = 10_000  # a PNG of pages beyond this is made smaller

INK, GIVEN, REAL, GREY = "#101010", "#1060d0", "#8a5a20", "#808080"
# Of the characters, in turn.
COLOURS = ("#d01c1c", "#1060d0", "#20902c", "#c06a00", "#8a2be2", "#008b9a")


class Sample(NamedTuple):
    """A line that was written, as far as it is shown.

    Attributes:
        text: all that the window moves along; with a prime, its text is the beginning.
        points: normalized, ``[n + 1, 3]``; the first is where the line begins.
        phi: what the window showed when a point was predicted, ``[n, U + 1]``, see
            experiments/handwriting.py; None without text.
        given: how many of the n points are of the prime.
        finished: whether the window came to the end of the text.
    """

    text: str
    points: np.ndarray
    phi: np.ndarray | None
    given: int
    finished: bool


class Line(NamedTuple):
    """Strokes ``[k, 2]``, each with a colour, in pixels from anywhere, and what is said of them."""

    caption: str
    strokes: list[tuple[str, np.ndarray]]


class Page(NamedTuple):
    """Captions, each with its place, and strokes as in `Line`, in pixels from the left and top."""

    width: float
    height: float
    captions: list[tuple[float, float, str]]
    strokes: list[tuple[str, np.ndarray]]


def sample(
    task,
    variables,
    *,
    text: list[str] | None = None,
    bias: float = 0.0,
    seed: int = 0,
    count: int = 3,
    prime: str | None = None,
    steps: int | None = None,
    split: str = "test",
    cases: int = 2,
) -> dict[str, bytes | str]:
    """Returns the files by name; window.png is among them where there is a window.

    Args:
        variables: of one lane.
        text: what is written; by default the texts of the real lines that are shown.
        bias: above 0 for neater writing.
        seed: of all that is random.
        count: samples of each text; without text, samples.
        prime: "SPLIT:N", a real line to go on from.
        steps: how many points to write at most; by default twice as many as the longest text would
            take in the training lines, and without text as many as training lines have at most.
        split: where real lines are from.
        cases: how many of them are shown.

    Raises:
        InputError: a text or number that cannot be; a split or a line that does not exist.
    """
    if not 0 <= bias < math.inf:
        raise InputError(f"--bias={bias}: it must be 0, for writing as it was learned, or more.")
    real = tasks.some_cases(task, split, cases)
    samples = write(task, variables, texts_of(task, text, real), bias, seed, count, prime, steps)
    drawn = page(
        [line_of(sample, task.scale) for sample in samples]
        + [real_line(task, real, n) for n in range(cases)]
    )
    files = {"samples.png": picture(drawn), "samples.svg": svg(drawn)}
    if task.config.text:
        files["window.png"] = windows(samples[::count], task.scale)
    return files


# --- What is written ---


def texts_of(task, given: list[str] | None, real) -> list[str]:
    """The texts to be written; one empty text where there is no window to read it with.

    Raises:
        InputError: a text for a network that reads none, or one that it cannot read.
    """
    if not task.config.text:
        if given:
            raise InputError("--text: this run writes without text (config.text); leave it out.")
        return [""]
    for text in given or ():
        unknown = sorted(set(text) - set(lines.ALPHABET))
        if unknown:
            raise InputError(
                f"--text={text!r}: a network does not know {', '.join(map(repr, unknown))}, only "
                f"letters from a to z, small and capital, spaces, and {lines.ALPHABET[-3:]!r}."
            )
        if not text.strip():
            raise InputError(f"--text={text!r}: there is nothing to write.")
    return given or [text_in(real, n) for n in range(len(real["text"]))]


def text_in(split, n: int) -> str:
    """The text of a line of a split."""
    return lines.decode(split["text"][n, : split["text_length"][n]])


def points_in(split, n: int) -> np.ndarray:
    """The points of a line of a split, the first 0."""
    return split["points"][n, : split["length"][n] + 1]


def find(task, prime: str) -> tuple[dict[str, np.ndarray], int]:
    """The split and the number of a line by its name, "SPLIT:N".

    Raises:
        InputError: there is no such line.
    """
    name, colon, number = prime.rpartition(":")
    if not colon:
        raise InputError(f"--prime={prime}: name a line as SPLIT:N, the first of test as test:0.")
    split = choose("split in --prime", name, task.splits)
    last = len(split["length"]) - 1
    if not number.isdecimal() or int(number) > last:
        raise InputError(f"--prime={prime}: the split {name!r} has the lines 0 to {last}.")
    return split, int(number)


def write(
    task,
    variables,
    texts: list[str],
    bias: float,
    seed: int,
    count: int,
    prime: str | None,
    steps: int | None,
) -> list[Sample]:
    """Has every text written count times, one after another; see `handwriting`."""
    import jax

    longest = max(map(len, texts))
    beginning = None
    if prime is not None:
        split, n = find(task, prime)
        beginning = points_in(split, n)
        texts = [f"{text_in(split, n)} {text}" for text in texts]
    if steps is None:
        train = task.splits["train"]
        whole = train["length"] < task.config.length  # not cut; but better those than none
        whole |= ~whole.any()
        per_character = train["length"][whole].sum() / train["text_length"][whole].sum()
        steps = math.ceil(2 * per_character * longest) if longest else task.config.length
    given = 0 if beginning is None else len(beginning) - 1
    texts = [text for text in texts for _ in range(count)]
    classes = [lines.encode(text) for text in texts]
    key = jax.random.key(seed)
    written = jax.device_get(
        task.write(variables, classes, key, given + steps, bias=bias, prime=beginning)
    )
    samples = []
    for b, text in enumerate(texts):
        phi = None if written.phi is None else written.phi[:, b, : len(text) + 1]
        size = given + steps if phi is None else until_end(phi, given)
        points = np.pad(written.points[:size, b], ((1, 0), (0, 0)))
        finished = phi is None or size < len(phi)
        shown = None if phi is None else phi[:size]
        samples.append(Sample(text, points, shown, given, finished))
    return samples


def until_end(phi: np.ndarray, given: int) -> int:
    """How many points there are before the window ``[T, U + 1]`` is at the end of the text.

    T if it never is. The given points are there in any case, and the first.
    """
    first = max(given, 1)
    at_end = phi[first:].argmax(1) == phi.shape[1] - 1
    return first + int(np.append(at_end, True).argmax())


# --- Strokes ---


def positions_of(points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Where the pen is at each of some normalized points ``[n, 3]``, in pixels ``[n, 2]``.

    The first point is 0, 0. Letters of all runs on a data set are of the same size.
    """
    moves = points[:, :2] * scale[1] + scale[0]
    moves[0] = 0
    return moves.cumsum(0, np.float64) * ZOOM / scale[1].mean()


def cut(positions: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """Strokes ``[k, 2]``, of which none is empty, of positions ``[n, 2]`` and ends ``[n]``."""
    return np.split(positions, np.flatnonzero(ends[:-1]) + 1)


def line_of(sample: Sample, scale: np.ndarray) -> Line:
    """A sample, its prime in a colour of its own."""
    positions, ends, given = positions_of(sample.points, scale), sample.points[:, 2], sample.given
    strokes = [(INK, stroke) for stroke in cut(positions[given:], ends[given:])]
    if given:
        # A stroke of the prime that does not end with it is gone on with.
        strokes = strokes[int(ends[given]) :]
        strokes += [(GIVEN, stroke) for stroke in cut(positions[: given + 1], ends[: given + 1])]
    caption = sample.text
    if not sample.finished:
        caption += f" (not at the end after {len(positions) - 1 - given} points)"
    return Line(caption, strokes)


def real_line(task, split, n: int) -> Line:
    """Line n of a split, as somebody wrote it."""
    points, longest = points_in(split, n), task.config.length
    beginning = f", its first {longest} points" if len(points) > longest else ""
    strokes = cut(positions_of(points, task.scale), points[:, 2])
    caption = f"{text_in(split, n)} (a line of {task.config.dataset}{beginning})"
    return Line(caption, [(REAL, stroke) for stroke in strokes])


# --- Pages of lines ---


def page(drawn: list[Line]) -> Page:
    """Lays lines out one below another, each under its caption."""
    right, y, captions, strokes = 0.0, float(MARGIN), [], []
    for line in drawn:
        everything = np.concatenate([stroke for _, stroke in line.strokes])
        left_top, size = everything.min(0), np.ptp(everything, 0)
        y += FONT
        captions.append((MARGIN, y, line.caption))
        y += FONT
        move = np.array([MARGIN, y]) - left_top
        strokes += [(colour, stroke + move) for colour, stroke in line.strokes]
        y += size[1] + 2 * MARGIN
        right = max(right, size[0], 0.65 * FONT * len(line.caption))  # letters of common fonts
    return Page(right + 2 * MARGIN, y, captions, strokes)


def svg(page: Page) -> str:
    """A page as SVG: a polyline for each stroke."""
    texts = [
        f'<text x="{x:g}" y="{y:.1f}">{escape(caption)}</text>' for x, y, caption in page.captions
    ]
    polylines = []
    for colour, stroke in page.strokes:
        # A line of one point would not be drawn; one from a point to itself is, as a dot.
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in stroke.repeat(1 + (len(stroke) == 1), 0))
        polylines.append(f'<polyline stroke="{colour}" points="{points}"/>')
    width, height = math.ceil(page.width), math.ceil(page.height)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}">',
            f'<g fill="{GREY}" font-family="sans-serif" font-size="{FONT}">',
            *texts,
            "</g>",
            f'<g fill="none" stroke-width="{PEN}" stroke-linecap="round" stroke-linejoin="round">',
            *polylines,
            "</g>",
            "</svg>\n",
        ]
    )


def picture(page: Page) -> bytes:
    """A page as PNG."""
    from matplotlib.figure import Figure

    zoom = min(1, LARGEST / max(page.width, page.height))
    figure = Figure(figsize=(page.width * zoom / DPI, page.height * zoom / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, page.width), ylim=(page.height, 0))
    axes.set_axis_off()
    for x, y, caption in page.captions:
        axes.text(x, y, caption, fontsize=FONT * POINT * zoom, color=GREY)
    pen = PEN * POINT * zoom
    for colour, stroke in page.strokes:
        dot = dict(marker="o", markersize=pen, markeredgewidth=0) if len(stroke) == 1 else {}
        axes.plot(*stroke.T, color=colour, linewidth=pen, solid_capstyle="round", **dot)
    return png(figure)


# --- The window ---


def windows(samples: list[Sample], scale: np.ndarray) -> bytes:
    """For each sample where its window was over time, and under that the line; returns a PNG.

    Every piece of the line has the colour of the character that the window showed most of.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    heights = [(1 + 0.16 * len(sample.text), 1.2) for sample in samples]
    height = sum(map(sum, heights))
    figure = Figure((11, height), dpi=min(DPI, LARGEST / height), layout="constrained")
    axes = figure.subplots(2 * len(samples), height_ratios=np.ravel(heights), squeeze=False)[:, 0]
    for sample, above, below in zip(samples, axes[::2], axes[1::2], strict=True):
        characters = [*sample.text.replace(" ", "␣"), "end"]
        # A window shows most of a character in passing; roots are seen also where it stays.
        shades = PowerNorm(0.5, vmin=0)
        above.imshow(sample.phi.T, cmap="gray_r", norm=shades, aspect="auto", interpolation="none")
        above.set_yticks(range(len(characters)), characters, fontsize=8)
        for n, label in enumerate(above.get_yticklabels()):
            label.set_color(COLOURS[n % len(COLOURS)])
        above.set_xlabel("point")

        positions, lifted = positions_of(sample.points, scale), sample.points[:-1, 2] > 0
        colours = np.array(COLOURS)[sample.phi.argmax(1) % len(COLOURS)]
        pieces = np.stack([positions[:-1], positions[1:]], 1)[~lifted]
        below.add_collection(LineCollection(pieces, colors=colours[~lifted], linewidths=PEN))
        below.scatter(*positions[1:].T, s=PEN**2, c=colours, linewidths=0)  # strokes of one point
        below.set_aspect("equal")
        below.invert_yaxis()
        below.set_axis_off()
    return png(figure)
