"""A run on disk: one folder, one config, and no file that a killed process can damage.

config.json     the config; a folder belongs to one config for ever
sessions.jsonl  one line per start: command, versions, device, commit, first step
metrics.jsonl   one line per lane, step and split: the source of every figure and table
events/, wandb/ the same numbers for other tools (config.writers), written anew at each start
calls.json      how many steps a call has, if that was measured: on an accelerator
diverged.jsonl  one line per lane that did not stay finite: after which step, and why
checkpoints/    the newest two and the best (orbax); damaged/ has those that could not be read
data.json       digests of the data sets
finished.json   exists once the last step is done
"""

from collections.abc import Callable, Collection, Iterator, Mapping
import contextlib
import dataclasses
import importlib
import itertools
import json
import math
import operator
import os
from pathlib import Path
import re
from typing import Any, NamedTuple, TextIO
import uuid

import filelock
from flax.traverse_util import flatten_dict
import jax
from ml_collections import ConfigDict
import numpy as np

from ln.errors import BusyError, InputError, choose
from ln.training import checkpoints, files, ranges, writers
from ln.training.files import Row, append_rows, read_rows, to_line, write_atomically, write_rows
from ln.training.origin import arithmetic, commit, environment, machine, now, provenance

__all__ = ["append_rows", "commit", "environment"]  # of files.py and origin.py

Lane = tuple[int, float]  # seed, learning rate

SIGNS = {"min": 1, "max": -1}  # config.select.mode -> sign of a score of which less is better
PLACES = ("data_dir", "writers")  # keys that name a place, not what is computed
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
    (None, dict(precision="default", writers=["tensorboard"])),
    ((ORDER,), dict(buckets=1)),
    ((READER,), dict(clip_root=0.0)),
    (("draw", "handwriting"), dict(init_std=0.0)),
)

# A key that earlier runs of an experiment have, and the only value that its model still knows.
FORMER = {
    READER: ("bidirectional", False),
    "draw": ("attention", True),
    "handwriting": ("text", True),
    ORDER: ("symmetric", False),
    SKIP: ("conditioning", "start"),
}


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
    key, value = FORMER.get(str(experiment), ("", None))
    if config.pop(key, value) != value:
        raise InputError(f"This version has no model with another config.{key} than {value!r}.")
    return config


def with_norm(config: dict, norm: str | None) -> dict:
    """Return a config whose table of norms has this norm alone: a run depends on no other."""
    norms = config.get("norms", {})
    return config | {"norms": {norm: norms[norm]} if norm in norms else {}}


def check(config: Mapping) -> None:
    """Raise InputError if a run cannot be chosen from, or written, as the config says."""
    choose("config.select.mode", config["select"]["mode"], SIGNS)
    for name in config.get("writers", ()):
        choose("config.writers", name, writers.WRITERS)


def as_json(config) -> dict:
    """Return the config as plain JSON data (tuples become lists)."""
    return json.loads(config.to_json())


def differences(old: Mapping, new: Mapping) -> list[str]:
    """Return one string like "lr: 0.1 -> 0.2" for each key that differs between two configs."""
    # Flat, so that a change within config.norms is one line and not two tables.
    before, after = flatten_dict(dict(old), sep="."), flatten_dict(dict(new), sep=".")
    pairs = {key: (before.get(key, "(none)"), after.get(key, "(none)")) for key in before | after}
    changed = sorted(key for key, (a, b) in pairs.items() if a != b)
    return [f"{key}: {' -> '.join(map(json.dumps, pairs[key]))}" for key in changed]


# --- Reading ---


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
        # Without the diverged lanes, of which some steps have no reading: a mean over other lanes
        # at every step could not be compared.
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


def _session(row: Row) -> Row:
    objects = {
        name: dict(row[name]) for name in ("versions", "arithmetic", "tuning") if name in row
    }
    return row | dict(command=str(row["command"]), versions=row["versions"]) | objects


def _lanes(config: Mapping) -> list[Lane]:
    return list(itertools.product(map(operator.index, config["seeds"]), map(float, config["lr"])))


def _checked(config: dict) -> dict:
    """Return a config that has what every reader needs; raises one of MALFORMED if not."""
    ranges.check_types(config)
    _lanes(config), float(str(config["steps"]).partition(" ")[0]), SIGNS[config["select"]["mode"]]
    return config


# A checkpoint depends on these files. Sessions append to them, and start() cuts them at a step.
FILES = ("metrics.jsonl", "diverged.jsonl", "dead.jsonl", "sessions.jsonl", "data.json")


def _diverged_path(folder: Path) -> Path:
    former = folder / "dead.jsonl"
    return former if former.exists() else folder / "diverged.jsonl"


def _read_config(folder: Path, make: Callable[[dict], Any] = dict) -> Any:
    path = folder / "config.json"
    if not path.exists():
        raise InputError(f"{folder} is no run folder: there is no {path}.")
    remedy = "Put a copy of it back, or move the folder away."
    return files.read_object(path, remedy, lambda config: make(_checked(config)))


def read(folder: Path | str) -> Stored:
    """Return a run, finished or not.

    Raises:
        InputError: the folder is not a run, or a file is damaged.
    """

    def reading(row):
        return Reading.from_row(row, config["select"])

    def evaluation(row):
        value = math.nan if row["value"] is None else float(row["value"])
        seed, lr = _lane(row)
        texts = {name: str(row[name]) for name in ("split", "metric")}
        return row | texts | dict(seed=seed, lr=lr, step=operator.index(row["step"]), value=value)

    def diverged(row):
        return _lane(row), Divergence(operator.index(row["step"]), str(row["cause"]))

    folder = Path(folder)
    config = _read_config(folder, modernize)
    return Stored(
        folder=folder,
        config=config,
        rows=read_rows(folder / "metrics.jsonl", reading),
        sessions=read_rows(folder / "sessions.jsonl", _session),
        evaluations=read_rows(folder / "evaluations.jsonl", evaluation),
        diverged=dict(read_rows(_diverged_path(folder), diverged)),
        finished=is_finished(folder),
    )


def load(folder: Path | str) -> tuple[dict, list[Row]]:
    """Return the config and the metrics of a run, finished or not, as dictionaries.

    Raises:
        InputError: the folder is not a run, or a file is damaged.
    """
    stored = read(folder)
    return stored.config, [reading.row for reading in stored.rows]


def read_config(folder: Path | str) -> ConfigDict:
    """Return the config of a run.

    Raises:
        InputError: the folder is not a run, or the config is damaged.
    """
    return _read_config(Path(folder), as_config)


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


def continued(folder: Path, wanted: dict, place: str = "--workdir") -> dict:
    """Return the stored config of a run that may be continued with another one.

    Args:
        folder: the run folder.
        wanted: the other config, which may have another length and other places.
        place: the flag that chooses another folder.

    Raises:
        InputError: the run was made by another config.
    """
    stored = _read_config(folder)
    known, config = modernize(stored), modernize(wanted)
    defaults = known.get("data_seed"), config.get("data_seed")
    if is_former(stored) and defaults == (0, -1):  # before and now
        config = config | dict(data_seed=0)
    # A new norm in the config file is no other config for a run that does not use it.
    known, config = (with_norm(c, known.get("norm")) for c in (known, config))
    aside = dict.fromkeys((*PLACES, LENGTH))
    if changes := differences(known | aside, config | aside):
        raise InputError(
            f"{folder} was made by another config ({'; '.join(changes)}). "
            f"Choose another {place}, or give the same settings to resume."
        )
    return stored


def is_finished(folder: Path | str) -> bool:
    return (Path(folder) / "finished.json").exists()


def check_arithmetic(folder: Path, sessions: list[Row]) -> None:
    """Raise InputError if jax now computes in another way than in the sessions of a run."""
    now = arithmetic()
    for session in sessions:
        if changes := differences(session.get("arithmetic", now), now):
            raise InputError(
                f"{folder} was made with another arithmetic of jax ({'; '.join(changes)}). "
                f"Set it as before, or choose another --workdir."
            )


# --- Tables ---


def table(root: Path | str):
    """Return the metrics of all runs under a folder as a tidy pandas frame, one value a row.

    The columns are run, experiment, norm, seed, lr, step, epoch, split, metric and value. Broken
    runs are named and left out.
    """
    return _frame(root, lambda stored: stored.rows)


def results(root: Path | str):
    """Return the final results of all runs under a folder as a pandas frame, one metric a row.

    Every lane counts at its best step by config.select, and lanes that have diverged are left out.
    The columns seeds, mean and std are the number, mean and standard deviation of its values.
    """

    def at_best(stored: Stored) -> list[Reading]:
        best = {n: stored.best([n]) for n in stored.lanes if n not in stored.diverged}
        steps = {(lane, at[0]) for lane, at in best.items() if at}
        return [r for r in stored.rows if (r.lane, r.step) in steps and r.split != "update"]

    keys = "run experiment norm lr split metric".split()
    values = _frame(root, at_best).groupby(keys, sort=False, dropna=False)["value"]
    return values.agg(seeds="count", mean="mean", std="std").reset_index()


def _frame(root: Path | str, rows_of: Callable[[Stored], list[Reading]]):
    try:
        pandas = importlib.import_module("pandas")  # takes half a second
    except ImportError as error:
        raise InputError(
            f'Tables need pandas ({error}): pip install "layer-normalization-jax[tables]".'
        ) from error
    rows = []
    for folder in find(Path(root)):
        try:
            stored = read(folder)
        except InputError as error:
            print(f"Skipped a broken run: {error}")
            continue
        run, config = folder.relative_to(root).as_posix(), stored.config
        for *place, values in rows_of(stored):
            known = run, config["experiment"], config.get("norm"), *place
            rows += [(*known, *value) for value in values.items()]
    columns = "run experiment norm seed lr step epoch split metric value".split()
    return pandas.DataFrame(rows, columns=columns)


# --- Checkpoints ---


def read_checkpoint(folder: Path | str, which: str, state):
    """Return the state of a checkpoint, without a change to the folder: the run may be training.

    Args:
        folder: the run folder.
        which: "newest", "best" by the run's config.select, or a step.
        state: a pytree of arrays like the saved one.

    Raises:
        InputError: there is no such checkpoint, it holds another kind of state, or is damaged.
    """
    place = Path(folder).absolute() / "checkpoints"
    if not place.is_dir():
        raise InputError(f"{folder} has no checkpoints yet.")
    with checkpoints.manager(place) as manager:
        step = _step(Path(folder), which, list(manager.all_steps()))
        return checkpoints.restore(manager, step, state).state


def _step(folder: Path, which: str, saved: list[int]) -> int:
    """Return which of the saved steps is meant, as in `read_checkpoint`."""
    if not saved:
        raise InputError(f"{folder} has no checkpoints yet.")
    best = read(folder).best(steps=saved)
    if which == "best" and best is None:
        raise InputError(f"No checkpoint of {folder} has a score: take the newest.")
    # All are texts, as a flag gives them, and `choose` suggests the nearest.
    steps = {"best": best and best[0], "newest": max(saved)} | {str(step): step for step in saved}
    return choose(f"checkpoint of {folder}", which, steps)


# A run survives kill -9 and power failures by this protocol:
#
#     write     rows are appended to metrics.jsonl and flushed: a kill can cut the last line only
#     diverge   a lane that is not finite is noted, before a checkpoint can contain it
#     save      1. wait until the checkpoint before is committed, and sync its files
#               2. sync the logs and their folder, and measure them: bytes, rows, digest (`Extent`)
#               3. write state, sums and extents; orbax commits them by renaming a folder
#     restore   from the newest checkpoint to the oldest: read it, verify its digest, and compare
#               the logs with its extents; take the first that passes, move newer ones to damaged/
#     start     drop all rows beyond its step; training writes them again, with the same numbers
#
# So no checkpoint counts on rows that may be lost, and whatever a failure takes away is computed
# again: batches and random keys are functions of seed and step alone.
class Run(contextlib.ExitStack):
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
        self, folder: Path | str, config, lanes: list[Lane], data: Mapping[str, str] | None = None
    ):
        super().__init__()
        self.folder = Path(folder).absolute()  # orbax needs an absolute path
        self.lanes = lanes
        wanted = as_json(config)
        check(wanted)
        # If a check raises, this stack closes what is open already, the lock first of all.
        with contextlib.ExitStack() as opened:
            self._claim()
            opened.callback(self._lock.release)
            self._check_config(wanted)
            self._wanted = wanted["writers"]  # this session's, whatever the folder says
            self._check_data(dict(data or {}))
            check_arithmetic(self.folder, read_rows(self.folder / "sessions.jsonl", _session))
            place = self.folder / "checkpoints"
            place.mkdir(exist_ok=True)
            self._checkpoints = checkpoints.manager(place, self._keep)
            opened.callback(self._checkpoints.close)
            opened.callback(self._wait)
            self.push(opened.pop_all())  # close() goes through all of it, whatever raises
        self._file: TextIO | None = None
        self._writers: dict[Lane, list[writers.Writer]] = {}
        self._stored: Stored  # of the rows only those that config.select is about

    def _claim(self) -> None:
        path = self.folder / "config.json"
        names = [p.name for p in self.folder.iterdir()] if self.folder.exists() else []
        # A kill before config.json was renamed leaves its temporary file, and that folder is ours.
        unknown = {n for n in names if n != "lock" and not re.fullmatch(r"config\.json.*\.tmp", n)}
        if unknown and not path.exists():
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
        for name in (path.name, *FILES):  # what a killed process left, perhaps before this session
            for left in self.folder.glob(f"{name}.*tmp"):
                left.unlink()

    def _check_config(self, wanted: dict) -> None:
        path, stored = self.folder / "config.json", wanted
        known = config = modernize(wanted)
        if path.exists():
            stored = continued(self.folder, wanted)
            known = modernize(stored)
            if known.get("data_seed") != config.get("data_seed"):
                print(f"{self.folder} is of an earlier version: it keeps config.data_seed=0.")
        self.data_seed = known.get("data_seed", -1)
        if not path.exists() or known.get(LENGTH) != config[LENGTH]:
            # Before the config: a longer run must not look finished, whenever this process is
            # killed.
            (self.folder / "finished.json").unlink(missing_ok=True)
            stored = stored | {LENGTH: config[LENGTH]}  # under the names that it was written with
            write_atomically(path, json.dumps(stored, indent=2) + "\n")

    def _check_data(self, data: dict[str, str]) -> None:
        path = self.folder / "data.json"
        remedy = "Delete it if the data are the same still, or choose another --workdir."
        known = files.read_object(path, remedy, dict) if path.exists() else data
        if changed := [name for name, digest in data.items() if known.get(name, digest) != digest]:
            raise InputError(
                f"{self.folder} was made with other data: {', '.join(changed)} has changed since. "
                f"Prepare the same data again, or choose another --workdir."
            )
        if not path.exists():
            write_atomically(path, json.dumps(data, indent=2) + "\n")

    def _keep(self, steps: list[int]) -> set[int]:
        """Return which checkpoints to keep: the newest two, and the best by config.select.

        Scores come from metrics.jsonl alone, so that this is the best of all readers.
        """
        # A kill or the disk may damage the newest one, so the one before it is kept, too.
        best = self._stored.best(steps=steps)
        return {*steps[-2:], *(best or ())[:1]}

    def restore(self, state):
        """Return (state, sums) of the newest checkpoint, or (state, {}) if there is none.

        A checkpoint that cannot be used, although one before it can, is moved to the folder
        "damaged", and the one before it is taken. It is damaged, or the files of the run no longer
        have what they had when it was written.

        Args:
            state: a pytree of arrays like the saved one.

        Raises:
            InputError: none of the checkpoints can be used, or they hold another kind of state.
        """
        errors: dict[int, InputError] = {}
        for step in sorted(self._checkpoints.all_steps(), reverse=True):
            try:
                saved = checkpoints.restore(self._checkpoints, step, state)
                for name, extent in saved.files.items():
                    extent.check(self.folder / name, step)
            except InputError as error:
                errors[step] = error
                continue
            self._set_aside(errors, step)
            return saved.state, saved.sums
        if errors:
            raise next(iter(errors.values()))
        return state, {}

    def _set_aside(self, errors: Mapping[int, InputError], good: int) -> None:
        """Move checkpoints out of the way that cannot be used."""
        for step, error in errors.items():
            place = self.folder / "damaged" / f"{step}.{uuid.uuid4().hex[:8]}"
            place.parent.mkdir(exist_ok=True)
            # Moved and not deleted, since it may be the only copy of days of training.
            os.replace(self.folder / "checkpoints" / str(step), place)
            print(
                f"The checkpoint of step {step:,} is damaged, or rows before it are ({error}). "
                f"It was moved to {place}. Training continues from that of step {good:,}.",
                flush=True,
            )
        if errors:
            self._checkpoints.reload()

    def start(self, step: int) -> None:
        """Begin a session at a step. Rows beyond it are dropped: they will be written again."""
        stored, path = read(self.folder), self.folder / "metrics.jsonl"
        rows = [row for row in stored.rows if row.step <= step]
        diverged = {lane: d for lane, d in stored.diverged.items() if d.step <= step}
        self._stored = dataclasses.replace(stored, rows=[], diverged=diverged)
        self._write_diverged()
        config = stored.config | dict(writers=self._wanted)
        self._writers = writers.make(self.folder, config, self.lanes)
        for writer in itertools.chain(*self._writers.values()):
            self.callback(writer.close)
        # Once as a whole, which also drops a last line that a kill has cut; from here on it only
        # grows.
        write_rows(path, [row.row for row in rows])
        self._file = self.enter_context(path.open("a"))
        for row in rows:
            self._note(row)
        session = provenance(step)
        before = next((s for s in reversed(stored.sessions) if "tuning" in s), session)
        if changes := differences(machine(before), machine(session)):
            print(f"Not as in the session before, so rounding may differ: {'; '.join(changes)}.")
        write_rows(self.folder / "sessions.jsonl", [*stored.sessions, session])

    def _note(self, row: Reading) -> None:
        """Keep what is needed of a row that is in metrics.jsonl."""
        if row.split == self._stored.config["select"]["split"]:
            self._stored.rows.append(row)
        values = {f"{row.split}/{name}": value for name, value in row.values.items()}
        for writer in self._writers.get(row.lane, ()):
            writer.write(row.step, values)

    def write(self, step: int, epoch: float | None, split: str, metrics: Mapping) -> None:
        """Append a row for each lane that has not diverged.

        Args:
            step: after which they were measured.
            epoch: passes over the data until then; None if the task has none.
            split: such as "test", or "update" for means over updates.
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
        assert self._file is not None, "start() comes before save()"
        self._wait()  # so that the checkpoint before it is on the disk
        # On the disk before it: no checkpoint may outlive the rows that it counts on.
        saved = checkpoints.Saved(state, sums, files.extents(self.folder, FILES))
        checkpoints.save(self._checkpoints, step, saved)

    def best(self) -> tuple[int, float] | None:
        """Return the best step so far by config.select, and its score."""
        return self._stored.best()

    @property
    def steps_per_call(self) -> int:
        """Return how many steps this run has in a call on an accelerator; 0: not yet measured."""
        path, remedy = self.folder / "calls.json", "Delete it, and it is measured again."
        measured = path.exists()
        return files.read_object(path, remedy, lambda row: int(row["steps"])) if measured else 0

    def keep_steps_per_call(self, steps: int) -> None:
        """Keep the measured number of steps for all sessions."""
        write_atomically(self.folder / "calls.json", json.dumps(dict(steps=steps)) + "\n")

    def summary(self) -> str:
        """Return in two lines the result, and the best checkpoint."""
        stored, select = read(self.folder), self._stored.config["select"]
        if (best := stored.best()) is None:
            return f"Result: no {select['split']} {select['metric']} is finite\n{self.kept()}"
        step, name, values = best[0], select["metric"], dict[str, list[float]]()
        for row in stored.rows:
            at = row.step == step and row.split != "update" and row.lane in stored.remaining
            if at and name in row.values:  # other splits may have other metrics
                values.setdefault(row.split, []).append(row.values[name])
        scores = ", ".join(f"{split} {np.mean(column):.4g}" for split, column in values.items())
        saved = _step(self.folder, "best", list(self._checkpoints.all_steps()))
        return (
            f"Result: {name} {scores} at step {step:,}, the best of {len(stored.scores())} by "
            f"{select['split']} {name}\n"
            f"Best checkpoint: step {saved:,}, the best that was saved, in "
            f"{self.folder / 'checkpoints'}"
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
        with checkpoints.storing():
            self._checkpoints.wait_until_finished()
        if (step := self._checkpoints.latest_step()) is not None:
            place = self.folder / "checkpoints" / str(step)
            # orbax syncs the arrays, not its own metadata and not the folders: a power failure
            # would take the names of files whose contents are on the disk.
            for path in (*place.rglob("*"), place, place.parent):  # orbax syncs the arrays alone
                files.sync(path)


class Elsewhere(contextlib.ExitStack):
    """A run whose folder another process writes: this process has nothing to do."""

    data_seed = steps_per_call = 0  # process 0 knows them
    diverged: frozenset[int] = frozenset()

    def __init__(self, folder: Path | str, lanes: list[Lane]):
        super().__init__()
        self.folder, self.lanes = Path(folder).absolute(), lanes

    def restore(self, state):
        return state, {}

    def kept(self) -> str:
        return "process 0 prints what is kept"

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return what every other method of `Run` does here: nothing."""
        return lambda *_: None


def open_run(folder: Path | str, config, lanes, data=None) -> Run | Elsewhere:
    """Return a run to train, as `Run`: only the first process writes its folder."""
    if jax.process_index():
        return Elsewhere(folder, lanes)
    return Run(folder, config, lanes, data)
