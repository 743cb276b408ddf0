"""CIFAR-10's original files, in both of their versions."""

import pickle
import tarfile

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets.corpora import cifar10
from tests.files import lay
from tests.test_datasets import refused

N = 30  # examples of a file, here


@pytest.fixture(autouse=True)
def few(monkeypatch):
    corpus(monkeypatch)


def corpus(monkeypatch):
    """Return the binary version with few examples."""
    monkeypatch.setattr(cifar10, "EXAMPLES", N)
    monkeypatch.setattr(cifar10, "VALID", 20)
    return {f"{name}.bin": binary(n) for n, name in enumerate(cifar10.NAMES)}


def images(n):
    """Red, green, blue planes ``[N, 3, 32, 32]`` and labels of file n."""
    random = np.random.default_rng(n)
    return random.integers(256, size=(N, 3, 32, 32), dtype=np.uint8), random.integers(10, size=N)


def binary(n):
    x, y = images(n)
    return np.column_stack([y.astype(np.uint8), x.reshape(N, -1)]).tobytes()


def pickled(n, **fields):
    x, y = images(n)
    batch = {"data": x.reshape(N, -1), "labels": y.tolist(), "batch_label": "some"}
    return pickle.dumps(batch | fields, protocol=2)


@pytest.mark.parametrize("form", ["binary", "python", "binary.tar.gz", "python.tar.gz"])
@pytest.mark.parametrize("is_inside", [False, True])
def test_both_versions_give_the_same_arrays(tmp_path, form, is_inside):
    write, ending = (binary, ".bin") if "binary" in form else (pickled, "")
    files = {f"{name}{ending}": write(n) for n, name in enumerate(cifar10.NAMES)}
    folder = lay(tmp_path / "original" / "cifar", files | {"batches.meta": b"whatever"})
    source = folder.parent if is_inside else folder
    if form.endswith(".gz"):
        source = tmp_path / "archives" / f"cifar-10-{form}"
        source.parent.mkdir()
        with tarfile.open(source, "w:gz") as archive:
            archive.add(folder, "cifar")
        source = source.parent if is_inside else source
    datasets.prepare("cifar10", tmp_path / "data", source)
    splits = datasets.load("cifar10", tmp_path / "data")
    assert {name: len(split["y"]) for name, split in splits.items()} == dict(
        train=5 * N - 20, valid=20, test=N
    )
    x, y = images(4)
    np.testing.assert_array_equal(splits["valid"]["y"], y[-20:])
    first = splits["valid"]["x"][0].reshape(32, 32, 3)
    np.testing.assert_array_equal(first, x[-20].transpose(1, 2, 0))
    np.testing.assert_array_equal(splits["test"]["y"], images(5)[1])


BAD = {
    "short": ("data_batch_2.bin", binary(1)[:-1], "data_batch_2 is no pickle"),
    "no pickle": ("data_batch_1", b"<html>", "data_batch_1 is no pickle"),
    "a list": ("data_batch_1", pickle.dumps([]), "data_batch_1: expected"),
    "few": ("data_batch_1", pickled(0, data=np.zeros(3, np.uint8)), "data_batch_1: expected"),
    "no array": ("data_batch_1", pickled(0, data={}), "data_batch_1: expected"),
    "floats": ("data_batch_1", pickled(0, labels=[0.5] * N), "data_batch_1: expected"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_raises_with_its_name(tmp_path, kind):
    name, contents, message = BAD[kind]
    files = {f"{stem}.bin": binary(n) for n, stem in enumerate(cifar10.NAMES)} | {name: contents}
    folder = lay(tmp_path, files)
    with refused(message, "Needed: cifar-10-binary.tar.gz"):
        datasets.prepare("cifar10", tmp_path / "data", folder)
    assert not (tmp_path / "data").exists()
