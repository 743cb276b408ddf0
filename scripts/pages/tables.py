"""Numbers of curves as cells: ours beside the paper's."""

from collections.abc import Iterable, Sequence
import dataclasses

import numpy as np

from experiments.curves import Curve, Panel, Table
from scripts.pages.charts import styles_of
from scripts.pages.sections import Curves, Section, by_norm


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a Markdown table; its first columns are texts, the others numbers."""
    marks = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, marks, *rows))


def number(lanes: np.ndarray, digits: str) -> str:
    """Return the mean over lanes ``[L]`` and, of two or more, the standard deviation."""
    if not len(lanes):
        return "–"
    spread = f" ± {lanes.std(ddof=1):{digits}}" if len(lanes) > 1 else ""
    return f"{lanes.mean():{digits}}{spread}".replace("e-0", "e-")


def as_line(curve: Curve) -> Curve:
    """Return a published curve without its band, whose edges are no seeds."""
    return dataclasses.replace(curve, lanes=curve.mean[None])


def table_of(panel: Panel, ours: Curves, theirs: Curves) -> dict:
    """Return ours beside the paper's, at the panel's landmarks and in its summaries."""
    labels = [f"{panel.x_label} = {x:g}" for x in panel.landmarks]
    spans = [(name, f"last {count}" if count else "all") for name, count in panel.summaries]
    labels += [f"{name} of {span}" for name, span in spans]
    labels += [f"{panel.x_label} when {panel.times * level:g} is reached" for level in panel.levels]
    mine, papers = by_norm(panel, ours), by_norm(panel, theirs)
    head, columns = [], []
    for norm, (name, *_) in styles_of([*mine, *papers]).items():
        curve, paper = mine.get(norm), as_line(papers[norm]) if norm in papers else None
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

    def row(model: str, values, seeds: str = "", step: str = "") -> dict:
        arrays = [np.array([]) if value is None else np.atleast_1d(value) for value in values]
        texts = [number(a, column.digits) for a, column in zip(arrays, table.columns, strict=True)]
        return dict(model=model, paper=not seeds, cells=[*texts, seeds, step])

    rows = [row(published.model, published.values) for published in table.rows]
    names = [column.name for column in table.columns]
    for norm, (label, *_) in styles_of(norm for name, norm in ours if name in names).items():
        curves = [ours.get((name, norm)) for name in names]
        known = next(curve for curve in curves if curve)
        model = f"ours, {label}" + ("" if known.complete else ", not finished")
        values = [curve.lanes[:, 0] if curve else None for curve in curves]
        rows.append(row(model, values, str(len(known.lanes)), f"{known.x[0]:,.0f}"))
    return rows


def evaluations(section: Section) -> list[tuple]:
    """Return norm, seed, step, split, metric, samples, value and examples of each estimate."""
    keys = ("seed", "step", "split", "metric", "samples")
    rows = []
    for shown in section.runs:
        label = styles_of([shown.stored.config["norm"]]).popitem()[1][0]
        for row in shown.stored.evaluations:
            # Rows without samples repeat the scores of training.
            if row.get("samples") and (row["seed"], row["lr"]) in shown.lanes:
                error = f" ± {row['error']:.2g}" if row["error"] else ""  # none of one example
                texts = f"{row['value']:.5g}{error}", f"{row['cases']:,}"
                rows.append((label, *(row[key] for key in keys), *texts))
    return sorted(rows)
