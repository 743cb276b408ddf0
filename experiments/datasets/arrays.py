"""Prepared data sets on disk: one folder each, one .npy file per array, and their digests.

    data/mnist/dataset.json   name, version, source, date, and for each array its shape, dtype,
                              size of the file in bytes, and SHA-256 of the values
    data/mnist/train.x.npy    the array "x" of the split "train"
    data/mnist/train.y.npy    and so on

A folder is complete or absent: it is filled as ``.mnist.<random>.partial`` and then renamed.
Reading maps the files into memory. Writing takes a few rows at a time, so an array may be larger
than memory: anything with a shape, a dtype and slices that are arrays will do.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import datetime
import hashlib
import json
import math
import os
from pathlib import Path
import shutil
import uuid

import numpy as np

from ln.errors import InputError, writing

VERSION = 1  # of this layout
BLOCK = 2**24  # bytes
Splits = Mapping[str, Mapping[str, np.ndarray]]  # split -> array -> values


def command(data_dir: str | Path, name: str) -> str:
    """Return the command that prepares a data set."""
    return f"`python -m scripts.data {name} --data_dir={data_dir}`"


def blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of an array, as many at a time as BLOCK holds, contiguous."""
    row = values.dtype.itemsize * math.prod(values.shape[1:])
    step = max(1, BLOCK // max(1, row))
    for start in range(0, len(values), step):
        yield np.ascontiguousarray(values[start : start + step])


def describe(values: np.ndarray, copy: Callable | None = None) -> dict:
    """Return the shape, dtype and SHA-256 of an array.

    Args:
        values: the array.
        copy: is called with the bytes of each block, so that a large array is read only once.
    """
    digest = hashlib.sha256()
    for block in blocks(values):
        digest.update(block.data)
        if copy:
            copy(block.data)
    return dict(shape=list(values.shape), dtype=str(values.dtype), sha256=digest.hexdigest())


def save(path: Path, values: np.ndarray) -> dict:
    """Write one array in numpy's format; return its description and the size of the file."""
    descr = np.lib.format.dtype_to_descr(values.dtype)
    header = dict(descr=descr, fortran_order=False, shape=values.shape)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        entry = describe(values, file.write)
    return dict(entry, bytes=path.stat().st_size)


@contextlib.contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """Make a new folder beside the given one; remove it afterwards unless it was renamed."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the partial folders of killed processes. Call it once the folder is complete.

    A process that is still running loses its partial folder, and finds the complete one instead.
    """
    for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)


def write(data_dir: str | Path, name: str, splits: Splits, info: Mapping) -> None:
    """Store a data set at ``<data_dir>/<name>``; do nothing if it has these very arrays already.

    Args:
        data_dir: the folder of all prepared data sets.
        name: the data set.
        splits: its arrays, as `read` will return them.
        info: further entries of dataset.json, such as the source.

    Raises:
        InputError: something else is there already, or the disk cannot be written to.
    """
    folder = Path(data_dir) / name
    values = {f"{split}.{key}": array for split in splits for key, array in splits[split].items()}
    with writing(folder, "--data_dir"):
        if folder.exists():
            new = _digest({key: describe(array) for key, array in values.items()})
            if new != digest(data_dir, name):
                raise InputError(f"{folder} has other contents. {_remedy(data_dir, name)}")
            print(f"{name}: {folder} is there already, nothing to do")
        else:
            _install(folder, values, info)
            print(f"{name}: prepared in {folder}")
        remove_leftovers(folder)


def _install(folder: Path, values: Mapping[str, np.ndarray], info: Mapping) -> None:
    with partial_folder(folder) as partial:
        entries = {key: save(partial / f"{key}.npy", array) for key, array in values.items()}
        made_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        contents = dict(name=folder.name, version=VERSION, **info, made_at=made_at, arrays=entries)
        (partial / "dataset.json").write_text(json.dumps(contents, indent=2) + "\n")
        os.replace(partial, folder)


def is_prepared(data_dir: str | Path, name: str) -> bool:
    """Return whether there is a folder of this name; it is complete unless somebody changed it."""
    return (Path(data_dir) / name).exists()


def _remedy(data_dir: str | Path, name: str) -> str:
    return f"Delete or move {Path(data_dir) / name}, then run {command(data_dir, name)}."


def manifest(data_dir: str | Path, name: str) -> dict:
    """Return the contents of dataset.json of a prepared data set.

    Raises:
        InputError: there is no such folder, or it is not a prepared data set of this name.
    """
    folder = Path(data_dir) / name
    if not folder.exists():
        raise InputError(f"{folder} does not exist. Run {command(data_dir, name)} to prepare it.")
    try:
        contents = json.loads((folder / "dataset.json").read_text())
        is_ours = (contents["name"], contents["version"]) == (name, VERSION) and contents["arrays"]
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise InputError(
            f"{folder} is not a prepared data set: expected a dataset.json of {name}, version "
            f"{VERSION}. {_remedy(data_dir, name)}"
        )
    return contents


def read(data_dir: str | Path, name: str) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays of a prepared data set, ``read(...)["train"]["x"]``, mapped read-only.

    Shapes, dtypes and sizes of the files are checked; the values are checked by `digest`.

    Raises:
        InputError: the data set is missing or incomplete; the message says how to make it.
    """
    splits: dict[str, dict[str, np.ndarray]] = {}
    for key, entry in manifest(data_dir, name)["arrays"].items():
        split, array = key.split(".", 1)
        path = Path(data_dir) / name / f"{key}.npy"
        try:
            splits.setdefault(split, {})[array] = _open(path, entry)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: {error}. {_remedy(data_dir, name)}") from error
    return splits


def _open(path: Path, entry: dict) -> np.ndarray:
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ValueError(f"expected {entry['bytes']:,} bytes, found {size:,}")
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    expected, actual = f"{entry['dtype']} {entry['shape']}", f"{values.dtype} {list(values.shape)}"
    if actual != expected:
        raise ValueError(f"expected {expected}, found {actual}")
    return np.asarray(values)  # still mapped; indexing numpy's memmap class takes twice as long


def digest(data_dir: str | Path, name: str) -> str:
    """Return the digest of a prepared data set: that of the digests of its arrays.

    It reads all arrays, because a file may have changed since it was prepared.

    Raises:
        InputError: as `read`, or an array has changed.
    """
    entries, splits = manifest(data_dir, name)["arrays"], read(data_dir, name)
    for key, entry in entries.items():
        split, array = key.split(".", 1)
        if describe(splits[split][array])["sha256"] != entry["sha256"]:
            path = Path(data_dir) / name / f"{key}.npy"
            raise InputError(f"{path} was changed since it was prepared. {_remedy(data_dir, name)}")
    return _digest(entries)


def _digest(entries: Mapping[str, Mapping]) -> str:
    values = {key: [entry["shape"], entry["sha256"]] for key, entry in entries.items()}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
