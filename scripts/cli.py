"""Share what commands need: they read flags, and end with one clear line if a flag is wrong."""

from collections.abc import Callable, Iterator
import contextlib
import errno
import functools
import gc
import importlib
import itertools
import logging as standard_logging
import os
from pathlib import Path
import runpy
import sys
import threading
import traceback
from typing import Any, NoReturn

from absl import app, flags, logging

from ln.errors import BusyError, DivergedError, InputError, choose, nearest
from ln.training.console import Output

# Errors that absl, ml_collections and a config file raise for a misspelt flag, key or value.
FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError)

# A full disk, a full quota (which some systems do not have), a read-only file system.
NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EROFS}

COUNT: dict[str, Any] = dict(lower_bound=1, upper_bound=2**31 - 1)  # of flags that count

# By default a tenth of the time of imports and of tracing goes into looking for cycles.
gc.set_threshold(100_000)

INTERRUPTED = 130  # exit status of a run that Ctrl-C stopped, as shells have it
BUSY = 75  # of one that another process trains: try again later (BSD's sysexits.h)


def fail(error: BaseException) -> NoReturn:
    """Print the error as one line, without a traceback, and leave with exit status 2, or BUSY."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(BUSY if isinstance(error, BusyError) else 2)


@functools.cache
def read_config_file(word: str):
    """Return the config of FILE[:SCALE]; its caller must not change it.

    Raises:
        InputError: there is no such file or scale, or the file has an error.
    """
    name, colon, scale = word.partition(":")
    path = Path(name)
    if not path.is_file() or path.suffix != ".py":
        known = [file.as_posix() for file in path.parent.glob("*.py") if file.stem != "__init__"]
        raise InputError(f"There is no config file {name!r}, in Python.{nearest(name, known)}")
    try:
        return runpy.run_path(name)["get_config"](*[scale] * bool(colon))
    except Exception as error:
        if isinstance(error, KeyError) and repr(scale) in str(error.args[0]):
            raise as_input_error(error) from error
        raise InputError(f"--config={word}: {place_of(error, path)}{error!r}.") from error


def read_config(name: str, scale: str):
    """Return the config of an experiment at a scale.

    Raises:
        InputError: there is no such experiment or scale.
    """
    import experiments

    choose("experiment", name, dict.fromkeys(experiments.names()))
    module = importlib.import_module(f"configs.{name}")
    choose(f"scale of {name}", scale, module.SCALES)
    return module.get_config(scale)


def place_of(error: Exception, path: Path) -> str:
    """Return "line 3: ", where a file has an error, or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return f"line {line}: " if line else ""


def parse(argv: list[str]) -> list[str]:
    """Set the flags from argv and return its other words; a wrong flag ends the command."""
    try:
        for word, following in itertools.pairwise([*argv, ""]):
            option, equals, name = word.partition("=")
            if option in ("--config", "-config"):
                read_config_file(name if equals else following)
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


def raised_by(error: Exception) -> str:
    """Return the name of the module that raised an error."""
    return Path(traceback.extract_tb(error.__traceback__)[-1].filename).stem


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
    except AttributeError as error:
        if raised_by(error) != "config_dict":
            raise
        words = str(error).replace("\\n", " ").strip("'\"")
        fail(InputError(f"The config of this run lacks a key: {words}. See configs/."))
    except (AssertionError, RuntimeError) as error:  # of jax, as it looks for devices
        if raised_by(error) != "xla_bridge":
            raise
        asked = f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}"
        reason = f" ({error})" if str(error) else ""
        fail(InputError(f"There is no such device here: {asked}{reason}. Change that variable."))
    except KeyboardInterrupt as stopped:
        print(str(stopped) or "Stopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def silence_threads() -> None:
    """Silence threads that fail where a disk is full: the main thread raises the same error."""
    logging.set_verbosity(logging.WARNING)
    for name in ("absl", "asyncio"):  # orbax
        standard_logging.getLogger(name).setLevel(standard_logging.CRITICAL)

    def ended(failed):  # a thread of TensorBoard
        if not isinstance(failed.exc_value, OSError):
            threading.__excepthook__(failed)

    def unraisable(failed):  # tensorstore: other writes end after orbax gave up
        if str(failed.exc_value) != "Event loop is closed":
            sys.__unraisablehook__(failed)

    threading.excepthook, sys.unraisablehook = ended, unraisable


def open_output() -> None:
    """Make standard output and error safe to print any text to, also if they are closed."""
    for name in ("stdout", "stderr"):
        given = getattr(sys, name)
        if given is None:  # closed, as by ">&-"; the new file takes the number of the closed one
            given = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
            setattr(sys, f"__{name}__", given)
        # Some names of files are not UTF-8, and in LANG=C only ASCII can be printed.
        given.reconfigure(errors="backslashreplace")
        setattr(sys, name, Output(given))


def run(main: Callable[[list[str]], None], positional: bool = False) -> None:
    """Run main(argv) of a script; ``--help`` prints the docstring and the flags of the script.

    Args:
        main: the script's function.
        positional: whether it takes words that are no flags.
    """

    def guarded(argv):
        silence_threads()
        with one_line():
            if len(argv) > 1 and not positional:
                raise InputError(f"Unknown argument {argv[1]!r}. Flags begin with --; see --help.")
            return main(argv)

    open_output()
    app.run(guarded, flags_parser=parse)
