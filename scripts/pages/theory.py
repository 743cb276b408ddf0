"""Section 5 as numbers: what its template shows, and the charts of its demonstrations."""

from collections.abc import Mapping
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
    rows = [charts.curve_row(name, "", at, [lane]) for name, lane in curves.items()]
    styles = list(zip(curves, COLOURS, SYMBOLS, strict=False))
    return charts.lines(title, (x, y), rows, styles, **more)


def growth(n: dict[str, Any]) -> list[Chart]:
    """Return charts of the length and the turns of the weights, and of the losses."""
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
FIGURES = dict(growth=growth, dynamics=dynamics)


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
