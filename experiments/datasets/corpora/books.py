"""Running text for skip-thoughts (§6.3): books, or the lists of sentences that BookCorpus was.

    python -m scripts.data books --from=DIR

Books are .txt files, in a folder or in a .zip or .tar: paragraphs, one a line, or of several lines
with blank lines in between. Where its name begins with "books_large", as those of BookCorpus' two
files do, every line is one sentence, and where a book ends is not marked: PIECE sentences pass for
a book.

A text is read once, front to back, and its words are numbered as they come; numbers go to files
beside the data set to be, which are gone through again when it is known which words are frequent.
So the memory needed is that of the distinct words, not of the text. These files have no names:
nothing is left of them, however it ends.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
import functools
import io
import itertools
from pathlib import Path
import re
import tempfile
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
BOOK = re.compile(r"(.*/)?(?!readme)[^/]*\.txt", re.IGNORECASE)
PAGE = 120  # characters: no line that was broken to fit a page is longer
SHORT = 30  # words; see configs/skip_thoughts.py
REMEMBERED = 2**16  # pieces of text between spaces that are no words: "The", "end."
BUFFER = 2**20  # numbers

EXPECTED = (
    "a folder, .zip or .tar of books as .txt files, or such a file; one with a sentence in each "
    "line is to have a name that begins with books_large"
)

Book = Iterable[str]  # sentences


# --- Books ---


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """The paragraphs of a book: what lies between blank lines, if some of the first hundred are
    blank and none is longer than PAGE; else its lines. Blank ones may then part its chapters."""
    lines = (line.strip() for line in lines)
    first = list(itertools.islice(itertools.dropwhile(lambda line: not line, lines), 100))
    lines = itertools.chain(first, lines)
    if all(first) or max(map(len, first)) > PAGE:
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
        InputError: it is damaged, or not UTF-8.
    """
    try:
        for n, line in enumerate(file, start=1):
            read(len(line))
            yield line.decode("utf-8-sig" if n == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}, line {n:,}: {line[error.start : error.end]!r} is not UTF-8. Convert the "
            f"file, such as by `iconv -f WINDOWS-1252 -t UTF-8`."
        ) from error
    except DAMAGED as error:
        raise unreadable(name, error) from error


def paths_of(folder: Path) -> list[Path]:
    """The books of a folder in the order of their names."""
    paths = sorted(folder.rglob("*"))
    return [path for path in paths if path.is_file() and BOOK.fullmatch(path.name)]


def files_of(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of the .txt files but README, those of a folder in the order of their
    names.

    Raises:
        InputError: there are none.
    """
    try:
        if source.is_dir():
            for path in paths_of(source):
                with path.open("rb") as file:
                    yield str(path), file
        elif source.suffix == ".txt" and source.is_file():
            with source.open("rb") as file:
                yield str(source), file
        elif source.is_file():
            for name, file in members(source, BOOK):
                yield f"{source}/{name}", io.BufferedReader(file, 2**20)
        else:
            raise InputError(f"{source} does not exist. Needed: {EXPECTED}.")
    except DAMAGED as error:
        raise unreadable(source, error) from error


def unreadable(what: str | Path, error: Exception) -> InputError:
    return InputError(
        f"Cannot read {what} ({type(error).__name__}: {error}): is it whole? Needed: {EXPECTED}."
    )


# --- Arrays ---


class Stored:
    """Whole numbers in a file without a name. First all are appended, then slices are read.

    Args:
        folder: on the disk to use.
        kind: of the numbers, as of an array.

    Raises:
        InputError: the disk cannot be written to; also when appending.
    """

    def __init__(self, folder: Path, kind: str):
        self.folder, self.kind, self.size = folder, kind, 0
        self.last = array(kind)  # what is not in the file yet
        self.dtype = np.dtype(f"i{self.last.itemsize}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = tempfile.TemporaryFile(dir=folder, buffering=0)
        except OSError as error:
            raise self.full(error) from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def full(self, error: OSError) -> InputError:
        return InputError(
            f"Cannot write to {self.folder} ({error}). Make room, or choose another --data_dir."
        )

    def __len__(self):
        return self.size + len(self.last)

    def extend(self, values: Iterable[int]) -> None:
        self.last.extend(values)
        if len(self.last) > BUFFER:
            self.flush()

    def flush(self) -> None:
        rest = memoryview(self.last).cast("B")
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            raise self.full(error) from error
        self.size, self.last = len(self), array(self.kind)

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.size)
        self.file.seek(start * self.dtype.itemsize)
        return np.fromfile(self.file, self.dtype, max(0, stop - start))


class Numbered:
    """Sentences by number on disk, words numbered from 0 as they come.

    Attributes:
        tokens: of all sentences.
        starts: of the sentences and, at last, of what would follow.
        numbers: word -> number.
        ends: of each book, in sentences.
    """

    def __init__(self, tokens: Stored, starts: Stored):
        self.tokens, self.starts, self.numbers, self.ends = tokens, starts, {}, [0]
        self.numbers_of = functools.lru_cache(REMEMBERED)(self.number)

    def number(self, piece: str) -> list[int]:
        numbers = self.numbers
        return [numbers.setdefault(word, len(numbers)) for word in text.tokenize(piece)]

    def add(self, book: Book) -> None:
        """Adds a book, unless it has no words."""
        known = self.numbers.get
        for sentence in book:
            found = []
            for piece in sentence.split():
                number = known(piece)  # tokenizing a word says the same and takes far longer
                if number is None:
                    found += self.numbers_of(piece)
                else:
                    found.append(number)
            if found:
                self.starts.extend([len(self.tokens)])
                self.tokens.extend(found)
        if len(self.starts) > self.ends[-1]:
            self.ends.append(len(self.starts))

    def finish(self) -> None:
        self.starts.extend([len(self.tokens)])
        self.tokens.flush()
        self.starts.flush()


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


def tokens_of(starts: Stored, runs: np.ndarray) -> np.ndarray:
    """The first token and the one behind the last of each run, ``[R, 2]``."""
    return np.array([starts[n : n + 1] for n in runs.flat]).reshape(-1, 2)


def split_of(
    tokens: Stored, starts: Stored, ends: np.ndarray, chosen: np.ndarray, table: np.ndarray
) -> dict:
    """Some books as the arrays of a split.

    Args:
        tokens, starts: of all books.
        ends, chosen: see `runs_of`.
        table: the final number of each word.
    """
    runs = runs_of(ends, chosen)
    of_tokens = tokens_of(starts, runs)
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
    folder = Path(data_dir)
    with Stored(folder, "i") as tokens, Stored(folder, "q") as starts:
        numbered = Numbered(tokens, starts)
        for book in books:
            numbered.add(book)
        K = len(numbered.ends) - 1
        if K < 2:
            raise InputError(
                f"{info['source']}: found {K} book(s) with text; two or more are needed, since one "
                f"is held out. Needed: {EXPECTED}."
            )
        numbered.finish()
        ends = np.array(numbered.ends)
        every, most = HELD_OUT
        held = np.zeros(K, bool)
        count = min(most, max(1, K // every))
        held[((np.arange(count) + 1) * K) // count - 1] = True

        words, distinct = list(numbered.numbers), len(numbered.numbers)
        counts = np.zeros(distinct, np.int64)
        trained = tokens_of(starts, runs_of(ends, ~held)).tolist()
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
        paths = paths_of(source) if source.is_dir() else [source]
        total = sum(path.stat().st_size for path in paths if path.exists())
    progress = Progress("books", "bytes", total)
    books = (
        book
        for name, file in files_of(source)
        for book in books_of(name, lines_of(name, file, progress.add))
    )
    print(build(data_dir, "books", books, dict(source=f"books from {source}")))
