"""Several processes that train one run: how they meet, and how they part when one is lost."""

from collections.abc import Callable, Iterator
import contextlib
import os
import sys
import threading
import traceback
from typing import NamedTuple, NoReturn

from absl import flags

from ln.errors import InputError
from scripts import cli

COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT where process 0 listens")
PROCESSES = flags.DEFINE_integer("processes", None, "how many processes train", lower_bound=1)
PROCESS = flags.DEFINE_integer("process", None, "which of them this is, from 0", lower_bound=0)
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "the cluster's environment says all that")
PATIENCE = flags.DEFINE_float("patience", 120, "seconds to wait for the others", lower_bound=1)

LOST = 69  # exit status where another process is gone (BSD's EX_UNAVAILABLE)
HEARTBEAT = 45  # seconds without a sign of life after which a process counts as lost
PARTING = 10  # seconds that one that fails waits for others that fail alike

GONE = (
    "another process of this run has ended or cannot be reached; its own output may say why. Start "
    "all of them again, as many as you like: the run goes on from its newest checkpoint."
)
SIGNS = ("Gloo", "NCCL", "coordination", "DEADLINE_EXCEEDED", "UNAVAILABLE")  # in XLA's messages


class Place(NamedTuple):
    """What a process has to know to meet the others; what is None the environment says."""

    coordinator: str | None
    processes: int | None
    process: int | None

    @classmethod
    def of_flags(cls) -> "Place | None":
        """The place that the flags give; None where one process trains alone.

        Raises:
            InputError: some of the flags are missing, or do not fit.
        """
        place = cls(COORDINATOR.value, PROCESSES.value, PROCESS.value)
        given = [value is not None for value in place]
        if not any(given):
            return place if DISTRIBUTED.value else None
        if not all(given):
            raise InputError(
                "Several processes need all of --coordinator=HOST:PORT, --processes and --process; "
                "or --distributed alone, where a cluster's environment has them."
            )
        if place.process >= place.processes:
            raise InputError(
                f"--process={place.process}: {place.processes} processes are numbered from 0 to "
                f"{place.processes - 1}."
            )
        host, colon, port = place.coordinator.rpartition(":")
        if not (host and colon and port.isdigit()):
            raise InputError(f"--coordinator={place.coordinator}: write HOST:PORT.")
        return place


def last_words(words: str) -> Callable[[], None]:
    """Has a small process say something when this one ends, unless what is returned was called.

    XLA aborts a process that has lost another, from threads of its own, and after that nothing in
    the process can speak.
    """
    if not hasattr(os, "fork"):
        return lambda: None
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(writing)
        os.setsid()  # Ctrl-C is not for it
        if not os.read(reading, 1):
            os.write(sys.stderr.fileno(), f"error: {words}\n".encode())
        os._exit(0)
    os.close(reading)

    def spoken() -> None:
        with contextlib.suppress(BrokenPipeError):  # said twice
            os.write(writing, b".")

    return spoken


def leave(status: int, *words: str) -> NoReturn:
    """Ends this process now. A usual exit would wait for the others, who may wait for this one."""
    for line in words:
        print(f"error: {line}", file=sys.stderr)
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(status)


def meet(place: Place, give_up: Callable[[str], None]) -> None:
    """Joins the other processes.

    Raises:
        InputError: the environment names no cluster, or the address cannot be used.
    """
    import jax

    missing = (
        f"not all processes of this run were there within --patience={PATIENCE.value:g} seconds. "
        f"Each needs the same --coordinator and --processes, and a --process of its own."
    )
    waiting = threading.Timer(PATIENCE.value, give_up, (missing,))
    waiting.daemon = True
    waiting.start()
    jax.config.update("jax_enable_preemption_service", False)  # the trainer listens to SIGTERM
    try:
        jax.distributed.initialize(
            *place,
            initialization_timeout=int(PATIENCE.value) + 60,  # later than ours, since it aborts
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"The processes of this run cannot meet: {error}") from error
    finally:
        waiting.cancel()


@contextlib.contextmanager
def together(place: Place) -> Iterator[None]:
    """What is done within is done by all processes at once; only process 0 prints.

    Where one fails, the others end as well, with a line that says so.
    """
    spoken = last_words(GONE)

    def give_up(words: str) -> NoReturn:
        spoken()
        leave(LOST, words)

    try:
        with contextlib.ExitStack() as stack, cli.one_line():
            meet(place, give_up)
            import jax

            if jax.process_index():
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            yield
        jax.distributed.shutdown()
        spoken()
        return
    except SystemExit as end:
        status = end.code
    except BaseException as error:
        if any(sign in str(error) for sign in SIGNS):
            give_up(GONE)
        traceback.print_exc()
        status = 1
    spoken()
    # The others fail alike at the same step and are here soon, or never come.
    threading.Timer(PARTING, leave, (status,)).start()
    jax.distributed.shutdown()
    leave(status)
