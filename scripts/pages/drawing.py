"""Pictures of curves, ours over the paper's, and of panels of the analysis."""

from collections.abc import Iterable, Mapping, Sequence
import itertools

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
import numpy as np

from experiments.curves import Curve, Panel
from experiments.pictures import png
from scripts.pages.sections import Curves, of_panel

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
STROKES: dict[str, dict] = dict(
    ours=dict(linewidth=1.8, zorder=3),
    paper=dict(linewidth=1.2, zorder=2, alpha=0.5, linestyle=(0, (4, 2)), markerfacecolor="white"),
)


def styles_of(norms: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Return norm -> (name, colour, marker), in the order in which they are drawn and tabulated."""
    norms = dict.fromkeys(norms)
    others = [norm for norm in norms if norm not in STYLES]
    further = {norm: (norm, *FURTHER[n % len(FURTHER)]) for n, norm in enumerate(others)}
    return {norm: style for norm, style in STYLES.items() if norm in norms} | further


def label(axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True, color=GRID, linewidth=0.6)


# --- Curves of training ---


def draw(panels: Sequence[Panel], columns: int, ours: Curves, theirs: Curves) -> bytes:
    """Return panels with a common legend below, as a PNG."""
    rows = -(-len(panels) // columns)
    size = 4.6 * columns, 3.3 * rows + 0.6  # inches; the legend has 0.6
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    drawn = (of_panel(panel, curves) for panel in panels for curves in (ours, theirs))
    styles = styles_of(itertools.chain(*drawn))
    lines: dict[str, Line2D] = {}  # one of each name, for the legend
    for n, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, n)
        lines |= draw_panel(axes, panel, styles, of_panel(panel, ours), of_panel(panel, theirs))
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


def draw_panel(
    axes, panel: Panel, styles: dict, ours: dict[str, Curve], theirs: dict[str, Curve]
) -> dict[str, Line2D]:
    """Draw the curves of a panel, the paper's below ours; return a line of each by its name."""
    axes.set_yscale("log" if panel.log else "linear")
    axes.set_xscale("log" if panel.x_log or is_short(ours, theirs) else "linear")
    lines = {}
    for who, curves in (("paper", theirs), ("ours", ours)):
        for norm, (name, colour, marker) in styles.items():
            if norm in curves:
                line = draw_curve(axes, curves[norm], panel.times, who, colour, marker)
                lines[f"{name}, {who}"] = line
    axes.set_ylim(y_limits(panel, [*ours.values(), *(theirs.values() if panel.log else ())]))
    axes.margins(x=0.02)
    label(axes, panel.title + ("" if ours else " (no run of ours)"), panel.x_label, panel.label)
    return lines


def draw_curve(axes, curve: Curve, times: float, who: str, colour: str, marker: str) -> Line2D:
    """Draw the mean line, and the band from the lowest to the highest lane."""
    x, lanes, alpha = curve.x, times * curve.lanes, 0.22 if who == "ours" else 0.10
    axes.fill_between(x, lanes.min(0), lanes.max(0), color=colour, alpha=alpha, linewidth=0)
    if who == "ours":  # the lanes, too: a mean hides that one has not fallen yet
        axes.plot(x, lanes.T, color=colour, alpha=0.5, linewidth=0.6)
    style: dict = dict(color=colour, marker=marker, markersize=4.5, markevery=max(1, len(x) // 8))
    (line,) = axes.plot(x, times * curve.mean, **style, **STROKES[who])
    return line


def is_short(ours: dict[str, Curve], theirs: dict[str, Curve]) -> bool:
    """Return whether our runs end before a fifth of the paper's: a streak on a linear axis."""
    end, full = (max((c.x[-1] for c in curves.values()), default=0) for curves in (ours, theirs))
    return 0 < end < 0.2 * full


def y_limits(panel: Panel, curves: Iterable[Curve]) -> tuple[float, float]:
    """Return the panel's limits, widened: on a log axis to whole curves, else to most of them.

    A linear axis cuts off the worst tenth (the start, and spikes), as the paper's does.
    """
    most = (0.0, 1.0) if panel.log else (0.0, 0.9) if panel.falling else (0.1, 1.0)
    ends = list(panel.limits or ())
    for curve in curves:
        values = panel.times * curve.mean
        values = values[np.isfinite(values) & ((values > 0) | (not panel.log))]
        ends += np.quantile(values, most).tolist() if len(values) else []
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    return (low / 2, high * 2) if panel.log else (low, high + 0.02 * (high - low or 1.0))


# --- Panels of the analysis ---


class Picture:
    """A picture of panels in two columns, filled in reading order."""

    def __init__(self, rows: int):
        self.figure = Figure(figsize=(9.2, 3.6 * rows), dpi=150, layout="constrained")
        self.axes = iter(self.figure.subplots(rows, 2).flat)

    def lines(self, title: str, x_label: str, y_label: str, x, curves: Mapping[str, Sequence]):
        """Draw curves, name -> y, from dark to light; return the axes."""
        axes, colours = next(self.axes), colormaps["viridis"](np.linspace(0, 0.9, len(curves)))
        for n, (name, y) in enumerate(curves.items()):
            # Markers at different places, so that lines on top of each other can be told apart.
            style = dict(marker="osD^v"[n % 5], markersize=4.5, markevery=(0.03 * n, 0.15))
            axes.plot(x, y, color=colours[n], linewidth=1.5, label=name, **style)
        label(axes, title, x_label, y_label)
        axes.legend(fontsize=8, frameon=False)
        return axes

    def matrix(self, title: str, matrix: np.ndarray, limit: float) -> None:
        """Draw a matrix; red is positive, blue negative, with full colours at the limit."""
        axes = next(self.axes)
        axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(title, fontsize=11)

    def png(self) -> bytes:
        return png(self.figure)
