"""Section 5 as numbers: what its template shows, and the charts of its demonstrations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claims import CLAIMS
from experiments.rules import CONFIRMED, CONTRADICTED, NOT_DECIDED
from experiments.theory import SEED, analysis
from experiments.theory.checks import sci
from scripts.pages import charts
from scripts.pages.charts import SYMBOLS, Chart

WORDS = {True: CONFIRMED, False: CONTRADICTED, None: NOT_DECIDED}
COLOURS = "#7e4fb0", "#4778c4", "#2a9d8f", "#7ab648", "#d9a520"  # in order, in light and dark


def lines(title: str, x: str, y: str, at: Sequence, curves: Mapping[str, Sequence], **more):
    """Return a chart of curves, name -> y."""
    rows = [row for name, lane in curves.items() for row in charts.lanes_of(name, "", at, [lane])]
    styles = list(zip(curves, COLOURS, SYMBOLS, strict=False))
    return charts.lines(title, (x, y), rows, styles, **more)


def growth(n: dict[str, Any]) -> list[Chart]:
    steps = np.arange(len(n["losses"][1]))
    tens = {name: angles.reshape(-1, 10).mean(1) for name, angles in n["angles"].items()}
    losses = {"the same learning rate for all k": "losses", "k² times the learning rate": "scaled"}
    loss = "training loss [nats]"
    return [
        lines("length of W", "step", "‖W‖", steps, {"layer norm": n["lengths"][1][:-1]}),
        lines("turn of W per step", "step", "angle [rad], mean of 10", steps[5::10], tens, log=LOG),
        *(
            lines(title, "step", loss, steps, {f"k = {k:g}": y for k, y in n[key].items()})
            for title, key in losses.items()
        ),
    ]


def fisher(n: dict[str, Any]) -> list[Chart]:
    F, formula = n["F"], n["formula"]
    limit = abs(F).max() / 2  # so that small values show
    matrices = {"F, brute force": F, "eq. 13": formula, "eq. 13 − F": formula - F}
    widths, errors = zip(*n["by_width"].items(), strict=True)
    curve = {"mean of 10 layers": errors}
    title, y = "layer norm, wider layers", "relative error of eq. 13"
    pictures = [matrix(title, values, limit) for title, values in matrices.items()]
    return [*pictures, lines(title, "units H", y, widths, curve, log=(True, False))]


def matrix(title: str, values: np.ndarray, limit: float) -> Chart:
    """Return a chart of a matrix; red is positive, blue negative, with full colours at the limit."""
    scale = dict(scheme="redblue", reverse=True, domain=[-limit, limit], domainMid=0, clamp=True)
    rows = [dict(row=n, value=charts.rounded(row)) for n, row in enumerate(values)]
    places = [row | dict(column=list(range(len(values)))) for row in rows]
    bare = dict(type="ordinal", axis=None)
    return dict(
        title=title,
        data=dict(values=places),
        transform=[dict(flatten=["column", "value"])],
        mark="rect",
        encoding=dict(
            x=dict(field="column", **bare),
            y=dict(field="row", **bare),
            color=charts.quantity("value", scale=scale),
        ),
    )


def dynamics(n: dict[str, Any]) -> list[Chart]:
    """Return two charts for each setting of tanh and quantity, with the same axis."""
    drawn = []
    for setting, pairs in n["readings"].items():
        if setting.startswith("tanh"):
            for quantity, label in enumerate(("rms of a_t", "‖∂L/∂h_t‖ / ‖∂L/∂h_T‖")):
                both = {norm: pairs[norm][quantity] for norm in ("no norm", "layer norm")}
                every = np.stack(list(both.values()))
                span = [every.min() / 3, every.max() * 3]
                for norm, values in both.items():
                    curves = {f"s = {s:g}": y for s, y in zip(n["scales"], values, strict=True)}
                    options = dict(log=LOG, domains=dict(linear=span, log=span))
                    title = f"{norm}, {setting}"
                    drawn.append(lines(title, "step t", label, n["steps"], curves, **options))
    return drawn


LOG = False, True
FIGURES = dict(growth=growth, fisher=fisher, dynamics=dynamics)


def page() -> dict[str, Any]:
    """Return what the template shows of section 5."""
    charts.tool()
    results = analysis()
    figures = {
        name: [
            charts.shown(chart, charts.described(chart)) for chart in draw(results[name].numbers)
        ]
        for name, draw in FIGURES.items()
    }
    claims = {claim.number: claim for claim in CLAIMS}
    return dict(results=results, figures=figures, claims=claims, words=WORDS, sci=sci, seed=SEED)
