"""Figure 5: the published curves, and what the rule of claim 24 makes of curves."""

from pathlib import Path

import numpy as np
import pytest

from experiments import curves
from experiments.curves import Curve, Pace
from experiments.handwriting.claims import claim_24

ROOT = Path(__file__).parent.parent
CURVES = [("test", "none"), ("train", "none"), ("test", "layer"), ("train", "layer")]


@pytest.fixture(scope="module")
def published():
    return curves.published(ROOT / "results" / "published" / "figure_5.csv")


# --- The published curves ---

# Read off figure 5: updates / 200, then NLLs in the order of CURVES; None outside the drawing.
READINGS = [
    (1, None, None, -344, -262),
    (2, -121, -79, -392, -350),
    (5, -273, -239, -504, -470),
    (10, -339, -336, -553, -557),
    (20, -424, -358, -624, -549),
    (50, -507, -550, -729, -777),
    (100, -573, -519, -795, -760),
    (150, -607, -629, -814, -854),
    (200, -624, -610, -810, -843),
    (300, -666, -722, -833, None),
    (400, -686, -724, -810, None),
    (500, -726, -687, -822, None),
    (600, -747, -751, -821, None),
    (700, -762, -796, -819, None),
    (800, -770, -847, -829, None),
    (900, -762, -850, -828, None),
]

# The first reading of the test NLL at or below a level, without norm and with layer norm.
FIRST = {
    -500: (47, 5),
    -600: (131, 16),
    -700: (425, 40),
    -750: (571, 56),
    -770: (718, 68),
    -800: (np.nan, 109),
}


@pytest.mark.parametrize("reading", READINGS)
def test_the_published_curves_go_through_the_readings_of_figure_5(published, reading):
    x, *values = reading
    for key, value in zip(CURVES, values, strict=True):
        curve = published[key]
        if value is None:
            assert not curve.x[0] <= x <= curve.x[-1]
        else:
            # Where a reading lies on the line between its neighbours it is not in the file.
            assert np.interp(x, curve.x, curve.mean) == pytest.approx(value, abs=0.6)


@pytest.mark.parametrize("level", FIRST)
def test_the_published_curves_reach_their_levels_at_the_known_updates(published, level):
    found = [published["test", norm].first(level)[0] for norm in ("none", "layer")]
    np.testing.assert_array_equal(found, FIRST[level])


def test_the_published_curves_have_the_known_lowest_readings(published):
    assert set(published) == set(CURVES)
    lowest = [(curve.mean.min(), curve.x[curve.mean.argmin()]) for curve in published.values()]
    assert lowest == [(-777.9, 838), (-850.9, 768), (-921.0, 864), (-967.2, 258)]


def test_every_published_number_is_a_reading(published):
    for curve in published.values():
        assert (curve.x == curve.x.round()).all() and (np.diff(curve.x) > 0).all()
        assert len(curve.lanes) == 1


# --- Claim 24 ---


def falling(pace=1.0, shift=0.0, lanes=(-5.0, 0.0, 5.0)):
    """A curve from 100 nats towards -800, nine tenths of the way at its end at pace 1."""
    x = np.arange(1, 61.0)
    return Curve(x, shift - 800 + 900 * 0.1 ** (pace * x / 60) + np.array(lanes)[:, None])


def judged(none, layer):
    return claim_24({("test", "none"): none, ("test", "layer"): layer})


def test_a_factor_is_one_of_updates_also_where_the_nll_changes_its_sign():
    pace = Pace.of(falling(shift=400), falling(4, shift=400))
    assert pace.levels[0] > 0 > pace.levels[-1] and len(pace.levels) == 9
    np.testing.assert_allclose(pace.factors, 4, rtol=0.01)


@pytest.mark.parametrize(
    "pace, shift, word",
    [
        (10, -60, "confirmed"),
        (10, 0, "confirmed"),
        (2.1, 0, "confirmed"),
        (1.8, 0, "not decided"),  # faster, not much faster
        (1, 0, "contradicted"),
        (0.5, 0, "contradicted"),
        (10, 300, "contradicted"),  # fast at first, then it stays far above
    ],
)
def test_much_faster_is_judged_by_the_updates_to_the_same_likelihoods(pace, shift, word):
    assert judged(falling(), falling(pace, shift)).word == word


@pytest.mark.parametrize("worse, word", [(7, "confirmed"), (9, "contradicted")])
def test_a_comparable_end_is_within_two_standard_errors(worse, word):
    none, layer = falling(), falling(10)
    layer.lanes[:, -6:] = none.lanes[:, -6:] + worse  # after all levels have been reached
    verdict = judged(none, layer)
    assert verdict.word == word
    assert f", +{worse}.0 ± 4.1 (± standard error); " in verdict.because  # twice that is 8.2
    assert "not faster at 0. " in verdict.because


def test_a_spike_at_the_end_does_not_decide():
    layer = falling(10)
    layer.lanes[:, -1] += 500
    assert judged(falling(), layer).word == "confirmed"


def test_the_verdict_gives_factors_levels_and_ends():
    because = judged(falling(), falling(3, shift=50)).because
    assert because.startswith("Layer norm is 2.")
    assert "Units of 200 updates without norm and with layer norm: -232.1 nats 12 and " in because
    assert "From unit 55 to the last, 60, the test NLL is -748.8 nats with" in because
    assert "and -700.9 without norm, -47.9 ± 4.1 (± standard error)" in because
    assert because.endswith("; the lowest of all readings are -749.1 and -710.0.")


def test_unfinished_runs_are_not_judged_and_single_ones_decide_nothing():
    single = judged(falling(), falling(10, lanes=(0.0,)))
    assert single.word == "not decided" and "One seed" in single.because
    going_on = judged(falling(), Curve(falling().x, falling().lanes, complete=False))
    assert going_on == ("not tested", "It needs finished runs with layer norm.")
    assert claim_24({}).because == "It needs finished runs with no norm, layer norm."


def test_the_rule_on_the_papers_own_curves(published):
    verdict = claim_24(published)
    assert verdict.word == "not decided" and "One seed" in verdict.because
    assert "10.18 times as fast (median over 8 levels; from 8.50 to 11.17)" in verdict.because
    assert "2 times or more at 8 of them" in verdict.because
    assert "-823.0 nats with layer norm and -761.4 without norm, -61.6" in verdict.because
