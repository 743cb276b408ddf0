"""Figure 1 and table 2: published numbers, and what the rules of claims 13 to 15 make of such."""

from pathlib import Path

import numpy as np
import pytest

from experiments import curves
from experiments.curves import Column, Curve, Pace
from experiments.order_embeddings import figures
from experiments.order_embeddings.claims import EIGHT, RECALLS, claim_13, claim_14, claim_15
from scripts.pages import sections

PUBLISHED = Path(__file__).parent.parent / "results" / "published" / "figure_1.csv"
PANELS = [(panel, norm) for panel in RECALLS for norm in ("layer", "none")]


@pytest.fixture(scope="module")
def published():
    return curves.published(PUBLISHED)


# --- The published numbers ---

# Read off figure 1: updates / 300, then recalls in the order of PANELS; None outside the drawing.
READINGS = [
    (20, 34.8, 32.6, 71.5, None, 86.2, 83.6),
    (30, 36.7, 35.1, 73.6, 71.5, 87.0, 85.2),
    (40, 37.2, 35.9, 74.1, 73.1, 87.8, 86.1),
    (50, 37.9, 37.3, 75.3, 73.9, 87.9, 87.0),
    (60, 38.9, 37.4, 76.0, 74.4, 88.2, 87.6),
    (75, 39.7, 37.9, 76.3, 74.9, 88.6, 86.8),
    (100, 40.7, 39.4, 76.9, 75.4, 88.4, 87.6),
    (125, 40.2, 39.0, 76.6, 75.9, 88.7, 88.2),
    (150, 41.0, 39.6, 76.3, 75.9, 88.3, 87.4),
    (165, 40.9, 40.4, 76.5, 76.7, 88.1, 88.2),
    (200, None, 39.7, None, 75.9, None, 87.5),
    (250, None, 39.7, None, 76.0, None, 87.3),
    (270, None, 40.0, None, 75.8, None, 88.1),
]

# The first x at or above a level, with layer norm and without.
FIRST = {
    ("r1", 38): (45, 55),
    ("r1", 39): (59, 64),
    ("r1", 40): (74, 129),
    ("r1", 41): (110, np.nan),
    ("r5", 75): (46, 59),
    ("r5", 76): (60, 87),
    ("r5", 77): (90, np.nan),
    ("r10", 87): (27, 45),
    ("r10", 88): (44, 66),
    ("r10", 89): (90, np.nan),
}


@pytest.mark.parametrize("reading", READINGS)
def test_the_published_curves_go_through_the_readings_of_figure_1(published, reading):
    x, *values = reading
    for key, value in zip(PANELS, values, strict=True):
        curve = published[key]
        if value is None:
            assert not curve.x[0] <= x <= curve.x[-1]
        else:
            # Where a reading lies on the line between its neighbours it is not in the file.
            assert np.interp(x, curve.x, curve.mean) == pytest.approx(value, abs=0.051)


@pytest.mark.parametrize("panel, level", FIRST)
def test_the_published_curves_reach_their_levels_at_the_known_updates(published, panel, level):
    found = [published[panel, norm].first(level, falling=False)[0] for norm in ("layer", "none")]
    np.testing.assert_array_equal(found, FIRST[panel, level])


def test_the_published_curves_have_the_known_highest_readings(published):
    assert set(published) == set(PANELS)
    highest = {
        key: (curve.mean.max(), curve.x[curve.mean.argmax()]) for key, curve in published.items()
    }
    assert [highest[key] for key in PANELS] == [
        *((42.12, 155), (40.80, 168)),
        *((77.58, 110), (76.88, 172)),
        *((89.28, 96), (88.76, 115)),
    ]


def test_every_published_number_is_a_reading(published):
    for (_, norm), curve in published.items():
        assert (curve.x == curve.x.round()).all() and (np.diff(curve.x) > 0).all()
        assert len(curve.lanes) == 1 and curve.x[-1] == {"none": 270, "layer": 165}[norm]
        counts = curve.mean * 50  # of 5,000 captions
        np.testing.assert_allclose(counts, counts.round(), atol=1e-6)


# --- Made-up curves ---


def rising(pace=1.0, shift=0.0, length=60, lanes=(-0.2, 0.0, 0.2)):
    """A curve from 0 towards 40 %, nine tenths of the way at its end at pace 1."""
    x = np.arange(1, length + 1.0)
    mean = (40 + shift) * (1 - 0.1 ** (pace * x / length))
    return Curve(x, mean + np.array(lanes)[:, None])


def recalls(none, layer):
    """The same curves in all three panels."""
    return {(panel, n): c for panel in RECALLS for n, c in (("none", none), ("layer", layer))}


def test_a_rising_curve_reaches_a_level_on_the_line_between_two_readings():
    curve = Curve(np.array([2.0, 4.0, 6.0]), np.array([[1.0, 5.0, 9.0], [3.0, 7.0, 9.0]]))
    assert curve.reaches(4, falling=False) == 3  # the mean is 2, 6, 9
    assert curve.reaches(6, falling=False) == 4
    assert curve.reaches(1, falling=False) == 2  # at the first reading at the earliest
    assert curve.reaches(9.1, falling=False) == np.inf


def test_twice_the_pace_upwards_is_a_factor_of_two():
    pace = Pace.of(rising(), rising(2), falling=False)
    assert len(pace.levels) == 9 and (np.diff(pace.levels) > 0).all()
    np.testing.assert_allclose(pace.factors, 2, rtol=0.01)
    np.testing.assert_allclose(pace.baseline[-1], 60)


# --- Claim 13 ---


@pytest.mark.parametrize(
    "pace, shift, word",
    [
        (1.7, 0, "confirmed"),
        (1.15, 0, "confirmed"),
        (1.05, 0, "not decided"),
        (1.0, -0.1, "contradicted"),
        (0.7, 0, "contradicted"),
        (3.0, -30, "contradicted"),  # fast at first, then it stays below nearly all levels
    ],
)
def test_a_speed_up_is_judged_by_the_updates_to_the_same_recalls(pace, shift, word):
    assert claim_13(recalls(rising(), rising(pace, shift))).word == word


@pytest.mark.parametrize("pace, word", [(1.05, "not decided"), (0.9, "contradicted")])
def test_a_speed_up_must_be_there_in_all_three_recalls(pace, word):
    found = recalls(rising(), rising(2))
    found["r5", "layer"] = rising(pace)
    assert claim_13(found).word == word


def test_the_verdict_on_speed_gives_factors_and_levels():
    because = claim_13(recalls(rising(), rising(2))).because
    assert because.startswith("R@1: Layer norm is 2.00 times as fast (median over 9 levels; ")
    assert "36 % 60 and 30. R@5: Layer norm" in because
    assert "Units of 300 updates without norm and with layer norm: 14.76 % 12 and 6" in because


# --- Claim 14 ---


def peaked(best, at, length=60, lanes=(-0.2, 0.0, 0.2)):
    """A curve that rises to its best, then falls."""
    x = np.arange(1, length + 1.0)
    return Curve(x, best - np.abs(x - at) / 10 + np.array(lanes)[:, None])


@pytest.mark.parametrize(
    "best, at, word",
    [
        (40.0, 24, "confirmed"),
        (41.0, 41, "confirmed"),  # there at 31 of 40
        (41.0, 45, "not decided"),  # at 35
        (41.0, 50, "contradicted"),
        (39.9, 10, "contradicted"),  # never
    ],
)
def test_the_time_to_the_best_model_is_that_to_the_baselines_best_sum(best, at, word):
    assert claim_14(recalls(peaked(40.0, 40), peaked(best, at))).word == word


def test_the_verdict_on_the_best_model_says_when_it_was_there_and_its_own_best():
    because = claim_14(recalls(peaked(40.0, 40), peaked(42.0, 44))).because
    assert "the highest sum of R@1, R@5 and R@10, 120.00, is that of unit 40" in because
    assert "is there at unit 24, after 60% of that time; its own highest, 126.00, is" in because
    never = claim_14(recalls(peaked(40.0, 40), peaked(39.0, 20))).because
    assert "Layer norm never gets there; its own highest, 117.00, is that of unit 20." in never


def test_a_sum_is_taken_where_all_three_recalls_have_a_reading():
    found = recalls(peaked(40.0, 40), peaked(40.0, 30))
    whole = found["r5", "layer"]
    found["r5", "layer"] = Curve(np.delete(whole.x, 29), np.delete(whole.lanes, 29, 1))
    assert "Layer norm never gets there; its own highest, 119.70" in claim_14(found).because


# --- Claim 15 ---


def results(norm, gain, lanes=(-0.1, 0.0, 0.1), worse=()):
    """Table 2, with recalls higher and ranks lower by a gain."""
    signs = {name: -1 if name.endswith("mean") != (name in worse) else 1 for name in EIGHT}
    return {
        (f"table_2_{name}", norm): Curve(np.zeros(1), 50 + sign * gain + np.array(lanes)[:, None])
        for name, sign in signs.items()
    }


@pytest.mark.parametrize(
    "gain, worse, word",
    [
        (1.0, (), "confirmed"),
        (0.05, (), "not decided"),  # six times it is less than twice the standard error
        (1.0, ("image_mean",), "not decided"),
        (1.0, ("caption_r5",), "not decided"),
        (-1.0, (), "contradicted"),
    ],
)
def test_better_test_results_are_judged_by_all_eight_and_by_the_sum_of_recalls(gain, worse, word):
    verdict = claim_15(results("none", 0.0) | results("layer", gain, worse=worse))
    assert verdict.word == word
    if gain == 1:
        assert f"With layer norm {8 - len(worse)} of the eight are better" in verdict.because
        assert "± 0.5 (± standard error)." in verdict.because  # 6 x 0.1 x √(2 / 3)


# --- All three ---

FULL = recalls(peaked(40.0, 40), peaked(42.0, 44)) | results("none", 0) | results("layer", 1)


@pytest.mark.parametrize("rule", [claim_13, claim_14, claim_15])
def test_unfinished_runs_are_not_judged_and_single_ones_decide_nothing(rule):
    assert rule(FULL).word == "confirmed"
    single = rule({key: Curve(c.x, c.lanes[:1]) for key, c in FULL.items()})
    assert single.word == "not decided" and "One seed" in single.because
    going_on = {
        (panel, norm): Curve(c.x, c.lanes, complete=norm == "none")
        for (panel, norm), c in FULL.items()
    }
    assert rule(going_on) == ("not tested", "It needs finished runs with layer norm.")
    assert rule({}).because == "It needs finished runs with no norm, layer norm."


def test_the_rules_on_the_papers_own_numbers(published):
    (table,) = figures.TABLES
    _, of_table = sections.numbers_of(sections.Section("order_embeddings", "paper", [], []), table)
    speed, best, test = (rule(published | of_table) for rule in (claim_13, claim_14, claim_15))
    for verdict in (speed, best, test):
        assert verdict.word == "not decided" and "One seed" in verdict.because
    assert "R@1: Layer norm is 1.26 times as fast (median over 5 levels; from 1.16" in speed.because
    assert "R@5: Layer norm is 1.63 times as fast" in speed.because
    assert "R@10: Layer norm is 1.62 times as fast" in speed.because
    assert "205.34, is that of unit 130" in best.because
    assert "at unit 74, after 57% of that time" in best.because
    assert "its own highest, 208.12, is that of unit 110." in best.because
    assert "With layer norm 8 of the eight are better: caption r1 +1.90" in test.because
    assert "caption mean -0.10" in test.because and "image mean -0.30" in test.because
    assert "add up to 418.4 with layer norm and 412.1 without norm." in test.because


# --- Numbers at the best step ---


def test_a_test_result_is_that_of_each_lanes_own_best_step():
    best = {0: 20, 1: 30}  # seed -> step
    rows = [
        dict(step=step, split=split, seed=seed, lr=0.1, sum=-abs(step - best[seed]), r1=step + seed)
        for step in (10, 20, 30)
        for split in ("valid", "test")
        for seed in (0, 1)
    ]
    column = Column(name="c", label="", split="test", metric="r1", digits=".1f")
    select = dict(split="valid", metric="sum", mode="max")
    curve = curves.at_best(rows, select, column, complete=True)
    assert curve.lanes.tolist() == [[20], [31]] and curve.x.tolist() == [25] and curve.complete
    worst = curves.at_best(rows, {**select, "mode": "min"}, column, complete=False)
    assert worst.lanes.tolist() == [[10], [11]] and not worst.complete
    assert curves.at_best(rows[:-1], select, column, True) is None  # not written yet
    assert curves.at_best([], select, column, True) is None
