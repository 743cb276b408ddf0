"""Checkpoints of a run (orbax), each with a digest that every reader verifies."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import hashlib
import json
from pathlib import Path
import re
from typing import Any, NamedTuple

import flax.serialization
import jax
import numpy as np

from ln.errors import InputError
from ln.training.files import Extent

# Keys beside the sums, whose names are metrics.
ROWS = "rows so far"  # of metrics.jsonl, in checkpoints of earlier versions
FILES = "files so far"  # name -> Extent
DIGEST = "digest"  # of everything else in the checkpoint


class Saved(NamedTuple):
    """The contents of a checkpoint.

    Attributes:
        state: a pytree of arrays.
        sums: name -> ``[lanes]``, since the last row.
        files: how much of each file of the run belongs to it.
    """

    state: Any
    sums: dict[str, np.ndarray]
    files: dict[str, Extent]


def digest(state: dict, record: Mapping) -> str:
    """Return the digest of the arrays of a nested dictionary, and of JSON data."""
    result = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = np.asarray(leaf)
        result.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        # As bytes: hashlib reads no bfloat16, and an array without an axis has no view as bytes.
        result.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return result.hexdigest()


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """Raise OSError for orbax's errors about the disk, perhaps from the save before."""
    try:
        yield
    except ValueError as error:
        # orbax writes in threads, and its errors surface at the next call, as texts.
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), str(error).splitlines()[0]) from error


def manager(folder: Path, keep: Callable | None = None):
    """Return the CheckpointManager of a folder.

    Args:
        folder: the folder checkpoints/ of a run.
        keep: returns which steps of a list to keep; None in a process that only reads.
    """
    import orbax.checkpoint as ocp  # takes half a second, which readers of rows do not need

    options: dict[str, Any] = {}
    if keep is not None:
        # Process 0 alone writes, and the others may not see the disk: by default orbax would wait
        # for all of them.
        options["preservation_policy"] = Policy(keep)
        options["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="run"
        )
    options_of_run = ocp.CheckpointManagerOptions(create=False, **options)
    try:
        return ocp.CheckpointManager(folder, options=options_of_run)
    except ValueError as error:  # of orbax: metadata that are JSON, but no object
        message = f"A checkpoint in {folder} is damaged ({error})."
        raise InputError(f"{message} Move it away, or choose another --workdir.") from error


class Policy(NamedTuple):
    """A function in the shape in which orbax wants it."""

    keep: Callable[[list[int]], set[int]]

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Return which checkpoints stay; orbax calls it after each save."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = self.keep(steps)
        return [step in kept for step in steps]


def save(manager, step: int, saved: Saved) -> None:
    """Write a checkpoint in the background."""
    import orbax.checkpoint as ocp

    # A copy, since the trainer gives the memory of the state to the next step.
    copy = jax.tree.map(np.array, flax.serialization.to_state_dict(saved.state))
    record: dict[str, Any] = {name: values.tolist() for name, values in saved.sums.items()}
    record[FILES] = {name: list(extent) for name, extent in saved.files.items()}
    # The digest is that of the copy in memory, so it also covers what orbax and the disk do to it.
    record[DIGEST] = digest(copy, record)
    items = ocp.args.Composite(state=ocp.args.StandardSave(copy), sums=ocp.args.JsonSave(record))
    with storing():
        # force: when to save is decided by the plan of the trainer, not by orbax.
        manager.save(step, args=items, force=True)


def restore(manager, step: int, state: Any) -> Saved:
    """Return a checkpoint.

    Args:
        manager: see `manager`.
        step: of the checkpoint.
        state: a pytree of arrays like the saved one.

    Raises:
        InputError: it is damaged, or holds another kind of state.
    """
    import orbax.checkpoint as ocp

    # Arrays of the host, without a sharding: a run of four devices continues on one.
    like = flax.serialization.to_state_dict(jax.device_get(state))
    items = ocp.args.Composite(state=ocp.args.StandardRestore(like), sums=ocp.args.JsonRestore())
    try:
        stored = manager.restore(step, args=items)
        record = dict(stored["sums"])
        if record.pop(DIGEST, None) not in (None, digest(stored["state"], record)):
            raise ValueError("its contents are not what was saved")
        # Checkpoints of earlier versions have no digest, and count the rows of one file.
        files = {name: Extent(*extent) for name, extent in record.pop(FILES, {}).items()}
        if rows := record.pop(ROWS, 0):
            files["metrics.jsonl"] = Extent(None, rows, None)
        sums = {name: np.array(values, float) for name, values in record.items()}
        whole = flax.serialization.from_state_dict(state, stored["state"])
    except Exception as error:  # a flipped bit makes orbax and its libraries raise anything
        words = (str(error) or repr(error)).splitlines()[0]
        raise InputError(
            f"The checkpoint of step {step} in {manager.directory} does not fit this code "
            f"({words}). Use the commit in sessions.jsonl, or choose another --workdir."
        ) from error
    return Saved(jax.device_put(whole), sums, files)
