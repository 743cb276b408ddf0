"""The rules that decide the paper's claims.

Every rule turns pairs of curves into one gain per pair: the logarithm of a factor, or a difference;
positive if the norm is ahead of its baseline. A verdict then needs an interval of the mean gain.

Two runs of the same seed are a pair. With config.data_seed = -1 each seed has an order of the data,
the same under all norms, so the difference of a pair is free of the order's effect, and the pairs
are independent. With data_seed >= 0 all seeds share one order: pairs are still independent, but the
interval holds for this order alone. Seeds that only one of the two norms has form no pair.

Under no effect the two curves of a pair can be exchanged. All rules change only their sign then, so
gains are symmetric about zero, and no rule favours the baseline (`tests/test_rules.py`).
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from functools import reduce
import itertools
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes a second or two to import

from experiments.curves import Curve, Panel

CONFIRMED, CONTRADICTED = "confirmed", "contradicted"  # at the claim's data, size and length
AGREES, DISAGREES = "agrees", "disagrees"  # at reduced scale
NOT_DECIDED, NOT_TESTED, ERRATUM = "not decided", "not tested", "erratum"

LEAST = 3  # pairs
CELLS = 4  # of lengths and batch sizes that show a trend
AXES = "doubling of the length", "halving of the batch size"  # of a trend
ERROR = 0.05  # the probability of a verdict if there is no effect
EXACT = 12  # pairs up to which all sign patterns are enumerated

# Keys of configs that do not change the data, the size or the length of a run: how it is logged,
# and the optimization, whose settings the paper mostly leaves open.
ASIDE = "eval_every", "lr", "optimizer", "schedule", "init", "init_std"

Key = tuple[str, str]  # (panel, norm)
Curves = Mapping[Key, Curve]
Panels = Mapping[str, Panel]


# --- From curves to gains ---


class Line(NamedTuple):
    """Aligned curves: x ``[N]``, counted from the start; y ``[..., P, N]``, less is better."""

    x: np.ndarray
    y: np.ndarray

    @property
    def end(self) -> np.ndarray:
        """Return the median of the last tenth of the readings, since single ones may be spikes."""
        return np.median(self.y[..., -max(1, len(self.x) // 10) :], axis=-1)

    @property
    def milestones(self) -> np.ndarray:
        """Return the best readings up to each tenth of the length but the first ``[..., K]``.

        NaN if a tenth brings no progress.
        """
        tenths = np.searchsorted(self.x, self.x[-1] * np.arange(2, 11) / 10, side="right")
        best = np.minimum.accumulate(self.y, axis=-1)[..., np.maximum(tenths - 1, 0)]
        return np.where(np.diff(best, prepend=np.inf) < 0, best, np.nan)

    def times(self, levels: np.ndarray) -> np.ndarray:
        """Return the x at which the curves first fall to levels ``[..., K]``; infinity if never.

        Interpolate linearly between two readings.
        """
        below = self.y[..., None, :] <= levels[..., None]
        after = below.argmax(-1)
        before = np.maximum(after - 1, 0)
        high, low = (np.take_along_axis(self.y, n, axis=-1) for n in (before, after))
        fall = np.where(high > low, high - low, 1.0)  # 1 if the level is passed from the start
        share = np.where(high > low, (high - levels) / fall, 0.0)
        reached = self.x[before] + share * (self.x[after] - self.x[before])
        return np.where(below.any(-1), reached, np.inf)


class Gains(NamedTuple):
    """The gains of pairs ``[..., P]``, and whether each is a bound: the true one is farther from 0.

    ``seeds`` names the pairs.
    """

    values: np.ndarray
    bounds: np.ndarray
    seeds: tuple[int, ...] = ()

    @classmethod
    def exact(cls, values: np.ndarray) -> "Gains":
        """Return gains of which none is a bound."""
        return cls(values, np.zeros(values.shape, bool))


def faster(baseline: Line, line: Line) -> Gains:
    """Faster: compare the updates that the two norms need to reach the same levels.

    The levels are the best readings that each of the two has had at each tenth of its length but
    the first, if both reach them and neither has passed them at its first reading. The factor of a
    pair is the median over the levels of the baseline's updates divided by the norm's. If most
    levels are reached by one of the two alone, or all others were passed at a first reading, the
    largest ratio known is a bound of the factor.
    """
    levels = np.concatenate([baseline.milestones, line.milestones], axis=-1)
    start = np.minimum(baseline.y[..., :1], line.y[..., :1])
    levels = np.where(levels < start, levels, np.nan)
    shared, alone = levels >= last_shared(baseline, line), levels < last_shared(baseline, line)
    most = alone.sum(-1, keepdims=True) > shared.sum(-1, keepdims=True)
    return log_factors(baseline, line, np.where(shared | most, levels, np.nan))


def sooner(baseline: Line, line: Line) -> Gains:
    """Sooner at its best: compare the updates to the best reading that both norms reach.

    If the norm gets as far as the baseline, this is the baseline's best reading.
    """
    return log_factors(baseline, line, last_shared(baseline, line))


def last_shared(baseline: Line, line: Line) -> np.ndarray:
    """Return the best level that both curves of each pair reach, ``[..., 1]``."""
    return np.maximum(baseline.y.min(-1), line.y.min(-1))[..., None]


def log_factors(baseline: Line, line: Line, levels: np.ndarray) -> Gains:
    """Return the median log ratio of the times at which two curves reach levels ``[..., K]``.

    NaN is no level; the last shared level always is. Levels that one curve alone reaches rank
    beyond all others. If they decide the median, its value is the most extreme ratio known.
    """
    last = last_shared(baseline, line)
    levels = np.concatenate([levels, last], axis=-1)
    before, after = baseline.times(levels), line.times(levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        median = np.nanmedian(np.log(before / after), axis=-1)  # inf / inf: no level
        known = np.log(np.minimum(before, baseline.x[-1]) / np.minimum(after, line.x[-1]))
    known = np.where(np.isnan(levels), np.nan, known)
    extreme = np.where(median > 0, np.nanmax(known, axis=-1), np.nanmin(known, axis=-1))
    passed = last >= np.minimum(baseline.y[..., :1], line.y[..., :1])  # at a first reading
    bounds = np.isinf(median) | passed[..., 0]
    return Gains(np.where(np.isinf(median), extreme, median), bounds)


def better(baseline: Line, line: Line) -> Gains:
    """Better: compare the medians of the last tenth of the readings, or the numbers of a table."""
    return Gains.exact(baseline.end - line.end)


def best(baseline: Line, line: Line) -> Gains:
    """Better at its best: compare the best of all readings."""
    return Gains.exact(baseline.y.min(-1) - line.y.min(-1))


def later(baseline: Line, line: Line) -> Gains:
    """Better than earlier: compare the norm's end with that of the first 10/17 of its curve."""
    return better(first_part(baseline), line)


def first_part(line: Line) -> Line:
    """Return a curve up to 10/17 of its length, as 1 of 1.7 million updates."""
    count = max(1, int(np.searchsorted(line.x, line.x[-1] * 10 / 17, side="right")))
    return Line(line.x[:count], line.y[..., :count])


def ratio(baseline: Line, line: Line) -> Gains:
    """Smaller: compare the ends by their ratio."""
    return Gains.exact(np.log(baseline.end / line.end))


FACTORS = faster, sooner, ratio  # gains of these are logarithms
OF_ENDS = sooner, better, best, later  # these need a baseline that has peaked


@dataclasses.dataclass(frozen=True)
class Part:
    """One comparison of a claim.

    Attributes:
        curve, baseline: their keys; the name of a panel may be a sum such as "r1+r5".
        margin: the gain must exceed it: a factor, or a difference in the unit of the metric.
        minus: the panel whose gain is subtracted.
        peak: the panel that says whether the baseline has peaked, if the baseline's cannot.
        per: one of AXES: not the gain is compared with the margin, but how it changes along this.
    """

    rule: Callable[[Line, Line], Gains]
    curve: Key
    baseline: Key
    margin: float | None = None
    minus: str = ""
    peak: str = ""
    per: str = ""

    @property
    def is_factor(self) -> bool:
        """Return whether gains are logarithms of factors."""
        return self.rule in FACTORS

    @property
    def least(self) -> float:
        """Return the margin on the scale of gains."""
        scale = np.log if self.is_factor else float
        return 0.0 if self.margin is None else scale(self.margin)

    @property
    def pairs(self) -> list[tuple[Key, Key]]:
        """Return the keys of baseline and curve, also in the panel that is subtracted."""
        subtracted = ((self.minus, self.baseline[1]), (self.minus, self.curve[1]))
        return [(self.baseline, self.curve), *([subtracted] if self.minus else [])]

    @property
    def keys(self) -> set[Key]:
        """Return the keys of all curves that are compared."""
        return {key for pair in self.pairs for key in pair}


def lookup(curves: Curves, key: Key) -> Curve | None:
    """Return a curve, or the sum of several; None if one is missing or has not come to its end."""
    parts = [curves.get((panel, key[1])) for panel in key[0].split("+")]
    complete = [curve for curve in parts if curve is not None and curve.complete]
    if len(complete) < len(parts):
        return None
    x = reduce(np.intersect1d, [curve.x for curve in complete])
    lanes = np.sum([curve.lanes[..., np.isin(curve.x, x)] for curve in complete], axis=0)
    return dataclasses.replace(complete[0], x=x, lanes=lanes)


def panel_of(name: str, panels: Panels) -> Panel:
    """Return a panel, or the first of a sum. Times of a benchmark have none: make up one."""
    return panels.get(name.partition("+")[0]) or Panel(name, "", "", "", label=name)


def as_line(curve: Curve, panel: Panel) -> Line:
    """Return a curve of a panel with its x counted from the start, and less as better."""
    return Line(curve.x - panel.x_plus, curve.lanes if panel.falling else -curve.lanes)


def measure(part: Part, curves: Curves, panels: Panels) -> Gains | None:
    """Return the gains of a part for the seeds that all of its curves have; None without curves."""
    known = {key: curve for key in part.keys if (curve := lookup(curves, key)) is not None}
    if len(known) < len(part.keys):
        return None
    names = {key: list(c.seeds or range(c.lanes.shape[-2])) for key, c in known.items()}
    seeds = sorted(set.intersection(*map(set, names.values())))

    def line(key: Key) -> Line:
        whole = as_line(known[key], panel_of(key[0], panels))
        return Line(whole.x, whole.y[..., [names[key].index(seed) for seed in seeds], :])

    gains = [part.rule(line(before), line(after)) for before, after in part.pairs]
    values = gains[0].values - sum(gain.values for gain in gains[1:])
    return Gains(values, gains[0].bounds, tuple(seeds))


def trend(part: Part, cells: Sequence["Cell"], gains: Sequence[Gains]) -> Gains:
    """Trend: fit each seed's log factors by a plane in log2 of the length and of the batch size.

    The gain is its slope. Bounds count with their values.
    """
    seeds = sorted(set.intersection(*(set(gain.seeds) for gain in gains)))
    rows = [gain.values[[gain.seeds.index(seed) for seed in seeds]] for gain in gains]
    plane = np.linalg.lstsq(places(cells), np.array(rows))[0]
    return Gains.exact(plane[1 + AXES.index(part.per)])._replace(seeds=tuple(seeds))


RULES = faster, sooner, better, best, later, ratio, trend

# --- From gains to verdicts ---


def interval(gains: np.ndarray, error: float = ERROR) -> tuple[np.ndarray, np.ndarray]:
    """Return an interval of the mean of gains ``[..., P]`` that misses it with probability error.

    From six pairs upward (at 5 %) it comes from all sign patterns: if gains are symmetric about
    their mean, this is with equal probability between any two neighbours of the sorted means of
    all subsets (Hartigan 1969). For fewer pairs, for which there are too few patterns, it is the t
    interval; for many, where the two agree, too.
    """
    count = gains.shape[-1]
    cut = int(error / 2 * 2**count)
    if cut and count <= EXACT:
        subsets = np.array(list(itertools.product((0, 1), repeat=count)))[1:]
        means = np.sort(gains @ (subsets.T / subsets.sum(1)), axis=-1)
        return means[..., cut - 1], means[..., -cut]
    half = stdtrit(count - 1, 1 - error / 2) * gains.std(-1, ddof=1) / count**0.5
    return gains.mean(-1) - half, gains.mean(-1) + half


def outcome(gains: Sequence[np.ndarray], margins: Sequence[float], spare: int = 0) -> np.ndarray:
    """Return 1 if all gains exceed their margins, -1 if one is worse than no effect, else 0.

    All intervals must exceed their margins, which needs no correction for their number; any of them
    may contradict, which does (Bonferroni).

    Args:
        gains: of the pairs ``[..., P]``, for each comparison.
        margins: that the gains must exceed.
        spare: how many gains may fail.
    """
    clear = [interval(gain)[0] > margin for gain, margin in zip(gains, margins, strict=True)]
    worse = [
        interval(gain, ERROR / len(gains))[1] < min(margin, 0.0)
        for gain, margin in zip(gains, margins, strict=True)
    ]
    confirmed = np.sum(clear, axis=0) >= len(gains) - spare
    return np.where(np.sum(worse, axis=0) > spare, -1, np.where(confirmed, 1, 0))


def has_peaked(part: Part, curves: Curves, panels: Panels) -> bool:
    """Return whether the baseline's mean is best before the last tenth of its length."""

    def peaks(name: str, norm: str) -> bool:
        curve = lookup(curves, (name, norm))
        if curve is None:
            return False
        line = as_line(curve, panel_of(name, panels))
        x, y = first_part(line) if part.rule is later else line
        return x[y.mean(0).argmin()] <= 0.9 * x[-1]

    return all(peaks(part.peak or name, norm) for (name, norm), _ in part.pairs)


class Row(NamedTuple):
    """An estimate in words: what, "1.64 ×" or "≥ 4.00 ×", "[1.40, 1.79]", and how many pairs."""

    what: str
    estimate: str
    interval: str
    pairs: int


class Verdict(NamedTuple):
    """A word, the reason if the numbers alone do not give it, and the numbers."""

    word: str
    because: str
    rows: Sequence[Row] = ()


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        place: in the paper.
        experiment: the one whose runs decide it, or "theory".
        reading: how its words are read as numbers.
        parts: the comparisons that must all hold.
        stand_ins: these in place of parts, if the runs have none of the curves of parts.
        spare: how many parts may fail.
        datasets: the only ones that can decide it; () if all can. `limits` says why.
        setting: what it changes against the paper's main setting, as runs.differences says it.
        is_timing: whether a benchmark decides it.
        is_erratum: whether the analysis shows that the paper's wording is wrong.
    """

    number: int
    place: str
    text: str
    experiment: str = "theory"
    reading: str = ""
    parts: tuple[Part, ...] = ()
    stand_ins: tuple[Part, ...] = ()
    spare: int = 0
    datasets: tuple[str, ...] = ()
    limits: str = ""
    setting: tuple[str, ...] = ()
    is_timing: bool = False
    is_erratum: bool = False

    @property
    def is_trend(self) -> bool:
        """Return whether it is about the trend over lengths of sequences and batch sizes."""
        return any(part.per for part in self.parts)


class Cell(NamedTuple):
    """The curves of runs that differ in nothing but norm and seed, and one of their configs."""

    config: Mapping[str, Any]
    curves: Curves


def places(cells: Sequence[Cell]) -> np.ndarray:
    """Return 1 and the place on AXES of each run of sequential MNIST ``[cells, 3]``."""
    sizes = [(784 / c.config["pixels_per_step"], 1 / c.config["batch_size"]) for c in cells]
    return np.insert(np.log2(sizes), 0, 1.0, axis=1)


def is_full(claim: Claim, changes: Sequence[str]) -> bool:
    """Return whether runs with these changes against the paper have the claim's own setting."""
    return changed(changes) == set(claim.setting)


def changed(changes: Sequence[str]) -> set[str]:
    """Return the changes of the data, the size or the length of runs."""
    return {text for text in changes if text.partition(":")[0].split(".")[0] not in ASIDE}


def decide(claim: Claim, cells: Sequence[Cell], panels: Panels, full: bool) -> Verdict:
    """Return what runs say of a claim.

    Args:
        claim: a row of the table.
        cells: one, or all of a claim about a trend.
        panels: of the experiment's figures, by name.
        full: whether the runs have the paper's data, size and length.
    """
    curves = cells[0].curves
    parts = parts_of(claim, curves)
    gains = [
        slope(part, cells, panels) if part.per else measure(part, curves, panels) for part in parts
    ]
    known = [gain for gain in gains if gain is not None]
    rows = rows_of(parts, gains, panels)
    if len(known) < len(gains):
        some = any(row.pairs >= LEAST for row in rows)
        return Verdict(NOT_DECIDED if some else NOT_TESTED, lacking(claim, parts, curves), rows)
    if claim.datasets and cells[0].config.get("dataset") not in claim.datasets:
        return Verdict(NOT_DECIDED, claim.limits, rows)
    if min(row.pairs for row in rows) < LEAST:
        pairs = "rounds of the benchmark" if claim.is_timing else "seeds of both norms"
        return Verdict(NOT_DECIDED, f"It takes {LEAST} {pairs} or more.", rows)
    if not all(has_peaked(part, curves, panels) for part in parts if part.rule in OF_ENDS):
        return Verdict(NOT_DECIDED, "The baseline was still improving at the end.", rows)
    sign = outcome([gain.values for gain in known], [part.least for part in parts], claim.spare)
    words = (NOT_DECIDED, CONFIRMED, CONTRADICTED) if full else (NOT_DECIDED, AGREES, DISAGREES)
    return Verdict(words[int(sign)], "" if sign else "The intervals leave it open.", rows)


def in_paper(claim: Claim, curves: Curves, panels: Panels) -> list[Row]:
    """Return the same estimates from the published curves and tables: numbers without a verdict."""
    lines = {key: dataclasses.replace(c, lanes=c.mean[None]) for key, c in curves.items()}
    parts = [part for part in claim.parts if part.rule is not later]  # drawn to the earlier time
    return rows_of(parts, [measure(part, lines, panels) for part in parts], panels)


def rows_of(parts: Sequence[Part], gains: Sequence[Gains | None], panels: Panels) -> list[Row]:
    """Return the rows of the parts whose gains are known."""
    pairs = zip(parts, gains, strict=True)
    return [in_words(part, gain, panels) for part, gain in pairs if gain is not None]


def parts_of(claim: Claim, curves: Curves) -> tuple[Part, ...]:
    """Return the parts, or their stand-ins if the curves are of these."""
    known = any(key in curves for part in claim.parts for key in part.keys)
    return claim.parts if known or not claim.stand_ins else claim.stand_ins


def slope(part: Part, cells: Sequence[Cell], panels: Panels) -> Gains | None:
    """Return the trend of a part over cells; None if some are not finished or they are too few."""
    gains = [measure(part, cell.curves, panels) for cell in cells]
    known = [gain for gain in gains if gain is not None]
    few = len(cells) < CELLS or np.linalg.matrix_rank(places(cells)) < 1 + len(AXES)
    return None if few or len(known) < len(cells) else trend(part, cells, known)


def lacking(claim: Claim, parts: Sequence[Part], curves: Curves) -> str:
    """Say which runs a claim still needs."""
    if claim.is_trend:
        return f"It needs {CELLS} lengths and batch sizes: claim_29 in results/plan.toml."
    keys = dict.fromkeys(key for part in parts for key in sorted(part.keys))
    names = [f"{norm} ({panel})" for panel, norm in keys if lookup(curves, (panel, norm)) is None]
    return f"It needs finished runs of {', '.join(names)}."


def in_words(part: Part, gains: Gains, panels: Panels) -> Row:
    """Return gains as a row of a table."""
    panel = panel_of(part.curve[0], panels)

    def text(gain: float | np.ndarray) -> str:
        return f"{np.exp(gain):.2f}" if part.is_factor else f"{panel.times * gain:+{panel.digits}}"

    if not gains.seeds:
        return Row(describe(part, panels), "–", "–", 0)
    sides = set(np.sign(gains.values[gains.bounds]))
    bound = "≥ " if sides == {1} else "≤ " if sides == {-1} else ""
    estimate = bound + text(gains.values.mean()) + (" ×" if part.is_factor else "")
    count, span = len(gains.seeds), "–"
    if count >= LEAST:
        low, high = interval(gains.values)
        span = f"[{text(low)}, {text(high)}]"
    return Row(describe(part, panels), estimate, span, count)


def describe(part: Part, panels: Panels) -> str:
    """Return what a part compares, such as "R@1 [%], recall at 1: layer against none, faster"."""

    def name(key: str) -> str:
        panel = panel_of(key, panels)
        return f"{panel.label}, {panel.title}" if panel.title else panel.label

    (key, norm), (other_key, baseline) = part.curve, part.baseline
    rule = (part.rule.__doc__ or "").partition(":")[0].lower()
    where = name(key)
    if "+" in key:
        where = " + ".join(panel_of(term, panels).label for term in key.split("+"))
    if key != other_key:
        return f"{where} against {name(other_key)}: {norm}, {rule}"
    if part.rule is later:
        return f"{where}: {norm}, {rule}"
    less = f", less the same at {name(part.minus)}" if part.minus else ""
    per = f", per {part.per}" if part.per else ""
    return f"{where}: {norm} against {baseline}, {rule}{less}{per}"
