"""The rules that decide claims: gains of pairs, intervals, and how often they decide wrongly."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from experiments import rules
from experiments.claims import CLAIMS
from experiments.curves import Curve
from experiments.rules import Line, Part, best, better, faster, interval, outcome, sooner
from scripts.pages.claims import panels_of
from scripts.pages.sections import gather, read_sections

RESULTS = Path(__file__).parent.parent / "results"
PAIRS = 1_000  # simulated comparisons of each kind
SEEDS = 3, 5, 6, 10


def line(*y, x=None):
    """Return the curve of one pair."""
    return Line(np.arange(1.0, len(y) + 1) if x is None else np.array(x), np.array(y)[None])


def falling(pace=1.0, length=60, every=1, shift=0.0):
    """Return the curve of one pair, which falls from 200 towards 80 at a pace."""
    x = np.arange(every, length + 1.0, every)
    return Line(x, (80 + shift + 120 * 0.9 ** (pace * x))[None])


# --- Gains ---


def test_a_level_is_reached_between_two_readings():
    curve = line(10.0, 6.0, 3.0, x=(2.0, 4.0, 6.0))
    levels = np.array([[7.0, 6.0, 12.0, 2.9]])
    np.testing.assert_allclose(curve.times(levels), [[3.5, 4, 2, np.inf]])


@pytest.mark.parametrize("length, every", [(60, 1), (60, 2), (200, 1), (20, 2)])
def test_twice_the_pace_is_a_factor_of_two(length, every):
    gains = faster(falling(1, length, every), falling(2, length, every))
    np.testing.assert_allclose(np.exp(gains.values), 2, rtol=0.04)
    assert not gains.bounds.any()


def test_a_level_passed_at_the_first_reading_does_not_count():
    gains = faster(line(9.0, 8, 5, 2), line(5.0, 5, 5, 2))  # 2 is the only level
    assert gains.values == 0 and not gains.bounds.any()


def test_a_factor_beyond_the_readings_is_a_bound():
    """The norm's first reading beats the baseline's last, as on the tasks of the novels."""
    gains = faster(line(9.0, 8, 7, 6), line(5.0, 4, 3, 2))
    assert np.exp(gains.values) == pytest.approx(4) and gains.bounds.all()
    row = rules.in_words(Part(faster, ("a", "b"), ("a", "c")), gains._replace(seeds=(0,)), {})
    assert row[1:] == ("≥ 4.00 ×", "–", 1)


def test_a_plateau_above_most_levels_is_not_faster():
    assert faster(falling(), falling(3, shift=20.0)).values < 0
    gains = faster(line(9.0, 7, 5, 4, 3, 2), line(9.0, 7.5, 7.5, 7.5, 7.5, 7.5))
    assert gains.values < 0 and gains.bounds.all()


@pytest.mark.parametrize("rule", [faster, sooner, better, best])
def test_exchanged_curves_have_the_opposite_gain(rule):
    rng = np.random.default_rng(0)
    x = np.arange(1.0, 31)
    a, b = (Line(x, np.exp(-x / 20) + 0.1 * rng.normal(size=(50, 30))) for _ in range(2))
    np.testing.assert_allclose(rule(a, b).values, -rule(b, a).values, atol=1e-12)


def test_sooner_compares_the_best_reading_that_both_reach():
    gains = sooner(line(9.0, 8, 7, 6, 7), line(9.0, 6, 5, 5, 5))
    assert np.exp(gains.values) == pytest.approx(2) and not gains.bounds.any()


def test_pairs_are_the_seeds_of_both_norms():
    x = np.arange(1.0, 4)
    layer = Curve(x, np.array([[3.0], [1], [2]]) * np.ones(3), seeds=(3, 1, 2))
    none = Curve(x, np.array([[10.0], [20], [30]]) * np.ones(3), seeds=(1, 2, 4))
    part = Part(better, ("p", "layer"), ("p", "none"))
    gains = rules.measure(part, {("p", "layer"): layer, ("p", "none"): none}, {})
    assert gains.seeds == (1, 2) and gains.values.tolist() == [9, 18]


def test_a_sum_is_taken_where_all_curves_have_a_reading():
    a = Curve(np.array([1.0, 2, 3]), np.array([[1.0, 2, 3]]))
    b = Curve(np.array([2.0, 3, 4]), np.array([[10.0, 20, 30]]))
    curve = rules.lookup({("a", "n"): a, ("b", "n"): b}, ("a+b", "n"))
    assert curve.x.tolist() == [2, 3] and curve.lanes.tolist() == [[12, 23]]
    unfinished = dataclasses.replace(b, complete=False)
    assert rules.lookup({("a", "n"): a, ("b", "n"): unfinished}, ("a+b", "n")) is None


def test_a_trend_is_the_slope_of_each_seed_per_doubling():
    sizes = [(1, 8), (2, 8), (2, 4), (4, 1)]  # pixels a step, batch size
    cells = [rules.Cell(dict(pixels_per_step=p, batch_size=b), {}) for p, b in sizes]
    length, batch = (np.log2([1 / size[axis] for size in sizes]) for axis in (0, 1))
    gains = [
        rules.Gains.exact(np.array([3 + 2 * n, 5 - n + 4 * m]))._replace(seeds=(0, 1))
        for n, m in zip(length, batch, strict=True)
    ]
    parts = (Part(rules.faster, ("p", "layer"), ("p", "none"), per=axis) for axis in rules.AXES)
    slopes = [rules.trend(part, cells, gains).values.round(9).tolist() for part in parts]
    assert slopes == [[2, -1], [0, 4]]


# --- Intervals and outcomes ---


def test_the_interval_is_of_t_and_from_six_pairs_of_signs():
    low, high = interval(np.array([1.0, 2.0, 3.0]))
    assert (low, high) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3)
    gains = np.array([5.0, 1, 2, 3, 4, 9])
    assert interval(gains) == (1, 9)  # 62 of 64 sign patterns
    ten = np.random.default_rng(0).normal(size=10)
    signs = np.array(list(itertools.product((-1, 1), repeat=10)))
    for end, sign in zip(interval(ten), (1, -1), strict=True):  # the test that the interval inverts
        means = sign * (signs @ (ten - end)).round(9)
        assert np.mean(means >= sign * (ten - end).sum().round(9)) == pytest.approx(0.025, abs=2e-3)


@pytest.mark.parametrize(
    "gains, margins, spare, sign",
    [
        ((2, 2), (1, 0), 0, 1),
        ((0.5, 2), (1, 0), 0, 0),  # ahead, not beyond the margin
        ((2, -2), (0, 0), 0, -1),
        ((2, -2), (0, 0), 1, 1),
        ((-1, 2), (-3, 0), 0, 1),  # not worse by 3
    ],
)
def test_all_parts_must_hold(gains, margins, spare, sign):
    noise = np.array([-0.01, 0.0, 0.01])
    assert outcome([gain + noise for gain in gains], margins, spare) == sign


# --- How often the rules decide ---


@pytest.fixture(scope="module")
def curves():
    """Finished curves of several seeds in results/: (source, panel, norm) -> less is better."""
    lines = {}
    for section in read_sections(RESULTS, apart=True)[0]:
        panels = panels_of(section)
        for (name, norm), curve in gather(section).ours.items():
            if len(curve.lanes) > 2 and curve.complete and len(curve.x) > 2:
                lines[section.source, name, norm] = rules.as_line(curve, panels[name])
    return lines


def draw(rng, curve: Line, seeds: int) -> Line:
    """Simulate pairs with the mean of a curve, and noise with the covariance of its seeds."""
    mean, count = curve.y.mean(0), len(curve.y)
    noise = (curve.y - mean) / np.sqrt(count - 1)
    return Line(curve.x, mean + rng.normal(size=(PAIRS, seeds, count)) @ noise)


def some(curves, *panels):
    return {k: c for k, c in curves.items() if k[1] in panels and k[2] in ("none", "layer")}


@pytest.mark.parametrize("rule, margin", [(faster, 1.1), (sooner, 1.25), (better, 0), (best, 0)])
@pytest.mark.parametrize("seeds", SEEDS)
def test_no_effect_is_rarely_decided(curves, rule, margin, seeds):
    """At most 5 %, of no norm against no norm and of layer norm against layer norm."""
    rng, decided = np.random.default_rng(seeds), []
    least = np.log(margin) if rule in rules.FACTORS else margin
    for curve in some(curves, "r1", "train_nll", "error_in_order", "error_batch128").values():
        gains = rule(draw(rng, curve, seeds), draw(rng, curve, seeds)).values
        decided.append(np.mean(outcome([gains], [least]) != 0))
    assert len(decided) >= 8
    three_errors = 3 * np.sqrt(0.05 * 0.95 / PAIRS / len(decided))  # of the simulation
    assert np.mean(decided) <= 0.05 + three_errors


def test_splits_of_the_stored_seeds_are_rarely_decided(curves):
    decided = []
    for curve in (curve for curve in curves.values() if len(curve.y) > 3):
        even = len(curve.y) // 2 * 2
        splits = list(itertools.islice(itertools.permutations(range(len(curve.y)), even), 2_000))
        first, second = (Line(curve.x, curve.y[np.array(splits)[:, n::2]]) for n in (0, 1))
        decided += [outcome([better(first, second).values], [0.0])]
        decided += [outcome([faster(first, second).values], [np.log(1.1)])]
    shares = [np.abs(outcomes).mean() for outcomes in decided]
    assert len(shares) >= 8 and np.mean(shares) <= 0.05


def test_a_factor_of_one_and_a_half_is_decided(curves):
    """In four of five comparisons of six seeds, at the noise of the five seeds in results/scenes.

    At the best learning rate curves are flat from early on, and their times scatter more.
    """
    rng = np.random.default_rng(0)
    known = {key: c for key, c in curves.items() if key[0].endswith("results/scenes")}
    for curve in some(known, "r1", "r5", "r10").values():
        mean = curve.y.mean(0)
        sped_up = np.interp(np.minimum(1.5 * curve.x, curve.x[-1]), curve.x, mean)
        baseline, variant = (draw(rng, curve, 6) for _ in range(2))
        gains = faster(baseline, Line(curve.x, variant.y - mean + sped_up)).values
        assert np.mean(outcome([gains], [np.log(1.1)]) == 1) >= 0.8
    assert len(some(known, "r1", "r5", "r10")) == 6


def test_a_difference_of_three_standard_deviations_is_decided(curves):
    rng = np.random.default_rng(0)
    for curve in some(curves, "r1", "train_nll", "error_in_order", "error_batch128").values():
        baseline, variant = (draw(rng, curve, 6) for _ in range(2))
        gains = better(baseline, Line(curve.x, variant.y - 3 * baseline.end.std())).values
        assert np.mean(outcome([gains], [0.0]) == 1) >= 0.8


def test_the_rules_explain_themselves():
    used = {part.rule for claim in CLAIMS for part in claim.parts} | {rules.trend}
    assert used == set(rules.RULES)
    assert all(": compare" in rule.__doc__ or rule is rules.trend for rule in used)
