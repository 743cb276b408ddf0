"""Vectors of any sentences, and which sentences are nearest to which."""

from collections.abc import Sequence
from html import escape
from itertools import starmap
from pathlib import Path
import shutil
from typing import NamedTuple

import numpy as np

from experiments.datasets import text as english
from experiments.datasets import vocabulary
from ln.errors import InputError, choose

BLOCK = 2048  # sentences whose vectors are in memory at once
OTHERS = 2000  # sentences of the run's own text that are candidates too
SHOWN = 20  # of them, without sentences of one's own
LOST = "\ufffd"  # instead of a word that is not known; "?", which pages show, may be one that is


class Neighbour(NamedTuple):
    """A candidate and the cosine of its vector and that of what was asked for."""

    sentence: str
    cosine: float


class Answer(NamedTuple):
    """A sentence and its neighbours: among those that were given, and in the run's own text; and
    what the model reads, if that says more: where it does not know all words."""

    sentence: str
    words: str
    given: list[Neighbour]
    others: list[Neighbour]


def sample(
    task,
    variables,
    *,
    out: Path,
    sentences: str | None = None,
    end: bool = False,
    word_vectors: str | None = None,
    count: int = 5,
    cases: int = 20,
    split: str = "valid",
) -> dict[str, str | Path]:
    """Returns the files by name; the vectors are in a file already, to be renamed.

    Args:
        variables: of one lane.
        out: the folder of the files.
        sentences: a file of them, one a line; None takes some of the split.
        end: whether an END shall follow each, as SICK's protocol has it.
        word_vectors: a file to learn further words from, see `Task.encoder`.
        count: neighbours of each.
        cases: of how many sentences, the first ones.
        split: where other candidates are from.

    Raises:
        InputError: no such file or split, the file has no sentences, or the disk is too full.
    """
    from ln.training.train import Progress  # jax takes a second

    arrays = choose("split", split, task.splits)
    given = of_split(task, arrays, SHOWN) if sentences is None else read(Path(sentences))
    others = of_split(task, arrays, OTHERS)
    if word_vectors:
        task.config.word_vectors = word_vectors
    encode, known = task.encoder(variables), set(task.words)
    asked = given[:cases]
    queries, of_others = encode(asked, end), encode(others, end)
    found: list[list[Neighbour]] = [[] for _ in asked]

    N, H = len(given), task.config.hidden
    out.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(out).free) < 4 * N * H:
        raise InputError(f"{out} has room for {free:,} bytes; the vectors need {4 * N * H:,}.")
    unfinished = out / "vectors.npy.tmp"
    progress, counts = Progress("encode", 0, N, "sentence", "unknown"), np.zeros(2, int)
    try:
        with unfinished.open("wb") as file:
            head = dict(descr="<f4", fortran_order=False, shape=(N, H))
            np.lib.format.write_array_header_1_0(file, head)
            for n in range(0, N, BLOCK):
                some = given[n : n + BLOCK]
                vectors = encode(some, end)
                file.write(vectors.astype("<f4").tobytes())
                for k, sentence in enumerate(asked):
                    found[k] = nearest(queries[k], some, vectors, count, sentence, found[k])
                counts += counted(some, known)
                progress.show(n + len(some), np.array([share(*counts)]))
    except BaseException:
        unfinished.unlink(missing_ok=True)  # it may be large
        raise
    answers = [
        Answer(
            sentence,
            words if LOST in (words := read_as(sentence, known)) and words != sentence else "",
            found[k],
            nearest(queries[k], others, of_others, count, sentence),
        )
        for k, sentence in enumerate(asked)
    ]
    about = (
        f"{N:,} sentences, {counts[0]:,} words, {share(*counts):.1%} of them not among the "
        f"{len(known):,} that the model was trained with; in {len(others):,} sentences of the "
        f"run's own text, {share(*counted(others, known)):.1%}. {LOST} stands for such a word. "
        f"Numbers are cosines."
    )
    return {
        "vectors.npy": unfinished,
        "sentences.txt": "\n".join(given) + "\n",
        "neighbours.txt": plain(about, answers),
        "neighbours.html": html(about, answers),
    }


def read(path: Path) -> list[str]:
    """The sentences of a file, without blank lines.

    Raises:
        InputError: it cannot be read, is not UTF-8, or has none.
    """
    found = []
    try:
        with path.open("rb") as file:
            for n, line in enumerate(file, start=1):
                found.append(line.decode("utf-8-sig" if n == 1 else "utf-8").strip())
    except OSError as error:
        raise InputError(f"Cannot read --sentences={path} ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, line {n:,} is not UTF-8; convert the file.") from error
    if not any(found):
        raise InputError(f"{path} has no sentences: give a text with one a line.")
    return [" ".join(sentence.split()) for sentence in found if sentence]


def of_split(task, split, most: int) -> list[str]:
    """At most so many sentences of a split, spread evenly, each once."""
    words, N = vocabulary.split(task.splits["train"]["words"]), len(split["starts"]) - 1
    names = ["", LOST, *words]  # no sentence of a split holds an END
    places = np.linspace(0, N - 1, min(most, N)).round().astype(int)
    starts = split["starts"]
    found = [" ".join(names[k] for k in split["tokens"][starts[n] : starts[n + 1]]) for n in places]
    return [sentence for sentence in dict.fromkeys(found) if sentence]


def read_as(sentence: str, known: set[str]) -> str:
    """The words of a sentence as the model reads them."""
    return " ".join(word if word in known else LOST for word in english.tokenize(sentence))


def counted(sentences: list[str], known: set[str]) -> tuple[int, int]:
    """How many words there are, and how many of them are not known."""
    words = [word for sentence in sentences for word in read_as(sentence, known).split()]
    return len(words), words.count(LOST)


def share(words: int, unknown: int) -> float:
    return unknown / max(words, 1)


def nearest(
    query,
    sentences: list[str],
    vectors,
    count: int,
    left_out: str,
    before: Sequence[Neighbour] = (),
) -> list[Neighbour]:
    """The sentences whose vectors ``[N, H]`` are nearest to a query ``[H]``, each once; of these
    and those found before."""
    cosines = vectors @ query
    found: dict[str, float] = {}
    for n in np.argsort(-cosines, kind="stable"):
        if sentences[n] != left_out:
            found.setdefault(sentences[n], float(cosines[n]))
        if len(found) == count:
            break
    candidates = starmap(Neighbour, (dict(before) | found).items())
    return sorted(candidates, key=lambda neighbour: -neighbour.cosine)[:count]


# --- Pages ---

PARTS = dict(given="Nearest of the same sentences", others="Nearest of the run's own text")

HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Neighbours of sentences</title>
<style>
body { max-width: 50em; margin: 2em auto; padding: 0 1em; background: #fff; color: #101010;
  font: 16px/1.5 sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4em; }
h2 { font-size: 1.05em; margin-top: 2em; border-top: 1px solid #ccc; padding-top: 1em; }
p { margin: .6em 0 .2em; color: #606060; }
li { margin: .2em 0; }
b { font-weight: normal; color: #606060; }
</style>
"""


def html(about: str, answers: list[Answer]) -> str:
    """A page of its own, without scripts."""
    lines = [f"<h1>Neighbours of sentences</h1>\n<p>{escape(about)}</p>"]
    for answer in answers:
        lines.append(f"<h2>{escape(answer.sentence)}</h2>")
        if answer.words:
            lines.append(f"<p>Read as: {escape(answer.words)}</p>")
        for part, title in PARTS.items():
            if found := getattr(answer, part):
                items = [f"<li><b>{n.cosine:.3f}</b> {escape(n.sentence)}</li>" for n in found]
                lines.append(f"<p>{title}</p>\n<ol>{''.join(items)}</ol>")
    page = HEAD + "\n".join([*lines, "</html>\n"])
    return page.replace(LOST, "<mark>?</mark>")


def plain(about: str, answers: list[Answer]) -> str:
    """The same as text."""
    lines = [about]
    for answer in answers:
        lines += ["", answer.sentence]
        if answer.words:
            lines.append(f"  Read as: {answer.words}")
        for part, title in PARTS.items():
            if found := getattr(answer, part):
                lines += [f"  {title}:", *(f"    {n.cosine:.3f}  {n.sentence}" for n in found)]
    return "\n".join([*lines, ""]).replace(LOST, "?")
