"""Running text: words and sentences, books, lists of sentences, the built-in documentation."""

import io
import json
from pathlib import Path
import tarfile
import zipfile

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import arrays, text, vocabulary
from experiments.datasets.corpora import books
from experiments.datasets.synthetic import docs
from experiments.datasets.vocabulary import SPECIAL, UNKNOWN
from ln.errors import InputError

TOKENS = {
    "It's Mr. Brown's.": "it 's mr. brown 's .",
    "He won't, can't and didn't; I'd say!": "he wo n't , ca n't and did n't ; i 'd say !",
    "“Well-known,” at five o’clock…": '" well-known , " at five o\'clock ...',
    "``quoted''—and cut off--": '" quoted " -- and cut off --',
    "‘Tis—’tis’—‘so.’ ’’Σ": "' tis -- ' tis ' -- ' so . ' \" σ",
    "1,000.5 in the U.S. at 12:30": "1,000.5 in the u.s. at 12:30",
    "snake_case _it's_ hy‐phen": "snake case it 's hy-phen",
    " ": "",
}


@pytest.mark.parametrize("sentence", TOKENS, ids=range(len(TOKENS)))
def test_words_are_those_of_treebank_and_stay_what_they_are(sentence):
    found = text.tokenize(sentence)
    assert found == TOKENS[sentence].split()
    assert text.tokenize(" ".join(found)) == found
    assert [word for piece in sentence.split() for word in text.tokenize(piece)] == found


def test_a_paragraph_is_cut_where_sentences_end_and_nowhere_else():
    sentences = [
        "“Who is there?” she asked.",
        "Mr. Smith met Dr. J. R. Green at St. Paul's.",
        'He said: "Go."',
        "(So I think!)",
        "It cost 3.50 pounds, e.g. too much … for him.",
        "Nobody answered",
    ]
    assert list(text.sentences("  ".join(sentences))) == sentences
    assert list(text.sentences(" ")) == []


# --- Books ---


def naive(texts):
    """Sentences of words of each book."""
    return [[s.lower().split() for s in book] for book in texts]


def decoded(split, words):
    """The same from arrays."""
    sentences = [
        vocabulary.decode(split["tokens"][a:b], words).split()
        for a, b in zip(split["starts"], split["starts"][1:], strict=False)
    ]
    return [sentences[a:b] for a, b in zip(split["books"], split["books"][1:], strict=False)]


@pytest.fixture
def a_library():
    """45 books of a few sentences, of words of some frequency."""
    random = np.random.default_rng(0)

    def sentence():
        return " ".join(f"W{int(40 * u**3)}" for u in random.random(random.integers(1, 6))) + " ."

    return [[sentence() for _ in range(random.integers(2, 5))] for _ in range(45)]


def test_a_blank_line_parts_the_paragraphs_of_wrapped_lines_and_the_chapters_of_long_ones():
    long = "w " * 70
    assert list(books.paragraphs(["a", "b", "", "c"])) == ["a b", "c"]
    assert list(books.paragraphs(["", long, "b", "", "c", ""])) == [long.strip(), "b", "c"]
    assert list(books.paragraphs(["a", "b"])) == ["a", "b"]


@pytest.mark.parametrize("form", ["lines", "wrapped", "tar", "zip"])
def test_books_come_back_as_they_were_but_for_rare_words_and_two_are_held_out(
    tmp_path, monkeypatch, a_library, form
):
    monkeypatch.setattr(books, "VOCABULARY", 20)
    monkeypatch.setattr(arrays, "BLOCK", 64)  # bytes: parts are cut everywhere
    monkeypatch.setattr(books, "BUFFER", 7)
    monkeypatch.setattr(books, "REMEMBERED", 5)
    source = tmp_path / "texts"
    source.mkdir()
    for n, book in enumerate(a_library):
        lines = (
            "\n".join(book)
            if form != "wrapped"
            else "\n\n".join(s.replace(" ", "\n") for s in book)
        )
        (source / f"{n:02}.txt").write_text("\n" + lines + "\n")
    (source / "ReadMe.txt").write_text("What these books are.\n")
    if form == "tar":
        with tarfile.open(tmp_path / "texts.tar.gz", "w:gz") as archive:
            for path in sorted(source.iterdir()):
                archive.add(path, f"x/{path.name}")
        source = tmp_path / "texts.tar.gz"
    elif form == "zip":
        with zipfile.ZipFile(tmp_path / "texts.zip", "w") as archive:
            for path in sorted(source.iterdir()):
                archive.write(path, f"x/{path.name}")
        source = tmp_path / "texts.zip"
    datasets.prepare("books", tmp_path, source)
    splits = datasets.load("books", tmp_path)

    held = [21, 44]
    train = naive(book for n, book in enumerate(a_library) if n not in held)
    valid = naive(a_library[n] for n in held)
    counts = {}
    for word in (w for book in train for s in book for w in s):
        counts[word] = counts.get(word, 0) + 1
    words = vocabulary.split(splits["train"]["words"])
    by_count = sorted(counts, key=lambda word: -counts[word])
    assert [counts[w] for w in words] == [counts[w] for w in by_count[:20]] and len(
        set(words)
    ) == 20
    for split, expected in (("train", train), ("valid", valid)):
        known = [[[w if w in words else "?" for w in s] for s in book] for book in expected]
        assert decoded(splits[split], words) == known
        assert splits[split]["tokens"].max() < SPECIAL + 20
    assert (splits["train"]["tokens"] == UNKNOWN).any()


def test_bookcorpus_has_a_sentence_a_line_and_is_cut_into_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(books, "PIECE", 3)
    (tmp_path / "books_large_p1.txt").write_text("a b . C d .\ne .\n" * 4)
    (tmp_path / "books_large_p2.txt").write_text("f g .\n")
    datasets.prepare("books", tmp_path, tmp_path)
    splits = datasets.load("books", tmp_path)
    sizes = [np.diff(splits[name]["books"]).tolist() for name in ("train", "valid")]
    assert sizes == [[3, 3, 2], [1]]
    words = vocabulary.split(splits["train"]["words"])
    first = splits["train"]["tokens"][: splits["train"]["starts"][1]]
    assert vocabulary.decode(first, words) == "a b . c d ."


@pytest.mark.parametrize(
    "files, message",
    [
        ({}, "0 book"),
        ({"a.txt": b"One.\n"}, "1 book"),
        (
            {"a.txt": b"One.\nCaf\xe9.\n", "b.txt": b"Two.\n"},
            r"a.txt, line 2: b'\\xe9' is not UTF-8",
        ),
        ({"a.txt": b"\n \n", "b.txt": b"Two.\n"}, "1 book"),
    ],
    ids=["none", "one", "cp1252", "blank"],
)
def test_what_is_no_text_is_refused_by_name_and_leaves_nothing(tmp_path, files, message):
    source, data_dir = tmp_path / "source", tmp_path / "data"
    source.mkdir()
    for name, contents in files.items():
        (source / name).write_bytes(contents)
    with pytest.raises(InputError, match=message):
        datasets.prepare("books", data_dir, source)
    assert not list(data_dir.iterdir())


def test_no_place_and_a_place_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match="--from=DIR"):
        datasets.prepare("books", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        datasets.prepare("books", tmp_path, tmp_path / "nowhere")


@pytest.mark.parametrize("form", ["tar at its start", "tar", "zip"])
def test_a_damaged_archive_is_refused_by_name_and_leaves_nothing(tmp_path, form):
    noise = np.random.default_rng(0).integers(0, 10**9, 10_000)
    lines = "".join(f"Number {k}.\n" for k in noise).encode()
    path, data_dir = tmp_path / "texts", tmp_path / "data"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", lines)
        data = path.read_bytes()
        data = data.replace(b"Number", b"Nombre", 1)
    else:
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo("a.txt")
            member.size = len(lines)
            archive.addfile(member, io.BytesIO(lines))
        data = path.read_bytes()
        data = data[: 60 if form == "tar at its start" else len(data) // 2]
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"Cannot read {path}.*whole"):
        datasets.prepare("books", data_dir, path)
    assert not list(data_dir.iterdir())


def test_who_prepares_the_same_at_the_same_time_is_no_harm(tmp_path):
    text_of = [["One."], ["Two.", "Three."]]

    def meanwhile():
        yield text_of[0]
        books.build(tmp_path, "books", text_of, dict(source="other"))
        yield text_of[1]

    books.build(tmp_path, "books", meanwhile(), dict(source="this"))
    assert arrays.manifest(tmp_path, "books")["source"] == "other"
    assert arrays.is_prepared(tmp_path, "books")


# --- Python's own documentation ---

TEXT = """Return a copy of the :class:`list`, as `sorted` does.

This goes on over
two lines.  It says *more*.

>>> sorted([2, 1])
[1, 2]

    def code(x): Return it.

Heading
=======

- Items are no sentences.
"""


def test_prose_is_what_is_left_of_documentation_without_code_and_markup():
    assert docs.sentences([TEXT, TEXT]) == [
        "Return a copy of the list, as sorted does.",
        "This goes on over two lines.",
        "It says more.",
    ]


@pytest.mark.slow
def test_the_documentation_of_python_is_books_of_its_language_and_library():
    found = dict(docs.all_books())
    assert len(found["language/if"]) > 2 and len(found["asyncio/streams"]) > 10
    assert sum(map(len, found.values())) > 10_000
    assert not any(name.startswith("test/") for name in found)


def test_the_documentation_is_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(docs, "topics", {name: docs.topics[name] for name in ("while", "if")})
    monkeypatch.setattr(docs.sysconfig, "get_path", lambda _: Path(json.__file__).parent)
    for folder in (tmp_path / "one", tmp_path / "two"):
        datasets.prepare("docs", folder)
    assert arrays.digest(tmp_path / "one", "docs") == arrays.digest(tmp_path / "two", "docs")
    split = datasets.load("docs", tmp_path / "one")["train"]
    words = vocabulary.split(split["words"])
    assert vocabulary.decode(split["tokens"][: split["starts"][1]], words).startswith('the " if " ')
