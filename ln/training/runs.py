"""A run on disk: one folder, one config, and nothing in it that a killed process could spoil.

config.json     the config, whole; a folder belongs to one config for ever
sessions.jsonl  one line per start: command, versions, device, commit, first step
metrics.jsonl   one line per lane, step and split: the source of every figure and table
events/         the same numbers for TensorBoard, made anew from metrics.jsonl at each start
dead.jsonl      one line per lane that did not stay finite: after which step, and why
checkpoints/    the newest two and the best (orbax); damaged/ has those that could not be read
data.json       digests of the data sets
finished.json   there once the last step is done
"""

from collections.abc import Callable, Collection, Iterator, Mapping
import contextlib
import dataclasses
import datetime
import importlib.metadata
import itertools
import json
import math
import os
from pathlib import Path
import platform
import re
import reprlib
import shlex
import shutil
import subprocess
import sys
from types import MappingProxyType
from typing import Any, NamedTuple, TextIO
import uuid

import filelock
import flax.serialization
import jax
from ml_collections import ConfigDict
import numpy as np

from ln.errors import BusyError, InputError, choose

Row = dict[str, Any]
Lane = tuple[int, float]  # seed, learning rate
Check = Callable[[Any], bool]
NO_KEYS: Mapping[str, Check] = MappingProxyType({})
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
# Defaults that have changed, key -> (before, now). A run that was made before keeps its value if
# the command that resumes it leaves the key at its default.
CHANGED_DEFAULTS = dict(data_seed=(0, -1))


def is_former(config: Mapping) -> bool:
    """Return whether a stored config was written before CHANGED_DEFAULTS changed."""
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


def as_json(config) -> dict:
    """The config as plain JSON data (tuples become lists)."""
    return json.loads(config.to_json())


def differences(old: Mapping, new: Mapping, prefix: str = "") -> list[str]:
    """Names what differs between two configs, one string like "lr: 0.1 -> 0.2" per key."""
    found = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key, "(none)"), new.get(key, "(none)")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {json.dumps(a)} -> {json.dumps(b)}")
    return found


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


# --- Reading: files may be damaged, or written by anybody ---


def _is_text(value) -> bool:
    return isinstance(value, str)


def _is_count(value) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value) -> bool:  # nor a bool, NaN, or more than a float can hold
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_metric(value) -> bool:  # earlier versions wrote NaN
    return value is None or type(value) is float or _is_number(value)


def _are(check: Check) -> Check:
    return lambda values: isinstance(values, list) and all(map(check, values))


def _is_select(value) -> bool:
    names = ("split", "metric", "mode")
    return (
        isinstance(value, dict)
        and all(_is_text(value.get(name)) for name in names)
        and (value["mode"] in SIGNS)
    )


REST = ""  # stands for all keys that are not named
CONFIG: dict[str, Check] = dict(
    experiment=_is_text,
    seeds=_are(_is_count),
    lr=_are(_is_number),
    steps=lambda value: _is_text(value) or _is_number(value),
    select=_is_select,
)
LANE: dict[str, Check] = dict(step=_is_count, seed=_is_count, lr=_is_number)
READING: dict[str, Check] = LANE | {
    "epoch": lambda value: value is None or _is_number(value),
    "split": _is_text,
    REST: _is_metric,
}
DIVERGENCE: dict[str, Check] = LANE | dict(cause=_is_text)
EVALUATION: dict[str, Check] = LANE | dict(split=_is_text, metric=_is_text, value=_is_metric)
SESSION: dict[str, Check] = dict(
    step=_is_count, command=_is_text, versions=lambda value: isinstance(value, dict)
)
RESTORE = "Restore the file, or move the folder away."


def _parse(text: str, keys: Mapping[str, Check]) -> dict:
    """Return a JSON object.

    Raises:
        ValueError: it is none, or a value is missing or invalid.
    """
    try:
        record = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    for key in {*keys, *record} - {REST}:
        if not keys.get(key, keys.get(REST, lambda value: True))(record.get(key)):
            value = reprlib.repr(record[key]) if key in record else "missing"
            raise ValueError(f"{key} is {value}")
    return record


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). {RESTORE}") from error


def _read_object(path: Path, remedy: str, keys: Mapping[str, Check] = NO_KEYS) -> dict:
    """Return the contents of a JSON file.

    Raises:
        InputError: they are not an object with these keys; ends in the remedy.
    """
    try:
        return _parse(_text(path), keys)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). {remedy}") from error


def read_rows(path: Path, keys: Mapping[str, Check] = NO_KEYS) -> list[Row]:
    """Return the rows of a JSON-lines file, without a last line that was left half-written.

    Raises:
        InputError: a line is not a JSON object with these keys.
    """
    lines = _text(path).splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_parse(line, keys))
        except ValueError as error:
            half_written = isinstance(error, json.JSONDecodeError) and number == len(lines)
            if not half_written:
                message = f"{path} line {number} is damaged ({error}). {RESTORE}"
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
        return list(itertools.product(self.config["seeds"], map(float, self.config["lr"])))

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


def _stored_config(folder: Path) -> dict:
    path = Path(folder) / "config.json"
    if not path.exists():
        raise InputError(f"{folder} is no run folder: there is no {path}.")
    return _read_object(path, "Put a copy of it back, or move the folder away.", CONFIG)


def _readings(folder: Path, select: Mapping[str, str]) -> list[Reading]:
    path, readings = folder / "metrics.jsonl", []
    for number, row in enumerate(read_rows(path, READING), start=1):
        values = {
            name: math.nan if value is None else float(value)
            for name, value in row.items()
            if name not in READING
        }
        if row["split"] == select["split"] and select["metric"] not in values:
            raise InputError(
                f"{path} line {number} is damaged ({select['metric']} is missing). {RESTORE}"
            )
        lane = row["seed"], float(row["lr"])
        readings.append(Reading(*lane, row["step"], row.get("epoch"), row["split"], values))
    return readings


def _diverged_path(folder: Path) -> Path:
    path = folder / "diverged.jsonl"
    return path if path.exists() else folder / "dead.jsonl"  # its name in earlier versions


def _diverged(folder: Path) -> dict[Lane, Divergence]:
    return {
        (row["seed"], float(row["lr"])): Divergence(row["step"], row["cause"])
        for row in read_rows(_diverged_path(folder), DIVERGENCE)
    }


def read(folder: Path | str) -> Stored:
    """Return a run, finished or not.

    Raises:
        InputError: the folder is not a run, or a file is damaged.
    """
    folder = Path(folder)
    config = modernize(_stored_config(folder))
    evaluations = read_rows(folder / "evaluations.jsonl", EVALUATION)
    for row in evaluations:
        row["value"] = math.nan if row["value"] is None else row["value"]
    return Stored(
        folder=folder,
        config=config,
        rows=_readings(folder, config["select"]),
        sessions=read_rows(folder / "sessions.jsonl", SESSION),
        evaluations=evaluations,
        diverged=_diverged(folder),
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


def read_dead(folder: Path) -> dict[tuple[int, float], Row]:
    """Use `read(folder).diverged`. To be removed."""
    return {
        (seed, lr): dict(seed=seed, lr=lr, **divergence._asdict())
        for (seed, lr), divergence in _diverged(Path(folder)).items()
    }


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """The git commit of the code that runs, "+" behind it where files differ from it."""

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
    """What a number may depend on besides the config."""
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
    """What made something, from the state at a step: time, command, and the environment."""
    return dict(time=now(), command=shlex.join(sys.orig_argv[1:]), step=step, **environment())


def read_checkpoint(folder: Path | str, which: str, state):
    """Returns the state of a checkpoint; changes nothing, so that the run may be training.

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
    for path in _damaged_scores(checkpoints):
        raise InputError(f"{path} is damaged. The command that trains this run makes it anew.")
    options = ocp.CheckpointManagerOptions(create=False)
    with ocp.CheckpointManager(checkpoints, options=options) as manager:
        step = _step(Path(folder), which, list(manager.all_steps()))
        return _restore(manager, step, state)[0]


def _step(folder: Path, which: str, saved: list[int]) -> int:
    """The one of the saved steps that `which` means, as in `read_checkpoint`."""
    if not saved:
        raise InputError(f"{folder} has no checkpoints yet.")
    best = _best(folder, saved)
    if which == "best" and best is None:
        raise InputError(f"None of the checkpoints in {folder} was evaluated: take the newest.")
    named = {"best": best, "newest": max(saved)}
    return choose(f"checkpoint of {folder}", which, named | {str(step): step for step in saved})


def _best(folder: Path, steps: list[int]) -> int | None:
    """Return the best of the steps by config.select; None if none has a finite score."""
    best = read(folder).best(steps=steps)
    return best and best[0]


def _scores(folder: Path) -> dict[int, float]:
    return read(folder).scores()


def _damaged_scores(checkpoints: Path) -> Iterator[Path]:
    """The scores beside checkpoints that cannot be read; with one of them orbax opens none."""
    for path in checkpoints.glob("[0-9]*/metrics/metrics"):
        try:
            json.loads(path.read_text())
        except ValueError:
            yield path


def _as_metrics(score: float | None) -> dict[str, float]:
    """A score as orbax keeps it beside a checkpoint."""
    return {} if score is None else {"select": score}


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    """Turns what orbax's storage says of the disk, perhaps of the save before, into an OSError."""
    try:
        yield
    except ValueError as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def _restore(manager, step: int, state):
    """Returns (state, sums) of a checkpoint; `Run.restore` says the rest."""
    import orbax.checkpoint as ocp

    like = flax.serialization.to_state_dict(jax.device_get(state))
    try:
        saved = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like), sums=ocp.args.JsonRestore()
            ),
        )
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"The checkpoint of step {step} in {manager.directory} does not fit this code "
            f"({str(error).splitlines()[0]}). Use the commit in sessions.jsonl, or choose another "
            f"--workdir."
        ) from error
    sums = {name: np.array(values) for name, values in saved["sums"].items()}
    return jax.device_put(flax.serialization.from_state_dict(state, saved["state"])), sums


def _copy(state):
    """A copy, since the trainer gives the state's own memory to the next step."""
    return jax.tree.map(np.array, flax.serialization.to_state_dict(state))


class Run:
    """A run folder opened for writing, by this process alone.

    Args:
        folder: made if it is not there.
        config: a ConfigDict.
        lanes: the (seed, learning rate) of each lane.
        data: digests of the data sets that it learns from, by name.

    Raises:
        InputError: the folder belongs to another config, other data, or holds something else.
        BusyError: another process is writing to it.
    """

    def __init__(
        self,
        folder: Path | str,
        config,
        lanes: list[tuple[int, float]],
        data: Mapping[str, str] | None = None,
    ):
        self.folder = Path(folder).absolute()  # orbax wants an absolute path
        self.lanes = lanes
        wanted = as_json(config)
        modes = {"min": True, "max": False}
        self._less_is_better = choose("config.select.mode", wanted["select"]["mode"], modes)
        self._metrics, self._dead = self.folder / "metrics.jsonl", self.folder / "dead.jsonl"
        self._claim()
        try:
            self._check_config(wanted)
            self._check_data(dict(data or {}))
            self._mend_scores()
            self._checkpoints = self._checkpoint_manager()
        except BaseException:
            self._lock.release()
            raise
        self._file: TextIO | None = None
        self._writers: list = []
        self._good: Any = None  # the state last saved or restored, by which dead lanes stay

    def _claim(self) -> None:
        path = self.folder / "config.json"
        others = self.folder.exists() and {p.name for p in self.folder.iterdir()}
        if others and not path.exists() and others - {"config.json.tmp", "lock"}:
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
            known, config = modernize(stored), dict(config)
            for key, (before, now) in CHANGED_DEFAULTS.items():
                if is_former(stored) and (known[key], config.get(key)) == (before, now):
                    config[key] = before
                    print(
                        f"{self.folder} is of an earlier version: it keeps config.{key}={before}.",
                        flush=True,
                    )
            aside = (*PLACES, LENGTH)
            changes = differences(
                {k: v for k, v in known.items() if k not in aside},
                {k: v for k, v in config.items() if k not in aside},
            )
            if changes:
                raise InputError(
                    f"{self.folder} was made by another config ({'; '.join(changes)}). "
                    f"Choose another --workdir, or give the same settings to resume."
                )
        self.data_seed: int = known.get("data_seed", -1)
        if not path.exists() or known.get(LENGTH) != config[LENGTH]:
            (self.folder / "finished.json").unlink(missing_ok=True)
            stored = stored | {LENGTH: config[LENGTH]}  # under the names that it was written with
            write_atomically(path, json.dumps(stored, indent=2) + "\n")

    def _check_data(self, data: dict[str, str]) -> None:
        path = self.folder / "data.json"
        remedy = "Delete it if the data are the same still, or choose another --workdir."
        known = _read_object(path, remedy) if path.exists() else data
        if changed := [name for name, digest in data.items() if known.get(name, digest) != digest]:
            raise InputError(
                f"{self.folder} was made with other data: {', '.join(changed)} has changed since. "
                f"Prepare the same data again, or choose another --workdir."
            )
        if not path.exists():
            write_atomically(path, json.dumps(data, indent=2) + "\n")

    def _mend_scores(self) -> None:
        """Makes damaged scores anew from the rows."""
        for path in _damaged_scores(self.folder / "checkpoints"):
            scores = {str(step): score for step, score in _scores(self.folder).items()}
            write_atomically(path, json.dumps(_as_metrics(scores.get(path.parts[-3]))))
            print(f"{path} was damaged; it was made anew from metrics.jsonl.", flush=True)

    def _checkpoint_manager(self):
        import orbax.checkpoint as ocp  # half a second that a reader of runs does not need

        policies = ocp.checkpoint_managers
        worst = math.inf if self._less_is_better else -math.inf

        def score(metrics):
            return metrics.get("select", worst)

        best = policies.BestN(
            n=1,
            get_metric_fn=score,
            reverse=self._less_is_better,
            keep_checkpoints_without_metrics=False,
        )
        folder = self.folder / "checkpoints"
        folder.mkdir(exist_ok=True)
        return ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(
                create=False,
                preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(2), best]),
                best_fn=score,  # without it no score is written, and later sessions know none
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=0, active_processes={0}, barrier_sync_key_prefix="run"
                ),
            ),
        )

    def restore(self, state):
        """Returns (state, sums) of the newest checkpoint, or (state, {}) where there is none.

        A checkpoint that cannot be read, where one before it can, is damaged: it is moved to the
        folder "damaged", with a line that says so, and the one before it is taken.

        Args:
            state: a pytree of arrays like the saved one.

        Raises:
            InputError: none of the checkpoints can be read, or they hold another kind of state.
        """
        found = self._newest_readable(state)
        if len(self.lanes) > 1:
            self._good = _copy(found[0])
        return found

    def _newest_readable(self, state):
        steps, broken = sorted(self._checkpoints.all_steps(), reverse=True), []
        for step in steps:
            try:
                found = _restore(self._checkpoints, step, state)
            except InputError as error:
                broken.append((step, error))
                continue
            self._set_aside([step for step, _ in broken], step)
            return found
        if broken:
            raise broken[0][1]
        return state, {}

    def _set_aside(self, steps: list[int], good: int) -> None:
        """Moves damaged checkpoints out of the way."""
        for step in steps:
            place = self.folder / "damaged" / f"{step}.{uuid.uuid4().hex[:8]}"
            place.parent.mkdir(exist_ok=True)
            os.replace(self.folder / "checkpoints" / str(step), place)
            print(
                f"The checkpoint of step {step:,} is damaged; it was moved to {place}. Going on "
                f"from that of step {good:,}.",
                flush=True,
            )
        if steps:
            self._checkpoints.reload()

    def save(
        self,
        step: int,
        state,
        sums: dict[str, np.ndarray],
        score: float | None,
        dead: Collection[int] = (),
    ) -> None:
        """Writes a checkpoint in the background: the state, and what was summed since the last row.

        Args:
            state: a pytree of arrays; where there are dead lanes, ``[lanes, ...]``.
            dead: lanes whose state is to stay that of the checkpoint before.
            score: value of config.select at this step, by which the best one is kept; None where
                the step was not evaluated.
        """
        import orbax.checkpoint as ocp

        copy = _copy(state)
        for n in dead:
            jax.tree.map(lambda new, old, n=n: new.__setitem__(n, old[n]), copy, self._good)
        if len(self.lanes) > 1:
            self._good = copy
        with _storing():
            self._checkpoints.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(copy),
                    sums=ocp.args.JsonSave({name: x.tolist() for name, x in sums.items()}),
                ),
                metrics=_as_metrics(score),
                force=True,
            )

    def start(self, step: int) -> None:
        """Begins a session at a step: rows beyond it are dropped, since they will come again."""
        kept, dead = (
            [row for row in read_rows(path) if row["step"] <= step]
            for path in (self._metrics, self._dead)
        )
        write_rows(self._metrics, kept)
        if self._dead.exists():
            write_rows(self._dead, dead)
        self._file = self._metrics.open("a")
        self._writers = self._tensorboard()
        for row in kept:
            self._to_tensorboard(row)
        sessions = self.folder / "sessions.jsonl"
        write_rows(sessions, [*read_rows(sessions), provenance(step)])

    def _tensorboard(self) -> list:
        events = self.folder / "events"
        shutil.rmtree(events, ignore_errors=True)
        try:
            from tensorboard.summary import Writer
        except ImportError:
            print("No tensorboard here: metrics.jsonl is written, events/ is not.", flush=True)
            return []
        return [Writer(str(events / f"seed={seed},lr={lr:g}")) for seed, lr in self.lanes]

    def _to_tensorboard(self, row: Row) -> None:
        if self._writers:
            writer = self._writers[self.lanes.index((row["seed"], row["lr"]))]
            for name, value in row.items():
                if name not in ("step", "epoch", "split", "seed", "lr"):
                    writer.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def write(
        self,
        step: int,
        epoch: float | None,
        split: str,
        metrics: dict,
        dead: Collection[int] = (),
    ) -> None:
        """Appends one row per lane that is not dead; every value of metrics holds one number per
        lane."""
        file = self._file
        assert file is not None, "start() comes before write()"
        for n, (seed, lr) in enumerate(self.lanes):
            if n in dead:
                continue
            row = dict(step=step, epoch=epoch, split=split, seed=seed, lr=lr)
            row |= {name: float(values[n]) for name, values in metrics.items()}
            file.write(to_line(row))
            self._to_tensorboard(row)
        file.flush()  # on its way to disk before a checkpoint of this step can exist

    def bury(self, lane: int, step: int, cause: str) -> None:
        """Notes that a lane is dead, before a checkpoint can say so."""
        seed, lr = self.lanes[lane]
        row = dict(step=step, seed=seed, lr=lr, cause=cause)
        write_rows(self._dead, [*read_rows(self._dead), row])

    def buried(self) -> set[int]:
        """The lanes that are noted as dead."""
        return {self.lanes.index(lane) for lane in read_dead(self.folder)}

    def newest(self) -> int | None:
        """The step of the newest checkpoint, once it is wholly written."""
        self._wait()
        return self._checkpoints.latest_step()

    def kept(self) -> str:
        """What is left when training fails, in words."""
        step = self.newest()
        kept = "no checkpoint was made yet" if step is None else f"checkpoint {step:,} is kept"
        return f"{kept} in {self.folder}"

    def finish(self, step: int) -> None:
        """Marks the run as finished, once its last checkpoint is wholly written."""
        self._wait()
        done = dict(step=step, time=now())
        write_atomically(self.folder / "finished.json", json.dumps(done) + "\n")

    def _wait(self) -> None:
        with _storing():
            self._checkpoints.wait_until_finished()

    def close(self) -> None:
        """Lets go of everything, also where some of it can no longer be written."""
        with contextlib.ExitStack() as stack:  # from the last to the first
            stack.callback(self._lock.release)
            for writer in self._writers:
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
    """A run whose folder another process writes: in this one there is nothing to do."""

    data_seed = 0  # process 0 knows it

    def __init__(self, folder: Path | str, lanes: list[tuple[int, float]]):
        self.folder, self.lanes = Path(folder).absolute(), lanes

    def restore(self, state):
        return state, {}

    def buried(self) -> set[int]:
        return set()

    def kept(self) -> str:
        return "process 0 says what is kept"

    def nothing(self, *_) -> None:
        pass

    start = write = bury = save = finish = __exit__ = nothing

    def __enter__(self):
        return self


def open_run(folder: Path | str, config, lanes, data=None) -> Run | Elsewhere:
    """A run to train, as `Run`: the first process writes its folder, the others leave it alone."""
    if jax.process_index():
        return Elsewhere(folder, lanes)
    return Run(folder, config, lanes, data)
