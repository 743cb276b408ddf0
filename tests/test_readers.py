"""All readers of original files: each bears the same harmless changes, and rejects each fault."""

import dataclasses
import gzip
import os
import re

import pytest

from experiments import datasets
from experiments.datasets import arrays
from tests import (
    test_books,
    test_cifar10,
    test_cnn,
    test_coco,
    test_datasets,
    test_iam,
    test_sentences,
)
from tests.files import PACKED, lay
from tests.test_datasets import names, refused

READERS = {  # data set -> its files, path -> contents; and one that is needed
    "books": (lambda patch: test_books.FILES, "b.txt"),
    "cifar10": (test_cifar10.corpus, "data_batch_1.bin"),
    "cnn": (lambda patch: test_cnn.FILES, f"test/{7:040x}.question"),
    "coco": (lambda patch: test_coco.corpus(), "train.txt"),
    "iam": (lambda patch: test_iam.corpus(), "trainset.txt"),
    "mnist": (test_datasets.tiny_mnist, "train-images-idx3-ubyte"),
    "sentences": (lambda patch: test_sentences.MR, "deeper/rt-polarity.neg"),
}
TABLE = datasets.table()
TEXT = re.compile(r".*\.(txt|question|xml|pos|neg)")


@pytest.fixture(params=READERS)
def name(request):
    return request.param


@pytest.fixture
def files(name, monkeypatch):
    make, _ = READERS[name]
    return dict(make(monkeypatch))


def prepared(name, source):
    """Return the digest of a data set, prepared beside its source."""
    data_dir = source.with_name("data")
    datasets.prepare(name, data_dir, source)
    return arrays.digest(data_dir, name)


def in_text(change):
    return lambda files: {n: change(d) if TEXT.fullmatch(n) else d for n, d in files.items()}


HARMLESS = {
    "ends of DOS": in_text(lambda data: data.replace(b"\n", b"\r\n")),
    "ends of an old Mac": in_text(lambda data: data.replace(b"\n", b"\r")),
    "byte order marks": in_text(lambda data: b"\xef\xbb\xbf" + data),
    "blanks at ends": in_text(lambda data: data.replace(b"\n", b" \t\n")),
    "gzip": lambda files: {f"{name}.gz": gzip.compress(data) for name, data in files.items()},
    "deeper folders": lambda files: {f"a/b/{name}": data for name, data in files.items()},
    "a Mac's files": lambda files: (
        files
        | {f"__MACOSX/{name}": b"\0" for name in files}
        | {re.sub(r"([^/]+)$", r"._\1", name): b"\0" for name in files}
    ),
}


@pytest.mark.parametrize("change", HARMLESS)
def test_every_reader_bears(tmp_path, name, files, change):
    source = lay(tmp_path / "changed" / "source", HARMLESS[change](files))
    assert prepared(name, source) == prepared(name, lay(tmp_path / "source", files))


@pytest.mark.parametrize("end", [".zip", ".tar.gz"])
def test_an_archive_is_read_as_its_folder(tmp_path, name, files, end):
    """The members of an archive are in any order; books keep it."""
    order = sorted(files, reverse=name != "books")
    packed = PACKED[end]({path: files[path] for path in order})
    source = lay(tmp_path / "packed", {f"all{end}": packed}) / f"all{end}"
    assert prepared(name, source) == prepared(name, lay(tmp_path / "source", files))


def pipe(path):
    path.unlink()
    os.mkfifo(path)


FAULTS = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "a pipe": pipe,
    "truncated": lambda path: path.write_bytes(gzip.compress(path.read_bytes())[:-9]),
    "damaged": lambda path: path.write_bytes(gzip.compress(path.read_bytes())[:-8] + bytes(8)),
    "a bomb": lambda path: path.write_bytes(gzip.compress(bytes(2**22))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_reader_rejects_a_fault(tmp_path, name, files, fault, monkeypatch):
    path = lay(tmp_path / "source", files) / READERS[name][1]
    small = dataclasses.replace(datasets.table()[name], budget=2**21)
    monkeypatch.setattr(datasets, "table", lambda: {**TABLE, name: small})
    FAULTS[fault](path)
    with refused("Needed: ", f"scripts.data {name} --from=DIR"):
        prepared(name, tmp_path / "source")
    assert not (tmp_path / "data").exists() or not names(tmp_path / "data")
