"""The built-in stand-in for the five sentence tasks of §6.3, made of Python's documentation.

The tasks have the form of `sentences`, and the sentences are those of `docs`:

    topic   is a sentence about networks (1), or about tools for development (0)?
    style   is it from the language's reference (1), or from a docstring (0)?
    pairs   how related are two sentences? The second begins as the first and continues as another
            sentence; the score is 1 + 4 × the share of the words that both have.

A model trained on docs has seen these sentences, unlike those of the five tasks.
"""

from collections import Counter

import numpy as np

from experiments.datasets import Dataset, arrays, text, vocabulary
from experiments.datasets.corpora.sentences import classes
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


def some(sentences: list[str]) -> list[str]:
    """Return PER_CLASS of the sentences, evenly spread, or all if there are fewer."""
    places = np.linspace(0, len(sentences) - 1, min(PER_CLASS, len(sentences)))
    return [sentences[n] for n in places.round().astype(int)]


def related(a: str, b: str) -> float:
    """Return a score from 1, no word in common, to 5, the same words."""
    a_words, b_words = Counter(text.tokenize(a)), Counter(text.tokenize(b))
    return 1 + 4 * (a_words & b_words).total() / max(a_words.total(), b_words.total())


def pairs(sentences: list[str], count: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a split of pairs."""
    texts = []
    for n, m in random.integers(len(sentences), size=(count, 2)):
        a, b = sentences[n].split(), sentences[m].split()
        k = random.integers(len(a), endpoint=True)
        texts += [" ".join(a), " ".join(a[:k] + b[k:])]
    scores = [related(*pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    return dict(text=vocabulary.join(texts), scores=np.array(scores, np.float32))


def make() -> arrays.Splits:
    """Return the two tasks of classes and the three splits of pairs."""
    kept = [
        (name.split("/")[0], sentence)
        for name, sentences in docs.all_books()
        for sentence in sentences
        if len(sentence.split()) >= LEAST
    ]
    network, tools, language = (
        [sentence for package, sentence in kept if package in packages]
        for packages in (NETWORK, TOOLS, {docs.LANGUAGE})
    )
    docstrings = [sentence for package, sentence in kept if package != docs.LANGUAGE]
    random = np.random.default_rng(0)
    return dict(
        topic=classes(some(network), some(tools)),
        style=classes(some(language), some(docstrings)),
        **{f"pairs_{name}": pairs(language + docstrings, n, random) for name, n in PAIRS.items()},
    )


DATASET = Dataset(title="tasks of this Python's documentation", stands_for="sentences", make=make)
