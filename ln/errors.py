"""Errors that a user can act on."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import difflib
import errno
import math
import numbers
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Unusable input of the user. The message is one line that says what to do instead."""


class BusyError(InputError):
    """Another process is at work on the same run folder."""


class DivergedError(FloatingPointError):
    """A loss or a parameter stopped being finite. The message names the step and the lane."""


# Error codes of a full disk or quota, and of a place where nothing can be written.
NO_ROOM = "ENOSPC EDQUOT EFBIG".split()
NO_PLACE = "EROFS EACCES EPERM EEXIST ENOTEMPTY ENOENT ENOTDIR EISDIR ELOOP ENAMETOOLONG".split()


@contextlib.contextmanager
def writing(place: Path | str, flag: str, then: str = "") -> Iterator[None]:
    """Convert an error of the system while something is written into an InputError.

    Args:
        place: the file or folder that is written to.
        flag: the command-line flag that chooses another place.
        then: the end of the message: what happens after the remedy.

    Yields:
        Nothing.

    Raises:
        InputError: the body raised an OSError.
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
    """Return " Did you mean 'layer'?" if one of the choices is close to the name, else ""."""
    # A cutoff of .5 offers "layer" for "layernorm", and nothing for an unrelated word.
    close = difflib.get_close_matches(
        str(name), [str(choice) for choice in choices], n=1, cutoff=0.5
    )
    return f" Did you mean {close[0]!r}?" if close else ""


def choose(what: str, name: Any, choices: Mapping):
    """Return choices[name].

    Args:
        what: the noun of the message, such as "norm kind".
        name: a key, as the user wrote it.
        choices: all keys that exist, and their values.

    Raises:
        InputError: there is no such name; the message offers the nearest one and lists all.
    """
    if isinstance(name, str) and name in choices:
        return choices[name]
    known = ", ".join(sorted(map(str, choices)))
    raise InputError(f"Unknown {what} {name!r}.{nearest(name, choices)} Known: {known}.")


def must(is_valid: Callable[[Any], bool], words: str) -> Callable[[str, Any], None]:
    """Return a check (what, value) that raises InputError if a value is not as the words say."""

    def check(what: str, value: Any) -> None:
        if not is_valid(value):
            raise InputError(f"{what} must be {words}; got {value!r}.")

    return check


def is_whole(value: Any) -> bool:
    """Return whether the value is a whole number of 1 or more, and no bool."""
    return isinstance(value, numbers.Integral) and is_number(value, 1)


def is_number(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    """Return whether the value is a finite real number from least to most, and no bool."""
    # bool is a number to Python, and True for a size or a rate is a mistake.
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value) and least <= value <= most


check_whole = must(is_whole, "a whole number of 1 or more")
check_flag = must(lambda value: isinstance(value, bool), "True or False")
check_positive = must(lambda value: is_number(value, 0), "a finite number, 0 or more")
