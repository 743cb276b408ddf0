"""Section 5 as numbers: what its template shows, and the charts of its demonstrations."""

from collections.abc import Mapping
import copy
import itertools
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


def lines(title: str, x: str, y: str, at: np.ndarray, curves: Mapping[str, Any], **more) -> Chart:
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
    F, formula = n["F"]
    matrices = {"F, brute force": F, "eq. 13": formula, "eq. 13 − F": formula - F}
    widths, errors = zip(*n["by_width"].items(), strict=True)
    curve = {"mean of 10 layers": errors}
    title, y = "layer norm, wider layers", "relative error of eq. 13"
    limit = abs(F).max() / 2  # so that small values show
    pictures = [matrix(title, values, limit) for title, values in matrices.items()]
    return [*pictures, lines(title, "units H", y, np.array(widths), curve, log=(True, False))]


def matrix(title: str, values: np.ndarray, limit: float) -> Chart:
    """Return a chart of a matrix; red is positive, blue negative, full colours at the limit."""
    chart = copy.deepcopy(charts.SPECS["matrix"])
    chart["encoding"]["color"]["scale"]["domain"] = [-limit, limit]
    columns = list(range(len(values)))
    rows = [dict(row=n, column=columns, value=row.tolist()) for n, row in enumerate(values)]
    return chart | dict(title=title, data=dict(values=rows))


def dynamics(n: dict[str, Any]) -> list[Chart]:
    """Return two charts for each setting of tanh and quantity, with the same axis."""
    drawn = []
    labels = "rms of a_t", "‖∂L/∂h_t‖ / ‖∂L/∂h_T‖"
    settings = [setting for setting in n["readings"] if setting.startswith("tanh")]
    for setting, (quantity, label) in itertools.product(settings, enumerate(labels)):
        norms = "no norm", "layer norm"
        both = np.stack([n["readings"][setting][norm][quantity] for norm in norms])
        span = [both.min() / 3, both.max() * 3]
        options = dict(log=LOG, domains=dict(linear=span, log=span))
        for norm, values in zip(norms, both, strict=True):
            curves = {f"s = {s:g}": y for s, y in zip(n["scales"], values, strict=True)}
            title = f"{norm}, {setting}"
            drawn.append(lines(title, "step t", label, np.array(n["steps"]), curves, **options))
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
