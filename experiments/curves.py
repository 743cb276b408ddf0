"""Curves from runs and from the paper's figures in one form, and the rows that describe figures."""

from collections.abc import Iterable, Mapping
import csv
import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ln.errors import InputError, choose
from ln.training.runs import Lane, Reading

COUNTS = dict(step="update", epoch="epoch")  # what the x axis of a panel can count
SUMMARIES = dict(mean=np.mean, median=np.median, min=np.min, max=np.max)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes of a figure. `experiments.part` turns a wrong field into a one-line error.

    Attributes:
        name: the panel's key in claims and in results/published/<figure>.csv.
        split, metric: the readings that are drawn.
        label: of the y axis, with the unit.
        where: config keys and values of the runs that belong here; each norm is a curve.
        times: factor from the metric's unit (also that of the published numbers) to the label's.
        digits: format of a number on the page.
        limits: the y axis shows at least this range; None: that of the curves.
        x: what the x axis counts, "step" or "epoch". It shows x / x_per + x_plus.
        landmarks: values of x whose numbers are tabulated.
        summaries: (name in SUMMARIES, number of last readings or 0 for all) to tabulate.
        levels: values of the metric for which to tabulate the x that first reaches them.
        falling: whether less is better.
    """

    name: str
    title: str
    split: str
    metric: str
    label: str
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    times: float = 1.0
    digits: str = ".3f"
    log: bool = False
    limits: tuple[float, float] | None = None
    x: str = "step"
    x_per: int = 1
    x_plus: int = 0
    x_log: bool = False
    landmarks: tuple[float, ...] = ()
    summaries: tuple[tuple[str, int], ...] = (("median", 10), ("min", 0))
    levels: tuple[float, ...] = ()
    falling: bool = True

    def __post_init__(self):
        choose(f"x of panel {self.name}", self.x, COUNTS)
        for name, _ in self.summaries:
            choose(f"summary of panel {self.name}", name, SUMMARIES)

    @property
    def x_label(self) -> str:
        return COUNTS[self.x] if self.x_per == 1 else f"{COUNTS[self.x]}s / {self.x_per:,}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One of the FIGURES of an experiment.

    Attributes:
        name: also of the figure's file in results/published, if it has a source.
        source: where the published curves come from; None if there are none.
    """

    name: str
    title: str
    caption: str
    source: str | None = None
    panels: tuple[Panel, ...]

    def __post_init__(self):
        if not isinstance(self.panels, tuple):
            raise InputError(f"Panels of {self.name} must be a tuple; one of one needs a comma.")

    @property
    def columns(self) -> int:
        """Return how many panels are side by side: three if they fill rows of three."""
        return 3 if len(self.panels) % 3 == 0 else min(len(self.panels), 2)


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a table: the readings of a split's metric under a label.

    Attributes:
        name: its key in claims.
        digits: format of a number on the page.
    """

    name: str
    label: str
    split: str
    metric: str
    digits: str = ".1f"


@dataclasses.dataclass(frozen=True)
class Published:
    """One row of published numbers.

    Attributes:
        norm: the norm of ours to compare with, or None.
        values: a number for each column, or None.
    """

    model: str
    norm: str | None
    values: tuple[float | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """One of the TABLES of an experiment; source says where its rows come from."""

    name: str
    title: str
    caption: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[Published, ...]


@dataclasses.dataclass(frozen=True)
class Curve:
    """One quantity over the course of training.

    Attributes:
        x: ``[N]``, increasing.
        lanes: ``[L, N]``, one row per seed; of a published curve the two edges of its band.
        complete: whether it goes to the end.
        seeds: of the lanes; none of a published curve.
    """

    x: np.ndarray
    lanes: np.ndarray
    complete: bool = True
    seeds: tuple[int, ...] = ()

    @property
    def mean(self) -> np.ndarray:
        return self.lanes.mean(0)

    def at(self, x: float) -> np.ndarray:
        """Return the lanes' values ``[L]`` at x; ``[0]`` if there is no reading."""
        (positions,) = np.nonzero(np.isclose(self.x, x))
        return self.lanes[:, positions[0]] if len(positions) else np.array([])

    def last(self, name: str, count: int) -> np.ndarray:
        """Return a summary of each lane's last values ``[L]``, or of all if count is 0.

        ``[0]`` if the curve does not go to the end.
        """
        done = self.complete and len(self.x) >= count
        return SUMMARIES[name](self.lanes[:, -count:], axis=1) if done else np.array([])

    def first(self, level: float, falling: bool = True) -> np.ndarray:
        """Return the x at which each lane first reaches a level, ``[L]``; NaN if it never does."""
        reached = self.lanes <= level if falling else self.lanes >= level
        return np.where(reached.any(1), self.x[reached.argmax(1)], np.nan)

    def reaches(self, level: float, falling: bool = True) -> float:
        """Return the x at which the mean over lanes first reaches a level; infinity if never.

        Interpolate linearly between two readings.
        """
        sign = 1 if falling else -1
        level, mean = sign * level, sign * self.mean
        (there,) = np.nonzero(mean <= level)
        if not len(there):
            return math.inf
        n = there[0]
        before = max(n - 1, 0)
        return float(np.interp(level, mean[[n, before]], self.x[[n, before]]))


def values(
    readings: Iterable[Reading], split: str, metric: str, x: str = "step"
) -> dict[Lane, dict[float, float]]:
    """Return lane -> x -> value of a metric, from the table of all readings."""
    lanes: dict[Lane, dict[float, float]] = {}
    for reading in readings:
        at = getattr(reading, x)
        if reading.split == split and metric in reading.values and at is not None:
            lanes.setdefault(reading.lane, {})[at] = reading.values[metric]
    return lanes


def from_readings(readings: Iterable[Reading], panel: Panel, complete: bool) -> Curve | None:
    """Return the curve of a panel, where every lane has a reading; None without any."""
    lanes = values(readings, panel.split, panel.metric, panel.x)
    x = sorted(set.intersection(*map(set, lanes.values()))) if lanes else []
    if not x:
        return None
    y = np.array([[lane[at] for at in x] for lane in lanes.values()])
    seeds = tuple(seed for seed, _ in lanes)
    return Curve(np.array(x) / panel.x_per + panel.x_plus, y, complete, seeds)


def at_best(
    readings: Iterable[Reading], best: Mapping[Lane, int], column: Column, complete: bool
) -> Curve | None:
    """Return a column's value of each lane at its best step, as a curve of one reading.

    Its x is the mean of these steps. None if a lane has no value there.

    Args:
        best: lane -> its best step.
    """
    lanes = values(readings, column.split, column.metric)
    if not best or any(step not in lanes.get(lane, {}) for lane, step in best.items()):
        return None
    y = np.array([[lanes[lane][step]] for lane, step in best.items()])
    seeds = tuple(seed for seed, _ in best)
    return Curve(np.array([np.mean(list(best.values()))]), y, complete, seeds)


def published(path: Path) -> dict[tuple[str, str], Curve]:
    """Return the curves in results/published/<figure>.csv, (panel, norm) -> curve.

    The paper has bands, not runs. The two edges of a band stand in for lanes: the widest spread
    that the band allows, with the published line as its mean. Without a band, the line is one lane.

    Raises:
        InputError: the file is missing.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing; git restore it: it belongs to this repository.")
    lines = path.read_text(encoding="utf-8").splitlines()
    points: dict[tuple[str, str], list] = {}
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        half = (float(row["high"]) - float(row["low"])) / 2 if row["low"] else math.nan
        point = float(row["x"]), float(row["y"]), half
        points.setdefault((row["panel"], row["norm"]), []).append(point)
    curves = {}
    for key, rows in points.items():
        x, y, half = np.array(rows).T
        curves[key] = Curve(x, y[None] if np.isnan(half).any() else np.stack([y - half, y + half]))
    return curves


class Pace(NamedTuple):
    """When two curves reach the same levels.

    Attributes:
        levels: ``[K]``, each better than the one before.
        baseline, other: the x ``[K]`` at which the mean over lanes first reaches each of them.
    """

    levels: np.ndarray
    baseline: np.ndarray
    other: np.ndarray

    @classmethod
    def of(cls, baseline: Curve, other: Curve, falling: bool = True) -> "Pace":
        """At levels that the baseline sets: the best that it has reached at each tenth of its
        length but the first, each level once. So there are some for runs of any scale.

        Args:
            falling: whether less is better.
        """
        tenths = baseline.x[-1] * np.arange(2, 11) / 10
        readings = np.searchsorted(baseline.x, tenths, side="right")  # up to each tenth
        best = (np.minimum if falling else np.maximum).accumulate(baseline.mean)
        levels = np.unique(best[readings[readings > 0] - 1])
        levels = levels[::-1] if falling else levels
        found = ([c.reaches(y, falling) for y in levels] for c in (baseline, other))
        return cls(levels, *map(np.array, found))

    @property
    def factors(self) -> np.ndarray:
        """How many times as fast the other is ``[K]``; 0 where it never arrives."""
        return self.baseline / self.other

    def describe(self, wanted: float, unit: str, of: str = "nats") -> str:
        """The factors of layer norm over no norm in words; unit: of x, such as "Epochs"; of: the
        unit of the levels."""
        numbers = "; ".join(
            f"{level:.4g} {of} {before:.4g} and {after:.4g}".replace("inf", "never")
            for level, before, after in zip(*self, strict=True)
        )
        return (
            f"Layer norm is {np.median(self.factors):.2f} times as fast (median over "
            f"{len(self.levels)} levels; from {self.factors.min():.2f} to "
            f"{self.factors.max():.2f}): {wanted:g} times or more at "
            f"{(self.factors >= wanted).sum()} of them, not faster at {(self.factors <= 1).sum()}. "
            f"{unit} without norm and with layer norm: {numbers}."
        )


class Estimate(NamedTuple):
    """A mean over lanes or cases and its standard error. Differences add errors in quadrature."""

    value: float
    error: float

    @classmethod
    def of(cls, lanes: np.ndarray) -> "Estimate":
        return cls(float(lanes.mean()), float(lanes.std(ddof=1) / math.sqrt(len(lanes))))

    def __str__(self) -> str:
        """To the second digit of the error: "82.36 ± 0.11"."""
        known = 0 < self.error < math.inf
        digits = max(0, 1 - math.floor(math.log10(self.error))) if known else 3
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"

    def minus(self, other: "Estimate") -> "Estimate":
        return Estimate(self.value - other.value, math.hypot(self.error, other.error))


class Ending(NamedTuple):
    """Where two curves end: the median of the last tenth of the readings, since single ones may be
    spikes.

    Attributes:
        begin, end: the x of the first and of the last of these readings, of the other curve.
        baseline, other: of each lane, ``[L]``.
    """

    begin: float
    end: float
    baseline: np.ndarray
    other: np.ndarray

    @classmethod
    def of(cls, baseline: Curve, other: Curve) -> "Ending":
        count = max(1, len(other.x) // 10)
        ends = (curve.last("median", count) for curve in (baseline, other))
        return cls(other.x[-count], other.x[-1], *ends)

    @property
    def gap(self) -> Estimate:
        """The other less the baseline; both of two lanes or more."""
        return Estimate.of(self.other).minus(Estimate.of(self.baseline))

    def describe(self, what: str, unit: str, digits: str) -> str:
        """Layer norm and no norm in words, without a full stop; unit: of x, such as "epoch"."""
        with_norm, without = self.other.mean(), self.baseline.mean()
        text = (
            f"From {unit} {self.begin:g} to the last, {self.end:g}, {what} is "
            f"{with_norm:{digits}} nats with layer norm and {without:{digits}} without norm, "
            f"{with_norm - without:+{digits}}"
        )
        if min(len(self.baseline), len(self.other)) == 1:
            return text
        return f"{text} ± {self.gap.error:{digits}} (± standard error)"


class Verdict(NamedTuple):
    """What runs say of a claim, and the numbers behind it."""

    word: str
    because: str


CONFIRMED, CONTRADICTED, NOT_DECIDED, NOT_TESTED = (
    "confirmed",
    "contradicted",
    "not decided",
    "not tested",
)

ONE_SEED = " One seed without a second does not show what is chance, and decides nothing."

Curves = Mapping[tuple[str, str], Curve]  # (panel, norm) -> curve


def missing(curves: Curves, wanted: Mapping[tuple[str, str], str], single: bool = False) -> str:
    """Says which of the wanted curves, (panel, norm) -> name, a claim still needs; "" if none.

    Args:
        single: whether curves of one lane will do.
    """
    usable = {
        key for key, curve in curves.items() if curve.complete and (single or len(curve.lanes) > 1)
    }
    names = dict.fromkeys(name for key, name in wanted.items() if key not in usable)
    seeds = "" if single else ", of two seeds or more,"
    return f"needs finished runs{seeds} with {', '.join(names)}" if names else ""
