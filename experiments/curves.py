"""Curves from runs and from the paper's figures in one form, and the rows that describe figures."""

from collections.abc import Callable, Iterable, Mapping
import csv
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ln.errors import InputError, choose
from ln.training.runs import Lane, Reading

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"
COUNTS = dict(step="update", epoch="epoch")  # what the x axis of a panel can count
Style = dict[str, Any]  # fields that several panels share
SUMMARIES: dict[str, Callable[..., np.ndarray]] = dict(
    mean=np.mean, median=np.median, min=np.min, max=np.max
)


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes of a figure, or one column of a table.

    `experiments.part` turns a wrong field into a one-line error.

    Attributes:
        name: its key in claims and in the file of its figure or table in results/published.
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
        """Return the label of the x axis."""
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

    @property
    def columns(self) -> int:
        """Return how many panels are side by side: three if they fill rows of three."""
        return 3 if len(self.panels) % 3 == 0 else min(len(self.panels), 2)


class Published(NamedTuple):
    """One row of a table of the paper.

    Attributes:
        norm: the norm of ours to compare with, or None.
        values: a number for each column, or None.
    """

    model: str
    norm: str | None
    values: tuple[float | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """One of the TABLES of an experiment: numbers at the best step, below those of the paper.

    Attributes:
        name: also of the file in results/published/tables with the paper's rows.
        source: where these rows come from.
        columns: panels, of which a table shows one reading.
    """

    name: str
    title: str
    caption: str
    source: str
    columns: tuple[Panel, ...]

    @functools.cached_property
    def rows(self) -> list[Published]:
        """The rows of the paper's table."""

        def read(row: Mapping[str, str]) -> Published:
            cells = (row[column.name] for column in self.columns)
            values = tuple(float(cell) if cell else None for cell in cells)
            return Published(row["model"], row["norm"] or None, values)

        return [read(row) for row in read_csv(PUBLISHED / "tables" / f"{self.name}.csv")]


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
        """Return the mean of the lanes ``[N]``."""
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
    readings: Iterable[Reading], best: Mapping[Lane, int], column: Panel, complete: bool
) -> Curve | None:
    """Return a column's value of each lane at its best step, as a curve of one reading.

    Its x is the mean of these steps. None if a lane has no value there.

    Args:
        readings: of a run.
        best: lane -> its best step.
        column: of the table.
        complete: whether the run has come to its end.
    """
    lanes = values(readings, column.split, column.metric)
    if not best or any(step not in lanes.get(lane, {}) for lane, step in best.items()):
        return None
    y = np.array([[lanes[lane][step]] for lane, step in best.items()])
    seeds = tuple(seed for seed, _ in best)
    return Curve(np.array([np.mean(list(best.values()))]), y, complete, seeds)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file of results/published, whose comments begin with #.

    Raises:
        InputError: there is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing.")
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@functools.cache
def published(path: Path) -> dict[tuple[str, str], Curve]:
    """Return the curves in results/published/<figure>.csv, (panel, norm) -> curve.

    The paper has bands, not runs. The two edges of a band replace the lanes: the widest spread
    that the band allows, with the published line as its mean. Without a band, the line is one lane.
    """
    points: dict[tuple[str, str], list] = {}
    for row in read_csv(path):
        half = (float(row["high"]) - float(row["low"])) / 2 if row["low"] else math.nan
        point = float(row["x"]), float(row["y"]), half
        points.setdefault((row["panel"], row["norm"]), []).append(point)
    curves = {}
    for key, rows in points.items():
        x, y, half = np.array(rows).T
        curves[key] = Curve(x, y[None] if np.isnan(half).any() else np.stack([y - half, y + half]))
    return curves
