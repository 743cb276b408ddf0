"""The runner of a plan: trains the runs of its stages in order, for as long as it may."""

import contextlib
from pathlib import Path
import signal
import sys
import tempfile
import threading
import time

from absl import flags

from ln.errors import InputError, writing
from scripts import cli
from scripts.engines import jobs

PLAN = flags.DEFINE_string("plan", None, "plan: a file of stages, such as results/plan.toml")
ONLY = flags.DEFINE_string("only", "", "plan: only the stages whose names begin with this")
MINUTES = flags.DEFINE_float("minutes", None, "plan: time after which runs save and end", 0)
COLLECT = flags.DEFINE_bool("collect", False, "plan: copies finished runs beside the plan's file")


def minutes(runs) -> float:
    return sum(run.minutes for run in runs)


def unsettled(stage) -> list:
    """Return the runs of a stage that are left, none if one is damaged: `Runner.train` says so."""
    try:
        return stage.unsettled()
    except InputError:
        return []


class Clock:
    """The estimates of the plan, corrected by the times of the jobs of this command."""

    def __init__(self, workers: int):
        self.workers = workers
        self.times: dict[str, list[tuple[float, float]]] = {}  # stage -> (measured, estimated)

    def add(self, stage: str, measured: float, estimated: float) -> None:
        self.times.setdefault(stage, []).append((measured, estimated))

    def ratio(self, stage: str) -> float:
        """Return measured / estimated in the stage, in all if it has no finished job yet."""
        times = self.times.get(stage) or [pair for pairs in self.times.values() for pair in pairs]
        measured, estimated = map(sum, zip(*times, strict=True)) if times else (1, 1)
        return measured / estimated if estimated else 1.0

    def eta(self, left: dict[str, float]) -> float:
        """Return the minutes that these stages take; left: their estimated minutes."""
        return sum(self.ratio(stage) * left[stage] for stage in left) / self.workers


def is_worth_a_try(lost: dict[Path, int], job: jobs.Job) -> bool:
    """Return whether the run was killed, or another process had it."""
    status = lost.get(job.folder, 0)
    return status < 0 or status in (cli.BUSY, cli.INTERRUPTED)


class Runner:
    """Trains stages. A run that fails, or that another process has, is left.

    Attributes:
        lost: the exit status of each run that is left, by folder.
        left: the estimated minutes of each stage that are left, at most.
    """

    def __init__(self, stages: list, workers: int, saving: jobs.letting_runs_save):
        self.stages, self.workers, self.saving = stages, workers, saving
        self.clock, self.lost, self.failed = Clock(workers), dict[Path, int](), list[str]()
        self.left = {stage.name: minutes(unsettled(stage)) for stage in stages}

    def train(self, stage) -> None:
        """Train the waves of a stage, and print its table when all of them are done.

        An InputError ends this stage alone.
        """
        try:
            check(stage)
            self.show(stage)
            for wave in stage.waves():
                self.train_wave(stage, wave)
                if self.saving.asked or stage.adaptive and not all(run.settled for run in wave):
                    return
            if not stage.unsettled():
                print(stage.table(), flush=True)
        except InputError as error:
            self.failed.append(f"{stage.name}: {error}")
            print(f"error: {self.failed[-1]}", file=sys.stderr, flush=True)

    def train_wave(self, stage, wave: list) -> None:
        todo = {run.job: run for run in wave if not run.settled and run.folder not in self.lost}
        for _ in range(2):  # once more what was killed, or what another process has left
            begun: dict[jobs.Job, float] = {}

            def due(job, todo=todo, begun=begun):
                begun[job] = time.monotonic()
                return not todo[job].settled  # another process may have trained it

            ended = jobs.run_here(list(todo), self.workers, self.saving, due)
            with contextlib.closing(ended):  # waits for the others if a wrong run ends the stage
                for job, status in ended:
                    if status == 0:
                        measured = (time.monotonic() - begun[job]) / 60
                        self.clock.add(stage.name, measured, todo[job].minutes)
                    elif not self.saving.asked:
                        self.lost[job.folder] = status
                    self.show(stage)
            for run in filter(lambda run: run.settled, todo.values()):
                self.lost.pop(run.folder, None)
            todo = {job: run for job, run in todo.items() if is_worth_a_try(self.lost, job)}
            if self.saving.asked:
                return

    def show(self, stage) -> None:
        """Print how far the stage is and when it and the plan end."""
        total, left = stage.total(), stage.unsettled()
        self.left[stage.name] = minutes(left)
        n = self.stages.index(stage)
        coming = {later.name: self.left[later.name] for later in self.stages[n:]}
        print(
            f"stage {n + 1} of {len(self.stages)}: {stage.name}, {total - len(left)}/{total} runs, "
            f"ETA {self.clock.eta({stage.name: minutes(left)}):.0f} min, of the plan "
            f"{self.clock.eta(coming):.0f} min",
            flush=True,
        )

    def status(self) -> int:
        """Print what is left; return the exit status of the command."""
        if self.saving.asked:
            why = "Stopped" if self.saving.stopped else "The time is up"
            print(f"{why}; the same command goes on from here. What remains:")
            for stage in self.stages:
                if left := unsettled(stage):
                    print(f"  {stage.name}: {len(left)} runs, {minutes(left):.0f} min")
        busy = [str(folder) for folder, status in self.lost.items() if status == cli.BUSY]
        if busy:
            print(f"Left to another process that is at work on them: {', '.join(busy)}")
        failed = [f"{f}: exit status {s}" for f, s in self.lost.items() if s != cli.BUSY]
        if failed := failed + self.failed:
            print(f"{len(failed)} failed:", *failed, sep="\n  ", file=sys.stderr)
        if self.saving.stopped:
            return cli.INTERRUPTED
        return 1 if failed else cli.BUSY if busy and not self.saving.asked else 0


def check(stage) -> None:
    """Check the runs of a stage that have not begun.

    Raises:
        InputError: the stage needs a choice, or a run cannot be trained.
    """
    if stage.settings_of:
        raise InputError(
            f"It needs the choice of {stage.settings_of}, which is not recorded yet. "
            f"Train that stage, and paste the [stage.choice] that it prints into the plan."
        )
    for run in {run.folder: run for wave in stage.waves() for run in wave}.values():
        if not (run.folder / "config.json").exists():
            try:
                lanes = jobs.check(list(run.job.words[2:-1]))
            except InputError as error:
                raise InputError(f"{run.folder.name}: {error}") from error
            if len(lanes) != 1:
                raise InputError(f"{run.folder.name} has {len(lanes)} lanes; give one seed and lr.")


def list_stages(stages: list) -> None:
    """Print the runs and minutes of each stage, and the commands if a stage was named.

    Raises:
        InputError: a run is damaged.
    """
    for stage in stages:
        known = stage.known()
        left = [run for run in known if not run.settled]
        rest = stage.unsettled()
        more = f", at most {len(rest)} runs and {minutes(rest):.0f} min" if stage.adaptive else ""
        if stage.settings_of:
            more += f", needs the choice of {stage.settings_of}"
        print(
            f"{stage.name}: {len(known)} runs known, {len(known) - len(left)} finished, "
            f"{len(left)} to do, {minutes(left):.0f} min{more}"
        )
        if ONLY.value and not stage.settings_of:
            print(*(f"  {run.job}" for run in left), sep="\n")


def run(root: Path, workers: int, dry_run: bool) -> None:
    """Do what --plan and the flags beside it say."""
    # jax takes a second: not before the flags are known to be right.
    from scripts.engines import collect
    from scripts.engines import stages as kinds

    seconds = None if MINUTES.value is None else 60 * MINUTES.value
    if seconds is not None and not seconds <= threading.TIMEOUT_MAX:
        raise InputError(f"--minutes={MINUTES.value} is not a time; leave it out for no limit.")
    stages = [s for s in kinds.read(Path(PLAN.value), root) if s.name.startswith(ONLY.value)]
    if not stages:
        raise InputError(f"--only={ONLY.value}: no stage of {PLAN.value} begins with this.")
    if COLLECT.value:
        return collect.collect(stages, Path(PLAN.value).parent, dry_run)
    if dry_run:
        return list_stages(stages)
    with writing(root, "--root"):
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    with jobs.letting_runs_save((signal.SIGINT, signal.SIGTERM), seconds) as saving:
        runner = Runner(stages, workers, saving)
        for stage in stages:
            if not saving.asked:
                runner.train(stage)
        sys.exit(runner.status())
