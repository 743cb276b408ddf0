"""Decide claims 16 to 18 (§6.2, figure 2)."""

from collections.abc import Callable

import numpy as np

from experiments.curves import (
    CONFIRMED,
    CONTRADICTED,
    NOT_DECIDED,
    NOT_TESTED,
    ONE_SEED,
    Curves,
    Estimate,
    Pace,
    Verdict,
    missing,
)

NAMES = dict(
    none="no norm",
    batch="batch norm",
    everywhere="batch norm everywhere",
    layer="layer norm",
    layer_small="layer norm with gains of 0.1",
)


def wanted(*norms: str) -> dict[tuple[str, str], str]:
    """The curves that a claim compares."""
    return {("valid", norm): NAMES[norm] for norm in norms}


OTHERS = ("none", "batch", "everywhere")


def claim_16(curves: Curves) -> Verdict:
    """Compares how many updates it takes without norm, with batch norm in the LSTMs and with batch
    norm everywhere, each, and with layer norm until the validation error (mean over seeds) first
    falls to a level. The levels are the lowest errors that the other has reached at each tenth of
    its length but the first; the factor is its number of updates divided by layer norm's (between
    two readings by linear interpolation; 0 where layer norm never arrives). Since readings are
    noisy, faster is a factor of 1.1 or more. Confirmed where layer norm is faster than each of the
    three at three quarters of the levels or more; contradicted where its factor is 1 or less at
    three quarters or more against any of them; in between the factors say how fast. It takes two
    seeds to decide.
    """
    if lacking := missing(curves, wanted(*OTHERS, "layer"), single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    layer = curves["valid", "layer"]
    paces = {norm: Pace.of(curves["valid", norm], layer) for norm in OTHERS}
    text = " ".join(
        f"Layer norm against {NAMES[norm]}: {np.median(pace.factors):.2f} times as fast (median "
        f"over {len(pace.levels)} levels, errors from {pace.levels[0]:.3f} to "
        f"{pace.levels[-1]:.3f}; from {pace.factors.min():.2f} to {pace.factors.max():.2f}), at "
        f"{(pace.factors >= 1.1).sum()} of them 1.1 times or more, at {(pace.factors <= 1).sum()} "
        f"not faster."
        for norm, pace in paces.items()
    )
    if min(len(curves["valid", norm].lanes) for norm in (*OTHERS, "layer")) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    if any((pace.factors <= 1).mean() >= 0.75 for pace in paces.values()):
        return Verdict(CONTRADICTED, text)
    faster = all((pace.factors >= 1.1).mean() >= 0.75 for pace in paces.values())
    return Verdict(CONFIRMED if faster else NOT_DECIDED, text)


def lower(curves: Curves, others: tuple[str, ...], what: str, count: Callable) -> Verdict:
    """Whether the errors of layer norm are lower than each of the others', as claims 17 and 18 ask.

    Args:
        what: of the curve is compared, for `Curve.last`, "min" or "median".
        count: a curve -> how many of its last readings.
    """
    norms = (*others, "layer")
    if lacking := missing(curves, wanted(*norms), single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    found = {norm: curves["valid", norm].last(what, count(curves["valid", norm])) for norm in norms}
    text = ", ".join(f"{error.mean():.3f} with {NAMES[n]}" for n, error in found.items())
    text = f"The errors are {text}."
    if min(map(len, found.values())) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    layer = Estimate.of(found["layer"])
    gaps = {norm: layer.minus(Estimate.of(found[norm])) for norm in others}
    text += " Differences of layer norm (± standard error): " + ", ".join(
        f"{gap.value:+.3f} ± {gap.error:.3f} to {NAMES[norm]}" for norm, gap in gaps.items()
    )
    if any(gap.value > 2 * gap.error for gap in gaps.values()):
        return Verdict(CONTRADICTED, text + ".")
    lower = all(gap.value < -2 * gap.error for gap in gaps.values())
    return Verdict(CONFIRMED if lower else NOT_DECIDED, text + ".")


def claim_17(curves: Curves) -> Verdict:
    """Compares the lowest validation error of all readings, of each seed. Confirmed where layer
    norm's is lower than each of the other three (no norm, batch norm in the LSTMs, batch norm
    everywhere) by more than twice the standard error over seeds; contradicted where it is higher
    than any of them by as much. It takes two seeds to decide.
    """
    return lower(curves, OTHERS, "min", lambda curve: 0)


def claim_18(curves: Curves) -> Verdict:
    """Compares where layer norm ends with gains that start at 1 and at 0.1: the median validation
    error of the last tenth of the readings, of each seed. Confirmed where it is lower with 1 by
    more than twice the standard error over seeds, contradicted where it is higher by as much. It
    takes two seeds to decide. What the paper had in mind besides, that batch norm needs 0.1 and
    layer norm does not, is not asked.
    """
    return lower(curves, ("layer_small",), "median", lambda curve: max(1, len(curve.x) // 10))
