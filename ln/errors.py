"""Errors that a user can act on."""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import difflib
import errno
from pathlib import Path


class InputError(ValueError):
    """What the user gave cannot be used. The message is one line that says what to do instead."""


class BusyError(InputError):
    """Another process is at work on the same run folder."""


class DivergedError(FloatingPointError):
    """A loss or a parameter stopped being finite. The message names the step and the lane."""


# What the system says of a full disk or quota, and of a place where nothing can be written.
NO_ROOM = "ENOSPC EDQUOT EFBIG".split()
NO_PLACE = "EROFS EACCES EPERM EEXIST ENOENT ENOTDIR EISDIR ELOOP ENAMETOOLONG".split()


@contextlib.contextmanager
def writing(place: Path | str, flag: str, then: str = "") -> Iterator[None]:
    """Turn an error of the system while something is written into an InputError.

    Args:
        place: what is written to.
        flag: the flag that names another place.
        then: what happens after the remedy.
    """
    try:
        yield
    except OSError as error:
        code, remedy = errno.errorcode.get(error.errno or 0), ""
        if code in NO_ROOM:
            remedy = f" Make room, or choose another {flag}{then}."
        elif code in NO_PLACE:
            remedy = f" Choose another {flag}{then}."
        raise InputError(f"Cannot write to {place} ({error}).{remedy}") from error


def nearest(name: str, choices: Iterable[str]) -> str:
    """Returns " Did you mean 'layer'?" where one of the choices is close to the name, else ""."""
    close = difflib.get_close_matches(
        str(name), [str(choice) for choice in choices], n=1, cutoff=0.5
    )
    return f" Did you mean {close[0]!r}?" if close else ""


def choose(what: str, name: str, choices: Mapping):
    """Returns choices[name].

    Raises:
        InputError: there is no such name; the message offers the nearest one and lists all.
    """
    if name in choices:
        return choices[name]
    known = ", ".join(sorted(map(str, choices)))
    raise InputError(f"Unknown {what} {name!r}.{nearest(name, choices)} Known: {known}.")
