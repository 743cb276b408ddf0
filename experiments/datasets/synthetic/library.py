"""Sentence tasks made of the documentation of Python and its library (see `docs`); built in. They
stand in for the five tasks of §6.3, in the same form (see `sentences`):

    topic   is a sentence of what speaks with other computers (1), or of tools for development (0)?
    style   is it of the language's reference (1), or of a docstring (0)?
    pairs   how related are two sentences? The second one begins as the first and goes on as some
            other; the score is 1 + 4 × the share of the words that both have.

Who trains on docs has seen these sentences, as nobody has those of the five tasks.
"""

from collections import Counter

import numpy as np

from experiments.datasets import Dataset, arrays, text, vocabulary
from experiments.datasets.synthetic import docs

NETWORK = frozenset(
    ("asyncio", "email", "http", "urllib", "xmlrpc", "smtplib", "imaplib", "poplib", "ftplib")
    + ("telnetlib", "nntplib", "ssl", "socket", "socketserver", "wsgiref", "mailbox", "cgi")
)
TOOLS = frozenset(
    ("unittest", "doctest", "pdb", "bdb", "typing", "inspect", "importlib", "pydoc", "ast")
    + ("distutils", "traceback", "logging", "dis", "timeit", "profile", "trace", "code", "tokenize")
)
PER_CLASS = 1000
PAIRS = dict(train=1000, valid=200, test=500)
LEAST = 6  # words of a sentence


def some(sentences: list[str], count: int) -> list[str]:
    """So many of them, evenly spread; all where there are fewer."""
    places = np.linspace(0, len(sentences) - 1, min(count, len(sentences)))
    return [sentences[n] for n in places.round().astype(int)]


def classes(positive: list[str], negative: list[str]) -> dict[str, np.ndarray]:
    """The split of a task of two classes."""
    ones, zeros = some(positive, PER_CLASS), some(negative, PER_CLASS)
    labels = np.repeat(np.array([1, 0], np.int8), [len(ones), len(zeros)])
    return dict(text=vocabulary.join(ones + zeros), labels=labels)


def related(a: str, b: str) -> float:
    """From 1, no word in common, to 5, the same words."""
    a_words, b_words = Counter(text.tokenize(a)), Counter(text.tokenize(b))
    return 1 + 4 * (a_words & b_words).total() / max(a_words.total(), b_words.total())


def pairs(sentences: list[str], count: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """A split of pairs."""
    texts = []
    for n, m in random.integers(len(sentences), size=(count, 2)):
        a, other = sentences[n].split(), sentences[m].split()
        k = random.integers(len(a), endpoint=True)
        texts += [" ".join(a), " ".join(a[:k] + other[k:])]
    scores = [related(*pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    return dict(text=vocabulary.join(texts), scores=np.array(scores, np.float32))


def make() -> arrays.Splits:
    """Return the two tasks of classes and the three splits of pairs."""
    of: dict[str, list[str]] = dict(network=[], tools=[], language=[], docstrings=[])
    for name, sentences in docs.all_books():
        where = name.split("/")[0]
        kept = [s for s in sentences if len(s.split()) >= LEAST]
        of["language" if where == docs.LANGUAGE else "docstrings"] += kept
        if where in NETWORK or where in TOOLS:
            of["network" if where in NETWORK else "tools"] += kept
    random = np.random.default_rng(0)
    everything = of["language"] + of["docstrings"]
    return dict(
        topic=classes(of["network"], of["tools"]),
        style=classes(of["language"], of["docstrings"]),
        **{f"pairs_{name}": pairs(everything, N, random) for name, N in PAIRS.items()},
    )


DATASET = Dataset(
    title="sentence tasks made of the documentation of this Python",
    stands_for="sentences",
    make=make,
)
