"""Runs as the results section of a paper: speed-ups, then its figures, tables and claims."""

import itertools
from pathlib import Path
from typing import Any

from experiments.curves import Figure
from scripts.pages import charts, evidence
from scripts.pages.claims import claims_of
from scripts.pages.sections import Curves, Section, gather, read_sections
from scripts.pages.tables import evaluations, rows_of, table_of

Rows = dict[str, list[dict]]  # panel -> its published curves, which several settings show


def page(root: Path) -> dict[str, Any]:
    """Return what the template shows of all runs below root."""
    charts.tool()
    sections, broken = read_sections(root)
    published: Rows = {}
    grouped = itertools.groupby(sections, key=lambda section: section.experiment)
    groups = [show_experiment(list(group), published) for _, group in grouped]
    compared = [study for main, _ in groups for study in main["studies"]]
    speeds = [evidence.speeds_chart(compared)] if compared else []
    lead = [charts.shown(chart, evidence.described(compared)) for chart in speeds]
    shown = dict(groups=groups, speeds=lead, head=evidence.HEAD, published=published)
    return shown | dict(broken=broken, root=root.as_posix())


def show_experiment(sections: list[Section], published: Rows) -> tuple[dict, list[dict]]:
    """Return what the template shows of an experiment: its strongest setting, then the others."""
    known = [[s for s in evidence.studies([section]) if s.by_rate] for section in sections]
    strengths = [max(map(evidence.strength, studies), default=()) for studies in known]
    best = strengths.index(max(strengths))
    order = [best, *(n for n in range(len(sections)) if n != best)]
    main = sections[best]
    shown = [
        show(sections[n], published, "" if n == best else sections[n].differs(main))
        | dict(studies=known[n][:1], slug=main.experiment + f"-{n}" * (n != best))
        for n in order
    ]
    return shown[0], shown[1:]


def show(section: Section, published: Rows, differs: str) -> dict[str, Any]:
    """Return what the template shows of a section: all of it, or what its runs have drawn.

    Args:
        section: the runs.
        published: published curves that the page has, to which those of this section are added.
        differs: in what it differs from the section that is shown in full; "" for this one.
    """
    curves = gather(section)
    figures = [show_figure(figure, *curves, published, bool(differs)) for figure in section.figures]
    entry = dict(section=section, differs=differs, title=section.figures[0].title)
    entry |= dict(figures=[shown for shown in figures if shown["charts"]])
    if differs:
        return entry
    tables = [dict(table=table, rows=rows_of(table, curves.ours)) for table in section.tables]
    more = dict(evaluations=evaluations(section), claims=claims_of(section, curves))
    return entry | dict(tables=tables) | more


def show_figure(figure: Figure, ours: Curves, theirs: Curves, published: Rows, brief: bool) -> dict:
    """Return the charts, legend and numbers of a figure; no chart if there is no curve."""
    drawn = {name for name, _ in (ours if brief else [*ours, *theirs])}
    panels = [panel for panel in figure.panels if panel.name in drawn]
    names = {panel.name for panel in panels}
    shown = []
    for panel in panels:
        chart = charts.panel_chart(panel, ours, theirs)
        item = charts.shown(chart, charts.described(chart), draw=not brief)
        rows: list[dict] = chart["data"]["values"]
        key = f"{figure.name}, {panel.name}"
        published[key] = [row for row in rows if row["who"] == charts.PAPER]
        own = [row for row in rows if row["who"] == charts.OURS]
        item["own"] |= dict(data=dict(values=own), published=key)
        shown.append(item)
    styles = charts.styles_of(norm for name, norm in [*ours, *theirs] if name in names)
    tables = [] if brief else [table_of(panel, ours, theirs) for panel in panels]
    return dict(figure=figure, charts=shown, styles=list(styles.values()), tables=tables)
