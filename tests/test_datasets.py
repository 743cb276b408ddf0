"""Data sets: what is accepted, what is refused and how, and what lies on disk afterwards."""

import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
from pathlib import Path
import re
import socket
import struct
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import arrays
from experiments.datasets.corpora import binarized_mnist, cifar10, mnist
from experiments.datasets.originals import Files
from experiments.datasets.synthetic import binarized_digits, digits
from ln.errors import InputError

ROOT = Path(__file__).parents[1]


def refused(*words):
    """Expects an InputError of one line that contains all the words."""

    @contextlib.contextmanager
    def expectation():
        with pytest.raises(InputError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert str(word) in message

    return expectation()


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# --- Prepared arrays ---


def splits(n=3):
    x = np.arange(n * 4, dtype=np.uint8).reshape(n, 4)
    return dict(
        train=dict(x=x, y=np.arange(n, dtype=np.int32)),
        test=dict(x=x[::-1], y=np.zeros(n, np.int32)),
    )


def write(data_dir, content=None):
    return arrays.write(data_dir, "toy", content or splits(), dict(source="a test"))


def test_what_is_written_is_read(tmp_path, capsys):
    folder = write(tmp_path)
    found = arrays.read(tmp_path, "toy")
    for split, expected in splits().items():
        for key, values in expected.items():
            np.testing.assert_array_equal(found[split][key], values)
            assert found[split][key].dtype == values.dtype
    assert found.keys() == splits().keys()
    assert not found["train"]["x"].flags.writeable
    assert f"prepared in {folder}" in capsys.readouterr().out
    assert names(tmp_path) == ["toy"]


def test_dataset_json_tells_what_the_arrays_are(tmp_path):
    folder = write(tmp_path)
    found = json.loads((folder / "dataset.json").read_text())
    assert (found["name"], found["version"], found["source"]) == ("toy", 1, "a test")
    assert "made_at" in found
    x = splits()["test"]["x"]
    assert found["arrays"]["test.x"] == dict(
        shape=[3, 4],
        dtype="uint8",
        sha256=hashlib.sha256(x.tobytes()).hexdigest(),
        bytes=(folder / "test.x.npy").stat().st_size,
    )


def test_equal_content_is_left_alone(tmp_path, capsys):
    folder = write(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "notes.txt").write_text("the user's own")
    capsys.readouterr()
    write(tmp_path)
    assert "there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (folder / "notes.txt").exists()


@pytest.mark.parametrize("other", [splits(4), {"train": splits()["train"]}])
def test_other_content_is_never_overwritten(tmp_path, other):
    folder = write(tmp_path)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with refused(folder, "Delete or move", "python -m scripts.data toy"):
        write(tmp_path, other)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_array_edited_after_preparation_is_never_overwritten(tmp_path):
    path = write(tmp_path) / "train.x.npy"
    edited = path.read_bytes()[:-1] + b"\xff"
    path.write_bytes(edited)
    with refused(path, "was changed", "Delete or move"):
        write(tmp_path)
    assert path.read_bytes() == edited


@pytest.mark.parametrize("left", ["a user's file", None])
def test_a_folder_without_dataset_json_is_refused_and_kept(tmp_path, left):
    folder = tmp_path / "toy"
    folder.mkdir()
    if left:
        (folder / "mine.txt").write_text(left)
    for attempt in (write, lambda data_dir: arrays.read(data_dir, "toy")):
        with refused(folder, "not a prepared data set", "Move it away"):
            attempt(tmp_path)
    assert names(folder) == (["mine.txt"] if left else [])


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"name": "mnist", "version": 1, "arrays": {}}'])
def test_a_foreign_dataset_json_is_refused(tmp_path, text):
    folder = write(tmp_path)
    (folder / "dataset.json").write_text(text)
    with refused(folder, "not a prepared data set", "toy, version 1"):
        arrays.read(tmp_path, "toy")


def test_an_incomplete_folder_is_mended(tmp_path, capsys):
    folder = write(tmp_path)
    (folder / "train.x.npy").unlink()
    short = folder / "test.y.npy"
    short.write_bytes(short.read_bytes()[:-1])
    assert not arrays.is_prepared(tmp_path, "toy")
    capsys.readouterr()
    write(tmp_path)
    assert "made anew: test.y.npy, train.x.npy" in capsys.readouterr().out
    assert arrays.is_prepared(tmp_path, "toy")
    np.testing.assert_array_equal(
        arrays.read(tmp_path, "toy")["train"]["x"], splits()["train"]["x"]
    )
    assert not [name for name in names(folder) if "partial" in name]


def test_a_missing_data_set_is_refused_with_the_command_that_makes_it(tmp_path):
    with refused(tmp_path / "toy", f"`python -m scripts.data toy --data_dir={tmp_path}`"):
        arrays.read(tmp_path, "toy")


def test_a_missing_array_is_refused_by_name(tmp_path):
    path = write(tmp_path) / "test.x.npy"
    path.unlink()
    with refused(path, "it is missing", "python -m scripts.data toy"):
        arrays.read(tmp_path, "toy")


def test_a_truncated_array_is_refused_by_name(tmp_path):
    path = write(tmp_path) / "test.x.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with refused(path, "expected 140 bytes, found 139", "python -m scripts.data toy"):
        arrays.read(tmp_path, "toy")


def test_an_array_of_another_shape_is_refused(tmp_path):
    path = write(tmp_path) / "test.x.npy"
    with open(path, "wb") as file:
        np.save(file, np.zeros((4, 3), np.uint8))
    with refused(path, "expected uint8 [3, 4], found uint8 [4, 3]", "python -m scripts.data toy"):
        arrays.read(tmp_path, "toy")


def test_a_file_that_is_no_array_is_refused(tmp_path):
    path = write(tmp_path) / "test.x.npy"
    path.write_bytes(bytes(path.stat().st_size))
    with refused(path, "expected uint8 [3, 4], found no array"):
        arrays.read(tmp_path, "toy")


@pytest.mark.parametrize("error", [RuntimeError("full"), KeyboardInterrupt()])
def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch, error):
    save, calls = arrays.save, []

    def interrupted(path, values):
        calls.append(path)
        if len(calls) == 3:
            raise error
        return save(path, values)

    monkeypatch.setattr(arrays, "save", interrupted)
    with pytest.raises(type(error)):
        write(tmp_path)
    assert names(tmp_path) == []
    monkeypatch.undo()
    write(tmp_path)
    assert arrays.is_prepared(tmp_path, "toy")


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(path, values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays, "save", full)
    with refused(tmp_path / "toy", "No space left", "--data_dir"):
        write(tmp_path)
    assert names(tmp_path) == []


# Writes data sets into a folder each, and is killed: at half of the first or third array, before
# dataset.json, before the folder gets its name.
KILLED = """
import os, pathlib, signal, sys
from experiments.datasets import arrays
from tests import test_datasets

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def save(path, values, whole=arrays.save, count=iter(range(9)).__next__):
    if count() == number:
        whole(path, values[:1])
        killed()
    return whole(path, values)

number, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
arrays.save = save
if number == 4:
    pathlib.Path.write_text = killed
if number == 5:
    os.replace = killed
test_datasets.write(folder)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2, 4, 5])
def test_a_killed_preparation_is_never_read_and_cleaned_up_at_the_next(tmp_path, number):
    assert python("-c", KILLED, number, tmp_path).returncode == -9
    (left,) = names(tmp_path)
    assert left.startswith(".toy.") and left.endswith(".partial")
    (tmp_path / ".toys.0.partial").mkdir()  # another data set's
    assert not arrays.is_prepared(tmp_path, "toy")
    with refused("No data set in"):
        arrays.read(tmp_path, "toy")
    write(tmp_path)
    assert names(tmp_path) == [".toys.0.partial", "toy"]


def test_of_two_preparations_at_once_the_second_finds_the_first_ones(tmp_path, monkeypatch, capsys):
    save = arrays.save
    started: list[Path] = []

    def overtaken(path, values):
        if not started:
            started.append(path)
            write(tmp_path)  # installs its own and takes ours for a leftover
        return save(path, values)

    monkeypatch.setattr(arrays, "save", overtaken)
    write(tmp_path)
    assert "prepared in" in (out := capsys.readouterr().out) and "there already" in out
    assert names(tmp_path) == ["toy"]
    assert arrays.is_prepared(tmp_path, "toy")


# --- MNIST ---

TRAIN, VALID, TEST = 7, 5, 4
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(magic, values):
    return struct.pack(f">{1 + values.ndim}I", magic, *values.shape) + values.tobytes()


@pytest.fixture
def contents(monkeypatch):
    """The four files of a tiny MNIST, and `mnist` expecting them: name -> unpacked bytes."""
    draw = np.random.RandomState(0)
    found, originals = {}, {}
    for stem, original in mnist.ORIGINALS.items():
        n = TEST if stem.startswith("t10k") else TRAIN + VALID
        shape = (n, *original.shape[1:])
        values = draw.randint(0, 256 if len(shape) == 3 else 10, shape).astype(np.uint8)
        found[stem] = idx(original.magic, values)
        digest = hashlib.sha256(found[stem]).hexdigest()
        originals[stem] = mnist.Original(original.magic, shape, digest)
    monkeypatch.setattr(mnist, "ORIGINALS", originals)
    monkeypatch.setattr(mnist, "VALID", VALID)
    return found


@pytest.fixture
def source(contents, tmp_path):
    """A folder with the four files, gzipped."""
    folder = tmp_path / "source"
    folder.mkdir()
    for stem, data in contents.items():
        (folder / f"{stem}.gz").write_bytes(gzip.compress(data))
    return folder


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def test_the_first_of_the_training_files_validate_and_the_rest_train(source, contents, data_dir):
    mnist.prepare(data_dir, source)
    found = datasets.load("mnist", data_dir)
    images = np.frombuffer(contents[IMAGES], np.uint8, offset=16).reshape(-1, 784)
    labels = np.frombuffer(contents[LABELS], np.uint8, offset=8)
    np.testing.assert_array_equal(found["valid"]["x"], images[:VALID])
    np.testing.assert_array_equal(found["valid"]["y"], labels[:VALID])
    np.testing.assert_array_equal(found["train"]["x"], images[VALID:])
    np.testing.assert_array_equal(found["train"]["y"], labels[VALID:])
    assert found["test"]["x"].shape == (TEST, 784)
    for split in found.values():
        assert (split["x"].dtype, split["y"].dtype) == (np.uint8, np.int32)
    assert str(source) in arrays.manifest(data_dir, "mnist")["source"]


def test_the_paper_has_55000_training_5000_validation_and_10000_test_cases():
    shapes = {stem: original.shape for stem, original in mnist.ORIGINALS.items()}
    assert shapes[IMAGES] == (60_000, 28, 28) and shapes[LABELS] == (60_000,)
    assert shapes["t10k-images-idx3-ubyte"] == (10_000, 28, 28)
    assert mnist.VALID == 5_000


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("dot", [False, True])
def test_files_are_found_gzipped_or_not_in_both_spellings(tmp_path, contents, data_dir, dot, end):
    for stem, data in contents.items():
        name = stem.replace("-idx", ".idx") if dot else stem
        (tmp_path / (name + end)).write_bytes(gzip.compress(data) if end else data)
    mnist.prepare(data_dir, tmp_path)
    assert arrays.is_prepared(data_dir, "mnist")


def test_a_source_that_is_no_folder_is_refused(contents, tmp_path, data_dir):
    with refused(tmp_path / "nowhere", "not a folder", "--from=DIR", IMAGES):
        mnist.prepare(data_dir, tmp_path / "nowhere")


def test_a_missing_file_is_refused_by_name(source, data_dir):
    (source / f"{LABELS}.gz").unlink()
    with refused(source, f"{LABELS}.gz", "train-labels.idx1-ubyte", "put one of them there"):
        mnist.prepare(data_dir, source)
    assert not data_dir.exists()


def changed(header=None, body=lambda values: values):
    """Returns a function that puts other integers into the header, or another body."""

    def change(data, integers):
        start = struct.pack(f">{integers}I", *header) if header else data[: 4 * integers]
        return start + body(data[4 * integers :])

    return change


BAD_FILES = dict(
    magic=(IMAGES, changed((2049, 12, 28, 28)), ["magic number 2051", "found 2049"]),
    label_magic=(LABELS, changed((2051, 12)), ["magic number 2049", "found 2051"]),
    count=(IMAGES, changed((2051, 11, 28, 28)), ["(12, 28, 28)", "found (11, 28, 28)"]),
    fewer_labels=(LABELS, changed((2049, 11), lambda b: b[:-1]), ["(12,)", "found (11,)"]),
    size=(IMAGES, changed((2051, 12, 14, 56)), ["(12, 28, 28)", "found (12, 14, 56)"]),
    short=(IMAGES, changed(body=lambda b: b[:-1]), ["length", "9424", "found 9423"]),
    long=(LABELS, changed(body=lambda b: b + b"\0"), ["length", "20", "found 21"]),
    empty=(LABELS, lambda data, integers: b"", ["header of 8 bytes", "found 0 bytes"]),
    label=(LABELS, changed(body=lambda b: b"\x0a" + b[1:]), ["labels 0 to 9", "found 10"]),
    other=(IMAGES, changed(body=lambda b: b[::-1]), ["original MNIST", "sha256"]),
)


@pytest.mark.parametrize("bad", BAD_FILES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_bad_file_is_refused_by_name_expectation_and_finding(
    source, contents, data_dir, bad, packed
):
    stem, change, words = BAD_FILES[bad]
    data = change(contents[stem], 4 if stem == IMAGES else 2)
    (source / f"{stem}.gz").unlink()
    path = source / (f"{stem}.gz" if packed else stem)
    path.write_bytes(gzip.compress(data) if packed else data)
    with refused(
        path, "expected", *words, "Get the original file again: `python -m scripts.data mnist`"
    ):
        mnist.prepare(data_dir, source)
    assert not data_dir.exists()


@pytest.mark.parametrize("kept", [1 / 2, 0.999])
def test_a_truncated_gzip_is_refused_by_name(source, data_dir, kept):
    path = source / f"{IMAGES}.gz"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with refused(path, "expected a whole gzip file", "truncated"):
        mnist.prepare(data_dir, source)
    assert not data_dir.exists()


@pytest.mark.parametrize("place", [-6, 40])  # in the checksum, in the middle
def test_a_damaged_gzip_is_refused_by_name(source, data_dir, place):
    path = source / f"{LABELS}.gz"
    data = bytearray(gzip.compress(bytes(range(200))))
    data[place] ^= 0xFF
    path.write_bytes(data)
    with refused(path, "damaged"):
        mnist.prepare(data_dir, source)


def test_a_web_page_in_place_of_a_gzip_is_refused_by_name(source, data_dir):
    path = source / f"{IMAGES}.gz"
    path.write_bytes(b"<!DOCTYPE html>404")
    with refused(path, "expected a gzip file", "<!DOCTYP", "Get it again"):
        mnist.prepare(data_dir, source)
    assert not data_dir.exists()


def test_mnist_that_is_prepared_is_not_downloaded_again(source, data_dir, monkeypatch, capsys):
    mnist.prepare(data_dir, source)
    monkeypatch.setattr(Files, "download", lambda files, folder: pytest.fail("downloads"))
    capsys.readouterr()
    mnist.prepare(data_dir)
    assert "there already" in capsys.readouterr().out


# --- MNIST by tensorflow-datasets, without network ---


@pytest.fixture
def server(tmp_path, monkeypatch):
    """tensorflow-datasets, its connection replaced by the files of the source folder."""
    pytest.importorskip("tensorflow_datasets")
    requests = pytest.importorskip("requests")
    from tensorflow_datasets.core.download import downloader

    @contextlib.contextmanager
    def open_url(url, **_):
        path = tmp_path / "source" / url.rsplit("/", 1)[1]
        if not path.exists():
            raise requests.ConnectionError("unplugged")
        yield SimpleNamespace(url=url, headers={}), [path.read_bytes()]

    answer = SimpleNamespace(raise_for_status=lambda: None)
    monkeypatch.setattr(requests, "head", lambda url, timeout: answer)
    monkeypatch.setattr(downloader, "_open_url", open_url)
    monkeypatch.setattr(downloader, "MAX_RETRIES", downloader.MAX_RETRIES)  # undone afterwards
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return SimpleNamespace(temporary=temporary)


def elsewhere(files, url):
    """The same files at an address of which no digests are known."""
    return dataclasses.replace(files, url=url)


def register(files, folder, monkeypatch):
    """Makes tensorflow-datasets know the digests of these files as they lie in a folder."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    paths = {files.url + name: folder / name for name in files.names}
    infos = {url: checksums.compute_url_info(path) for url, path in paths.items()}
    builder = SimpleNamespace(url_infos=infos)
    monkeypatch.setattr(tfds, "builder_cls", {files.name: builder}.__getitem__)


def test_mnist_is_downloaded_through_tensorflow_datasets(source, server, data_dir, monkeypatch):
    register(mnist.FILES, source, monkeypatch)
    mnist.prepare(data_dir)
    assert datasets.load("mnist", data_dir)["train"]["x"].shape == (TRAIN, 784)
    assert mnist.FILES.url in arrays.manifest(data_dir, "mnist")["source"]
    assert names(server.temporary) == []
    assert "tensorflow" not in sys.modules


def test_a_download_of_another_file_is_refused(source, server, data_dir):
    with refused(f"{mnist.FILES.url}{IMAGES}.gz is not the original", "--from=DIR", "digits"):
        mnist.prepare(data_dir)
    assert names(server.temporary) == [] and not data_dir.exists()


@pytest.mark.parametrize("module", [mnist, binarized_mnist, cifar10])
def test_a_sha_256_is_known_of_every_file_that_is_downloaded(module):
    tfds = pytest.importorskip("tensorflow_datasets")
    infos = tfds.builder_cls(module.FILES.name).url_infos
    for name in module.FILES.names:
        assert re.fullmatch("[0-9a-f]{64}", infos[module.FILES.url + name].checksum)


def test_a_file_of_which_no_digest_is_known_is_not_downloaded(
    source, server, data_dir, monkeypatch
):
    monkeypatch.setattr(mnist, "FILES", elsewhere(mnist.FILES, "https://mnist.invalid/"))
    with refused(f"https://mnist.invalid/{IMAGES}.gz", "no digest", "--from=DIR", "digits"):
        mnist.prepare(data_dir)
    assert names(server.temporary) == [] and not data_dir.exists()


def test_a_connection_lost_on_the_way_leaves_nothing(source, server, data_dir, monkeypatch):
    register(mnist.FILES, source, monkeypatch)
    (source / f"{LABELS}.gz").unlink()
    with refused("Cannot download", "ConnectionError", "--from=DIR"):
        mnist.prepare(data_dir)
    assert names(server.temporary) == [] and not data_dir.exists()


def test_without_network_the_download_says_what_to_do(data_dir, tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets")
    from tensorflow_datasets.core.download import downloader

    monkeypatch.setattr(downloader, "MAX_RETRIES", 10)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nobody listens there
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        monkeypatch.setattr(mnist, "FILES", elsewhere(mnist.FILES, url))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with refused(url, "No network?", "--from=DIR", "`digits`", f"{IMAGES}.gz"):
            mnist.prepare(data_dir)
    assert downloader.MAX_RETRIES == 1
    assert names(tmp_path) == []


def test_without_tensorflow_datasets_the_download_says_what_to_do(data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with refused("requirements.txt", "tensorflow_datasets", "--from=DIR", "`digits`"):
        mnist.prepare(data_dir)
    assert not data_dir.exists()


# --- Digits ---


def test_digits_are_1297_training_200_validation_and_300_test_cases(data_dir):
    digits.prepare(data_dir)
    found = arrays.read(data_dir, "digits")
    assert {k: v["x"].shape for k, v in found.items()} == dict(
        train=(1297, 64), valid=(200, 64), test=(300, 64)
    )
    for split in found.values():
        assert split["x"].dtype == np.uint8 and split["x"].max() == 255 and split["x"].min() == 0
        assert split["y"].dtype == np.int32 and set(split["y"].tolist()) == set(range(10))


def test_digits_are_the_same_ones_everywhere(data_dir):
    digits.prepare(data_dir)
    recorded = arrays.manifest(data_dir, "digits")["arrays"]
    assert {key: recorded[key]["sha256"][:8] for key in ("train.x", "valid.x", "test.x")} == {
        "train.x": "d228536e",
        "valid.x": "b4e16693",
        "test.x": "fc50f5db",
    }


def test_no_digit_is_in_two_splits(data_dir):
    from sklearn.datasets import load_digits

    digits.prepare(data_dir)
    found = np.concatenate([split["x"] for split in arrays.read(data_dir, "digits").values()])
    pixels = np.round(load_digits().data * (255 / 16))
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, pixels.tolist()))


# --- Binarized digits ---


def test_binarized_digits_have_the_cases_and_splits_of_digits_as_28_x_28_zeros_and_ones(data_dir):
    found, grey = (datasets.load(name, data_dir) for name in ("binarized_digits", "digits"))
    for split in ("train", "valid", "test"):
        assert found[split].keys() == {"x"}
        x = found[split]["x"].reshape(-1, 28, 28)
        assert x.dtype == np.uint8 and set(np.unique(x)) == {0, 1}
        assert x.mean() == pytest.approx(0.151, abs=1e-3)  # binarized MNIST: .131
        assert not x[:, :3].any() and not x[:, -3:].any()  # a border, as in MNIST
        # Seen from afar they are the same: 2 x 2 means of the middle 20 x 20 and of the 8 x 8.
        far = x[:, 4:-4, 4:-4].reshape(-1, 2, 10, 2, 10).mean((2, 4)).ravel()
        expected = grey[split]["x"].reshape(-1, 2, 4, 2, 4).mean((2, 4)).ravel()
        assert len(x) == len(grey[split]["x"]) and np.corrcoef(far, expected)[0, 1] > 0.9


def test_binarized_is_what_is_half_white_after_bilinear_enlargement():
    x = np.random.RandomState(0).randint(0, 256, (1, 8, 8)).astype(np.uint8)
    grey = np.pad(x[0].astype(float), 1)  # black around
    at = np.linspace(3.5 - 13.5 * 8 / 20, 3.5 + 13.5 * 8 / 20, 28)  # 20 pixels for 8
    for axis in (0, 1):
        grey = np.apply_along_axis(lambda line: np.interp(at, np.arange(-1, 9), line), axis, grey)
    found = binarized_digits.binarize(x.reshape(1, 64)).reshape(28, 28)
    np.testing.assert_array_equal(found, grey > 127.5 - 1e-9)
    assert 0.1 < found.mean() < 0.4


def test_binarized_digits_are_the_same_ones_everywhere(data_dir):
    binarized_digits.prepare(data_dir)
    recorded = arrays.manifest(data_dir, "binarized_digits")["arrays"]
    assert {key: recorded[key]["sha256"][:8] for key in recorded} == {
        "train.x": "bcffe9a5",
        "valid.x": "6ee71be2",
        "test.x": "04d79d19",
    }


# --- Binarized MNIST ---

CASES = dict(train=TRAIN, valid=VALID, test=TEST)
AMAT = "binarized_mnist_{}.amat"


@pytest.fixture
def images(monkeypatch):
    """A tiny binarized MNIST, split -> uint8 [N, 784], and `binarized_mnist` expecting it."""
    draw = np.random.RandomState(0)
    found = {split: draw.randint(0, 2, (n, 784)).astype(np.uint8) for split, n in CASES.items()}
    originals = {
        split: binarized_mnist.Original(
            len(x), round(float(x.mean()), 5), hashlib.sha256(amat(x)).hexdigest()
        )
        for split, x in found.items()
    }
    monkeypatch.setattr(binarized_mnist, "ORIGINALS", originals)
    return found


def amat(x):
    return "".join(" ".join(map(str, row)) + "\n" for row in x.tolist()).encode()


@pytest.fixture
def amat_source(images, tmp_path):
    """A folder with the three files."""
    folder = tmp_path / "source"
    folder.mkdir()
    for split, x in images.items():
        (folder / AMAT.format(split)).write_bytes(amat(x))
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_binarized_mnist_is_read_from_its_three_files(amat_source, images, data_dir, packed):
    if packed:
        for path in list(amat_source.iterdir()):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    binarized_mnist.prepare(data_dir, amat_source)
    found = datasets.load("binarized_mnist", data_dir)
    assert found.keys() == images.keys()
    for split, x in images.items():
        assert found[split].keys() == {"x"} and found[split]["x"].dtype == np.uint8
        np.testing.assert_array_equal(found[split]["x"], x)
    assert str(amat_source) in arrays.manifest(data_dir, "binarized_mnist")["source"]


def test_binarized_mnist_is_50000_training_10000_validation_and_10000_test_cases():
    cases = {split: original.cases for split, original in binarized_mnist.ORIGINALS.items()}
    assert cases == dict(train=50_000, valid=10_000, test=10_000)


@pytest.mark.parametrize("split", CASES)
def test_a_missing_file_of_binarized_mnist_is_refused_by_name(amat_source, data_dir, split):
    name = AMAT.format(split)
    (amat_source / name).unlink()
    command = "`python -m scripts.data binarized_mnist`"
    with refused(amat_source, name, f"{name}.gz", "put one of them there", command):
        binarized_mnist.prepare(data_dir, amat_source)
    assert not data_dir.exists()


def edited(line, start, stop, text):
    """Returns a function that puts a text in place of some bytes of a line."""

    def change(data):
        start_of_line = 1568 * (line - 1)
        return data[: start_of_line + start] + text + data[start_of_line + stop :]

    return change


BAD_AMATS = dict(
    truncated=(lambda data: data[: len(data) // 2], ["whole lines: 7", "found 3"]),
    no_last_newline=(lambda data: data[:-1], ["whole lines: 7", "found 6"]),
    empty=(lambda data: b"", ["whole lines: 7", "found 0"]),
    more=(lambda data: data + data[:1568], ["whole lines: 7", "found 8"]),
    short_line=(edited(3, 0, 2, b""), ["784 pixels a line", "1568 bytes", "found 1566 in line 3"]),
    long_line=(edited(7, 0, 0, b"0 "), ["784 pixels a line", "found 1570 in line 7"]),
    moved_newline=(edited(2, 1567, 1570, b" 0\n"), ["1568 bytes", "found 1570 in line 2"]),
    windows=(lambda data: data.replace(b"\n", b"\r\n"), ["1568 bytes", "found 1569 in line 1"]),
    tail=(lambda data: data + b"0 ", ["a length", "10976", "found 10978"]),
    two=(edited(5, 20, 21, b"2"), ["pixels 0 or 1", "found '2' in line 5, pixel 11"]),
    blank=(edited(5, 1566, 1567, b" "), ["pixels 0 or 1", "found ' ' in line 5, pixel 784"]),
    inverse=(lambda data: data.translate(bytes.maketrans(b"01", b"10")), ["a mean pixel of 0."]),
    commas=(lambda data: data.replace(b" ", b","), ["the original binarized MNIST", "sha256"]),
    order=(lambda data: data[1568:] + data[:1568], ["the original binarized MNIST", "sha256"]),
)


@pytest.mark.parametrize("bad", BAD_AMATS)
def test_a_bad_file_of_binarized_mnist_is_refused_by_name_expectation_and_finding(
    amat_source, images, data_dir, bad
):
    change, words = BAD_AMATS[bad]
    path = amat_source / AMAT.format("train")
    path.write_bytes(change(amat(images["train"])))
    with refused(path, "expected", *words, "`python -m scripts.data binarized_mnist` downloads it"):
        binarized_mnist.prepare(data_dir, amat_source)
    assert not data_dir.exists()


def test_one_pixel_of_another_color_is_refused(amat_source, images, data_dir):
    x = images["valid"].copy()
    x[2, 3] ^= 1
    path = amat_source / AMAT.format("valid")
    path.write_bytes(amat(x))
    mean = images["valid"].mean()
    with refused(path, f"a mean pixel of {mean:.5f}, found {x.mean():.5f}"):
        binarized_mnist.prepare(data_dir, amat_source)
    assert not data_dir.exists()


def test_a_damaged_gzip_of_binarized_mnist_is_refused_by_name(amat_source, data_dir):
    path = amat_source / AMAT.format("train")
    packed = gzip.compress(path.read_bytes())
    path.write_bytes(packed[: len(packed) // 2])
    command = "`python -m scripts.data binarized_mnist`"
    with refused(path, "expected a whole gzip file", "truncated", command):
        binarized_mnist.prepare(data_dir, amat_source)
    assert not data_dir.exists()


def test_other_binarized_mnist_is_never_overwritten(amat_source, data_dir):
    folder = arrays.write(data_dir, "binarized_mnist", splits(), dict(source="a test"))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with refused(folder, "Delete or move", "python -m scripts.data binarized_mnist"):
        binarized_mnist.prepare(data_dir, amat_source)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_binarized_mnist_is_downloaded_through_tensorflow_datasets(
    amat_source, server, data_dir, monkeypatch
):
    register(binarized_mnist.FILES, amat_source, monkeypatch)
    binarized_mnist.prepare(data_dir)
    assert datasets.load("binarized_mnist", data_dir)["train"]["x"].shape == (TRAIN, 784)
    origin = arrays.manifest(data_dir, "binarized_mnist")["source"]
    assert binarized_mnist.FILES.url in origin
    assert names(server.temporary) == []
    assert "tensorflow" not in sys.modules


def test_a_download_of_another_binarized_mnist_is_refused(amat_source, server, data_dir):
    url = binarized_mnist.FILES.url + AMAT.format("train")
    with refused(f"{url} is not the original", "--from=DIR", "`binarized_digits`"):
        binarized_mnist.prepare(data_dir)
    assert names(server.temporary) == [] and not data_dir.exists()


def test_tensorflow_datasets_has_the_same_digests_of_binarized_mnist():
    tfds = pytest.importorskip("tensorflow_datasets")
    known = tfds.builder_cls("binarized_mnist").url_infos
    assert {url: info.checksum for url, info in known.items()} == {
        binarized_mnist.FILES.url + AMAT.format(split): original.sha256
        for split, original in binarized_mnist.ORIGINALS.items()
    }


# --- By name ---


def test_every_name_can_be_prepared():
    for name, module in datasets.MODULES.items():
        assert callable(__import__(module, fromlist=["prepare"]).prepare), name
    assert set(datasets.BUILT_IN) <= set(datasets.MODULES)


@pytest.mark.parametrize("name", datasets.BUILT_IN)
def test_what_is_built_in_takes_no_source(tmp_path, data_dir, name):
    with refused(f"{name} is built in", "--from"):
        datasets.prepare(name, data_dir, tmp_path)
    assert not data_dir.exists()


@pytest.mark.parametrize("name", datasets.BUILT_IN)
def test_loading_prepares_what_is_built_in_once(data_dir, capsys, name):
    first = datasets.load(name, data_dir)
    assert capsys.readouterr().out == f"{name}: prepared in {data_dir / name}\n"
    second = datasets.load(name, data_dir)
    assert capsys.readouterr().out == ""
    assert first.keys() == second.keys()
    for split, keys in first.items():
        for key, values in keys.items():
            np.testing.assert_array_equal(values, second[split][key])


def test_what_is_built_in_stands_back_for_the_real_thing_where_that_is_prepared(
    data_dir, monkeypatch
):
    assert set(datasets.STANDS_FOR) == set(datasets.BUILT_IN)
    assert set(datasets.STANDS_FOR.values()) <= set(datasets.MODULES) - set(datasets.BUILT_IN)
    assert datasets.real("docs", data_dir) == "docs"
    monkeypatch.setattr(arrays, "is_prepared", lambda data_dir, name: name == "books")
    assert datasets.real("docs", data_dir) == "books"
    assert datasets.real("library", data_dir) == "library"
    assert datasets.real("cifar10", data_dir) == "cifar10"


def test_loading_prepares_nothing_else(data_dir):
    with refused(data_dir / "mnist", "python -m scripts.data mnist"):
        datasets.load("mnist", data_dir)
    assert not data_dir.exists()


@pytest.mark.parametrize("use", [datasets.load, datasets.prepare])
def test_a_misspelt_data_set_is_refused_with_the_nearest_name(data_dir, use):
    with refused("'mnits'", "Did you mean 'mnist'?"):
        use("mnits", data_dir)


def python(*words, **options):
    return subprocess.run(
        (sys.executable, *map(str, words)), cwd=ROOT, capture_output=True, text=True, **options
    )


def test_loading_prepared_data_imports_no_preparing_package(source, data_dir):
    mnist.prepare(data_dir, source)
    digits.prepare(data_dir)
    code = (
        "import sys; from experiments import datasets; "
        f"[datasets.load(name, {os.fspath(data_dir)!r}) for name in ('mnist', 'digits')]; "
        "bad = {'tensorflow', 'tensorflow_datasets', 'sklearn', 'scipy', 'requests'}; "
        "sys.exit(' '.join(bad & set(sys.modules)) or None)"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


# --- The command ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, shape, mean, size",
    [
        ("digits", "[1297, 64]", "mean pixel 77.92 of 255", "0.1 MB"),
        ("binarized_digits", "[1297, 784]", "mean pixel 0.15 of 1 = 0.1514", "1.4 MB"),
    ],
)
def test_the_command_prepares_lists_and_summarizes(tmp_path, name, shape, mean, size):
    before = python("-m", "scripts.data", "--list", f"--data_dir={tmp_path}")
    assert "built in" in before.stdout and "not prepared" in before.stdout
    done = python("-m", "scripts.data", name, f"--data_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert shape in done.stdout and mean in done.stdout
    assert str(tmp_path / name) in done.stdout
    after = python("-m", "scripts.data", "--list", f"--data_dir={tmp_path}")
    assert f"prepared      {tmp_path / name}, {size}" in after.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, message",
    [
        ((), "Give one data set"),
        (("mnits",), "Did you mean 'mnist'?"),
        (("mnist", "--from=nowhere"), "nowhere is not a folder"),
        (("digits", "--form=x"), "from"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, words, message):
    done = python("-m", "scripts.data", *words, f"--data_dir={tmp_path}")
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert names(tmp_path) == []


@pytest.mark.slow
def test_help_says_what_it_does_with_examples_and_imports_nothing_large():
    done = python("-X", "importtime", "-m", "scripts.data", "--help")
    assert "python -m scripts.data mnist --from=DIR" in done.stdout
    for package in ("numpy", "jax", "sklearn", "tensorflow_datasets"):
        assert f" {package}\n" not in done.stderr
