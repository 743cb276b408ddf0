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
import itertools
from pathlib import Path
import re
import tempfile
from typing import IO

import numpy as np

from experiments.datasets import Dataset, arrays, text, vocabulary
from experiments.datasets.originals import Source
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


def lines_of(name: str, file: IO[bytes]) -> Iterator[str]:
    """The lines of a file.

    Raises:
        InputError: it is damaged, or not UTF-8.
    """
    try:
        for n, line in enumerate(file, start=1):
            yield line.decode("utf-8-sig" if n == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}, line {n:,}: {line[error.start : error.end]!r} is not UTF-8. Convert the "
            f"file, such as by `iconv -f WINDOWS-1252 -t UTF-8`."
        ) from error


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


def splits(books: Iterable[Book], tokens: Stored, starts: Stored) -> arrays.Splits:
    """The splits of books, stored in two empty files, from which they are read when written.

    Every 20th book, but no more than 50 of them, evenly spread, is held out as the split "valid".
    The words that are kept are the most frequent of the others, those of one count as they come.

    Raises:
        InputError: there are less than two books.
    """
    numbered = Numbered(tokens, starts)
    for book in books:
        numbered.add(book)
    K = len(numbered.ends) - 1
    if K < 2:
        raise InputError(
            f"Found {K} book(s) with text; two or more are needed, since one is held out."
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
    made = {
        split: split_of(tokens, starts, ends, chosen, table)
        for split, chosen in (("train", ~held), ("valid", held))
    }
    made["train"]["words"] = vocabulary.join([words[n] for n in order])
    print(summary(made, distinct, counts[order].sum() / counts.sum()))
    return made


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


def read(source: Source) -> arrays.Splits:
    """Return the books at a place as splits.

    Raises:
        InputError: there are less than two books, or they cannot be read.
    """
    folder = source.work()
    return splits(
        (
            book
            for name, file in source.files(BOOK)
            for book in books_of(name, lines_of(f"{source.path}/{name}", file))
        ),
        *(source.stack.enter_context(Stored(folder, kind)) for kind in "iq"),
    )


DATASET = Dataset(
    title="books", read=read, needs=EXPECTED, budget=2**35, url="BookCorpus is not public any more"
)
