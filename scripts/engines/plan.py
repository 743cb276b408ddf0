"""The runner of a plan: trains the runs of its stages in order, for as long as it may."""

from collections.abc import Callable
import math
from pathlib import Path
import sys

from absl import flags

from ln.errors import InputError, writing
from scripts import cli
from scripts.engines import jobs
from scripts.engines.devices import Environment

PLAN = flags.DEFINE_string("plan", None, "plan: a file of stages, such as results/plan.toml")
ONLY = flags.DEFINE_string("only", "", "plan: only the stages whose names begin with this")
MINUTES = flags.DEFINE_float("minutes", math.inf, "plan: time after which runs save and end", 0)
COLLECT = flags.DEFINE_bool(
    "collect", False, "plan: copies finished runs beside the plan's file, and updates documents"
)


def minutes(runs) -> float:
    return sum(run.minutes for run in runs)


class Runner:
    """Trains stages. A run that fails, or that another process has, is left.

    Attributes:
        lost: the exit status of each run that is left, by folder.
        failed: whether a stage ended by an error.
    """

    def __init__(self, stages: list, start: jobs.Start, workers: int, stopping: jobs.Stopping):
        self.stages, self.start, self.workers, self.stopping = stages, start, workers, stopping
        self.lost, self.failed = dict[Path, int](), False

    def train(self, stage) -> None:
        """Train the waves of a stage, and print its table when all of them are done.

        An InputError ends this stage alone.
        """
        try:
            check(stage)
            for wave in stage.waves():
                self.show(stage)
                self.train_wave([run for run in wave if run.folder not in self.lost])
                if self.stopping.asked:
                    return
            if not stage.unsettled():
                print(stage.table(), flush=True)
        except InputError as error:
            self.failed = True
            print(f"error: stage {stage.name}: {error}", file=sys.stderr, flush=True)

    def train_wave(self, wave: list) -> None:
        by_folder = {run.folder: run for run in wave if not run.settled}
        self.lost |= jobs.train(
            [run.job for run in by_folder.values()],
            self.start,
            self.workers,
            self.stopping,
            lambda job: by_folder[job.folder].settled,
        )

    def show(self, stage) -> None:
        """Print how many of the known runs of a stage are done, and how long the rest takes."""
        known, left = stage.known(), stage.unsettled()
        time = minutes(left) / self.workers
        print(
            f"stage {self.stages.index(stage) + 1} of {len(self.stages)}: {stage.name}, "
            f"{len(known) - len(left)}/{len(known)} runs, {time:.0f} min left",
            flush=True,
        )

    def status(self) -> int:
        """Print what has failed; return the exit status of the command."""
        if self.stopping.asked:
            why = "Stopped" if self.stopping.by_signal else "The time is up"
            print(f"{why}; the same command goes on from here. --dry_run lists what remains.")
        status = jobs.report(self.lost)
        if self.stopping.by_signal:
            return cli.INTERRUPTED
        return 1 if self.failed else status


def check(stage) -> None:
    """Check the known runs of a stage that have not begun.

    Raises:
        InputError: the stage needs a choice, or a run cannot be trained.
    """
    if stage.settings_of:
        raise InputError(
            f"It needs the choice of {stage.settings_of}, which is not recorded yet. "
            f"Train that stage, and paste the [stage.choice] that it prints into the plan."
        )
    for run in {run.folder: run for run in stage.known() if not run.begun}.values():
        jobs.checked(run.folder.name, run.resolved(), {})


def list_stages(stages: list) -> None:
    """Print the known runs and minutes of each stage, and the folders if a stage was named."""
    for stage in stages:
        known, left = stage.known(), stage.unsettled()
        print(
            f"{stage.name}: {len(known)} runs known, {len(known) - len(left)} finished, "
            f"{len(left)} to do, {minutes(left):.0f} min"
        )
        if ONLY.value:
            print(*(f"  {run.folder}, {run.steps}" for run in left), sep="\n")


def run(root: Path, shares: Callable[[], list[Environment]], dry_run: bool) -> int:
    """Do what --plan and the flags beside it say; return the exit status of the command."""
    # jax takes a second: not before the flags are known to be right.
    from scripts.engines import collect
    from scripts.engines import stages as kinds

    file = Path(str(PLAN.value))
    stages = [s for s in kinds.read(file, root) if s.name.startswith(str(ONLY.value))]
    if not stages:
        raise InputError(f"--only={ONLY.value}: no stage of {PLAN.value} begins with this.")
    if COLLECT.value:
        collect.collect(stages, file.parent, dry_run)
        return 0
    if dry_run:
        list_stages(stages)
        return 0
    with writing(root, "--root"):
        root.mkdir(parents=True, exist_ok=True)
    places = shares()
    with jobs.Stopping(60 * MINUTES.value) as stopping:
        runner = Runner(stages, jobs.start_here(places), len(places), stopping)
        for stage in stages:
            if not stopping.asked:
                runner.train(stage)
        return runner.status()
