"""The engine optuna: searches for the best settings, one run or some lanes of a run per trial.

A study knows the trials; the run folders beside it have all that was measured. A launcher holds a
lock for each run that it is at work on, which the system releases when the launcher dies, however
it dies: so another launcher, or the same command again, takes up what was left, in the same run
folder and from its newest checkpoint. The study may lie in a file or in a data base; the folder is
one that all launchers see.
"""

from collections.abc import Iterator
import contextlib
import itertools
import math
from pathlib import Path
import sys
from typing import Any, NamedTuple

from absl import flags
import filelock

from ln.errors import InputError, choose, writing
from scripts import cli
from scripts.engines import grid, jobs

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

SAMPLERS: dict[str, tuple[str, dict]] = {  # a grid is put into the queue of the study
    "tpe": ("TPESampler", {"constant_liar": True}),  # keeps away from what others are at work on
    "random": ("RandomSampler", {}),
    "grid": ("RandomSampler", {}),
}
PRUNERS: dict[str, tuple[str, dict]] = {  # a resource is an evaluation
    "asha": ("SuccessiveHalvingPruner", {"min_resource": 1}),
    "hyperband": ("HyperbandPruner", {}),
    "none": ("NopPruner", {}),
}
KINDS = {"float": (float, False), "log": (float, True), "int": (int, False), "logint": (int, True)}


# --- What is searched ---


class Axis(NamedTuple):
    """What is searched of one config key.

    Attributes:
        distribution: optuna's.
        values: all values of a grid, else the ends, which are right or wrong as all others are.
    """

    distribution: Any
    values: list

    @classmethod
    def read(cls, key: str, text: str) -> "Axis":
        """Return the axis of "log:1e-4:1e-2", with ":5" behind it in a grid, or of "none,layer".

        Raises:
            InputError: not of that form.
        """
        from optuna import distributions

        word, colon, numbers = text.partition(":")
        if not colon:
            choices = text.split(",")
            if len(set(choices)) < len(choices):
                raise InputError(f"--space {key}={text} names a value twice.")
            return cls(distributions.CategoricalDistribution(choices), choices)
        kind, log = choose(f"kind of --space {key}", word, KINDS)
        make = {int: distributions.IntDistribution, float: distributions.FloatDistribution}[kind]
        is_grid = SAMPLER.value == "grid"
        try:
            low, high, *points = map(kind, numbers.split(":"))
            if not low < high < math.inf or len(points) != is_grid or min(points, default=2) < 2:
                raise ValueError
            ends = make(low, high, log=log)
        except ValueError as error:
            form = f"{key}={word}:LOW:HIGH{':POINTS' if is_grid else ''}"
            raise InputError(
                f"--space {key}={text}: with --sampler={SAMPLER.value} write {form}, numbers with "
                f"LOW below HIGH{' and above 0' if log else ''}."
            ) from error
        return cls(ends, spread(low, high, log, int(*points)) if points else [low, high])


def spread(low: float, high: float, log: bool, points: int) -> list:
    """Return the values of a grid, whole numbers if its ends are."""
    import numpy as np

    values = (np.geomspace if log else np.linspace)(low, high, points).tolist()
    values[0], values[-1] = low, high  # without rounding errors
    return list(dict.fromkeys(round(v) if isinstance(low, int) else v for v in values))


def read_space(texts: list[str], config) -> dict[str, Axis]:
    """Return the axis of each key.

    Raises:
        InputError: an unknown key, one twice, or seeds, or as `Axis.read`.
    """
    form, keys = "KEY=log:LOW:HIGH or KEY=VALUE,VALUE,...", jobs.flat(config.to_dict())
    space: dict[str, Axis] = {}
    for text in texts:
        key, values = grid.split(text, "--space", keys, form)
        if key in space or key == "seeds":
            raise InputError(
                f"--space {text!r}: give each key once, and no seeds, of which none is better: a "
                f"trial is judged by the mean over --config.seeds."
            )
        space[key] = Axis.read(key, values)
    return space


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
            text = file.read()
            file.truncate(text.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.release()


def open_storage(folder: Path):
    """Return optuna's storage in a folder, or by --storage.

    Raises:
        InputError: the journal is damaged, or the data base does not answer.
    """
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if STORAGE.value is None:
        journal = folder / "journal.log"
        try:
            return JournalStorage(JournalFileBackend(str(journal), JournalLock(journal)))
        except ValueError as error:
            raise InputError(
                f"{journal} is damaged ({error}). Move it away to search anew, or choose another "
                f"--study."
            ) from error
    scheme, _, place = STORAGE.value.partition("://")
    scheme = "postgresql+psycopg" if scheme in ("postgresql", "postgres") else scheme
    try:
        return RDBStorage(f"{scheme}://{place}")
    except Exception as error:  # SQLAlchemy's, or the driver's own
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--storage={STORAGE.value} cannot be used ({type(error).__name__}: {reason}). "
            f"Write postgresql://USER:PASSWORD@HOST:PORT/NAME of a data base that is there."
        ) from error


def open_study(storage, mode: str):
    """Return the optuna study of this command, made if it is not there."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler, sampler_options = SAMPLERS[SAMPLER.value]
    pruner, pruner_options = PRUNERS[PRUNER.value]
    return optuna.create_study(
        storage=storage,
        study_name=STUDY.value,
        direction={"min": "minimize", "max": "maximize"}[mode],
        load_if_exists=True,
        sampler=getattr(optuna.samplers, sampler)(**sampler_options),
        pruner=getattr(optuna.pruners, pruner)(**pruner_options),
    )


# --- Trials ---


class Group:
    """The trials that one run makes, at work: lanes of a program, or a single one.

    Attributes:
        trials: those that the study does not know the end of, by number.
        failed: how many of them failed.
    """

    place = ""

    def __init__(self, study, job: jobs.Job, lock: filelock.FileLock, trials: dict[int, Any]):
        self.study, self.job, self.lock, self.trials = study, job, lock, trials
        self.stopped, self.tries, self.failed = False, 1, 0
        self.size = 0  # of the metrics when last read
        frozen = study.get_trials(deepcopy=False)
        self.told = {n: len(frozen[n].intermediate_values) for n in trials}
        self.process = jobs.Process(job)

    def stop(self) -> None:
        self.stopped = True
        self.process.stop()

    def poll(self) -> int | None:
        """Tell the study what the run has measured; return the exit status once it has ended."""
        status = self.process.poll()
        self.look(prune=status is None)
        if status is None or not self.trials:
            return status
        # An orphan of a launcher that was killed is busy with the run: its results are as good.
        # Whatever else was killed is tried once more.
        killed = status < 0 or status == cli.INTERRUPTED
        if not self.stopped and (status == cli.BUSY or killed and self.tries == 1):
            self.tries += killed
            self.process = jobs.Process(self.job)
            return None
        if status == 0 or not self.stopped:  # what was stopped goes on another time
            self.end()
        self.lock.release()
        return status

    def look(self, prune: bool) -> None:
        """Report what is new, and prune what is not worth its time."""
        metrics = self.job.folder / "metrics.jsonl"
        size = metrics.stat().st_size if metrics.exists() else 0
        if (
            size == self.size
        ):  # reading a long file would take longer than the wait for the next look
            return
        self.size, run = size, read(self.job.folder)
        for number, trial in list(self.trials.items()):
            for value in scores(run, trial)[self.told[number] :]:
                self.told[number] += 1
                trial.report(value, self.told[number])
                if prune and trial.should_prune():
                    self.tell(number, "PRUNED")
                    break
        if not self.trials and not self.stopped:
            self.stop()

    def end(self) -> None:
        """Tell the study how the trials ended."""
        run = read(self.job.folder)
        for number, trial in list(self.trials.items()):
            values = scores(run, trial) if run else []
            if run and {lr for _, lr in run.diverged} >= set(rates_of(run, trial)):
                self.tell(number, "PRUNED")
            elif run and run.finished and values:
                self.tell(number, "COMPLETE", min(values, key=lambda value: run.sign * value))
            else:
                self.failed += 1
                self.tell(number, "FAIL")

    def tell(self, number: int, state: str, value: float | None = None) -> None:
        from optuna.trial import TrialState

        self.study.tell(number, value, TrialState[state], skip_if_finished=True)
        params = ", ".join(f"{k} {v}" for k, v in self.trials.pop(number).params.items())
        score = "" if value is None else f", {value:.4g}"
        print(f"Trial {number}: {state.lower()}{score} ({params})", flush=True)


def read(folder: Path):
    """Return the run in a folder, None if it has not begun."""
    from ln.training import runs

    return runs.read(folder) if (folder / "config.json").exists() else None


def rates_of(run, trial) -> list[float]:
    """Return the learning rate of a trial, or if it is not searched, all of its run."""
    return [float(trial.params["lr"])] if "lr" in trial.params else run.config["lr"]


def scores(run, trial) -> list[float]:
    """Return the score of each evaluation: the mean over seeds, of the best learning rate."""
    by_rate = [
        run.scores([(seed, rate) for seed in run.config["seeds"]]) for rate in rates_of(run, trial)
    ]
    steps = sorted({step for column in by_rate for step in column})
    columns = ([column[step] for column in by_rate if step in column] for step in steps)
    return [min(values, key=lambda value: run.sign * value) for values in columns]


class Search:
    """One launcher of a study.

    Args:
        folder: of the study and of its runs.
        config: what the runs have in common.
    """

    def __init__(self, folder: Path, config):
        self.folder, self.config = folder, config
        self.space = read_space(SPACE.value, config)
        (folder / "claims").mkdir(parents=True, exist_ok=True)
        self.groups: list[Group] = []
        self.asking = filelock.FileLock(folder / "claims" / "asking.lock")
        with self.asking:
            self.storage = open_storage(folder)
            self.study = open_study(self.storage, config.select.mode)
            self.check_settings()
            if SAMPLER.value == "grid":
                for point in itertools.product(*(axis.values for axis in self.space.values())):
                    point = dict(zip(self.space, point, strict=True))
                    self.study.enqueue_trial(point, skip_if_exists=True)

    def check_settings(self) -> None:
        """Raise InputError if the study belongs to another search."""
        from ln.training import runs

        wanted = runs.as_json(self.config) | dict(space=sorted(SPACE.value))
        for key in runs.PLACES:
            del wanted[key]
        known = self.study.user_attrs.get("settings", wanted)
        if changes := runs.differences(known, wanted):
            raise InputError(
                f"The study {STUDY.value!r} in {self.folder} is of another search "
                f"({'; '.join(changes)}). Give the same settings to go on, or another --study."
            )
        self.study.set_user_attr("settings", wanted)

    def start(self, room: int) -> list[Group]:
        """Take up what killed launchers left, or begin new trials; at most so many runs."""
        started = []
        with self.asking:
            while len(started) < room and (group := self.left() or self.new()):
                print(group.job.folder, flush=True)
                started.append(group)
        self.groups += started
        return started

    def left(self) -> Group | None:
        """Return a run whose launcher died."""
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        for name in dict.fromkeys(map(name_of, trials)):
            path = self.folder / "claims" / f"{name}.lock"
            # Trials in a data base may belong to launchers that work in another folder.
            if STORAGE.value is None or path.exists():
                with contextlib.suppress(filelock.Timeout):
                    lock = filelock.FileLock(path, timeout=0)
                    lock.acquire()
                    print(f"Taking up what was left of {name}.", flush=True)
                    return self.group(name, lock)
        return None

    def new(self) -> Group | None:
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        waiting = sum(trial.state == TrialState.WAITING for trial in trials)
        left = TRIALS.value - len(trials) + waiting
        free = waiting if SAMPLER.value == "grid" else left
        asked = [self.study.ask() for _ in range(min(LANES.value, free))]
        if not asked:
            return None
        first, last = asked[0].number, asked[-1].number
        name = f"trial={first}" if first == last else f"trials={first}-{last}"
        for trial in asked:
            trial.set_user_attr("run", name)
        lock = filelock.FileLock(self.folder / "claims" / f"{name}.lock")
        lock.acquire()
        return self.group(name, lock)

    def group(self, name: str, lock: filelock.FileLock) -> Group:
        """Start the run of a name."""
        import optuna

        params, held = [], {}
        for frozen in self.study.get_trials(deepcopy=False):
            if name_of(frozen) != name:
                continue
            trial = optuna.trial.Trial(self.study, frozen._trial_id)
            if frozen.state == optuna.trial.TrialState.RUNNING:
                held[frozen.number] = trial
                for key, axis in self.space.items():
                    trial._suggest(key, axis.distribution)  # the same as before if it was killed
            params.append(trial.params)
        values = params[0]
        if len(params) > 1:
            values |= dict(lr=",".join(dict.fromkeys(str(p["lr"]) for p in params)))  # lanes differ
        job = jobs.Job.make(self.folder / name, jobs.override(self.config, values))
        return Group(self.study, job, lock, held)

    def close(self) -> None:
        """Let go of the runs and the data base."""
        for group in self.groups:
            group.lock.release(force=True)
        if STORAGE.value is not None:
            self.storage.remove_session()
            self.storage.engine.dispose()

    def run(self, workers: int) -> int:
        """Search until enough trials have ended; return the exit status."""
        with jobs.Stopping() as stopping:
            for _ in jobs.watch(self.start, workers, stopping):
                pass
        if stopping.asked:
            print("Stopped; the same command goes on from here.", flush=True)
            return cli.INTERRUPTED
        print("\n".join(self.summary()), flush=True)
        failed = sum(group.failed for group in self.groups)
        if failed:
            print(f"{failed} trials failed; see above.", file=sys.stderr)
        return 1 if failed else 0

    def summary(self) -> Iterator[str]:
        """Yield lines that say what the study knows."""
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        count = {state: sum(t.state == state for t in trials) for state in TrialState}
        states = ", ".join(f"{n} {state.name.lower()}" for state, n in count.items() if n)
        yield f"{len(trials)} trials in {self.folder}: {states}."
        select = self.config.select
        done = [t for t in trials if t.state == TrialState.COMPLETE]
        done.sort(key=lambda t: t.value, reverse=select.mode == "max")
        for trial in done[:5]:
            params = " ".join(f"--config.{key}={value}" for key, value in trial.params.items())
            score = f"{select.split} {select.metric} {trial.value:.5g}"
            yield f"  {score}  trial {trial.number}  {params}"


def name_of(trial) -> str:
    """Return the name of the run that makes a trial."""
    return trial.user_attrs.get("run", f"trial={trial.number}")


def run(config, root: Path, workers: int) -> int:
    """Search, as the flags say; return the exit status of the command.

    Raises:
        InputError: a flag cannot be used; nothing was started.
    """
    choose("--sampler", SAMPLER.value, SAMPLERS)
    choose("--pruner", PRUNER.value, PRUNERS)
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise InputError(
            "--engine=optuna needs optuna, which is not installed: "
            "pip install 'optuna>=4.5,<6' 'psycopg[binary]'"
        ) from None
    space = read_space(SPACE.value, config)
    if LANES.value > 1 and list(space) != ["lr"]:
        raise InputError(
            f"--lanes={LANES.value}: trials are lanes of one program where only lr is searched."
        )
    first = {key: axis.values[0] for key, axis in space.items()}
    for key, axis in space.items():
        for value in axis.values:
            jobs.checked(f"--space {key}={value}", config, first | {key: value})
    folder = root / STUDY.value
    with writing(folder, "--root", "; the same command goes on from there"):
        with contextlib.closing(Search(folder, config)) as search:
            return search.run(workers)
