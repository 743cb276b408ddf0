"""Charts as Vega-Lite specifications: curves, ours over the paper's; and their renderings."""

import base64
from collections.abc import Iterable
import gzip
import json
from pathlib import Path
import re
from typing import Any

import numpy as np

from experiments.curves import Curve, Figure, Panel
from ln.errors import InputError
from scripts.pages.sections import Curves, by_norm

Chart = dict[str, Any]  # a specification
Style = tuple[str, str, str]

# Name, colour (Okabe and Ito's, distinct for colour-blind readers) and shape (for black and white).
STYLES: dict[str, Style] = dict(
    none=("no norm", "#767676", "square"),
    batch=("batch norm", "#d55e00", "triangle-up"),
    layer=("layer norm", "#0072b2", "circle"),
    weight=("weight norm", "#009e73", "diamond"),
    everywhere=("batch norm everywhere", "#e69f00", "triangle-down"),
    layer_small=("layer norm, gains from 0.1", "#56b4e9", "cross"),
    layer_units=("layer norm, gains of units", "#56b4e9", "cross"),
    layer_channels=("layer norm over channels", "#cc79a7", "triangle-right"),
    original=("Kiros et al.’s vectors", "#a0a0a0", "stroke"),
)
FURTHER = (("#cc79a7", "triangle-right"), ("#e69f00", "triangle-down"), ("#56b4e9", "cross"))
SYMBOLS = {  # of shapes, in texts
    **{"square": "■", "triangle-up": "▲", "circle": "●", "diamond": "◆", "triangle-down": "▼"},
    **{"cross": "✚", "triangle-right": "▶", "stroke": "━"},
}
OURS, PAPER = "ours", "the paper"
POINTS, MARKS = 66, 9  # of a curve, at most: all 65 epochs of figure 6; and with a symbol
SIZE = dict(width=340, height=230)
# Colours of texts and axes are those around the chart, in light and dark. Rows of data are lanes:
# a thin line each, for a mean hides that one has not fallen yet, within a band around the mean.
SPECS: dict[str, Chart] = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
CURVES, CONFIG = SPECS["curves"], SPECS["config"]


# --- From curves to specifications ---


def styles_of(norms: Iterable[str]) -> dict[str, Style]:
    """Return norm -> (name, colour, shape), in the order in which they are drawn and tabulated."""
    norms = dict.fromkeys(norms)
    others = [norm for norm in norms if norm not in STYLES]
    further = {norm: (norm, *FURTHER[n % len(FURTHER)]) for n, norm in enumerate(others)}
    return {norm: style for norm, style in STYLES.items() if norm in norms} | further


def curve_row(name: str, who: str, x: np.ndarray, lanes: Any) -> dict:
    """Return the data of a curve and its lanes, rounded and thinned."""
    kept = spread(len(x), POINTS)
    marked = spread(len(kept), MARKS)
    y = [rounded(np.asarray(lane)[kept]) for lane in lanes]
    marks = [int(n in marked) for n in range(len(kept))]
    row = dict(name=name, who=who, lane=list(range(len(y))), lanes=len(y))
    return row | dict(x=rounded(x[kept]), y=y, mark=marks)


def spread(length: int, count: int) -> np.ndarray:
    """Return places in a sequence, evenly spread, from the first to the last."""
    return np.unique(np.linspace(0, length - 1, count).round().astype(int))


def rounded(values: np.ndarray) -> list[float | None]:
    """Return values to four digits; None where one is not finite."""
    numbers = [float(f"{v:.4g}") if np.isfinite(v) else None for v in values.tolist()]
    return [int(v) if v is not None and v == int(v) else v for v in numbers]


def lines(
    title: str,
    axes: tuple[str, str],
    rows: list[dict],
    styles: Iterable[Style],
    log: tuple[bool, bool] = (False, False),
    domains: dict | None = None,
) -> Chart:
    """Return a chart of curves.

    Args:
        title: of the chart.
        axes: labels of x and y.
        rows: made by `curve_row`.
        styles: name, colour and shape of each curve.
        log: whether x and y are logarithmic.
        domains: of a "linear" and of a "log" y axis; without them, the data's.
    """
    names, *looks = zip(*styles, strict=True)
    scales = [dict(type="log" if is_log else "linear", nice=False, zero=False) for is_log in log]
    scales[1] |= dict(domain=domains[scales[1]["type"]]) if domains else {}
    encoding: dict = {
        name: dict(field=name, type="quantitative", title=label, scale=scale)
        for name, label, scale in zip("xy", axes, scales, strict=True)
    }
    for name, look in zip(("color", "shape"), looks, strict=True):
        encoding[name] = dict(field="name", type="nominal", scale=dict(domain=names, range=look))
    params = [dict(name="log", value=log[1]), dict(name="off", value=[])]
    own = dict(title=title, data=dict(values=rows), params=params, usermeta=dict(domains=domains))
    return CURVES | own | dict(encoding=encoding)


def panel_chart(panel: Panel, ours: Curves, theirs: Curves, styles: Iterable[Style] = ()) -> Chart:
    """Return a chart of the curves in a panel, the paper's behind ours."""
    mine, papers = by_norm(panel, ours), by_norm(panel, theirs)
    known = styles_of([*mine, *papers])
    log = panel.x_log or is_short(mine, papers), panel.log
    rows = []
    for who, curves in ((PAPER, papers), (OURS, mine)):
        for norm in [norm for norm in known if norm in curves]:
            curve = curves[norm]
            kept = (curve.x > 0) | (not log[0])  # a logarithmic axis has no 0
            lanes = panel.times * curve.lanes[:, kept]
            rows.append(curve_row(known[norm][0], who, curve.x[kept], lanes))
    both = [*mine.values(), *papers.values()]
    domains = dict(linear=y_limits(panel, False, mine.values()), log=y_limits(panel, True, both))
    title = panel.title + ("" if mine else " (no run of ours)")
    return lines(title, (panel.x_label, panel.label), rows, styles or known.values(), log, domains)


def is_short(ours: dict[str, Curve], theirs: dict[str, Curve]) -> bool:
    """Return whether our runs end before a fifth of the paper's: a streak on a linear axis."""
    end, full = (max((c.x[-1] for c in curves.values()), default=0) for curves in (ours, theirs))
    return 0 < end < 0.2 * full


def y_limits(panel: Panel, log: bool, curves: Iterable[Curve]) -> tuple[float, float]:
    """Return the panel's limits, widened: on a log axis to whole curves, else to most of them.

    A linear axis cuts off the worst tenth (the start, and spikes), as the paper's does.
    """
    most = (0.0, 1.0) if log else (0.0, 0.9) if panel.falling else (0.1, 1.0)
    ends = [end for end in panel.limits or () if end > 0 or not log]
    for curve in curves:
        values = panel.times * curve.mean
        values = values[np.isfinite(values) & ((values > 0) | (not log))]
        ends += np.quantile(values, most).tolist() if len(values) else []
    low, high = min(ends, default=float(log)), max(ends, default=1.0)
    return (low / 2, high * 2) if log else (low, high + 0.02 * (high - low or 1.0))


# --- From specifications to pictures ---


def tool() -> Any:
    """Return the module that draws charts and contains the browser's library.

    Raises:
        InputError: it is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise InputError("Pages need vl_convert: pip install vl-convert-python") from error
    return vl_convert


def still(chart: Chart) -> Chart:
    """Return a chart without thin lines, and without what only a browser can do."""
    if chart.get("layer") is not CURVES["layer"]:
        return SIZE | chart
    _, means = chart["layer"]
    return SIZE | chart | dict(layer=[means | dict(layer=means["layer"][:-1])])


def svg(chart: Chart) -> str:
    """Return a chart as a picture for paper, and for browsers without JavaScript."""
    text = tool().vegalite_to_svg(still(chart) | dict(config=CONFIG))
    text = re.sub(r' ((aria-\w+|class|pointer-events)="[^"]*|(opacity|stroke-width)="1)"', "", text)
    text = re.sub(r'<(line|text)[^>]* opacity="0"[^>]*(/>|></text>)', "", text)  # not to be seen
    return re.sub(r"\d+\.\d+", lambda n: f"{float(n[0]):.3g}", text)  # a tenth of a pixel, or one


def png(chart: Chart) -> bytes:
    """Return a chart, or several side by side, with a legend, as a PNG on white."""
    legend = dict(orient="bottom", title=None, columns=3, symbolOpacity=1, labelLimit=400)
    config = CONFIG | dict(background="white", legend=legend)
    return tool().vegalite_to_png(still(chart) | dict(config=config), scale=2)


def side_by_side(figure: Figure, ours: Curves, theirs: Curves) -> Chart:
    """Return the panels of a figure as one chart."""
    names = {panel.name for panel in figure.panels}
    styles = list(styles_of(norm for name, norm in [*ours, *theirs] if name in names).values())
    drawn = [still(panel_chart(panel, ours, theirs, styles)) for panel in figure.panels]
    params = [dict(name="log", value=False), dict(name="off", value=[])]
    views = [{key: chart[key] for key in chart if key != "params"} for chart in drawn]
    return dict(concat=views, columns=figure.columns, params=params)


def library() -> str:
    """Return the browser's library of charts, compressed, in base64."""
    return base64.b64encode(gzip.compress(tool().javascript_bundle().encode(), mtime=0)).decode()


def shown(chart: Chart, alt: str, draw: bool = True) -> dict[str, Any]:
    """Return what templates show of a chart: its picture, and its own part of the specification.

    Args:
        chart: the whole specification.
        alt: what it shows, in words.
        draw: whether to draw the picture, too, which is for paper.
    """
    own = {key: value for key, value in chart.items() if value is not CURVES.get(key)}
    return dict(svg=svg(chart) if draw else "", own=own, alt=alt)


def described(chart: Chart) -> str:
    """Return what a chart of curves shows, for those who cannot see it."""
    texts = []
    for row in chart["data"]["values"]:
        first, last = (np.mean([lane[n] or 0 for lane in row["y"]]) for n in (0, -1))
        name = f"{row['name']}, {row['who']}".rstrip(", ")
        texts.append(f"{name} from {first:.3g} to {last:.3g}")
    x, y = (chart["encoding"][axis]["title"] for axis in "xy")
    return f"{y} against {x}, {chart['title']}: {'; '.join(texts) or 'no curve'}."
