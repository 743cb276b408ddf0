"""MNIST in black and white, as binarized once and for all by Larochelle and Murray (2011).

Three files of text, as they are or gzipped; a line is an image, its 784 pixels row by row, each 0
or 1, with a blank in between:

    binarized_mnist_train.amat   50,000 lines
    binarized_mnist_valid.amat   10,000
    binarized_mnist_test.amat    10,000, sorted by digit

The DRAW paper has other zeros and ones (Salakhutdinov and Murray 2008), so that its nats are not to
be compared with those of the layer norm paper.

Prepared: ``x`` uint8 ``[N, 784]``, 0 (background) or 1; there are no labels.
"""

import dataclasses
from functools import partial
import hashlib
from pathlib import Path

import numpy as np

from experiments.datasets import arrays
from experiments.datasets.originals import Files

PIXELS = 28 * 28
LINE = 2 * PIXELS  # bytes: behind each pixel a blank, behind the last a newline


@dataclasses.dataclass(frozen=True)
class Original:
    """What one of the files must be. The digest is of the unpacked bytes: gzip adds its own."""

    cases: int
    mean: float  # of all pixels, to five digits
    sha256: str


ORIGINALS = {  # the digests are those of tensorflow-datasets
    "train": Original(
        50_000, 0.13056, "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"
    ),
    "valid": Original(
        10_000, 0.13113, "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"
    ),
    "test": Original(
        10_000, 0.13251, "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"
    ),
}

FILES = Files(
    name="binarized_mnist",
    title="binarized MNIST",
    url="http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
    names=tuple(f"binarized_mnist_{split}.amat" for split in ORIGINALS),
    stand_in="binarized_digits",
)


def prepare(data_dir: str | Path, source: str | Path | None = None) -> None:
    """Makes ``<data_dir>/binarized_mnist``: 50,000, 10,000 and 10,000 cases.

    Args:
        data_dir: where prepared data sets lie.
        source: a folder with the three original files; None downloads them.

    Raises:
        InputError: a file is missing, damaged or not the original, the download fails, or another
            data set is in the way.
    """
    FILES.prepare(data_dir, source, read_originals)


def read_originals(folder: Path) -> arrays.Splits:
    """Reads and checks the three files of a folder.

    Raises:
        InputError: a file is missing, damaged or not the original.
    """
    paths = [FILES.find(folder, (name,)) for name in FILES.names]
    print(f"binarized_mnist: reading {len(paths)} files in {folder}")
    originals = ORIGINALS.items()
    return {
        split: dict(x=read_amat(path, original))
        for (split, original), path in zip(originals, paths, strict=True)
    }


def read_amat(path: Path, original: Original) -> np.ndarray:
    """Unpacks and decodes one file; returns uint8 ``[cases, 784]``, 0 or 1.

    Raises:
        InputError: it is damaged or not the original; says what was expected and what was found.
    """
    check, data = partial(FILES.check, path), FILES.unpack(path)
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    check("whole lines:", original.cases, len(ends))
    lengths = np.diff(ends, prepend=-1)
    if (lengths != LINE).any():
        line = np.argmax(lengths != LINE)
        check(f"{PIXELS} pixels a line,", f"{LINE} bytes", f"{lengths[line]} in line {line + 1}")
    check("a length in bytes, unpacked, of", original.cases * LINE, len(data))
    x = text.reshape(-1, LINE)[:, ::2] - np.uint8(ord("0"))
    if x.max() > 1:
        line, pixel = np.unravel_index(np.argmax(x > 1), x.shape)
        found = chr(text[line * LINE + 2 * pixel])
        check("pixels", "0 or 1", f"{found!r} in line {line + 1}, pixel {pixel + 1}")
    check("a mean pixel of", original.mean, round(np.count_nonzero(x) / x.size, 5))
    digest = hashlib.sha256(data).hexdigest()
    check("the original binarized MNIST with sha256", original.sha256, digest)
    return x
