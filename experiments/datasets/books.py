"""Running text for skip-thoughts (§6.3): books, or the lists of sentences that BookCorpus was.

    python -m scripts.data books --from=DIR

Books are .txt files, in a folder or in a .zip or .tar: paragraphs, one a line, or of several lines
with blank lines in between. Where its name begins with "books_large", as those of BookCorpus' two
files do, every line is one sentence, and where a book ends is not marked: PIECE sentences pass for
a book.

A text is read once, front to back, and its words are numbered as they come; numbers go to files
beside the data set to be, which are gone through again when it is known which words are frequent.
So the memory needed is that of the distinct words, not of the text.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
import io
import itertools
from pathlib import Path
import re
from typing import IO

import numpy as np

from experiments.datasets import arrays, text, vocabulary
from experiments.datasets.originals import DAMAGED, Progress, members
from experiments.datasets.vocabulary import SPECIAL, UNKNOWN
from ln.errors import InputError

VOCABULARY = 20_000 - SPECIAL  # the words that are kept, as in the authors' code
PIECE = 1000  # sentences
HELD_OUT = 20, 50  # every 20th book is for validation, but no more than 50
LIST = re.compile(r"books_large.*\.txt")  # a line is a sentence
SHORT = 30  # words; see configs/skip_thoughts.py

EXPECTED = "a folder, .zip or .tar of books as .txt files, or such a file"

Book = Iterable[str]  # sentences


# --- Books ---


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """The paragraphs of a book: its lines, or what lies between blank ones if some of the first
    hundred are."""
    lines = (line.strip() for line in lines)
    first = list(itertools.islice(itertools.dropwhile(lambda line: not line, lines), 100))
    lines = itertools.chain(first, lines)
    if all(first):
        yield from filter(None, lines)
        return
    for is_text, group in itertools.groupby(lines, bool):
        if is_text:
            yield " ".join(group)


def books_of(name: str, lines: Iterable[str]) -> Iterator[Book]:
    """The books of a file."""
    if not LIST.fullmatch(Path(name).name):
        yield (s for paragraph in paragraphs(lines) for s in text.sentences(paragraph))
        return
    lines = iter(lines)
    while piece := list(itertools.islice(lines, PIECE)):
        yield piece


def lines_of(name: str, file: IO[bytes], read: Callable[[int], None]) -> Iterator[str]:
    """The lines of a file; tells how many bytes each had.

    Raises:
        InputError: it is not UTF-8.
    """
    for n, line in enumerate(file, start=1):
        read(len(line))
        try:
            yield line.decode("utf-8-sig" if n == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}, line {n:,}: {line[error.start : error.end]!r} is not UTF-8. Convert the "
                f"file, such as by `iconv -f WINDOWS-1252 -t UTF-8`."
            ) from error


def files_of(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of the .txt files, those of a folder in the order of their names.

    Raises:
        InputError: there are none.
    """
    if source.is_dir():
        for path in sorted(source.rglob("*.txt")):
            with path.open("rb") as file:
                yield str(path), file
    elif source.suffix == ".txt" and source.is_file():
        with source.open("rb") as file:
            yield str(source), file
    elif source.is_file():
        try:
            for name, file in members(source, re.compile(r".*\.txt")):
                yield f"{source}/{name}", io.BufferedReader(file, 2**20)
        except DAMAGED as error:
            raise InputError(
                f"Cannot read {source} ({type(error).__name__}: {error}): is it a whole archive? "
                f"Needed: {EXPECTED}."
            ) from error
    else:
        raise InputError(f"{source} does not exist. Needed: {EXPECTED}.")


# --- Arrays ---


class Numbered:
    """Sentences by number on disk, words numbered from 0 as they come.

    Attributes:
        numbers: word -> number.
        ends: of each book, in sentences.
    """

    def __init__(self, folder: Path):
        self.folder, self.numbers, self.ends = folder, {}, [0]
        self.length = self.sentences = 0

    def add(self, book: Book) -> None:
        """Adds a book, unless it has no words."""
        numbers, tokens, starts = self.numbers, array("i"), array("q")
        for sentence in book:
            found = text.tokenize(sentence)
            if found:
                starts.append(self.length + len(tokens))
                tokens.extend([numbers.setdefault(word, len(numbers)) for word in found])
        self.append("tokens", tokens)
        self.append("starts", starts)
        self.length += len(tokens)
        self.sentences += len(starts)
        if len(starts):
            self.ends.append(self.sentences)

    def append(self, name: str, values: array) -> None:
        try:
            with (self.folder / name).open("ab") as file:
                values.tofile(file)
        except OSError as error:
            raise InputError(
                f"Cannot write to {self.folder} ({error}). Make room, or choose another --data_dir."
            ) from error

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """All tokens, and the starts of the sentences and of what would follow; mapped."""
        self.append("starts", array("q", [self.length]))
        types = dict(tokens=np.int32, starts=np.int64)
        tokens, starts = (
            np.memmap(self.folder / name, dtype=dtype, mode="r") for name, dtype in types.items()
        )
        return tokens, starts


class Parts:
    """Parts of an array, one behind another, changed on the way: what `arrays.write` takes.

    Args:
        values: ``[n]``.
        parts: the first of each, and the one behind its last.
        change: what is done to some values of part k.
    """

    def __init__(self, values, parts, change: Callable[[int, np.ndarray], np.ndarray], dtype):
        self.values, self.parts, self.change, self.dtype = values, parts, change, np.dtype(dtype)
        self.ends = np.cumsum([last - first for first, last in parts])
        self.shape = (int(self.ends[-1]),)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        found = [np.zeros(0, self.dtype)]
        for k in range(int(np.searchsorted(self.ends, start, side="right")), len(self.parts)):
            (first, last), end = self.parts[k], int(self.ends[k])
            begin = end - (last - first)
            if begin >= stop:
                break
            some = slice(first + max(start, begin) - begin, first + min(stop, end) - begin)
            found.append(self.change(k, np.asarray(self.values[some])).astype(self.dtype))
        return np.concatenate(found)


def runs_of(ends: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The first sentence and the one behind the last, ``[R, 2]``, of each run of chosen books.

    Args:
        ends: of the books in sentences, with a 0 in front ``[K + 1]``.
        chosen: booleans ``[K]``.
    """
    return ends[np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]])))].reshape(-1, 2)


def split_of(tokens, starts, ends: np.ndarray, chosen: np.ndarray, table: np.ndarray) -> dict:
    """Some books as the arrays of a split.

    Args:
        tokens, starts: of all books.
        ends, chosen: see `runs_of`.
        table: the final number of each word.
    """
    runs = runs_of(ends, chosen)
    of_tokens = starts[runs]
    sizes = np.diff(of_tokens)[:, 0]
    shifts = of_tokens[:, 0] - (sizes.cumsum() - sizes)
    runs[-1, 1] += 1  # where a further sentence would start
    sentences = np.diff(ends)[chosen]
    return dict(
        tokens=Parts(tokens, of_tokens.tolist(), lambda _, some: table[some], np.uint16),
        starts=Parts(starts, runs.tolist(), lambda k, some: some - shifts[k], np.int64),
        books=np.concatenate([[0], sentences.cumsum()]).astype(np.int64),
    )


def build(data_dir: str | Path, name: str, books: Iterable[Book], info: dict) -> str:
    """Makes ``<data_dir>/<name>`` of books; returns what they were, as a table.

    Every 20th book, but no more than 50 of them, evenly spread, is held out as the split "valid".
    The words that are kept are the most frequent of the others, those of one count as they come.

    Raises:
        InputError: there are less than two books.
    """
    with arrays.partial_folder(Path(data_dir) / name) as folder:
        numbered = Numbered(folder)
        for book in books:
            numbered.add(book)
        K = len(numbered.ends) - 1
        if K < 2:
            raise InputError(
                f"{info['source']}: found {K} book(s) with text; two or more are needed, since one "
                f"is held out. Needed: {EXPECTED}."
            )
        tokens, starts = numbered.finish()
        ends = np.array(numbered.ends)
        every, most = HELD_OUT
        held = np.zeros(K, bool)
        count = min(most, max(1, K // every))
        held[((np.arange(count) + 1) * K) // count - 1] = True

        words, distinct = list(numbered.numbers), len(numbered.numbers)
        counts = np.zeros(distinct, np.int64)
        trained = starts[runs_of(ends, ~held)].tolist()
        for block in arrays.blocks(Parts(tokens, trained, lambda _, some: some, np.int32)):
            counts += np.bincount(block, minlength=distinct)
        order = np.argsort(-counts, kind="stable")[:VOCABULARY]
        order = order[counts[order] > 0]
        table = np.full(distinct, UNKNOWN, np.uint16)
        table[order] = SPECIAL + np.arange(len(order))
        splits = {
            split: split_of(tokens, starts, ends, chosen, table)
            for split, chosen in (("train", ~held), ("valid", held))
        }
        splits["train"]["words"] = vocabulary.join([words[n] for n in order])
        arrays.write(data_dir, name, splits, info)
        return summary(splits, distinct, counts[order].sum() / counts.sum())


def summary(splits, distinct: int, known: float) -> str:
    """What was read, as a table."""
    rows: dict[str, list[str]] = {}
    for arrays_of in splits.values():
        tokens, starts, books = (arrays_of[key] for key in ("tokens", "starts", "books"))
        short = sum(int((np.diff(block) < SHORT).sum()) for block in overlapping(starts))
        N = len(starts) - 1
        for row, value in {
            "books": f"{len(books) - 1:,}",
            "sentences": f"{N:,}",
            f"… of less than {SHORT} words": f"{short / N:.1%}",
            "words": f"{len(tokens):,}",
            "words in a sentence, mean": f"{len(tokens) / N:.1f}",
        }.items():
            rows.setdefault(row, []).append(value)
    width = max(map(len, rows))
    lines = [" " * (width + 2) + "".join(f"{split:>14}" for split in splits)]
    lines += [
        f"  {row:<{width}}" + "".join(f"{v:>14}" for v in cells) for row, cells in rows.items()
    ]
    kept = len(vocabulary.split(splits["train"]["words"]))
    lines.append(
        f"  vocabulary: {kept:,} of {distinct:,} distinct words, {known:.2%} of the words of train"
    )
    return "\n".join(lines)


def overlapping(starts: Sequence, size: int = 2**20) -> Iterator[np.ndarray]:
    """Blocks of an array, each with the first of the next."""
    for first in range(0, len(starts) - 1, size):
        yield starts[first : first + size + 1]


def prepare(data_dir: str | Path, source: str | Path | None = None) -> None:
    """Makes ``<data_dir>/books`` of the books at a place.

    Raises:
        InputError: no source, or there are no books, or they cannot be read.
    """
    if source is None:
        raise InputError(
            f"There is nowhere to download books from: give --from=DIR, {EXPECTED}. Or use the "
            f"built-in data set docs."
        )
    source = Path(source)
    total = None
    if source.is_dir() or source.suffix == ".txt":
        paths = source.rglob("*.txt") if source.is_dir() else [source]
        total = sum(path.stat().st_size for path in paths if path.is_file())
    progress = Progress("books", "bytes", total)
    books = (
        book
        for name, file in files_of(source)
        for book in books_of(name, lines_of(name, file, progress.add))
    )
    print(build(data_dir, "books", books, dict(source=f"books from {source}")))
