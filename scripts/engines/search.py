"""The engine optuna: searches for the best settings, one run or some lanes of a run per trial.

A study knows the trials; the run folders beside it have all that was measured. A launcher holds a
lock for each trial that it is at work on, which the system releases when the launcher dies, however
it dies: so another launcher, or the same command again, takes up what was left, in the same run
folder and from its newest checkpoint. The study may lie in a file or in a data base; the folder is
one that all launchers see.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import itertools
import math
import os
from pathlib import Path
import sys
import time
from typing import Any

from absl import flags
import filelock

from ln.errors import InputError, choose, nearest, writing
from scripts import cli
from scripts.engines import jobs

SPACE = flags.DEFINE_multi_string(
    "space", [], "optuna: KEY=log:LOW:HIGH, float:..., int:..., logint:..., or KEY=VALUE,VALUE,..."
)
TRIALS = flags.DEFINE_integer("trials", 20, "optuna: how many in all", lower_bound=1)
SAMPLER = flags.DEFINE_string("sampler", "tpe", "optuna: tpe, random, or grid")
PRUNER = flags.DEFINE_string("pruner", "asha", "optuna: asha, hyperband, or none")
LANES = flags.DEFINE_integer(
    "lanes", 1, "optuna: trials side by side in one program, where only lr varies", lower_bound=1
)
STUDY = flags.DEFINE_string("study", "search", "optuna: name of the study and of its folder")
STORAGE = flags.DEFINE_string(
    "storage", None, "optuna: postgresql://USER@HOST/NAME; default: journal.log in its folder"
)

SAMPLERS = {  # a grid is put into the queue of the study
    "tpe": ("TPESampler", {"constant_liar": True}),  # keeps away from what others are at work on
    "random": ("RandomSampler", {}),
    "grid": ("RandomSampler", {}),
}
PRUNERS = {  # a resource is an evaluation
    "asha": ("SuccessiveHalvingPruner", {"min_resource": 1}),
    "hyperband": ("HyperbandPruner", {}),
    "none": ("NopPruner", {}),
}
KINDS = {"float": (float, False), "log": (float, True), "int": (int, False), "logint": (int, True)}

LOOK = 0.5  # seconds between two looks at what the runs have measured


# --- What is searched ---


@dataclasses.dataclass(frozen=True)
class Axis:
    """The values of one config key.

    Attributes:
        choices: these, as they are written on the command line; or
        low, high: the ends of an interval.
        kind: int or float.
        log: whether the logarithm is spread evenly.
        points: of a grid, how many from low to high.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    kind: type = float
    log: bool = False
    points: int = 0

    @classmethod
    def read(cls, text: str, known: list[str], grid: bool) -> "Axis":
        """Reads "lr=log:1e-4:1e-2", with ":5" behind it in a grid, or "norm=none,layer".

        Raises:
            InputError: not of that form, or an unknown key.
        """
        key, equals, values = text.partition("=")
        if not equals or not values:
            raise InputError(f"--space {text!r}: write KEY=log:LOW:HIGH or KEY=VALUE,VALUE,...")
        if key not in known:
            raise InputError(f"--space {text!r}: the config has no {key!r}.{nearest(key, known)}")
        if key == "seeds":
            raise InputError(
                "--space seeds=...: no seed is better than another. Give --config.seeds=0,1,2; a "
                "trial is judged by the mean over them."
            )
        word, colon, ends = values.partition(":")
        if not colon:
            choices = tuple(values.split(","))
            if len(set(choices)) < len(choices):
                raise InputError(f"--space {text!r} names a value twice.")
            return cls(key, choices)
        kind, log = choose(f"kind of --space {key}", word, KINDS)
        try:
            read = (kind, kind, int)[: 2 + grid]
            low, high, *points = (r(x) for r, x in zip(read, ends.split(":"), strict=True))
        except ValueError:
            low, high, points = 1, 0, []
        if not low < high < math.inf or (log and low <= 0) or (grid and points[0] < 2):
            form = f"{word}:LOW:HIGH" + grid * ":POINTS"
            raise InputError(
                f"--space {text!r}: with --sampler={SAMPLER.value} write {key}={form}, numbers "
                f"with LOW below HIGH{' and above 0' if log else ''}."
            )
        return cls(key, (), low, high, kind, log, *points)

    def suggest(self, trial):
        """The value of an optuna trial."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        method = trial.suggest_int if self.kind is int else trial.suggest_float
        return method(self.key, self.low, self.high, log=self.log)

    def grid(self) -> list:
        """The values of a grid."""
        import numpy as np

        if self.choices:
            return list(self.choices)
        spread = np.geomspace if self.log else np.linspace
        values = spread(self.low, self.high, self.points).tolist()
        values[0], values[-1] = self.low, self.high  # without rounding errors
        return list(dict.fromkeys(round(v) if self.kind is int else v for v in values))

    def ends(self) -> list:
        """Values that are right or wrong as all the others are."""
        return list(self.choices or (self.low, self.high))


def read_space(texts: list[str], known: list[str], grid: bool) -> list[Axis]:
    """All axes.

    Raises:
        InputError: none, one key twice, or as `Axis.read`.
    """
    axes = [Axis.read(text, known, grid) for text in texts]
    keys = [axis.key for axis in axes]
    if not axes or len(set(keys)) < len(keys):
        raise InputError(
            "--engine=optuna searches a --space KEY=..., each key once, such as "
            "--space lr=log:1e-4:1e-2 --space norm=none,layer."
        )
    return axes


# --- What was measured ---


def readings(folder: Path, select: Mapping, rates: list[float] | None) -> list[float]:
    """The scores of a run by config.select, one per evaluation: the mean over seeds, of the best of
    these learning rates (None: of all). A rate with a dead lane has none from then on.
    """
    from ln.training import runs

    if not (folder / "config.json").exists():
        return []
    config, rows = runs.load(folder)
    best = {"min": min, "max": max}[select["mode"]]
    found: dict[int, dict[float, list[float]]] = {}
    for row in rows:
        if row["split"] == select["split"] and (rates is None or row["lr"] in rates):
            of_step = found.setdefault(row["step"], {})
            of_step.setdefault(row["lr"], []).append(row[select["metric"]])
    seeds = len(config["seeds"])
    means = (
        [sum(v) / seeds for v in found[step].values() if len(v) == seeds] for step in sorted(found)
    )
    return [best(values) for values in means if values]


def is_dead(folder: Path, rates: list[float] | None) -> bool:
    """Whether each of these learning rates has lanes that did not stay finite."""
    from ln.training import runs

    if not (folder / "config.json").exists():
        return False
    dead = {lr for _, lr in runs.read_dead(folder)}
    return dead >= set(rates if rates is not None else runs.load(folder)[0]["lr"])


# --- The study ---


class JournalLock:
    """The lock of a journal. Who gets it cuts off a line that was left half-written, by a launcher
    that was killed or on a full disk: optuna would go on in that line.

    The system releases it when its holder dies; optuna's own would have to expire.
    """

    def __init__(self, journal: Path):
        self.journal, self._lock = journal, filelock.FileLock(journal.with_suffix(".lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        with self.journal.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            if file.read() not in (b"", b"\n"):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.release()


def open_study(folder: Path, mode: str):
    """The optuna study in a folder, or by --storage, and its storage; made if it is not there.

    Raises:
        InputError: optuna is not installed, or the data base does not answer.
    """
    try:
        import optuna
    except ImportError:
        raise InputError(
            "--engine=optuna needs optuna, which is not installed: "
            "pip install 'optuna>=4.5,<6' 'psycopg[binary]'"
        ) from None
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if STORAGE.value is None:
        journal = folder / "journal.log"
        try:
            storage: Any = JournalStorage(JournalFileBackend(str(journal), JournalLock(journal)))
        except ValueError as error:
            raise InputError(
                f"{journal} is damaged ({error}). Move it away to search anew, or choose another "
                f"--study."
            ) from error
    else:
        url = STORAGE.value
        if url.startswith(("postgresql://", "postgres://")):
            url = "postgresql+psycopg://" + url.partition("://")[2]
        try:
            storage = RDBStorage(url)
        except Exception as error:  # SQLAlchemy's, or the driver's own
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"--storage={STORAGE.value} cannot be used ({type(error).__name__}: {reason}). "
                f"Write postgresql://USER:PASSWORD@HOST:PORT/NAME of a data base that is there."
            ) from error
    sampler, of_sampler = choose("--sampler", SAMPLER.value, SAMPLERS)
    pruner, of_pruner = choose("--pruner", PRUNER.value, PRUNERS)
    study = optuna.create_study(
        storage=storage,
        study_name=STUDY.value,
        direction={"min": "minimize", "max": "maximize"}[mode],
        load_if_exists=True,
        sampler=getattr(optuna.samplers, sampler)(**of_sampler),
        pruner=getattr(optuna.pruners, pruner)(**of_pruner),
    )
    return study, storage


@dataclasses.dataclass
class Trial:
    """A trial that this launcher holds, and how many of its readings the study knows."""

    trial: Any  # optuna's
    claim: filelock.FileLock
    rates: list[float] | None
    known: int
    open: bool = True

    @property
    def number(self) -> int:
        return self.trial.number


@dataclasses.dataclass
class Group:
    """Trials that one run makes: lanes of a program, or a single one."""

    job: jobs.Job
    trials: list[Trial]
    process: jobs.Process | None = None
    after: float = 0.0  # when to start it
    kills: int = 0
    stopped: bool = False


class Search:
    """One launcher of a study.

    Args:
        folder: of the study and of its runs.
        config: of this command.
        axes: what is searched.
    """

    def __init__(self, folder: Path, config, axes: list[Axis]):
        self.folder, self.axes, self.failed = folder, axes, 0
        self.claims: list[filelock.FileLock] = []
        self.select = config.select.to_dict()
        (folder / "claims").mkdir(parents=True, exist_ok=True)
        self.asking = filelock.FileLock(folder / "claims" / "asking.lock")
        with self.asking:
            self.study, self.storage = open_study(folder, self.select["mode"])
            self.is_grid = SAMPLER.value == "grid"
            self._check_space()
            if self.is_grid:
                points = itertools.product(*(axis.grid() for axis in axes))
                for point in points:
                    values = {a.key: value for a, value in zip(axes, point, strict=True)}
                    self.study.enqueue_trial(values, skip_if_exists=True)

    def _check_space(self) -> None:
        """Raises InputError where the study belongs to another search."""
        wanted = [f"{self.select['mode']} {self.select['split']} {self.select['metric']}"]
        wanted += sorted(SPACE.value)
        wanted += sorted(w for w in jobs.settings({}, sys.argv[1:]) if "data_dir" not in w)
        known = self.study.user_attrs.get("search", wanted)
        if known != wanted:
            changed = sorted(set(known) ^ set(wanted))
            raise InputError(
                f"The study {STUDY.value!r} in {self.folder} is of another search ({changed}). "
                f"Give the same settings to go on, or another --study."
            )
        self.study.set_user_attr("search", wanted)

    # --- Trials ---

    def _claim(self, number: int, new: bool) -> filelock.FileLock | None:
        """The lock of a trial, where nobody holds it and it is of launchers in this folder."""
        path = self.folder / "claims" / f"{number}.lock"
        if not new and not path.exists():
            return None
        lock = filelock.FileLock(path)
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(timeout=0)
            self.claims.append(lock)
            return lock
        return None

    def next_group(self) -> Group | None:
        """A group that a killed launcher left, or a new one; None where all are taken."""
        from optuna.trial import TrialState

        with self.asking:
            trials = self.study.get_trials(deepcopy=False)
            left = self._left(trials)
            if left is not None:
                return left
            waiting = sum(trial.state == TrialState.WAITING for trial in trials)
            free = waiting if self.is_grid else TRIALS.value - len(trials) + waiting
            new = [self.study.ask() for _ in range(min(LANES.value, free))]
            if not new:
                return None
            claims = [self._claim(trial.number, new=True) for trial in new]
            numbers = [trial.number for trial in new]
            for trial in new:
                for axis in self.axes:
                    axis.suggest(trial)
                trial.set_user_attr("group", numbers)
            held = {t.number: (t, claim) for t, claim in zip(new, claims, strict=True)}
            return self._group(numbers, held)

    def _left(self, trials: list) -> Group | None:
        """A group whose launcher died."""
        from optuna.trial import Trial as OptunaTrial
        from optuna.trial import TrialState

        for number in [found.number for found in trials if found.state == TrialState.RUNNING]:
            claim = self._claim(number, new=False)
            if claim is None:
                continue
            trials = self.study.get_trials(deepcopy=False)  # it may have been told just now
            if trials[number].state != TrialState.RUNNING:
                claim.release()
                continue
            numbers = trials[number].user_attrs.get("group", [number])
            held = {}
            for n in numbers:
                lock = claim if n == number else self._claim(n, new=True)
                if lock is not None and trials[n].state == TrialState.RUNNING:
                    held[n] = OptunaTrial(self.study, trials[n]._trial_id), lock
            for trial, _ in held.values():
                for axis in self.axes:
                    axis.suggest(trial)  # what it was, or now if it was killed before
                trial.set_user_attr("group", numbers)
            print(f"Taking up what was left of trial {', '.join(map(str, held))}.", flush=True)
            return self._group(numbers, held)
        return None

    def _group(self, numbers: list[int], held: dict[int, tuple]) -> Group:
        """The group of these trials, of which some are held: number -> (trial, claim)."""
        params = {n: self.study.trials[n].params for n in numbers}
        overrides = dict(params[numbers[0]])
        name = f"trial={numbers[0]}"
        if len(numbers) > 1:
            rates = dict.fromkeys(str(params[n]["lr"]) for n in numbers)  # lanes differ
            overrides["lr"] = ",".join(rates)
            name = f"trials={numbers[0]}-{numbers[-1]}"
        trials = []
        for n, (trial, claim) in held.items():
            rates = [float(params[n]["lr"])] if "lr" in params[n] else None
            known = len(self.study.trials[n].intermediate_values)
            trials.append(Trial(trial, claim, rates, known))
        return Group(jobs.make_job(self.folder / name, overrides), trials)

    def tell(self, group: Group, trial: Trial, state, value: float | None = None) -> None:
        """Ends a trial of a group."""
        from optuna.trial import TrialState

        self.study.tell(trial.number, value, state, skip_if_finished=True)
        self.failed += state == TrialState.FAIL
        trial.open = False
        trial.claim.release()
        score = "" if value is None else f", {self.select['metric']} {value:.4g}"
        params = ", ".join(f"{key} {value}" for key, value in trial.trial.params.items())
        print(f"Trial {trial.number}: {state.name.lower()}{score} ({params})", flush=True)

    def look(self, group: Group) -> None:
        """Tells the study what a group at work has measured, and ends what is not worth it."""
        from optuna.trial import TrialState

        for trial in group.trials:
            if not trial.open:
                continue
            found = readings(group.job.folder, self.select, trial.rates)
            for step, value in enumerate(found[trial.known :], start=trial.known + 1):
                trial.trial.report(value, step)
                trial.known = step
                if group.process is not None and trial.trial.should_prune():
                    self.tell(group, trial, TrialState.PRUNED)
                    break
        if not (group.process is None or group.stopped or any(t.open for t in group.trials)):
            group.stopped = True
            group.process.stop()

    def end(self, group: Group, status: int) -> bool:
        """Takes note of how the run of a group ended; returns whether it is to be started again."""
        from optuna.trial import TrialState

        from ln.training import runs

        group.process = None
        self.look(group)
        open_trials = [trial for trial in group.trials if trial.open]
        if not open_trials:
            return False
        if status == cli.BUSY:  # an orphan of a launcher that was killed: its results are as good
            group.after = time.monotonic() + 10 * LOOK
            return True
        if status < 0 and group.kills == 0:
            group.kills += 1
            return True
        folder = group.job.folder
        for trial in open_trials:
            found = readings(folder, self.select, trial.rates)
            if is_dead(folder, trial.rates):
                self.tell(group, trial, TrialState.PRUNED)
            elif runs.is_finished(folder) and found:
                best = {"min": min, "max": max}[self.select["mode"]]
                self.tell(group, trial, TrialState.COMPLETE, best(found))
            else:
                self.tell(group, trial, TrialState.FAIL)
        return False

    # --- All of it ---

    def close(self) -> None:
        """Lets go of the trials and the data base."""
        for claim in self.claims:
            claim.release(force=True)
        if STORAGE.value is not None:
            self.storage.remove_session()
            self.storage.engine.dispose()

    def run(self, workers: int) -> int:
        """Searches until enough trials have ended; returns how many failed in this launcher."""
        working: list[Group] = []
        with jobs.letting_runs_save() as ctrl_c:
            while not ctrl_c.asked:
                while len(working) < workers and (group := self.next_group()) is not None:
                    print(f"{group.job.folder}", flush=True)
                    working.append(group)
                if not working:
                    break
                for group in list(working):
                    if group.process is None and time.monotonic() >= group.after:
                        group.process = jobs.Process(group.job)
                    status = group.process.poll() if group.process else None
                    if status is None:
                        self.look(group)
                    elif status == cli.INTERRUPTED and any(t.open for t in group.trials):
                        ctrl_c.asked = True
                    elif not self.end(group, status):
                        working.remove(group)
                time.sleep(LOOK)
            for group in working:
                if group.process is not None:
                    group.process.wait()
        if ctrl_c.asked:
            print("Stopped; the same command goes on from here.", flush=True)
            sys.exit(cli.INTERRUPTED)
        return self.failed


def summary(search: Search) -> Iterator[str]:
    """Lines that say what was found."""
    from optuna.trial import TrialState

    trials = search.study.get_trials(deepcopy=False)
    count = {state: sum(t.state == state for t in trials) for state in TrialState}
    states = ", ".join(f"{n} {state.name.lower()}" for state, n in count.items() if n)
    yield f"{len(trials)} trials in {search.folder}: {states}."
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    sign = 1 if search.select["mode"] == "min" else -1
    for trial in sorted(done, key=lambda t: sign * t.value)[:5]:
        params = " ".join(f"--config.{key}={value}" for key, value in trial.params.items())
        score = f"{search.select['split']} {search.select['metric']} {trial.value:.5g}"
        yield f"  {score}  trial {trial.number}  {params}"


def run(config, root: Path, known: list[str], workers: int) -> None:
    """Searches, as the flags say.

    Raises:
        InputError: a flag cannot be used; nothing was started.
    """
    choose("--sampler", SAMPLER.value, SAMPLERS)
    choose("--pruner", PRUNER.value, PRUNERS)
    axes = read_space(SPACE.value, known, SAMPLER.value == "grid")
    if LANES.value > 1 and [axis.key for axis in axes] != ["lr"]:
        raise InputError(
            f"--lanes={LANES.value}: trials are lanes of one program where only lr is searched."
        )
    first = {axis.key: axis.ends()[0] for axis in axes}
    points = [first | {axis.key: value} for axis in axes for value in axis.ends()]
    for point in {str(point): point for point in points}.values():
        try:
            jobs.check(jobs.settings(point, sys.argv[1:]))
        except InputError as error:
            raise InputError(f"{point}: {error}") from error
    folder = root / STUDY.value
    with writing(folder, "--root", "; the same command goes on from there"):
        with contextlib.closing(Search(folder, config, axes)) as search:
            failed = search.run(workers)
            print("\n".join(summary(search)), flush=True)
    if failed:
        print(f"{failed} trials failed; see above.", file=sys.stderr)
        sys.exit(1)
