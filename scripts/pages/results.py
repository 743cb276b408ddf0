"""Runs as the results section of a paper: a summary, then section by section its figures, tables
and claims."""

import base64
from pathlib import Path

from scripts.pages.claims import claims_of
from scripts.pages.drawing import draw
from scripts.pages.sections import Section, gather, read_sections
from scripts.pages.tables import evaluations, rows_of, summary, table_of


def page(root: Path) -> tuple[dict, dict[str, bytes]]:
    """What the template shows of all runs below root, and its pictures by file name."""
    sections, pictures = [], {}
    for n, section in enumerate(read_sections(root), start=1):
        shown, drawn = show(section, f"{n}-{section.experiment}-{section.scale}")
        sections.append(shown)
        pictures |= drawn
    return dict(sections=sections, root=root.as_posix()), pictures


def show(section: Section, slug: str) -> tuple[dict, dict[str, bytes]]:
    """What the template shows of a section, and its pictures by file name."""
    found, pictures, figures = gather(section), {}, []
    for figure in found.figures:
        panels, curves = figure["panels"], (figure["ours"], figure["theirs"])
        file = f"{slug}-{figure['name']}.png"
        pictures[file] = draw(panels, figure["columns"], *curves)
        embedded = [  # one by one, so that a phone shows them below each other
            (
                f"{panel.label}, {panel.title}",
                base64.b64encode(draw([panel], 1, *curves)).decode(),
            )
            for panel in panels
        ]
        tables = [table_of(panel, *curves) for panel in panels]
        figures.append(dict(figure, file=file, pictures=embedded, tables=tables))
    shown = dict(
        section=section,
        slug=slug,
        figures=figures,
        tables=[dict(table, rows=rows_of(table)) for table in found.tables],
        evaluations=evaluations(section),
        claims=claims_of(section, found),
        summary=summary(section, found),
    )
    return shown, pictures
