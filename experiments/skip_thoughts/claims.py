"""Decide claims 19 to 21 (§6.3, figure 3, table 3)."""

import numpy as np

from experiments.curves import (
    CONFIRMED,
    CONTRADICTED,
    NOT_DECIDED,
    NOT_TESTED,
    ONE_SEED,
    Curve,
    Curves,
    Ending,
    Pace,
    Verdict,
    missing,
)

TASKS = dict(sick_r=False, sick_mse=True, mr=False, cr=False, subj=False, mpqa=False)  # falling?
BUILT_IN = dict(pairs_r=False, pairs_mse=True, topic=False, style=False)


def wanted(curves: Curves, norms: dict[str, str]) -> tuple[dict[str, bool], str]:
    """The panels that are compared, each with whether less is better; and what is missing of them:
    the five tasks, or those of the built-in data where there are none of the others."""
    panels = TASKS if any(panel in TASKS for panel, _ in curves) else BUILT_IN
    keys = {(panel, norm): f"{name} ({panel})" for panel in panels for norm, name in norms.items()}
    return panels, missing(curves, keys, single=True)


def claim_19(curves: Curves) -> Verdict:
    """Compares the times of training steps at full size (2,400 units, 64 sentences of 30 words),
    with layer norm and without norm, by results/speed/skip_thoughts.json. Confirmed where the
    median with layer norm is at most 1.15 times that without; contradicted from 1.3 times on.
    """
    if lacking := missing(curves, {("seconds", n): n for n in ("none", "layer")}, single=True):
        command = "python -m scripts.benchmark step --experiment=skip_thoughts"
        return Verdict(NOT_TESTED, f"It {lacking}: `{command}`.")
    none, layer = (np.median(curves["seconds", norm].lanes) for norm in ("none", "layer"))
    text = (
        f"A step takes {layer:.2f} s with layer norm and {none:.2f} s without norm, "
        f"{layer / none:.2f} times as long."
    )
    if layer > 1.15 * none:
        return Verdict(CONTRADICTED if layer >= 1.3 * none else NOT_DECIDED, text)
    return Verdict(CONFIRMED, text)


def claim_20(curves: Curves) -> Verdict:
    """Compares layer norm and no norm in each panel: SICK's r and mean square error, MR, CR, SUBJ
    and MPQA (of the built-in data: r and mean square error of pairs, topic, style). Faster: how
    many updates each takes to the levels that the run without norm sets, the best that it has
    reached at each tenth of its length but the first, differ by a factor whose median is 1.1 or
    more. Better: the median of the last tenth of the readings is. Confirmed where layer norm is
    both in every panel; contradicted where it is worse by more than twice the standard error over
    seeds in any. It takes two seeds to decide. For the paper's curves the edges of the bands, which
    are of ten folds, stand in for two seeds.
    """
    panels, lacking = wanted(curves, dict(none="no norm", layer="layer norm"))
    if lacking:
        return Verdict(NOT_TESTED, f"It {lacking}.")
    texts, good, worse, lanes = [], [], [], []
    for panel, falling in panels.items():
        none, layer = curves[panel, "none"], curves[panel, "layer"]
        lanes += [len(none.lanes), len(layer.lanes)]
        factor = np.median(Pace.of(none, layer, falling).factors)
        ending = Ending.of(none, layer)
        gap = ending.other.mean() - ending.baseline.mean()
        gain = -gap if falling else gap
        error = ending.gap.error if min(lanes) > 1 else np.inf
        good.append(factor >= 1.1 and gain > 0)
        worse.append(gain < -2 * error)
        spread = f" ± {error:.3g}" if min(lanes) > 1 else ""
        texts.append(f"{panel} {factor:.2f} times as fast, {gap:+.3g}{spread} at the end")
    text = f"Layer norm against no norm: {'; '.join(texts)}."
    if min(lanes) == 1:
        return Verdict(NOT_DECIDED, text + ONE_SEED)
    if any(worse):
        return Verdict(CONTRADICTED, text)
    return Verdict(CONFIRMED if all(good) else NOT_DECIDED, text)


def claim_21(curves: Curves) -> Verdict:
    """Compares layer norm at the end of training with what it was at 10/17 of it, as the paper does
    after 1.7 and 1 million updates: in each panel of claim 20 the medians of the last tenth of the
    readings, and of as many up to there. Confirmed where all panels but one, or all, are better at
    the end (mean over seeds); contradicted where half of them or more are worse. It takes two seeds
    to decide. The paper's verdict is that of the two last rows of its table 3.
    """
    if ("table_3_mr", "month") in curves:
        panels = {f"table_3_{name}": down for name, down in {**TASKS, "sick_rho": False}.items()}
        times = {p: [curves[p, norm].lanes[:, 0] for norm in ("layer", "month")] for p in panels}
        enough = True
    else:
        panels, lacking = wanted(curves, dict(layer="layer norm"))
        if lacking:
            return Verdict(NOT_TESTED, f"It {lacking}.")
        times = {panel: halfway_and_end(curves[panel, "layer"]) for panel in panels}
        enough = all(len(end) > 1 for _, end in times.values())
    changes = {panel: float((end - before).mean()) for panel, (before, end) in times.items()}
    gains = [-change if panels[panel] else change for panel, change in changes.items()]
    better, worse = (sum(sign * gain > 0 for gain in gains) for sign in (1, -1))
    text = f"From 10/17 of training to its end {better} of {len(gains)} are better: " + ", ".join(
        f"{panel.removeprefix('table_3_')} {change:+.3g}" for panel, change in changes.items()
    )
    if not enough:
        return Verdict(NOT_DECIDED, f"{text}.{ONE_SEED}")
    if 2 * worse >= len(gains):
        return Verdict(CONTRADICTED, f"{text}.")
    return Verdict(CONFIRMED if better >= len(gains) - 1 else NOT_DECIDED, f"{text}.")


def halfway_and_end(curve: Curve) -> list[np.ndarray]:
    """The medians ``[L]`` of a tenth of the readings up to 10/17 of the way, and of the last."""
    count = max(1, len(curve.x) // 10)
    at = max(count, int(np.searchsorted(curve.x, curve.x[-1] * 10 / 17, side="right")))
    return [np.median(curve.lanes[:, at - count : at], axis=1), curve.last("median", count)]
