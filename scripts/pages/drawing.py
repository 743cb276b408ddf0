"""Pictures of curves, ours over the paper's, and of panels of the analysis."""

import dataclasses

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
import numpy as np

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


def styles_of(norms) -> dict[str, tuple]:
    """norm -> (name, colour, marker), in the order in which they are drawn and tabulated."""
    others = [norm for norm in norms if norm not in STYLES]
    further = {norm: (norm, *FURTHER[n % len(FURTHER)]) for n, norm in enumerate(others)}
    return {norm: style for norm, style in STYLES.items() if norm in norms} | further


def draw(panels, columns: int, ours: dict, theirs: dict) -> bytes:
    """Draws panels with a common legend below; returns a PNG.

    Args:
        ours, theirs: (panel, norm) -> curve.
    """
    norms = styles_of(dict.fromkeys(norm for _, norm in [*ours, *theirs]))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows + 0.6), dpi=150, layout="constrained")
    lines: dict[str, Line2D] = {}  # one of each name, for the legend
    for n, panel in enumerate(panels, start=1):
        lines |= draw_panel(figure.add_subplot(rows, columns, n), panel, norms, ours, theirs)
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


def draw_panel(axes, panel, norms: dict, ours: dict, theirs: dict) -> dict[str, Line2D]:
    """Draws the curves of a panel, the paper's below ours; returns a line of each by its name."""
    panel = dataclasses.replace(panel, x_log=panel.x_log or is_short(panel, ours, theirs))
    axes.set_yscale("log" if panel.log else "linear")
    axes.set_xscale("log" if panel.x_log else "linear")
    lines = {}
    for who, curves in (("paper", theirs), ("ours", ours)):
        for norm, (name, colour, marker) in norms.items():
            if (panel.name, norm) in curves:
                curve = curves[panel.name, norm]
                lines[f"{name}, {who}"] = draw_curve(axes, curve, panel, who, colour, marker)
    axes.set_ylim(y_limits(panel, ours, theirs))
    axes.margins(x=0.02)
    missing = not any(name == panel.name for name, _ in ours)
    axes.set_title(panel.title + (" (no run of ours)" if missing else ""), fontsize=11)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.label)
    axes.grid(True, color=GRID, linewidth=0.6)
    return lines


def draw_curve(axes, curve, panel, who: str, colour: str, marker: str):
    """Draws the mean line, and the band from the lowest to the highest lane."""
    ours = who == "ours"
    low, high = panel.times * curve.lanes.min(0), panel.times * curve.lanes.max(0)
    axes.fill_between(curve.x, low, high, color=colour, alpha=0.22 if ours else 0.10, linewidth=0)
    if ours:  # the lanes, too: a mean hides that one has not fallen yet
        axes.plot(curve.x, panel.times * curve.lanes.T, color=colour, alpha=0.5, linewidth=0.6)
    (line,) = axes.plot(
        curve.x,
        panel.times * curve.mean,
        color=colour,
        alpha=1.0 if ours else 0.5,
        linestyle="-" if ours else (0, (4, 2)),
        linewidth=1.8 if ours else 1.2,
        marker=marker,
        markersize=4.5,
        markerfacecolor=colour if ours else "white",
        markevery=marked(curve, panel),
        zorder=3 if ours else 2,
    )
    return line


def marked(curve, panel) -> list[int]:
    """The readings with a marker: few, and evenly along the x axis however noisy the curve."""
    if panel.x_log:
        places = np.geomspace(curve.x[curve.x > 0][0], curve.x[-1], 8)
    else:
        places = np.linspace(curve.x[0], curve.x[-1], 8)
    return np.unique(np.searchsorted(curve.x, places)).tolist()


def is_short(panel, ours: dict, theirs: dict) -> bool:
    """Whether our runs end before a fifth of the paper's: a streak on a linear axis."""
    ends = [
        max((curve.x[-1] for (name, _), curve in curves.items() if name == panel.name), default=0)
        for curves in (ours, theirs)
    ]
    return 0 < ends[0] < 0.2 * ends[1]


def y_limits(panel, ours: dict, theirs: dict) -> tuple[float, float]:
    """The panel's limits, widened: on a log axis to all lines, else to most of ours.

    A linear axis cuts off the worst tenth (the start, and spikes), as the paper's does.
    """
    low, high = panel.limits
    for (name, _), curve in [*ours.items(), *(theirs.items() if panel.log else ())]:
        values = panel.times * curve.mean
        values = values[np.isfinite(values) & ((values > 0) | (not panel.log))]
        if name == panel.name and len(values):
            most = (0.0, 0.9) if panel.falling else (0.1, 1.0)
            ends = np.quantile(values, (0, 1) if panel.log else most)
            low, high = min(low, ends[0]), max(high, ends[1])
    return (low / 2, high * 2) if panel.log else (low, high + 0.02 * (high - low))


def draw_panels(panels, columns: int) -> bytes:
    """Draws panels of experiments/theory/theory.py; returns a PNG."""
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows), dpi=150, layout="constrained")
    for n, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, n)
        axes.set_title(panel.title, fontsize=11)
        if panel.matrix is None:
            draw_lines(axes, panel)
        else:
            draw_matrix(axes, panel)
    return png(figure)


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
