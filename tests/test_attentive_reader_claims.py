"""Figure 2: the published curves, and what the rules of claims 16 to 18 make of curves."""

from pathlib import Path

import numpy as np
import pytest

from experiments import curves
from experiments.attentive_reader.claims import claim_16, claim_17, claim_18
from experiments.curves import Curve

ROOT = Path(__file__).parent.parent
NORMS = ("none", "batch", "everywhere", "layer")


@pytest.fixture(scope="module")
def published():
    return curves.published(ROOT / "results" / "published" / "figure_2.csv")


# Read off figure 2: updates / 1,000, errors in the order of NORMS; None behind the end of a curve.
READINGS = [
    (25, (1.000, 0.998, 0.936, 0.786)),
    (50, (0.996, 0.992, 0.599, 0.501)),
    (100, (0.993, 0.663, 0.503, 0.490)),
    (200, (0.937, 0.508, 0.507, 0.492)),
    (300, (0.728, 0.509, None, None)),
    (500, (0.540, None, None, None)),
]


@pytest.mark.parametrize("x, errors", READINGS)
def test_the_published_curves_are_those_of_the_figure(published, x, errors):
    for norm, error in zip(NORMS, errors, strict=True):
        curve = published["valid", norm]
        assert (curve.x[-1] < x) == (error is None)
        if error is not None:  # every second reading of a long curve may be left out
            assert np.interp(x, curve.x, curve.mean) == pytest.approx(error, abs=0.006)
            assert np.allclose(curve.mean * 3904, np.round(curve.mean * 3904), atol=0.05)


def test_the_lowest_errors_are_those_of_the_figure(published):
    lowest = {norm: published["valid", norm].last("min", 0) for norm in NORMS}
    expected = dict(none=0.5033, batch=0.4951, everywhere=0.5, layer=0.4777)
    for norm, error in expected.items():
        assert lowest[norm] == pytest.approx(error, abs=5e-5)


def falling(at, end=0.4, gap=0.004, lanes=2):
    """Curves of some seeds that fall from 1 to an error around x, up to x = 100."""
    x = np.arange(1.0, 101.0)
    mean = end + (1 - end) / (1 + np.exp((x - at) / 3))
    return Curve(x, mean + gap * (np.arange(lanes) - (lanes - 1) / 2)[:, None])


def figure(**made):
    return {("valid", norm): curve for norm, curve in made.items()}


OTHERS = dict(none=falling(80), batch=falling(50, 0.42), everywhere=falling(40, 0.42))


@pytest.mark.parametrize(
    "layer, word",
    [(falling(15), "confirmed"), (falling(60, 0.43), "contradicted"), (falling(38), "not decided")],
    ids=["faster", "slower", "hardly faster"],
)
def test_claim_16_asks_whether_it_is_faster_than_all_three(layer, word):
    assert claim_16(figure(**OTHERS, layer=layer)).word == word


@pytest.mark.parametrize(
    "end, word", [(0.38, "confirmed"), (0.41, "contradicted"), (0.4, "not decided")]
)
def test_claim_17_asks_for_the_lowest_error(end, word):
    verdict = claim_17(figure(**OTHERS, layer=falling(15, end)))
    assert verdict.word == word
    assert "to batch norm everywhere" in verdict.because


@pytest.mark.parametrize(
    "end, word", [(0.45, "confirmed"), (0.35, "contradicted"), (0.402, "not decided")]
)
def test_claim_18_compares_the_ends_of_two_gains(end, word):
    assert claim_18(figure(layer=falling(15), layer_small=falling(15, end))).word == word


@pytest.mark.parametrize("rule", [claim_16, claim_17, claim_18])
def test_unfinished_runs_are_not_judged_and_single_ones_decide_nothing(rule):
    full = figure(**OTHERS, layer=falling(15, 0.38), layer_small=falling(15, 0.45))
    assert rule(full).word == "confirmed"
    single = rule({key: Curve(c.x, c.lanes[:1]) for key, c in full.items()})
    assert single.word == "not decided" and "One seed" in single.because
    layer = full["valid", "layer"]
    going_on = full | figure(layer=Curve(layer.x, layer.lanes, complete=False))
    assert rule(going_on) == ("not tested", "It needs finished runs with layer norm.")


def test_the_rules_on_the_papers_own_curves(published):
    speed, best = claim_16(published), claim_17(published)
    for verdict in (speed, best):
        assert verdict.word == "not decided" and "One seed" in verdict.because
    assert "against no norm: 12.55 times as fast (median over 9 levels" in speed.because
    assert "against batch norm: 3.51 times as fast" in speed.because
    assert "against batch norm everywhere: 2.01 times as fast" in speed.because
    assert "0.478 with layer norm" in best.because and "0.503 with no norm" in best.because
