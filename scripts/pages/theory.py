"""Section 5 as numbers: what its template shows, and the pictures of its demonstrations."""

import base64
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from experiments.claims import CLAIMS
from experiments.rules import CONFIRMED, CONTRADICTED, NOT_DECIDED
from experiments.theory import theory
from experiments.theory.checks import sci
from scripts.pages.drawing import draw_panels

WORDS = {True: CONFIRMED, False: CONTRADICTED, None: NOT_DECIDED}


class Line(NamedTuple):
    """A curve; `style` is a norm, or a place between 0 and 1 among ordered lines."""

    name: str
    x: np.ndarray
    y: np.ndarray
    style: str | float


@dataclasses.dataclass(frozen=True)
class Panel:
    """A pair of axes with lines, or the picture of a matrix ``[P, P]`` in blocks of units."""

    title: str
    x_label: str = ""
    y_label: str = ""
    lines: tuple[Line, ...] = ()
    y_log: bool = False
    y_limits: tuple[float, float] | None = None
    x_log: bool = False
    matrix: np.ndarray | None = None
    limit: float = 1.0  # of the colours of a matrix, −limit to limit
    blocks: int = 1


def ordered(letter: str, x: np.ndarray, curves: dict[float, np.ndarray]) -> tuple[Line, ...]:
    """Return a line for each value of the letter, from dark to light."""
    places = dict(zip(curves, np.linspace(0, 1, len(curves)), strict=True))
    return tuple(Line(f"{letter} = {v:g}", x, y, places[v]) for v, y in curves.items())


def growth(n: dict[str, Any]) -> list[Panel]:
    steps, length = np.arange(len(n["losses"][1])), n["lengths"][1][:-1]
    turns = tuple(
        Line(name, steps[5::10], n["angles"][name].reshape(-1, 10).mean(1), style)
        for name, style in (("‖W‖ free", "layer"), ("‖W‖ held", "none"))
    )
    plain, scaled = (ordered("k", steps, n[losses]) for losses in ("losses", "scaled"))
    loss = "training loss [nats]"
    return [
        Panel("length of W", "step", "‖W‖", (Line("layer norm", steps, length, "layer"),)),
        Panel("turn of W per step", "step", "angle [rad], mean of 10", turns, y_log=True),
        Panel("the same learning rate for all k", "step", loss, plain),
        Panel("k² times the learning rate", "step", loss, scaled),
    ]


def fisher(n: dict[str, Any]) -> list[Panel]:
    F, formula = n["F"]
    colours = dict(limit=abs(F).max() / 2, blocks=len(n["theta"]))  # so that small values show
    widths, errors = (np.array(list(values)) for values in zip(*n["by_width"].items(), strict=True))
    error = Line("mean of 10 layers", widths, errors, "layer")
    return [
        Panel("F, brute force", matrix=F, **colours),
        Panel("eq. 13", matrix=formula, **colours),
        Panel("eq. 13 − F", matrix=formula - F, **colours),
        Panel(
            "layer norm, wider layers", "units H", "relative error of eq. 13", (error,), x_log=True
        ),
    ]


def dynamics(n: dict[str, Any]) -> list[Panel]:
    labels = "rms of a_t", "‖∂L/∂h_t‖ / ‖∂L/∂h_T‖"
    tanh = {name: by_norm for name, by_norm in n["readings"].items() if name.startswith("tanh")}
    steps, one = n["steps"], n["scales"].index(1.0)
    panels, middle = [], []
    for setting, by_norm in tanh.items():
        for quantity, label in enumerate(labels):
            pair = {norm: by_norm[norm][quantity] for norm in ("no norm", "layer norm")}
            both = np.stack(list(pair.values()))
            limits = both.min() / 3, both.max() * 3
            for norm, values in pair.items():
                lines = ordered("s", steps, dict(zip(n["scales"], values, strict=True)))
                panels.append(Panel(f"{norm}, {setting}", "step t", label, lines, True, limits))
        styles = zip(by_norm, ("none", "layer", 0.8), strict=True)
        lines = tuple(Line(norm, steps, by_norm[norm][1][one], style) for norm, style in styles)
        middle.append(Panel(f"s = 1, {setting}", "step t", labels[1], lines, y_log=True))
    return panels + middle


PANELS = dict(growth=growth, fisher=fisher, dynamics=dynamics)


def page() -> tuple[dict, dict[str, bytes]]:
    """Return what the template shows of section 5, and its pictures by file name."""
    shown = {function.__name__: function(theory.SEED) for function in theory.DEMONSTRATIONS}
    panels = {name: draw(shown[name].numbers) for name, draw in PANELS.items()}
    pictures = {f"{name}.png": draw_panels(panels[name], columns=2) for name in panels}
    embedded = {
        name: [(p.title, base64.b64encode(draw_panels([p], 1)).decode()) for p in panels[name]]
        for name in panels
    }
    claims = {claim.number: claim for claim in CLAIMS}
    shown = dict(shown=shown, embedded=embedded, claims=claims, words=WORDS, sci=sci)
    return shown | dict(seed=theory.SEED), pictures
