"""Decide claims 27 and 28 (§6.7)."""

import numpy as np

from experiments.curves import (
    CONFIRMED,
    CONTRADICTED,
    NOT_DECIDED,
    NOT_TESTED,
    ONE_SEED,
    Curves,
    Pace,
    Verdict,
    missing,
)

NAMES = dict(none="no norm", layer="layer norm", batch="batch norm")


def claim_27(curves: Curves) -> Verdict:
    """Compares how many epochs each takes until the training NLL (mean over seeds) first falls to a
    level: layer norm with no norm, and batch norm with layer norm. The levels are the lowest NLLs
    that the former has reached at each tenth of its length but the first; faster is a factor of 1.1
    or more at three quarters of the levels or more, and not faster 1 or less at as many.
    Confirmed where layer norm is faster than no norm, and batch norm faster than layer norm;
    contradicted where either is not faster. It takes two seeds to decide.
    """
    wanted = {("train_nll", norm): name for norm, name in NAMES.items()}
    if lacking := missing(curves, wanted, single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    paces, texts = [], []
    for slower, faster in (("none", "layer"), ("layer", "batch")):
        pace = Pace.of(curves["train_nll", slower], curves["train_nll", faster])
        paces.append(pace.factors)
        texts.append(
            f"{NAMES[faster].capitalize()} is {np.median(pace.factors):.2f} times as fast as "
            f"{NAMES[slower]} (median over {len(pace.levels)} levels; from "
            f"{pace.factors.min():.2f} to {pace.factors.max():.2f})."
        )
    text = " ".join(texts)
    if min(len(curves[key].lanes) for key in wanted) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    if any((factors <= 1).mean() >= 0.75 for factors in paces):
        return Verdict(CONTRADICTED, text)
    faster = all((factors >= 1.1).mean() >= 0.75 for factors in paces)
    return Verdict(CONFIRMED if faster else NOT_DECIDED, text)


def claim_28(curves: Curves) -> Verdict:
    """Compares how often units at the border of the image and all others are active, over the test
    set, in the first convolutional layer at the end of training; without norm, with layer norm and
    with batch norm. "Rarely" is read as half as often or less. Confirmed where it is that with all
    three (mean over seeds); contradicted where the units at the border are active as often as the
    others or more with any of them. It takes two seeds to decide.
    """
    where = ("border", "inside")
    wanted = {(place, n): f"{name} ({place})" for n, name in NAMES.items() for place in where}
    if lacking := missing(curves, wanted, single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    shares, texts = [], []
    for norm, name in NAMES.items():
        border, inside = (curves[place, norm].last("mean", 1) for place in where)
        shares.append(border.mean() / inside.mean())
        texts.append(f"{border.mean():.0%} of the time against {inside.mean():.0%} with {name}")
    text = f"Units at the border are active {', '.join(texts)}."
    if min(len(curves[key].lanes) for key in wanted) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    if max(shares) >= 1:
        return Verdict(CONTRADICTED, text)
    return Verdict(CONFIRMED if max(shares) <= 0.5 else NOT_DECIDED, text)
