"""Figure 4: the published curves, and what the rules of claims 22 and 23 make of curves."""

from pathlib import Path

import numpy as np
import pytest

from experiments import curves
from experiments.curves import Curve, Pace
from experiments.draw.claims import claim_22, claim_23

PUBLISHED = Path(__file__).parent.parent / "results" / "published" / "figure_4.csv"
NORMS = ("none", "weight", "layer")


@pytest.fixture(scope="module")
def published():
    return curves.published(PUBLISHED)


# --- The published curves ---

# Read off figure 4: epoch, then the bound without norm, with weight norm and with layer norm.
READINGS = [
    (10, None, None, 96.5),
    (12, 102.6, None, 94.5),
    (15, 94.8, 96.3, 91.7),
    (20, 94.9, 91.5, 88.8),
    (25, 90.0, 89.6, 87.8),
    (30, 88.0, 88.3, 86.6),
    (40, 87.2, 86.7, 85.8),
    (50, 86.4, 85.7, 84.9),
    (60, 85.7, 85.4, 84.5),
    (70, 85.2, 85.1, 84.9),
    (80, 84.75, 84.5, 83.8),
    (90, 84.5, 84.4, 83.6),
    (95, 84.5, 84.5, 83.9),
    (100, 83.9, 84.2, 83.6),
    (105, 84.4, 84.05, 83.5),
]

# The first epoch at or below a level, in the same order.
FIRST = {
    95: (15, 16, 12),
    90: (25, 23, 18),
    88: (30, 32, 25),
    87: (42, 40, 28),
    86: (57, 50, 36),
    85: (73, 68, 47),
    84.5: (89, 80, 61),
    84: (100, 99, 68),
}


@pytest.mark.parametrize("reading", READINGS)
def test_the_published_curves_go_through_the_readings_of_figure_4(published, reading):
    epoch, *values = reading
    for norm, value in zip(NORMS, values, strict=True):
        curve = published["bound", norm]
        if value is None:
            assert curve.x[0] > epoch  # above the drawing
        else:
            # Where a reading lies on the line between its neighbours it is not in the file.
            assert np.interp(epoch, curve.x, curve.mean) == pytest.approx(value, abs=0.06)


@pytest.mark.parametrize("level", FIRST)
def test_the_published_curves_reach_their_levels_at_the_known_epochs(published, level):
    assert tuple(published["bound", norm].first(level)[0] for norm in NORMS) == FIRST[level]


def test_every_published_number_is_a_reading(published):
    assert set(published) == {("bound", norm) for norm in NORMS}
    for curve in published.values():
        assert (curve.x == curve.x.round()).all() and (np.diff(curve.x) > 0).all()
        assert len(curve.lanes) == 1 and curve.x[-1] == 108


# --- Pace ---


def falling(pace=1.0, length=60, every=1, shift=0.0, lanes=(-0.1, 0.0, 0.1)):
    """A curve that falls from 200 towards 80 nats, at a pace; lanes are apart by a constant."""
    x = np.arange(every, length + 1.0, every)
    return Curve(x, 80 + shift + 120 * 0.9 ** (pace * x) + np.array(lanes)[:, None])


def test_a_level_is_reached_on_the_line_between_two_readings():
    curve = Curve(np.array([2.0, 4.0, 6.0]), np.array([[9.0, 5.0, 3.0], [11.0, 7.0, 3.0]]))
    assert curve.reaches(7) == 3.5  # the mean is 10, 6, 3
    assert curve.reaches(6) == 4
    assert curve.reaches(12) == 2  # at the first reading at the earliest
    assert curve.reaches(2.9) == np.inf


@pytest.mark.parametrize("length, every", [(60, 1), (60, 2), (200, 1), (20, 2)])
def test_twice_the_pace_is_a_factor_of_two_at_any_scale(length, every):
    pace = Pace.of(falling(1, length, every), falling(2, length, every))
    assert len(pace.levels) == 9
    assert (np.diff(pace.levels) < 0).all()
    np.testing.assert_allclose(pace.baseline[-1], length)
    np.testing.assert_allclose(pace.factors, 2, rtol=0.04)


def test_a_spike_sets_no_level_and_neither_does_what_comes_after_the_best():
    x = np.arange(1.0, 11.0)
    bound = np.array([20.0, 10, 9, 30, 8, 7, 6, 7, 8, 9])  # best at epoch 7, then worse
    pace = Pace.of(Curve(x, bound[None]), Curve(x, bound[None]))
    assert pace.levels.tolist() == [10, 9, 8, 7, 6]
    assert pace.baseline.tolist() == [2, 3, 5, 6, 7] == pace.other.tolist()


def test_what_is_never_reached_has_the_factor_zero():
    pace = Pace.of(falling(1), falling(2, shift=20.0))
    assert pace.factors[-1] == 0 and np.isinf(pace.other[-1])


# --- Claims ---


def both(none, layer):
    return {("bound", "none"): none, ("bound", "layer"): layer}


@pytest.mark.parametrize(
    "pace, shift, word",
    [
        (1.9, 0.0, "confirmed"),
        (1.55, 0.0, "confirmed"),
        (1.4, 0.0, "not decided"),
        (1.0, 0.1, "contradicted"),
        (0.7, 0.0, "contradicted"),
        (3.0, 20.0, "contradicted"),  # fast at first, then it stays above nearly all levels
        (3.0, 2.0, "not decided"),
    ],
)
def test_almost_twice_as_fast_is_judged_by_the_epochs_to_the_same_bounds(pace, shift, word):
    assert claim_22(both(falling(), falling(pace, shift=shift))).word == word


def test_the_verdict_says_how_many_times_as_fast_and_at_which_levels():
    because = claim_22(both(falling(), falling(2, shift=0.5))).because
    assert "times as fast (median over 9 levels; from 0.00 to 1." in because
    assert "113.9 nats 12 and 6.078; " in because
    assert because.endswith("80.22 nats 60 and never.")


@pytest.mark.parametrize(
    "shift, word",
    [(-0.27, "confirmed"), (0.27, "contradicted"), (-0.1, "not decided"), (0.1, "not decided")],
)
def test_a_better_bound_is_judged_by_the_standard_error_over_seeds(shift, word):
    verdict = claim_23(both(falling(), falling(shift=shift)))
    assert verdict.word == word
    assert f"without norm, {shift:+.2f} ± 0.08" in verdict.because  # 0.1 / sqrt(3), twice


def test_a_spike_at_the_end_does_not_decide():
    none = falling()
    none.lanes[:, -1] += 50
    verdict = claim_23(both(none, falling()))
    assert verdict.word == "not decided"
    assert "From epoch 55 to the last, 60, " in verdict.because


@pytest.mark.parametrize("rule", [claim_22, claim_23])
def test_unfinished_runs_are_not_judged_and_single_ones_decide_nothing(rule):
    better = falling(2, shift=-1.0)
    assert rule(both(falling(), better)).word == "confirmed"
    single = rule(both(falling(), falling(2, shift=-1.0, lanes=(0.0,))))
    assert single.word == "not decided" and "One seed" in single.because
    going_on = rule(both(falling(), Curve(better.x, better.lanes, complete=False)))
    assert going_on == ("not tested", "It needs finished runs with layer norm.")
    assert rule({}).because == "It needs finished runs with no norm, layer norm."


def test_the_rules_on_the_papers_own_curves(published):
    speed, end = claim_22(published), claim_23(published)
    assert speed.word == "not decided"  # faster at every level, by less than half
    assert "1.39 times as fast (median over 9 levels; from 1.23 to 1.52)" in speed.because
    assert "not faster at 0." in speed.because
    assert end.word == "not decided" and "From epoch 100 to the last, 108" in end.because
