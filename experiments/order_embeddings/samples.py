"""Which captions are nearest to an image, and which images to a caption."""

import itertools
from typing import NamedTuple

import numpy as np

from experiments.datasets import captions, vocabulary
from experiments.datasets.captions import CAPTIONS
from experiments.pictures import DPI, POINT, png
from ln.errors import InputError, choose, nearest

# Lengths are in pixels.
SIDE = 108  # of a picture
GAP, MARGIN = 8, 12
FONT, LINE = 12, 18
FRAME = 3  # width
LARGEST = 10_000  # a PNG beyond this is made smaller

INK, GREY, OWN = "#101010", "#808080", "#20902c"


class Neighbour(NamedTuple):
    """A candidate.

    Attributes:
        place: in the list of all candidates by energy, from 1 on.
        which: its number.
        energy: of it and what was asked for.
        own: whether the two belong together.
    """

    place: int
    which: int
    energy: float
    own: bool


class Answer(NamedTuple):
    """An image, by number, or a caption, in words; and who is nearest to it."""

    asked: int | str
    found: list[Neighbour]


class Candidates(NamedTuple):
    """A fold, whose images and captions are ranked among each other.

    Attributes:
        names: of the N images.
        said: their captions, ``[5 N]``.
        different: the same, each once.
        first: where each of these stands first.
        pictures: ``[N, height, width]`` from 0, black, to 255, or None.
    """

    names: list[str]
    said: list[str]
    different: list[str]
    first: np.ndarray
    pictures: np.ndarray | None

    @classmethod
    def of(cls, split, words: list[str], N: int) -> "Candidates":
        """The first N images of a split and what is said of them."""
        starts = split["starts"][: CAPTIONS * N + 1]
        said = [
            vocabulary.decode(split["tokens"][a:b], words) for a, b in itertools.pairwise(starts)
        ]
        different, first = np.unique(said, return_index=True)
        names = (
            vocabulary.split(split["names"])
            if "names" in split
            else map("image {}".format, range(N))
        )
        pictures = split["pictures"][:N] if "pictures" in split else None
        return cls(list(names)[:N], said, different.tolist(), first, pictures)

    def own(self, image: int) -> list[str]:
        """The captions of an image."""
        return self.said[CAPTIONS * image :][:CAPTIONS]


def sample(
    task,
    variables,
    *,
    text: list[str] | None = None,
    seed: int = 0,
    count: int = 5,
    split: str = "test",
    cases: int = 6,
) -> dict[str, bytes | str]:
    """Returns the files by name; samples.png is among them where the data set has pictures.

    Args:
        variables: of one lane.
        text: captions of one's own that images are ranked by; by default some of the split.
        seed: of the choice of images and captions.
        count: neighbours of each; and the first that belongs to it, where it is not among them.
        split: where the candidates are from, its first ``config.fold`` images.
        cases: how many images captions are ranked by, and captions images.

    Raises:
        InputError: no such split, more cases than images, or a text that cannot be read.
    """
    import jax

    arrays = choose("split", split, task.splits)
    N = min(task.config.fold, len(arrays["images"]))
    if cases > N:
        raise InputError(f"--cases={cases}: a fold of the split {split!r} has {N} images.")
    words = vocabulary.split(task.splits["train"]["words"])
    of_text = None if text is None else points_of(task, variables, text, words)
    candidates = Candidates.of(arrays, words, N)
    s, v = task.points(variables, task.fold(split, 0, N))
    energies, random = jax.jit(task.energies), np.random.default_rng(seed)

    images = np.sort(random.choice(N, cases, replace=False)).tolist()
    E = np.asarray(energies(s[candidates.first], v[np.array(images)]))
    of_images = [
        Answer(n, neighbours(E_n, np.isin(candidates.different, candidates.own(n)), count))
        for n, E_n in zip(images, E.T, strict=True)
    ]

    if text is None:
        of = np.sort(random.choice(N, cases, replace=False))
        chosen = CAPTIONS * of + random.integers(CAPTIONS, size=cases)
        text, of_text = [candidates.said[k] for k in chosen], s[chosen]
    else:
        of = np.full(len(text), -1)  # nobody's
    of_captions = [
        Answer(caption, neighbours(E_k, np.arange(N) == n, count))
        for caption, n, E_k in zip(text, of, np.asarray(energies(of_text, v)), strict=True)
    ]

    page = written(candidates, of_images, of_captions)
    if "above" in arrays:
        n = images[0]
        page += written_order(candidates, n, s[CAPTIONS * n :][:CAPTIONS], arrays["above"])
    if candidates.pictures is None:
        return {"neighbours.txt": page}
    return {"samples.png": picture(candidates, of_images, of_captions), "neighbours.txt": page}


def points_of(task, variables, text: list[str], words: list[str]):
    """The points ``[n, H]`` of captions of one's own.

    Raises:
        InputError: a caption without words, or with one that is not in the vocabulary.
    """
    from experiments.order_embeddings.task import pad

    known = set(words)
    for caption in text:
        if not caption.split():
            raise InputError(f"--text={caption!r}: there is no word in it.")
        for word in caption.split():
            if word not in known:
                raise InputError(
                    f"--text={caption!r}: the vocabulary has no {word!r}."
                    f"{nearest(word.lower(), words)}"
                )
    packed = captions.pack(np.zeros((0, 0)), text, words)
    T = task.padded(np.diff(packed["starts"]).max() + 1)
    encode, _ = task.maps
    return encode(variables, *pad(packed, np.arange(len(text)), T))


def neighbours(E: np.ndarray, own: np.ndarray, count: int) -> list[Neighbour]:
    """The first by their energies ``[M]``, and the first own ``[M]`` where it is further behind."""
    order = np.argsort(E, kind="stable")
    places = {*range(min(count, len(E))), *np.flatnonzero(own[order])[:1].tolist()}
    return [
        Neighbour(place + 1, int(order[place]), float(E[order[place]]), bool(own[order[place]]))
        for place in sorted(places)
    ]


# --- As text ---


def written(candidates: Candidates, of_images: list[Answer], of_captions: list[Answer]) -> str:
    """All answers: place, energy, and a star where the two belong together."""
    N = len(candidates.names)

    def named(n: int) -> str:
        return f"{candidates.names[n]} ({candidates.own(n)[-1]})"

    def rows(found: list[Neighbour], name) -> list[str]:
        rows = [f"{n.place:6}  {n.energy:8.5f}  {' *'[n.own]} {name(n.which)}" for n in found]
        return [*rows, ""]

    lines = [
        "Images, and the captions nearest to them: place, energy, and a star if it is their own.",
        f"There are {len(candidates.said):,} captions of {N:,} images; those of the same words "
        f"count once.",
        "In brackets behind an image: the last of its captions.",
        "",
    ]
    for n, found in of_images:
        lines += [named(n), *rows(found, candidates.different.__getitem__)]
    lines += [f"Captions, and the images nearest to them, of {N:,}.", ""]
    for caption, found in of_captions:
        lines += [caption, *rows(found, named)]
    return "\n".join(lines)


def written_order(candidates: Candidates, n: int, s, above) -> str:
    """How far captions ``[5, H]`` of image n are from lying above one another, where one says less
    than the other: above ``[P, 2]``."""
    from experiments import retrieval

    less, more = np.asarray(above).T
    up, down = retrieval.violation(s[less], s[more]), retrieval.violation(s[more], s[less])
    lines = [
        "",
        f"Captions of {candidates.names[n]}, of which the first says less than the second: it "
        f"should lie above it,",
        "so E(first, second) should be less than E(second, first).",
        "",
    ]
    said = candidates.own(n)
    for k, m, E, other in zip(less, more, np.asarray(up), np.asarray(down), strict=True):
        lines.append(f"  {E:8.5f} {'<' if E < other else '>'} {other:.5f}   {said[k]} | {said[m]}")
    return "\n".join([*lines, ""])


# --- As a picture ---


class Text(NamedTuple):
    """From x on, with its baseline at y."""

    x: float
    y: float
    text: str
    colour: str = INK

    @property
    def right(self) -> float:
        return self.x + 0.65 * FONT * len(self.text)  # letters of common fonts


class Tile(NamedTuple):
    """A picture whose left top corner is at x, y; framed where it is what belongs there."""

    x: float
    y: float
    image: int
    framed: bool = False

    @property
    def right(self) -> float:
        return self.x + SIDE


def picture(candidates: Candidates, of_images: list[Answer], of_captions: list[Answer]) -> bytes:
    """Images with captions at the left, captions with images at the right; returns a PNG."""
    head = MARGIN + FONT
    items: list[Text | Tile] = [
        Text(MARGIN, head, "images, and the captions nearest to them (green: its own)", GREY)
    ]
    y = top = head + LINE
    for image, found in of_images:
        items.append(Tile(MARGIN, y, image))
        for n, neighbour in enumerate(found):
            text = f"{neighbour.place}. {candidates.different[neighbour.which]}"
            at = MARGIN + SIDE + GAP, y + FONT + n * LINE
            items.append(Text(*at, text, OWN if neighbour.own else INK))
        y += max(SIDE, len(found) * LINE) + 2 * GAP

    x, lowest = max(item.right for item in items) + 2 * MARGIN, y
    items.append(Text(x, head, "captions, and the images nearest to them (green: its own)", GREY))
    y = top
    for caption, found in of_captions:
        items.append(Text(x, y + FONT, caption))
        for n, neighbour in enumerate(found):
            left, above = x + n * (SIDE + GAP), y + LINE
            items.append(Tile(left, above, neighbour.which, neighbour.own))
            number = left, above + SIDE + LINE, str(neighbour.place)
            items.append(Text(*number, OWN if neighbour.own else GREY))
        y += SIDE + 2 * LINE + 2 * GAP
    width = max(item.right for item in items) + MARGIN
    return drawn(width, max(lowest, y) + MARGIN, items, candidates.pictures)


def drawn(width: float, height: float, items: list[Text | Tile], pictures: np.ndarray) -> bytes:
    """Puts texts and pictures on a page; returns a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    dpi = DPI * min(1, LARGEST / max(width, height))
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=dpi)
    axes = figure.add_axes((0, 0, 1, 1))
    for item in items:
        match item:
            case Text(x, y, text, colour):
                weight = "bold" if colour == OWN else "normal"
                font = dict(fontsize=FONT * POINT, color=colour, weight=weight)
                axes.text(x, y, text, **font, parse_math=False)
            case Tile(x, y, image, framed):
                extent = (x, x + SIDE, y + SIDE, y)
                shades = dict(cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axes.imshow(pictures[image], extent=extent, **shades)
                if framed:
                    line = dict(fill=False, color=OWN, linewidth=FRAME * POINT)
                    axes.add_patch(Rectangle((x, y), SIDE, SIDE, **line))
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")  # imshow has set them
    axes.set_axis_off()
    return png(figure)
