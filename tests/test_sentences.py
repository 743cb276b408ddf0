"""The files of the five sentence tasks, and the built-in tasks that stand in for them."""

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import vocabulary
from experiments.datasets.corpora import sentences
from experiments.datasets.synthetic import library
from ln.errors import InputError

HEAD = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment"
SICK = f"{HEAD}\n1\tA dog runs\tA cat runs\t3.5\tNEUTRAL\n2\tOne\tTwo\t1\tNEUTRAL\n"


@pytest.fixture
def files(tmp_path):
    """The originals in small, in their encodings."""
    folder = tmp_path / "original" / "deeper"
    folder.mkdir(parents=True)
    for n, name in enumerate(sentences.COUNTS):
        (folder / name).write_bytes(f"good {n} .\nfine {n} .\n".encode())
    for name in sentences.SICK.values():
        (folder / name).write_text(SICK)
    (folder / "rt-polarity.pos").write_bytes(b"a caf\xe9 .\nsecond .\n")
    (folder / "custrev.neg").write_bytes(b"bad .\n\n  \nworse\xc2\x85 .")
    (folder / "SICK_test_annotated.txt").write_bytes(SICK.replace("\n", "\r\n").encode())
    return folder


def prepared(tmp_path):
    datasets.prepare("sentences", tmp_path / "data", tmp_path / "original")
    return datasets.load("sentences", tmp_path / "data")


def test_tasks_of_two_classes_have_class_1_first_in_either_encoding(tmp_path, files):
    splits = prepared(tmp_path)
    assert vocabulary.split(splits["mr"]["text"])[:2] == ["a café .", "second ."]
    assert splits["mr"]["labels"].tolist() == [1, 1, 0, 0]
    assert vocabulary.split(splits["subj"]["text"])[0] == "good 4 ."  # plot.tok.gt9.5000


def test_blank_lines_are_left_out_and_told_of_and_unusual_counts_too(tmp_path, files, capsys):
    splits = prepared(tmp_path)
    assert splits["cr"]["labels"].tolist() == [1, 1, 0, 0]
    shown = capsys.readouterr().out
    assert "2 blank line(s)" in shown and "the original has 5,331" in shown and "cp1252" in shown


def test_pairs_have_their_sentences_side_by_side_whatever_ends_the_lines(tmp_path, files):
    splits = prepared(tmp_path)
    for split in ("sick_train", "sick_valid", "sick_test"):
        found = vocabulary.split(splits[split]["text"])
        assert found == ["A dog runs", "A cat runs", "One", "Two"]
        assert splits[split]["scores"].tolist() == [3.5, 1.0]


@pytest.mark.parametrize(
    "broken, message",
    [
        ("3\tonly one\t3.0\tNEUTRAL", "SICK_train.txt, line 4: expected"),
        ("3\ta\tb\t6\tNEUTRAL", "SICK_train.txt, line 4: expected"),
        ("3\ta\tb\tnan\tNEUTRAL", "SICK_train.txt, line 4: expected"),
    ],
    ids=["columns", "score", "nan"],
)
def test_a_broken_line_is_named(tmp_path, files, broken, message):
    (files / "SICK_train.txt").write_text(SICK + broken + "\n")
    with pytest.raises(InputError, match=message):
        prepared(tmp_path)


def test_half_a_task_is_refused_and_a_whole_one_may_be_missing(tmp_path, files, capsys):
    (files / "mpqa.pos").unlink()
    with pytest.raises(InputError, match=r"mpqa: mpqa.pos\)"):
        prepared(tmp_path)
    (files / "mpqa.neg").unlink()
    assert "mpqa" not in prepared(tmp_path)
    assert "mpqa left out" in capsys.readouterr().out
    for path in files.iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"mr: rt-polarity.pos.*SICK_trial"):
        sentences.find(files)


def test_a_file_that_is_there_twice_or_in_no_known_encoding_is_refused(tmp_path, files):
    (files / "mpqa.neg").write_bytes(b"fine .\nno \x81 text .\n")
    with pytest.raises(InputError, match=r"mpqa.neg, line 2: b'\\x81' is neither"):
        prepared(tmp_path)
    (files.parent / "mpqa.neg").write_text("fine .\n")
    with pytest.raises(InputError, match="several mpqa.neg"):
        prepared(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        sentences.find(files / "mpqa.neg")
    with pytest.raises(InputError, match="--from=DIR"):
        datasets.prepare("sentences", tmp_path / "data")


def test_relatedness_counts_the_words_that_two_sentences_share():
    assert library.related("a b c d", "a b c d") == 5
    assert library.related("a b c d", "e f") == 1
    assert library.related("a b a d", "a x y z") == 2
    found = library.pairs(["one two three", "four five"], 20, np.random.default_rng(0))
    texts = vocabulary.split(found["text"])
    assert len(texts) == 40 and set(np.round(found["scores"], 3)) > {1.0, 5.0}


def test_the_built_in_tasks_are_those_of_two_classes_and_pairs():
    of = [f"sentence {n}" for n in range(5000)]
    found = library.classes(of, of[:10])
    assert found["labels"].sum() == 1000 and len(found["labels"]) == 1010
    assert vocabulary.split(found["text"])[0] == of[0]
