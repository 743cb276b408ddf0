"""Read cloze questions about news: the CNN corpus of Hermann et al. (2015), and its format.

The source is a folder or an archive with either of

    questions/{training,validation,test}/*.question    as deepmind/rc-data makes them
    dict.pkl, {train4,valid4}_{pass,qs,ans}.pkl        the authors' own passages of four sentences,
                                                       top4.zip

A question file has five parts with an empty line between: the address, the passage, the question,
the answer, and the entities, ``@entity3:their name`` a line. Passage and question are tokens in
small letters with blanks between. The numbers of entities mean nothing; ``@placeholder`` is asked
for.

The four sentences of a passage that are nearest to the question are kept ("top4"), in their order.
The authors do not say what nearest means. Here a sentence ends with ``.``, ``!`` or ``?`` and the
quotes or brackets that close behind it; it is the nearer, the more different words of the question
it has, not counting punctuation and @placeholder; of equals the first is nearest.

The vocabulary has the words that occur more than once in the shortened training set, the most
frequent first, and all entities. Whole numbers are one word, ``@number``. Entities keep their
numbers.

The pickles are not trusted: `pickles.load` runs no code in them. They have no test set, so the
data set has none; their vocabulary is that of dict.pkl, in the order of its numbers.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
import contextlib
import io
import itertools
import re
from typing import Any

from experiments.datasets import Dataset, arrays, cloze, pickles, text, vocabulary
from experiments.datasets.cloze import ENTITY, PLACEHOLDER
from experiments.datasets.originals import Source, usable
from ln.errors import InputError

SENTENCES = 4
NUMBER = "@number"
SPLITS = dict(training="train", validation="valid", test="test")  # folder -> split
TOP4 = dict(train="train4", valid="valid4")  # split -> first part of the names of its pickles
PARTS = ("pass", "qs", "ans")
EOS, UNK, NUM = 1, 2, 3  # the authors' numbers; NIL is 0
NO_WORD = "@unknown"  # a number of the authors' without a word
ENDS = frozenset(".!?")
CLOSING = frozenset(("'", "''", '"', "”", "’", ")", "]"))
MOST, FEW = 0.01, 10  # this share of a split's questions may be left out, or ten if that is more

# The Daily Mail questions have the same names; people keep them beside CNN's.
QUESTION = re.compile(
    r"(?!.*dailymail/)(?:.*/)?(?P<folder>training|validation|test)/(?P<name>[^/]+)\.question"
)
PICKLE = re.compile(r"(?:.*/)?(?P<pickle>dict|(?:train4|valid4)_(?:pass|qs|ans))\.pkl")
FILE = re.compile(f"{QUESTION.pattern}|{PICKLE.pattern}")


Question = tuple[str, str, str]  # passage, question and answer: words with one blank between
Records = dict[str, Question | str]  # name -> question, or why it cannot be used


def read(source: Source) -> arrays.Splits:
    """Return the splits of a source; print how many questions are left out, and why.

    Raises:
        InputError: files are missing, or too many cannot be used.
    """
    records: dict[str, Records] = {split: {} for split in SPLITS.values()}
    pickled: dict[str, Any] = {}
    for match, file in source.files(FILE):
        folder, name, pickle = match.group("folder", "name", "pickle")
        if pickle:
            pickled[pickle] = pickles.load(match[0], file.read())
        else:
            records[SPLITS[folder]][name] = parse(file.read())
    if pickled:
        records, words = from_pickles(pickled)
    else:  # in the order of their names, which an archive need not have
        records = {split: dict(sorted(files.items())) for split, files in records.items()}
    questions = {
        split: usable(f"questions of {split}", named.items(), MOST, FEW)
        for split, named in records.items()
    }
    words = words if pickled else vocabulary_of(questions)
    splits = {
        split: cloze.pack(zip(*used, strict=True), words) for split, used in questions.items()
    }
    splits["train"]["words"] = vocabulary.join(words)
    return splits


# --- Questions ---


def parse(data: bytes) -> Question | str:
    """Return the question of a file, or why it cannot be used."""
    try:
        rows = list(text.lines(io.BytesIO(data), ""))
    except InputError:
        return "not UTF-8"
    parts = "\n".join(rows).rstrip("\n").split("\n\n")
    if len(parts) != 5:
        return f"{len(parts)} parts instead of 5"
    _, passage, question, answer, names = parts
    entities = {line.split(":", 1)[0] for line in names.split("\n")}
    asked = question.split()
    if not passage:
        return "empty passage"
    if PLACEHOLDER not in asked:
        return f"no {PLACEHOLDER} in the question"
    if answer not in entities or not answer.startswith(ENTITY):
        return "the answer is none of its entities"
    return numbered(nearest(passage.split(), asked)), numbered(asked), answer


def numbered(words: Iterable[str]) -> str:
    """Return words as a text in which whole numbers are one word."""
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


def vocabulary_of(questions: Mapping[str, list[Question]]) -> list[str]:
    """Return the words of the training set that occur more than once, and all entities."""
    counts = Counter(words_of(questions["train"]))
    every = (word for used in questions.values() for word in words_of(used))
    entities = {word for word in every if word.startswith(ENTITY)}
    words = [word for word, count in counts.most_common() if count > 1 or word in entities]
    return words + sorted(entities - set(words))


def words_of(questions: Iterable[Question]) -> Iterator[str]:
    """Yield the words of passages, questions and answers."""
    return (word for part in itertools.chain(*questions) for word in part.split(" "))


# --- The authors' pickles ---


def from_pickles(pickled: Mapping[str, Any]) -> tuple[dict[str, Records], list[str]]:
    """Return the questions of the pickles, and the vocabulary.

    Raises:
        InputError: a pickle is missing, or has other data.
    """
    records: dict[str, Records] = {}
    try:
        word_of = {n: python_3(word) for word, n in pickled["dict"].items() if n > UNK}
        word_of[NUM] = NUMBER
        for split, name in TOP4.items():
            parts = [texts_of(pickled[f"{name}_{part}"], word_of) for part in PARTS]
            records[split] = {
                f"{name}, row {row}": question
                if all(question) and " " not in question[-1]
                else "empty, or several answers"
                for row, question in enumerate(zip(*parts, strict=True))
            }
    except KeyError as error:
        raise InputError(f"{error.args[0]}.pkl is missing.") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            "Expected dict.pkl to map words to numbers, and the others to have as many lists of "
            f"numbers each ({error})."
        ) from error
    return records, [word_of[n] for n in sorted(word_of)]


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
    records=dict(train=380_298, valid=3_924, test=3_198),
    url="https://cs.nyu.edu/~kcho/DMQA/",
)
