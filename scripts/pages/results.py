"""Runs as the results section of a paper: speed-ups, then its figures, tables and claims."""

import base64
from pathlib import Path

from scripts.pages import evidence
from scripts.pages.claims import claims_of
from scripts.pages.drawing import draw
from scripts.pages.sections import Section, gather, read_sections
from scripts.pages.tables import evaluations, rows_of, table_of


def page(root: Path) -> tuple[dict, dict[str, bytes]]:
    """Return what the template shows of all runs below root, and its pictures by file name."""
    sections, broken = read_sections(root)
    entries: list[dict] = []
    pictures: dict[str, bytes] = {}
    compared: list = []
    for n, section in enumerate(sections, start=1):
        entry, drawn = show(section, f"{n}-{section.experiment}-{section.scale}")
        entries.append(entry)
        pictures |= drawn
        compared += entry["studies"]
    speeds = evidence.draw_speeds(compared) if compared else b""
    if speeds:
        pictures["speed-ups.png"] = speeds
    shown: dict = dict(
        sections=entries, head=evidence.HEAD, speeds=base64.b64encode(speeds).decode()
    )
    return shown | dict(root=root.as_posix(), broken=broken), pictures


def show(section: Section, slug: str) -> tuple[dict, dict[str, bytes]]:
    """Return what the template shows of a section, and its pictures by file name."""
    gathered, figures, pictures = gather(section), [], {}
    ours, theirs = gathered.ours, gathered.theirs
    drawn = {name for name, _ in [*ours, *theirs]}
    for figure in section.figures:
        if not any(panel.name in drawn for panel in figure.panels):
            continue  # a figure that is not in the paper, of which these runs have nothing
        file = f"{slug}-{figure.name}.png"
        pictures[file] = draw(figure.panels, figure.columns, ours, theirs)
        embedded = [  # one by one, so that a phone shows them below each other
            (
                f"{panel.label}, {panel.title}",
                base64.b64encode(draw([panel], 1, ours, theirs)).decode(),
            )
            for panel in figure.panels
        ]
        numbers = [table_of(panel, ours, theirs) for panel in figure.panels]
        figures.append(dict(figure=figure, file=file, pictures=embedded, tables=numbers))
    shown = dict(
        section=section,
        slug=slug,
        figures=figures,
        tables=[dict(table=table, rows=rows_of(table, ours)) for table in section.tables],
        evaluations=evaluations(section),
        claims=claims_of(section, gathered),
        title=section.figures[0].title,
        studies=[study for study in evidence.studies([section]) if study.by_rate],
    )
    return shown, pictures
