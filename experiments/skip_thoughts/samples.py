"""Encode sentences as vectors, and list which sentences are nearest to which.

python -m scripts.sample skip_thoughts --workdir=runs/x --sentences=FILE

vectors.npy            their vectors, float32, a row each of length 1
sentences.txt          the sentences in this order, without blank lines
neighbours.txt, .html  the --count nearest to each of the first `--cases` of them: among all of
                       them, and among 2,000 of --split; and which words the model knows
"""

from collections import Counter
from collections.abc import Callable
import dataclasses
from functools import partial
from pathlib import Path
import shutil

import numpy as np

from experiments.datasets import arrays, vocabulary
from experiments.datasets import text as english
from experiments.datasets.originals import Budget, opened
from experiments.pictures import Item, Page, Section, Text, html, option, plain
from ln.errors import InputError, choose

BLOCK = 2048  # sentences whose vectors are in memory at once
OTHERS = 2000  # sentences of the run's text that are candidates too
SHOWN = 20  # sentences of the split that are encoded without --sentences
SENTENCES = 2**35  # bytes of a file of sentences at most, unpacked
LOST = "□"  # in place of an unknown word; "?" may be a known one


@dataclasses.dataclass(frozen=True)
class Options:
    out: str = ""  # the command's: the vectors are too large for the memory
    sentences: str | None = option(None, "a file of sentences, one a line")
    end: bool = option(False, "end sentences with END, as for SICK")
    word_vectors: str | None = option(None, "a file of vectors to learn further words from")
    count: int = option(5, "neighbours of each sentence", lower_bound=1)
    cases: int = option(20, "sentences whose neighbours are listed", lower_bound=1)
    split: str = option("valid", "split of the further candidates")


def sample(task, variables, options: Options) -> dict[str, str | Path]:
    """Return the files by name; the vectors are in a file already, to be renamed.

    Args:
        variables: of one lane.

    Raises:
        InputError: no such file or split, the file has no sentences, or the disk is too full.
    """
    split = choose("split", options.split, task.splits)
    others, given = sentences_in(task, split, OTHERS), sentences_in(task, split, SHOWN)
    if options.sentences is not None:
        with opened(Path(options.sentences), Budget("--sentences", SENTENCES)) as file:
            given = [" ".join(line.split()) for line in english.filled(file, options.sentences)]
    if options.word_vectors:
        task.config.word_vectors = options.word_vectors
    encode, known = partial(task.encoder(variables), end=options.end), set(task.words)
    unknown = unknown_words(given, known)

    def section(k: int, sentence: str) -> Section:
        read_as = " ".join(as_read(sentence, known))
        further = LOST in read_as and read_as != sentence
        same = nearest(given, to_given[:, k], sentence, options.count)
        from_run = nearest(others, to_others[:, k], sentence, options.count)
        return Section(
            title=Text(sentence),
            paragraphs=[[Text(f"Read as: {read_as}")]] if further else [],
            lists=[
                ("Nearest of the same sentences", same),
                ("Nearest of the run’s text", from_run),
            ],
        )

    asked = given[: options.cases]
    queries, path = encode(asked), Path(options.out) / "vectors.npy.tmp"
    to_given = write_vectors(path, encode, given, queries, unknown)
    to_others = encode(others) @ queries.T
    about = (
        f"{len(given):,} sentences; {unknown:.1%} of their words are not among the {len(known):,} "
        f"that the model was trained with; in {len(others):,} sentences of the run’s text, "
        f"{unknown_words(others, known):.1%}. {LOST} stands for such a word. Numbers are cosines."
    )
    sections = [section(k, sentence) for k, sentence in enumerate(asked)]
    page = Page("Neighbours of sentences", about, sections)
    return {
        "vectors.npy": path,
        "sentences.txt": "\n".join(given) + "\n",
        "neighbours.txt": plain(page),
        "neighbours.html": html(page),
    }


def write_vectors(
    path: Path, encode: Callable, sentences: list[str], queries, unknown: float
) -> np.ndarray:
    """Write the vectors of all N sentences, block by block; return cosines ``[N, queries]``.

    Raises:
        InputError: the disk has too little room.
    """
    from ln.training.console import Progress

    N, (Q, H) = len(sentences), queries.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(path.parent).free) < 4 * N * H:
        raise InputError(f"{path.parent} has {free:,} bytes left; the vectors need {4 * N * H:,}.")
    progress, cosines = Progress("encode", 0, N, "sentence", "unknown"), np.empty((N, Q))
    try:
        rows = arrays.mapped(path, "w+", np.float32, (N, H))
        for n in range(0, N, BLOCK):
            rows[n : n + BLOCK] = vectors = encode(sentences[n : n + BLOCK])
            cosines[n : n + BLOCK] = vectors @ queries.T
            progress.show(n + len(vectors), np.array([unknown]))
        rows.flush()
    except BaseException:
        path.unlink(missing_ok=True)  # it may be large
        raise
    return cosines


def sentences_in(task, split, most: int) -> list[str]:
    """Return at most so many different sentences of a split, spread evenly."""
    words, N = vocabulary.split(task.splits["train"]["words"]), len(split["starts"]) - 1
    names = ["", LOST, *words]  # no sentence of a split has an END
    numbers, starts = np.linspace(0, N - 1, min(most, N)).round().astype(int), split["starts"]
    texts = (split["tokens"][starts[n] : starts[n + 1]] for n in numbers)
    sentences = dict.fromkeys(" ".join(names[k] for k in text) for text in texts)
    return [sentence for sentence in sentences if sentence]


def as_read(sentence: str, known: set[str]) -> list[str]:
    """Return the words of a sentence as the model reads them."""
    return [word if word in known else LOST for word in english.tokenize(sentence)]


def unknown_words(sentences: list[str], known: set[str]) -> float:
    """Return the share of unknown words."""
    counts = Counter(word for sentence in sentences for word in as_read(sentence, known))
    return counts[LOST] / max(counts.total(), 1)


def nearest(sentences: list[str], cosines, asked: str, count: int) -> list[Item]:
    """Return the sentences of the largest cosines ``[N]``, each once, without the asked one."""
    items: dict[str, Item] = {}
    for n in np.argsort(-cosines, kind="stable"):
        if len(items) == count:
            break
        if sentences[n] != asked:
            items.setdefault(sentences[n], Item(f"{cosines[n]:6.3f}", Text(sentences[n])))
    return [*items.values()]
