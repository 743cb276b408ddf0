"""A run on disk: one folder, one config, and no file that a killed process can damage.

config.json     the config; a folder belongs to one config for ever
sessions.jsonl  one line per start: command, versions, device, commit, first step
metrics.jsonl   one line per lane, step and split: the source of every figure and table
events/         the same numbers for TensorBoard, written anew from metrics.jsonl at each start
diverged.jsonl  one line per lane that did not stay finite: after which step, and why
checkpoints/    the newest two and the best (orbax); damaged/ has those that could not be read
data.json       digests of the data sets
finished.json   exists once the last step is done
"""

from collections.abc import Callable, Collection, Iterator, Mapping
import contextlib
import dataclasses
import datetime
import importlib.metadata
import itertools
import json
import math
import operator
import os
from pathlib import Path
import platform
import shlex
import shutil
import subprocess
import sys
from typing import Any, NamedTuple, TextIO, TypeVar
import uuid

import filelock
import flax.serialization
import jax
from ml_collections import ConfigDict
import numpy as np

from ln.errors import BusyError, InputError, choose

Row = dict[str, Any]
Lane = tuple[int, float]  # seed, learning rate
Item = TypeVar("Item")

SIGNS = {"min": 1, "max": -1}  # config.select.mode -> sign of a score of which less is better
PLACES = ("data_dir",)  # keys that say where something lies, not what is computed
LENGTH = "steps"  # where a run ends; nothing before depends on it


class Renamed(NamedTuple):
    """A config key that earlier versions of an experiment wrote under another name.

    Attributes:
        experiments: names of the experiments that had the key.
        convert: turns the stored value into the value of the new key.
    """

    experiments: tuple[str, ...]
    old: str
    new: str
    convert: Callable[[Any], Any] = lambda value: value


READER, ORDER, SKIP = "attentive_reader", "order_embeddings", "skip_thoughts"

# These tables are permanent: every stored run stays readable, resumable and reportable.
RENAMED = (
    Renamed((READER, ORDER, SKIP), "words", "embedding_dim"),
    Renamed((SKIP,), "vocabulary", "vocab_size"),
    Renamed((SKIP,), "longest", "max_words"),
    Renamed((SKIP,), "block", "shuffle_block"),
    Renamed((READER,), "keep", "dropout_rate", lambda keep: round(1 - keep, 12)),
    Renamed(("handwriting",), "pace", "kappa_bias"),
)
# Keys that earlier runs lack, with the values that these runs trained with.
ADDED: tuple[tuple[tuple[str, ...] | None, dict], ...] = (
    (None, dict(schedule=dict(kind="constant", tau=0.0))),
    ((ORDER,), dict(buckets=1)),
    ((READER,), dict(clip_root=0.0)),
    (("draw", "handwriting"), dict(init_std=0.0)),
)


def is_former(config: Mapping) -> bool:
    """Return whether a stored config is from before the default of data_seed became -1."""
    return "schedule" not in config and "data_seed" in config


def modernize(config: dict) -> dict:
    """Return a stored config under the present names, with the keys that were added since."""
    config, experiment = dict(config), config.get("experiment")
    for row in RENAMED:
        if experiment in row.experiments and row.old in config and row.new not in config:
            config[row.new] = row.convert(config.pop(row.old))
    for experiments, values in ADDED:
        if experiments is None or experiment in experiments:
            config = values | config
    return config


def with_norm(config: dict, norm: str | None) -> dict:
    """Return a config whose table of norms has this norm alone: a run depends on no other."""
    norms = config.get("norms", {})
    return config | {"norms": {norm: norms[norm]} if norm in norms else {}}


def as_json(config) -> dict:
    """Return the config as plain JSON data (tuples become lists)."""
    return json.loads(config.to_json())


def differences(old: Mapping, new: Mapping, prefix: str = "") -> list[str]:
    """Return one string like "lr: 0.1 -> 0.2" for each key that differs between two configs."""
    changes = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key, "(none)"), new.get(key, "(none)")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            changes += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            changes.append(f"{prefix}{key}: {json.dumps(a)} -> {json.dumps(b)}")
    return changes


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that is there whole or not at all."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(unfinished, path)


def to_line(row: Row) -> str:
    """Return a row as a line of JSON, which has no NaN: null if a number is not finite."""
    isnt_finite = {k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
    return json.dumps(row | dict.fromkeys(isnt_finite)) + "\n"


def write_rows(path: Path, rows: list[Row]) -> None:
    write_atomically(path, "".join(map(to_line, rows)))


def append_rows(path: Path, rows: list[Row]) -> None:
    """Append rows to a file to which several processes may append at once."""
    with filelock.FileLock(path.with_suffix(".lock")):
        write_rows(path, [*read_rows(path), *rows])


# --- Reading. A file may be damaged in any way, so each value is converted where it is read. ---

# What the conversion of JSON raises that has another shape.
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
RESTORE = "Restore the file, or move the folder away."


def _read_object(path: Path, remedy: str, make: Callable[[Any], Item]) -> Item:
    """Return what `make` makes of the contents of a JSON file.

    Raises:
        InputError: they have another shape; ends in the remedy.
    """
    try:
        return make(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, *MALFORMED) as error:
        raise InputError(f"{path} is damaged ({error!r}). {remedy}") from error


def read_rows(path: Path, make: Callable[[Any], Any] = dict) -> list:
    """Return the lines of a JSON-lines file, without a last one that was left half-written.

    Args:
        make: converts the contents of a line.

    Raises:
        InputError: a line is no JSON, or has another shape.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(make(json.loads(line)))
        except MALFORMED as error:
            half_written = isinstance(error, json.JSONDecodeError) and number == len(lines)
            if not half_written:
                message = f"{path} line {number} is damaged ({error!r}). {RESTORE}"
                raise InputError(message) from error
    return rows


class Reading(NamedTuple):
    """The metrics of one lane on one split after a step: a line of metrics.jsonl.

    Attributes:
        epoch: None if the task has no epochs.
        values: metric -> value; NaN if it was not finite.
    """

    seed: int
    lr: float
    step: int
    epoch: float | None
    split: str
    values: dict[str, float]

    @classmethod
    def from_row(cls, row: Row, select: Mapping[str, str]) -> "Reading":
        """Return a line of metrics.jsonl.

        Raises:
            one of MALFORMED: a value is missing or is of another type.
        """
        names = set(cls._fields)
        values = {k: math.nan if v is None else float(v) for k, v in row.items() if k not in names}
        if row["split"] == select["split"]:
            values[select["metric"]]
        epoch = None if row["epoch"] is None else float(row["epoch"])
        return cls(*_lane(row), operator.index(row["step"]), epoch, str(row["split"]), values)

    @property
    def lane(self) -> Lane:
        return self.seed, self.lr

    @property
    def row(self) -> Row:
        names = ("step", "epoch", "split", "seed", "lr")
        return {name: getattr(self, name) for name in names} | self.values


class Divergence(NamedTuple):
    """The step after which a lane was not finite for the first time, and what was not."""

    step: int
    cause: str


@dataclasses.dataclass(frozen=True)
class Stored:
    """A run folder as all its readers see it: training, sweeps, searches and pages.

    Attributes:
        config: under the present names of its keys.
        rows: in the order in which they were written.
        sessions, evaluations: the lines of these files, as dictionaries.
        diverged: the lanes that did not stay finite.
    """

    folder: Path
    config: dict
    rows: list[Reading]
    sessions: list[Row]
    evaluations: list[Row]
    diverged: dict[Lane, Divergence]
    finished: bool

    @property
    def lanes(self) -> list[Lane]:
        """Return all lanes of the config, in the order of training."""
        return _lanes(self.config)

    @property
    def remaining(self) -> list[Lane]:
        """Return the lanes that have not diverged; if all have, those that diverged last."""
        last = max((divergence.step for divergence in self.diverged.values()), default=0)
        healthy = [lane for lane in self.lanes if lane not in self.diverged]
        return healthy or [lane for lane in self.lanes if self.diverged[lane].step == last]

    @property
    def sign(self) -> int:
        """Return 1 if a smaller score is better, else -1."""
        return SIGNS[self.config["select"]["mode"]]

    def progress(self, unit: str = "step") -> float:
        """Return the last step, or epoch, that has a row; 0 without any."""
        return max((getattr(row, unit) or 0 for row in self.rows), default=0)

    def scores(self, lanes: Collection[Lane] | None = None) -> dict[int, float]:
        """Return step -> config.select, the mean over lanes, at steps at which all have a reading.

        Args:
            lanes: default: those in `remaining`.
        """
        chosen, select = set(self.remaining if lanes is None else lanes), self.config["select"]
        values: dict[int, dict[Lane, float]] = {}
        for row in self.rows:
            if row.split == select["split"] and row.lane in chosen:
                values.setdefault(row.step, {})[row.lane] = row.values[select["metric"]]
        return {
            step: sum(by_lane.values()) / len(chosen)
            for step, by_lane in values.items()
            if len(by_lane) == len(chosen)
        }

    def best(
        self, lanes: Collection[Lane] | None = None, steps: Collection[int] | None = None
    ) -> tuple[int, float] | None:
        """Return the step with the best of `scores`, and that score; None if none is finite.

        Args:
            lanes: as in `scores`.
            steps: to choose from; default: all.
        """
        scores = {
            step: score
            for step, score in self.scores(lanes).items()
            if math.isfinite(score) and (steps is None or step in steps)
        }
        step = min(scores, key=lambda step: self.sign * scores[step], default=None)
        return None if step is None else (step, scores[step])


def _lane(row: Row) -> Lane:
    return operator.index(row["seed"]), float(row["lr"])


def _lanes(config: Mapping) -> list[Lane]:
    return list(itertools.product(map(operator.index, config["seeds"]), map(float, config["lr"])))


def _checked(config: dict) -> dict:
    """Return a config that has what every reader needs; raises one of MALFORMED if not."""
    select, number = config["select"], str(config["steps"]).partition(" ")[0]
    _lanes(config), float(number), SIGNS[select["mode"]]
    names = config["experiment"], select["split"], select["metric"]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{names} are not all texts")
    return config


def _diverged_path(folder: Path) -> Path:
    former = folder / "dead.jsonl"
    return former if former.exists() else folder / "diverged.jsonl"


def _stored_config(folder: Path) -> dict:
    path = folder / "config.json"
    if not path.exists():
        raise InputError(f"{folder} is no run folder: there is no {path}.")
    return _read_object(path, "Put a copy of it back, or move the folder away.", _checked)


def _readings(folder: Path, select: Mapping[str, str]) -> list[Reading]:
    return read_rows(folder / "metrics.jsonl", lambda row: Reading.from_row(row, select))


def read(folder: Path | str) -> Stored:
    """Return a run, finished or not.

    Raises:
        InputError: the folder is not a run, or a file is damaged.
    """

    def session(row):
        return row | dict(command=str(row["command"]), versions=dict(row["versions"]))

    def evaluation(row):
        value = math.nan if row["value"] is None else float(row["value"])
        seed, lr = _lane(row)
        texts = {name: str(row[name]) for name in ("split", "metric")}
        return row | texts | dict(seed=seed, lr=lr, step=operator.index(row["step"]), value=value)

    def diverged(row):
        return _lane(row), Divergence(operator.index(row["step"]), str(row["cause"]))

    folder = Path(folder)
    config = modernize(_stored_config(folder))
    return Stored(
        folder=folder,
        config=config,
        rows=_readings(folder, config["select"]),
        sessions=read_rows(folder / "sessions.jsonl", session),
        evaluations=read_rows(folder / "evaluations.jsonl", evaluation),
        diverged=dict(read_rows(_diverged_path(folder), diverged)),
        finished=is_finished(folder),
    )


def load(folder: Path | str) -> tuple[dict, list[Row]]:
    """Return the config and the metrics of a run, finished or not, as dictionaries.

    Raises:
        InputError: the folder is not a run, or a file is damaged.
    """
    config = modernize(_stored_config(Path(folder)))
    return config, [reading.row for reading in _readings(Path(folder), config["select"])]


def read_config(folder: Path | str) -> ConfigDict:
    """Return the config of a run.

    Raises:
        InputError: the folder is not a run, or the config is damaged.
    """
    return as_config(_stored_config(Path(folder)))


def as_config(stored: dict) -> ConfigDict:
    """Return a stored config as a config file gives it: see `as_json`."""

    def as_given(value):
        if isinstance(value, dict):
            return {k: as_given(v) for k, v in value.items()}
        return tuple(map(as_given, value)) if isinstance(value, list) else value

    return ConfigDict(as_given(modernize(stored)))


def find(root: Path) -> Iterator[Path]:
    """Yield the run folders under root, in order of their names."""
    for path in sorted(Path(root).rglob("config.json")):
        if (path.parent / "metrics.jsonl").exists():
            yield path.parent


def is_finished(folder: Path | str) -> bool:
    return (Path(folder) / "finished.json").exists()


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """Return the git commit of the running code, with a "+" if files differ from it."""

    def git(*words):
        return subprocess.run(
            ("git", *words), cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/results")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None  # an installed package, or no git here


def environment() -> dict:
    """Return what a number may depend on besides the config."""
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
    return dict(
        commit=commit(),
        python=platform.python_version(),
        versions={name: importlib.metadata.version(name) for name in packages},
        device=device.device_kind,
        backend=device.platform,
        devices=jax.device_count(),
        processes=jax.process_count(),
        cores=os.cpu_count(),
        system=platform.platform(),
    )


def provenance(step: int) -> dict:
    """Return what made something from the state at a step: time, command and environment."""
    return dict(time=now(), command=shlex.join(sys.orig_argv[1:]), step=step, **environment())


# --- Checkpoints ---

ROWS = "rows so far"  # the number of lines of metrics.jsonl; among the sums of a checkpoint


def read_checkpoint(folder: Path | str, which: str, state):
    """Return the state of a checkpoint, without a change to the folder: the run may be training.

    Args:
        which: "newest", "best" by the run's config.select, or a step.
        state: a pytree of arrays like the saved one.

    Raises:
        InputError: there is no such checkpoint, it holds another kind of state, or is damaged.
    """
    import orbax.checkpoint as ocp

    checkpoints = Path(folder).absolute() / "checkpoints"
    if not checkpoints.is_dir():
        raise InputError(f"{folder} has no checkpoints yet.")
    options = ocp.CheckpointManagerOptions(create=False)
    with ocp.CheckpointManager(checkpoints, options=options) as manager:
        step = _step(Path(folder), which, list(manager.all_steps()))
        return _restore(manager, step, state)[0]


def _step(folder: Path, which: str, saved: list[int]) -> int:
    """Return which of the saved steps is meant, as in `read_checkpoint`."""
    if not saved:
        raise InputError(f"{folder} has no checkpoints yet.")
    best = _best(folder, saved)
    if which == "best" and best is None:
        raise InputError(f"No checkpoint of {folder} has a score: take the newest.")
    steps = {"best": best, "newest": max(saved)} | {str(step): step for step in saved}
    return choose(f"checkpoint of {folder}", which, steps)


def _best(folder: Path, steps: Collection[int]) -> int | None:
    best = read(folder).best(steps=steps)
    return best and best[0]


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    """Raise OSError for what orbax says of the disk, perhaps about the save before."""
    try:
        yield
    except ValueError as error:
        if "os_error_code" not in str(error):
            raise
        raise OSError(str(error).splitlines()[0]) from error


def _restore(manager, step: int, state):
    """Return (state, sums) of a checkpoint, like `Run.restore`."""
    import orbax.checkpoint as ocp

    like = flax.serialization.to_state_dict(jax.device_get(state))
    items = ocp.args.Composite(state=ocp.args.StandardRestore(like), sums=ocp.args.JsonRestore())
    try:
        saved = manager.restore(step, args=items)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"The checkpoint of step {step} in {manager.directory} does not fit this code "
            f"({str(error).splitlines()[0]}). Use the commit in sessions.jsonl, or choose another "
            f"--workdir."
        ) from error
    sums = {name: np.array(values) for name, values in saved["sums"].items()}
    return jax.device_put(flax.serialization.from_state_dict(state, saved["state"])), sums


class Run:
    """A run folder opened for writing, by this process alone.

    Args:
        folder: made if it does not exist.
        config: a ConfigDict.
        lanes: the (seed, learning rate) of each lane.
        data: digests of the data sets that it learns from, by name.

    Attributes:
        data_seed: as in the config; a run of an earlier version keeps its own.

    Raises:
        InputError: the folder belongs to another config or other data, or is not a run.
        BusyError: another process is writing to it.
    """

    data_seed: int

    def __init__(
        self,
        folder: Path | str,
        config,
        lanes: list[Lane],
        data: Mapping[str, str] | None = None,
    ):
        self.folder = Path(folder).absolute()  # orbax needs an absolute path
        self.lanes = lanes
        wanted = as_json(config)
        choose("config.select.mode", wanted["select"]["mode"], SIGNS)
        self._claim()
        try:
            self._check_config(wanted)
            self._check_data(dict(data or {}))
            self._checkpoints = self._checkpoint_manager()
        except BaseException:
            self._lock.release()
            raise
        self._file: TextIO | None = None
        self._writers: dict[Lane, Any] = {}
        self._rows = 0  # lines of metrics.jsonl
        self._stored: Stored  # of the rows only those that config.select is about

    def _claim(self) -> None:
        path = self.folder / "config.json"
        names = self.folder.exists() and {p.name for p in self.folder.iterdir()}
        if names and not path.exists() and names - {"config.json.tmp", "lock"}:
            raise InputError(
                f"{self.folder} is not empty and holds no config.json, so it is no run folder. "
                f"Choose another --workdir."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(self.folder / "lock")
        try:
            self._lock.acquire(timeout=0)  # the system lets go of it when this process dies
        except filelock.Timeout:
            raise BusyError(
                f"Another process is writing to {self.folder}. Wait for it, stop it, or choose "
                f"another --workdir."
            ) from None

    def _check_config(self, wanted: dict) -> None:
        path, stored = self.folder / "config.json", wanted
        known = config = modernize(wanted)
        if path.exists():
            stored = _stored_config(self.folder)
            known = modernize(stored)
            defaults = known.get("data_seed"), config.get("data_seed")
            if is_former(stored) and defaults == (0, -1):  # before and now
                config = config | dict(data_seed=0)
                print(f"{self.folder} is of an earlier version: it keeps config.data_seed=0.")
            known, config = (with_norm(c, known.get("norm")) for c in (known, config))
            aside = dict.fromkeys((*PLACES, LENGTH))
            if changes := differences(known | aside, config | aside):
                raise InputError(
                    f"{self.folder} was made by another config ({'; '.join(changes)}). "
                    f"Choose another --workdir, or give the same settings to resume."
                )
        self.data_seed = known.get("data_seed", -1)
        if not path.exists() or known.get(LENGTH) != config[LENGTH]:
            (self.folder / "finished.json").unlink(missing_ok=True)
            stored = stored | {LENGTH: config[LENGTH]}  # under the names that it was written with
            write_atomically(path, json.dumps(stored, indent=2) + "\n")

    def _check_data(self, data: dict[str, str]) -> None:
        path = self.folder / "data.json"
        remedy = "Delete it if the data are the same still, or choose another --workdir."
        known = _read_object(path, remedy, dict) if path.exists() else data
        if changed := [name for name, digest in data.items() if known.get(name, digest) != digest]:
            raise InputError(
                f"{self.folder} was made with other data: {', '.join(changed)} has changed since. "
                f"Prepare the same data again, or choose another --workdir."
            )
        if not path.exists():
            write_atomically(path, json.dumps(data, indent=2) + "\n")

    def _checkpoint_manager(self):
        import orbax.checkpoint as ocp  # takes half a second, which readers of runs do not need

        folder = self.folder / "checkpoints"
        folder.mkdir(exist_ok=True)
        return ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(
                create=False,
                preservation_policy=self,
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=0, active_processes={0}, barrier_sync_key_prefix="run"
                ),
            ),
        )

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Tell orbax which checkpoints to keep: the newest two, and the best by config.select.

        Scores come from metrics.jsonl alone, so that this is the best of all readers.
        """
        steps = [checkpoint.step for checkpoint in checkpoints]
        best = self._stored.best(steps=steps)
        kept = {*steps[-2:], *(best or ())[:1]}
        return [step in kept for step in steps]

    def restore(self, state):
        """Return (state, sums) of the newest checkpoint, or (state, {}) if there is none.

        A checkpoint that cannot be read, although one before it can, is damaged: it is moved to
        the folder "damaged", and the one before it is taken.

        Args:
            state: a pytree of arrays like the saved one.

        Raises:
            InputError: none of the checkpoints can be read, or they hold another kind of state.
        """
        errors: dict[int, InputError] = {}
        for step in sorted(self._checkpoints.all_steps(), reverse=True):
            try:
                state, sums = _restore(self._checkpoints, step, state)
            except InputError as error:
                errors[step] = error
                continue
            self._set_aside(errors, step)
            self._rows = int(sums.pop(ROWS, 0))
            return state, sums
        if errors:
            raise next(iter(errors.values()))
        return state, {}

    def _set_aside(self, steps: Collection[int], good: int) -> None:
        """Move damaged checkpoints out of the way."""
        for step in steps:
            place = self.folder / "damaged" / f"{step}.{uuid.uuid4().hex[:8]}"
            place.parent.mkdir(exist_ok=True)
            os.replace(self.folder / "checkpoints" / str(step), place)
            print(
                f"The checkpoint of step {step:,} is damaged; it was moved to {place}. Training "
                f"continues from that of step {good:,}.",
                flush=True,
            )
        if steps:
            self._checkpoints.reload()

    def start(self, step: int) -> None:
        """Begin a session at a step. Rows beyond it are dropped: they will be written again.

        Raises:
            InputError: rows are missing that were written before the checkpoint of this step.
        """
        stored, path = read(self.folder), self.folder / "metrics.jsonl"
        rows = [row for row in stored.rows if row.step <= step]
        if len(rows) < self._rows:
            raise InputError(
                f"{path} has {len(rows)} of {self._rows} rows up to step {step:,}. Put the whole "
                f"file back, or choose another --workdir."
            )
        diverged = {lane: d for lane, d in stored.diverged.items() if d.step <= step}
        self._stored = dataclasses.replace(stored, rows=[], diverged=diverged)
        self._write_diverged()
        self._writers, self._rows = self._tensorboard(), 0
        write_rows(path, [row.row for row in rows])
        self._file = path.open("a")
        for row in rows:
            self._note(row)
        sessions = self.folder / "sessions.jsonl"
        write_rows(sessions, [*stored.sessions, provenance(step)])

    def _tensorboard(self) -> dict[Lane, Any]:
        events = self.folder / "events"
        shutil.rmtree(events, ignore_errors=True)
        try:
            from tensorboard.summary import Writer
        except ImportError:
            print("No tensorboard here: metrics.jsonl is written, events/ is not.", flush=True)
            return {}
        return {lane: Writer(str(events / "seed={},lr={:g}".format(*lane))) for lane in self.lanes}

    def _note(self, row: Reading) -> None:
        """Keep what is needed of a row that is in metrics.jsonl."""
        self._rows += 1
        if row.split == self._stored.config["select"]["split"]:
            self._stored.rows.append(row)
        if writer := self._writers.get(row.lane):
            for name, value in row.values.items():
                writer.add_scalar(f"{row.split}/{name}", value, row.step)

    def write(self, step: int, epoch: float | None, split: str, metrics: Mapping) -> None:
        """Append a row for each lane that has not diverged.

        Args:
            metrics: name -> one number for each lane.
        """
        assert self._file is not None, "start() comes before write()"
        for n, lane in enumerate(self.lanes):
            if lane not in self._stored.diverged:
                values = {name: float(column[n]) for name, column in metrics.items()}
                row = Reading(*lane, step, epoch, split, values)
                self._file.write(to_line(row.row))
                self._note(row)
        self._file.flush()

    def diverge(self, lane: int, divergence: Divergence) -> None:
        """Note that a lane has diverged, before a checkpoint can contain it."""
        self._stored.diverged[self.lanes[lane]] = divergence
        self._write_diverged()

    def _write_diverged(self) -> None:
        rows = [
            dict(step=step, seed=seed, lr=lr, cause=cause)
            for (seed, lr), (step, cause) in self._stored.diverged.items()
        ]
        path = _diverged_path(self.folder)
        write_rows(path, rows) if rows else path.unlink(missing_ok=True)

    @property
    def diverged(self) -> set[int]:
        """Return the numbers of the lanes that have diverged."""
        return {n for n, lane in enumerate(self.lanes) if lane in self._stored.diverged}

    def save(self, step: int, state, sums: dict[str, np.ndarray]) -> None:
        """Write a checkpoint in the background: the state, and sums since the last row."""
        import orbax.checkpoint as ocp

        # A copy, since the trainer gives the memory of the state to the next step.
        copy = jax.tree.map(np.array, flax.serialization.to_state_dict(state))
        listed = {name: values.tolist() for name, values in sums.items()}
        assert self._file is not None, "start() comes before save()"
        os.fsync(self._file.fileno())  # no checkpoint may outlive the rows before it
        with _storing():
            self._checkpoints.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(copy),
                    sums=ocp.args.JsonSave(listed | {ROWS: self._rows}),
                ),
                force=True,
            )

    def newest(self) -> int | None:
        """Return the step of the newest checkpoint, once it is wholly written."""
        self._wait()
        return self._checkpoints.latest_step()

    def kept(self) -> str:
        """Return in words what is left if training fails."""
        step = self.newest()
        kept = "no checkpoint was made yet" if step is None else f"checkpoint {step:,} is kept"
        return f"{kept} in {self.folder}"

    def finish(self, step: int) -> None:
        """Mark the run as finished, once its last checkpoint is wholly written."""
        self._wait()
        done = dict(step=step, time=now())
        write_atomically(self.folder / "finished.json", json.dumps(done) + "\n")

    def _wait(self) -> None:
        with _storing():
            self._checkpoints.wait_until_finished()

    def close(self) -> None:
        """Let go of everything, even if some of it can no longer be written."""
        with contextlib.ExitStack() as stack:  # from the last to the first
            stack.callback(self._lock.release)
            for writer in self._writers.values():
                stack.callback(writer.close)
            if self._file:
                stack.callback(self._file.close)
            stack.callback(self._checkpoints.close)
            stack.callback(self._wait)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Elsewhere:
    """A run whose folder another process writes: this process has nothing to do."""

    data_seed = 0  # process 0 knows it
    diverged: frozenset[int] = frozenset()

    def __init__(self, folder: Path | str, lanes: list[Lane]):
        self.folder, self.lanes = Path(folder).absolute(), lanes

    def restore(self, state):
        return state, {}

    def kept(self) -> str:
        return "process 0 prints what is kept"

    def nothing(self, *_) -> None:
        pass

    start = write = diverge = save = finish = __exit__ = nothing

    def __enter__(self):
        return self


def open_run(folder: Path | str, config, lanes, data=None) -> Run | Elsewhere:
    """Return a run to train, as `Run`: only the first process writes its folder."""
    if jax.process_index():
        return Elsewhere(folder, lanes)
    return Run(folder, config, lanes, data)
