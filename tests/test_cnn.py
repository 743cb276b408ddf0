"""Cloze questions of rc-data: which sentences are kept, what is read, counted and rejected; and the
authors' pickles, of which nothing is executed."""

import itertools
import pickle

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import vocabulary
from experiments.datasets.corpora import cnn
from tests.files import lay
from tests.test_datasets import refused

QUESTION = """http://example.org/a

( @entity2 ) the mayor of @entity0 said that @entity1 would stay open . " it is old , " he said . \
rain fell . trains ran in 2015 ! who stays open ? @entity1 stays .

@placeholder will stay open , mayor says

@entity1

@entity0:Springfield
@entity1:Library: the old one
@entity2:CNN"""


def test_the_four_nearest_sentences_are_kept_in_order():
    question = cnn.parse(QUESTION.encode())
    # words of the question: will, stay, open, mayor, says
    assert question[0] == (
        "( @entity2 ) the mayor of @entity0 said that @entity1 would stay open . "  # 3
        '" it is old , " he said . '  # 0, but the first of those
        "rain fell . "  # 0, and the second
        "who stays open ?"  # 1
    )
    assert question[1] == "@placeholder will stay open , mayor says"
    assert question[2] == "@entity1"


def test_quotes_and_brackets_close_with_their_sentence():
    words = "\" go ! \" he said . ( yes . ) no ''".split()
    parts = [" ".join(part) for part in cnn.sentences(words)]
    assert parts == ['" go ! "', "he said .", "( yes . )", "no ''"]
    assert cnn.sentences(["a"]) == [["a"]]


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda data: data.replace(b"\n\n@placeholder", b"\n@placeholder"), "4 parts instead of 5"),
        (lambda data: data.replace(b"\n\n@entity1\n", b"\n\n@entity7\n"), "none of its entities"),
        (lambda data: data.replace(b"rain", b"r\xe9in"), "not UTF-8"),
        (lambda data: data.replace(b"@placeholder", b"it"), "no @placeholder"),
        (lambda data: data.replace(b"\n\n@entity1\n\n", b"\n\nLib\n\nLib:x\n"), "none of its ent"),
        (lambda data: b"url\n\n\n\n" + data.split(b"\n\n", 2)[2], "empty passage"),
        (lambda data: b"", "1 parts"),
    ],
)
def test_an_unusable_question_is_rejected_with_the_reason(change, reason):
    assert reason in cnn.parse(change(QUESTION.encode()))


def question(n: int) -> bytes:
    a, b = f"@entity{n}", f"@entity{n + 1}"
    text = f"{a} met {b} in {1900 + n} . they saw word{n} . {b} left ."
    return f"url\n\n{text}\n\n@placeholder met {b}\n\n{a}\n\n{a}:A\n{b}:B".encode()


FILES = {
    f"{folder}/{n:040x}.question": question(n)
    for folder, numbers in dict(training=range(5), validation=(5, 6), test=(7,)).items()
    for n in numbers
}


def prepared(tmp_path, source):
    datasets.prepare("cnn", tmp_path / "data", source)
    return datasets.load("cnn", tmp_path / "data")


def texts(splits, split, what):
    words = vocabulary.split(splits["train"]["words"])
    starts, tokens = splits[split][f"{what}_starts"], splits[split][f"{what}s"]
    return [vocabulary.decode(tokens[a:b], words) for a, b in itertools.pairwise(starts)]


def test_questions_are_read_with_their_vocabulary(tmp_path, capsys):
    """The Daily Mail's questions are not among them."""
    files = {f"cnn/questions/{name}": data for name, data in FILES.items()}
    files["dailymail/test/1.question"] = question(1)
    splits = prepared(tmp_path, lay(tmp_path / "source", files))
    assert texts(splits, "train", "passage")[1] == (
        "@entity1 met @entity2 in @number . they saw ? . @entity2 left ."
    )
    asked = [f"@placeholder met @entity{n + 1}" for n in (5, 6)]
    assert texts(splits, "valid", "question") == asked
    words = vocabulary.split(splits["train"]["words"])
    assert [words[n - vocabulary.SPECIAL] for n in splits["test"]["answers"]] == ["@entity7"]
    assert {f"@entity{n}" for n in range(9)} <= set(words)  # also those of validation only
    assert "word0" not in words  # occurs once
    counts = {split: len(arrays["answers"]) for split, arrays in splits.items()}
    assert counts == dict(train=5, valid=2, test=1)
    assert "NOTE: train: 5 records; the original has 380,298" in capsys.readouterr().out


def test_few_unusable_questions_are_named_many_are_an_error(tmp_path, capsys):
    files = {f"training/{n}.question": question(n) for n in range(30)}
    files |= {"validation/1.question": question(1), "test/2.question": question(2)}
    files |= {f"training/bad{n}.question": b"no" for n in range(10)}
    source = lay(tmp_path / "few", files)
    prepared(tmp_path, source)
    printed = capsys.readouterr().out
    assert "train: 40, left out: 10 1 parts instead of 5 (the first: bad0)" in printed
    lay(source, {"training/bad10.question": b"no"})
    with refused("11 of 41 questions of train cannot be used", "bad0"):
        datasets.prepare("cnn", tmp_path / "new", source)
    (source / "training/bad0.question").unlink()
    (source / "test/2.question").unlink()
    with refused("There are no questions of test", "Needed: ", "`stories`"):
        datasets.prepare("cnn", tmp_path / "new", source)


# --- The authors' pickles ---

WORDS = b"NIL EOS UNK NUM met @entity0 caf\xc3\xa9".split()
PICKLES = {
    "dict": {word: n for n, word in enumerate(WORDS)},
    "train4_pass": [[5, 4, 2, 1], [4, 3, 6, 1], [1]],
    "train4_qs": [[4, 1], [4, 4, 1], [4, 1]],
    "train4_ans": [[5], [5], [5]],
    "valid4_pass": [[5, 4, 9, 1]],
    "valid4_qs": [[4, 1]],
    "valid4_ans": [[5]],
}


def python_2(value) -> bytes:
    """Return a pickle of protocol 2 with texts as bytes, as Python 2 writes it."""
    if isinstance(value, dict):
        items = b"".join(b"U" + bytes([len(k)]) + k + b"K" + bytes([n]) for k, n in value.items())
        return b"\x80\x02}(" + items + b"u."
    return pickle.dumps(value, protocol=2)


def test_the_authors_pickles_keep_their_vocabulary(tmp_path, capsys):
    files = {f"top4/{name}.pkl": python_2(value) for name, value in PICKLES.items()}
    splits = prepared(tmp_path, lay(tmp_path, files))
    assert splits.keys() == {"train", "valid"}
    assert vocabulary.split(splits["train"]["words"]) == ["@number", "met", "@entity0", "café"]
    assert texts(splits, "train", "passage") == ["@entity0 met ?", "met @number café"]
    assert texts(splits, "train", "question") == ["met", "met met"]
    assert texts(splits, "valid", "passage") == ["@entity0 met ?"]  # 9 is not in the dictionary
    np.testing.assert_array_equal(splits["valid"]["answers"], [4])
    assert "1 empty, or several answers (the first: train4, row 2)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("train4_qs", [1, 2], "as many lists of numbers"),
        ("train4_qs", [[4, 1]], "as many lists of numbers"),
        ("dict", [1], "dict.pkl to map words to numbers"),
        ("dict", {"met": "4"}, "dict.pkl to map words to numbers"),
        ("valid4_pass", [[1]], "1 of 1 questions of valid cannot be used"),
        ("valid4_ans", print, "valid4_ans.pkl is no pickle of plain data"),
        ("valid4_ans", None, "valid4_ans.pkl is missing"),
    ],
)
def test_other_pickles_are_rejected_by_name(tmp_path, name, value, words):
    files = {f"{key}.pkl": python_2(data) for key, data in PICKLES.items()}
    files[f"{name}.pkl"] = pickle.dumps(value, protocol=2)
    if value is None:
        del files[f"{name}.pkl"]
    with refused(words):
        prepared(tmp_path, lay(tmp_path / "top4", files))
