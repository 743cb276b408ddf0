"""Pictures of curves, ours over the paper's, and of panels of the analysis."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
import itertools
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
import numpy as np

from experiments.curves import Curve, Panel
from experiments.pictures import png

# Name, colour (Okabe and Ito's, told apart by the colour-blind) and marker (for black and white).
STYLES = dict(
    none=("no norm", "#4d4d4d", "s"),
    batch=("batch norm", "#d55e00", "^"),
    layer=("layer norm", "#0072b2", "o"),
    weight=("weight norm", "#009e73", "D"),
    everywhere=("batch norm everywhere", "#e69f00", "v"),
    layer_small=("layer norm, gains from 0.1", "#56b4e9", "X"),
    layer_units=("layer norm, gains of units", "#56b4e9", "X"),
    layer_channels=("layer norm over channels", "#cc79a7", "P"),
    original=("Kiros et al.’s vectors", "#a0a0a0", "d"),
)
FURTHER = (("#cc79a7", "P"), ("#e69f00", "v"), ("#56b4e9", "X"))  # for other names, in turn
GRID = "#e0e0e0"
STROKES = dict(
    ours=dict(linewidth=1.8, zorder=3),
    paper=dict(linewidth=1.2, zorder=2, alpha=0.5, linestyle=(0, (4, 2)), markerfacecolor="white"),
)

Curves = Mapping[tuple[str, str], Curve]  # (panel, norm) -> curve


def styles_of(norms: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Return norm -> (name, colour, marker), in the order in which they are drawn and tabulated."""
    norms = dict.fromkeys(norms)
    others = [norm for norm in norms if norm not in STYLES]
    further = {norm: (norm, *FURTHER[n % len(FURTHER)]) for n, norm in enumerate(others)}
    return {norm: style for norm, style in STYLES.items() if norm in norms} | further


def styles_in(names: Collection[str], *curves: Curves) -> dict[str, tuple[str, str, str]]:
    """Return the styles of the norms that have a curve in one of the panels."""
    keys = itertools.chain(*curves)
    return styles_of(norm for name, norm in keys if name in names)


def draw_grid(
    panels: Sequence, columns: int, height: float, draw_axes: Callable[[Any, Any], None]
) -> Figure:
    """Return a picture of panels side by side, each drawn by ``draw_axes(axes, panel)``."""
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, height * rows), dpi=150, layout="constrained")
    for n, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, n)
        axes.set_title(panel.title, fontsize=11)
        draw_axes(axes, panel)
    return figure


def draw(panels: Sequence[Panel], columns: int, ours: Curves, theirs: Curves) -> bytes:
    """Return panels with a common legend below, as a PNG."""
    styles = styles_in([panel.name for panel in panels], ours, theirs)
    lines: dict[str, Line2D] = {}  # one of each name, for the legend

    def draw_axes(axes, panel):
        lines.update(draw_panel(axes, panel, styles, ours, theirs))

    figure = draw_grid(panels, columns, 3.3, draw_axes)
    figure.set_figheight(figure.get_figheight() + 0.6)
    names = sorted(lines, key=lambda name: name.endswith(", paper"))
    figure.legend(
        [lines[name] for name in names],
        names,
        loc="outside lower center",
        ncols=3 * columns if columns > 1 else 2,  # long names of many curves
        fontsize=8,
        frameon=False,
    )
    return png(figure)


def draw_panel(axes, panel: Panel, styles, ours: Curves, theirs: Curves) -> dict[str, Line2D]:
    """Draw the curves of a panel, the paper's below ours; return a line of each by its name."""
    axes.set_yscale("log" if panel.log else "linear")
    axes.set_xscale("log" if panel.x_log or is_short(panel, ours, theirs) else "linear")
    lines = {}
    for who, curves in (("paper", theirs), ("ours", ours)):
        for norm, (name, colour, marker) in styles.items():
            if curve := curves.get((panel.name, norm)):
                y = panel.times * curve.lanes
                lines[f"{name}, {who}"] = draw_curve(axes, curve.x, y, who, colour, marker)
    axes.set_ylim(y_limits(panel, ours, theirs))
    axes.margins(x=0.02)
    if not any(name == panel.name for name, _ in ours):
        axes.set_title(f"{panel.title} (no run of ours)", fontsize=11)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.label)
    axes.grid(True, color=GRID, linewidth=0.6)
    return lines


def draw_curve(axes, x, lanes, who: str, colour: str, marker: str) -> Line2D:
    """Draw the mean line, and the band from the lowest to the highest lane."""
    alpha = 0.22 if who == "ours" else 0.10
    axes.fill_between(x, lanes.min(0), lanes.max(0), color=colour, alpha=alpha, linewidth=0)
    if who == "ours":  # the lanes, too: a mean hides that one has not fallen yet
        axes.plot(x, lanes.T, color=colour, alpha=0.5, linewidth=0.6)
    (line,) = axes.plot(
        x,
        lanes.mean(0),
        color=colour,
        marker=marker,
        markersize=4.5,
        markevery=marked(x, axes.get_xscale()),
        **STROKES[who],
    )
    return line


def marked(x, scale: str) -> list[int]:
    """Return the readings with a marker: few, and evenly along the x axis, even of noisy curves."""
    if scale == "log":
        places = np.geomspace(x[x > 0][0], x[-1], 8)
    else:
        places = np.linspace(x[0], x[-1], 8)
    return np.unique(np.searchsorted(x, places)).tolist()


def is_short(panel: Panel, ours: Curves, theirs: Curves) -> bool:
    """Return whether our runs end before a fifth of the paper's: a streak on a linear axis."""
    ends = [
        max((curve.x[-1] for (name, _), curve in curves.items() if name == panel.name), default=0)
        for curves in (ours, theirs)
    ]
    return 0 < ends[0] < 0.2 * ends[1]


def y_limits(panel: Panel, ours: Curves, theirs: Curves) -> tuple[float, float]:
    """Return the panel's limits, widened: on a log axis to all lines, else to most of ours.

    A linear axis cuts off the worst tenth (the start, and spikes), as the paper's does.
    """
    most = (0.0, 1.0) if panel.log else (0.0, 0.9) if panel.falling else (0.1, 1.0)
    ends = list(panel.limits or ())
    for (name, _), curve in [*ours.items(), *(theirs.items() if panel.log else ())]:
        values = panel.times * curve.mean
        values = values[np.isfinite(values) & ((values > 0) | (not panel.log))]
        if name == panel.name and len(values):
            ends += np.quantile(values, most).tolist()
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    return (low / 2, high * 2) if panel.log else (low, high + 0.02 * (high - low or 1.0))


def draw_panels(panels, columns: int) -> bytes:
    """Return panels of experiments/theory/theory.py as a PNG."""

    def draw_axes(axes, panel):
        (draw_lines if panel.matrix is None else draw_matrix)(axes, panel)

    return png(draw_grid(panels, columns, 3.6, draw_axes))


def draw_lines(axes, panel) -> None:
    for n, line in enumerate(panel.lines):
        if line.style in STYLES:
            _, colour, marker = STYLES[line.style]
        else:  # ordered: from dark to light, without the palest
            colour, marker = colormaps["viridis"](0.9 * line.style), "osD^vPX"[n % 7]
        axes.plot(
            range(len(line.y)) if line.x is None else line.x,
            line.y,
            color=colour,
            linewidth=1.5,
            marker=marker,
            markersize=4.5,
            markevery=(0.03 * n, 0.15),  # so that lines on top of each other can be told apart
            label=line.name,
        )
    axes.set_yscale("log" if panel.y_log else "linear")
    axes.set_ylim(panel.y_limits)
    if panel.x_log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)


def draw_matrix(axes, panel) -> None:
    """Draws a picture of a matrix, with lines between the blocks of the units."""
    size = len(panel.matrix)
    axes.imshow(panel.matrix, cmap="RdBu_r", vmin=-panel.limit, vmax=panel.limit)
    for n in range(1, panel.blocks):
        edge = n * size / panel.blocks - 0.5
        axes.axhline(edge, color="#4d4d4d", linewidth=0.6)
        axes.axvline(edge, color="#4d4d4d", linewidth=0.6)
    centres = [(n + 0.5) * size / panel.blocks - 0.5 for n in range(panel.blocks)]
    names = [f"unit {n + 1}" for n in range(panel.blocks)]
    axes.set_xticks(centres, names, fontsize=8)
    axes.set_yticks(centres, names, fontsize=8, rotation=90, va="center")
    axes.tick_params(length=0)
