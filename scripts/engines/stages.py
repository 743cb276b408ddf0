"""Stages of a plan: the runs of each, the scores that choose among them, and its table.

A stage gives its runs in waves. A wave may depend on what the runs of the waves before have
measured; before they have, it has as many runs as there can be at most.
"""

from collections.abc import Iterator
import dataclasses
import functools
import itertools
import json
import math
from pathlib import Path
import runpy
import tomllib
from typing import Any, ClassVar, NamedTuple

import numpy as np

from experiments.curves import Curve, published
from ln.errors import InputError, choose, nearest
from ln.training import runs
from scripts.engines import jobs
from scripts.pages.sections import PUBLISHED

Point = dict[str, Any]  # config key -> value
DIVERGED = ("diverged.jsonl", "dead.jsonl")  # has a row once the only lane of a run diverged
WIDENINGS = 2


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
        path = self.folder / "config.json"
        if not path.is_file():
            return False
        planned, length = number(json.loads(path.read_text())["steps"]), number(self.steps)
        if planned == length and runs.is_finished(self.folder):
            return True
        return has_diverged(self.folder) or (planned > length and bool(self.rows()))

    def rows(self) -> list[runs.Row]:
        """Return the metrics up to this length, none of a run that has not reached it."""
        rows, length = runs.read_rows(self.folder / "metrics.jsonl"), number(self.steps)
        unit = "epoch" if "epoch" in self.steps else "step"
        reached = any(row[unit] >= length for row in rows)
        return [row for row in rows if row[unit] <= length] if reached else []

    def best(self) -> float:
        """Return the best reading of config.select, NaN if the run diverged or has none."""
        if not (rows := self.rows()):
            return math.nan
        select = runs.load(self.folder)[0]["select"]
        values = [row[select["metric"]] for row in rows if row["split"] == select["split"]]
        better = {"min": min, "max": max}[select["mode"]]
        return better(filter(math.isfinite, values), default=math.nan)


def has_diverged(folder: Path) -> bool:
    return any(runs.read_rows(folder / name) for name in DIVERGED)


def number(length: str) -> float:
    return float(str(length).partition(" ")[0])


def flat(tree: dict, prefix: str = "") -> Point:
    """Flatten nested tables, {"optimizer": {"b2": 0.9}} to {"optimizer.b2": 0.9}."""
    point: Point = {}
    for key, value in tree.items():
        nested = isinstance(value, dict)
        point |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return point


def product(grid: dict | list[dict]) -> list[Point]:
    """Return the points of a grid, or of several, the last key varying fastest."""
    points = []
    for table in grid if isinstance(grid, list) else [grid]:
        axes = flat(table)
        values = [v if isinstance(v, list) else [v] for v in axes.values()]
        points += [dict(zip(axes, point, strict=True)) for point in itertools.product(*values)]
    return points


@dataclasses.dataclass(kw_only=True)
class Stage:
    """A part of the plan.

    Attributes:
        config: config file, and :scale.
        settings: overrides of all runs.
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

    def waves(self) -> Iterator[list[Run]]:
        raise NotImplementedError

    def points(self) -> list[Point]:
        """Return what the runs differ in: all points that there can be at most."""
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
        points = self.points()
        keys = dict.fromkeys(key for point in points for key in point)
        return {key for key in keys if len({str(point.get(key)) for point in points}) > 1}

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

    grid: dict | list
    steps: str | list
    minutes: float

    adaptive: ClassVar[bool] = False

    def points(self):
        return product(self.grid)

    def waves(self):
        for steps, minutes in in_turn(self.steps, self.minutes):
            yield [self.run(point, steps, minutes) for point in self.points()]


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

    grid: dict | list
    rungs: list
    score: dict
    published: str
    tie: float

    def points(self):
        curves = [curve for rung in self.rungs for curve, *_ in self.curves(rung)]
        return [curve | setting for setting in product(self.grid) for curve in curves]

    def curves(self, rung: dict) -> list[tuple[Point, str, list[int], float]]:
        found = []
        for table in rung["curves"]:
            own = {key: table[key] for key in ("steps", "epochs", "minutes")}
            grid = {key: value for key, value in table.items() if key not in own}
            found += [(point, *own.values()) for point in product(grid)]
        return found

    def waves(self):
        settings = product(self.grid)
        for rung in self.rungs:
            curves = self.curves(rung)
            yield [self.run(c | s, steps, t) for s in settings for c, steps, _, t in curves]
            settings = self.ranked(rung, settings)[: rung.get("keep")]

    def ranked(self, rung: dict, settings: list[Point]) -> list[Point]:
        return sorted(settings, key=lambda setting: self.score_of(rung, setting))

    def score_of(self, rung: dict, setting: Point) -> float:
        """Return the mean of weight · |ln(ours / published)| over the cells of a rung."""
        cells = []
        for curve, steps, epochs, _ in self.curves(rung):
            rows = self.run(curve | setting, steps, 0).rows()
            for panel, quantity in self.score.items():
                theirs = published_curves(self.published)[panel.format(**curve), curve["norm"]]
                ours = {r["epoch"]: r for r in rows if r["split"] == quantity["split"]}
                for epoch in epochs:  # ours are 1 after the first pass
                    value = ours.get(epoch + 1, {}).get(quantity["metric"], 0)
                    ratio = value / theirs.at(epoch).mean()
                    distance = abs(math.log(ratio)) if ratio > 0 else math.inf
                    cells.append(quantity["weight"] * distance)
        return sum(cells) / len(cells)

    def table(self):
        settings = all_settings = product(self.grid)
        columns = []
        for rung in self.rungs:
            scores = [self.score_of(rung, s) if s in settings else None for s in all_settings]
            columns.append(scores)
            settings = self.ranked(rung, settings)[: rung.get("keep")]
        best = min(score for score in columns[-1] if score is not None)
        if best == math.inf:
            return f"{self.name}: no setting has readings of all cells; change its grid."
        last = zip(all_settings, columns[-1], strict=True)
        chosen = next(s for s, score in last if score is not None and score <= best + self.tie)
        lines = [f"{self.name}: scores after each rung (less is better)"]
        for setting, *scores in zip(all_settings, *columns, strict=True):
            cells = "".join("       –" if score is None else f"{score:8.3f}" for score in scores)
            mark = " <- chosen" if setting is chosen else ""
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

    norms: list
    rates: list
    seeds: list
    steps: str | list
    minutes: float
    short_seeds: list = dataclasses.field(default_factory=lambda: [0, 1])
    length_short: str = ""
    common_rate: float = 0.0
    check_ranking: bool = False

    varying: ClassVar = {"norm", "lr", "seeds"}

    def __post_init__(self):
        self.rates = sorted(self.rates)
        if len(set(self.rates)) < 4:
            raise InputError(f"stage {self.name!r}: rates={self.rates}; give four or more.")
        if len(set(self.seeds) - set(self.short_seeds)) < max(6, len(self.seeds)):
            raise InputError(
                f"stage {self.name!r}: seeds={self.seeds}; give six or more, none of "
                f"short_seeds={self.short_seeds}, which choose the rates."
            )
        self.full = in_turn(self.steps, self.minutes)[-1][0]
        third = f"{math.ceil(number(self.full) / 3)} {self.full.partition(' ')[2]}"
        self.length_short = self.length_short or third

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
                chosen = dict.fromkeys((self.best(norm, rates), common))
                wave += self.runs(norm, chosen, self.seeds, steps, minutes)
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

    def readings(self, norm: str, rate: float, steps: str = "") -> list[float]:
        """Return the best reading of each short seed."""
        short = self.runs(norm, [rate], self.short_seeds, steps or self.length_short, 0)
        return [run.best() for run in short]

    def order(self, norm: str, rates: list[float], steps: str = "") -> list[float]:
        """Return rates from the best to the worst; a rate with a diverged seed is last."""
        means = {rate: np.mean(self.readings(norm, rate, steps)) for rate in rates}
        sign = 1 if self.less_is_better else -1
        return sorted(rates, key=lambda r: math.inf if np.isnan(means[r]) else sign * means[r])

    @functools.cached_property
    def less_is_better(self) -> bool:
        file, _, scale = self.config.partition(":")
        config = runpy.run_path(file)["get_config"](*[scale] * bool(scale))
        return config.select.mode == "min"

    def best(self, norm: str, rates: list[float]) -> float:
        """Return the best rate; before all are measured, the one after which most runs follow."""
        short = self.runs(norm, rates, self.short_seeds, self.length_short, 0)
        return self.order(norm, rates)[0] if all(run.settled for run in short) else rates[0]

    def common(self) -> float:
        """Return the one rate of all norms."""
        orders = [self.order(norm, self.rates) for norm in self.norms]
        rank = {rate: sum(order.index(rate) for order in orders) for rate in self.rates}
        return self.common_rate or min(rank, key=rank.__getitem__)

    def table(self):
        lines = [f"{self.name}: config.select at {self.length_short}, seeds {self.short_seeds}"]
        rankings = [f"The common rate is {self.common():g}."]
        for norm in self.norms:
            rates = self.grid(norm)
            best = self.best(norm, rates)
            for rate in rates:
                values = self.readings(norm, rate)
                seeds = ", ".join("diverged" if v != v else f"{v:.4g}" for v in values)
                edge = ", at the edge" if rate in (rates[0], rates[-1]) else ""
                mark = f"  <- chosen{edge}" if rate == best else ""
                lines.append(f"  {norm:12} {rate:<8g} {np.mean(values):<8.4g} ({seeds}){mark}")
            if self.check_ranking:
                short, full = self.order(norm, rates), self.order(norm, rates, self.full)
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


KINDS = {"sweep": Sweep, "halving": Halving, "fair": Fair}


def check_keys(place: str, table: dict, known) -> None:
    for key in table:
        if key not in known:
            raise InputError(f"{place} has no key {key!r}.{nearest(key, known)}")


def read_stage(name: str, table: dict, root: Path) -> Stage:
    """Return one stage.

    Raises:
        InputError: its kind or a key is unknown, or a key is missing.
    """
    table = dict(table)
    kind = choose(f"kind of stage {name!r}", table.pop("kind", ""), KINDS)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name != "root"}
    check_keys(f"Stage {name!r}", table, fields)
    missing = dataclasses.MISSING
    for key, field in fields.items():
        if key not in table and field.default is field.default_factory is missing:
            raise InputError(f"Stage {name!r} has no {key!r}; add it.")
    try:
        for rung in table.get("rungs", ()):
            check_keys(f"A rung of stage {name!r}", rung, ("curves", "keep"))
        for panel, quantity in table.get("score", {}).items():
            check_keys(f"{panel} of stage {name!r}", quantity, ("split", "metric", "weight"))
        stage = kind(root=root, **table)
        list(stage.waves())
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"Stage {name!r} is not as its kind needs it ({error!r}).") from error
    return stage


def read(path: Path, root: Path) -> list[Stage]:
    """Return the stages of a plan.

    Raises:
        InputError: the file is missing or is not TOML, or a stage is wrong.
    """
    try:
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--plan={path} cannot be read ({error}). Give a TOML file.") from error
    check_keys(f"--plan={path}", plan, ("stage",))
    stages: dict[str, Stage] = {}
    for position, table in enumerate(plan.get("stage", []), start=1):
        name = table.get("name", f"number {position}")
        if name in stages:
            raise InputError(f"Two stages are named {name!r}; give each its own name.")
        stage = stages[name] = read_stage(name, table, root)
        if stage.settings_of:
            other = choose(f"settings_of of stage {name!r}", stage.settings_of, stages)
            stage.settings = flat(stage.settings) | flat(other.choice)
            stage.settings_of = "" if other.choice else stage.settings_of
    return list(stages.values())
