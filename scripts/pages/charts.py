"""Charts as Vega-Lite specifications: curves, ours over the paper's; and their renderings."""

import base64
from collections.abc import Iterable, Mapping, Sequence
import gzip
import re
from typing import Any

import numpy as np

from experiments.curves import Curve, Figure, Panel
from ln.errors import InputError
from scripts.pages.sections import Curves, of_panel

Chart = dict[str, Any]  # a specification
Style = tuple[str, str, str]

# Name, colour (Okabe and Ito's, told apart by the colour-blind) and shape (for black and white).
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
SYMBOLS = dict(zip(
    ("square", "triangle-up", "circle", "diamond", "triangle-down", "cross", "triangle-right",
     "stroke"), "■▲●◆▼✚▶━", strict=True,
))  # fmt: skip
OURS, PAPER = "ours", "the paper"
POINTS = 80  # of a curve, at most: more than a screen shows
SIZE = dict(width=340, height=230)
FRONT = "currentColor"  # that of the text around the chart, in light and dark
AXIS = dict(
    labelColor=FRONT, titleColor=FRONT, domainColor=FRONT, tickColor=FRONT, gridColor=FRONT,
    # A logarithmic axis has ticks without a label.
    gridOpacity=dict(condition=dict(test="datum.label", value=0.15), value=0),
    labelFontSize=11, titleFontSize=12, titleFontWeight="normal", aria=False, tickCount=6,
    labelExpr="datum.label && (datum.value && abs(datum.value) < 0.01 "
    "? format(datum.value, '.0~e') : datum.label)",
)  # fmt: skip
CONFIG = dict(
    background="transparent", font="system-ui, sans-serif", view=dict(stroke=None), axis=AXIS,
    title=dict(color=FRONT, fontSize=13, aria=False), mark=dict(aria=False),
    legend=dict(disable=True),
)  # fmt: skip


def quantity(field: str, **more) -> dict:
    return dict(field=field, type="quantitative", **more)


def by_who(*values) -> dict:
    """Return an encoding with one value for our curves and one for the paper's."""
    scale = dict(domain=[OURS, PAPER], range=values)
    return dict(field="who", type="nominal", scale=scale, legend=None)


LINE = dict(type="line", clip=True, point=False)  # or the shapes would be drawn at each reading

# What all charts of curves have in common. Rows are lanes; the band goes from the lowest to the
# highest, and thin lines show them: a mean hides that one has not fallen yet.
CURVES: Chart = dict(
    transform=[
        dict(flatten=["x", "y", "mark"]),
        dict(filter="(!log || datum.y > 0) && indexof(off, datum.name) < 0"),
        dict(filter="indexof(off, datum.who) < 0"),
    ],
    layer=[
        dict(
            transform=[dict(filter=f"datum.who == '{OURS}' && datum.of > 1")],
            mark=LINE | dict(strokeWidth=0.6, opacity=0.5),
            encoding=dict(detail=dict(field="lane")),
        ),
        dict(
            transform=[
                dict(
                    aggregate=[
                        dict(op=op, field="y", **{"as": name})
                        for op, name in (("mean", "y"), ("min", "low"), ("max", "high"))
                    ],
                    groupby=["name", "who", "x", "mark"],
                )
            ],
            layer=[
                dict(
                    mark=LINE | dict(type="area"),
                    encoding=dict(y=quantity("low"), y2=dict(field="high"), opacity=by_who(0.2, 0.1)),
                ),
                dict(
                    mark=LINE | dict(strokeWidth=1.8),
                    encoding=dict(strokeDash=by_who([1, 0], [4, 3]), opacity=by_who(1, 0.8)),
                ),
                dict(
                    transform=[dict(filter="datum.mark")],
                    mark=dict(type="point", clip=True, filled=True, size=34),
                    encoding=dict(shape=dict(field="name", type="nominal"), opacity=by_who(1, 0.5)),
                ),
                dict(  # in the browser only
                    params=[
                        dict(name="near", select=dict(type="point", on="pointermove", nearest=True,
                                                      clear="pointerout")),
                        dict(name="zoom", bind="scales", select=dict(
                            type="interval", zoom="wheel![event.ctrlKey || event.metaKey]")),
                    ],
                    mark=dict(type="point", clip=True, size=90, strokeWidth=2),
                    encoding=dict(opacity=dict(
                        condition=dict(param="near", empty=False, value=1), value=0)),
                ),
            ],
        ),
    ],
)  # fmt: skip


# --- From curves to specifications ---


def styles_of(norms: Iterable[str]) -> dict[str, Style]:
    """Return norm -> (name, colour, shape), in the order in which they are drawn and tabulated."""
    norms = dict.fromkeys(norms)
    others = [norm for norm in norms if norm not in STYLES]
    further = {norm: (norm, *FURTHER[n % len(FURTHER)]) for n, norm in enumerate(others)}
    return {norm: style for norm, style in STYLES.items() if norm in norms} | further


def lanes_of(name: str, who: str, x: Sequence, lanes: Iterable[Sequence]) -> list[dict]:
    """Return a row of data for each lane of a curve, rounded and thinned."""
    x, lanes = np.asarray(x), np.asarray(lanes)
    kept = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(int))
    marked = np.unique(np.linspace(0, len(kept) - 1, 9).round().astype(int))
    marks = [int(n in marked) for n in range(len(kept))]
    rows = [dict(x=rounded(x[kept]), y=rounded(lane[kept]), mark=marks) for lane in lanes]
    return [dict(name=name, who=who, lane=n, of=len(rows), **row) for n, row in enumerate(rows)]


def rounded(values: np.ndarray) -> list[float | None]:
    """Return values to four digits; None where one is not finite."""
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values.tolist()]


def lines(
    title: str,
    axes: tuple[str, str],
    rows: list[dict],
    styles: Iterable[Style],
    log: tuple[bool, bool] = (False, False),
    domains: Mapping[str, Sequence[float]] | None = None,
) -> Chart:
    """Return a chart of curves.

    Args:
        axes: labels of x and y.
        rows: made by `lanes_of`.
        log: whether x and y are logarithmic.
        domains: of a linear and of a logarithmic y axis; without them, the data's.
    """
    kinds = ["log" if is_log else "linear" for is_log in log]
    names, colours, shapes = zip(*styles, strict=True)
    y_scale = dict(type=kinds[1]) | (dict(domain=domains[kinds[1]]) if domains else {})
    labels = ("low", "lowest"), ("high", "highest")
    return CURVES | dict(
        title=title,
        data=dict(values=rows),
        params=[dict(name="log", value=log[1]), dict(name="off", value=[])],
        usermeta=dict(domains=domains),
        encoding=dict(
            x=quantity("x", title=axes[0], scale=dict(type=kinds[0], nice=False, zero=False)),
            y=quantity("y", title=axes[1], scale=y_scale | dict(nice=False, zero=False)),
            color=dict(field="name", type="nominal", scale=dict(domain=names, range=colours)),
            shape=dict(field="name", type="nominal", scale=dict(domain=names, range=shapes)),
            tooltip=[dict(field="name"), dict(field="who"), quantity("x", title=axes[0]),
                     quantity("y", title="mean", format=".4~g"),
                     *(quantity(field, title=name, format=".4~g") for field, name in labels)],
        ),
    )  # fmt: skip


def panel_chart(panel: Panel, ours: Curves, theirs: Curves, styles: Iterable[Style] = ()) -> Chart:
    """Return a chart of the curves in a panel, the paper's behind ours."""
    mine, papers = of_panel(panel, ours), of_panel(panel, theirs)
    known = styles_of([*mine, *papers])
    rows = [
        row
        for who, curves in ((PAPER, papers), (OURS, mine))
        for norm, (name, *_) in known.items()
        if norm in curves
        for row in lanes_of(name, who, curves[norm].x, panel.times * curves[norm].lanes)
    ]
    domains = {
        kind: y_limits(
            panel, kind == "log", [*mine.values(), *(papers.values() if kind == "log" else ())]
        )
        for kind in ("linear", "log")
    }
    title = panel.title + ("" if mine else " (no run of ours)")
    log = panel.x_log or is_short(mine, papers), panel.log
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
        raise InputError(
            "Pages and figures need vl-convert-python. Install it: pip install vl-convert-python"
        ) from error
    return vl_convert


def svg(chart: Chart) -> str:
    """Return a chart as a picture for paper, and for browsers without JavaScript."""
    static = SIZE | chart | dict(config=CONFIG)
    if chart.get("layer") is CURVES["layer"]:
        _, means = chart["layer"]
        static["layer"] = [means | dict(layer=means["layer"][:-1])]
    text = tool().vegalite_to_svg(static)
    text = re.sub(r' ((aria-\w+|class|pointer-events)="[^"]*|(opacity|stroke-width)="1)"', "", text)
    return re.sub(r"\d+\.\d+", lambda n: f"{float(n[0]):.1f}".removesuffix(".0"), text)


def png(chart: Chart) -> bytes:
    """Return a chart, or several side by side, with a legend, as a PNG on white."""
    legend = dict(orient="bottom", title=None, columns=4, symbolOpacity=1)
    config = CONFIG | dict(background="white", legend=legend)
    return tool().vegalite_to_png(SIZE | chart | dict(config=config), scale=2)


def side_by_side(figure: Figure, ours: Curves, theirs: Curves) -> Chart:
    """Return the panels of a figure as one chart."""
    names = {panel.name for panel in figure.panels}
    styles = list(styles_of(norm for name, norm in [*ours, *theirs] if name in names).values())
    drawn = [SIZE | panel_chart(panel, ours, theirs, styles) for panel in figure.panels]
    return dict(concat=drawn, columns=figure.columns)


def library() -> str:
    """Return the browser's library of charts, compressed, in base64."""
    return base64.b64encode(gzip.compress(tool().javascript_bundle().encode(), mtime=0)).decode()


def shown(chart: Chart, alt: str, draw: bool = True) -> dict[str, Any]:
    """Return what templates show of a chart: its picture, and its own part of the specification.

    Args:
        draw: whether to draw the picture, too, which is for paper.
    """
    own = {key: value for key, value in chart.items() if value is not CURVES.get(key)}
    return dict(svg=svg(chart) if draw else "", own=own, alt=alt)


def described(chart: Chart) -> str:
    """Return what a chart of curves shows, for those who cannot see it."""
    if "layer" not in chart:
        return f"{chart['title']}: a matrix as colours."
    ends: dict[str, list] = {}
    for row in chart["data"]["values"]:
        ends.setdefault(f"{row['name']}, {row['who']}".rstrip(", "), []).append(
            (row["y"][0], row["y"][-1])
        )
    texts = [
        f"{name} from {first:.3g} to {last:.3g}"
        for name, pairs in ends.items()
        for first, last in [np.mean(pairs, axis=0)]
    ]
    x, y = (chart["encoding"][axis]["title"] for axis in "xy")
    return f"{y} against {x}, {chart['title']}: {'; '.join(texts) or 'no curve'}."
