"""MNIST: 70,000 handwritten digits of 28 x 28 pixels (LeCun, Cortes and Burges).

The four original files, big-endian, as they are or gzipped:

    train-images-idx3-ubyte   2051, 60000, 28, 28 as 32-bit integers; a byte a pixel, row by row
    train-labels-idx1-ubyte   2049, 60000; a byte a label
    t10k-images-idx3-ubyte    the same for the 10,000 test cases
    t10k-labels-idx1-ubyte

Prepared: ``x`` uint8 ``[N, 784]``, 0 is background; ``y`` int32 ``[N]``, 0 to 9.
"""

import dataclasses
from functools import partial
import hashlib
from pathlib import Path

import numpy as np

from experiments.datasets import arrays
from experiments.datasets.originals import Files


@dataclasses.dataclass(frozen=True)
class Original:
    """What one of the files must be. The digest is of the unpacked bytes: gzip adds its own."""

    magic: int
    shape: tuple[int, ...]
    sha256: str


ORIGINALS = {
    "train-images-idx3-ubyte": Original(
        2051,
        (60_000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": Original(
        2049,
        (60_000,),
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": Original(
        2051,
        (10_000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": Original(
        2049,
        (10_000,),
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
VALID = 5_000  # the first of the 60,000; the other 55,000 are the training cases of section 6.6

FILES = Files(
    name="mnist",
    title="MNIST",
    url="https://storage.googleapis.com/cvdf-datasets/mnist/",
    names=tuple(f"{stem}.gz" for stem in ORIGINALS),
    stand_in="digits",
)


def prepare(data_dir: str | Path, source: str | Path | None = None) -> None:
    """Makes ``<data_dir>/mnist``: 55,000 training, 5,000 validation and 10,000 test cases.

    Args:
        data_dir: where prepared data sets lie.
        source: a folder with the four original files; None downloads them.

    Raises:
        InputError: a file is missing, damaged or not the original, the download fails, or another
            data set is in the way.
    """
    FILES.prepare(data_dir, source, read_originals)


def read_originals(folder: Path) -> arrays.Splits:
    """Reads and checks the four files of a folder, in either spelling, and splits them.

    Raises:
        InputError: a file is missing, damaged or not the original.
    """
    paths = {stem: FILES.find(folder, (stem, stem.replace("-idx", ".idx"))) for stem in ORIGINALS}
    print(f"mnist: reading {len(paths)} files in {folder}")
    x, y, test_x, test_y = (read_idx(paths[stem], ORIGINALS[stem]) for stem in ORIGINALS)
    x, test_x = (images.reshape(len(images), -1) for images in (x, test_x))
    y, test_y = (labels.astype(np.int32) for labels in (y, test_y))
    return dict(
        train=dict(x=x[VALID:], y=y[VALID:]),
        valid=dict(x=x[:VALID], y=y[:VALID]),
        test=dict(x=test_x, y=test_y),
    )


def read_idx(path: Path, original: Original) -> np.ndarray:
    """Unpacks and decodes one file; returns uint8 of the original's shape.

    Raises:
        InputError: it is damaged or not the original; says what was expected and what was found.
    """
    check, data = partial(FILES.check, path), FILES.unpack(path)
    integers = 1 + len(original.shape)
    if len(data) < 4 * integers:
        check("a header of", f"{4 * integers} bytes", f"{len(data)} bytes")
    magic, *shape = np.frombuffer(data, ">u4", integers).tolist()
    check("magic number", original.magic, magic)
    check("a shape of", original.shape, tuple(shape))
    check("a length in bytes, unpacked, of", 4 * integers + np.prod(shape), len(data))
    values = np.frombuffer(data, np.uint8, offset=4 * integers).reshape(shape)
    if len(original.shape) == 1 and values.max() > 9:
        check("labels", "0 to 9", values.max())
    check("the original MNIST with sha256", original.sha256, hashlib.sha256(data).hexdigest())
    return values
