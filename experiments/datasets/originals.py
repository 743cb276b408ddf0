"""Read the original files of a data set from a folder or an archive that is not trusted.

All readers use it: each file, gzip file and archive member is read through `Source.files`,
which reads regular files only and stops at the budget of the data set.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import gzip
import hashlib
import io
import lzma
import math
from pathlib import Path
import re
import tarfile
import time
from typing import IO, Any
import zipfile

from experiments.datasets import arrays, text
from ln.errors import InputError

PACKED = ((b"\x1f\x8b", gzip.open), (b"\xfd7zXZ\0", lzma.open))
LITTER = frozenset(("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"))  # of operating systems
NEVER = re.compile(r"(?!)")
SECONDS = 5  # between two lines of progress


@dataclasses.dataclass
class Budget:
    """The bytes that may be unpacked.

    Attributes:
        name: the data set.
        total: bytes.
        spent: bytes.
        printed: the time when progress was printed.
    """

    name: str
    total: int
    spent: int = 0
    printed: float = dataclasses.field(default_factory=time.monotonic)

    def spend(self, count: int, place: str) -> None:
        """Count bytes that were read, and print progress; raise InputError if they are too many."""
        self.spent += count
        if self.spent > self.total:
            raise InputError(
                f"{place} was not read to its end: unpacked, the files have more than "
                f"{self.total:,} bytes, too many for {self.name}."
            )
        if time.monotonic() - self.printed > SECONDS:
            self.printed = time.monotonic()
            print(f"{self.name}: {self.spent / 1e6:,.0f} MB read", flush=True)


class Limited(io.RawIOBase):
    """A stream that is read within a budget. Damage becomes an InputError, wherever it shows."""

    def __init__(self, stream: IO[bytes], place: str, budget: Budget):
        self.stream, self.place, self.budget = stream, place, budget

    def readable(self) -> bool:
        """Return True: io asks for it."""
        return True

    def readinto(self, buffer) -> int:
        """Fill a buffer with the next bytes, and return their number; 0 at the end."""
        with readable(self.place):
            data = self.stream.read(len(buffer))
        self.budget.spend(len(data), self.place)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the stream below, too."""
        self.stream.close()
        super().close()


@contextlib.contextmanager
def readable(place: str | Path, damaged: Any = Exception) -> Iterator[None]:
    """Turn exceptions into an InputError: libraries raise all kinds of them for damaged files."""
    try:
        yield
    except InputError:  # it says already what is wrong, and is a ValueError, too
        raise
    except damaged as error:
        raise InputError(
            f"Cannot read {place} ({type(error).__name__}: {error}): is it complete?"
        ) from error


@dataclasses.dataclass
class Source:
    """The place of the original files.

    Attributes:
        path: a folder, an archive (.zip, .tar, .tar.gz, .tar.xz), or the only file of a data set.
        name: the data set.
        budget: how many bytes its files may have in all, unpacked.
        folder: the folder of the data set to make.
        stack: removes temporary folders, and closes files, after that.
    """

    path: Path
    name: str
    budget: int
    folder: Path
    stack: contextlib.ExitStack

    def work(self) -> Path:
        """Return a new temporary folder, on the disk where the data set will be."""
        return self.stack.enter_context(arrays.partial_folder(self.folder))

    def files(
        self, wanted: re.Pattern, archives: re.Pattern = NEVER
    ) -> Iterator[tuple[re.Match, IO[bytes]]]:
        """Yield the matches and the contents of the files whose names match, gzipped or not.

        Those of a folder come in the order of their paths, those of an archive in its own. A name
        is the path below the source, parts separated by "/", without an ending .gz.

        Args:
            wanted: matches whole names.
            archives: matches names of archives that are read inside a folder, after
                the other files.

        Raises:
            InputError: a file cannot be read, is damaged, or the budget is spent. Reading what
                is yielded raises it too.
        """
        budget, packed = Budget(self.name, self.budget), []
        is_file = self.path.is_file()
        root = self.path.parent if is_file else self.path
        for path in [self.path] if is_file else walk(root):
            name = path.relative_to(root).as_posix()
            if match := _match(re.sub(r"\.(gz|xz)$", "", name), wanted):
                with opened(path, budget) as stream:
                    yield match, stream
            elif is_file or _match(name, archives):
                packed.append(path)
        for path in packed:
            yield from _members(path, wanted, budget)


def collect(
    source: Source,
    wanted: re.Pattern,
    digests: Mapping[str, str | None],
    archives: re.Pattern = NEVER,
) -> dict[str, bytes]:
    """Return the contents of a file for each key: the first whose name has it as group 1.

    Args:
        source: the place of the files.
        wanted: see `Source.files`.
        digests: SHA-256 of the unpacked bytes of each key's file, if it is known.
        archives: see `Source.files`.

    Raises:
        InputError: a file is missing, or has another digest; or as `Source.files`.
    """
    files: dict[str, bytes] = {}
    for match, file in source.files(wanted, archives):
        if (key := match[1]) in files:
            continue
        files[key] = file.read()
        actual, expected = hashlib.sha256(files[key]).hexdigest(), digests[key]
        if expected not in (None, actual):
            raise InputError(
                f"{source.path}/{match[0]} is not the original file: expected SHA-256 {expected}, "
                f"not {actual}."
            )
    if missing := [key for key in digests if key not in files]:
        raise InputError(f"{source.path} has no {', '.join(missing)}.")
    return {key: files[key] for key in digests}


def compare(what: str, count: int, original: int | None) -> None:
    """Print a note if a number of records differs from that of the original corpus.

    Raises:
        InputError: there are none.
    """
    if not count:
        raise InputError(f"There are no records in {what}.")
    if original not in (None, count):
        print(f"  NOTE: {what}: {count:,} records; the original has {original:,}")


def usable(what: str, records: Iterable[tuple[str, Any]], most: float, few: int = 0) -> list:
    """Return the records that can be used; print how many are left out, and why.

    Args:
        what: names them, as "lines of train".
        records: their names, and the records; the reason (a str) for one that cannot be used.
        most: the share that may be left out.
        few: the number that may always be left out.

    Raises:
        InputError: none can be used, or more are left out.
    """
    kept, names = [], collections.defaultdict(list)
    for name, record in records:
        kept.append(record) if not isinstance(record, str) else names[record].append(name)
    left_out = sum(map(len, names.values()))
    if not (total := len(kept) + left_out):
        raise InputError(f"There are no {what}.")
    listed = (f"{len(left)} {reason} (the first: {left[0]})" for reason, left in names.items())
    reasons = ", ".join(listed)
    if not kept or left_out > max(few, most * total):
        raise InputError(f"{left_out:,} of {total:,} {what} cannot be used: {reasons}.")
    print(text.clean(f"  {what}: {total:,}, left out: {reasons or 'none'}"))
    return kept


def walk(folder: Path) -> Iterator[Path]:
    """Yield the regular files below a folder in the order of their paths, without litter."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _is_litter(path.relative_to(folder).parts):
            yield path


def _is_litter(parts: Sequence[str]) -> bool:
    return parts[-1].startswith("._") or not LITTER.isdisjoint(parts)


def _match(name: str, wanted: re.Pattern) -> re.Match | None:
    parts = name.split("/")
    is_inside = parts[0] != "" and ".." not in parts  # an archive may name any place of the disk
    return wanted.fullmatch(name) if is_inside and not _is_litter(parts) else None


def _limited(stream: IO[bytes], place: str, budget: Budget) -> io.BufferedReader:
    return io.BufferedReader(Limited(stream, place, budget), 2**16)


def opened(path: Path, budget: Budget) -> io.BufferedReader:
    """Open a regular file, unpacked if it is a .gz or .xz, whatever its name.

    Raises:
        InputError: it is missing, damaged or not regular: a pipe or device may never end.
    """
    with readable(path):
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a regular file; give the path of one.")
        with path.open("rb") as file:
            start = file.read(6)
        unpack: Any = next((u for magic, u in PACKED if start.startswith(magic)), Path.open)
        return _limited(unpack(path, "rb"), str(path), budget)


def _members(
    path: Path, wanted: re.Pattern, budget: Budget
) -> Iterator[tuple[re.Match, IO[bytes]]]:
    """Yield the members of an archive."""
    # The archive as a whole has a budget too: its headers may be as hostile as its members.
    whole = Budget(budget.name, budget.total, printed=math.inf)
    with readable(path), opened(path, whole) as stream:
        start = stream.peek()
        if start.startswith(b"PK\3\4"):
            members = _zip_members(path, wanted)
        elif start[257:262] == b"ustar":
            members = _tar_members(stream, wanted)
        else:
            raise InputError(f"{path} is no .zip, .tar or packed .tar.")
        for match, member in members:
            with _limited(member, f"{path}/{match[0]}", budget) as file:
                yield match, file
        # tarfile takes a truncated header for the end of the archive. Read packed files to their
        # ends, where truncation and a wrong checksum show.
        while stream.read(2**20):
            pass


def _zip_members(path: Path, wanted: re.Pattern) -> Iterator[tuple[re.Match, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir() and (match := _match(member.filename, wanted)):
                yield match, archive.open(member)


def _tar_members(stream: IO[bytes], wanted: re.Pattern) -> Iterator[tuple[re.Match, IO[bytes]]]:
    # Front to back: the names of 380,000 members need not be kept.
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            # A link may point anywhere.
            file = archive.extractfile(member) if member.isreg() else None
            if file and (match := _match(member.name, wanted)):
                yield match, file
