"""A plan of runs: its stages, the scores that choose among runs, tables, and the runner.

A stage gives its runs in waves. If a wave depends on the measurements of the waves before, the
stage gives it only once their runs are settled.
"""

import collections
from collections.abc import Callable, Iterator
import dataclasses
import functools
import itertools
import json
import math
from pathlib import Path
import sys
import tomllib
from typing import Any, NamedTuple

from absl import flags
from flax.traverse_util import flatten_dict
import numpy as np

import experiments
from experiments.curves import PUBLISHED, published
from ln.errors import InputError, choose, writing
from ln.training import runs
from scripts import cli
from scripts.engines import jobs
from scripts.engines.devices import Environment
from scripts.pages import documents
from scripts.pages.sections import read_length

FLAGS = flags.FLAGS  # of scripts.sweep
Point = dict[str, Any]  # config key -> value
SHORT_SEEDS = [0, 1]  # at which learning rates are compared
WIDENINGS = 2  # of a grid of learning rates, at most


# --- What a plan is made of ---


def flat(table: dict) -> Point:
    """Return a table of a plan with keys such as "optimizer.b2"."""
    return flatten_dict(table, sep=".")


def product(grid: dict | list[dict]) -> list[Point]:
    """Return the points of a grid, or of several, the last key varying fastest."""
    points = []
    for table in grid if isinstance(grid, list) else [grid]:
        axes = flat(table)
        values = [v if isinstance(v, list) else [v] for v in axes.values()]
        points += [dict(zip(axes, point, strict=True)) for point in itertools.product(*values)]
    return points


class Run(NamedTuple):
    """A run trained to a length.

    Attributes:
        config: config file, and :scale.
        minutes: what the run takes an idle machine from its first step, by the plan's file.
    """

    folder: Path
    config: str
    settings: Point
    steps: str
    minutes: float

    def resolved(self):
        """Return the whole config."""
        values = self.settings | dict(steps=self.steps)
        return jobs.override(cli.read_config_file(self.config), values)

    @property
    def job(self) -> jobs.Job:
        """Return the run as a job, which takes the minutes that are left."""
        return jobs.Job(self.folder, self.resolved().to_json(), self.left)

    @property
    def stored(self) -> runs.Stored | None:
        """Return the run as it is on the disk; None if it has not begun."""
        return runs.read(self.folder) if (self.folder / "config.json").is_file() else None

    @property
    def settled(self) -> bool:
        """Return whether nothing is left to train: the length is reached, or the run diverged."""
        if (stored := self.stored) is None or stored.diverged:
            return stored is not None
        planned, count = (read_length(text)[0] for text in (stored.config["steps"], self.steps))
        return stored.finished if planned == count else planned > count and self.done >= 1

    @property
    def left(self) -> float:
        """Return the minutes that it takes from its last step on, by the plan's file."""
        return self.minutes * max(0.0, 1.0 - self.done)

    @property
    def done(self) -> float:
        """Return the share of its length that the run has reached."""
        count, unit = read_length(self.steps)
        return stored.progress(unit) / count if (stored := self.stored) else 0.0

    def readings(self) -> list[runs.Reading]:
        """Return the readings up to this length, none of a run that has not reached it."""
        count, unit = read_length(self.steps)
        rows = runs.read(self.folder).rows if self.done >= 1 else []
        return [row for row in rows if (getattr(row, unit) or 0) <= count]

    def best(self) -> float:
        """Return the best score, NaN if the run diverged before its end or has none."""
        steps = {row.step for row in self.readings()}
        best = runs.read(self.folder).best(steps=steps) if steps else None
        return best[1] if best else math.nan


@dataclasses.dataclass(kw_only=True)
class Stage:
    """A part of the plan: all points of a grid, trained to one length after the other.

    Attributes:
        config: config file, and :scale.
        settings: values of all runs.
        settings_of: the stage whose choice is added to them; "" once it is.
        choice: the settings that this stage chose, recorded by hand.
        minutes: those of a run to its last length.
    """

    name: str
    config: str
    root: Path
    settings: dict = dataclasses.field(default_factory=dict)
    settings_of: str = ""
    choice: dict = dataclasses.field(default_factory=dict)
    grid: dict | list = dataclasses.field(default_factory=dict)
    steps: str | list = ""
    minutes: float = 0.0

    def points(self) -> list[Point]:
        """Return what the runs differ in."""
        return product(self.grid)

    def waves(self) -> Iterator[list[Run]]:
        """Yield the runs, those of a wave that depends on others only once these are settled."""
        lengths = [self.steps] if isinstance(self.steps, str) else self.steps
        for steps in lengths:
            share = read_length(steps)[0] / read_length(lengths[-1])[0]
            yield [self.run(point, steps, share * self.minutes) for point in self.points()]

    def table(self) -> str:
        """Return what the finished stage shows, as text."""
        return ""

    @functools.cached_property
    def varying(self) -> set[str]:
        """Return the keys of which not all points have the same value: they name the runs."""
        points = self.points()
        keys = {key for point in points for key in point}
        return {key for key in keys if len({str(point.get(key)) for point in points}) > 1}

    @property
    def folder(self) -> Path:
        """Return the folder of the runs."""
        return self.root / self.name

    def known(self) -> list[Run]:
        """Return the runs of all waves so far; a run counts once for each of its lengths."""
        waves = itertools.chain(*self.waves())
        return list({(run.folder, run.steps): run for run in waves}.values())

    def unsettled(self) -> list[Run]:
        """Return the known runs that are left."""
        return [run for run in self.known() if not run.settled]

    def run(self, point: Point, steps: str, minutes: float) -> Run:
        """Return the run of a point, whose name has its varying values, the norm first."""
        keys = sorted(self.varying & point.keys(), key=["norm", *point].index)
        name = ",".join(f"{key}={point[key]}" for key in keys).replace(" ", "") or "run"
        settings = flat(self.settings) | point
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        return Run(self.folder / name, self.config, values, steps, minutes)

    @property
    def left(self) -> float:
        """Return the minutes that the known runs take; 0 if one is damaged: `train` says so."""
        try:
            return sum({run.folder: run.left for run in self.unsettled()}.values())
        except InputError:
            return 0.0

    def describe(self, plan: list["Stage"], clock: jobs.Clock) -> str:
        """Return how many of the known runs are done, and how long the rest and the plan take."""
        known, left = self.known(), self.unsettled()
        eta = clock.eta(self.left) + clock.eta(sum(s.left for s in plan), "of the plan")
        return f"{self.name}, {len(known) - len(left)}/{len(known)} runs{eta}"

    def check(self) -> None:
        """Check the runs that have not begun.

        Raises:
            InputError: the stage needs a choice, two runs are the same, or a run cannot be trained.
        """
        if self.settings_of:
            remedy = "Train that stage, and paste the [stage.choice] that it prints into the plan."
            raise InputError(f"It needs the choice of {self.settings_of}, not yet made. {remedy}")
        point, times = collections.Counter(map(str, self.points())).most_common(1)[0]
        if times > 1:
            raise InputError(f"the grid has {times} times {point}.")
        for run in {run.folder: run for run in self.known() if run.stored is None}.values():
            jobs.checked(run.folder.name, run.resolved(), {})


# --- Stages that choose ---


@dataclasses.dataclass(kw_only=True)
class Halving(Stage):
    """Successive halving: the settings of a grid that come closest to published curves.

    Attributes:
        grid: the settings, the simpler ones first.
        rungs: each with the curves that are trained for each setting (config keys, steps, epochs
            that are compared, minutes) and how many settings to keep (default: all).
        score: panel -> split, metric, weight; the name of the panel may contain {batch_size}.
        published: the file of results/published with the curves; its first epoch is 0.
    """

    rungs: list
    score: dict
    published: str

    def __post_init__(self):
        for curve, table in itertools.chain(*map(curves_of, self.rungs)):
            self.targets(curve, table["epochs"])  # before any training: raises if one is missing

    def points(self):
        """Return what the runs differ in."""
        curves = [curve for rung in self.rungs for curve, _ in curves_of(rung)]
        return [curve | setting for curve in curves for setting in product(self.grid)]

    def targets(self, curve: Point, epochs: list[int]) -> list[tuple[dict, int, float]]:
        """Return the published value of each quantity and epoch of a curve.

        Raises:
            InputError: one of them was not published.
        """
        known, targets = published_curves(self.published), []
        for (panel, quantity), epoch in itertools.product(self.score.items(), epochs):
            name = (panel.format(**curve), curve["norm"])
            values = known[name].at(epoch) if name in known else np.empty(0)
            if not values.size:
                raise InputError(f"{self.published} has no epoch {epoch} of {', '.join(name)}.")
            targets.append((quantity, epoch, values.mean()))
        return targets

    def rounds(self) -> Iterator[tuple[dict, list[Point]]]:
        """Yield each rung with its settings, the best of the rung before by its scores now."""
        settings = product(self.grid)
        for rung in self.rungs:
            yield rung, settings
            settings = sorted(settings, key=functools.partial(self.score_of, rung))
            settings = settings[: rung.get("keep")]

    def waves(self):
        """Yield the runs in the order in which they become known."""
        for rung, settings in self.rounds():
            wave = [
                self.run(curve | setting, table["steps"], table["minutes"])
                for setting in settings
                for curve, table in curves_of(rung)
            ]
            yield wave
            if not all(run.settled for run in wave):
                return

    def score_of(self, rung: dict, setting: Point) -> float:
        """Return the mean of weight · |ln(ours / published)| over the cells of a rung."""
        cells = []
        for curve, table in curves_of(rung):
            rows = self.run(curve | setting, table["steps"], 0).readings()
            ours = {(row.split, row.epoch): row.values for row in rows}
            for quantity, epoch, theirs in self.targets(curve, table["epochs"]):
                values = ours.get((quantity["split"], epoch + 1), {})  # ours are 1 after the first
                ratio = values.get(quantity["metric"], 0) / theirs
                distance = abs(math.log(ratio)) if ratio > 0 else math.inf
                cells.append(quantity["weight"] * distance)
        return float(np.mean(cells))

    def chosen(self) -> Point | None:
        """Return the setting with the best score after the last rung, if it has one."""
        *_, (rung, settings) = self.rounds()
        score, n = min((self.score_of(rung, setting), n) for n, setting in enumerate(settings))
        return settings[n] if score < math.inf else None

    def table(self):
        """Return what the finished stage shows."""
        chosen = self.chosen()
        if chosen is None:
            return f"{self.name}: no setting has readings of all cells; change its grid."
        lines = [f"{self.name}: scores after each rung (less is better)"]
        for number, (rung, settings) in enumerate(self.rounds(), 1):
            for setting in settings:
                values = ", ".join(f"{key}={value}" for key, value in setting.items())
                lines.append(f"  rung {number} {self.score_of(rung, setting):8.3f}  {values}")
        lines += [f"To record the choice, add to the stage {self.name!r}:", "", "[stage.choice]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in chosen.items()]
        return "\n".join(lines)


def curves_of(rung: dict) -> Iterator[tuple[Point, dict]]:
    """Yield what the runs of a rung differ in, for one setting, and the table that each is from."""
    for curves in rung["curves"]:
        grid = {k: v for k, v in curves.items() if k not in ("steps", "epochs", "minutes")}
        for point in product(grid):
            yield point, curves


@functools.cache
def published_curves(name: str):
    """Return the published curves of a figure."""
    return published(PUBLISHED / f"{name}.csv")


@dataclasses.dataclass(kw_only=True)
class Fair(Stage):
    """A learning rate for each norm by the same rule, then other seeds at that rate.

    Attributes:
        rates: the grid of each norm. A grid whose best rate is at its edge is widened there, at
            most WIDENINGS times.
        length_short: the length at which rates are compared, with SHORT_SEEDS.
        seeds, steps: those of the runs at the best rate and at the one with the best mean rank.
        check_ranking: whether to train the grid to its full length too.
    """

    norms: list
    rates: list
    seeds: list
    length_short: str
    steps: str
    check_ranking: bool = False

    def points(self):
        """Return what the runs differ in."""
        return product(dict(norm=self.norms, lr=self.rates, seeds=SHORT_SEEDS))

    def runs(self, norm: str, rates, seeds, steps: str) -> list[Run]:
        """Return the runs of a norm."""
        minutes = self.minutes * read_length(steps)[0] / read_length(self.steps)[0]
        points = [dict(norm=norm, lr=lr, seeds=seed) for lr in rates for seed in seeds]
        return [self.run(point, steps, minutes) for point in points]

    def waves(self):
        """Yield the runs in the order in which they become known."""
        for times in range(WIDENINGS + 1):
            short = SHORT_SEEDS, self.length_short
            grids = [(norm, self.widened(norm, times)) for norm in self.norms]
            wave = [run for norm, rates in grids for run in self.runs(norm, rates, *short)]
            yield wave
            if not all(run.settled for run in wave):
                return
        wave = []
        for norm in self.norms:
            rates = self.widened(norm)
            if best := self.best(norm, rates):
                both = dict.fromkeys((best, self.common()))
                wave += self.runs(norm, both, self.seeds, self.steps)
                wave += self.runs(norm, rates, SHORT_SEEDS, self.steps) * self.check_ranking
        yield wave

    def widened(self, norm: str, times: int = WIDENINGS) -> list[float]:
        """Return the rates of a norm, widened so many times where the best is at the edge."""
        rates = sorted(self.rates)
        for _ in range(times):
            best = self.best(norm, rates)
            if best == rates[0]:
                rates.insert(0, following(*rates[2::-1]))
            elif best == rates[-1]:
                rates.append(following(*rates[-3:]))
        return rates

    def scores(self, norm: str, rate: float, steps: str) -> list[float]:
        """Return the best score of each short seed."""
        return [run.best() for run in self.runs(norm, [rate], SHORT_SEEDS, steps)]

    def order(self, norm: str, rates: list[float]) -> list[float]:
        """Return the rates of a norm from the best to the worst; [] if all diverged."""
        sign = runs.SIGNS[cli.read_config_file(self.config).select.mode]
        means = [sign * np.mean(self.scores(norm, rate, self.length_short)) for rate in rates]
        losses = dict(zip(rates, np.nan_to_num(means, nan=math.inf), strict=True))
        return ranked(losses) if min(losses.values()) < math.inf else []

    def best(self, norm: str, rates: list[float]) -> float | None:
        """Return the best rate, None if all diverged."""
        return next(iter(self.order(norm, rates)), None)

    def common(self) -> float | None:
        """Return the rate of all norms; None if every norm diverged at every rate."""
        rates = sorted(self.rates)
        orders = list(filter(None, (self.order(norm, rates) for norm in self.norms)))
        ranks = {rate: float(sum(order.index(rate) for order in orders)) for rate in rates}
        return ranked(ranks)[0] if orders else None

    def table(self):
        """Return what the finished stage shows."""
        lines = [f"{self.name}: config.select, seeds {SHORT_SEEDS}"]
        lengths = [self.length_short, self.steps] if self.check_ranking else [self.length_short]
        for norm, steps in itertools.product(self.norms, lengths):
            rates = self.widened(norm)
            best = self.best(norm, rates)
            for rate in rates:
                seeds = ", ".join(f"{value:.4g}" for value in self.scores(norm, rate, steps))
                edge = ", at the edge" if rate in (rates[0], rates[-1]) else ""
                mark = f"  <- best at {self.length_short}{edge}" if rate == best else ""
                lines.append(f"  {norm:12} {steps:12} {rate:<8g} {seeds}{mark}")
        return "\n".join([*lines, f"The common rate is {self.common()}."])


def ranked(losses: dict[float, float]) -> list[float]:
    """Return rates from the best to the worst; of equal ones first the middle of the grid."""
    rates = list(losses)
    middle = (len(rates) - 1) / 2
    return sorted(rates, key=lambda rate: (losses[rate], abs(rates.index(rate) - middle), rate))


def following(a: float, b: float, c: float) -> float:
    """Return the number behind three of a grid: 0.1, 0.3, 1 is followed by 3."""
    return float(f"{c * b / a:.6g}")


# --- The file, and the folder of results beside it ---

COPIED = ("config.json", "sessions.jsonl", "finished.json", "diverged.jsonl", "dead.jsonl")
LARGEST = 20e6  # bytes of the folder of results, which each clone downloads
KINDS = {"sweep": Stage, "halving": Halving, "fair": Fair}


def read(path: Path, root: Path) -> list[Stage]:
    """Return the stages of a plan.

    Raises:
        InputError: the file is missing or is not TOML, or a stage is wrong.
    """
    stages: dict[str, Stage] = {}
    name = ""
    try:
        for table in tomllib.loads(path.read_text(encoding="utf-8"))["stage"]:
            name = f"stage {table['name']!r}: "
            stage = choose("kind", table.pop("kind"), KINDS)(**table, root=root)
            if stage.settings_of and (choice := stages[stage.settings_of].choice):
                stage.settings |= choice
                stage.settings_of = ""
            stages[stage.name] = stage
    except KeyError as error:
        raise InputError(f"--plan={path} cannot be used: {name}there is no {error}.") from error
    except (OSError, TypeError, ValueError) as error:  # InputError, too
        raise InputError(f"--plan={path} cannot be used: {name}{error}") from error
    return list(stages.values())


def collect(stages: list[Stage], results: Path, dry_run: bool = False) -> None:
    """Copy finished and diverged runs to results/<experiment>/<stage>/<run>.

    Other files of these folders stay as they are. Then the tables in documents are written anew.

    Raises:
        InputError: something else than an earlier state of the run has that folder, or the folder
            of results would be too large.
    """
    texts = dict[Path, str]()
    for run in (runs.read(folder) for stage in stages for folder in runs.find(stage.folder)):
        if run.finished or run.diverged:
            folder = results / run.config["experiment"] / Path(*run.folder.parts[-2:])
            check_place(run, folder)
            texts |= {folder / name: text for name, text in contents(run).items()}
            if dry_run:
                print(f"{run.folder} -> {folder}")
    others = [p for p in results.rglob("*") if p.is_file() and p not in texts]
    size = sum(p.stat().st_size for p in others) + sum(len(t.encode()) for t in texts.values())
    if size > LARGEST:
        message = f"{results} would have {size / 1e6:.1f} MB; {LARGEST / 1e6:.0f} MB is the most."
        raise InputError(f"{message} Take fewer stages with --only, or move old runs away.")
    copied = len({path.parent for path in texts})
    print(f"{copied} runs {'would be' if dry_run else 'are'} copied to {results}.")
    if dry_run:
        return
    with writing(results, "folder for the plan's file"):
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            runs.write_atomically(path, text)
    if results.resolve() == documents.RESULTS:
        documents.write()


def check_place(run: runs.Stored, folder: Path) -> None:
    """Raise InputError if a folder holds something else than an earlier state of the run."""
    if not folder.exists():
        return
    known = runs.read(folder) if (folder / "config.json").is_file() else None
    aside = {key: run.config[key] for key in (*runs.PLACES, runs.LENGTH)}
    if not known or known.config | aside != run.config or known.progress() > run.progress():
        raise InputError(f"{folder} is not the run in {run.folder}; move one of them away.")


def contents(run: runs.Stored) -> dict[str, str]:
    """Return the files to copy; of the metrics those of updates only if a figure shows them."""
    file = experiments.part(run.config["experiment"], "figures")
    panels = [panel for figure in getattr(file, "FIGURES", ()) for panel in figure.panels]
    drawn = any(panel.split == "update" for panel in panels)
    kept = [row.row for row in run.rows if row.split != "update" or drawn]
    files = (run.folder / name for name in COPIED)
    texts = {file.name: file.read_text(encoding="utf-8") for file in files if file.exists()}
    return texts | {"metrics.jsonl": "".join(map(runs.to_line, kept))}


# --- The runner ---


def train(
    stages: list[Stage], start: jobs.Start, clock: jobs.Clock, stopping: jobs.Stopping
) -> int:
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
                print(place, stage.describe(stages[number - 1 :], clock), flush=True)
                left = {r.folder: r for r in wave if not (r.settled or r.folder in lost)}
                todo = [run.job for run in left.values()]
                later = sum(s.left for s in stages[number - 1 :]) - sum(j.minutes for j in todo)
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


def run(root: Path, shares: Callable[[], list[Environment]], dry_run: bool) -> int:
    """Do what --plan and the flags beside it say; return the exit status of the command."""
    file = Path(FLAGS.plan)
    stages = [s for s in read(file, root) if s.name.startswith(FLAGS.only)]
    if not stages:
        raise InputError(f"--only={FLAGS.only}: no stage of {FLAGS.plan} begins with this.")
    if FLAGS.collect:
        collect(stages, file.parent, dry_run)
        return 0
    if dry_run:
        for number, stage in enumerate(stages, start=1):
            text = stage.describe(stages[number - 1 :], jobs.Clock(1, 1.0))
            print(f"stage {number} of {len(stages)}: {text}")
            if FLAGS.only:
                print(*(f"  {run.folder}, {run.steps}" for run in stage.unsettled()), sep="\n")
        return 0
    with writing(root, "--root"):
        root.mkdir(parents=True, exist_ok=True)
    places = shares()
    with jobs.Stopping(60 * FLAGS.minutes) as stopping:
        return train(stages, jobs.start_here(places), jobs.Clock(len(places), 1.0), stopping)
