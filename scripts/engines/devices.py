"""The devices of this machine, shared out among runs that train side by side."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

from ln.errors import InputError

Environment = dict[str, str]

ASK = "import json, jax; print(json.dumps([jax.default_backend(), len(jax.local_devices())]))"
FORCED = "--xla_force_host_platform_device_count"
VARIABLES = ("JAX_PLATFORMS", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES")  # why there may be no device
# For small runs on CPUs: a quarter of such a run is compiling, and LLVM's expensive passes save
# nothing there; huge pages save page faults.
QUICK = {
    "XLA_FLAGS": "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
MEMORY = 0.9  # of a device, for all runs on it


class Devices(NamedTuple):
    """The devices that a process started here sees.

    Attributes:
        variable: the environment variable that chooses among them; "" for those of a CPU, which
            are made by a flag.
        names: what that variable calls them.
    """

    variable: str
    names: list[str]


def ask() -> Devices:
    """Return the devices of this machine, asked in another process, which frees them.

    Raises:
        InputError: jax finds none, as with JAX_PLATFORMS=cuda on a machine without a GPU.
    """
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        chosen = " ".join(f"{k}={os.environ[k]}" for k in VARIABLES if os.environ.get(k))
        raise InputError(f"jax finds no device here ({reason}). Change {chosen or 'the driver'}.")
    platform, count = json.loads(done.stdout.splitlines()[-1])
    variable = {"cpu": "", "tpu": "TPU_VISIBLE_CHIPS"}.get(platform, "CUDA_VISIBLE_DEVICES")
    visible = [name for name in os.environ.get(variable, "").split(",") if name]
    return Devices(variable, visible[:count] or [str(n) for n in range(count)])


def share(devices: Devices, workers: int | None, per_run: int | None = None) -> list[Environment]:
    """Return the environment of each worker. Workers share devices only if there are too few.

    Args:
        devices: of this machine.
        workers: how many runs train at a time; None: as many as have separate devices.
        per_run: devices of each run; None: all of them, shared out evenly among workers.

    Raises:
        InputError: there are fewer devices than that.
    """
    names = devices.names
    per_run = per_run or max(1, len(names) // (workers or len(names)))
    if per_run > len(names):
        raise InputError(f"--devices_per_run={per_run}: there are {len(names)} devices here.")
    places = len(names) // per_run
    if len(names) == 1 and not devices.variable:
        return [{}] * (workers or 1)
    workers = workers or places
    places = min(places, workers)
    groups = [names[n * per_run : (n + 1) * per_run] for n in range(places)]
    together = [len(range(n, workers, places)) for n in range(places)]  # runs on a group
    shares = [environment(devices.variable, *both) for both in zip(groups, together, strict=True)]
    return [shares[n % places] for n in range(workers)]


def environment(variable: str, names: list[str], together: int) -> Environment:
    """Return the variables of a run on some devices, which it may share with others."""
    if not variable:
        return {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FORCED}={len(names)}".strip()}
    chosen = {variable: ",".join(names)}
    if variable == "TPU_VISIBLE_CHIPS":  # a chip belongs to the process that opens it first
        return chosen | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "true"}
    if together == 1:
        return chosen
    # By default the first of several would take most of the memory at once.
    memory = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{MEMORY / together:.3f}",
    }
    return chosen | {name: os.environ.get(name, value) for name, value in memory.items()}
