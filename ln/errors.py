"""Errors that a user can act on."""

from collections.abc import Iterable, Mapping
import difflib


class InputError(ValueError):
    """What the user gave cannot be used. The message is one line that says what to do instead."""


class BusyError(InputError):
    """Another process is at work on the same run folder."""


class DivergedError(FloatingPointError):
    """A loss or a parameter stopped being finite. The message names the step and the lane."""


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
