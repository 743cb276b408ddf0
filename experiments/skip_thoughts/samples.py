"""Encode sentences as vectors, and list which sentences are nearest to which.

python -m scripts.sample skip_thoughts --workdir=runs/x --sentences=FILE

vectors.npy            their vectors, float32, a row each of length 1
sentences.txt          the sentences in this order, without blank lines
neighbours.txt, .html  the --count nearest to each of the first `--cases` of them: among all of
                       them, and among 2,000 of --split; and which words the model knows
"""

from collections import Counter
import dataclasses
import io
from pathlib import Path

import numpy as np

from experiments.datasets import text as english
from experiments.datasets import vocabulary
from experiments.datasets.originals import Budget, opened
from experiments.pictures import Item, Section, Text, html, option, plain
from ln.errors import choose

OTHERS = 2000  # sentences of the run's text that are candidates too
SHOWN = 20  # sentences of the split that are encoded without --sentences
SENTENCES = 2**35  # bytes of a file of sentences at most, unpacked
LOST = "□"  # in place of an unknown word; "?" may be a known one


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of the command."""

    sentences: str | None = option(None, "a file of sentences, one a line")
    count: int = option(5, "neighbours of each sentence", lower_bound=1)
    cases: int = option(20, "sentences whose neighbours are listed", lower_bound=1)
    split: str = option("valid", "split of the further candidates")


def sample(task, variables, options: Options) -> dict[str, str | bytes]:
    """Return the files by name.

    Args:
        task: of the run.
        variables: of one lane.
        options: the flags.

    Raises:
        InputError: no such file or split, or the file has no sentences.
    """
    split = choose("split", options.split, task.splits)
    others, given = sentences_in(task, split, OTHERS), sentences_in(task, split, SHOWN)
    if options.sentences is not None:
        with opened(Path(options.sentences), Budget("--sentences", SENTENCES)) as file:
            given = [" ".join(line.split()) for line in english.filled(file, options.sentences)]
    encode, known = task.encoder(variables), set(task.words)
    vectors, asked = encode(given), given[: options.cases]
    queries = vectors[: options.cases].T
    to_given, to_others = vectors @ queries, encode(others) @ queries
    sections = []
    for k, sentence in enumerate(asked):
        read_as = " ".join(as_read(sentence, known))
        further = LOST in read_as and read_as != sentence
        same = nearest(given, to_given[:, k], sentence, options.count)
        from_run = nearest(others, to_others[:, k], sentence, options.count)
        lists = [("Nearest of the same sentences", same), ("Nearest of the run’s text", from_run)]
        note = [[Text(f"Read as: {read_as}")]] if further else []
        sections.append(Section(Text(sentence), note, lists))
    about = (
        f"{len(given):,} sentences; {unknown_words(given, known):.1%} of their words are not among "
        f"the {len(known):,} that the model was trained with; in {len(others):,} sentences of the "
        f"run’s text, {unknown_words(others, known):.1%}. {LOST} stands for such a word. Numbers "
        f"are cosines."
    )
    page = "Neighbours of sentences", about, sections
    np.save(rows := io.BytesIO(), vectors)
    return {
        "vectors.npy": rows.getvalue(),
        "sentences.txt": "\n".join(given) + "\n",
        "neighbours.txt": plain(*page),
        "neighbours.html": html(*page),
    }


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
    order = np.argsort(-cosines, kind="stable")
    cosine_of = {sentences[n]: cosines[n] for n in order[::-1]}  # the largest of equal sentences
    cosine_of.pop(asked, None)
    best = list(cosine_of.items())[: -count - 1 : -1]
    return [Item(f"{cosine:6.3f}", Text(sentence)) for sentence, cosine in best]
