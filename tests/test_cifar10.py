"""CIFAR-10's original files, in both of their versions."""

import io
import pickle
import tarfile

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets.corpora import cifar10
from experiments.datasets.originals import Plain
from ln.errors import InputError

N = 30  # cases of a file, here


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(cifar10, "CASES", N)
    monkeypatch.setattr(cifar10, "VALID", 20)


def images(n):
    """Red, green, blue planes ``[N, 3, 32, 32]`` and labels of file n."""
    random = np.random.default_rng(n)
    return random.integers(256, size=(N, 3, 32, 32), dtype=np.uint8), random.integers(10, size=N)


def binary(n):
    x, y = images(n)
    return np.column_stack([y.astype(np.uint8), x.reshape(N, -1)]).tobytes()


def pickled(n):
    x, y = images(n)
    found = {"data": x.reshape(N, -1), "labels": y.tolist(), "batch_label": "some"}
    return pickle.dumps(found, protocol=2)


@pytest.mark.parametrize("form", ["binary", "python", "binary.tar.gz", "python.tar.gz"])
def test_both_versions_give_the_same_arrays_with_the_last_cases_for_validation(tmp_path, form):
    folder = tmp_path / "original" / "cifar"
    folder.mkdir(parents=True)
    write, ending = (binary, ".bin") if "binary" in form else (pickled, "")
    for n, name in enumerate(cifar10.NAMES):
        (folder / f"{name}{ending}").write_bytes(write(n))
    (folder / "batches.meta").write_bytes(b"whatever")
    source = folder.parent
    if form.endswith(".gz"):
        source = tmp_path / f"cifar-10-{form}"
        with tarfile.open(source, "w:gz") as archive:
            archive.add(folder, "cifar")
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


class Malicious:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    "name, contents, message",
    [
        ("data_batch_2.bin", binary(1)[:-1], "data_batch_2.bin: expected"),
        ("data_batch_2.bin", b"\x0a" + binary(1)[1:], "labels from 0 to 9"),
        ("data_batch_2", pickled(1), "has data_batch_2 twice"),
        ("data_batch_2.bin", None, "has no data_batch_2"),
    ],
    ids=["short", "label", "twice", "missing"],
)
def test_files_that_are_not_the_originals_are_named(tmp_path, name, contents, message):
    for n, stem in enumerate(cifar10.NAMES):
        (tmp_path / f"{stem}.bin").write_bytes(binary(n))
    (tmp_path / name).write_bytes(contents) if contents else (tmp_path / name).unlink()
    with pytest.raises(InputError, match=message):
        cifar10.read(tmp_path)


class Pickled:
    """Is pickled as a call, and as the state of what that returns."""

    def __init__(self, call, arguments, *state):
        self.parts = call, arguments, *state

    def __reduce__(self):
        return self.parts


# A dtype of eight bytes that are the address of an object, and says that it is none.
ADDRESS = Pickled(
    *(np.dtype, ("V8", False, True)),
    (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0),
)
ARRAYS = {
    "addresses": (*np.zeros(0).__reduce__()[:2], (1, (1,), ADDRESS, False, bytes(8))),
    "made of": (np.ndarray, ((1,), np.dtype("O"), bytes(8))),
    "objects": np.array([None], object).__reduce__(),
}


@pytest.mark.parametrize("parts", ARRAYS.values(), ids=ARRAYS)
def test_arrays_of_anything_but_numbers_are_not_even_made(parts):
    value = {"data": Pickled(*parts), "labels": [1]}
    with pytest.raises(InputError, match="not loaded"):
        cifar10.of_pickle("data_batch_1", pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("kind", ["|u1", ">i4", "<f8"])
def test_arrays_of_numbers_are_loaded_as_they_are(kind, order):
    array = np.arange(6).reshape(2, 3).astype(kind, order=order)
    for data in (pickle.dumps(array, protocol=2), pickle.dumps(array, protocol=3)):
        found = Plain(io.BytesIO(data), encoding="latin-1").load()
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize(
    "value",
    [Malicious(), {"data": np.zeros(3), "labels": [1]}, {"data": Malicious(), "labels": [1]}, []],
    ids=["code", "shape", "inside", "list"],
)
def test_pickles_of_anything_else_are_refused_and_not_executed(value, capsys):
    with pytest.raises(InputError, match="data_batch_1"):
        cifar10.of_pickle("data_batch_1", pickle.dumps(value, protocol=2))
    assert capsys.readouterr().out == ""


def test_places_without_the_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no data_batch_1, .*test_batch"):
        cifar10.read(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        cifar10.read(tmp_path / "nowhere")
    (tmp_path / "broken.tar.gz").write_bytes(b"\x1f\x8bno archive")
    with pytest.raises(InputError, match="whole archive"):
        cifar10.read(tmp_path / "broken.tar.gz")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
def test_no_link_in_an_archive_is_followed(tmp_path, kind):
    secret = tmp_path / "secret"
    secret.write_bytes(binary(1))
    with tarfile.open(tmp_path / "cifar.tar", "w") as archive:
        link = tarfile.TarInfo("data_batch_1.bin")
        link.type, link.linkname = kind, str(secret)
        archive.addfile(link)
    with pytest.raises(InputError, match="Cannot read .*cifar.tar .*link"):
        cifar10.read(tmp_path / "cifar.tar")
