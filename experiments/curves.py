"""Curves out of runs and out of the paper's figures, in one form."""

from collections.abc import Mapping
import csv
import dataclasses
import math
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ln.errors import InputError, choose

Row = TypeVar("Row")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes of a figure.

    Attributes:
        name: the panel's key in claims and in results/published/<figure>.csv.
        where: config keys and values of the runs that belong here; each norm is one curve.
        split, metric: the rows that are drawn.
        label: of the y axis, with the unit.
        times: from the metric's unit (also that of the published numbers) to the label's.
        digits: format of a number on the page, ".3f".
        limits: the y axis shows at least this range.
        x, x_per, x_plus: the x axis shows row[x] / x_per + x_plus, the paper's count.
        landmarks: values of x whose numbers are tabulated.
        summaries: (mean, median, min or max; of how many last values, 0 for all) to tabulate.
        levels: values of the metric for which to tabulate the x that first reaches them.
        falling: whether less is better.
    """

    name: str
    title: str
    where: Mapping
    split: str
    metric: str
    label: str
    times: float = 1.0
    digits: str = ".3f"
    log: bool = False
    limits: tuple[float, float]
    x: str
    x_per: float = 1.0
    x_plus: float = 0.0
    x_label: str
    x_log: bool = False
    landmarks: tuple[float, ...] = ()
    summaries: tuple[tuple[str, int], ...] = ()
    levels: tuple[float, ...] = ()
    falling: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One of the FIGURES of an experiment.

    Attributes:
        name: also of the figure's file in results/published, if it has a source.
        source: where the published curves come from; None if there are none.
        columns: how many panels stand side by side.
    """

    name: str
    title: str
    caption: str
    source: str | None
    columns: int
    panels: tuple[Panel, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes:
        name: its key in claims.
        label: its head on the page.
        split, metric: the rows that it is of.
        digits: format of a number on the page, ".1f".
    """

    name: str
    label: str
    split: str
    metric: str
    digits: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """One row of published numbers.

    Attributes:
        norm: the norm of ours that it is compared with, or None.
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


PARTS: dict[type, dict[str, type]] = {
    Figure: dict(panels=Panel),
    Table: dict(columns=Column, rows=Published),
}


def typed(kind: type[Row], module: str, *rows: Mapping[str, Any]) -> tuple[Row, ...]:
    """Return rows of an experiment's figures.py as dataclasses.

    Args:
        kind: `Figure` or `Table`.
        module: the ``__name__`` of figures.py, for the error.

    Raises:
        InputError: a row has an unknown field, or lacks one.
    """

    def make(kind, row, place: str):
        if not isinstance(row, Mapping):
            raise InputError(f"{place}: {row!r} must be a dict; a tuple of one needs a comma.")
        place += f", {kind.__name__.lower()} {row.get('name', row.get('model', ''))}".rstrip()
        fields = {field.name: field for field in dataclasses.fields(kind)}
        for name in row:
            choose(f"field of {place}:", name, fields)
        required = (n for n, field in fields.items() if field.default is dataclasses.MISSING)
        if lacking := [name for name in required if name not in row]:
            raise InputError(f"{place} needs also: {', '.join(lacking)}.")
        parts = {
            name: tuple(make(part, inner, place) for inner in row[name])
            for name, part in PARTS.get(kind, {}).items()
        }
        return kind(**{**row, **parts})

    return tuple(make(kind, row, f"{module.replace('.', '/')}.py") for row in rows)


@dataclasses.dataclass(frozen=True)
class Curve:
    """One quantity over the course of training.

    Attributes:
        x: ``[N]``, increasing.
        lanes: ``[L, N]``, one row per seed; of a published curve the two edges of its band.
        complete: whether it goes to the end.
        seeds: of the lanes; () if they have none.
    """

    x: np.ndarray
    lanes: np.ndarray
    complete: bool = True
    seeds: tuple[int, ...] = ()

    @property
    def mean(self) -> np.ndarray:
        return self.lanes.mean(0)

    def at(self, x: float) -> np.ndarray:
        """The lanes' values ``[L]`` at x; ``[0]`` where there is no reading."""
        (found,) = np.nonzero(np.isclose(self.x, x))
        return self.lanes[:, found[0]] if len(found) else np.array([])

    def last(self, name: str, count: int) -> np.ndarray:
        """The mean, median, min or max of each lane's last values, ``[L]``; count 0: of all.

        ``[0]`` where the curve does not go to the end.
        """
        done = self.complete and len(self.x) >= count
        return getattr(np, name)(self.lanes[:, -count:], axis=1) if done else np.array([])

    def first(self, level: float, falling: bool = True) -> np.ndarray:
        """The x at which each lane first reaches a level, ``[L]``; NaN where it never does."""
        reached = self.lanes <= level if falling else self.lanes >= level
        return np.where(reached.any(1), self.x[reached.argmax(1)], np.nan)


def from_rows(rows: list[dict], panel: Panel, complete: bool) -> Curve | None:
    """The curve of a run's rows in a panel, where every lane has a reading; None without any."""
    lanes: dict[tuple, dict[float, float]] = {}
    for row in rows:
        if row["split"] == panel.split and panel.metric in row and row[panel.x] is not None:
            readings = lanes.setdefault((row["seed"], row["lr"]), {})
            readings[row[panel.x] / panel.x_per + panel.x_plus] = row[panel.metric]
    if not lanes:
        return None
    x = sorted(set.intersection(*(set(readings) for readings in lanes.values())))
    values = np.array([[lane[at] for at in x] for lane in lanes.values()])
    return Curve(np.array(x), values, complete, tuple(seed for seed, _ in lanes))


def at_best(rows: list[dict], select: Mapping, column: Column, complete: bool) -> Curve | None:
    """A column's number of each lane at its best step by config.select, as a curve of one reading
    at the mean of these steps; None where a lane has none.
    """
    sign = 1 if select["mode"] == "min" else -1
    scores: dict[tuple, dict[int, float]] = {}
    values: dict[tuple, dict[int, float]] = {}
    for row in rows:
        lane = row["seed"], row["lr"]
        if row["split"] == select["split"]:
            scores.setdefault(lane, {})[row["step"]] = sign * row[select["metric"]]
        if row["split"] == column.split:
            values.setdefault(lane, {})[row["step"]] = row[column.metric]
    best = {lane: min(steps, key=steps.__getitem__) for lane, steps in scores.items()}
    if not best or any(step not in values.get(lane, {}) for lane, step in best.items()):
        return None
    x = np.mean(list(best.values()))
    lanes = [[values[lane][step]] for lane, step in best.items()]
    return Curve(np.array([x]), np.array(lanes), complete, tuple(seed for seed, _ in best))


def published(path: Path) -> dict[tuple[str, str], Curve]:
    """Reads results/published/<figure>.csv: (panel, norm) -> curve.

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
        points.setdefault((row["panel"], row["norm"]), []).append(
            (float(row["x"]), float(row["y"]), half)
        )
    curves = {}
    for key, rows in points.items():
        x, y, half = np.array(rows).T
        curves[key] = Curve(x, y[None] if np.isnan(half).any() else np.stack([y - half, y + half]))
    return curves
