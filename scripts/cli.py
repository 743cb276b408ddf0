"""What the commands share: flags in, one clear line out when something the user gave is wrong."""

from collections.abc import Iterator, Sequence
import contextlib
import errno
import logging as standard_logging
from pathlib import Path
import runpy
import signal
import subprocess
import sys
import threading

from absl import app, flags, logging

from ln.errors import BusyError, DivergedError, InputError, choose, nearest

# What absl, ml_collections and a config file raise for a misspelt flag, key or value.
FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError)

# A full disk, a full quota (which some systems do not have), a read-only file system.
NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EROFS}

INTERRUPTED = 130  # exit status of a run that Ctrl-C stopped, as shells have it
BUSY = 75  # of one that another process is at work on: try again later (BSD's sysexits.h)


def fail(error: BaseException) -> None:
    """Prints the error as one line, without a traceback, and leaves with exit status 2, or BUSY."""
    words = error.args[0] if isinstance(error, KeyError) and error.args else error
    print(f"error: {' '.join(str(words).split())}", file=sys.stderr)
    sys.exit(BUSY if isinstance(error, BusyError) else 2)


def check_config_file(word: str) -> None:
    """Refuses a --config=FILE:SCALE whose file or scale does not exist.

    Raises:
        InputError: with the nearest right name.
    """
    name, _, scale = word.removeprefix("--config=").partition(":")
    path = Path(name)
    if not path.is_file():
        known = [other.as_posix() for other in path.parent.glob("*.py") if other.stem != "__init__"]
        raise InputError(f"There is no config file {name}.{nearest(name, known)}")
    if scale:
        choose(f"scale of {name}", scale, runpy.run_path(name).get("SCALES", {}))


def parse(argv: list[str]) -> list[str]:
    try:
        for word in argv:
            if word.startswith("--config="):
                check_config_file(word)
        return flags.FLAGS(argv)
    except SystemExit:  # absl printed the help that was asked for, and exits with 1
        sys.exit(0)
    except FLAG_ERRORS as error:
        return fail(as_input_error(error, argv))


def as_input_error(error: Exception, argv: Sequence[str]) -> InputError:
    """Return one of FLAG_ERRORS, raised by these flags, as the line that the user reads."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, AttributeError):  # ml_collections raises it for an unknown key
        words = str(error).replace("\\n", " ").replace("\\'", "'").strip("'\"")
        key, _, suggestion = words.partition("'")
        return InputError(renamed_key(key, argv) or f"Unknown config key {key!r}.{suggestion}")
    words = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return InputError(" ".join(words.split()))


def renamed_key(key: str, argv: Sequence[str]) -> str | None:
    """Return what to say of an unknown config key if earlier versions had it."""
    from ln.training.runs import RENAMED  # which needs jax; a wrong key is rare

    configs = [word for word in argv if word.startswith("--config=")]
    experiment = Path(configs[-1].removeprefix("--config=").partition(":")[0]).stem
    for row in RENAMED:
        if row.old == key and experiment in row.experiments:
            value = f", which is 1 − {key}" if row.new == "dropout_rate" else ""
            return f"config.{key} has been renamed: use config.{row.new}{value}."
    return None


def call(words: list[str]) -> int:
    """Runs another command of this project, ``python`` left out, and returns its exit status.

    Ctrl-C reaches both; the other one saves and ends, and waiting for it is all to do here.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run([sys.executable, *words]).returncode
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Turns an error that a user can act on into one line and an exit status."""
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


def say_it_once() -> None:
    """Silences threads that fail where a disk is full: what they say is raised here, too."""
    for name in ("absl", "asyncio"):  # orbax
        standard_logging.getLogger(name).setLevel(standard_logging.CRITICAL)

    def of_thread(failed):  # TensorBoard
        if not isinstance(failed.exc_value, OSError):
            threading.__excepthook__(failed)

    def of_callback(failed):  # tensorstore: other writes end after orbax gave up
        if str(failed.exc_value) != "Event loop is closed":
            sys.__unraisablehook__(failed)

    threading.excepthook, sys.unraisablehook = of_thread, of_callback


def run(main) -> None:
    """Runs main(argv) of a script; ``--help`` prints the docstring and the flags of the script."""

    def guarded(argv):
        logging.set_verbosity(logging.WARNING)
        say_it_once()
        sys.stdout.reconfigure(errors="backslashreplace")  # some names of files are not UTF-8
        with one_line():
            return main(argv)

    app.run(guarded, flags_parser=parse)
