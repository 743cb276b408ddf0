"""List the captions nearest to images, and the images nearest to captions.

    python -m scripts.sample order_embeddings --workdir=runs/x

    neighbours.txt, .html  of a fold of --split, the --count captions nearest to each of `--cases`
                           images, and the --count images nearest to a caption of each of these,
                           each with the energy of the pair; which belong together

The page shows the images if the data set has them, not only their features.
"""

import dataclasses
import itertools

import numpy as np

from experiments.datasets import vocabulary
from experiments.datasets.captions import CAPTIONS
from experiments.pictures import GOOD, Item, Section, Text, html, option, plain
from ln.errors import choose


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of the command."""

    count: int = option(5, "neighbours of each", lower_bound=1)
    split: str = option("test", "split of the images and captions")
    cases: int = option(6, "images, and captions of them", lower_bound=1)


def sample(task, variables, options: Options) -> dict[str, str]:
    """Return the files by name.

    Args:
        task: of the run.
        variables: of one lane.
        options: the flags.

    Raises:
        InputError: no such split, or fewer images than asked for.
    """
    from experiments.retrieval import violations
    from experiments.tasks import spread

    split = choose("split", options.split, task.splits)
    N = min(task.config.fold, len(split["images"]))
    chosen = spread(N, options.cases, f"a fold of the split {options.split!r} has {N} images")
    said, titles = captions_of(split, N, vocabulary.split(task.splits["train"]["words"]))
    pictures = split.get("pictures", [None] * N)
    s, v = task.points(variables, task.fold(options.split, 0, N))
    E = np.asarray(violations(s, v))
    different, first = np.unique(said, return_index=True)
    sections = []
    for n in chosen:
        own = np.isin(different, said[CAPTIONS * n :][:CAPTIONS])
        near = places(E[first, n], own, options.count)
        items = [Item(number, Text(str(different[k]), mark)) for number, k, mark in near]
        sections.append(Section(Text(titles[n]), (), [("Nearest captions", items)], pictures[n]))
    for n in chosen:
        caption = CAPTIONS * n + n % CAPTIONS  # one of the image's five
        near = places(E[caption], np.arange(N) == n, options.count)
        items = [Item(number, Text(titles[k], mark), pictures[k]) for number, k, mark in near]
        sections.append(Section(Text(said[caption]), (), [("Nearest images", items)]))
    about = (
        f"Images and the captions nearest to them, then captions and the images nearest to them, "
        f"with place and energy. There are {len(said):,} captions of {N:,} images; those of "
        f"the same words count once. Blue, or a star: the two belong together. In brackets behind "
        f"an image: the last of its captions."
    )
    page = "Neighbours of images and captions", about, sections
    return {"neighbours.txt": plain(*page), "neighbours.html": html(*page)}


def captions_of(split, N: int, words: list[str]) -> tuple[list[str], list[str]]:
    """Return the captions ``[5 N]`` of the first N images of a split, and a title of each image.

    A title is the name of the image with the last of its captions.
    """
    bounds = itertools.pairwise(split["starts"][: CAPTIONS * N + 1])
    said = [vocabulary.decode(split["tokens"][a:b], words) for a, b in bounds]
    names = [f"image {n}" for n in range(N)]
    if "names" in split:
        names = vocabulary.split(split["names"])[:N]
    last = said[CAPTIONS - 1 :: CAPTIONS]
    return said, [f"{name} ({text})" for name, text in zip(names, last, strict=True)]


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
