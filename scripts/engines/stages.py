"""Stages of a plan: the runs of each, the scores that choose among them, and its table.

A stage gives its runs in waves. A wave may depend on what the runs of the waves before have
measured; before they have, it has as many runs as there can be at most.
"""

import collections
from collections.abc import Iterator
import dataclasses
import functools
import itertools
import json
import math
from pathlib import Path
import tomllib
from typing import Any, ClassVar, NamedTuple, NoReturn, get_type_hints

import numpy as np
import scipy.stats

from experiments.curves import Curve, published
from ln.errors import InputError, choose, nearest
from ln.training import runs
from scripts.engines import jobs
from scripts.pages.sections import PUBLISHED

Point = dict[str, Any]  # config key -> value
Number = float | int  # as TOML has them
SHORT_SEEDS = [0, 1]  # at which learning rates are compared
WIDENINGS = 2  # of a grid of learning rates, at most


# --- What a plan is made of ---


class Length(NamedTuple):
    """A length such as "65 epochs" or "300 steps"."""

    count: float
    unit: str

    @classmethod
    def read(cls, text: Any) -> "Length":
        number, _, unit = str(text).strip().partition(" ")
        try:
            return cls(float(number), unit.strip().removesuffix("s") or "step")
        except ValueError as error:
            message = f'{text!r} is not a length; write "300 steps" or "65 epochs".'
            raise InputError(message) from error

    def of(self, row: runs.Reading) -> float:
        """Return how far a reading is, in this unit."""
        return (row.epoch if self.unit == "epoch" else row.step) or 0


def product(grid: dict | list[dict]) -> list[Point]:
    """Return the points of a grid, or of several, the last key varying fastest."""
    points = []
    for table in grid if isinstance(grid, list) else [grid]:
        axes = jobs.flat(table)
        values = [v if isinstance(v, list) else [v] for v in axes.values()]
        points += [dict(zip(axes, point, strict=True)) for point in itertools.product(*values)]
    return points


def build(kind: type, place: str, table: Any, **more):
    """Return a dataclass with the values of a table.

    Raises:
        InputError: a key is unknown or missing, or its value is of another type.
    """
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in more}
    if not isinstance(table, dict):
        raise InputError(f"{place} is {table!r}; it must be a table with {', '.join(fields)}.")
    hints = get_type_hints(kind)
    for key, value in table.items():
        if key not in fields:
            raise InputError(f"{place} has no key {key!r}.{nearest(key, fields)}")
        if not isinstance(value, hints[key]):
            name = getattr(hints[key], "__name__", hints[key])
            raise InputError(f"{place}: {key} is {value!r}; it must be of type {name}.")
    for key, field in fields.items():
        if key not in table and field.default is field.default_factory is dataclasses.MISSING:
            raise InputError(f"{place} has no {key!r}; add it.")
    return kind(**table, **more)


class Run(NamedTuple):
    """A run trained to a length.

    Attributes:
        config: config file, and :scale.
        minutes: what the run takes an idle machine, by the plan's file.
    """

    folder: Path
    config: str
    settings: Point
    steps: str
    minutes: float

    def resolved(self):
        """Return the whole config."""
        values = self.settings | dict(steps=self.steps)
        return jobs.override(jobs.read_config(self.config), values)

    @property
    def job(self) -> jobs.Job:
        return jobs.Job.make(self.folder, self.resolved())

    @property
    def begun(self) -> bool:
        return (self.folder / "config.json").is_file()

    @property
    def settled(self) -> bool:
        """Return whether nothing is left to train: the length is reached, or the run diverged."""
        if not self.begun:
            return False
        stored, count = runs.read(self.folder), Length.read(self.steps).count
        planned = Length.read(stored.config["steps"]).count
        if stored.diverged or (planned == count and stored.finished):
            return True
        return planned > count and bool(self.readings())

    def readings(self) -> list[runs.Reading]:
        """Return the readings up to this length, none of a run that has not reached it."""
        length = Length.read(self.steps)
        rows = runs.read(self.folder).rows if self.begun else []
        reached = any(length.of(row) >= length.count for row in rows)
        return [row for row in rows if length.of(row) <= length.count] if reached else []

    def best(self) -> float:
        """Return the best score, NaN if the run diverged before its end or has none."""
        steps = {row.step for row in self.readings()}
        best = runs.read(self.folder).best(steps=steps) if steps else None
        return best[1] if best else math.nan


@dataclasses.dataclass(kw_only=True)
class Stage:
    """A part of the plan.

    Attributes:
        config: config file, and :scale.
        settings: values of all runs.
        settings_of: the stage whose choice is added to them; "" once it is.
        choice: the settings that this stage chose, recorded by hand.
    """

    name: str
    config: str
    settings: dict = dataclasses.field(default_factory=dict)
    settings_of: str = ""
    choice: dict = dataclasses.field(default_factory=dict)
    root: Path

    adaptive: ClassVar[bool] = True  # later waves depend on all runs of the earlier ones

    def __post_init__(self):
        self.settings = jobs.flat(self.settings)
        for wave in self.points():
            for point in wave:
                self.join(self.settings | dict(steps=""), point)
            folders = collections.Counter(self.run(point, "", 0).folder for point in wave)
            for folder, count in folders.items():
                if count > 1 or folder.parent != self.folder:
                    self.fail(f"{count} runs would have the folder {folder}; change their values.")

    def fail(self, words: str) -> NoReturn:
        raise InputError(f"stage {self.name!r}: {words}")

    def join(self, first: Point, second: Point) -> Point:
        if twice := first.keys() & second.keys():
            self.fail(f"{min(twice)!r} is given twice; give it once.")
        return first | second

    def points(self) -> list[list[Point]]:
        """Return what the runs of each wave differ in, as many as there can be at most."""
        raise NotImplementedError

    def waves(self) -> Iterator[list[Run]]:
        raise NotImplementedError

    def table(self) -> str:
        """Return what the finished stage shows, as text."""
        return ""

    @property
    def folder(self) -> Path:
        return self.root / self.name

    def unsettled(self) -> list[Run]:
        """Return the runs that are left, at most; a run counts once for each of its lengths."""
        return [run for wave in self.waves() for run in wave if not run.settled]

    def known(self) -> list[Run]:
        """Return the runs that depend on no measurement that is still to be made."""
        known: list[Run] = []
        for wave in self.waves():
            known += wave
            if self.adaptive and not all(run.settled for run in wave):
                break
        return known

    @functools.cached_property
    def varying(self) -> set[str]:
        points = list(itertools.chain(*self.points()))
        keys = {key for point in points for key in point}
        return {key for key in keys if len({str(point.get(key)) for point in points}) > 1}

    def run(self, point: Point, steps: str, minutes: float) -> Run:
        keys = [key for key in point if key in self.varying]
        keys.sort(key="norm".__ne__)  # the norm comes first
        name = ",".join(f"{key}={point[key]}" for key in keys).replace(" ", "") or "run"
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in self.settings.items()}
        return Run(self.folder / name, self.config, values | point, steps, minutes)


# --- Kinds of stages ---


@dataclasses.dataclass(kw_only=True)
class Sweep(Stage):
    """All points of a grid, each trained to one length after the other."""

    grid: dict | list
    steps: str | list
    minutes: Number

    adaptive: ClassVar[bool] = False

    def points(self):
        return [product(self.grid)]

    def waves(self):
        steps = [self.steps] if isinstance(self.steps, str) else self.steps
        counts = [0.0, *(Length.read(text).count for text in steps)]
        for text, (start, end) in zip(steps, itertools.pairwise(counts), strict=True):
            minutes = self.minutes * (end - start) / counts[-1]
            yield [self.run(point, text, minutes) for point in product(self.grid)]


@dataclasses.dataclass(kw_only=True)
class Halving(Stage):
    """Successive halving: the settings of a grid that come closest to published curves.

    Attributes:
        grid: the settings, the simpler ones first.
        rungs: each with the curves that are trained for each setting (config keys, steps, epochs
            that are compared, minutes) and how many settings to keep (default: all).
        score: panel -> split, metric, weight; the name of the panel may contain {batch_size}.
        published: the file of results/published with the curves; its first epoch is 0.
        tie: scores so near to the best count as equal to it.
    """

    grid: dict | list
    rungs: list
    score: dict
    published: str
    tie: Number

    def __post_init__(self):
        for rung in self.rungs:
            for curve, curves in curves_of(rung):
                self.targets(curve, curves["epochs"])
        super().__post_init__()

    def targets(self, curve: Point, epochs: list[int]) -> list[tuple[dict, int, float]]:
        """Return the published value of each quantity and epoch of a curve.

        Raises:
            InputError: one of them was not published.
        """
        known = published_curves(self.published)
        names = {", ".join(key): key for key in known}
        targets = []
        for (panel, quantity), epoch in itertools.product(self.score.items(), epochs):
            name = f"{panel.format(**curve)}, {curve['norm']}"
            values = known[choose(f"curve of {self.published}", name, names)].at(epoch)
            if not len(values):
                self.fail(f"{self.published} has no epoch {epoch} of {name}.")
            targets.append((quantity, epoch, values.mean()))
        return targets

    def points(self):
        settings = product(self.grid)
        return [
            [self.join(curve, setting) for setting in settings for curve, _ in curves_of(rung)]
            for rung in self.rungs
        ]

    def rounds(self) -> Iterator[tuple[dict, list[Point]]]:
        """Yield each rung with the settings that are left."""
        settings = product(self.grid)
        for rung in self.rungs:
            yield rung, settings
            scores = {str(setting): self.score_of(rung, setting) for setting in settings}
            settings = sorted(settings, key=lambda s: scores[str(s)])[: rung.get("keep")]

    def waves(self):
        for rung, settings in self.rounds():
            yield [
                self.run(curve | setting, curves["steps"], curves["minutes"])
                for setting in settings
                for curve, curves in curves_of(rung)
            ]

    def score_of(self, rung: dict, setting: Point) -> float:
        """Return the mean of weight · |ln(ours / published)| over the cells of a rung."""
        cells = []
        for curve, curves in curves_of(rung):
            rows = self.run(curve | setting, curves["steps"], 0).readings()
            ours = {(row.split, row.epoch): row.values for row in rows}
            for quantity, epoch, theirs in self.targets(curve, curves["epochs"]):
                values = ours.get((quantity["split"], epoch + 1), {})  # ours are 1 after the first
                ratio = values.get(quantity["metric"], 0) / theirs
                distance = abs(math.log(ratio)) if ratio > 0 else math.inf
                cells.append(quantity["weight"] * distance)
        return sum(cells) / len(cells)

    def scores(self) -> list[tuple[Point, list[float | None]]]:
        """Return each setting with its score after each rung, None once it was left."""
        rounds = [
            {str(setting): self.score_of(rung, setting) for setting in settings}
            for rung, settings in self.rounds()
        ]
        return [(s, [scores.get(str(s)) for scores in rounds]) for s in product(self.grid)]

    def chosen(self) -> Point | None:
        """Return the first setting within `tie` of the best score of the last rung, if any."""
        last = [(s, row[-1]) for s, row in self.scores() if row[-1] is not None]
        best = min(score for _, score in last)
        first = next(setting for setting, score in last if score <= best + self.tie)
        return first if best < math.inf else None

    def table(self):
        chosen = self.chosen()
        if chosen is None:
            return f"{self.name}: no setting has readings of all cells; change its grid."
        lines = [f"{self.name}: scores after each rung (less is better)"]
        for setting, scores in self.scores():
            cells = "".join("       –" if score is None else f"{score:8.3f}" for score in scores)
            mark = " <- chosen" if setting == chosen else ""
            lines.append(f"{cells}  {', '.join(f'{k}={v}' for k, v in setting.items())}{mark}")
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
def published_curves(name: str) -> dict[tuple[str, str], Curve]:
    files = {path.stem: path for path in PUBLISHED.glob("*.csv")}
    return published(choose("published file", name, files))


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
    minutes: Number
    check_ranking: bool = False

    varying: ClassVar = {"norm", "lr", "seeds"}

    def points(self):
        grid = itertools.product(self.norms, self.rates, self.seeds + SHORT_SEEDS)
        return [[dict(norm=norm, lr=lr, seeds=seed) for norm, lr, seed in grid]]

    def runs(self, norm: str, rates, seeds, steps: str) -> list[Run]:
        minutes = self.minutes * Length.read(steps).count / Length.read(self.steps).count
        return [
            self.run(dict(norm=norm, lr=lr, seeds=seed), steps, minutes)
            for lr in rates
            for seed in seeds
        ]

    def waves(self):
        grids: dict[str, list[float]] = {norm: [] for norm in self.norms}
        for times in range(WIDENINGS + 1):
            wave = []
            for norm, known in grids.items():
                grids[norm] = self.grid(norm, times)
                new = [rate for rate in grids[norm] if rate not in known]
                wave += self.runs(norm, new, SHORT_SEEDS, self.length_short)
            yield wave
        wave = []
        for norm, rates in grids.items():
            if (best := self.best(norm, rates)) is None:
                continue
            wave += self.runs(norm, dict.fromkeys((best, self.common())), self.seeds, self.steps)
            if self.check_ranking:
                wave += self.runs(norm, rates, SHORT_SEEDS, self.steps)
        yield wave

    def grid(self, norm: str, times: int = WIDENINGS) -> list[float]:
        """Return the rates of a norm, widened so many times where the best is at the edge."""
        rates = sorted(self.rates)
        for _ in range(times):
            best = self.best(norm, rates)
            if best == rates[0]:
                rates.insert(0, following(*rates[2::-1]))
            elif best == rates[-1]:
                rates.append(following(*rates[-3:]))
            else:
                break
        return rates

    def measured(self, norm: str, rates: list[float]) -> bool:
        return all(run.settled for run in self.runs(norm, rates, SHORT_SEEDS, self.length_short))

    def readings(self, norm: str, rate: float, steps: str) -> list[float]:
        """Return the best score of each short seed."""
        return [run.best() for run in self.runs(norm, [rate], SHORT_SEEDS, steps)]

    def losses(self, norm: str, rates: list[float], steps: str = "") -> dict[float, float]:
        """Return the mean reading of each rate, less is better; infinity if a seed diverged."""
        sign = runs.SIGNS[jobs.read_config(self.config).select.mode]
        steps = steps or self.length_short
        means = {rate: sign * np.mean(self.readings(norm, rate, steps)) for rate in rates}
        return {rate: math.inf if np.isnan(mean) else mean for rate, mean in means.items()}

    def order(self, losses: dict[float, float]) -> list[float]:
        """Return rates from the best to the worst; of equal ones first the middle of the grid."""
        rates = list(losses)
        middle = (len(rates) - 1) / 2
        return sorted(rates, key=lambda r: (losses[r], abs(rates.index(r) - middle), r))

    def best(self, norm: str, rates: list[float]) -> float | None:
        """Return the best rate, None if all diverged.

        Before all are measured, the rate after which most runs follow.
        """
        if not self.measured(norm, rates):
            return rates[0]
        losses = self.losses(norm, rates)
        best = self.order(losses)[0]
        return best if losses[best] < math.inf else None

    def common(self) -> float | None:
        """Return the rate of all norms; None if every norm diverged at every rate."""
        rates = sorted(self.rates)
        if not all(self.measured(norm, rates) for norm in self.norms):
            return rates[0]
        losses = [self.losses(norm, rates) for norm in self.norms]
        orders = [self.order(means) for means in losses if min(means.values()) < math.inf]
        ranks = {rate: sum(order.index(rate) for order in orders) for rate in rates}
        return self.order(ranks)[0] if orders else None

    def table(self):
        lines = [f"{self.name}: config.select at {self.length_short}, seeds {SHORT_SEEDS}"]
        common = self.common()
        rankings = [f"The common rate is {common:g}." if common else "There is no common rate."]
        for norm in self.norms:
            rates = self.grid(norm)
            best = self.best(norm, rates)
            for rate in rates:
                values = self.readings(norm, rate, self.length_short)
                seeds = ", ".join("diverged" if v != v else f"{v:.4g}" for v in values)
                edge = ", at the edge" if rate in (rates[0], rates[-1]) else ""
                mark = f"  <- chosen{edge}" if rate == best else ""
                lines.append(f"  {norm:12} {rate:<8g} {np.mean(values):<8.4g} ({seeds}){mark}")
            if best is None:
                lines.append(f"  {norm:12} all diverged; no rate is chosen")
            elif self.check_ranking:
                rankings.append(self.ranking(norm, rates))
        return "\n".join(lines + rankings)

    def ranking(self, norm: str, rates: list[float]) -> str:
        """Return how the orders of the rates agree at the short and at the full length."""
        short = self.order(self.losses(norm, rates))
        full = self.order(self.losses(norm, rates, self.steps))
        tau = scipy.stats.kendalltau(range(len(short)), [full.index(rate) for rate in short])
        return (
            f"{norm}: rates from best to worst at {self.length_short} {short}, at "
            f"{self.steps} {full}; Kendall's tau {tau.statistic:.2f}"
        )


def following(a: float, b: float, c: float) -> float:
    """Return the number behind three of a grid: 0.1, 0.3, 1 is followed by 3."""
    return float(f"{c * b / a:.6g}")


# --- The file ---

KINDS = {"sweep": Sweep, "halving": Halving, "fair": Fair}


def read(path: Path, root: Path) -> list[Stage]:
    """Return the stages of a plan.

    Raises:
        InputError: the file is missing or is not TOML, or a stage is wrong.
    """
    try:
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
        return read_stages(plan.get("stage"), root)
    except (OSError, ValueError) as error:  # InputError, too
        raise InputError(f"--plan={path} cannot be used: {error}") from error


def read_stages(tables: Any, root: Path) -> list[Stage]:
    stages: dict[str, Stage] = {}
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError("it has no stages; each begins with [[stage]].")
    for table in map(dict, tables):
        place = f"stage {table.get('name')!r}"
        kind = choose(f"kind of {place}", str(table.pop("kind", "")), KINDS)
        try:
            stage = build(kind, place, table, root=root)
        except KeyError as error:  # in a table within the stage
            raise InputError(f"{place} has no {error} in one of its tables; add it.") from error
        if stage.name in stages:
            stage.fail("two stages have this name; give each its own.")
        if stage.settings_of:
            if (earlier := stages.get(stage.settings_of)) is None:
                stage.fail(f"settings_of is {stage.settings_of!r}; it must be an earlier stage.")
            stage.settings |= jobs.flat(earlier.choice)
            stage.settings_of = "" if earlier.choice else stage.settings_of
        stages[stage.name] = stage
    return list(stages.values())
