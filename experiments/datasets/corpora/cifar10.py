"""CIFAR-10 (Krizhevsky 2009), for §6.7: 60,000 images of 32 x 32 pixels in ten classes.

    python -m scripts.data cifar10 --from=DIR

From its binary version (data_batch_1.bin, …, data_batch_5.bin, test_batch.bin: a label, then 3,072
bytes, red, green, blue) or its version for Python (data_batch_1, …, test_batch: pickles, in which
nothing is executed); as they are, in a folder below, or in the archives cifar-10-binary.tar.gz and
cifar-10-python.tar.gz.
"""

from collections.abc import Callable
import io
from pathlib import Path
import re

import numpy as np

from experiments.datasets import arrays
from experiments.datasets.originals import DAMAGED, Files, Plain, members
from ln.errors import InputError

SIDE, COLOURS, CLASSES = 32, 3, 10
D = COLOURS * SIDE * SIDE
CASES = 10_000  # of a file
VALID = 5_000  # the last of the 50,000, ours
NAMES = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
NAME = re.compile(rf"(?:.*/)?({'|'.join(NAMES)})(\.bin)?")
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")

FILES = Files(
    name="cifar10",
    title="CIFAR-10",
    url="https://www.cs.toronto.edu/~kriz/",
    names=(ARCHIVES[0],),
    stand_in="digits",
)
EXPECTED = f"{', '.join(ARCHIVES)}, or the files in them"

Batch = tuple[np.ndarray, np.ndarray]  # uint8 [N, D] in order of height, width and colour; [N]


def prepare(data_dir: str | Path, source: str | Path | None = None) -> None:
    """Makes ``<data_dir>/cifar10``: 45,000 training, 5,000 validation and 10,000 test cases.

    Args:
        data_dir: where prepared data sets lie.
        source: a folder or archive with the original files; None downloads them.

    Raises:
        InputError: a file is missing or damaged, or the download fails.
    """
    FILES.prepare(data_dir, source, read)


def read(source: Path) -> arrays.Splits:
    """Reads and checks the files of a place, and splits them.

    Raises:
        InputError: see `prepare`.
    """
    found: dict[str, Batch] = {}
    for where, data in files_of(source):
        name, binary = NAME.fullmatch(where).groups()
        if name in found:
            raise InputError(f"{source} has {name} twice; the second is {where}.")
        decode: Callable[[str, bytes], Batch] = of_binary if binary else of_pickle
        found[name] = decode(f"{source}/{where}", data)
    if lacking := [name for name in NAMES if name not in found]:
        raise InputError(f"{source} has no {', '.join(lacking)}. Needed: {EXPECTED}.")
    *trained, test = (found[name] for name in NAMES)
    x, y = map(np.concatenate, zip(*trained, strict=True))
    return dict(
        train=dict(x=x[:-VALID], y=y[:-VALID]),
        valid=dict(x=x[-VALID:], y=y[-VALID:]),
        test=dict(x=test[0], y=test[1]),
    )


def files_of(source: Path):
    """Names and contents of the files in or below a folder, or in an archive.

    Raises:
        InputError: there is no such place, or the archive is damaged.
    """
    if source.is_dir():
        packed = [source / name for name in ARCHIVES if (source / name).is_file()]
        if packed:
            yield from files_of(packed[0])
            return
        for path in sorted(source.rglob("*_batch*")):
            where = path.relative_to(source).as_posix()
            if NAME.fullmatch(where) and path.is_file():
                yield where, path.read_bytes()
        return
    if not source.is_file():
        raise InputError(f"{source} does not exist. Needed: {EXPECTED}.")
    try:
        for where, file in members(source, NAME):
            yield where, file.read()
    except DAMAGED as error:
        raise InputError(
            f"Cannot read {source} ({type(error).__name__}: {error}): is it a whole archive? "
            f"Needed: {EXPECTED}."
        ) from error


def of_binary(where: str, data: bytes) -> Batch:
    """The cases of a file of the binary version."""
    if len(data) != CASES * (1 + D):
        raise InputError(
            f"{where}: expected {CASES * (1 + D):,} bytes, found {len(data):,}. Get it again."
        )
    rows = np.frombuffer(data, np.uint8).reshape(CASES, 1 + D)
    return checked(where, rows[:, 1:], rows[:, 0])


def of_pickle(where: str, data: bytes) -> Batch:
    """The cases of a file of the version for Python."""
    try:
        found = Plain(io.BytesIO(data), encoding="latin-1").load()
        x, y = found["data"], np.array(found["labels"])
    except Exception as error:  # broken pickles raise all sorts of errors
        raise InputError(
            f"{where} is no pickle of images and labels ({type(error).__name__}: {error}), and was "
            f"not loaded. Needed: {EXPECTED}."
        ) from error
    return checked(where, x, y)


def checked(where: str, x, y) -> Batch:
    """Images as they are kept.

    Raises:
        InputError: they are not those of CIFAR-10.
    """
    is_x = isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.shape == (CASES, D)
    if not is_x or y.shape != (CASES,) or y.dtype.kind not in "iu":
        raise InputError(f"{where}: expected {CASES:,} images of {D:,} bytes and their labels.")
    if not 0 <= y.min() <= y.max() < CLASSES:
        raise InputError(f"{where}: expected labels from 0 to 9, found {y.min()} to {y.max()}.")
    planes = x.reshape(CASES, COLOURS, SIDE, SIDE)
    return planes.transpose(0, 2, 3, 1).reshape(CASES, D), y.astype(np.int32)
