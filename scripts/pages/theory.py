"""Section 5 as numbers: what its template shows, and the pictures of its demonstrations."""

import base64
from typing import Any

import numpy as np

from experiments.claims import CLAIMS
from experiments.rules import CONFIRMED, CONTRADICTED, NOT_DECIDED
from experiments.theory import SEED, analysis
from experiments.theory.checks import sci
from scripts.pages.drawing import Picture

WORDS = {True: CONFIRMED, False: CONTRADICTED, None: NOT_DECIDED}


def growth(n: dict[str, Any]) -> Picture:
    picture, steps = Picture(rows=2), np.arange(len(n["losses"][1]))
    picture.lines("length of W", "step", "‖W‖", steps, {"layer norm": n["lengths"][1][:-1]})
    tens = {name: angles.reshape(-1, 10).mean(1) for name, angles in n["angles"].items()}
    axes = picture.lines(
        "turn of W per step", "step", "angle [rad], mean of 10", steps[5::10], tens
    )
    axes.set_yscale("log")
    titles = "the same learning rate for all k", "k² times the learning rate"
    for title, losses in zip(titles, (n["losses"], n["scaled"]), strict=True):
        curves = {f"k = {k:g}": loss for k, loss in losses.items()}
        picture.lines(title, "step", "training loss [nats]", steps, curves)
    return picture


def fisher(n: dict[str, Any]) -> Picture:
    picture, (F, formula) = Picture(rows=2), n["F"]
    for title, matrix in {
        "F, brute force": F,
        "eq. 13": formula,
        "eq. 13 − F": formula - F,
    }.items():
        picture.matrix(title, matrix, limit=abs(F).max() / 2)  # so that small values show
    widths, errors = zip(*n["by_width"].items(), strict=True)
    label = "relative error of eq. 13"
    axes = picture.lines(
        "layer norm, wider layers", "units H", label, widths, {"mean of 10 layers": errors}
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    return picture


def dynamics(n: dict[str, Any]) -> Picture:
    """Draw two rows for each setting of tanh: both panels of a row have the same axis."""
    tanh = {name: pairs for name, pairs in n["readings"].items() if name.startswith("tanh")}
    picture = Picture(rows=2 * len(tanh))
    for setting, pairs in tanh.items():
        for quantity, label in enumerate(("rms of a_t", "‖∂L/∂h_t‖ / ‖∂L/∂h_T‖")):
            both = np.stack([pairs[norm][quantity] for norm in ("no norm", "layer norm")])
            for norm, values in zip(("no norm", "layer norm"), both, strict=True):
                curves = {f"s = {s:g}": y for s, y in zip(n["scales"], values, strict=True)}
                axes = picture.lines(f"{norm}, {setting}", "step t", label, n["steps"], curves)
                axes.set_yscale("log")
                axes.set_ylim(both.min() / 3, both.max() * 3)
    return picture


PICTURES = dict(growth=growth, fisher=fisher, dynamics=dynamics)


def page() -> tuple[dict, dict[str, bytes]]:
    """Return what the template shows of section 5, and its pictures by file name."""
    shown = analysis()
    pictures = {name: draw(shown[name].numbers).png() for name, draw in PICTURES.items()}
    embedded = {name: base64.b64encode(picture).decode() for name, picture in pictures.items()}
    claims = {claim.number: claim for claim in CLAIMS}
    values: dict[str, Any] = dict(
        shown=shown, embedded=embedded, claims=claims, words=WORDS, sci=sci, seed=SEED
    )
    return values, {f"{name}.png": picture for name, picture in pictures.items()}
