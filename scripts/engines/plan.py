"""The runner of a plan: trains the runs of its stages in order, for as long as it may."""

from collections.abc import Callable
import itertools
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
COLLECT = flags.DEFINE_bool("collect", False, "plan: copies finished runs beside the plan's file")


def train(stages: list, start: jobs.Start, clock: jobs.Clock, stopping: jobs.Stopping) -> int:
    """Train the waves of each stage, and print its table when all of them are done.

    A run that fails, or that another process has, is left. An InputError ends its stage alone.

    Returns:
        The exit status of the command.
    """
    lost, failed = dict[Path, int](), False
    for number, stage in enumerate(stages, start=1):
        place = f"stage {number} of {len(stages)}:"
        try:
            stage.check()
            for wave in itertools.takewhile(lambda _: not stopping.asked, stage.waves()):
                print(place, describe(stage, stages[number - 1 :], clock), flush=True)
                left = {r.folder: r for r in wave if not (r.settled or r.folder in lost)}
                todo = [run.job for run in left.values()]
                later = sum(map(minutes_left, stages[number - 1 :])) - sum(j.minutes for j in todo)
                is_done = lambda job, left=left: left[job.folder].settled  # noqa: E731
                lost |= jobs.train(todo, start, clock, stopping, is_done, later)
            if not stage.unsettled():
                print(stage.table(), flush=True)
        except InputError as error:
            failed = True
            print(f"error: stage {stage.name}: {error}", file=sys.stderr, flush=True)
    if stopping.asked:
        why = "Stopped" if stopping.by_signal else "The time is up"
        print(f"{why}; the same command continues from here. --dry_run lists what remains.")
    status = jobs.report(lost)
    return cli.INTERRUPTED if stopping.by_signal else 1 if failed else status


def minutes_left(stage) -> float:
    """Return the minutes that the known runs take; 0 if one is damaged: `train` says so."""
    try:
        return sum({run.folder: run.left for run in stage.unsettled()}.values())
    except InputError:
        return 0.0


def describe(stage, plan: list, clock: jobs.Clock) -> str:
    """Return how many of the known runs are done, and how long the rest and the plan take."""
    known, left = stage.known(), stage.unsettled()
    eta = clock.eta(minutes_left(stage)) + clock.eta(sum(map(minutes_left, plan)), "of the plan")
    return f"{stage.name}, {len(known) - len(left)}/{len(known)} runs{eta}"


def run(root: Path, shares: Callable[[], list[Environment]], dry_run: bool) -> int:
    """Do what --plan and the flags beside it say; return the exit status of the command."""
    # jax takes a second: not before the flags are known to be right.
    from scripts.engines import stages as kinds

    file = Path(str(PLAN.value))
    stages = [s for s in kinds.read(file, root) if s.name.startswith(str(ONLY.value))]
    if not stages:
        raise InputError(f"--only={ONLY.value}: no stage of {PLAN.value} begins with this.")
    if COLLECT.value:
        kinds.collect(stages, file.parent, dry_run)
        return 0
    if dry_run:
        for number, stage in enumerate(stages, start=1):
            text = describe(stage, stages[number - 1 :], jobs.Clock(1, 1.0))
            print(f"stage {number} of {len(stages)}: {text}")
            if ONLY.value:
                print(*(f"  {run.folder}, {run.steps}" for run in stage.unsettled()), sep="\n")
        return 0
    with writing(root, "--root"):
        root.mkdir(parents=True, exist_ok=True)
    places = shares()
    with jobs.Stopping(60 * MINUTES.value) as stopping:
        return train(stages, jobs.start_here(places), jobs.Clock(len(places), 1.0), stopping)
