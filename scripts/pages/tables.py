"""Numbers of curves as cells: ours beside the paper's."""

import dataclasses
import math

import numpy as np

from experiments.curves import Curve, Panel, Table
from scripts.pages.drawing import styles_in, styles_of
from scripts.pages.sections import Curves, Gathered, Section, Shown, main_panel


def number(lanes: np.ndarray, digits: str) -> str:
    """Return the mean over lanes ``[L]`` and, of two or more, the standard deviation."""
    if not len(lanes):
        return "–"
    spread = f" ± {lanes.std(ddof=1):{digits}}" if len(lanes) > 1 else ""
    return f"{lanes.mean():{digits}}{spread}".replace("e-0", "e-")


def plus_minus(value: float, error: float) -> str:
    """Return a value and its standard error to the error's second digit: "82.36 ± 0.11"."""
    digits = max(0, 1 - math.floor(math.log10(error))) if 0 < error < math.inf else 3
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def summary_name(name: str, count: int) -> str:
    return f"{name} of last {count}" if count else f"{name} of all"


def as_line(curve: Curve | None) -> Curve | None:
    """Return a published curve without its band, whose edges are no seeds."""
    return curve and dataclasses.replace(curve, lanes=curve.mean[None])


def table_of(panel: Panel, ours: Curves, theirs: Curves) -> dict:
    """Return ours beside the paper's, at the panel's landmarks and in its summaries."""
    labels = [f"{panel.x_label} = {x:g}" for x in panel.landmarks]
    labels += [summary_name(*summary) for summary in panel.summaries]
    labels += [f"{panel.x_label} when {panel.times * level:g} is reached" for level in panel.levels]
    head, columns = [], []
    for norm, (name, *_) in styles_in([panel.name], ours, theirs).items():
        curve, paper = ours.get((panel.name, norm)), as_line(theirs.get((panel.name, norm)))
        seeds = f", seeds:\N{NO-BREAK SPACE}{len(curve.lanes)}" if curve else ""
        head += [f"{name}: ours{seeds}", f"{name}: paper"]
        columns += [cells(c, panel) if c else ["–"] * len(labels) for c in (curve, paper)]
    rows = list(zip(labels, *columns, strict=True))
    return dict(title=f"{panel.label}, {panel.title}", head=head, rows=rows)


def cells(curve: Curve, panel: Panel) -> list[str]:
    """Return one column of a table."""
    values = [curve.at(x) for x in panel.landmarks]
    values += [curve.last(*summary) for summary in panel.summaries]
    texts = [number(panel.times * lanes, panel.digits) for lanes in values]
    return texts + [first(curve, level, panel.falling) for level in panel.levels]


def first(curve: Curve, level: float, falling: bool) -> str:
    """Return where each lane first reaches a level: "36, 41, never"; "…" if it still may."""
    never = "never" if curve.complete else "…"
    return ", ".join(never if np.isnan(x) else f"{x:g}" for x in curve.first(level, falling))


def rows_of(table: Table, ours: Curves) -> list[dict]:
    """Return the paper's rows of a table, then one for each norm of ours."""
    rows = []
    for row in table.rows:
        values = zip(row.values, table.columns, strict=True)
        texts = ["–" if value is None else f"{value:{c.digits}}" for value, c in values]
        rows.append(dict(model=row.model, paper=True, cells=[*texts, "", ""]))
    for norm, (name, *_) in styles_in([column.name for column in table.columns], ours).items():
        curves = [ours.get((column.name, norm)) for column in table.columns]
        known = next(curve for curve in curves if curve)
        texts = [
            number(curve.lanes[:, 0], column.digits) if curve else "–"
            for column, curve in zip(table.columns, curves, strict=True)
        ]
        rows.append(
            dict(
                model=f"ours, {name}" + ("" if known.complete else ", not finished"),
                paper=False,
                cells=[*texts, str(len(known.lanes)), f"{known.x[0]:,.0f}"],
            )
        )
    return rows


def lanes_of(shown: Shown) -> list[tuple[str, ...]]:
    """Return learning rate, seed, updates, best score, its step and the fate of every lane."""
    run, rows = shown.stored, []
    for seed, lr in sorted(run.lanes, key=lambda lane: run.config["lr"].index(lane[1])):
        updates = max((row.step for row in run.rows if row.lane == (seed, lr)), default=0)
        best = run.best([(seed, lr)])
        cells = (f"{best[1]:.4g}", f"{best[0]:,}") if best else ("–", "–")
        fate = shown.diverged.get((seed, lr), "")
        rows.append((f"{lr:g}", str(seed), f"{updates:,}", *cells, fate))
    return rows


def evaluations(section: Section) -> list[tuple]:
    """Return norm, seed, step, split, metric, samples, value and examples of each estimate.

    An estimate takes samples; the scores beside them repeat those of training.
    """
    keys = ("seed", "step", "split", "metric", "samples")
    cells = []
    for norm, (name, *_) in styles_of(
        shown.stored.config["norm"] for shown in section.runs
    ).items():
        group = [shown for shown in section.runs if shown.stored.config["norm"] == norm]
        rows = [row for shown in group for row in shown.evaluations if "samples" in row]
        for row in sorted(rows, key=lambda row: [row[key] for key in keys]):
            value, error = row["value"], row["error"]  # of a single example there is no error
            text = f"{value:.2f}" if error is None else plus_minus(value, error)
            cells.append((name, *(row[key] for key in keys), text, f"{row['cases']:,}"))
    return cells


def summary(section: Section, gathered: Gathered) -> dict:
    """Return the section's line at the top: the first summary of its main panel."""
    figure, panel = main_panel(section, gathered)
    ours, theirs = gathered.ours, gathered.theirs
    drawn = [curve for (name, _), curve in ours.items() if name == panel.name]
    name, count = next(  # a short run may have fewer readings than a summary is of
        (s for s in panel.summaries if all(len(curve.last(*s)) for curve in drawn)), ("median", 1)
    )

    def cell(curve: Curve | None) -> str:
        return number(panel.times * curve.last(name, count), panel.digits) if curve else "–"

    rows = [
        (label, cell(as_line(theirs.get((panel.name, norm)))), cell(ours.get((panel.name, norm))))
        for norm, (label, *_) in styles_in([panel.name], ours, theirs).items()
    ]
    what = f"{panel.title}: {panel.label}, {summary_name(name, count)}"
    return dict(figure=figure, what=what, rows=rows)
