"""Numbers of curves as cells: ours beside the paper's."""

import dataclasses
import math

from scripts.pages.drawing import styles_of
from scripts.pages.sections import Gathered, Section, main_panel


def table_of(panel, ours: dict, theirs: dict) -> dict:
    """Ours beside the paper's, at the panel's landmarks and in its summaries."""
    norms = styles_of(dict.fromkeys(norm for name, norm in [*ours, *theirs] if name == panel.name))
    labels = [f"{panel.x_label} {x:g}" for x in panel.landmarks]
    labels += [of_last(name, count) for name, count in panel.summaries]
    labels += [f"first {panel.x_label} at {panel.times * level:g}" for level in panel.levels]
    head, columns = [], []
    for norm, (name, *_) in norms.items():
        curve, paper = ours.get((panel.name, norm)), as_line(theirs.get((panel.name, norm)))
        head += [
            f"{name}: ours" + (f", seeds:\N{NO-BREAK SPACE}{len(curve.lanes)}" if curve else ""),
            f"{name}: paper",
        ]
        columns += [cells(c, panel) if c else ["–"] * len(labels) for c in (curve, paper)]
    rows = list(zip(labels, *columns, strict=True))
    return dict(title=f"{panel.label}, {panel.title}", head=head, rows=rows)


def cells(curve, panel) -> list[str]:
    """One column of a table: a curve at the landmarks and in the summaries of its panel."""
    values = [curve.at(x) for x in panel.landmarks]
    values += [curve.last(name, count) for name, count in panel.summaries]
    found = [number(panel.times * lanes, panel.digits) for lanes in values]
    return found + [first(curve, level, panel.falling) for level in panel.levels]


def first(curve, level: float, falling: bool) -> str:
    """Where each lane first reaches a level, such as "36, 41, never"; "…" where it still may."""
    never = "never" if curve.complete else "…"
    return ", ".join(never if x != x else f"{x:g}" for x in curve.first(level, falling))


def number(lanes, digits: str) -> str:
    """The mean over lanes ``[L]`` and, of two or more, the standard deviation; "–" of none."""
    if not len(lanes):
        return "–"
    spread = f" ± {lanes.std(ddof=1):{digits}}" if len(lanes) > 1 else ""
    return f"{lanes.mean():{digits}}{spread}".replace("e-0", "e-")


def rows_of(table: dict) -> list[dict]:
    """A table of TABLES as it is shown: the paper's rows, then one for each norm of ours."""
    ours = table["ours"]
    found = [
        dict(
            model=row.model,
            paper=True,
            seeds="",
            step="",
            cells=[
                "–" if value is None else f"{value:{column.digits}}"
                for column, value in zip(table["columns"], row.values, strict=True)
            ],
        )
        for row in table["rows"]
    ]
    for norm, (name, *_) in styles_of(dict.fromkeys(norm for _, norm in ours)).items():
        found_here = [ours.get((column.name, norm)) for column in table["columns"]]
        one = next(curve for curve in found_here if curve)
        found.append(
            dict(
                model=f"ours, {name}" + ("" if one.complete else ", not finished"),
                paper=False,
                seeds=str(len(one.lanes)),
                step=f"{one.x[0]:,.0f}",
                cells=[
                    number(curve.lanes[:, 0], column.digits) if curve else "–"
                    for column, curve in zip(table["columns"], found_here, strict=True)
                ],
            )
        )
    return found


def evaluations(section: Section) -> list[tuple]:
    """What was estimated of trained models, one row each: norm, seed, step, split, metric, samples,
    value with its error, cases. The scores beside the estimates are those of training, again."""
    keys = ("seed", "step", "split", "metric", "samples")
    found = []
    for norm, (name, *_) in styles_of([run.config["norm"] for run in section.runs]).items():
        rows = [r for run in section.runs if run.config["norm"] == norm for r in run.evaluations]
        estimates = [row for row in rows if "samples" in row]
        for row in sorted(estimates, key=lambda row: [row[key] for key in keys]):
            value, error = row["value"], row["error"]  # of a single case there is no error
            text = f"{value:.2f}" if error is None else plus_minus(value, error)
            found.append((name, *(row[key] for key in keys), text, f"{row['cases']:,}"))
    return found


def plus_minus(value: float, error: float) -> str:
    """Return a value and its standard error to the error's second digit: "82.36 ± 0.11"."""
    digits = max(0, 1 - math.floor(math.log10(error))) if 0 < error < math.inf else 3
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def summary(section: Section, found: Gathered) -> dict:
    """A line of the table at the top: the first summary of the main panel, for each norm the
    paper's and ours."""
    figure, panel = main_panel(section, found)
    shown = [curve for (where, _), curve in found.ours.items() if where == panel.name]
    name, count = next(  # a short run may have fewer readings than a summary is of
        (of for of in panel.summaries if all(len(curve.last(*of)) for curve in shown)),
        ("median", 1),
    )

    def cell(curve) -> str:
        return number(panel.times * curve.last(name, count), panel.digits) if curve else "–"

    norms = [norm for where, norm in [*found.ours, *found.theirs] if where == panel.name]
    rows = [
        (
            label,
            cell(as_line(found.theirs.get((panel.name, norm)))),
            cell(found.ours.get((panel.name, norm))),
        )
        for norm, (label, *_) in styles_of(dict.fromkeys(norms)).items()
    ]
    what = f"{panel.title}: {panel.label}, {of_last(name, count)}"
    return dict(figure=figure, what=what, rows=rows)


def as_line(curve):
    """A published curve without its band, whose edges are no seeds."""
    return curve and dataclasses.replace(curve, lanes=curve.mean[None])


def of_last(name: str, count: int) -> str:
    return f"{name} of last {count}" if count else f"{name} of all"
