"""The files of the five sentence tasks, and the built-in tasks that replace them."""

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import vocabulary
from experiments.datasets.corpora import sentences
from experiments.datasets.synthetic import library
from tests.files import lay
from tests.test_datasets import refused

HEAD = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
ROWS = "1\tA dog runs\tA cat runs \t3.5\tNEUTRAL\n2\tOne\tTwo\t1\tNEUTRAL\n"


FILES = {f"deeper/{name}": f"good {n} .\nfine {n} .\n" for n, name in enumerate(sentences.FILES)}
FILES |= {f"deeper/{name}": HEAD + ROWS for name in sentences.SICK.values()}
FILES |= {"deeper/SICK_trial.txt": ROWS, "deeper/custrev.neg": "bad .\n\n  \nworse\x85 ."}
FILES = {name: data.encode() for name, data in FILES.items()}
FILES["deeper/rt-polarity.pos"] = b"a caf\xe9 .\nsecond .\n"
MR = {name: data for name, data in FILES.items() if "polarity" in name}


@pytest.fixture
def files(tmp_path):
    """Return small originals, in their encodings."""
    return lay(tmp_path / "original", FILES) / "deeper"


def prepared(tmp_path):
    datasets.prepare("sentences", tmp_path / "data", tmp_path / "original")
    return datasets.load("sentences", tmp_path / "data")


def test_class_1_comes_first_in_either_encoding(tmp_path, files, capsys):
    splits = prepared(tmp_path)
    assert vocabulary.split(splits["mr"]["text"])[:2] == ["a café .", "second ."]
    assert splits["mr"]["labels"].tolist() == [1, 1, 0, 0]
    assert splits["cr"]["labels"].tolist() == [1, 1, 0, 0]  # without blank lines
    assert vocabulary.split(splits["subj"]["text"])[0] == "good 4 ."  # plot.tok.gt9.5000
    assert "NOTE: mr: 4 records; the original has 10,662" in capsys.readouterr().out


def test_pairs_are_side_by_side(tmp_path, files):
    """With or without a header."""
    splits = prepared(tmp_path)
    for split in sentences.SICK:
        texts = vocabulary.split(splits[split]["text"])
        assert texts == ["A dog runs", "A cat runs", "One", "Two"]
        assert splits[split]["scores"].tolist() == [3.5, 1.0]


NAMES = {
    "plot.tok.gt9.5000": "subj.objective",
    "quote.tok.gt9.5000": "subj.subjective",
    "rt-polarity.pos": "rt-polarity.pos.txt",
    "SICK_train.txt": "sick_train.TXT",
}


def test_other_names_are_known(tmp_path, files):
    for name, new in NAMES.items():
        (files / name).rename(files / new)
    assert {"subj", "mr", "sick_train"} <= prepared(tmp_path).keys()


BROKEN = {
    "columns": ("SICK_train.txt", f"{HEAD}\n3\tonly one\t3.0\tNEUTRAL\n", "expected a number, two"),
    "score": ("SICK_train.txt", "3\ta\tb\t6\tNEUTRAL\n", "found '3\\ta\\tb\\t6"),
    "nan": ("SICK_train.txt", "3\ta\tb\tnan\tNEUTRAL\n", "SICK_train.txt: expected"),
    "head": ("SICK_train.txt", HEAD, "no records in sick_train"),
    "empty": ("mpqa.neg", "\n", "mpqa.neg has no text"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_rejected_by_name(tmp_path, files, kind):
    name, contents, message = BROKEN[kind]
    (files / name).write_text(contents)
    with refused(message, "Needed: ", "`library`"):
        prepared(tmp_path)


def test_a_task_may_be_missing_but_not_all(tmp_path, files, capsys):
    (files / "mpqa.neg").unlink()
    assert "mpqa" not in prepared(tmp_path)
    assert "mpqa left out" in capsys.readouterr().out
    for path in files.iterdir():
        path.unlink()
    with refused("all files of no task"):
        datasets.prepare("sentences", tmp_path / "new", files)


def test_relatedness_counts_shared_words():
    assert library.related("a b c d", "a b c d") == 5
    assert library.related("a b c d", "e f") == 1
    assert library.related("a b a d", "a x y z") == 2
    split = library.pairs(["one two three", "four five"], 20, np.random.default_rng(0))
    assert len(vocabulary.split(split["text"])) == 40
    assert set(np.round(split["scores"], 3)) > {1.0, 5.0}
