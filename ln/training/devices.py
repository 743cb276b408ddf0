"""All devices train one run: a mesh holds its lanes, the examples of its batches, or both.

The devices are those of one machine, or of all processes of the run. Tasks and models do not see
the mesh; the compiler adds the communication.
"""

import hashlib
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from ln.errors import InputError

LANES, CASES = "lanes", "cases"


class Spread(NamedTuple):
    """How a run is sharded over devices.

    Attributes:
        mesh: with the axes LANES and CASES; None on one device, which needs no sharding.
        batch_size: B, the number of examples in a batch.
    """

    mesh: Mesh | None = None
    batch_size: int = 0

    @classmethod
    def over(cls, devices: list, lanes: int, batch_size: int) -> "Spread":
        """Return a mesh of as many devices along the lanes as divide both; the rest share batches.

        A single process leaves devices idle that do not divide lanes and batch.

        Raises:
            InputError: there are several processes, of which one might have no share.
        """
        # Lanes first, as many as divide: they never communicate, while devices that share a batch
        # add their gradients up at every step.
        n = most(len(devices), lanes, batch_size)
        if n < len(devices) and jax.process_count() > 1:
            raise InputError(
                f"{lanes} lane(s) and config.batch_size={batch_size} do not fit on {len(devices)} "
                f"devices: {remedy(len(devices), lanes, batch_size)}; or start fewer processes."
            )
        if n == 1:
            return cls(batch_size=batch_size)
        grid = np.array(devices[:n]).reshape(math.gcd(lanes, n), -1)
        # Explicit axes, the default elsewhere, would make the models name the sharding of arrays.
        mesh = Mesh(grid, (LANES, CASES), axis_types=(AxisType.Auto, AxisType.Auto))
        return cls(mesh, batch_size)

    def sharding(self, *axes: str | None) -> NamedSharding:
        """Return the sharding of an array whose first axes are sharded along these mesh axes."""
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    @property
    def size(self) -> int:
        """Return the number of devices."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def outputs(self):
        """Return the shardings of the state ``[lanes, ...]`` and the metrics ``[K, lanes]``."""
        # The state leaves a call as it came: so its memory is reused, and the next call needs no
        # other program. XLA alone might choose another sharding.
        return None if self.mesh is None else (self.sharding(LANES), self.sharding())

    @property
    def rows(self) -> slice:
        """Return which examples of a batch the devices of this process need."""
        return self._own(CASES, self.batch_size)

    def lanes(self, lanes: int) -> slice:
        """Return which lanes the devices of this process need."""
        return self._own(LANES, lanes)

    def _own(self, axis: str, size: int) -> slice:
        """Return which part of an axis the devices of this process hold; it is contiguous."""
        if self.mesh is None:
            return slice(None)
        # Asked of jax rather than computed: the order of devices over processes is its own.
        parts = self.sharding(axis).addressable_devices_indices_map((size,))
        ends = [part.indices(size) for index in parts.values() for part in index or ()]
        # The parts of one process are next to each other, since `over` keeps the order of devices.
        return slice(min(start for start, _, _ in ends), max(stop for _, stop, _ in ends))

    def state(self, state: Any) -> Any:
        """Put a state on the devices; each process has its leaves ``[lanes, ...]`` whole."""
        if self.mesh is None:
            return state
        by_lane = self.sharding(LANES)

        def put(leaf):
            whole = np.asarray(leaf)
            # Each process has the whole, and puts the shards of its devices there.
            return jax.make_array_from_callback(whole.shape, by_lane, whole.__getitem__)

        return jax.tree.map(put, state)

    def batches(self, batches: Any, lanes: int = 0) -> Any:
        """Put batches on their devices.

        Args:
            batches: leaves ``[K, B, ...]`` of the `rows` of this process, and ``[K]`` of
                numbers.
            lanes: 0 if all lanes share a batch. If not, the number of all lanes, and leaves have an
                axis of the process's own `lanes` behind K.
        """
        if self.mesh is None:
            return jax.device_put(batches)

        axes = (None, LANES, CASES) if lanes else (None, CASES)

        def put(leaf):
            sharding = self.sharding(*axes[: leaf.ndim])
            return jax.make_array_from_process_local_data(sharding, leaf)

        return jax.tree.map(put, batches)

    def gathered(self, tree: Any) -> Any:
        """Return whole arrays, in each process."""
        if self.mesh is None:
            return tree
        return multihost_utils.process_allgather(tree, tiled=True)


ALONE = Spread()


def most(count: int, lanes: int, batch_size: int) -> int:
    """Return the largest number of devices, at most count, on which lanes and batch fit."""
    # n devices are gcd(lanes, n) groups along the lanes; the devices of a group share a batch and
    # must divide it.
    return next(n for n in range(count, 0, -1) if batch_size % (n // math.gcd(lanes, n)) == 0)


def remedy(count: int, lanes: int, batch_size: int) -> str:
    """Say how many lanes, or which batch sizes, fit on all devices."""
    sharing = count // math.gcd(lanes, count)
    # The nearest sizes on both sides.
    below = batch_size - batch_size % sharing
    sizes = " or ".join(str(size) for size in (below, below + sharing) if size)
    return (
        f"take a multiple of {count} lanes (config.seeds times config.lr), "
        f"or config.batch_size={sizes}"
    )


def visible(limit: int | None) -> list[jax.Device]:
    """Return the devices that a run may use: all, or the first of them up to a limit.

    Raises:
        InputError: there are not as many, or several processes share the run.
    """
    devices = jax.devices()
    if limit is None:
        return devices
    if jax.process_count() > 1:
        raise InputError("--devices is for a single process: start fewer processes instead.")
    if not 1 <= limit <= len(devices):
        raise InputError(f"--devices={limit}: take a number from 1 to {len(devices)}.")
    return devices[:limit]


def describe(spread: Spread, usable: list, lanes: int) -> str:
    """Return in words on which devices a run is, and how it could use the idle ones."""
    text = f"{spread.size} x " * (spread.size > 1) + usable[0].device_kind
    text += f", {jax.process_count()} processes" * (jax.process_count() > 1)
    if idle := usable[spread.size :]:
        text += f"; idle: {', '.join(f'{d.platform}:{d.id}' for d in idle)}. To use them, "
        text += f"{remedy(len(usable), lanes, spread.batch_size)}; or train several runs at a time "
        text += "with scripts.sweep"
    return text


def accelerated() -> bool:
    """Return whether runs are on an accelerator."""
    return jax.default_backend() != "cpu"


def unseen_gpu() -> bool:
    """Return whether this machine has an NVIDIA GPU that jax does not see, unless it is hidden."""
    # Someone who hides the GPU knows that it is there.
    hidden = os.environ.get("JAX_PLATFORMS") or os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return not hidden and not accelerated() and Path("/dev/nvidia0").exists()


# --- Agreement of several processes ---


def check_same(text: str) -> None:
    """Raise InputError, in every process, if the processes have different texts."""
    # Processes exchange arrays of numbers, of one size in all of them.
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32)
    digests = multihost_utils.process_allgather(digest).reshape(-1, len(digest))
    if differing := [n for n, row in enumerate(digests) if (row != digests[0]).any()]:
        raise InputError(
            f"Process {', '.join(map(str, differing))} has another config or other data than "
            f"process 0: start all processes with the same flags, and with the same data."
        )


def from_first(tree: Any) -> Any:
    """Return the arrays of process 0 in every process, bit for bit; all have the same shapes."""
    if jax.process_count() == 1:
        return tree
    bits = jax.tree.map(lambda leaf: np.asarray(leaf).view(f"u{leaf.dtype.itemsize}"), tree)
    bits = multihost_utils.broadcast_one_to_all(bits)  # a sum with zeros; of floats −0 + 0 is 0
    return jax.tree.map(lambda sent, leaf: np.asarray(sent).view(leaf.dtype), bits, tree)


def any_of(asks: bool) -> bool:
    """Return whether any process asks: a collective question, which waits for all of them."""
    return bool(multihost_utils.process_allgather(np.bool_(asks)).any())
