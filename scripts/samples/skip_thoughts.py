"""Vectors of any sentences, and which sentences are nearest to which."""

from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.datasets import text as english
from experiments.datasets import vocabulary
from ln.errors import InputError, choose

BLOCK = 2048  # sentences between two lines of progress
OTHERS = 2000  # sentences of the run's own text that are candidates too
SHOWN = 20  # of them, without sentences of one's own


class Neighbour(NamedTuple):
    """A candidate and the cosine of its vector and that of what was asked for."""

    sentence: str
    cosine: float


class Answer(NamedTuple):
    """A sentence and its neighbours: among those that were given, and in the run's own text."""

    sentence: str
    given: list[Neighbour]
    others: list[Neighbour]


def skip_thoughts(
    task,
    variables,
    *,
    sentences: str | None = None,
    end: bool = False,
    word_vectors: str | None = None,
    count: int = 5,
    cases: int = 20,
    split: str = "valid",
) -> dict[str, bytes | str | np.ndarray]:
    """Returns the files by name.

    Args:
        variables: of one lane.
        sentences: a file of them, one a line; None takes some of the split.
        end: whether an END shall follow each, as SICK's protocol has it.
        word_vectors: a file to learn further words from, see `Task.encoder`.
        count: neighbours of each.
        cases: of how many sentences, the first ones.
        split: where other candidates are from.

    Raises:
        InputError: no such file or split, or the file has no sentences.
    """
    from ln.train import Progress  # jax takes a second

    arrays = choose("split", split, task.splits)
    given = of_split(task, arrays, SHOWN) if sentences is None else read(Path(sentences))
    others = of_split(task, arrays, OTHERS)
    if word_vectors:
        task.config.word_vectors = word_vectors
    encode = task.encoder(variables)
    vectors = np.empty((len(given), task.config.hidden), np.float32)
    known, progress = set(task.words), Progress("encode", 0, len(given), "sentence", "unknown")
    words = unknown = 0
    for n in range(0, len(given), BLOCK):
        some = given[n : n + BLOCK]
        vectors[n : n + BLOCK] = encode(some, end)
        tokens = [word for sentence in some for word in english.tokenize(sentence)]
        words, unknown = words + len(tokens), unknown + sum(w not in known for w in tokens)
        progress.show(n + len(some), np.array([unknown / max(words, 1)]))
    queries = vectors[:cases]
    of_others = encode(others, end)
    answers = [
        Answer(
            sentence,
            nearest(queries[n], given, vectors, count, sentence),
            nearest(queries[n], others, of_others, count, sentence),
        )
        for n, sentence in enumerate(given[:cases])
    ]
    head = (
        f"{len(given):,} sentences, {words:,} words, {unknown / max(words, 1):.1%} of them not "
        f"among the {len(known):,} that the model was trained with. Numbers are cosines."
    )
    return {
        "vectors.npy": vectors,
        "sentences.txt": "\n".join(given) + "\n",
        "neighbours.txt": plain(head, answers),
        "neighbours.html": html(head, answers),
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
    places = np.linspace(0, N - 1, min(most, N)).round().astype(int)
    starts = split["starts"]
    found = [vocabulary.decode(split["tokens"][starts[n] : starts[n + 1]], words) for n in places]
    return list(dict.fromkeys(found))


def nearest(query, sentences: list[str], vectors, count: int, left_out: str) -> list[Neighbour]:
    """The sentences whose vectors ``[N, H]`` are nearest to a query ``[H]``, each once."""
    cosines = vectors @ query
    found: dict[str, float] = {}
    for n in np.argsort(-cosines, kind="stable"):
        if sentences[n] != left_out:
            found.setdefault(sentences[n], float(cosines[n]))
        if len(found) == count:
            break
    return [Neighbour(*pair) for pair in found.items()]


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


def html(head: str, answers: list[Answer]) -> str:
    """A page of its own, without scripts."""
    lines = [f"<h1>Neighbours of sentences</h1>\n<p>{escape(head)}</p>"]
    for answer in answers:
        lines.append(f"<h2>{escape(answer.sentence)}</h2>")
        for part, title in PARTS.items():
            if found := getattr(answer, part):
                items = [f"<li><b>{n.cosine:.3f}</b> {escape(n.sentence)}</li>" for n in found]
                lines.append(f"<p>{title}</p>\n<ol>{''.join(items)}</ol>")
    return HEAD + "\n".join([*lines, "</html>\n"])


def plain(head: str, answers: list[Answer]) -> str:
    """The same as text."""
    lines = [head]
    for answer in answers:
        lines += ["", answer.sentence]
        for part, title in PARTS.items():
            if found := getattr(answer, part):
                lines += [f"  {title}:", *(f"    {n.cosine:.3f}  {n.sentence}" for n in found)]
    return "\n".join([*lines, ""])
