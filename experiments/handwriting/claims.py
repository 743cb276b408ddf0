"""Decide claim 24 (§6.5, figure 5)."""

from experiments.curves import (
    CONFIRMED,
    CONTRADICTED,
    NOT_DECIDED,
    NOT_TESTED,
    ONE_SEED,
    Curves,
    Ending,
    Pace,
    Verdict,
    missing,
)

COMPARED = {("test", "none"): "no norm", ("test", "layer"): "layer norm"}


def claim_24(curves: Curves) -> Verdict:
    """Compares how many updates it takes without norm and with layer norm until the NLL of the test
    lines (mean over seeds) first reaches a level, and where it ends. The levels are the lowest NLLs
    that the run without norm has reached at each tenth of its length but the first; the factor is
    its number of updates divided by layer norm's (between two readings by linear interpolation; 0
    where layer norm never arrives). The end is of each seed the median of the last tenth of the
    readings. "Much faster" is read as a factor of 2 or more at three quarters of the levels or
    more, "comparable" as an end that is not higher by more than twice the standard error over
    seeds; lower is as good. Confirmed where layer norm is much faster and its end comparable;
    contradicted where its factor is 1 or less at three quarters of the levels or more, or its end
    not comparable; in between the factor says how fast. It takes two seeds to decide.
    """
    if lacking := missing(curves, COMPARED, single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    none, layer = (curves[key] for key in COMPARED)
    pace, end = Pace.of(none, layer), Ending.of(none, layer)
    lowest, lowest_without = (curve.last("min", 0).mean() for curve in (layer, none))
    text = (
        f"{pace.describe(2, 'Units of 200 updates')} "
        f"{end.describe('the test NLL', 'unit', '.1f')}; the lowest of all readings are "
        f"{lowest:.1f} and {lowest_without:.1f}."
    )
    if min(len(none.lanes), len(layer.lanes)) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    if (pace.factors <= 1).mean() >= 0.75 or end.gap.value > 2 * end.gap.error:
        return Verdict(CONTRADICTED, text)
    return Verdict(CONFIRMED if (pace.factors >= 2).mean() >= 0.75 else NOT_DECIDED, text)
