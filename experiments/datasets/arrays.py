"""Prepared data sets on disk: one folder each, one .npy file per array, and their digests.

    data/mnist/dataset.json   name, version, source, date, and for each array its shape, dtype,
                              size of the file in bytes, and SHA-256 of the values
    data/mnist/train.x.npy    the array "x" of the split "train"
    data/mnist/train.y.npy    and so on

A folder is complete or absent: it is filled as ``.mnist.<random>.partial`` and then renamed.
Reading maps the files into memory. An array that is written may be larger than memory, too, if it
is mapped, as those of `Growing` are.
"""

from collections.abc import Iterator, Mapping
import contextlib
import datetime
import hashlib
import json
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any
import uuid
import weakref

import numpy as np

from ln.errors import InputError, writing

VERSION = 1  # of this layout
BLOCK = 2**24  # bytes
Splits = Mapping[str, Mapping[str, np.ndarray]]  # split -> array -> values


class Growing:
    """An array that grows on disk, row by row, and then is mapped into memory.

    Its file has no name: the system removes it even if the process is killed.
    """

    def __init__(self, folder: Path, dtype: Any, *row: int):
        self.dtype, self.row = dtype, row
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by finalize
        weakref.finalize(self, self.file.close)

    def add(self, rows: Any) -> None:
        """Append rows."""
        self.file.write(np.asarray(rows, self.dtype).data)

    def mapped(self) -> np.ndarray:
        """Return the whole array, read-only."""
        self.file.flush()
        return np.memmap(self.file, self.dtype, "r").reshape(-1, *self.row)


def describe(values: np.ndarray) -> dict:
    """Return the shape, dtype and SHA-256 of an array."""
    digest = hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
    return dict(shape=list(values.shape), dtype=str(values.dtype), sha256=digest)


def save(path: Path, values: np.ndarray) -> dict:
    """Write one array in numpy's format; return its description and the size of the file."""
    values = np.ascontiguousarray(values)
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(values)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(values.data)  # np.save does not say why it could not write
    return dict(describe(values), bytes=path.stat().st_size)


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
    """Store a data set at ``<data_dir>/<name>``, where nothing may be.

    Args:
        data_dir: the folder of all prepared data sets.
        name: the data set.
        splits: its arrays, as `read` will return them.
        info: further entries of dataset.json, such as the source.

    Raises:
        InputError: something is there already, or the disk cannot be written to.
    """
    folder = Path(data_dir) / name
    values = {f"{split}.{key}": array for split in splits for key, array in splits[split].items()}
    if folder.exists():
        raise InputError(f"{folder} exists already. Delete it, or choose another --data_dir.")
    with writing(folder, "--data_dir"), partial_folder(folder) as partial:
        entries = {key: save(partial / f"{key}.npy", array) for key, array in values.items()}
        made_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        contents = dict(name=name, version=VERSION, **info, made_at=made_at, arrays=entries)
        (partial / "dataset.json").write_text(json.dumps(contents, indent=2) + "\n")
        os.replace(partial, folder)
        remove_leftovers(folder)
    print(f"{name}: prepared in {folder}")


def is_prepared(data_dir: str | Path, name: str) -> bool:
    """Return whether the folder of a data set exists. Folders only appear when complete.

    Raises:
        InputError: data_dir is not the name of a folder.
    """
    try:
        return (Path(data_dir) / name).lstat() is not None
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # too long, without encoding, not to be looked into
        raise InputError(
            f"{str(data_dir)!r} cannot be the folder of the data ({error!r}). Choose another "
            f"--data_dir."
        ) from error


def _how(data_dir: str | Path, name: str) -> str:
    return f"run `python -m scripts.data {name} --data_dir={data_dir}`."


def manifest(data_dir: str | Path, name: str) -> dict:
    """Return the contents of dataset.json of a prepared data set.

    Raises:
        InputError: there is no such folder, or it is not a prepared data set of this name.
    """
    folder = Path(data_dir) / name
    if not is_prepared(data_dir, name):
        raise InputError(f"{folder} does not exist; to prepare it, {_how(data_dir, name)}")
    try:
        contents = json.loads((folder / "dataset.json").read_text())
        is_ours = (contents["name"], contents["version"]) == (name, VERSION) and all(
            "." in key and Path(key).name == key and isinstance(entry, dict)
            for key, entry in contents["arrays"].items()
        )
        is_ours &= bool(contents["arrays"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_ours = False
    if not is_ours:
        raise InputError(
            f"{folder} is not a prepared data set: expected a dataset.json of {name}, version "
            f"{VERSION}. Delete or move it, then {_how(data_dir, name)}"
        )
    return contents


def read(data_dir: str | Path, name: str) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays of a prepared data set, ``read(...)["train"]["x"]``, mapped read-only.

    The values, dtypes and shapes are checked by `digest`.

    Raises:
        InputError: the data set is missing or incomplete; the message says how to make it.
    """
    splits: dict[str, dict[str, np.ndarray]] = {}
    for key in manifest(data_dir, name)["arrays"]:
        split, array = key.split(".", 1)
        path = Path(data_dir) / name / f"{key}.npy"
        try:
            values = np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError, EOFError, OverflowError) as error:
            raise InputError(
                f"{path}: {error}. Delete or move {path.parent}, then {_how(data_dir, name)}"
            ) from error
        # Still mapped; indexing numpy's memmap class takes twice as long.
        splits.setdefault(split, {})[array] = np.asarray(values)
    return splits


def digest(data_dir: str | Path, name: str) -> str:
    """Return the digest of a prepared data set: that of shapes and digests of its arrays.

    It reads all arrays, because a file may have changed since it was prepared.

    Raises:
        InputError: as `read`, or an array has changed.
    """
    entries, splits = manifest(data_dir, name)["arrays"], read(data_dir, name)
    for key, entry in entries.items():
        split, array = key.split(".", 1)
        if not describe(splits[split][array]).items() <= entry.items():
            path = Path(data_dir) / name / f"{key}.npy"
            raise InputError(
                f"{path} was changed since it was prepared. Delete or move {path.parent}, then "
                f"{_how(data_dir, name)}"
            )
    values = {key: [entry["shape"], entry["sha256"]] for key, entry in entries.items()}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
