"""Cloze questions about news: the CNN corpus of Hermann et al. (2015), and what is in its format.

The questions are not here. They are read from either of

    questions/{training,validation,test}/*.question    as deepmind/rc-data makes them, in a folder
                                                       or in one archive (.tgz, .tar.xz, .tar)
    dict.pkl, {train4,valid4}_{pass,qs,ans}.pkl        the authors' own passages of four sentences,
                                                       in a folder or in top4.zip

A question file has five parts with an empty line between: the address, the passage, the question,
the answer, and the entities, ``@entity3:their name`` a line. Passage and question are of lower-case
tokens with blanks between; entities have numbers that say nothing; ``@placeholder`` is asked for.

Of a passage the four sentences nearest to the question are kept ("top4"), in their order. What
nearest meant to the authors is not known. Here: a sentence ends with ``.``, ``!`` or ``?`` and
quotes or brackets that close behind it; it is the nearer, the more different words of the question
it has, punctuation and @placeholder not counted; of equals the earlier.

The vocabulary has the words that occur more than once in the training set as it was cut, the most
frequent first, and all entities; whole numbers are one word, ``@number``. The pickles come from
strangers: nothing in them is executed, and anything but lists, dictionaries, texts and whole
numbers is refused.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
import dataclasses
import io
import itertools
import multiprocessing
import os
from pathlib import Path
import pickle
import re
import time
from typing import NamedTuple
import zipfile

import numpy as np

from experiments.datasets import arrays, cloze, vocabulary
from experiments.datasets.cloze import ENTITY, PLACEHOLDER
from experiments.datasets.originals import DAMAGED, Files, members
from ln.errors import InputError

SENTENCES = 4
NUMBER = "@number"
SPLITS = dict(training="train", validation="valid", test="test")  # folder -> split
TOP4 = dict(train4="train", valid4="valid")
PARTS = dict(**{"pass": "passages"}, qs="questions", ans="answers")
DROPPED_AT_MOST = 0.01  # of the questions of a split, or
DROPPED_ANYWAY = 10
CHUNK = 500  # questions that a process gets at a time


class Elsewhere(Files):
    """Files that have to be fetched by hand."""

    @property
    def expected(self) -> str:
        return (
            f"folders {', '.join(self.names)} with .question files, or an archive of them, and "
            f"`python -m scripts.data {self.name} --from=DIR`"
        )

    def download(self, folder: Path) -> None:
        """Says where to get them.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self.title} cannot be downloaded from here; see {self.url}. It needs "
            f"{self.expected}. Without it, use the built-in data set `{self.stand_in}`."
        )


FILES = Elsewhere(
    name="cnn",
    title="cloze questions in the format of rc-data",
    url="https://cs.nyu.edu/~kcho/DMQA/",
    names=("questions/training", "questions/validation", "questions/test"),
    stand_in="stories",
)
NAME = re.compile(r"(?:.*/)?(training|validation|test)/([^/]+)\.question")
PICKLE = re.compile(r"(?:.*/)?(dict|(?:train4|valid4)_(?:pass|qs|ans))\.pkl")


class Unusable(ValueError):
    """A question cannot be used. The message is the reason, in the words of the summary."""


class Question(NamedTuple):
    """A question as it is used, words with blanks between, and what the summary counts.

    Attributes:
        passage: the sentences nearest to the question.
        before: words of the whole passage.
        entities: how many there are in the whole passage.
    """

    passage: str
    question: str
    answer: str
    before: int
    entities: int


def prepare(data_dir: str | Path, source: str | Path | None = None) -> None:
    """Makes ``<data_dir>/cnn``.

    Args:
        data_dir: where prepared data sets lie.
        source: a folder or archive with the questions, or the authors' pickles.

    Raises:
        InputError: there is no source and nothing prepared, the files are missing, damaged or of
            another format, too many cannot be used, or another data set is in the way.
    """
    FILES.prepare(data_dir, source, read_originals)


def read_originals(source: Path) -> arrays.Splits:
    """The splits of a folder or archive. Prints what was read and what was left out, and why."""
    if not source.exists():
        raise InputError(f"{source} does not exist. Needed: {FILES.expected}.")
    print(f"{FILES.name}: reading {source}")
    return read_pickles(source) if has_pickles(source) else read_questions(source)


# --- Questions ---


def parse(data: bytes) -> Question:
    """A question file.

    Raises:
        Unusable: it is none, or nobody could answer it.
    """
    try:
        parts = data.decode("utf-8").rstrip("\n").split("\n\n")
    except UnicodeDecodeError:
        raise Unusable("not UTF-8") from None
    if len(parts) != 5:
        raise Unusable(f"{len(parts)} parts instead of 5")
    _, passage, question, answer, names = parts
    words = passage.split()
    if not words:
        raise Unusable("empty passage")
    if PLACEHOLDER not in question.split():
        raise Unusable(f"no {PLACEHOLDER} in the question")
    if answer not in {line.split(":", 1)[0] for line in names.split("\n")}:
        raise Unusable("the answer is none of its entities")
    entities = {word for word in words if word.startswith(ENTITY)}
    kept = nearest(words, question.split())
    return Question(numbered(kept), numbered(question.split()), answer, len(words), len(entities))


def numbered(words: Iterable[str]) -> str:
    return " ".join(NUMBER if word.isdigit() else word for word in words)


def sentences(words: list[str]) -> list[list[str]]:
    """A text, cut behind every end of a sentence and what closes there."""
    found: list[list[str]] = [[]]
    ended = False
    for word in words:
        if ended and word not in CLOSING:
            found.append([])
            ended = False
        found[-1].append(word)
        ended = ended or word in ENDS
    return found


ENDS = frozenset(".!?")
CLOSING = frozenset(("'", "''", '"', "”", "’", ")", "]"))


def nearest(passage: list[str], question: list[str]) -> list[str]:
    """The words of the sentences nearest to a question, see above, in their order."""
    asked = {word for word in question if word != PLACEHOLDER and any(map(str.isalnum, word))}
    found = sentences(passage)
    order = sorted(range(len(found)), key=lambda n: -len(asked & set(found[n])))
    return [word for n in sorted(order[:SENTENCES]) for word in found[n]]


def parse_all(chunk: list[tuple[str, str, Path | bytes]]) -> list[tuple[str, str, Question | str]]:
    """Split, name and question, or why there is none, of files or their contents."""
    found = []
    for split, name, where in chunk:
        try:
            data = where if isinstance(where, bytes) else where.read_bytes()
            found.append((split, name, parse(data)))
        except Unusable as error:
            found.append((split, name, str(error)))
    return found


def files_of(source: Path) -> Iterator[tuple[str, str, Path | bytes]]:
    """Split, name, and path or contents, of the question files of a folder or archive.

    Raises:
        InputError: a split is missing.
    """
    if source.is_file():
        for name, file in read_members(source, NAME):
            match = NAME.fullmatch(name)
            yield SPLITS[match[1]], match[2], file
        return
    places = [source, source / "questions", source / "cnn" / "questions"]
    folder = next((p for p in places if (p / "training").is_dir()), None)
    if folder is None:
        raise InputError(f"{source} has no folder training. Needed: {FILES.expected}.")
    for name, split in SPLITS.items():
        if not (folder / name).is_dir():
            raise InputError(f"{folder} has no folder {name}. Needed: {FILES.expected}.")
        for entry in sorted(os.scandir(folder / name), key=lambda entry: entry.name):
            if entry.name.endswith(".question"):
                yield split, entry.name.removesuffix(".question"), Path(entry.path)


def read_members(source: Path, wanted: re.Pattern) -> Iterator[tuple[str, bytes]]:
    """Files of an archive, name and contents.

    Raises:
        InputError: it is no archive, or a truncated or damaged one.
    """
    try:
        for name, file in members(source, wanted):
            yield name, file.read()
    except DAMAGED as error:
        raise InputError(
            f"Cannot read {source} ({type(error).__name__}: {error}): is it a whole archive? "
            f"Needed: {FILES.expected}."
        ) from error


def read_questions(source: Path) -> arrays.Splits:
    """The splits of question files."""
    used: dict[str, list[tuple[str, Question]]] = {split: [] for split in SPLITS.values()}
    dropped: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS.values()}
    files, progress = files_of(source), Progress()
    chunks = iter(lambda: list(itertools.islice(files, CHUNK)), [])
    # Processes, since parsing is Python; started anew, since other threads may run in this one.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for found in bounded_map(pool, parse_all, chunks):
            for split, name, question in found:
                (dropped if isinstance(question, str) else used)[split].append((name, question))
            progress.add(len(found))
    for split, left_out in dropped.items():
        total = len(used[split]) + len(left_out)
        if not total:
            raise InputError(f"{source} has no questions of {split}. Needed: {FILES.expected}.")
        if len(left_out) > max(DROPPED_ANYWAY, DROPPED_AT_MOST * total):
            name, why = left_out[0]
            raise InputError(
                f"{source}: {len(left_out):,} of {total:,} questions of {split} cannot be used, "
                f"the first, {name}.question, because: {why}. Is it all of the format of rc-data?"
            )
    # In the order of their names, which an archive need not have.
    cases = {split: [q for _, q in sorted(found)] for split, found in used.items()}
    counts = Counter(
        word
        for case in cases["train"]
        for text in (case.passage, case.question, case.answer)
        for word in text.split()
    )
    entities = {
        word
        for case in itertools.chain(*cases.values())
        for text in (case.passage, case.question, case.answer)
        for word in text.split()
        if word.startswith(ENTITY)
    }
    words = [word for word, count in counts.most_common() if count > 1 or word in entities]
    words += sorted(entities - set(words))
    splits = {
        split: cloze.pack(*zip(*(case[:3] for case in found), strict=True), words)
        for split, found in cases.items()
    }
    splits["train"]["words"] = vocabulary.join(words)
    print(summary(cases, dropped, splits, len(words), len(entities)))
    return splits


def bounded_map(pool, function, items: Iterator) -> Iterator:
    """As pool.map, but takes items only as results are taken: they need not fit into memory."""
    waiting = [pool.submit(function, item) for item in itertools.islice(items, 8)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(function, item) for item in itertools.islice(items, 1)]


@dataclasses.dataclass
class Progress:
    """Says now and then how many questions were read, and how fast."""

    count: int = 0
    begin: float = dataclasses.field(default_factory=time.monotonic)
    said: float = dataclasses.field(default_factory=time.monotonic)

    def add(self, count: int) -> None:
        self.count += count
        now = time.monotonic()
        if now - self.said > 5:
            self.said = now
            rate = self.count / (now - self.begin)
            print(f"{FILES.name}: {self.count:,} questions read, {rate:,.0f} a second", flush=True)


def summary(cases, dropped, splits, words: int, entities: int) -> str:
    """A table of what was read and left out, and how hard the questions are."""

    def frequent(case: Question) -> bool:
        counts = Counter(word for word in case.passage.split() if word.startswith(ENTITY))
        return bool(counts) and counts.most_common(1)[0][0] == case.answer

    def survives(case: Question) -> bool:
        return case.answer in case.passage.split()

    def mean(values) -> float:
        return float(np.mean(list(values)))

    rows: dict[str, list[str]] = {}
    for split, found in cases.items():
        lengths = [len(case.passage.split()) for case in found]
        unknown = mean(splits[split]["passages"] == vocabulary.UNKNOWN)
        for name, value in {
            "questions": f"{len(found):,}",
            "left out": f"{len(dropped[split]):,}",
            "words in the whole passage, mean": f"{mean(case.before for case in found):.1f}",
            "in its nearest sentences, mean": f"{mean(lengths):.1f}",
            "… at most": f"{max(lengths):,}",
            "words in the question, mean": f"{mean(len(c.question.split()) for c in found):.1f}",
            "entities in the whole passage, mean": f"{mean(case.entities for case in found):.1f}",
            "unknown words in passages": f"{unknown:.2%}",
            "the answer is still there": f"{mean(map(survives, found)):.1%}",
            "and is the most frequent entity": f"{mean(map(frequent, found)):.1%}",
        }.items():
            rows.setdefault(name, []).append(value)
    width = max(map(len, rows))
    lines = [" " * (width + 2) + "".join(f"{split:>12}" for split in cases)]
    lines += [f"  {name:<{width}}" + "".join(f"{v:>12}" for v in row) for name, row in rows.items()]
    lines.append(f"  vocabulary: {words:,} words, {entities:,} of them entities")
    for split, left_out in dropped.items():
        for why, count in Counter(why for _, why in left_out).most_common():
            first = next(name for name, reason in left_out if reason == why)
            lines.append(f"  left out of {split}: {count:,}, {why} (such as {first}.question)")
    return "\n".join(lines)


# --- The authors' pickles ---


def has_pickles(source: Path) -> bool:
    if source.is_dir():
        return (source / "dict.pkl").is_file()
    if not zipfile.is_zipfile(source):
        return False
    with zipfile.ZipFile(source) as archive:
        return any(PICKLE.fullmatch(name) for name in archive.namelist())


class Data(pickle.Unpickler):
    """Loads pickles of lists, dictionaries, texts and numbers; refuses whatever would call code."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which data has no need of")

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it refers to objects outside")


def load_pickle(name: str, data: bytes):
    """What a pickle holds.

    Raises:
        InputError: it is none, or of more than plain data.
    """
    try:
        # Python 2's texts are bytes; UTF-8 in latin-1's clothes is put right below.
        return Data(io.BytesIO(data), encoding="latin-1").load()
    except Exception as error:  # broken pickles raise all sorts of errors
        raise InputError(
            f"{name} is no pickle of plain data ({type(error).__name__}: {error}), and was not "
            f"loaded. Needed: {FILES.expected}; or the authors' top4.zip."
        ) from error


def read_pickles(source: Path) -> arrays.Splits:
    """The splits of the authors' pickles; there is no test set among them.

    Raises:
        InputError: a file is missing, or does not hold what it should.
    """
    found = {}
    if source.is_dir():
        for path in source.iterdir():
            if match := PICKLE.fullmatch(path.name):
                found[match[1]] = load_pickle(str(path), path.read_bytes())
    else:
        for name, data in read_members(source, PICKLE):
            found[PICKLE.fullmatch(name)[1]] = load_pickle(f"{source}/{name}", data)
    wanted = ["dict", *(f"{split}_{part}" for split in TOP4 for part in PARTS)]
    if lacking := [f"{name}.pkl" for name in wanted if name not in found]:
        raise InputError(f"{source} has no {', '.join(lacking)}.")

    known = found["dict"]
    is_dict = isinstance(known, dict) and all(
        isinstance(word, str) and type(n) is int for word, n in known.items()
    )
    if not is_dict:
        raise InputError(f"{source}: dict.pkl must map words to numbers.")
    word_of = {
        n: word.encode("latin-1", "replace").decode("utf-8", "replace") for word, n in known.items()
    }
    word_of |= {0: "", 1: "", 2: "?", 3: NUMBER}  # NIL, EOS, UNK, NUM
    words = [word_of[n] for n in sorted(word_of) if n > 2]
    number_of = vocabulary.numbers(words)
    new = np.full(max(word_of) + 1, vocabulary.UNKNOWN, np.int32)
    for n in word_of:
        if n > 2:
            new[n] = number_of[word_of[n]]

    splits = {}
    for name, split in TOP4.items():
        arrays_of = {}
        for part, key in PARTS.items():
            lists = found[f"{name}_{part}"]
            is_lists = isinstance(lists, list) and all(
                isinstance(row, list) and row and all(type(n) is int and n >= 0 for n in row)
                for row in lists
            )
            if not is_lists:
                raise InputError(f"{source}: {name}_{part}.pkl must be lists of numbers.")
            # Passages and questions end in EOS.
            rows = [[n for n in row if n > 1] for row in lists]
            tokens = np.fromiter(itertools.chain(*rows), np.int64)
            tokens = new[np.where(tokens < len(new), tokens, 2)]
            arrays_of[key] = tokens
            if key != "answers":
                arrays_of[f"{key[:-1]}_starts"] = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        sizes = {len(found[f"{name}_{part}"]) for part in PARTS} | {len(arrays_of["answers"])}
        if len(sizes) > 1:
            raise InputError(f"{source}: the three {name} files differ in length: {sorted(sizes)}.")
        splits[split] = arrays_of
        print(f"  {split}: {len(arrays_of['answers']):,} questions")
    splits["train"]["words"] = vocabulary.join(words)
    print(f"  vocabulary: {len(words):,} words; no test set")
    return splits
