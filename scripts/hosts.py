"""Several processes that train one run."""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import sys
import urllib.request

from absl import flags

from ln.errors import InputError

COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT where process 0 listens")
PROCESSES = flags.DEFINE_integer("processes", None, "how many processes train", lower_bound=1)
PROCESS = flags.DEFINE_integer("process", None, "number of this process, from 0", lower_bound=0)
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "take the others from the cluster")
PATIENCE = flags.DEFINE_float("patience", 120, "seconds to wait for the others", lower_bound=1)

LOST = 69  # exit status if another process is lost (BSD's EX_UNAVAILABLE)
HEARTBEAT = 45  # seconds without a sign of life after which jax takes a process for lost
PARTING = 10  # seconds for which a process that ends waits for the others
SIGNS = ("Gloo", "NCCL", "coordination", "DEADLINE_EXCEEDED", "UNAVAILABLE")  # in jax's messages
AGAIN = "Start all again, as many as you like: the run continues from its newest checkpoint."


def are_several() -> bool:
    """Return whether the flags ask for several processes."""
    given = COORDINATOR.value, PROCESSES.value, PROCESS.value
    return DISTRIBUTED.value or given != (None, None, None)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Run what is inside in all processes at once, if there are several; only process 0 prints.

    Raises:
        InputError: flags are missing or invalid.
    """
    if not are_several():
        return (yield)
    import jax

    host = str(COORDINATOR.value).rpartition(":")[0]
    proxies, direct = urllib.request.getproxies(), urllib.request.proxy_bypass(host)
    if host and {"http", "https", "all"} & proxies.keys() and not direct:
        print(f"A proxy is set: set the variable no_proxy={host}, too, or it may get in between.")
    # Said now, since jax often aborts a process before it can say anything about another one.
    late = f"does not start within --patience={PATIENCE.value:g} seconds, or is lost later"
    print(f"If a process {late}, all of them end. {AGAIN}", file=sys.stderr, flush=True)
    jax.config.update("jax_enable_preemption_service", False)  # the trainer handles SIGTERM
    try:
        jax.distributed.initialize(
            *(COORDINATOR.value, PROCESSES.value, PROCESS.value),
            initialization_timeout=int(PATIENCE.value),
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=PARTING,
        )
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        remedy = "Give all of --coordinator=HOST:PORT, --processes and --process; or --distributed."
        raise InputError(f"The processes of this run cannot meet ({error}). {remedy}") from error
    with Path(os.devnull).open("w") as nowhere:
        try:
            with contextlib.redirect_stdout(nowhere if jax.process_index() else sys.stdout):
                yield
        except jax.errors.JaxRuntimeError as error:
            if not any(sign in str(error) for sign in SIGNS):
                raise
            message = "error: another process of this run is lost."
            print(message, AGAIN, file=sys.stderr, flush=True)
            os._exit(LOST)  # a usual exit would wait for the lost process
