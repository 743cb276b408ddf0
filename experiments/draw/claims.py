"""Decide claims 22 and 23 (§6.4, figure 4)."""

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

COMPARED = {("bound", "none"): "no norm", ("bound", "layer"): "layer norm"}


def claim_22(curves: Curves) -> Verdict:
    """Compares how many epochs it takes without norm and with layer norm until the test bound (mean
    over seeds) first reaches a level. The levels are the best bounds that the run without norm has
    reached at each tenth of its length but the first; the factor is its number of epochs divided by
    layer norm's (between two readings by linear interpolation; 0 where layer norm never arrives).
    "Almost twice" is read as 1.5 or more, nearer to twice than to once. Confirmed where the factor
    is 1.5 or more at three quarters of the levels or more, contradicted where it is 1 or less at
    three quarters or more; in between the factor says how fast. It takes two seeds to decide.
    """
    if lacking := missing(curves, COMPARED, single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    none, layer = (curves[key] for key in COMPARED)
    pace = Pace.of(none, layer)
    twice, slower = pace.factors >= 1.5, pace.factors <= 1
    text = pace.describe(1.5, "Epochs")
    if max(twice.mean(), slower.mean()) < 0.75:
        return Verdict(NOT_DECIDED, text)
    if min(len(none.lanes), len(layer.lanes)) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    return Verdict(CONFIRMED if twice.mean() >= 0.75 else CONTRADICTED, text)


def claim_23(curves: Curves) -> Verdict:
    """Compares the test bound at the end: of each seed the median of the last tenth of the
    readings, since single ones may be spikes. Confirmed where it is lower with layer norm than
    without norm by more than twice the standard error over seeds; contradicted where it is higher
    by as much. It takes two seeds to decide.
    """
    if lacking := missing(curves, COMPARED, single=True):
        return Verdict(NOT_TESTED, f"It {lacking}.")
    none, layer = (curves[key] for key in COMPARED)
    end = Ending.of(none, layer)
    text = end.describe("the test bound", "epoch", ".2f") + "."
    if min(len(none.lanes), len(layer.lanes)) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    word = NOT_DECIDED
    if abs(end.gap.value) > 2 * end.gap.error:
        word = CONFIRMED if end.gap.value < 0 else CONTRADICTED
    return Verdict(word, text)
