"""Files of a run that survive kill -9 and power failures, and readers that trust none of them."""

from collections.abc import Callable, Iterable
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import filelock

from ln.errors import InputError

Row = dict[str, Any]
Item = TypeVar("Item")


# --- Writing ---


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    # A file needs no open for writing to be synced, and a folder allows none.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that is there whole or not at all, also after a power failure."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # of this process alone
    try:
        # The contents before the name: after a power failure a rename could be on the disk without
        # the bytes that it is about. Then the folder, without which the rename itself may be lost.
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(unfinished)
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    sync(path.parent)


def to_line(row: Row) -> str:
    """Return a row as a line of JSON, which has no NaN: null if a number is not finite."""
    isnt_finite = {k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
    return json.dumps(row | dict.fromkeys(isnt_finite)) + "\n"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a file of lines of JSON, whole or not at all."""
    write_atomically(path, "".join(map(to_line, rows)))


def append_rows(path: Path, rows: list[Row]) -> None:
    """Append rows to a file to which several processes may append at once."""
    # These files are short, so each is written anew as a whole: a half-written line cannot be.
    with filelock.FileLock(path.with_suffix(".lock")):
        write_rows(path, [*read_rows(path), *rows])


# --- Reading. A file may be damaged in any way, so each value is converted where it is read. ---

# The conversion of JSON that has another shape raises these.
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
RESTORE = "Restore the file, or move the folder away."


def read_object(path: Path, remedy: str, make: Callable[[Any], Item]) -> Item:
    """Return what `make` makes of the contents of a JSON file.

    Raises:
        InputError: they have another shape; ends in the remedy.
    """
    try:
        return make(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, *MALFORMED) as error:
        raise InputError(f"{path} is damaged ({error!r}). {remedy}") from error


def read_rows(path: Path, make: Callable[[Any], Any] = dict) -> list:
    """Return the lines of a JSON-lines file, without a last one that was left half-written.

    Args:
        path: the file; without one there are no rows.
        make: converts the contents of a line.

    Raises:
        InputError: a line is no JSON, or has another shape.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(make(json.loads(line)))
        except MALFORMED as error:
            # Rows are appended, so a kill leaves at most the last line unfinished. Any other bad
            # line is damage, and to skip it would be a silent hole.
            half_written = isinstance(error, json.JSONDecodeError) and number == len(lines)
            if not half_written:
                message = f"{path} line {number} is damaged ({error!r}). {RESTORE}"
                raise InputError(message) from error
    return rows


class Extent(NamedTuple):
    """How much of a file belongs to a checkpoint: the file only grows after that.

    Attributes:
        size, digest: of the first bytes; None in checkpoints of earlier versions.
    """

    size: int | None
    rows: int
    digest: str | None

    @classmethod
    def measure(cls, content: bytes) -> "Extent":
        """Return the extent of these bytes."""
        return cls(len(content), content.count(b"\n"), hashlib.sha256(content).hexdigest())

    def check(self, path: Path, step: int) -> None:
        """Raise InputError if the file no longer begins with what the checkpoint of `step` saw."""
        # Only the beginning: rows after the checkpoint are not its own, and will be written again.
        content = path.read_bytes() if path.exists() else b""
        now = Extent.measure(content[: self.size])
        if now.rows < self.rows or (self.digest and now != self):
            rows = f"has {now.rows} of {self.rows} rows" if now.rows < self.rows else "has changed"
            raise InputError(
                f"{path} {rows} up to step {step:,}. Put the whole file back, or choose another "
                f"--workdir."
            )


def extents(folder: Path, names: Iterable[str]) -> dict[str, Extent]:
    """Return the extents of the files of a folder that exist, once they are on the disk."""
    paths = [path for name in names if (path := folder / name).exists()]
    for path in (*paths, folder):
        sync(path)
    return {path.name: Extent.measure(path.read_bytes()) for path in paths}
