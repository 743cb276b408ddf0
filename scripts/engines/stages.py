"""Stages of a plan: the runs of each, the scores that choose among them, and its table.

A stage gives its runs in waves. A wave may depend on what the runs of the waves before have
measured; before they have, it has as many runs as there can be at most.
"""

import collections
from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import itertools
import json
import math
from pathlib import Path
import tomllib
from typing import Any, ClassVar, NamedTuple

import numpy as np

from experiments.curves import Curve, published
from ln.errors import InputError, choose
from ln.training import runs
from scripts.engines import jobs, tables
from scripts.engines.tables import Point, build, flat, keys_of, number, product, unit
from scripts.pages.sections import PUBLISHED

DIVERGED = ("diverged.jsonl", "dead.jsonl")  # has a row once the only lane of a run diverged
WIDENINGS = 2


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Raise InputError if the files of a run lack what is read from them."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder} is damaged ({error!r}). Move it away to train anew.") from error


class Run(NamedTuple):
    """A run trained to a length; minutes: what that takes an idle machine, by the plan's file."""

    folder: Path
    words: tuple[str, ...]
    steps: str
    minutes: float

    @property
    def job(self) -> jobs.Job:
        words = (*self.words, f"--config.steps={self.steps}")
        return jobs.Job(
            self.folder, ("-m", "scripts.train", *words, f"--workdir={self.folder.as_posix()}")
        )

    @property
    def settled(self) -> bool:
        """Return whether nothing is left to train: the length is reached, or the run diverged."""
        if not (self.folder / "config.json").is_file():
            return False
        with reading(self.folder):
            planned, length = number(runs.read_config(self.folder).steps), number(self.steps)
        if planned == length and runs.is_finished(self.folder):
            return True
        return has_diverged(self.folder) or (planned > length and bool(self.rows()))

    def rows(self) -> list[runs.Row]:
        """Return the metrics up to this length, none of a run that has not reached it."""
        rows, length = runs.read_rows(self.folder / "metrics.jsonl"), number(self.steps)
        with reading(self.folder):
            reached = any(row[unit(self.steps)] >= length for row in rows)
            return [row for row in rows if row[unit(self.steps)] <= length] if reached else []

    def best(self) -> float:
        """Return the best reading of config.select, NaN if the run diverged or has none."""
        if not (rows := self.rows()):
            return math.nan
        with reading(self.folder):
            select = runs.load(self.folder)[0]["select"]
            values = [row[select["metric"]] for row in rows if row["split"] == select["split"]]
            better = {"min": min, "max": max}[select["mode"]]
            return better(filter(math.isfinite, values), default=math.nan)


def has_diverged(folder: Path) -> bool:
    return any(runs.read_rows(folder / name) for name in DIVERGED)


@dataclasses.dataclass(kw_only=True)
class Stage:
    """A part of the plan.

    Attributes:
        config: config file, and :scale.
        settings: overrides of all runs.
        settings_of: the stage whose choice is added to them; "" once it is.
        choice: the settings that this stage chose, recorded by hand.
    """

    name: tables.Folder
    config: tables.Text
    settings: tables.Table = dataclasses.field(default_factory=dict)
    settings_of: tables.Text = ""
    choice: tables.Table = dataclasses.field(default_factory=dict)
    root: Path

    adaptive: ClassVar[bool] = True  # later waves depend on all runs of the earlier ones

    def __post_init__(self):
        """Raise InputError if a key is set twice, a run has lanes, or two runs have one folder."""
        settings = flat(self.settings)
        keys = collections.Counter(["steps", *settings, *self.keys()])
        if twice := [key for key, count in keys.items() if count > 1]:
            self.fail(f"{twice[0]!r} is given twice; give it once.")
        points = (settings, *itertools.chain(*self.points()))
        for key, point in itertools.product(("seeds", "lr"), points):
            if isinstance(value := point.get(key), list) and len(value) != 1:
                self.fail(f"{key} of a run is {value}; give one value, or an axis of grid.")
        for wave in self.points():
            folders = [self.run(point, "", 0).folder for point in wave]
            for folder, count in collections.Counter(folders).items():
                if count > 1 or folder.parent != self.folder:
                    self.fail(f"{count} runs would have the folder {folder}; change their values.")

    def fail(self, words: str):
        raise InputError(f"stage {self.name!r}: {words}")

    def keys(self) -> list[str]:
        """Return the config keys that the stage sets besides settings and steps."""
        raise NotImplementedError

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

    def total(self) -> int:
        """Return how many runs there are at most; a run counts once for each of its lengths."""
        return sum(map(len, self.waves()))

    def unsettled(self) -> list[Run]:
        """Return the runs that are left, at most."""
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
        return {key for key in keys_of(points) if len({str(p.get(key)) for p in points}) > 1}

    def run(self, point: Point, steps: str, minutes: float) -> Run:
        keys = sorted(self.varying & set(point), key=list(point).index)
        keys.sort(key="norm".__ne__)  # the norm comes first
        parts = [f"{key}={point[key]}".replace(" ", "") for key in keys]
        values = flat(self.settings) | point
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        words = jobs.settings(values, [f"--config={self.config}"])
        folder = self.folder / (",".join(parts) or "run")
        return Run(folder, tuple(words), steps, minutes)


def in_turn(steps: str | list[str], minutes: float) -> list[tuple[str, float]]:
    """Return each length with its share of the minutes of the last."""
    steps = [steps] if isinstance(steps, str) else steps
    counts = [0.0, *map(number, steps)]
    shares = [minutes * (b - a) / counts[-1] for a, b in itertools.pairwise(counts)]
    return list(zip(steps, shares, strict=True))


@dataclasses.dataclass(kw_only=True)
class Sweep(Stage):
    """All points of a grid, each trained to one length after the other."""

    grid: tables.Grid
    steps: tables.Lengths
    minutes: tables.Positive

    adaptive: ClassVar[bool] = False

    def keys(self):
        return keys_of(product(self.grid))

    def points(self):
        return [product(self.grid)]

    def waves(self):
        for steps, minutes in in_turn(self.steps, self.minutes):
            yield [self.run(point, steps, minutes) for point in product(self.grid)]


@dataclasses.dataclass
class Quantity:
    """What the curves of a panel are compared in."""

    split: tables.Split
    metric: tables.Text
    weight: tables.Positive


@dataclasses.dataclass
class Curves:
    """The runs of a rung for one setting: points of a grid, and the epochs that are compared."""

    grid: tables.Grid
    steps: tables.Epochs
    epochs: tables.Whole
    minutes: tables.Positive


def as_grid(table: Any) -> Any:
    """Return a table of curves whose config keys are in the table "grid"."""
    if not isinstance(table, dict):
        return table
    own = {field.name for field in dataclasses.fields(Curves)}
    grid = {key: value for key, value in table.items() if key not in own}
    return {key: value for key, value in table.items() if key in own} | dict(grid=grid)


@dataclasses.dataclass
class Rung:
    """A wave of successive halving; keep: how many settings go on, all if None."""

    curves: tables.Tables
    keep: tables.Count = None

    @classmethod
    def read(cls, place: str, table: Any) -> "Rung":
        rung = build(cls, place, table)
        rung.curves = [build(Curves, f"{place}, curves", as_grid(t)) for t in rung.curves]
        return rung

    def points(self) -> Iterator[tuple[Point, Curves]]:
        return ((point, curves) for curves in self.curves for point in product(curves.grid))


@dataclasses.dataclass(kw_only=True)
class Halving(Stage):
    """Successive halving: the settings of a grid that come closest to published curves.

    Attributes:
        grid: the settings, the simpler ones first.
        rungs: each with the curves that are trained for each setting (config keys, steps, epochs
            that are compared, minutes) and how many settings to keep.
        score: panel -> split, metric and weight; the name of the panel may contain {batch_size}.
        published: the file of results/published with the curves; its first epoch is 0.
        tie: scores so near to the best count as equal to it.
    """

    grid: tables.Grid
    rungs: tables.Tables
    score: tables.Panels
    published: tables.Text
    tie: tables.Number

    def __post_init__(self):
        place = f"stage {self.name!r}"
        self.score = {
            panel: build(Quantity, f"{place}, score {panel!r}", table)
            for panel, table in self.score.items()
        }
        self.rungs = [
            Rung.read(f"{place}, rung {n}", table) for n, table in enumerate(self.rungs, start=1)
        ]
        if any(rung.keep is None for rung in self.rungs[:-1]):
            self.fail("a rung has no 'keep'; only the last one may lack it.")
        for rung in self.rungs:
            for curves in rung.curves:
                self.check(curves)
        super().__post_init__()

    def check(self, curves: Curves) -> None:
        """Raise InputError if the published file lacks what the curves are compared with."""
        files = {path.stem: path for path in PUBLISHED.glob("*.csv")}
        choose(f"published of stage {self.name!r}", self.published, files)
        known = published_curves(self.published)
        for epoch in curves.epochs:
            if epoch >= number(curves.steps):
                self.fail(f"epoch {epoch} is beyond {curves.steps!r}; the first epoch is 0.")
        for panel, point in itertools.product(self.score, product(curves.grid)):
            try:
                key = panel.format(**point), str(point["norm"])
            except (AttributeError, IndexError, KeyError, ValueError) as error:
                self.fail(f"panel {panel!r} and a norm need {error} among the keys of the curves.")
            names = {", ".join(key): curve for key, curve in known.items()}
            theirs = choose(f"curve of {self.published} in {self.name}", ", ".join(key), names)
            for epoch in curves.epochs:
                if not len(theirs.at(epoch)):
                    self.fail(f"{self.published} has no epoch {epoch} of {', '.join(key)}.")

    def keys(self):
        curves = (point for rung in self.rungs for point, _ in rung.points())
        return keys_of(product(self.grid)) + keys_of(curves)

    def points(self):
        settings = product(self.grid)
        return [[c | s for s in settings for c, _ in rung.points()] for rung in self.rungs]

    def waves(self):
        settings = product(self.grid)
        for rung in self.rungs:
            curves = list(rung.points())
            yield [self.run(c | s, of.steps, of.minutes) for s in settings for c, of in curves]
            settings = self.ranked(rung, settings)[: rung.keep]

    def ranked(self, rung: Rung, settings: list[Point]) -> list[Point]:
        return sorted(settings, key=lambda setting: self.score_of(rung, setting))

    def score_of(self, rung: Rung, setting: Point) -> float:
        """Return the mean of weight · |ln(ours / published)| over the cells of a rung."""
        cells = []
        for curve, curves in rung.points():
            run = self.run(curve | setting, curves.steps, 0)
            rows = run.rows()
            for panel, quantity in self.score.items():
                theirs = published_curves(self.published)[panel.format(**curve), curve["norm"]]
                with reading(run.folder):
                    ours = {r["epoch"]: r for r in rows if r["split"] == quantity.split}
                if rows and not any(quantity.metric in row for row in ours.values()):
                    raise InputError(
                        f"The score needs {quantity.metric!r} of split {quantity.split!r}, which "
                        f"{run.folder} does not measure; correct [stage.score]."
                    )
                for epoch in curves.epochs:  # ours are 1 after the first pass
                    value = ours.get(epoch + 1, {}).get(quantity.metric, 0)
                    ratio = value / theirs.at(epoch).mean()
                    distance = abs(math.log(ratio)) if ratio > 0 else math.inf
                    cells.append(quantity.weight * distance)
        return sum(cells) / len(cells)

    def scores(self) -> list[tuple[Point, list[float | None]]]:
        """Return each setting with its score after each rung, None once it was left."""
        settings = all_settings = product(self.grid)
        columns = []
        for rung in self.rungs:
            columns.append(
                [self.score_of(rung, s) if s in settings else None for s in all_settings]
            )
            settings = self.ranked(rung, settings)[: rung.keep]
        return list(zip(all_settings, map(list, zip(*columns, strict=True)), strict=True))

    def chosen(self) -> Point | None:
        """Return the first setting within `tie` of the best score of the last rung, if any."""
        last = {n: row[-1] for n, (_, row) in enumerate(self.scores()) if row[-1] is not None}
        best = min(last.values())
        first = next(n for n, score in last.items() if score <= best + self.tie)
        return product(self.grid)[first] if best < math.inf else None

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


@functools.cache
def published_curves(name: str) -> dict[tuple[str, str], Curve]:
    return published(PUBLISHED / f"{name}.csv")


@dataclasses.dataclass(kw_only=True)
class Fair(Stage):
    """A learning rate for each norm by the same rule, then other seeds at that rate.

    Attributes:
        rates: the grid of each norm, at least four. A grid whose best rate is at its edge is
            widened there, at most twice.
        short_seeds, length_short: the seeds and the length at which rates are compared.
        seeds, steps: those of the runs at the best rate and at the common one.
        common_rate: of all norms; 0: that with the best mean rank.
        check_ranking: whether to train the grid to its full length too.
    """

    norms: tables.Names
    rates: tables.Rates
    seeds: tables.SixSeeds
    steps: tables.Lengths
    minutes: tables.Positive
    short_seeds: tables.TwoSeeds = dataclasses.field(default_factory=lambda: [0, 1])
    length_short: tables.Length = ""
    common_rate: tables.Number = 0.0
    check_ranking: tables.Flag = False

    varying: ClassVar = {"norm", "lr", "seeds"}

    def __post_init__(self):
        self.rates = sorted(self.rates)
        if set(self.seeds) & set(self.short_seeds):
            self.fail(f"seeds are {self.seeds}; give none of short_seeds, {self.short_seeds}.")
        self.full = in_turn(self.steps, self.minutes)[-1][0]
        third = f"{math.ceil(number(self.full) / 3)} {self.full.partition(' ')[2]}"
        self.length_short = self.length_short or third.strip()
        part = number(self.length_short) / number(self.full)
        if part > 1 or unit(self.length_short) != unit(self.full):
            self.fail(f"length_short is {self.length_short!r}; it must be at most {self.full!r}.")
        super().__post_init__()

    def keys(self):
        return list(self.varying)

    def points(self):
        grid = itertools.product(self.norms, self.rates, self.seeds + self.short_seeds)
        return [[dict(norm=norm, lr=lr, seeds=seed) for norm, lr, seed in grid]]

    def runs(self, norm: str, rates, seeds, steps: str, minutes: float) -> list[Run]:
        return [
            self.run(dict(norm=norm, lr=lr, seeds=seed), steps, minutes)
            for lr in rates
            for seed in seeds
        ]

    def waves(self):
        part = self.minutes * number(self.length_short) / number(self.full)
        grids: dict[str, list[float]] = {norm: [] for norm in self.norms}
        for times in range(WIDENINGS + 1):
            wave = []
            for norm, known in grids.items():
                grids[norm] = self.grid(norm, times)
                new = [rate for rate in grids[norm] if rate not in known]
                wave += self.runs(norm, new, self.short_seeds, self.length_short, part)
            yield wave
        common = self.common()
        for steps, minutes in in_turn(self.steps, self.minutes):
            wave = []
            for norm, rates in grids.items():
                if (best := self.best(norm, rates)) is None:
                    continue
                wave += self.runs(norm, dict.fromkeys((best, common)), self.seeds, steps, minutes)
                if self.check_ranking:
                    wave += self.runs(norm, rates, self.short_seeds, steps, minutes)
            yield wave

    def grid(self, norm: str, times: int = WIDENINGS) -> list[float]:
        """Return the rates of a norm, widened so many times where the best is at the edge."""
        rates = list(self.rates)
        for _ in range(times):
            best = self.best(norm, rates)
            if best == rates[0]:
                rates.insert(0, following(rates[2], rates[1], rates[0]))
            elif best == rates[-1]:
                rates.append(following(*rates[-3:]))
            else:
                break
        return rates

    def short(self, norm: str, rates: list[float], steps: str = "") -> list[Run]:
        return self.runs(norm, rates, self.short_seeds, steps or self.length_short, 0)

    def readings(self, norm: str, rate: float, steps: str = "") -> list[float]:
        """Return the best reading of each short seed."""
        return [run.best() for run in self.short(norm, [rate], steps)]

    def losses(self, norm: str, rates: list[float], steps: str = "") -> dict[float, float]:
        """Return the mean reading of each rate, less is better; infinity if a seed diverged."""
        folder = self.short(norm, rates)[0].folder
        with reading(folder):
            sign = {"min": 1, "max": -1}[runs.load(folder)[0]["select"]["mode"]]
        means = {rate: sign * np.mean(self.readings(norm, rate, steps)) for rate in rates}
        return {rate: math.inf if np.isnan(mean) else mean for rate, mean in means.items()}

    def order(self, losses: dict[float, float]) -> list[float]:
        """Return rates from the best to the worst; of equal ones first the middle of the grid."""
        rates = list(losses)
        middle = (len(rates) - 1) / 2
        return sorted(rates, key=lambda r: (losses[r], abs(rates.index(r) - middle), r))

    def measured(self, norm: str, rates: list[float]) -> bool:
        return all(run.settled for run in self.short(norm, rates))

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
        if self.common_rate or not all(self.measured(norm, self.rates) for norm in self.norms):
            return self.common_rate or self.rates[0]
        losses = [self.losses(norm, self.rates) for norm in self.norms]
        orders = [self.order(means) for means in losses if min(means.values()) < math.inf]
        ranks = {rate: sum(order.index(rate) for order in orders) for rate in self.rates}
        return self.order(ranks)[0] if orders else None

    def table(self):
        lines = [f"{self.name}: config.select at {self.length_short}, seeds {self.short_seeds}"]
        common = self.common()
        rankings = [f"The common rate is {common:g}." if common else "There is no common rate."]
        for norm in self.norms:
            rates = self.grid(norm)
            best = self.best(norm, rates)
            for rate in rates:
                values = self.readings(norm, rate)
                seeds = ", ".join("diverged" if v != v else f"{v:.4g}" for v in values)
                edge = ", at the edge" if rate in (rates[0], rates[-1]) else ""
                mark = f"  <- chosen{edge}" if rate == best else ""
                lines.append(f"  {norm:12} {rate:<8g} {np.mean(values):<8.4g} ({seeds}){mark}")
            if best is None:
                lines.append(f"  {norm:12} all diverged; no rate is chosen")
            elif self.check_ranking:
                short = self.order(self.losses(norm, rates))
                full = self.order(self.losses(norm, rates, self.full))
                rankings.append(
                    f"{norm}: rates from best to worst at {self.length_short} {short}, at "
                    f"{self.full} {full}; Kendall's tau {kendall(short, full):.2f}"
                )
        return "\n".join(lines + rankings)


def following(a: float, b: float, c: float) -> float:
    """Return the number behind three of a grid: 0.1, 0.3, 1 is followed by 3."""
    return float(f"{c * b / a:.6g}")


def kendall(first: list, second: list) -> float:
    """Return Kendall's rank correlation of two orders of the same things."""
    pairs = list(itertools.combinations(first, 2))
    return sum(1 if second.index(a) < second.index(b) else -1 for a, b in pairs) / len(pairs)


@dataclasses.dataclass
class File:
    """A plan."""

    stage: tables.Stages


KINDS = {"sweep": Sweep, "halving": Halving, "fair": Fair}


def read_stage(place: str, table: Any, root: Path) -> Stage:
    """Return one stage.

    Raises:
        InputError: its kind, a key or a value is wrong, or a key is missing.
    """
    if not isinstance(table, dict):
        raise InputError(f"{place} is {table!r}; it must be a table, [[stage]].")
    table = dict(table)
    kind = choose(f"kind of {place}", str(table.pop("kind", "")), KINDS)
    return build(kind, place, table, root=root)


def read(path: Path, root: Path) -> list[Stage]:
    """Return the stages of a plan.

    Raises:
        InputError: the file is missing or is not TOML, or a stage is wrong.
    """
    try:
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--plan={path} cannot be read ({error}). Give a TOML file.") from error
    try:
        return read_stages(plan, root)
    except InputError as error:
        raise InputError(f"--plan={path}: {error}") from error


def read_stages(plan: dict, root: Path) -> list[Stage]:
    stages: dict[str, Stage] = {}
    for position, table in enumerate(build(File, "the file", plan).stage, start=1):
        name = table.get("name") if isinstance(table, dict) else None
        stage = read_stage(f"stage {name!r}" if name else f"stage {position}", table, root)
        if stage.name in stages:
            raise InputError(f"two stages are named {stage.name!r}; give each its own name.")
        if stage.settings_of:
            if (other := stages.get(stage.settings_of)) is None:
                stage.fail(f"settings_of is {stage.settings_of!r}; it must be an earlier stage.")
            stage.settings = flat(stage.settings) | flat(other.choice)
            stage.settings_of = "" if other.choice else stage.settings_of
        stages[stage.name] = stage
    return list(stages.values())
