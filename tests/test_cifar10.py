"""CIFAR-10's original files."""

import numpy as np

from experiments import datasets
from experiments.datasets.corpora import cifar10
from tests.files import lay
from tests.test_datasets import refused

N = 30  # examples of a file, here


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


def test_a_folder_is_read_with_the_last_examples_apart(tmp_path, monkeypatch):
    """tests/test_readers.py reads archives and deeper folders."""
    source = lay(tmp_path / "cifar", corpus(monkeypatch) | {"batches.meta": b"whatever"})
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


def test_a_file_of_another_size_raises_with_its_name(tmp_path, monkeypatch):
    folder = lay(tmp_path, corpus(monkeypatch) | {"data_batch_2.bin": binary(1)[:-1]})
    with refused("data_batch_2.bin has", "Needed: cifar-10-binary.tar.gz"):
        datasets.prepare("cifar10", tmp_path / "data", folder)
    assert not (tmp_path / "data").exists()
