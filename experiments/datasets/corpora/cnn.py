"""Read cloze questions about news: the CNN corpus of Hermann et al. (2015), and its format.

The source is a folder or an archive with either of

    questions/{training,validation,test}/*.question    as deepmind/rc-data makes them
    dict.pkl, {train4,valid4}_{pass,qs,ans}.pkl        the authors' own passages of four sentences,
                                                       top4.zip

A question file has five parts with an empty line between: the address, the passage, the question,
the answer, and the entities, ``@entity3:their name`` a line. Passage and question are lower-case
tokens with blanks between; the numbers of entities mean nothing; ``@placeholder`` is asked for.

Of a passage the four sentences nearest to the question are kept ("top4"), in their order. The
authors do not say what nearest means. Here a sentence ends with ``.``, ``!`` or ``?`` and the
quotes or brackets that close behind it; it is the nearer, the more different words of the question
it has, not counting punctuation and @placeholder; of equals the first is nearest.

The vocabulary has the words that occur more than once in the shortened training set, the most
frequent first, and all entities. Whole numbers are one word, ``@number``. Entities keep their
numbers.

The pickles come from strangers: `pickles.load` runs no code in them. They have no test set, so the
data set has none; their vocabulary is that of dict.pkl, in the order of its numbers.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import io
import itertools
import re
from typing import Any

from experiments.datasets import Dataset, arrays, cloze, pickles, text, vocabulary
from experiments.datasets.cloze import ENTITY, PLACEHOLDER
from experiments.datasets.originals import Source, compare
from ln.errors import InputError

SENTENCES = 4
NUMBER = "@number"
SPLITS = dict(training="train", validation="valid", test="test")  # folder -> split
COUNTS = dict(train=380_298, valid=3_924, test=3_198)  # questions of CNN
TOP4 = dict(train="train4", valid="valid4")  # split -> first part of the names of its pickles
PARTS = ("pass", "qs", "ans")
EOS, UNK, NUM = 1, 2, 3  # the authors' numbers; NIL is 0
NO_WORD = "@unknown"  # a number of the authors' without a word
ENDS = frozenset(".!?")
CLOSING = frozenset(("'", "''", '"', "”", "’", ")", "]"))
DROPPED = 0.01  # of the questions of a split may be unusable, or 10 if these are more

# The Daily Mail questions have the same names; people keep them beside CNN's.
QUESTION = re.compile(
    r"(?!.*dailymail/)(?:.*/)?(?P<folder>training|validation|test)/(?P<name>[^/]+)\.question"
)
PICKLE = re.compile(r"(?:.*/)?(?P<pickle>dict|(?:train4|valid4)_(?:pass|qs|ans))\.pkl")
FILE = re.compile(f"{QUESTION.pattern}|{PICKLE.pattern}")


Question = tuple[str, str, str]  # passage, question and answer: words with one blank between
Questions = dict[str, list[Question]]  # by split
Dropped = dict[str, list[str]]  # why questions are left out, by split


def read(source: Source) -> arrays.Splits:
    """Return the splits of a source; print how many questions are left out, and why.

    Raises:
        InputError: files are missing, or too many cannot be used.
    """
    questions, dropped, pickled = read_files(source)
    if pickled:
        questions, dropped, words = from_pickles(pickled)
    else:
        words = vocabulary_of(questions)
        for split, count in COUNTS.items():
            compare(f"questions of {split}", len(questions[split]), count)
    for split in questions:
        check(split, len(questions[split]), dropped[split])
    splits = {
        split: cloze.pack(zip(*used, strict=True), words) for split, used in questions.items()
    }
    splits["train"]["words"] = vocabulary.join(words)
    return splits


def read_files(source: Source) -> tuple[Questions, Dropped, dict[str, Any]]:
    """Return the questions of question files, why some are left out, and the data of pickles."""
    named: dict[str, dict[str, Question]] = {split: {} for split in SPLITS.values()}
    dropped: Dropped = {split: [] for split in named}
    pickled: dict[str, Any] = {}
    for path, file in source.files(FILE):
        match = FILE.fullmatch(path)
        assert match, "files yields no others"
        folder, name, pickle = match.group("folder", "name", "pickle")
        data = file.read()
        if pickle:
            pickled[pickle] = pickles.load(path, data)
            continue
        try:
            named[SPLITS[folder]][name] = parse(name, data)
        except InputError as error:
            dropped[SPLITS[folder]].append(str(error))
    # In the order of their names, which an archive need not have.
    questions = {split: [files[name] for name in sorted(files)] for split, files in named.items()}
    return questions, dropped, pickled


def check(split: str, used: int, dropped: Sequence[str]) -> None:
    """Raise an InputError if a split has no questions or too many that cannot be used."""
    total = used + len(dropped)
    if not total:
        raise InputError(f"There are no questions of {split}.")
    if not used or len(dropped) > max(10, DROPPED * total):
        raise InputError(
            f"{len(dropped):,} of {total:,} questions of {split} cannot be used. The first: "
            f"{dropped[0]}"
        )
    if dropped:
        print(f"  left out of {split}: {len(dropped):,}. The first: {text.clean(dropped[0])}")


# --- Questions ---


def parse(name: str, data: bytes) -> Question:
    """Return the question of a file.

    Raises:
        InputError: the file has another format, or nobody could answer the question.
    """
    parts = "\n".join(text.lines(io.BytesIO(data), name)).rstrip("\n").split("\n\n")
    if len(parts) != 5:
        raise InputError(f"{name}: {len(parts)} parts instead of 5.")
    _, passage, question, answer, names = parts
    entities = {line.split(":", 1)[0] for line in names.split("\n")}
    asked = question.split()
    if not passage:
        raise InputError(f"{name}: empty passage.")
    if PLACEHOLDER not in asked:
        raise InputError(f"{name}: no {PLACEHOLDER} in the question.")
    if answer not in entities or not answer.startswith(ENTITY):
        raise InputError(f"{name}: the answer is none of its entities.")
    return numbered(nearest(passage.split(), asked)), numbered(asked), answer


def numbered(words: Iterable[str]) -> str:
    return " ".join(NUMBER if word.isdigit() else word for word in words)


def nearest(passage: list[str], question: list[str]) -> list[str]:
    """Return the words of the sentences nearest to a question, in their order."""
    asked = {word for word in question if word != PLACEHOLDER and any(map(str.isalnum, word))}
    parts = sentences(passage)
    order = sorted(range(len(parts)), key=lambda n: -len(asked & set(parts[n])))
    return [word for n in sorted(order[:SENTENCES]) for word in parts[n]]


def sentences(words: list[str]) -> list[list[str]]:
    """Return a text, cut behind each end of a sentence and the quotes or brackets there."""
    parts: list[list[str]] = [[]]
    ended = False
    for word in words:
        if ended and word not in CLOSING:
            parts.append([])
            ended = False
        parts[-1].append(word)
        ended = ended or word in ENDS
    return parts


def vocabulary_of(questions: Questions) -> list[str]:
    """Return the words of the training set that occur more than once, and all entities."""
    counts = Counter(words_of(questions["train"]))
    every = (word for used in questions.values() for word in words_of(used))
    entities = {word for word in every if word.startswith(ENTITY)}
    words = [word for word, count in counts.most_common() if count > 1 or word in entities]
    return words + sorted(entities - set(words))


def words_of(questions: Iterable[Question]) -> Iterator[str]:
    return (word for part in itertools.chain(*questions) for word in part.split(" "))


# --- The authors' pickles ---


def from_pickles(pickled: Mapping[str, Any]) -> tuple[Questions, Dropped, list[str]]:
    """Return the questions of the pickles, why some are left out, and the vocabulary.

    Raises:
        InputError: a pickle is missing, or has other data.
    """
    questions: Questions = {split: [] for split in TOP4}
    dropped: Dropped = {split: [] for split in TOP4}
    try:
        word_of = {n: python_3(word) for word, n in pickled["dict"].items() if n > UNK}
        word_of[NUM] = NUMBER
        for split, name in TOP4.items():
            parts = [texts_of(pickled[f"{name}_{part}"], word_of) for part in PARTS]
            for row, question in enumerate(zip(*parts, strict=True)):
                if all(question) and " " not in question[-1]:
                    questions[split].append(question)
                else:
                    dropped[split].append(f"{name}, row {row}: empty, or several answers.")
    except KeyError as error:
        raise InputError(f"{error.args[0]}.pkl is missing.") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            "Expected dict.pkl to map words to numbers, and the others to have as many lists of "
            f"numbers each ({error})."
        ) from error
    return questions, dropped, [word_of[n] for n in sorted(word_of)]


def texts_of(rows: Iterable[Iterable[int]], word_of: Mapping[int, str]) -> list[str]:
    """Return the lists of numbers of a pickle as texts, without ends."""
    return [" ".join(word_of.get(n, NO_WORD) for n in row if n > EOS) for row in rows]


def python_3(word: str) -> str:
    """Return a text of Python 2, whose bytes were read as Latin-1, if it was UTF-8; one word."""
    with contextlib.suppress(UnicodeError):  # it was a text already
        word = word.encode("latin-1").decode("utf-8")
    return re.sub("[ \n]", "_", text.clean(word))


DATASET = Dataset(
    title="cloze questions in the format of rc-data",
    read=read,
    needs="folders questions/{training,validation,test} with .question files, or an archive of "
    "them, or the authors' top4.zip",
    budget=2**32,
    url="https://cs.nyu.edu/~kcho/DMQA/",
)
