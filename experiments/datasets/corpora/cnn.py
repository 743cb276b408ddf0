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
frequent first, and all entities; whole numbers are one word, ``@number``. Entities keep the numbers
that they have in the files.

The pickles come from strangers: nothing in them is executed, and anything but lists, dictionaries,
texts and whole numbers is refused. They have no test set, and neither have the arrays then; their
vocabulary is dict.pkl's, by its numbers.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
import itertools
from pathlib import Path
import re
from typing import NamedTuple
import zipfile

import numpy as np

from experiments.datasets import Dataset, arrays, cloze, pickles, vocabulary
from experiments.datasets.cloze import ENTITY, PLACEHOLDER
from experiments.datasets.originals import Source
from ln.errors import InputError

SENTENCES = 4
NUMBER = "@number"
SPLITS = dict(training="train", validation="valid", test="test")  # folder -> split
TOP4 = dict(train4="train", valid4="valid")
PARTS = {"pass": "passages", "qs": "questions", "ans": "answers"}
EOS, UNK, NUM = 1, 2, 3  # the authors' numbers; NIL is 0
DROPPED_AT_MOST = 0.01  # of the questions of a split, or
DROPPED_ANYWAY = 10
CHUNK = 500  # questions that a thread gets at a time


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


def read(source: Source) -> arrays.Splits:
    """The splits of a folder or archive. Prints what was read and what was left out, and why."""
    return read_pickles(source) if has_pickles(source.path) else read_questions(source)


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
    known = {line.split(":", 1)[0] for line in names.split("\n")}
    if not (answer in known and answer.startswith(ENTITY)):
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
        except OSError as error:
            found.append((split, name, f"cannot be read ({error.strerror})"))
    return found


def files_of(source: Source) -> Iterator[tuple[str, str, bytes]]:
    """Split, name, and contents, of the question files of a folder or archive."""
    for name, file in source.files(NAME):
        match = NAME.fullmatch(name)
        yield SPLITS[match[1]], match[2], file.read()


def read_questions(source: Source) -> arrays.Splits:
    """The splits of question files.

    Raises:
        InputError: a split is missing or empty, or too many of its files cannot be used.
    """
    used: dict[str, list[tuple[str, Question]]] = {split: [] for split in SPLITS.values()}
    dropped: Dropped = {split: [] for split in SPLITS.values()}
    files = files_of(source)
    chunks = iter(lambda: list(itertools.islice(files, CHUNK)), [])
    # Threads: parsing is Python, but as fast as in two processes, which hand all texts over.
    with ThreadPoolExecutor() as pool:
        for found in bounded_map(pool, parse_all, chunks):
            for split, name, question in found:
                (dropped if isinstance(question, str) else used)[split].append((name, question))
    for folder, split in SPLITS.items():
        if not used[split] and not dropped[split]:
            raise InputError(f"{source.path} has no .question files in {folder}.")
        check(source.path, split, len(used[split]), dropped[split])
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
    whole = {
        split: {
            "words in the whole passage, mean": f"{np.mean([case.before for case in found]):.1f}",
            "… at most": f"{max(case.before for case in found):,}",
            "entities in it, mean": f"{np.mean([case.entities for case in found]):.1f}",
        }
        for split, found in cases.items()
    }
    print(summary(splits, dropped, whole))
    return splits


def bounded_map(pool, function, items: Iterator) -> Iterator:
    """As pool.map, but takes items only as results are taken: they need not fit into memory."""
    waiting = [pool.submit(function, item) for item in itertools.islice(items, 8)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(function, item) for item in itertools.islice(items, 1)]


# --- What both have in common ---

Dropped = dict[str, list[tuple[str, str]]]  # split -> names and reasons


def check(source: Path, split: str, used: int, dropped: list[tuple[str, str]]) -> None:
    """Refuses a split of which too much cannot be used.

    Raises:
        InputError: more than a few, and more than a small share.
    """
    total = used + len(dropped)
    if len(dropped) > max(DROPPED_ANYWAY, DROPPED_AT_MOST * total) or not used:
        name, why = dropped[0] if dropped else ("none", "there are none")
        raise InputError(
            f"{source}: {len(dropped):,} of {total:,} questions of {split} cannot be used, "
            f"the first, {name}, because: {why}."
        )


def is_right(split: Mapping[str, np.ndarray], is_entity: np.ndarray) -> tuple[float, float]:
    """In which share of a split the answer is in the passage, and is its most frequent entity.

    Of equally frequent entities the one that comes first counts.

    Args:
        split: its arrays.
        is_entity: of each number of the vocabulary, bool ``[V]``.
    """
    tokens, starts, answers = split["passages"], split["passage_starts"], split["answers"]
    case = np.repeat(np.arange(len(answers)), np.diff(starts))
    survives = np.logical_or.reduceat(tokens == answers[case], starts[:-1])
    at = np.flatnonzero(is_entity[tokens])
    pairs = case[at] * len(is_entity) + tokens[at]  # int64: of case and entity
    pairs, first, counts = np.unique(pairs, return_index=True, return_counts=True)
    case, entity = np.divmod(pairs, len(is_entity))
    order = np.lexsort((first, -counts, case))
    case, best = np.unique(case[order], return_index=True)
    frequent = entity[order][best] == answers[case]
    return float(survives.mean()), float(frequent.sum() / len(answers))


def summary(splits: arrays.Splits, dropped: Dropped, more: Mapping[str, Mapping]) -> str:
    """A table of what was read and left out, and how hard the questions are.

    Args:
        splits: their arrays.
        dropped: what was left out of each.
        more: rows of each to print first.
    """
    words = vocabulary.split(splits["train"]["words"])
    is_entity = np.array([False] * vocabulary.SPECIAL + [w.startswith(ENTITY) for w in words])
    rows: dict[str, list[str]] = {}
    for split, found in splits.items():
        lengths, asked = np.diff(found["passage_starts"]), np.diff(found["question_starts"])
        unknown = np.mean(found["passages"] == vocabulary.UNKNOWN)
        survives, frequent = is_right(found, is_entity)
        for name, value in {
            "questions": f"{len(lengths):,}",
            "left out": f"{len(dropped[split]):,}",
            **more.get(split, {}),
            "words in the nearest sentences, mean": f"{lengths.mean():.1f}",
            "… at most ": f"{lengths.max():,}",
            "words in the question, mean": f"{asked.mean():.1f}",
            "unknown words in passages": f"{unknown:.2%}",
            "the answer is an entity": f"{is_entity[found['answers']].mean():.1%}",
            "… and is in the nearest sentences": f"{survives:.1%}",
            "… and their most frequent entity": f"{frequent:.1%}",
        }.items():
            rows.setdefault(name, []).append(value)
    width = max(map(len, rows))
    lines = [" " * (width + 2) + "".join(f"{split:>12}" for split in splits)]
    lines += [f"  {name:<{width}}" + "".join(f"{v:>12}" for v in row) for name, row in rows.items()]
    lines.append(f"  vocabulary: {len(words):,} words, {is_entity.sum():,} of them entities")
    for split, left_out in dropped.items():
        for why, count in Counter(why for _, why in left_out).most_common():
            names = [name for name, reason in left_out if reason == why]
            some = ", ".join(names[:3]) + (", …" if names[3:] else "")
            lines.append(f"  left out of {split}: {count:,}, {why} ({some})")
    return "\n".join(lines)


# --- The authors' pickles ---


def has_pickles(source: Path) -> bool:
    """Whether a folder or archive has any of them."""
    if source.is_dir():
        return any(PICKLE.fullmatch(path.name) for path in source.iterdir())
    try:
        with zipfile.ZipFile(source) as archive:
            return any(map(PICKLE.fullmatch, archive.namelist()))
    except zipfile.BadZipFile:
        return False


def read_pickles(source: Source) -> arrays.Splits:
    """The splits of the authors' pickles; there is no test set among them.

    Raises:
        InputError: a file is missing, or does not hold what it should.
    """
    found = {}
    for name, file in source.files(PICKLE):
        found[PICKLE.fullmatch(name)[1]] = pickles.load(f"{source.path}/{name}", file.read())
    wanted = ["dict", *(f"{split}_{part}" for split in TOP4 for part in PARTS)]
    if lacking := [f"{name}.pkl" for name in wanted if name not in found]:
        raise InputError(f"{source.path} has no {', '.join(lacking)}.")

    known = found["dict"]
    is_dict = isinstance(known, dict) and all(
        isinstance(word, str) and "\n" not in word and type(n) is int for word, n in known.items()
    )
    if not is_dict:
        raise InputError(f"{source.path}: dict.pkl must map words to numbers.")
    word_of = {n: text(word) for word, n in known.items() if n > UNK} | {NUM: NUMBER}
    words = [word_of[n] for n in sorted(word_of)]
    if not any(word.startswith(ENTITY) for word in words):
        raise InputError(f"{source.path}: dict.pkl has no words that begin with {ENTITY}.")
    ours = {n: number for number, n in enumerate(sorted(word_of), start=vocabulary.SPECIAL)}

    splits: dict[str, dict[str, np.ndarray]] = {}
    dropped: Dropped = {split: [] for split in TOP4.values()}
    for name, split in TOP4.items():
        parts = []
        for part in PARTS:
            lists = found.pop(f"{name}_{part}")
            is_lists = isinstance(lists, list) and all(
                isinstance(row, list) and all(type(n) is int and n >= 0 for n in row)
                for row in lists
            )
            if not is_lists:
                raise InputError(f"{source.path}: {name}_{part}.pkl must be lists of numbers.")
            parts.append(
                [[ours.get(n, vocabulary.UNKNOWN) for n in row if n > EOS] for row in lists]
            )
        if len(set(map(len, parts))) > 1:
            sizes = ", ".join(f"{len(rows):,}" for rows in parts)
            raise InputError(f"{source.path}: the three {name} files differ in length: {sizes}.")
        cases = []
        for row, case in enumerate(zip(*parts, strict=True)):
            if case[0] and case[1] and len(case[2]) == 1:
                cases.append(case)
            else:
                dropped[split].append((f"case {row}", "empty, or not of one answer"))
        check(source.path, split, len(cases), dropped[split])
        splits[split] = {}
        for rows, part in zip(zip(*cases, strict=True), PARTS.values(), strict=True):
            splits[split][part] = np.fromiter(itertools.chain(*rows), np.int32)
            if part != "answers":
                starts = np.cumsum([0, *map(len, rows)], dtype=np.int64)
                splits[split][f"{part[:-1]}_starts"] = starts
    splits["train"]["words"] = vocabulary.join(words)
    print(summary(splits, dropped, {}), "  no test set", sep="\n")
    return splits


def text(word: str) -> str:
    """What a text of Python 2, whose bytes were taken for Latin-1, says if it was UTF-8."""
    try:
        return word.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return word


DATASET = Dataset(
    title="cloze questions in the format of rc-data",
    read=read,
    needs="folders questions/{training,validation,test} with .question files, or an archive of "
    "them, or the authors' top4.zip",
    budget=2**32,
    url="https://cs.nyu.edu/~kcho/DMQA/",
)
