"""Books and lists of sentences; the built-in documentation of Python."""

from collections import Counter
import json
from pathlib import Path

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import arrays, vocabulary
from experiments.datasets.corpora import books
from experiments.datasets.synthetic import docs
from experiments.datasets.vocabulary import SPECIAL, UNKNOWN
from tests.files import lay
from tests.test_datasets import refused


def decoded(split, words):
    """Return the words of each sentence of each book."""
    sentences = [
        vocabulary.decode(split["tokens"][a:b], words).split()
        for a, b in zip(split["starts"], split["starts"][1:], strict=False)
    ]
    return [sentences[a:b] for a, b in zip(split["books"], split["books"][1:], strict=False)]


def a_library():
    """Return 45 books of a few sentences, whose words differ in frequency."""
    random = np.random.default_rng(0)

    def sentence():
        return " ".join(f"W{int(40 * u**3)}" for u in random.random(random.integers(1, 6))) + " ."

    return [[sentence() for _ in range(random.integers(2, 5))] for _ in range(45)]


FILES = {"a.txt": b"One. Two!\nThree.\n", "b.txt": b"Four.\n"}


def test_blank_lines_part_paragraphs_or_chapters():
    """They part paragraphs whose lines are broken, and chapters of one line a paragraph."""
    long = "w " * 70 + "w"
    assert list(books.paragraphs(["a", "b", "", "c"])) == ["a b", "c"]
    assert list(books.paragraphs(["", long, "b", "", "c", ""])) == [long, "b", "c"]
    assert list(books.paragraphs(["a", "b"])) == ["a", "b"]


@pytest.mark.parametrize("form", ["lines", "wrapped"])
def test_books_come_back_except_for_rare_words(tmp_path, monkeypatch, form):
    monkeypatch.setattr(books, "VOCABULARY", 20)
    monkeypatch.setattr(arrays, "BLOCK", 64)  # bytes: blocks end everywhere
    monkeypatch.setattr(books, "REMEMBERED", 5)
    library, files = a_library(), {"ReadMe.txt": b"What these books are.\n"}
    for n, book in enumerate(library):
        wrapped = "\n\n".join(sentence.replace(" ", "\n") for sentence in book)
        contents = wrapped if form == "wrapped" else "\n".join(book)
        files[f"x/{n:02}.txt"] = f"\n{contents}\n".encode()
    source = lay(tmp_path / "texts", files)
    datasets.prepare("books", tmp_path, source)
    splits = datasets.load("books", tmp_path)

    held = [21, 44]
    in_words = [[s.lower().split() for s in book] for book in library]
    parts = dict(
        train=[book for n, book in enumerate(in_words) if n not in held],
        valid=[in_words[n] for n in held],
    )
    counts = Counter(word for book in parts["train"] for s in book for word in s)
    words = vocabulary.split(splits["train"]["words"])
    assert [counts[word] for word in words] == [n for _, n in counts.most_common(20)]
    for split, expected in parts.items():
        known = [[[w if w in words else "?" for w in s] for s in book] for book in expected]
        assert decoded(splits[split], words) == known
        assert splits[split]["tokens"].max() < SPECIAL + 20
    assert (splits["train"]["tokens"] == UNKNOWN).any()


def test_bookcorpus_has_a_sentence_a_line(tmp_path, monkeypatch, capsys):
    """Its pieces pass for books; marks of joined files are no words."""
    monkeypatch.setattr(books, "PIECE", 3)
    (tmp_path / "books_large_p1.txt").write_text("\ufeffa b . C d .\ne .\n" * 4)
    (tmp_path / "books_large_p2.txt").write_text("f g .\n")
    datasets.prepare("books", tmp_path, tmp_path)
    splits = datasets.load("books", tmp_path)
    sizes = [np.diff(splits[name]["books"]).tolist() for name in ("train", "valid")]
    assert sizes == [[3, 3, 2], [1]]
    words = vocabulary.split(splits["train"]["words"])
    first = splits["train"]["tokens"][: splits["train"]["starts"][1]]
    assert vocabulary.decode(first, words) == "a b . c d ."
    assert "BookCorpus: 9 records; the original has 74,004,228" in capsys.readouterr().out


@pytest.mark.parametrize(
    "files, words",
    [
        ({}, "0 book"),
        ({"a.txt": b"\n \n", "b.txt": b"Two.\n"}, "1 book"),
        ({"a.txt": b"One.\nCaf\xe9.\n", "b.txt": b"Two.\n"}, "is not UTF-8"),
    ],
)
def test_files_without_text_raise_and_leave_nothing(tmp_path, files, words):
    (tmp_path / "source").mkdir()
    with refused(words, "Needed: ", "books_large", "docs"):
        datasets.prepare("books", tmp_path / "data", lay(tmp_path / "source", files))
    assert not list((tmp_path / "data").iterdir())


# --- Python's own documentation ---

TEXT = """Return a copy of the :class:`list`, as `sorted` does.

This continues over
two lines.  It says *more*.

>>> sorted([2, 1])
[1, 2]

    def code(x): Return it.

Heading
=======

- Items are no sentences.
"""


def test_documentation_loses_code_and_markup():
    assert docs.sentences([TEXT, TEXT]) == [
        "Return a copy of the list, as sorted does.",
        "This continues over two lines.",
        "It says more.",
    ]


def test_the_documentation_is_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(docs, "topics", {name: docs.topics[name] for name in ("while", "if")})
    monkeypatch.setattr(docs.sysconfig, "get_path", lambda _: Path(json.__file__).parent)
    for folder in (tmp_path / "one", tmp_path / "two"):
        datasets.prepare("docs", folder)
    assert arrays.digest(tmp_path / "one", "docs") == arrays.digest(tmp_path / "two", "docs")
    split = datasets.load("docs", tmp_path / "one")["train"]
    words = vocabulary.split(split["words"])
    assert vocabulary.decode(split["tokens"][: split["starts"][1]], words).startswith('the " if " ')
