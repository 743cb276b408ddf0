"""MNIST: 70,000 handwritten digits of 28 x 28 pixels (LeCun, Cortes and Burges).

The four original files, big-endian, as they are or gzipped:

    train-images-idx3-ubyte   2051, 60000, 28, 28 as 32-bit integers; a byte a pixel, row by row
    train-labels-idx1-ubyte   2049, 60000; a byte a label
    t10k-images-idx3-ubyte    the same for the 10,000 test cases
    t10k-labels-idx1-ubyte

Prepared: ``x`` uint8 ``[N, 784]``, 0 is background; ``y`` int32 ``[N]``, 0 to 9.
"""

import dataclasses
import gzip
import hashlib
import importlib
import logging
from pathlib import Path
import tempfile
import textwrap
import zlib

import numpy as np

from experiments.datasets import arrays
from ln.errors import InputError


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

URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"  # its digests come with tfds
RETRIES = 1  # with ten, the default, a machine without network waits for minutes
SECONDS = 5  # how long to wait for the server to answer at all

WITHOUT_NETWORK = (
    "No network? Put the four files ({}) into a folder and run `python -m scripts.data mnist "
    "--from=DIR`, or use the built-in data set `digits`."
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
    if source is not None:
        splits, origin = read_originals(Path(source)), str(source)
    elif arrays.is_prepared(data_dir, "mnist"):
        print(f"mnist: {Path(data_dir) / 'mnist'} is there already, nothing to do")
        return
    else:
        with tempfile.TemporaryDirectory(prefix="mnist-", ignore_cleanup_errors=True) as folder:
            download(Path(folder))
            splits, origin = read_originals(Path(folder)), URL
    arrays.write(data_dir, "mnist", splits, dict(source=f"MNIST from {origin}"))


def read_originals(folder: Path) -> arrays.Splits:
    """Reads and checks the four files of a folder and splits them.

    Raises:
        InputError: a file is missing, damaged or not the original.
    """
    paths = {stem: find(folder, stem) for stem in ORIGINALS}  # all, before any is read
    print(f"mnist: reading {len(paths)} files in {folder}")
    x, y, test_x, test_y = (read_idx(paths[stem], ORIGINALS[stem]) for stem in ORIGINALS)
    x, test_x = (images.reshape(len(images), -1) for images in (x, test_x))
    y, test_y = (labels.astype(np.int32) for labels in (y, test_y))
    return dict(
        train=dict(x=x[VALID:], y=y[VALID:]),
        valid=dict(x=x[:VALID], y=y[:VALID]),
        test=dict(x=test_x, y=test_y),
    )


def find(folder: Path, stem: str) -> Path:
    """The file of this name in a folder, gzipped or not, in either of its two spellings.

    Raises:
        InputError: there is none.
    """
    names = [
        spelling + end for spelling in (stem, stem.replace("-idx", ".idx")) for end in ("", ".gz")
    ]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder: give --from=DIR the folder of {', '.join(ORIGINALS)}."
        )
    raise InputError(f"{folder} has none of {', '.join(names)}: put one of them there.")


def read_idx(path: Path, original: Original) -> np.ndarray:
    """Unpacks and decodes one file; returns uint8 of the original's shape.

    Raises:
        InputError: it is damaged or not the original; says what was expected and what was found.
    """

    def check(expected, found, what):
        if expected != found:
            raise InputError(
                f"{path}: expected {what} {expected}, found {found}. Get the original file again."
            )

    data = unpack(path)
    integers = 1 + len(original.shape)
    if len(data) < 4 * integers:
        check(f"of {4 * integers} bytes", f"{len(data)} bytes", "a header")
    magic, *shape = np.frombuffer(data, ">u4", integers).tolist()
    check(original.magic, magic, "magic number")
    check(original.shape, tuple(shape), "a shape of")
    check(4 * integers + np.prod(shape), len(data), "a length in bytes, unpacked, of")
    values = np.frombuffer(data, np.uint8, offset=4 * integers).reshape(shape)
    if len(original.shape) == 1 and values.max() > 9:
        check("0 to 9", values.max(), "labels")
    check(original.sha256, hashlib.sha256(data).hexdigest(), "the original MNIST with sha256")
    return values


def unpack(path: Path) -> bytes:
    """The contents of a file, unpacked if it is gzipped.

    Raises:
        InputError: it cannot be read, or is named .gz and not gzipped, or is truncated or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path} ({error}).") from error
    is_packed = data[:2] == b"\x1f\x8b"
    if path.suffix == ".gz" and not is_packed:
        raise InputError(
            f"{path}: expected a gzip file, found one of {len(data)} bytes beginning with "
            f"{data[:8]!r}. Get it again; if it is unpacked already, take .gz off its name."
        )
    try:
        return gzip.decompress(data) if is_packed else data
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"{path}: expected a whole gzip file, found a truncated or damaged one of "
            f"{len(data):,} bytes ({error}). Get it again."
        ) from error


def download(folder: Path) -> None:
    """Fetches the four gzipped files into a folder; tensorflow-datasets checks their digests.

    Raises:
        InputError: no network, another file than expected, or tensorflow-datasets is missing.
    """
    names = [f"{stem}.gz" for stem in ORIGINALS]
    otherwise = WITHOUT_NETWORK.format(", ".join(names))
    try:
        importlib.import_module("importlib_resources")  # tfds needs it and does not ask for it
        import requests
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download import downloader
    except ImportError as error:
        raise InputError(
            f"Downloading needs the packages in requirements.txt ({error}). {otherwise}"
        ) from error
    downloader.MAX_RETRIES = RETRIES
    tfds.disable_progress_bar()
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # else each retry is a warning
    try:
        # tfds would wait without end for a server that a firewall hides.
        requests.head(URL + names[0], timeout=SECONDS).raise_for_status()
        manager = tfds.download.DownloadManager(download_dir=folder / "tfds", dataset_name="mnist")
        for name in names:  # one by one, so that none is still at work when one has failed
            print(f"mnist: downloading {URL}{name}")
            Path(manager.download(URL + name)).rename(folder / name)
    except tfds.download.download_manager.NonMatchingChecksumError as error:
        raise InputError(f"{URL}{name} is not the original file of MNIST. {otherwise}") from error
    except (requests.RequestException, tfds.download.DownloadError, OSError) as error:
        kind = type(error).__name__
        is_wordy = isinstance(error, requests.ConnectionError)  # and says no more than its name
        reason = kind if is_wordy else f"{kind}: {textwrap.shorten(str(error), 200)}"
        raise InputError(f"Cannot download {URL} ({reason}). {otherwise}") from error
