"""Cloze questions of rc-data: which sentences are kept, what is read, counted and refused; and that
nothing in a pickle is executed."""

from collections import Counter
import gzip
import io
import itertools
import lzma
import pickle
import re
import tarfile
import zipfile

import numpy as np
import pytest

from experiments.datasets import arrays, vocabulary
from experiments.datasets.corpora import cnn
from experiments.datasets.corpora.cnn import Unusable
from ln.errors import InputError

QUESTION = """http://example.org/a

( @entity2 ) the mayor of @entity0 said that @entity1 would stay open . " it is old , " he said . \
rain fell . trains ran in 2015 ! who stays open ? @entity1 stays .

@placeholder will stay open , mayor says

@entity1

@entity0:Springfield
@entity1:Library: the old one
@entity2:CNN"""


def test_the_nearest_sentences_are_those_with_most_words_of_the_question_in_their_order():
    found = cnn.parse(QUESTION.encode())
    # words of the question: will, stay, open, mayor, says
    assert found.passage == (
        "( @entity2 ) the mayor of @entity0 said that @entity1 would stay open . "  # 3
        '" it is old , " he said . '  # 0, but the first of those
        "rain fell . "  # 0, and the second
        "who stays open ?"  # 1
    )
    assert found.question == "@placeholder will stay open , mayor says"
    assert found.answer == "@entity1" and found.before == 38 and found.entities == 3


def test_quotes_and_brackets_close_with_their_sentence():
    words = "\" go ! \" he said . ( yes . ) no ''".split()
    assert [" ".join(s) for s in cnn.sentences(words)] == [
        '" go ! "',
        "he said .",
        "( yes . )",
        "no ''",
    ]
    assert cnn.sentences(["a"]) == [["a"]]


def test_a_whole_number_is_one_word():
    assert cnn.numbered("in 2015 10.5 3rd 7".split()) == "in @number 10.5 3rd @number"


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
    ids=[
        *("missing part", "strange answer", "latin-1", "no placeholder"),
        *("no entity", "empty passage", "empty"),
    ],
)
def test_a_question_that_nobody_could_answer_is_left_out_with_the_reason(change, reason):
    with pytest.raises(Unusable, match=reason):
        cnn.parse(change(QUESTION.encode()))


def question(n: int) -> bytes:
    a, b = f"@entity{n}", f"@entity{n + 1}"
    text = f"{a} met {b} in {1900 + n} . nobody saw word{n} . {b} left ."
    return f"url\n\n{text}\n\n@placeholder met {b}\n\n{a}\n\n{a}:A\n{b}:B".encode()


FILES = {
    f"cnn/questions/{folder}/{n:040x}.question": question(n)
    for folder, numbers in dict(training=range(5), validation=(5, 6), test=(7,)).items()
    for n in numbers
}


def write(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_archive(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def texts(splits, split, what):
    words = vocabulary.split(splits["train"]["words"])
    starts, tokens = splits[split][f"{what}_starts"], splits[split][f"{what}s"]
    return [vocabulary.decode(tokens[a:b], words) for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_folder_and_archive_hold_the_same_questions(tmp_path, kind, capsys):
    source = tmp_path / "source"
    if kind == "archive":
        source = tmp_path / "cnn.tgz"
        write_archive(source, dict(reversed(FILES.items())))
    else:
        write(source, FILES)
    cnn.prepare(tmp_path / "data", source)
    splits = arrays.read(tmp_path / "data", "cnn")
    assert texts(splits, "train", "passage")[1] == (
        "@entity1 met @entity2 in @number . nobody saw ? . @entity2 left ."
    )
    assert texts(splits, "valid", "question") == [
        f"@placeholder met @entity{n + 1}" for n in (5, 6)
    ]
    words = vocabulary.split(splits["train"]["words"])
    assert [words[n - vocabulary.SPECIAL] for n in splits["test"]["answers"]] == ["@entity7"]
    assert {f"@entity{n}" for n in range(9)} <= set(words)  # also what only validation has
    assert "word0" not in words  # occurs once
    for split, count in dict(train=5, valid=2, test=1).items():
        assert {str(a.dtype) for k, a in splits[split].items() if k.endswith("starts")} == {"int64"}
        assert len(splits[split]["answers"]) == count
    printed = capsys.readouterr().out
    # One entity of two is twice there, and it is the other one.
    assert re.search(r"and is in the nearest sentences +100.0% +100.0% +100.0%\n", printed)
    assert re.search(r"and their most frequent entity +0.0% +0.0% +0.0%\n", printed)
    assert re.search(r"unknown words in passages +7.69%", printed)  # word0 and so on: 1 in 13


def test_few_bad_files_are_named_and_many_are_refused(tmp_path, capsys):
    good = {f"training/{n}.question": question(n) for n in range(30)}
    rest = {"validation/1.question": question(1), "test/2.question": question(2)}
    write(tmp_path / "few", good | rest | {f"training/bad{n}.question": b"no" for n in range(10)})
    cnn.prepare(tmp_path / "data", tmp_path / "few")
    printed = capsys.readouterr().out
    assert "left out of train: 10, 1 parts instead of 5 (bad0, bad1, bad2, …)" in printed
    write(tmp_path / "few", {"training/bad10.question": b"no"})
    with pytest.raises(InputError, match="11 of 41 questions of train cannot be used.*bad0"):
        cnn.prepare(tmp_path / "data2", tmp_path / "few")
    assert not (tmp_path / "data2").exists()


@pytest.mark.parametrize(
    "files, words",
    [
        ({}, "has no folder training"),
        ({"training/1.question": question(1)}, "has no folder validation"),
        (
            {f"{f}/x.txt": b"" for f in ("training", "validation", "test")},
            "has no .question files in training",
        ),
    ],
    ids=["nothing", "no validation", "no questions"],
)
def test_what_lacks_questions_is_refused(tmp_path, files, words):
    (tmp_path / "source").mkdir()
    write(tmp_path / "source", files)
    with pytest.raises(InputError, match=words):
        cnn.prepare(tmp_path / "data", tmp_path / "source")


def test_a_file_that_cannot_be_read_is_left_out(tmp_path):
    ((split, name, why),) = cnn.parse_all([("train", "1", tmp_path)])
    assert (split, name) == ("train", "1") and why == "cannot be read (Is a directory)"


def test_shares_are_those_of_a_loop_over_the_passages():
    random = np.random.default_rng(0)
    starts = np.cumsum([0, *random.integers(1, 12, 50)])
    tokens = random.integers(1, 9, starts[-1]).astype(np.int32)
    is_entity = np.arange(9) >= 4
    answers = random.integers(4, 9, 50).astype(np.int32)
    split = dict(passages=tokens, passage_starts=starts, answers=answers)
    survives = frequent = 0
    for (a, b), answer in zip(itertools.pairwise(starts), answers, strict=True):
        counts = Counter(n for n in tokens[a:b].tolist() if is_entity[n])
        survives += answer in counts
        frequent += bool(counts) and counts.most_common(1)[0][0] == answer
    assert cnn.is_right(split, is_entity) == (survives / 50, frequent / 50)


def cut(data: bytes) -> bytes:
    """A .tar, without the second half of its last header and all that follows."""
    return data[: data.rindex(b"ustar")]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: gzip.compress(data)[:300],
        cut,
        lambda data: gzip.compress(cut(data))[:-8],
        lambda data: lzma.compress(cut(data))[:-12],
        lambda data: gzip.compress(data)[:-8] + bytes(4) + gzip.compress(data)[-4:],
    ],
    ids=["gz", "tar in a header", "gz in a header", "xz in a header", "wrong digest"],
)
def test_a_truncated_or_damaged_archive_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "cnn.tgz"
    write_archive(path, FILES)
    path.write_bytes(damage(gzip.decompress(path.read_bytes())))
    with pytest.raises(InputError, match=r"Cannot read .*cnn\.tgz.*a whole archive\?"):
        cnn.prepare(tmp_path / "data", path)


def test_without_files_it_says_what_is_needed(tmp_path):
    with pytest.raises(InputError, match="--from=DIR.*built-in data set `stories`"):
        cnn.prepare(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        cnn.prepare(tmp_path, tmp_path / "nowhere")


# --- The authors' pickles ---

DICTIONARY = {
    b"NIL": 0,
    b"EOS": 1,
    b"UNK": 2,
    b"NUM": 3,
    b"met": 4,
    b"@entity0": 5,
    b"caf\xc3\xa9": 6,
}
PICKLES = {
    "dict": DICTIONARY,
    "train4_pass": [[5, 4, 2, 1], [4, 3, 6, 1]],
    "train4_qs": [[4, 1], [4, 4, 1]],
    "train4_ans": [[5], [5]],
    "valid4_pass": [[5, 4, 9, 1]],
    "valid4_qs": [[4, 1]],
    "valid4_ans": [[5]],
}


def python_2(value) -> bytes:
    """As Python 2 pickles texts, which are bytes there: as protocol 2 and with its text opcode."""
    if isinstance(value, dict):
        items = b"".join(b"U" + bytes([len(k)]) + k + b"K" + bytes([n]) for k, n in value.items())
        return b"\x80\x02}(" + items + b"u."
    return pickle.dumps(value, protocol=2)


def written(changes=None) -> dict[str, bytes]:
    files = {f"{name}.pkl": python_2(value) for name, value in PICKLES.items()}
    return files | (changes or {})


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_the_authors_pickles_are_read_with_their_numbers_translated(tmp_path, zipped, capsys):
    source = tmp_path / "top4"
    if zipped:
        source = tmp_path / "top4.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for name, data in written().items():
                archive.writestr(f"top4/{name}", data)
    else:
        write(source, written())
    cnn.prepare(tmp_path / "data", source)
    splits = arrays.read(tmp_path / "data", "cnn")
    assert splits.keys() == {"train", "valid"}
    assert vocabulary.split(splits["train"]["words"]) == ["@number", "met", "@entity0", "café"]
    assert texts(splits, "train", "passage") == ["@entity0 met ?", "met @number café"]
    assert texts(splits, "train", "question") == ["met", "met met"]
    assert texts(splits, "valid", "passage") == ["@entity0 met ?"]  # 9 is not in the dictionary
    np.testing.assert_array_equal(splits["valid"]["answers"], [4])
    assert re.search(r"and is in the nearest sentences +50.0% +100.0%\n", capsys.readouterr().out)


def test_texts_that_are_no_bytes_of_utf_8_are_kept():
    assert [cnn.text(word) for word in ("caf\xc3\xa9", "café", "“")] == ["café", "café", "“"]


def test_an_empty_passage_of_the_pickles_is_left_out(tmp_path, capsys):
    write(tmp_path / "top4", written({"train4_pass.pkl": pickle.dumps([[5, 1], [1]], 2)}))
    cnn.prepare(tmp_path / "data", tmp_path / "top4")
    assert len(arrays.read(tmp_path / "data", "cnn")["train"]["answers"]) == 1
    assert "left out of train: 1, empty, or not of one answer (case 1)" in capsys.readouterr().out


class Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"train4_qs.pkl": pickle.dumps(Malicious(), 2)}, "train4_qs.pkl is no pickle of plain"),
        ({"train4_qs.pkl": pickle.dumps([[1]], 2)[:-2]}, "train4_qs.pkl is no pickle of plain"),
        ({"train4_qs.pkl": pickle.dumps([1, 2], 2)}, "train4_qs.pkl must be lists of numbers"),
        ({"train4_qs.pkl": pickle.dumps([[4, 1]], 2)}, "the three train4 files differ in length"),
        ({"dict.pkl": pickle.dumps([1], 2)}, "dict.pkl must map words to numbers"),
        ({"dict.pkl": pickle.dumps({"met": 4}, 2)}, "dict.pkl has no words that begin with @ent"),
        ({"valid4_pass.pkl": pickle.dumps([[1]], 2)}, "1 of 1 questions of valid cannot be used"),
    ],
    ids=["code", "truncated", "flat", "too few", "no dictionary", "no entities", "nothing left"],
)
def test_pickles_of_anything_else_are_refused_and_not_executed(tmp_path, changes, words):
    write(tmp_path / "top4", written(changes))
    with pytest.raises(InputError, match=words):
        cnn.prepare(tmp_path / "data", tmp_path / "top4")


def test_a_missing_pickle_is_named(tmp_path):
    files = written()
    del files["valid4_ans.pkl"]
    write(tmp_path / "top4", files)
    with pytest.raises(InputError, match=r"has no valid4_ans\.pkl"):
        cnn.prepare(tmp_path / "data", tmp_path / "top4")
