"""The engine optuna: searches for the best settings; each trial is a run.

A study holds the trials; the run folders beside it hold the measurements. A launcher locks each
trial that it trains, and the system releases the lock when the launcher dies for any reason. Then
another launcher, or the same command again, takes up the trial in the same run folder, from the
newest checkpoint. The study may be a file or in a data base; all launchers need to see the folder.
"""

import collections
from collections.abc import Callable, Iterator
import contextlib
import itertools
import os
from pathlib import Path
import re
from typing import Any

from absl import flags
import filelock
import optuna
from optuna import distributions
from optuna.storages import JournalStorage, journal
from optuna.trial import TrialState

from ln.errors import InputError, choose, writing
from ln.training import runs
from scripts import cli
from scripts.engines import jobs
from scripts.engines.devices import Environment

FLAGS = flags.FLAGS  # of scripts.sweep
JOURNAL = "journal.log"
KINDS = {"float": (float, False), "log": (float, True), "int": (int, False), "logint": (int, True)}


# --- The space ---


def read_space(texts: list[str], config) -> dict[str, Any]:
    """Return optuna's distribution of each key.

    Raises:
        InputError: the text has another form, or there is not one learning rate.
    """
    space = jobs.read_pairs(texts, "--space", "KEY=log:LOW:HIGH or KEY=VALUE,VALUE,...")
    if "seeds" in space:
        raise InputError("--space takes no seeds: a trial is judged by the mean over its seeds.")
    if "lr" not in space and len(config.lr) > 1:
        raise InputError("A trial has one learning rate: give --config.lr=VALUE or --space=lr=...")
    return {key: read_distribution(key, text) for key, text in space.items()}


def read_distribution(key: str, text: str):
    """Return optuna's distribution of "log:1e-4:1e-2" or of "none,layer".

    Raises:
        InputError: the text has another form.
    """
    kind, colon, ends = text.partition(":")
    if not colon:
        return distributions.CategoricalDistribution(text.split(","))
    if FLAGS.sampler == "grid":
        raise InputError(f"--space {key}={text}: in a grid, list the values: {key}=VALUE,VALUE.")
    number, log = choose(f"kind of --space {key}", kind, KINDS)
    make = {int: distributions.IntDistribution, float: distributions.FloatDistribution}[number]
    try:
        low, high = map(number, ends.split(":"))
        return make(low, high, log=log)
    except (ValueError, OverflowError) as error:
        form = f"write {key}={kind}:LOW:HIGH"
        raise InputError(f"--space {key}={text}: {form}, numbers in order ({error}).") from error


def extremes(axis) -> tuple:
    """Return the choices, or the ends of an interval: if these are valid, so is the rest."""
    return axis.choices if hasattr(axis, "choices") else (axis.low, axis.high)


def check_runs(config, space: dict[str, Any]) -> None:
    """Raise InputError if a value of the space makes a run that cannot be trained."""
    first = {key: extremes(axis)[0] for key, axis in space.items()}
    for key, axis in space.items():
        for value in extremes(axis):
            jobs.checked(f"--space {key}={value}", config, first | {key: value})


# --- The study ---


def open_study(folder: Path, mode: str):
    """Return the optuna study in a folder or in a data base, a new one if there is none.

    Raises:
        InputError: the journal is lost or damaged, or the data base does not answer.
    """
    if hide_password(FLAGS.storage or "") != (FLAGS.storage or ""):
        message = "lists of processes would show its password; set OPTUNA_STORAGE instead."
        raise InputError(f"--storage: {message}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers, pruners = optuna.samplers, optuna.pruners
    # TPE avoids the values of unfinished trials. The points of a grid are in the study's queue.
    tpe = FLAGS.sampler == "tpe"
    sampler = samplers.TPESampler(constant_liar=True) if tpe else samplers.RandomSampler()
    pruner = dict(  # a resource is an evaluation
        asha=pruners.SuccessiveHalvingPruner(min_resource=1),
        hyperband=pruners.HyperbandPruner(),
        none=pruners.NopPruner(),
    )
    url = FLAGS.storage or os.environ.get("OPTUNA_STORAGE") or ""
    driven = url.replace("postgresql://", "postgresql+psycopg://")
    try:
        return optuna.create_study(
            storage=optuna.storages.RDBStorage(driven) if driven else open_journal(folder),
            study_name=FLAGS.study,
            direction="minimize" if mode == "min" else "maximize",
            load_if_exists=True,
            sampler=sampler,
            pruner=pruner[FLAGS.pruner],
        )
    except (OSError, InputError):  # a full disk: `run` says so
        raise
    except Exception as error:  # optuna's, SQLAlchemy's or the driver's
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        message = hide_password(f"{url or folder / JOURNAL} cannot be opened ({reason}).")
        remedy = "Move it away or give another --study; --storage is postgresql://USER@HOST/NAME."
        raise InputError(f"The study in {message} {remedy}") from error


def hide_password(text: str) -> str:
    """Return a text without the password in postgresql://USER:PASSWORD@HOST/NAME."""
    return re.sub(r"(://[^\s/:@]*):[^\s/]*@", r"\1:...@", text)


def open_journal(folder: Path):
    """Return the journal as optuna's storage.

    Raises:
        InputError: the journal is lost, though there are runs.
    """
    path = folder / JOURNAL
    if any(folder.glob("trial=*")) and not (path.exists() and path.stat().st_size):
        message = f"The runs of a search are in {folder}, but its {JOURNAL} is lost or empty."
        raise InputError(f"{message} Restore that file, or give another --study.")
    lock: Any = filelock.FileLock(path.with_suffix(".lock"))  # ends with its holder
    with lock, path.open("ab+") as file:
        # Optuna would append to a line that a full disk left half-written.
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    return JournalStorage(journal.JournalFileBackend(str(path), lock))


# --- Trials ---


class Trial:
    """A trial at work: the study learns the scores of its run, and may stop it.

    Attributes:
        number: of the trial in its study.
        open: whether the study does not know yet how the trial ended.
    """

    def __init__(self, search: "Search", frozen, lock: filelock.FileLock):

        self.search, self.number, self.lock = search, frozen.number, lock
        self.open, self.stopped = True, False
        self.told, self.size = len(frozen.intermediate_values), 0
        self.trial = optuna.trial.Trial(search.study, frozen._trial_id)
        for key, axis in search.space.items():
            self.trial._suggest(key, axis)  # the same values as before if the launcher was killed
        folder = search.folder / f"trial={self.number}"
        print(f"{folder}{': taking up what was left' if folder.exists() else ''}", flush=True)
        self.job = jobs.Job(folder, jobs.override(search.config, self.trial.params).to_json())
        self.process = search.begin([self.job])[0]

    def stop(self) -> None:
        """Ask the run to save and end."""
        self.stopped = True
        self.process.stop()

    def poll(self) -> int | None:
        """Tell the study the new scores; return the exit status once the run has ended."""
        status = self.process.poll()
        self.report(prune=status is None)
        if status is not None:
            if self.open:
                self.end(status)
            self.lock.release()
        return status

    def report(self, prune: bool) -> None:
        """Tell the study the new scores, each the mean over seeds; stop the run if it lags."""
        metrics = self.job.folder / "metrics.jsonl"
        size = metrics.stat().st_size if metrics.exists() else 0
        if not self.open or size == self.size:  # to read a long file takes longer than LOOK
            return
        self.size = size
        run = runs.read(self.job.folder)
        for value in list(run.scores(run.lanes).values())[self.told :]:
            self.told += 1
            self.trial.report(value, self.told)
            if prune and self.trial.should_prune():
                self.tell("PRUNED")
                return self.stop()

    def end(self, status: int) -> None:
        """Tell the study how the trial ended, unless its run is to be taken up again.

        A run that was killed is taken up once. A run that another process is training, which a
        killed launcher left, is tried until that ends. A stopped run waits for the next command.
        """
        killed = status < 0 or status == cli.INTERRUPTED
        self.search.kills[self.number] += killed
        if status == cli.BUSY or (killed and (self.stopped or self.search.kills[self.number] == 1)):
            return
        begun = (self.job.folder / "config.json").exists()
        run = runs.read(self.job.folder) if begun else None
        best = run.best(run.lanes) if run and status == 0 else None
        state = "PRUNED" if run and run.diverged else "COMPLETE" if best else "FAIL"
        self.tell(state, best[1] if best and state == "COMPLETE" else None)

    def tell(self, state: str, value: float | None = None) -> None:
        """Tell the study how the trial ended, and print it."""
        self.open = False
        self.search.study.tell(self.number, value, TrialState[state])
        params = ", ".join(f"{key} {value}" for key, value in self.trial.params.items())
        score = "" if value is None else f", {value:.4g}"
        print(f"Trial {self.number}: {state.lower()}{score} ({params})", flush=True)


class Search:
    """One launcher of a study.

    Args:
        folder: of the study and of its runs.
        config: what the runs have in common.
        space: the distribution of each key.
        shares: the environment of each run at work, as `devices.share` returns them.
    """

    def __init__(self, folder: Path, config, space: dict[str, Any], shares: list[Environment]):
        self.folder, self.config, self.space, self.shares = folder, config, space, shares
        self.begin = jobs.start_here(shares)
        self.kills = collections.Counter[int]()
        (folder / "claims").mkdir(parents=True, exist_ok=True)
        # Held from the choice of a trial until its own lock is held.
        self.asking = filelock.FileLock(folder / "claims" / "asking.lock")
        with self.asking:
            self.study = open_study(folder, config.select.mode)
            self.check_settings()
            if FLAGS.sampler == "grid":
                for values in itertools.product(*map(extremes, space.values())):
                    point = dict(zip(space, values, strict=True))
                    self.study.enqueue_trial(point, skip_if_exists=True)

    def check_settings(self) -> None:
        """Raise InputError if the study belongs to another search."""
        wanted = runs.as_json(self.config) | dict(space=sorted(FLAGS.space))
        for key in runs.PLACES:
            del wanted[key]
        known = self.study.user_attrs.get("settings", wanted)
        if changes := runs.differences(known, wanted):
            message = f"The study in {self.folder} is of another search ({'; '.join(changes)})."
            raise InputError(f"{message} Give the same settings, or another --study.")
        self.study.set_user_attr("settings", wanted)

    def start(self, room: int) -> list[Trial]:
        """Take up trials that were left, or begin new ones; at most so many."""
        started: list[Trial] = []
        with self.asking:
            while len(started) < room and (trial := self.take() or (self.ask() and self.take())):
                started.append(trial)
        return started

    def take(self) -> Trial | None:
        """Return a trial that has begun and that no launcher holds: it is new, or was left."""
        for frozen in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            lock = filelock.FileLock(self.folder / "claims" / f"trial={frozen.number}.lock")
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=0)
                return Trial(self, frozen, lock)
        return None

    def ask(self) -> bool:
        """Begin a trial, if one is due."""
        trials = self.study.get_trials(deepcopy=False)
        begun = sum(trial.state.name != "WAITING" for trial in trials)
        due = begun < (len(trials) if FLAGS.sampler == "grid" else FLAGS.trials)
        if due:
            self.study.ask()
        return due

    def run(self) -> int:
        """Search until enough trials have ended; return the exit status."""
        with jobs.Stopping() as stopping:
            for _ in jobs.watch(self.start, len(self.shares), stopping):
                pass
        if stopping.asked:
            print("Stopped; the same command continues from here.", flush=True)
            return cli.INTERRUPTED
        print(*self.summary(), sep="\n", flush=True)
        states = {trial.state.name for trial in self.study.get_trials(deepcopy=False)}
        return 1 if "FAIL" in states else 0

    def summary(self) -> Iterator[str]:
        """Yield lines on what the study knows: the states of its trials, and the best ones."""
        trials, select = self.study.get_trials(deepcopy=False), self.config.select
        count = collections.Counter(trial.state.name.lower() for trial in trials)
        states = ", ".join(f"{number} {state}" for state, number in count.items())
        yield f"{len(trials)} trials in {self.folder}: {states}."
        done = [trial for trial in trials if trial.state.name == "COMPLETE"]
        for trial in sorted(done, key=lambda t: t.value, reverse=select.mode == "max")[:5]:
            params = " ".join(f"--config.{key}={value}" for key, value in trial.params.items())
            score = f"{select.split} {select.metric} {trial.value:.5g}"
            yield f"  {score}  trial {trial.number}  {params}"


def run(config, root: Path, shares: Callable[[], list[Environment]]) -> int:
    """Search, as the flags say; return the exit status of the command.

    Raises:
        InputError: a flag cannot be used; nothing was started.
    """
    if not re.fullmatch(r"[^\W.][\w.=,+-]*", str(FLAGS.study)):
        raise InputError(f"--study={FLAGS.study}: write letters and digits; it names a folder.")
    space = read_space(FLAGS.space, config)
    check_runs(config, space)
    folder, places = root / FLAGS.study, shares()
    with writing(folder, "--root", "; the same command continues from there"):
        return Search(folder, config, space, places).run()
