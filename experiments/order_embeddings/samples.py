"""List the captions nearest to images, and the images nearest to captions.

    python -m scripts.sample order_embeddings --workdir=runs/x
    python -m scripts.sample order_embeddings --workdir=runs/x --text="a three above a seven"

    neighbours.txt, .html  of a fold of --split, the --count captions nearest to each of `--cases`
                           images, and the --count images nearest to each --text, or to `--cases`
                           captions, each with the energy of the pair; which belong together

The page shows the images if the data set has them, not only their features.
"""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from experiments.datasets import captions, vocabulary
from experiments.datasets.captions import CAPTIONS
from experiments.pictures import GOOD, Item, Page, Section, Text, html, option, plain
from ln.errors import InputError, choose, nearest


@dataclasses.dataclass(frozen=True)
class Options:
    text: list[str] | None = option(None, "a caption to find images by; may be repeated")
    seed: int = option(0, "seed of the choice of images and captions", lower_bound=0)
    count: int = option(5, "neighbours of each", lower_bound=1)
    split: str = option("test", "split of the images and captions")
    cases: int = option(6, "images, and captions without --text", lower_bound=1)


class Candidates(NamedTuple):
    """Images and captions that are ranked among each other.

    Attributes:
        names: of the N images.
        said: their captions, ``[5 N]``.
        pictures: uint8 ``[N, height, width]``, or N times None.
    """

    names: list[str]
    said: list[str]
    pictures: np.ndarray | list[None]

    @classmethod
    def first(cls, N: int, split, words: list[str]) -> "Candidates":
        """Return the first N images of a split."""
        bounds = itertools.pairwise(split["starts"][: CAPTIONS * N + 1])
        said = [vocabulary.decode(split["tokens"][a:b], words) for a, b in bounds]
        names = [f"image {n}" for n in range(N)]
        if "names" in split:
            names = vocabulary.split(split["names"])[:N]
        return cls(names, said, split["pictures"][:N] if "pictures" in split else [None] * N)

    def own(self, image: int) -> list[str]:
        """Return the captions of an image."""
        return self.said[CAPTIONS * image :][:CAPTIONS]

    def title(self, image: int) -> str:
        """Return the name of an image, with the last of its captions."""
        return f"{self.names[image]} ({self.own(image)[-1]})"


def sample(task, variables, options: Options) -> dict[str, str]:
    """Return the files by name.

    Args:
        variables: of one lane.

    Raises:
        InputError: no such split, fewer images than asked for, or a text that cannot be read.
    """
    arrays = choose("split", options.split, task.splits)
    N, wanted = min(task.config.fold, len(arrays["images"])), options.cases
    if wanted > N:
        raise InputError(f"--cases={wanted}: a fold of the split {options.split!r} has {N} images.")
    words = vocabulary.split(task.splits["train"]["words"])
    queries = points_of(task, variables, options.text, words) if options.text else None
    fold = Candidates.first(N, arrays, words)
    s, v = task.points(variables, task.fold(options.split, 0, N))
    random = np.random.default_rng(options.seed)
    images = np.sort(random.choice(N, wanted, replace=False))
    if options.text:
        texts, owners = options.text, np.full(len(options.text), -1)  # of no image
    else:
        owners = np.sort(random.choice(N, wanted, replace=False))
        chosen = CAPTIONS * owners + random.integers(CAPTIONS, size=wanted)
        texts, queries = [fold.said[k] for k in chosen], s[chosen]

    different, first = np.unique(fold.said, return_index=True)
    to_images = np.asarray(task.energies(s[first], v[images])).T
    to_texts = np.asarray(task.energies(queries, v))
    sections = [
        caption_section(fold, n, E, different.tolist(), options.count)
        for n, E in zip(images, to_images, strict=True)
    ] + [
        image_section(fold, text, E, np.arange(N) == owner, options.count)
        for text, E, owner in zip(texts, to_texts, owners, strict=True)
    ]
    about = (
        f"Images and the captions nearest to them, then captions and the images nearest to them, "
        f"with place and energy. There are {len(fold.said):,} captions of {N:,} images; those of "
        f"the same words count once. Blue, or a star: the two belong together. In brackets behind "
        f"an image: the last of its captions."
    )
    page = Page("Neighbours of images and captions", about, sections)
    return {"neighbours.txt": plain(page), "neighbours.html": html(page)}


def points_of(task, variables, texts: list[str], words: list[str]):
    """Return the points ``[n, H]`` of captions.

    Raises:
        InputError: a caption without words, or with one that is not in the vocabulary.
    """
    from experiments.order_embeddings.task import pad

    known = set(words)
    for text in texts:
        if not text.split():
            raise InputError(f"--text={text!r}: there is no word in it.")
        for word in text.split():
            if word not in known:
                near = nearest(word.lower(), words)
                raise InputError(f"--text={text!r}: the vocabulary has no {word!r}.{near}")
    packed = captions.pack(np.zeros((0, 0)), texts, words)
    T = task.padded(np.diff(packed["starts"]).max() + 1)
    return task.captions(variables, *pad(packed, np.arange(len(texts)), T))


def places(E: np.ndarray, own: np.ndarray, count: int) -> list[tuple[str, int, str]]:
    """Return (place and energy, number, mark) of the candidates of the least energies ``[M]``.

    The first own ``[M]`` candidate is among them even if it is farther away.
    """
    order = np.argsort(E, kind="stable")
    shown = {*range(min(count, len(E))), *np.flatnonzero(own[order])[:1].tolist()}
    return [
        (f"{place + 1:4}  {E[n]:8.5f}", int(n), GOOD if own[n] else "")
        for place, n in ((place, order[place]) for place in sorted(shown))
    ]


def caption_section(fold: Candidates, n: int, E, different: list[str], count: int) -> Section:
    """Return an image, and the captions nearest to it."""
    near = places(E, np.isin(different, fold.own(n)), count)
    items = [Item(number, Text(different[k], mark)) for number, k, mark in near]
    return Section(Text(fold.title(n)), (), [("Nearest captions", items)], fold.pictures[n])


def image_section(fold: Candidates, caption: str, E, own, count: int) -> Section:
    """Return a caption, and the images nearest to it."""
    items = [
        Item(number, Text(fold.title(k), mark), fold.pictures[k])
        for number, k, mark in places(E, own, count)
    ]
    return Section(Text(caption), (), [("Nearest images", items)])
