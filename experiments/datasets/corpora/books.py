"""Read running text for skip-thoughts (§6.3): books, or the lists of sentences of BookCorpus.

    python -m scripts.data books --from=DIR

Books are .txt files, in a folder or in an archive. A paragraph is a line, or several lines between
blank lines. In files with names that begin with "books_large", as BookCorpus' two files have, each
line is a sentence and the ends of books are not marked: PIECE sentences pass for a book.

The text is read once, from front to back, and its words are numbered in the order of their first
occurrence. The numbers go to temporary files, which are read again when the frequent words are
known. So the memory grows with the number of distinct words, not with the text.
"""

from array import array
from collections.abc import Iterable, Iterator
import functools
import itertools
from pathlib import Path, PurePosixPath
import re

import numpy as np

from experiments.datasets import Dataset, arrays, text, vocabulary
from experiments.datasets.arrays import Growing
from experiments.datasets.originals import Source, compare
from experiments.datasets.vocabulary import SPECIAL, UNKNOWN
from ln.errors import InputError, writing

VOCABULARY = 20_000 - SPECIAL  # the words that are kept, as in the authors' code
PIECE = 1000  # sentences
HELD_OUT = 20, 50  # every 20th book is for validation, but no more than 50
BOOK = re.compile(r"(.*/)?(?!readme)[^/]*\.txt", re.IGNORECASE)
LIST = "books_large"  # how the names of files begin in which a line is a sentence
SENTENCES = 74_004_228  # of BookCorpus
PAGE = 120  # characters: lines that were broken to fit a page are shorter
REMEMBERED = 2**16  # pieces of text between blanks, such as "The" and "end."

Book = Iterable[str]  # sentences


def read(source: Source) -> arrays.Splits:
    """Return the splits of the books of a source."""
    names = []

    def books() -> Iterator[Book]:
        for match, file in source.files(BOOK):
            names.append(PurePosixPath(match[0]).name)
            yield from books_of(names[-1], text.lines(file, match[0]))

    splits = make(books(), source.work())
    if any(name.startswith(LIST) for name in names):
        count = sum(len(split["starts"]) - 1 for split in splits.values())
        compare("BookCorpus", count, SENTENCES)
    return splits


def books_of(name: str, lines: Iterable[str]) -> Iterator[Book]:
    """Yield the books of a file."""
    if not name.startswith(LIST):
        yield (s for paragraph in paragraphs(lines) for s in text.sentences(paragraph))
        return
    lines = iter(lines)
    while piece := list(itertools.islice(lines, PIECE)):
        yield piece


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Yield the paragraphs of a book.

    Paragraphs are parted by blank lines if some of the first hundred lines are blank and none is
    longer than PAGE. Otherwise each line is a paragraph, and blank lines may part chapters.
    """
    lines = itertools.dropwhile(lambda line: not line, lines)
    first = list(itertools.islice(lines, 100))
    lines = itertools.chain(first, lines)
    if all(first) or max(map(len, first)) > PAGE:
        yield from filter(None, lines)
        return
    for is_text, group in itertools.groupby(lines, bool):
        if is_text:
            yield " ".join(group)


def make(books: Iterable[Book], folder: Path) -> arrays.Splits:
    """Return the splits of books.

    Every 20th book, but no more than 50 of them, evenly spread, is held out as the split "valid".
    The vocabulary has the most frequent words of the other books; of equals the earlier ones.

    Args:
        books: their sentences.
        folder: for temporary files.

    Raises:
        InputError: there are fewer than two books, or the disk is full.
    """
    with writing(folder, "--data_dir"):
        tokens, starts, ends, words = numbered(books, folder)
        is_held = held_out(len(ends) - 1)
        counts = np.zeros(len(words), np.int64)
        for block in blocks(tokens):
            counts += np.bincount(block, minlength=len(words))
        for k in np.flatnonzero(is_held):
            first, last = starts[ends[k]], starts[ends[k + 1]]
            counts -= np.bincount(tokens[first:last], minlength=len(words))
        order = np.argsort(-counts, kind="stable")[:VOCABULARY]
        order = order[counts[order] > 0]
        number_of = np.full(len(words), UNKNOWN, np.uint16)
        number_of[order] = SPECIAL + np.arange(len(order))
        splits = {
            split: gathered(tokens, starts, ends, chosen, number_of, folder)
            for split, chosen in (("train", ~is_held), ("valid", is_held))
        }
    splits["train"]["words"] = vocabulary.join([words[n] for n in order])
    return splits


def numbered(
    books: Iterable[Book], folder: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return the words of all books by number.

    Returns:
        The tokens; the start of each sentence in them, and their end; the first sentence of each
        book, and the number of sentences; and the words. Books without words are left out.
    """
    numbers: dict[str, int] = {}
    ends, size = [0], 0

    # Most pieces of a text occur again and again, and a look-up is far faster than tokenizing.
    @functools.lru_cache(REMEMBERED)
    def numbers_of(piece: str) -> list[int]:
        return [numbers.setdefault(word, len(numbers)) for word in text.tokenize(piece)]

    tokens, starts = Growing(folder, np.int32), Growing(folder, np.int64)
    count = 0
    for book in books:
        for sentence in book:
            pieces = map(numbers_of, sentence.split())
            if new := array("i", itertools.chain.from_iterable(pieces)):
                tokens.add(new)
                starts.add(size)
                size += len(new)
                count += 1
        if count > ends[-1]:
            ends.append(count)
    if len(ends) < 3:
        raise InputError(f"There are {len(ends) - 1} book(s) with text; at least 2 are needed.")
    starts.add(size)
    return tokens.mapped(), starts.mapped(), np.array(ends), list(numbers)


def blocks(tokens: np.ndarray) -> list[np.ndarray]:
    """Return parts of tokens of a size that memory holds."""
    return np.array_split(tokens, 1 + len(tokens) // arrays.BLOCK)


def held_out(K: int) -> np.ndarray:
    """Return which of K books are held out, bool ``[K]``."""
    every, most = HELD_OUT
    count = min(most, max(1, K // every))
    is_held = np.zeros(K, bool)
    is_held[((np.arange(count) + 1) * K) // count - 1] = True
    return is_held


def gathered(tokens, starts, ends, chosen, number_of, folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a split.

    Args:
        tokens: as `numbered` returns them; likewise the next two.
        starts: of sentences.
        ends: of books.
        chosen: which books, bool ``[K]``.
        number_of: the final number of each word.
        folder: for temporary files.
    """
    kept, places, size = Growing(folder, np.uint16), Growing(folder, np.int64), 0
    for k in np.flatnonzero(chosen):
        book = starts[ends[k] : ends[k + 1] + 1]
        for block in blocks(tokens[book[0] : book[-1]]):
            kept.add(number_of[block])
        places.add(book[:-1] - book[0] + size)
        size += int(book[-1] - book[0])
    places.add(size)
    books = np.concatenate([[0], np.diff(ends)[chosen].cumsum()])
    return dict(tokens=kept.mapped(), starts=places.mapped(), books=books)


DATASET = Dataset(
    title="books",
    read=read,
    needs="a folder or archive of books as .txt files; the name of a file with a "
    f"sentence in each line must begin with {LIST}",
    budget=2**35,
    url="https://yknzhu.wixsite.com/mbweb, which no longer gives BookCorpus away",
)
