"""What the paper claims across its experiments."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.curves import CONFIRMED, CONTRADICTED, NOT_DECIDED, NOT_TESTED, Verdict

LEAST = 4  # experiments


class Gain(NamedTuple):
    """How much faster layer norm is than no norm in an experiment.

    Attributes:
        length: T, steps of its sequences, in the paper.
        batch_size: B, of the runs.
        factor: the median of `curves.Pace.factors`.
    """

    experiment: str
    length: int
    batch_size: int
    factor: float

    @property
    def ratio(self) -> float:
        """T / B: the longer sequences and the smaller batches, the larger."""
        return self.length / self.batch_size


def ranks(values: Sequence[float]) -> np.ndarray:
    """From 0 on; equal ones share the mean of theirs."""
    values = np.asarray(values)
    below = (values[:, None] > values).sum(1)
    return below + ((values[:, None] == values).sum(1) - 1) / 2


def claim_29(gains: Sequence[Gain]) -> Verdict:
    """Compares, over the experiments, how many times as fast layer norm is as no norm (the median
    over the levels of claim 13's rule, on each experiment's main curve) with T / B, the length of
    its sequences, in the paper, over its batch size. Confirmed where Spearman's rank correlation of
    the two is 0.7 or more; contradicted where it is 0 or less. It takes four experiments. Of an
    experiment's sets of runs the one nearest to the paper's setting counts.
    """
    text = "; ".join(
        f"{g.experiment} {g.factor:.2f} times as fast (T {g.length:,}, B {g.batch_size})"
        for g in sorted(gains, key=lambda gain: -gain.ratio)
    )
    if len(gains) < LEAST:
        needs = (
            f"It needs finished runs of {LEAST} experiments or more, with and without layer norm."
        )
        return Verdict(NOT_TESTED, f"{needs} {text}".strip())
    one, other = ranks([g.ratio for g in gains]), ranks([g.factor for g in gains])
    flat = np.ptp(one) == 0 or np.ptp(other) == 0
    rho = 0.0 if flat else round(float(np.corrcoef(one, other)[0, 1]), 9)  # 0 is a threshold
    text = f"The rank correlation is {rho:+.2f}, by falling T / B: {text}."
    if rho >= 0.7:
        return Verdict(CONFIRMED, text)
    return Verdict(CONTRADICTED if rho <= 0 else NOT_DECIDED, text)


CLAIMS = (
    dict(
        number=29,
        text="Recurrent networks profit most, above all on long sequences and with small batches.",
        source="§7",
        rule="claim_29",
    ),
)
