"""Decide claims 25 and 26 (§6.6, figure 6)."""

import numpy as np

from experiments.curves import (
    CONFIRMED,
    CONTRADICTED,
    NOT_DECIDED,
    NOT_TESTED,
    Curves,
    Estimate,
    Verdict,
    missing,
)


def claim_25(curves: Curves) -> Verdict:
    """Compares by how much the test error (mean of the last 10 epochs) worsens from batch size 128
    to 4. Confirmed where it worsens less with layer norm than with batch norm, by more than twice
    the standard error over seeds; contradicted where it worsens more by as much.
    """
    sizes, norms = (128, 4), ("layer", "batch")
    wanted = {
        (f"error_batch{size}", norm): f"{norm} norm at batch size {size}"
        for size in sizes
        for norm in norms
    }
    if lacking := missing(curves, wanted):
        return Verdict(NOT_TESTED, f"It {lacking}.")

    def error(norm, size):
        return Estimate.of(100 * curves[f"error_batch{size}", norm].last("mean", 10))

    worse = {norm: error(norm, 4).minus(error(norm, 128)) for norm in norms}
    gap = worse["batch"].minus(worse["layer"])
    word = NOT_DECIDED
    if abs(gap.value) > 2 * gap.error:
        word = CONFIRMED if gap.value > 0 else CONTRADICTED
    changes = " and ".join(
        f"from {error(norm, 128).value:.3f} to {error(norm, 4).value:.3f} % with {norm} norm "
        f"({worse[norm].value:+.3f} ± {worse[norm].error:.3f})"
        for norm in norms
    )
    return Verdict(
        word,
        f"From batch size 128 to 4 the test error goes {changes}. Batch norm's change minus layer "
        f"norm's: {gap.value:+.3f} ± {gap.error:.3f} points (± standard error).",
    )


def claim_26(curves: Curves) -> Verdict:
    """Compares layer norm's training NLL with batch norm's at each batch size, by the median of the
    last fifth of the epochs. Confirmed where every seed of layer norm is below every seed of batch
    norm at each batch size tested; contradicted where every seed is above at one of them.
    """
    words, texts = [], []
    for size in (128, 4):
        panel = f"nll_batch{size}"
        wanted = {(panel, norm): f"{norm} norm" for norm in ("layer", "batch")}
        if lacking := missing(curves, wanted):
            texts.append(f"Batch size {size}: {NOT_TESTED}, it {lacking}.")
            continue
        layer, batch = (curves[key] for key in wanted)
        fifth = len(layer.x) // 5
        end, end_batch = (curve.last("median", fifth) for curve in (layer, batch))
        if end.max() < end_batch.min():
            words.append(CONFIRMED)
        else:
            words.append(CONTRADICTED if end.min() > end_batch.max() else NOT_DECIDED)
        below = layer.mean < batch.mean
        first = len(below) - int(np.argmin(below[::-1])) if not below.all() else 0
        crossing = (
            f"and stays there from epoch {layer.x[first]:g} on" if below[-1] else "but not at last"
        )
        texts.append(
            f"Batch size {size}: {words[-1]}. Layer norm's training NLL is below batch norm's at "
            f"{below.mean():.0%} of the epochs, {crossing}; at the end it is {end.mean():.2g} "
            f"({end.min():.2g} to {end.max():.2g}) against {end_batch.mean():.2g} "
            f"({end_batch.min():.2g} to {end_batch.max():.2g}), "
            f"a ratio of {end.mean() / end_batch.mean():.2g}."
        )
    if not words:
        word = NOT_TESTED
    elif CONTRADICTED in words:
        word = CONTRADICTED
    else:
        word = CONFIRMED if set(words) == {CONFIRMED} else NOT_DECIDED
    return Verdict(word, " ".join(texts))
