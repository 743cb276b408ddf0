"""Data sets: the table, how arrays are stored, and the small image sets."""

import contextlib
import gzip
import hashlib
from pathlib import Path
import re
import struct
import sys
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import arrays
from experiments.datasets.corpora import binarized_mnist, mnist
from ln.errors import InputError
from tests.commands import python, run
from tests.files import lay
from tests.products import exhaustive

BUILT_IN = [name for name, row in datasets.table().items() if row.make]
ORIGINAL = [name for name, row in datasets.table().items() if row.read]

DIGESTS = dict(
    digits="9fac1088", binarized_digits="b89927b8", scenes="4d2bfb91", stories="42672cd9"
)


def refused(*words):
    """Expect an InputError of one line that contains all the words."""

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


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


# --- Stored arrays ---


def splits(n=3):
    x = np.arange(n * 4, dtype=np.uint8).reshape(n, 4)
    return dict(
        train=dict(x=x, y=np.arange(n, dtype=np.int32)),
        test=dict(x=x[::-1], y=np.zeros(n, np.int32)),
    )


def write(data_dir, content=None):
    arrays.write(data_dir, "toy", content or splits(), dict(source="a test"))
    return data_dir / "toy"


def test_arrays_are_read_as_they_were_written(tmp_path, capsys):
    folder = write(tmp_path)
    read = arrays.read(tmp_path, "toy")
    for split, expected in splits().items():
        for key, values in expected.items():
            np.testing.assert_array_equal(read[split][key], values)
            assert read[split][key].dtype == values.dtype
    assert read.keys() == splits().keys()
    assert not read["train"]["x"].flags.writeable
    assert f"prepared in {folder}" in capsys.readouterr().out
    assert names(tmp_path) == ["toy"]


CHANGES = {
    "no manifest": ("dataset.json", lambda data: b"{}", "not a prepared data set"),
    "cut short": ("test.x.npy", lambda data: data[:-1], "test.x.npy"),
    "another value": ("test.x.npy", lambda data: data[:-1] + b"\xff", "was changed"),
    "another shape": ("test.x.npy", lambda data: data.replace(b"(3, 4)", b"(4, 3)"), "was changed"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_raises(tmp_path, change):
    name, damage, message = CHANGES[change]
    path = write(tmp_path) / name
    path.write_bytes(damage(path.read_bytes()))
    with refused(path.parent, message, "Delete or move", "`python -m scripts.data toy"):
        arrays.digest(tmp_path, "toy")


def test_nothing_is_overwritten(tmp_path):
    before = {path: path.read_bytes() for path in write(tmp_path).iterdir()}
    with refused(tmp_path / "toy", "--data_dir"):
        write(tmp_path, splits(4))
    assert {path: path.read_bytes() for path in (tmp_path / "toy").iterdir()} == before
    assert names(tmp_path) == ["toy"]


# Writes a data set and is killed: at half of the first or third array, before dataset.json, before
# the folder gets its name.
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
def test_a_killed_preparation_is_cleaned_up_at_the_next(tmp_path, number):
    assert python("-c", KILLED, number, tmp_path).returncode == -9
    (left,) = names(tmp_path)
    assert left.startswith(".toy.") and left.endswith(".partial")
    (tmp_path / ".toys.0.partial").mkdir()  # another data set's
    assert not arrays.is_prepared(tmp_path, "toy")
    with refused("does not exist", f"`python -m scripts.data toy --data_dir={tmp_path}`"):
        arrays.read(tmp_path, "toy")
    write(tmp_path)
    assert names(tmp_path) == [".toys.0.partial", "toy"]


@pytest.mark.parametrize("name, moment", [("digits", "save"), ("mnist", "save"), ("mnist", "read")])
def test_the_second_of_two_preparations_finds_the_first(
    tmp_path, source, data_dir, monkeypatch, capsys, name, moment
):
    place = source if name == "mnist" else None
    module, function = (arrays, arrays.save) if moment == "save" else (mnist, mnist.decode)
    started = []

    def overtaken(*arguments):
        if not started:
            started.append(True)
            datasets.prepare(name, data_dir, place)  # takes the other's folder for a leftover
        return function(*arguments)

    monkeypatch.setattr(module, function.__name__, overtaken)
    datasets.prepare(name, data_dir, place)
    assert "prepared in" in (out := capsys.readouterr().out) and "there already" in out
    assert names(data_dir) == [name]
    arrays.digest(data_dir, name)


# --- The table ---


def test_built_in_data_sets_stand_for_original_ones(data_dir, monkeypatch):
    rows = datasets.table()
    assert {rows[name].stands_for for name in BUILT_IN} <= set(ORIGINAL)
    assert all(rows[name].needs and rows[name].url and rows[name].budget for name in ORIGINAL)
    assert not set(ORIGINAL) & set(BUILT_IN)
    assert datasets.real("docs", data_dir) == "docs"
    monkeypatch.setattr(arrays, "is_prepared", lambda data_dir, name: name == "books")
    assert datasets.real("docs", data_dir) == "books"
    assert datasets.real("library", data_dir) == "library"


@pytest.mark.parametrize("name", [n if n in DIGESTS else exhaustive(n) for n in BUILT_IN])
def test_loading_prepares_a_built_in_data_set_once(tmp_path, data_dir, capsys, name):
    with refused(f"{name} is built in", "--from"):
        datasets.prepare(name, data_dir, tmp_path)
    assert not data_dir.exists()
    datasets.load(name, data_dir)
    assert f"{name}: prepared in {data_dir / name}\n" in capsys.readouterr().out
    if name in DIGESTS:
        assert arrays.digest(data_dir, name)[:8] == DIGESTS[name]
    before = (data_dir / name / "dataset.json").stat().st_mtime_ns
    datasets.load(name, data_dir)
    assert capsys.readouterr().out == ""
    assert (data_dir / name / "dataset.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", [name for name in ORIGINAL if name != "cifar10"])
def test_a_place_without_the_files_says_what_is_needed(tmp_path, data_dir, name):
    row = datasets.table()[name]
    help_line = f"Needed: {row.needs}, and `python -m scripts.data {name} --from=DIR`."
    with refused(data_dir / name, f"python -m scripts.data {name}"):
        datasets.load(name, data_dir)
    if not row.downloads:
        with refused(f"No command downloads {name}", row.url, "--from=DIR"):
            datasets.prepare(name, data_dir)
    with refused(help_line, f"use the built-in data set `{datasets.stand_in(name)}`"):
        datasets.prepare(name, data_dir, tmp_path)
    with refused(tmp_path / "nowhere", "does not exist", help_line):
        datasets.prepare(name, data_dir, tmp_path / "nowhere")
    assert not data_dir.exists() or names(data_dir) == []


# --- MNIST and binarized MNIST ---

TRAIN, VALID, TEST = 7, 5, 4
SIZES = dict(train=TRAIN, valid=VALID, test=TEST)
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def tiny_mnist(monkeypatch):
    """Return the four files of a tiny MNIST, which `mnist` expects: name -> unpacked bytes."""
    draw = np.random.RandomState(0)
    files, digests = {}, {}
    for part, n in (("train", TRAIN + VALID), ("t10k", TEST)):
        x = draw.randint(0, 256, (n, 28, 28)).astype(np.uint8)
        y = draw.randint(0, 10, n).astype(np.uint8)
        files[f"{part}-images-idx3-ubyte"] = struct.pack(">4I", 2051, *x.shape) + x.tobytes()
        files[f"{part}-labels-idx1-ubyte"] = struct.pack(">2I", 2049, n) + y.tobytes()
    for name, data in files.items():
        digests[name.rsplit("-", 2)[0]] = hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(mnist, "SHA256", digests)
    monkeypatch.setattr(mnist, "VALID", VALID)
    return files


@pytest.fixture
def contents(monkeypatch):
    return tiny_mnist(monkeypatch)


@pytest.fixture
def source(contents, tmp_path):
    """Return a folder with the four files, gzipped."""
    files = {f"{name}.gz": gzip.compress(data) for name, data in contents.items()}
    return lay(tmp_path / "source", files)


@pytest.mark.parametrize("dot, pack", [("-idx", gzip.compress), (".idx", bytes)])
def test_the_first_training_examples_of_mnist_validate(tmp_path, contents, data_dir, dot, pack):
    files = {f"raw/{name.replace('-idx', dot)}": pack(data) for name, data in contents.items()}
    datasets.prepare("mnist", data_dir, lay(tmp_path / "source", files))
    loaded = datasets.load("mnist", data_dir)
    images = np.frombuffer(contents[IMAGES], np.uint8, offset=16).reshape(-1, 784)
    labels = np.frombuffer(contents[LABELS], np.uint8, offset=8)
    for split, part in (("valid", slice(VALID)), ("train", slice(VALID, None))):
        np.testing.assert_array_equal(loaded[split]["x"], images[part])
        np.testing.assert_array_equal(loaded[split]["y"], labels[part])
    assert loaded["test"]["x"].shape == (TEST, 784)
    assert str(tmp_path / "source") in arrays.manifest(data_dir, "mnist")["source"]


def test_binarized_mnist_is_read_from_its_three_files(tmp_path, data_dir, monkeypatch):
    images = {split: np.random.RandomState(n).randint(0, 2, (n, 784)) for split, n in SIZES.items()}
    files = {
        split: "".join(" ".join(map(str, row)) + "\n" for row in x.tolist()).encode()
        for split, x in images.items()
    }
    digests = {split: hashlib.sha256(data).hexdigest() for split, data in files.items()}
    monkeypatch.setattr(binarized_mnist, "SHA256", digests)
    files = {f"binarized_mnist_{split}.amat": data for split, data in files.items()}
    datasets.prepare("binarized_mnist", data_dir, lay(tmp_path / "source", files))
    for split, arrays_ in datasets.load("binarized_mnist", data_dir).items():
        assert arrays_.keys() == {"x"} and arrays_["x"].dtype == np.uint8
        np.testing.assert_array_equal(arrays_["x"], images[split])


@pytest.mark.parametrize("data", [b"<!DOCTYPE html>404", gzip.compress(bytes(99))])
def test_a_file_of_another_digest_raises(source, data_dir, data):
    lay(source, {f"{IMAGES}.gz": data})
    with refused(f"{source}/{IMAGES} is not the original", "Needed: {train,t10k}-", "digits"):
        datasets.prepare("mnist", data_dir, source)


# --- Downloads by tensorflow-datasets, without network ---


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
    monkeypatch.setattr(downloader, "MAX_RETRIES", 10)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return temporary


def register(folder, monkeypatch):
    """Make tensorflow-datasets know the digests of MNIST's files as stored in a folder."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    row = datasets.table()["mnist"]
    paths = {row.url + name: folder / name for name in row.downloads}
    infos = {url: checksums.compute_url_info(path) for url, path in paths.items()}
    monkeypatch.setattr(tfds, "builder_cls", {"mnist": SimpleNamespace(url_infos=infos)}.get)


def test_a_download_is_prepared_once(source, server, data_dir, monkeypatch, capsys):
    register(source, monkeypatch)
    datasets.prepare("mnist", data_dir)
    assert datasets.load("mnist", data_dir)["train"]["x"].shape == (TRAIN, 784)
    assert datasets.table()["mnist"].url in arrays.manifest(data_dir, "mnist")["source"]
    assert names(server) == [] and "tensorflow" not in sys.modules
    monkeypatch.setattr(datasets, "download", lambda *_: pytest.fail("downloads"))
    capsys.readouterr()
    datasets.prepare("mnist", data_dir)
    assert "there already" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["another file", "a lost connection"])
def test_a_failed_download_leaves_nothing(source, server, data_dir, monkeypatch, kind):
    words = (f"{datasets.table()['mnist'].url}{IMAGES}.gz is not the original",)
    if kind == "a lost connection":
        register(source, monkeypatch)
        (source / f"{LABELS}.gz").unlink()
        words = ("Cannot download", "ConnectionError")
    with refused(*words, "--from=DIR", "digits"):
        datasets.prepare("mnist", data_dir)
    assert names(server) == [] and not data_dir.exists()
    module = sys.modules["tensorflow_datasets.core.download.downloader"]
    assert kind == "another file" or module.MAX_RETRIES == 1  # once is enough without network


@pytest.mark.parametrize("name", ["mnist", "binarized_mnist", "cifar10"])
def test_the_digest_of_every_download_is_known(name):
    tfds = pytest.importorskip("tensorflow_datasets")
    row, infos = datasets.table()[name], tfds.builder_cls(name).url_infos
    digests = [infos[row.url + file].checksum for file in row.downloads]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    if name == "binarized_mnist":
        assert digests == list(binarized_mnist.SHA256.values())


def test_a_download_without_tensorflow_datasets_says_so(data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with refused("requirements.txt", "tensorflow_datasets", "--from=DIR", "`digits`"):
        datasets.prepare("mnist", data_dir)
    assert not data_dir.exists()


# --- The command ---


@pytest.mark.slow
def test_the_command_prepares_and_lists(tmp_path):
    done = run("scripts.data", "digits", f"--data_dir={tmp_path}")
    assert done.returncode == 0 and "[1297, 64]" in done.stdout, done.stderr
    done = run("scripts.data", "--list", f"--data_dir={tmp_path}")
    listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert listed.keys() == datasets.table().keys()
    for name, row in datasets.table().items():
        assert ("built in" if row.make else row.needs) in listed[name] or name == "digits"
    assert listed["digits"].startswith(f"prepared      {tmp_path / 'digits'}: scikit-learn")
