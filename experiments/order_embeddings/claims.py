"""Decide claims 13 to 15 (§6.1, figure 1, table 2)."""

from functools import reduce

import numpy as np

from experiments.curves import (
    CONFIRMED,
    CONTRADICTED,
    NOT_DECIDED,
    NOT_TESTED,
    ONE_SEED,
    Curve,
    Curves,
    Estimate,
    Pace,
    Verdict,
    missing,
)

RECALLS = ("r1", "r5", "r10")
EIGHT = tuple(f"{what}_{name}" for what in ("caption", "image") for name in (*RECALLS, "mean"))


def both(panel: str) -> dict[tuple[str, str], str]:
    """The two curves of a panel that are compared."""
    return {(panel, "none"): "no norm", (panel, "layer"): "layer norm"}


def total(curves: Curves, norm: str) -> Curve:
    """R@1 + R@5 + R@10 where all three have a reading."""
    parts = [curves[name, norm] for name in RECALLS]
    x = reduce(np.intersect1d, [part.x for part in parts])
    return Curve(x, sum(part.lanes[:, np.isin(part.x, x)] for part in parts))


def claim_13(curves: Curves) -> Verdict:
    """Compares, for R@1, R@5 and R@10 of image retrieval each, how many updates it takes without
    norm and with layer norm until the validation set's (mean over seeds) first reaches a level. The
    levels are the best that the run without norm has reached at each tenth of its length but the
    first; the factor is its number of updates divided by layer norm's (between two readings by
    linear interpolation; 0 where layer norm never arrives). Since readings are noisy, a speed-up is
    a factor of 1.1 or more. Confirmed where it is that at three quarters of the levels or more of
    all three; contradicted where it is 1 or less at three quarters or more of any of them; in
    between the factors say how fast. It takes two seeds to decide.
    """
    if lacking := missing(curves, both("r1"), single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    lanes, paces = [], {}
    for name in RECALLS:
        none, layer = (curves[key] for key in both(name))
        paces[name] = Pace.of(none, layer, falling=False)
        lanes += [len(none.lanes), len(layer.lanes)]
    text = " ".join(
        f"R@{name[1:]}: {pace.describe(1.1, 'Units of 300 updates', '%')}"
        for name, pace in paces.items()
    )
    if min(lanes) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    if any((pace.factors <= 1).mean() >= 0.75 for pace in paces.values()):
        return Verdict(CONTRADICTED, text)
    faster = all((pace.factors >= 1.1).mean() >= 0.75 for pace in paces.values())
    return Verdict(CONFIRMED if faster else NOT_DECIDED, text)


def claim_14(curves: Curves) -> Verdict:
    """Compares how many updates it takes without norm to the highest sum of R@1, R@5 and R@10 of
    image retrieval on the validation set (mean over seeds), and with layer norm to the first that
    is as high. "60 % of the time" is read as 80 % or less, nearer to 60 % than to all of it.
    Confirmed where layer norm takes no more; contradicted where it takes as long or longer, or
    never gets there. It takes two seeds to decide.
    """
    if lacking := missing(curves, both("r1"), single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    none, layer = total(curves, "none"), total(curves, "layer")
    best, own = none.mean.argmax(), layer.mean.argmax()
    text = (
        f"Without norm the highest sum of R@1, R@5 and R@10, {none.mean[best]:.2f}, is that of "
        f"unit {none.x[best]:.4g} (of 300 updates). "
    )
    (there,) = np.nonzero(layer.mean >= none.mean[best])
    share = layer.x[there[0]] / none.x[best] if len(there) else np.inf
    text += (
        f"Layer norm is there at unit {layer.x[there[0]]:.4g}, after {share:.0%} of that time"
        if len(there)
        else "Layer norm never gets there"
    )
    text += f"; its own highest, {layer.mean[own]:.2f}, is that of unit {layer.x[own]:.4g}."
    if min(len(none.lanes), len(layer.lanes)) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    if share >= 1:
        return Verdict(CONTRADICTED, text)
    return Verdict(CONFIRMED if share <= 0.8 else NOT_DECIDED, text)


def claim_15(curves: Curves) -> Verdict:
    """Compares the test results of table 2, each seed's at its best step by validation: R@1, R@5,
    R@10 and mean rank of caption and of image retrieval. Confirmed where all eight are better with
    layer norm than without norm in the mean over seeds, and the sum of the six recalls is higher by
    more than twice its standard error over seeds; contradicted where that sum is lower by as much.
    It takes two seeds to decide.
    """
    if lacking := missing(curves, both("table_2_caption_r1"), single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    none, layer = (
        {name: curves[f"table_2_{name}", norm].lanes[:, 0] for name in EIGHT}
        for norm in ("none", "layer")
    )
    gains = {name: layer[name].mean() - none[name].mean() for name in EIGHT}
    better = [gain < 0 if name.endswith("mean") else gain > 0 for name, gain in gains.items()]
    sums = [sum(found[n] for n in EIGHT if not n.endswith("mean")) for found in (none, layer)]
    text = (
        f"With layer norm {sum(better)} of the eight are better: "
        + ", ".join(f"{name.replace('_', ' ')} {gain:+.2f}" for name, gain in gains.items())
        + f". The six recalls add up to {sums[1].mean():.1f} with layer norm and "
        f"{sums[0].mean():.1f} without norm"
    )
    if min(map(len, sums)) == 1:
        return Verdict(NOT_DECIDED, f"{text}.{ONE_SEED}")
    gap = Estimate.of(sums[1]).minus(Estimate.of(sums[0]))
    text += f", {gap.value:+.1f} ± {gap.error:.1f} (± standard error)."
    if gap.value < -2 * gap.error:
        return Verdict(CONTRADICTED, text)
    return Verdict(CONFIRMED if all(better) and gap.value > 2 * gap.error else NOT_DECIDED, text)
