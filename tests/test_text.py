"""Text files as lines; sentences and words; words by number."""

import io
import itertools

import numpy as np
import pytest

from experiments.datasets import text, vocabulary
from ln.errors import InputError

LINES = {
    "unix": (b"a\nb\n", ["a", "b"]),
    "blanks at the ends": (b" a \t\nb\xc2\xa0\n", ["a", "b"]),
    "blank line": (b"a\n \nb", ["a", "", "b"]),
    "next line is no end": ("a\x85b\u2028c".encode(), ["a\x85b\u2028c"]),
    "byte order mark": ("\ufeffa\n".encode(), ["a"]),
    "joined files": ("\ufeffa\n\ufeffb\u200b\u2060c".encode(), ["a", "bc"]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("name", LINES)
def test_lines_are_the_same_from_every_system(name):
    data, expected = LINES[name]
    assert list(text.lines(io.BytesIO(data), "a.txt")) == expected


def test_a_line_in_the_legacy_encoding_is_read():
    data = "naïve\n".encode() + "“café”\n".encode("cp1252")
    assert list(text.lines(io.BytesIO(data), "a", legacy="cp1252")) == ["naïve", "“café”"]


@pytest.mark.parametrize("legacy", [None, "cp1252"])
def test_an_unknown_encoding_is_rejected_with_its_line(legacy):
    with pytest.raises(InputError, match=r"a.txt, line 2: b'\\x81' is not UTF-8"):
        list(text.lines(io.BytesIO(b"a\nno \x81 text\n"), "a.txt", legacy))


def test_half_a_character_is_replaced():
    """JSON's "\\ud83d", half an emoji, has no UTF-8."""
    assert text.clean("\ud83d a\ufeff é") == "\ufffd a é"
    assert text.tokenize("Hi\ud83d \ufeffthere\u200b") == ["hi", "\ufffd", "there"]


TOKENS = {
    "It's Mr. Brown's.": "it 's mr. brown 's .",
    "He won't, can't and didn't; I'd say!": "he wo n't , ca n't and did n't ; i 'd say !",
    "“Well-known,” at five o’clock…": '" well-known , " at five o\'clock ...',
    "``quoted''—and cut off--": '" quoted " -- and cut off --',
    "‘Tis—’tis’—‘so.’ ’’Σ": "' tis -- ' tis ' -- ' so . ' \" σ",
    "1,000.5 in the U.S. at 12:30": "1,000.5 in the u.s. at 12:30",
    "snake_word _it's_ hy‐phen": "snake word it 's hy-phen",
    " ": "",
}


@pytest.mark.parametrize("sentence", TOKENS, ids=range(len(TOKENS)))
def test_words_are_those_of_treebank(sentence):
    """Tokens stay tokens, and each piece between blanks gives the same tokens alone."""
    tokens = text.tokenize(sentence)
    assert tokens == TOKENS[sentence].split()
    assert text.tokenize(" ".join(tokens)) == tokens
    assert [word for piece in sentence.split() for word in text.tokenize(piece)] == tokens


def test_a_paragraph_is_cut_where_sentences_end():
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


def test_ragged_texts_come_back():
    texts = [["b", "a"], [], ["x", "a"]]
    tokens, starts = vocabulary.ragged(texts, vocabulary.numbers(["a", "b"]))
    parts = [tokens[a:b] for a, b in itertools.pairwise(starts)]
    assert [vocabulary.decode(part, ["a", "b"]) for part in parts] == ["b a", "", "? a"]
    padded, lengths = vocabulary.pad(tokens, starts, np.array([2, 1]), 3)
    assert padded.tolist() == [[1, 2, 0], [0, 0, 0]] and lengths.tolist() == [2, 0]
