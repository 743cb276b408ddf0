"""The original files of a data set: found in a folder or downloaded; refused if damaged."""

import bz2
from collections.abc import Callable, Iterable, Iterator
import dataclasses
import datetime
import gzip
import importlib
import logging
import lzma
from pathlib import Path
import pickle
import re
import tarfile
import tempfile
import textwrap
import time
from typing import IO, ClassVar
import zipfile
import zlib

import numpy as np

from experiments.datasets import arrays
from ln.errors import InputError

RETRIES = 1  # with ten, the default, a machine without network waits for minutes
SECONDS = 5  # how long to wait for the server to answer at all

# What reading a damaged archive raises; RuntimeError: a zip file with a password, or packed in an
# unknown way.
DAMAGED = (
    *(OSError, EOFError, RuntimeError, lzma.LZMAError, zlib.error),
    *(tarfile.TarError, zipfile.BadZipFile),
)


def members(archive: Path, wanted: re.Pattern) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of a .zip, .tar or packed .tar whose whole names match: name and contents.

    Raises:
        any of DAMAGED: while it is gone through.
    """

    def is_wanted(name: str) -> bool:
        is_inside = not name.startswith("/") and ".." not in name.split("/")
        return is_inside and wanted.fullmatch(name) is not None

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for name in filter(is_wanted, opened.namelist()):
                with opened.open(name) as file:
                    yield name, file
    else:
        with unpacked(archive) as stream:
            # Front to back: 380,000 names need not be kept.
            with tarfile.open(fileobj=stream, mode="r|") as opened:
                for member in opened:
                    file = opened.extractfile(member) if is_wanted(member.name) else None
                    if file:
                        yield member.name, file
            # tarfile takes an end inside a header for the end of the archive. Packed files are read
            # to theirs, where truncation and a wrong digest are found out; others are whole blocks.
            while stream.read(2**20):
                pass
            if stream.tell() % tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it ends inside a block")


def unpacked(path: Path) -> IO[bytes]:
    """A file opened for reading, unpacked if it is a .gz, .xz or .bz2, whatever its name."""
    with path.open("rb") as file:
        start = file.read(6)
    for magic, module in ((b"\x1f\x8b", gzip), (b"\xfd7zXZ\0", lzma), (b"BZh", bz2)):
        if start.startswith(magic):
            return module.open(path)
    return path.open("rb")


@dataclasses.dataclass(frozen=True)
class Files:
    """Which files those are.

    Attributes:
        name: of the data set, here and in tensorflow-datasets.
        title: what people call it.
        url: the folder on the web where they lie.
        names: theirs, in that folder.
        stand_in: the built-in data set to use where they are not to be had.
    """

    name: str
    title: str
    url: str
    names: tuple[str, ...]
    stand_in: str

    @property
    def command(self) -> str:
        return f"`python -m scripts.data {self.name}`"

    def prepare(
        self,
        data_dir: str | Path,
        source: str | Path | None,
        read: Callable[[Path], arrays.Splits],
    ) -> None:
        """Makes ``<data_dir>/<name>``.

        Args:
            data_dir: where prepared data sets lie.
            source: a folder with the files; None downloads them.
            read: makes the arrays from a folder with the files.

        Raises:
            InputError: a file is missing, damaged or not the original, the download fails, or
                another data set is in the way.
        """
        if source is not None:
            splits, origin = read(Path(source)), str(source)
        elif arrays.is_prepared(data_dir, self.name):
            print(f"{self.name}: {Path(data_dir) / self.name} is there already, nothing to do")
            return
        else:
            with tempfile.TemporaryDirectory(
                prefix=f"{self.name}-", ignore_cleanup_errors=True
            ) as folder:
                self.download(Path(folder))
                splits, origin = read(Path(folder)), self.url
        arrays.write(data_dir, self.name, splits, dict(source=f"{self.title} from {origin}"))

    def find(self, folder: Path, spellings: Iterable[str]) -> Path:
        """The file of one of these names in a folder, gzipped or not.

        Raises:
            InputError: there is none.
        """
        names = [spelling + end for spelling in spellings for end in ("", ".gz")]
        for name in names:
            if (folder / name).is_file():
                return folder / name
        if not folder.is_dir():
            raise InputError(
                f"{folder} is not a folder: give --from=DIR the folder of {', '.join(self.names)}."
            )
        raise InputError(
            f"{folder} has none of {', '.join(names)}: put one of them there, "
            f"or let {self.command} download it."
        )

    def unpack(self, path: Path) -> bytes:
        """The contents of a file, unpacked if it is gzipped.

        Raises:
            InputError: it cannot be read, or is named .gz and not gzipped, or is truncated or
                damaged.
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
            found = f"a truncated or damaged one of {len(data):,} bytes ({error})"
            raise self.refusal(path, "a whole gzip file", found) from error

    def check(self, path: Path, what: str, expected, found) -> None:
        """Compares what a file holds with what it must hold.

        Raises:
            InputError: they differ; the message has both, and how to get the file.
        """
        if expected != found:
            raise self.refusal(path, f"{what} {expected}", found)

    def refusal(self, path: Path, expected: str, found) -> InputError:
        return InputError(
            f"{path}: expected {expected}, found {found}. Get the original file again: "
            f"{self.command} downloads it."
        )

    def download(self, folder: Path) -> None:
        """Fetches the files into a folder; tensorflow-datasets checks their digests.

        Raises:
            InputError: no network, another file than expected, or tensorflow-datasets is missing.
        """
        otherwise = (
            f"No network? Put {', '.join(self.names)} into a folder and run "
            f"`python -m scripts.data {self.name} --from=DIR`, or use the built-in data set "
            f"`{self.stand_in}`."
        )
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
            requests.head(self.url + self.names[0], timeout=SECONDS).raise_for_status()
            known = tfds.builder_cls(self.name).url_infos  # the digests, SHA-256
            manager = tfds.download.DownloadManager(
                download_dir=folder / "tfds", dataset_name=self.name, url_infos=known
            )
            for name in self.names:  # one by one: none is still at work when one has failed
                if self.url + name not in known:  # tfds would take it as it comes
                    raise InputError(
                        f"tensorflow-datasets knows no digest of {self.url}{name}. {otherwise}"
                    )
                print(f"{self.name}: downloading {self.url}{name}")
                Path(manager.download(self.url + name)).rename(folder / name)
        except tfds.download.download_manager.NonMatchingChecksumError as error:
            raise InputError(
                f"{self.url}{name} is not the original file of {self.title}. {otherwise}"
            ) from error
        except (requests.RequestException, tfds.download.DownloadError, OSError) as error:
            kind = type(error).__name__
            is_wordy = isinstance(error, requests.ConnectionError)  # and says no more than its name
            reason = kind if is_wordy else f"{kind}: {textwrap.shorten(str(error), 200)}"
            raise InputError(f"Cannot download {self.url} ({reason}). {otherwise}") from error


class Kind:
    """Stands for the dtype of an array in a pickle.

    numpy takes one that a pickle describes at its word, also where it declares bytes to be the
    addresses of objects. So it is made here, of the name of a kind of numbers and a byte order.
    """

    def __init__(self, name, *_):
        if not (isinstance(name, str) and re.fullmatch("[biuf][1248]", name)):
            raise pickle.UnpicklingError(f"it has an array of {name}, which are no numbers")
        self.dtype = np.dtype(name)

    def __setstate__(self, state):
        self.dtype = self.dtype.newbyteorder(state[1])


class Numbers(np.ndarray):
    """An array in a pickle."""

    def __setstate__(self, state):
        _, shape, kind, in_columns, data = state
        data = data.encode("latin-1") if isinstance(data, str) else data
        numbers = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if in_columns else "C")
        super().__setstate__(numbers.__reduce__()[2])


class Plain(pickle.Unpickler):
    """Loads pickles of lists, dictionaries, texts, numbers and, of numbers, arrays; refuses
    whatever would call other code.

    Attributes:
        KNOWN: what pickles of arrays and bytes ask for, and what they get.
    """

    KNOWN: ClassVar = {
        ("numpy", "dtype"): Kind,
        ("numpy", "ndarray"): None,  # they hand it to what follows, and ask for nothing else of it
        ("_codecs", "encode"): lambda text, encoding: text.encode("latin-1"),
        **dict.fromkeys(
            (
                ("numpy.core.multiarray", "_reconstruct"),
                ("numpy._core.multiarray", "_reconstruct"),
            ),
            lambda kind, shape, code: Numbers(0, np.int8),
        ),
    }

    def find_class(self, module, name):
        if (module, name) in self.KNOWN:
            return self.KNOWN[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which data has no need of")

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it refers to objects outside")


@dataclasses.dataclass
class Progress:
    """Says now and then how much of a data set was read, how fast, and when that will be all.

    Attributes:
        name: of the data set.
        unit: what is counted.
        total: how many there are; None for an archive, which does not say.
    """

    name: str
    unit: str
    total: int | None
    count: int = 0
    begin: float = dataclasses.field(default_factory=time.monotonic)
    said: float = dataclasses.field(default_factory=time.monotonic)

    def add(self, count: int) -> None:
        self.count += count
        now = time.monotonic()
        if now - self.said > 5:
            self.said = now
            rate = self.count / (now - self.begin)
            line = f"{self.name}: {self.count:,} {self.unit} read, {rate:,.0f} a second"
            if self.total is not None:
                seconds = round((self.total - self.count) / rate)
                line += f", of {self.total:,}, ETA {datetime.timedelta(seconds=seconds)}"
            print(line, flush=True)
