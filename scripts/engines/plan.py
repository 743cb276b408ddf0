"""The runner of a plan: trains the runs of its stages in order, for as long as it may."""

from pathlib import Path
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
COLLECT = flags.DEFINE_bool(
    "collect", False, "plan: copies finished runs beside the plan's file, and updates documents"
)


def minutes(runs) -> float:
    return sum(run.minutes for run in runs)


def unsettled(stage) -> list:
    """Return the runs of a stage that are left, none if one is damaged: `Runner.train` says so."""
    try:
        return stage.unsettled()
    except InputError:
        return []


class Runner:
    """Trains stages. A run that fails, or that another process has, is left.

    Attributes:
        lost: the exit status of each run that is left, by folder.
        failed: why a stage has ended, in words.
    """

    def __init__(self, stages: list, workers: int, stopping: jobs.Stopping):
        self.stages, self.workers, self.stopping = stages, workers, stopping
        self.lost, self.failed = dict[Path, int](), list[str]()
        self.began, self.estimated = time.monotonic(), 0.0  # minutes of the jobs that have ended

    def train(self, stage) -> None:
        """Train the waves of a stage, and print its table when all of them are done.

        An InputError ends this stage alone.
        """
        try:
            check(stage)
            self.show(stage)
            for wave in stage.waves():
                self.train_wave(stage, [run for run in wave if run.folder not in self.lost])
                undone = stage.adaptive and not all(run.settled for run in wave)
                if self.stopping.asked or undone:
                    return
            if not stage.unsettled():
                print(stage.table(), flush=True)
        except InputError as error:
            self.failed.append(f"{stage.name}: {error}")
            print(f"error: {self.failed[-1]}", file=sys.stderr, flush=True)

    def train_wave(self, stage, wave: list) -> None:
        by_folder = {run.folder: run for run in wave if not run.settled}

        def ended(job: jobs.Job, status: int) -> None:
            self.estimated += by_folder[job.folder].minutes if status == 0 else 0
            self.show(stage)

        self.lost |= jobs.train(
            [run.job for run in by_folder.values()],
            jobs.start_here(self.workers),
            self.workers,
            self.stopping,
            lambda job: by_folder[job.folder].settled,
            ended,
        )

    def show(self, stage) -> None:
        """Print how far the stage is and when it and the plan end."""
        total, left = sum(map(len, stage.waves())), stage.unsettled()
        n = self.stages.index(stage)
        coming = sum(minutes(unsettled(later)) for later in self.stages[n:])
        # How long this machine takes for a minute of the plan's file, as the jobs so far show it.
        spent = (time.monotonic() - self.began) / 60
        pace = spent / self.estimated if self.estimated else 1 / self.workers
        print(
            f"stage {n + 1} of {len(self.stages)}: {stage.name}, {total - len(left)}/{total} runs, "
            f"ETA {pace * minutes(left):.0f} min, of the plan {pace * coming:.0f} min",
            flush=True,
        )

    def status(self) -> int:
        """Print what is left; return the exit status of the command."""
        if self.stopping.asked:
            why = "Stopped" if self.stopping.by_signal else "The time is up"
            print(f"{why}; the same command goes on from here. What remains:")
            for stage in self.stages:
                if left := unsettled(stage):
                    print(f"  {stage.name}: {len(left)} runs, {minutes(left):.0f} min")
        status = jobs.report(self.lost)
        if self.failed:
            print(f"{len(self.failed)} stages failed:", *self.failed, sep="\n  ", file=sys.stderr)
        if self.stopping.by_signal:
            return cli.INTERRUPTED
        if self.lost and not status and not self.stopping.asked:
            return cli.BUSY  # the runs that another process is at work on
        return 1 if self.failed else status


def check(stage) -> None:
    """Check the runs of a stage that have not begun.

    Raises:
        InputError: the stage needs a choice, or a run cannot be trained.
    """
    from ln.training import train

    if stage.settings_of:
        raise InputError(
            f"It needs the choice of {stage.settings_of}, which is not recorded yet. "
            f"Train that stage, and paste the [stage.choice] that it prints into the plan."
        )
    runs = {run.folder: run for wave in stage.waves() for run in wave if not run.begun}
    for run in runs.values():
        config = jobs.checked(run.folder.name, run.resolved(), {})
        if len(lanes := train.make_lanes(config)) != 1:
            raise InputError(f"{run.folder.name} has {len(lanes)} lanes; give one seed and lr.")


def list_stages(stages: list) -> None:
    """Print the runs and minutes of each stage, and the folders if a stage was named.

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
        if ONLY.value:
            print(*(f"  {run.folder}, {run.steps}" for run in left), sep="\n")


def run(root: Path, workers: int, dry_run: bool) -> int:
    """Do what --plan and the flags beside it say; return the exit status of the command."""
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
        collect.collect(stages, Path(PLAN.value).parent, dry_run)
        return 0
    if dry_run:
        list_stages(stages)
        return 0
    with writing(root, "--root"):
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    with jobs.Stopping(seconds) as stopping:
        runner = Runner(stages, workers, stopping)
        for stage in stages:
            if not stopping.asked:
                runner.train(stage)
        return runner.status()
