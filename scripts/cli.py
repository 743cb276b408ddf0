"""What the commands share: they read flags, and end in one clear line if one of them is wrong."""

from collections.abc import Callable, Iterator
import contextlib
import errno
import logging as standard_logging
from pathlib import Path
import sys
import threading
from typing import NoReturn

from absl import app, flags, logging

from ln.errors import BusyError, DivergedError, InputError, nearest

# What absl, ml_collections and a config file raise for a misspelt flag, key or value.
FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError)

# A full disk, a full quota (which some systems do not have), a read-only file system.
NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EROFS}

INTERRUPTED = 130  # exit status of a run that Ctrl-C stopped, as shells have it
BUSY = 75  # of one that another process is at work on: try again later (BSD's sysexits.h)


def fail(error: BaseException) -> NoReturn:
    """Print the error as one line, without a traceback, and leave with exit status 2, or BUSY."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(BUSY if isinstance(error, BusyError) else 2)


def check_config_file(word: str) -> None:
    """Raise InputError, with the nearest right name, if there is no file of --config=FILE:SCALE."""
    name = word.removeprefix("--config=").partition(":")[0]
    path = Path(name)
    if not path.is_file():
        known = [other.as_posix() for other in path.parent.glob("*.py") if other.stem != "__init__"]
        raise InputError(f"There is no config file {name}.{nearest(name, known)}")


def parse(argv: list[str]) -> list[str]:
    try:
        for word in argv:
            if word.startswith("--config="):
                check_config_file(word)
        return flags.FLAGS(argv)
    except SystemExit:  # absl printed the help that was asked for, and exits with 1
        sys.exit(0)
    except FLAG_ERRORS as error:
        fail(as_input_error(error))


def as_input_error(error: Exception) -> InputError:
    """Return one of FLAG_ERRORS as the line that the user reads."""
    if isinstance(error, InputError):
        return error
    words = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if isinstance(error, AttributeError | KeyError):  # ml_collections raises them with a suggestion
        words = words.replace("\\n", " ").replace("\\'", "'").strip("'\"")
        name, _, suggestion = words.partition("'")
        what = "scale" if isinstance(error, KeyError) else "config key"
        return InputError(f"Unknown {what} {name!r}.{suggestion}")
    return InputError(" ".join(words.split()))


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Turn an error that a user can act on into one line and an exit status."""
    try:
        yield
    except (InputError, DivergedError) as error:
        fail(error)
    except OSError as error:  # where a command does not say more
        if error.errno not in NO_ROOM:
            raise
        what = f"Cannot write to {error.filename or 'a file'} ({error.strerror})."
        fail(InputError(f"{what} Make room, or choose another folder."))
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def silence_threads() -> None:
    """Silence threads that fail where a disk is full: the main thread raises the same error."""
    for name in ("absl", "asyncio"):  # orbax
        standard_logging.getLogger(name).setLevel(standard_logging.CRITICAL)

    def ended(failed):  # a thread of TensorBoard
        if not isinstance(failed.exc_value, OSError):
            threading.__excepthook__(failed)

    def unraisable(failed):  # tensorstore: other writes end after orbax gave up
        if str(failed.exc_value) != "Event loop is closed":
            sys.__unraisablehook__(failed)

    threading.excepthook, sys.unraisablehook = ended, unraisable


def run(main: Callable[[list[str]], None], positional: bool = False) -> None:
    """Run main(argv) of a script; ``--help`` prints the docstring and the flags of the script.

    Args:
        positional: whether it takes words that are no flags.
    """

    def guarded(argv):
        logging.set_verbosity(logging.WARNING)
        silence_threads()
        sys.stdout.reconfigure(errors="backslashreplace")  # some names of files are not UTF-8
        with one_line():
            if len(argv) > 1 and not positional:
                raise InputError(f"Unknown argument {argv[1]!r}. Flags begin with --; see --help.")
            return main(argv)

    app.run(guarded, flags_parser=parse)
