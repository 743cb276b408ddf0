"""How a prepared data set lies on disk: one folder, one .npy file per array, and what they must be.

    data/mnist/dataset.json   name, version, source, when it was made, and for each array
                              its shape, dtype, size of the file and sha256 of the values
    data/mnist/train.x.npy    the array "x" of the split "train"
    data/mnist/train.y.npy    and so on

A folder is there whole or not at all: it is filled as ``.mnist.<random>.partial`` and then renamed.
Reading maps the files into memory, so that it costs nothing until values are used. Writing takes a
few rows at a time: an array need not fit into memory, or be one, if it has a shape, a dtype, and
slices that are arrays.
"""

from collections.abc import Iterator, Mapping
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
    """The command that makes a data set."""
    return f"`python -m scripts.data {name} --data_dir={data_dir}`"


def blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of an array, as many at a time as BLOCK holds, contiguous."""
    row = values.dtype.itemsize * math.prod(values.shape[1:])
    step = max(1, BLOCK // max(1, row))
    for start in range(0, len(values), step):
        yield np.ascontiguousarray(values[start : start + step])


def describe(values: np.ndarray) -> dict:
    """What identifies an array, whichever numpy wrote it."""
    digest = hashlib.sha256()
    for block in blocks(values):
        digest.update(block.data)
    return dict(shape=list(values.shape), dtype=str(values.dtype), sha256=digest.hexdigest())


def save(path: Path, values: np.ndarray) -> int:
    """Writes one array, as np.save does; returns the size of the file in bytes."""
    descr = np.lib.format.dtype_to_descr(values.dtype)
    header = dict(descr=descr, fortran_order=False, shape=values.shape)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks(values):
            file.write(block.data)
    return path.stat().st_size


def equal(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two arrays of one shape and dtype have the same values."""
    return all(np.array_equal(*pair) for pair in zip(blocks(one), blocks(two), strict=True))


@contextlib.contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside the given one, gone afterwards unless it was renamed."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed preparations left beside a folder.

    To be called once the folder is there: should one of them still be running, it then finds the
    finished folder in place of its own.
    """
    for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)


def write(data_dir: str | Path, name: str, splits: Splits, info: Mapping) -> Path:
    """Puts a prepared data set at ``<data_dir>/<name>``, says so, and returns that folder.

    A folder that holds these very arrays already is left alone; files of it that are missing or
    too short are made anew.

    Args:
        data_dir: where all prepared data sets lie.
        name: of the data set.
        splits: its arrays, as `read` will return them.
        info: what else dataset.json shall say, such as the source.

    Raises:
        InputError: something else is there already, or the disk cannot be written to.
    """
    folder = Path(data_dir) / name
    values = {f"{split}.{key}": array for split in splits for key, array in splits[split].items()}
    arrays = {key: describe(array) for key, array in values.items()}
    with writing(folder, "--data_dir"):
        new = not folder.exists() and _install(folder, name, values, arrays, info)
        remove_leftovers(folder)
        mended = [] if new else _mend(data_dir, name, values, arrays)
    if new:
        print(f"{name}: prepared in {folder}")
    elif mended:
        print(f"{name}: {folder} was incomplete, made anew: {', '.join(mended)}")
    else:
        print(f"{name}: {folder} is there already, nothing to do")
    return folder


def _install(folder: Path, name: str, values: dict, arrays: dict, info: Mapping) -> bool:
    """Fills a folder and moves it into place; False if another process was first."""
    with partial_folder(folder) as partial:
        try:
            sizes = {key: save(partial / f"{key}.npy", array) for key, array in values.items()}
            contents = dict(
                name=name,
                version=VERSION,
                **info,
                made_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                arrays={key: dict(arrays[key], bytes=sizes[key]) for key in arrays},
            )
            (partial / "dataset.json").write_text(json.dumps(contents, indent=2) + "\n")
            os.replace(partial, folder)
        except OSError:
            if folder.exists():
                return False
            raise
    return True


def _mend(data_dir: str | Path, name: str, values: dict, arrays: dict) -> list[str]:
    """Makes anew what is missing of an existing folder; returns the names of those files.

    Raises:
        InputError: the folder is not known to be this data set, whole or in part.
    """
    folder = Path(data_dir) / name
    old = manifest(data_dir, name)["arrays"]
    remedy = _remedy(data_dir, name)
    recorded = {
        key: {what: entry[what] for what in ("shape", "dtype", "sha256")}
        for key, entry in old.items()
    }
    for key in sorted(arrays.keys() | recorded.keys()):
        if arrays.get(key) != recorded.get(key):
            raise InputError(f"{folder} holds another {name}: {key} differs. {remedy}")
    broken = [key for key in sorted(old) if _size(folder / f"{key}.npy") != old[key]["bytes"]]
    for key in old.keys() - set(broken):
        path = folder / f"{key}.npy"
        if not equal(_open(path, old[key], remedy), values[key]):
            raise _changed(data_dir, name, key)
    for key in broken:
        unfinished = folder / f"{key}.npy.partial"
        save(unfinished, values[key])
        os.replace(unfinished, folder / f"{key}.npy")
    return [f"{key}.npy" for key in broken]


def _remedy(data_dir: str | Path, name: str) -> str:
    return f"Delete or move {Path(data_dir) / name}, then run {command(data_dir, name)} again."


def _changed(data_dir: str | Path, name: str, key: str) -> InputError:
    path = Path(data_dir) / name / f"{key}.npy"
    return InputError(f"{path} was changed since it was prepared. {_remedy(data_dir, name)}")


def manifest(data_dir: str | Path, name: str) -> dict:
    """The contents of the dataset.json of a prepared data set.

    Raises:
        InputError: there is no such folder, or it is not a prepared data set of this name.
    """
    folder = Path(data_dir) / name
    if not folder.exists():
        raise InputError(
            f"No data set in {folder}: it needs dataset.json and the arrays that "
            f"{command(data_dir, name)} makes."
        )
    try:
        found = json.loads((folder / "dataset.json").read_text())
        is_ours = (found["name"], found["version"]) == (name, VERSION) and found["arrays"]
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise InputError(
            f"{folder} is not a prepared data set: expected a dataset.json of {name}, version "
            f"{VERSION}. Move it away, then run {command(data_dir, name)}."
        )
    return found


def digest(data_dir: str | Path, name: str) -> str:
    """What tells a prepared data set apart from any other, by the digests of its arrays.

    It reads all of them, since a file may have been changed after it was prepared.

    Raises:
        InputError: as `read`, or an array was changed.
    """
    entries, splits = manifest(data_dir, name)["arrays"], read(data_dir, name)
    for key, entry in entries.items():
        split, array = key.split(".", 1)
        if describe(splits[split][array])["sha256"] != entry["sha256"]:
            raise _changed(data_dir, name, key)
    values = {key: [entry["shape"], entry["sha256"]] for key, entry in entries.items()}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def is_prepared(data_dir: str | Path, name: str) -> bool:
    """Whether all files of a data set are there; False where some are missing or too short.

    Raises:
        InputError: something else lies in its place.
    """
    folder = Path(data_dir) / name
    if not folder.exists():
        return False
    arrays = manifest(data_dir, name)["arrays"]
    return all(_size(folder / f"{key}.npy") == arrays[key]["bytes"] for key in arrays)


def read(data_dir: str | Path, name: str) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a prepared data set, ``read(...)["train"]["x"]``, mapped read-only.

    Shapes, dtypes and sizes of the files are checked; the values are by `digest`.

    Raises:
        InputError: not there, truncated, or made by something else; says what makes it.
    """
    again = f"Make it again with {command(data_dir, name)}."
    splits: dict[str, dict[str, np.ndarray]] = {}
    for key, expected in manifest(data_dir, name)["arrays"].items():
        split, array = key.split(".", 1)
        path = Path(data_dir) / name / f"{key}.npy"
        size = _size(path)
        if size != expected["bytes"]:
            found = "it is missing" if size is None else f"found {size:,}"
            raise InputError(f"{path}: expected {expected['bytes']:,} bytes, {found}. {again}")
        splits.setdefault(split, {})[array] = _open(path, expected, again)
    return splits


def _open(path: Path, expected: dict, remedy: str) -> np.ndarray:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        found = f"{values.dtype} {list(values.shape)}"
    except (ValueError, EOFError) as error:
        values, found = None, f"no array ({error})"
    if found != f"{expected['dtype']} {expected['shape']}":
        raise InputError(
            f"{path}: expected {expected['dtype']} {expected['shape']}, found {found}. {remedy}"
        )
    return np.asarray(values)  # still mapped; indexing numpy's memmap class takes twice as long
