"""All claims of the paper: each has one owner, and verdicts that are computed."""

import importlib

import numpy as np
import pytest

from experiments import across, theory
from experiments.curves import CONFIRMED, CONTRADICTED, NOT_DECIDED, NOT_TESTED, Curve, Verdict
from scripts import report
from tests.test_theory import NUMBERS as OF_THEORY


def test_each_of_the_31_claims_has_one_owner():
    of_configs = [
        claim["number"]
        for name in report.experiments_with_claims()
        for claim in importlib.import_module(f"configs.{name}").CLAIMS
    ]
    owned = [*of_configs, *(claim["number"] for claim in across.CLAIMS), *OF_THEORY]
    assert sorted(owned) == list(range(1, 32))


@pytest.fixture
def no_analysis(monkeypatch):
    """It takes half a minute, and tests/test_theory.py is of it."""
    found = theory.Demonstration(
        title="t",
        setting="s",
        rule="",
        claims=(theory.Claim(1, "§3", "first", Verdict(CONFIRMED, "it is")),),
        tables=(),
    )

    def demonstration(seed):
        return found

    monkeypatch.setattr(theory, "DEMONSTRATIONS", (demonstration,))


def test_without_runs_only_the_analysis_decides_and_commands_say_how_to_test(no_analysis, tmp_path):
    shown, pictures = report.claims_page(tmp_path / "nowhere")
    by_number = {claim["number"]: claim for claim in shown["claims"]}
    assert sorted(by_number) == [1, *range(13, 30)] and not pictures and shown["root"] is None
    words = {number: claim["verdict"] for number, claim in by_number.items()}
    assert words.pop(1) == CONFIRMED
    assert words.pop(19) != NOT_TESTED  # its times are in results/speed
    assert set(words.values()) == {NOT_TESTED}
    (row,) = by_number[24]["rows"]
    assert row["command"] == "python -m scripts.sweep --config=configs/handwriting.py"
    assert row["paper"].word == NOT_DECIDED and "Graves" not in row["rule"]
    assert by_number[29]["rows"][0]["paper"].word in (CONFIRMED, CONTRADICTED, NOT_DECIDED)
    assert sum(shown["count"].values()) == len(by_number)


def test_several_tests_of_a_claim_count_as_the_worst_and_else_as_the_best():
    assert report.overall([NOT_TESTED, CONFIRMED, CONTRADICTED]) == CONTRADICTED
    assert report.overall([NOT_DECIDED, NOT_TESTED, CONFIRMED]) == CONFIRMED
    assert report.overall([NOT_TESTED, NOT_DECIDED]) == NOT_DECIDED
    assert report.overall([NOT_TESTED]) == NOT_TESTED


def gains(factors):
    ratios = (("long", 500, 8), ("middle", 300, 64), ("short", 12, 128), ("none", 1, 128))
    return [across.Gain(*of, factor) for of, factor in zip(ratios, factors, strict=False)]


def test_claim_29_goes_by_the_rank_of_length_over_batch_size():
    assert across.claim_29(gains([9, 4, 2, 1])).word == CONFIRMED
    assert across.claim_29(gains([1, 2, 4, 9])).word == CONTRADICTED
    assert across.claim_29(gains([4, 1, 2, 1.5])).word == NOT_DECIDED
    assert across.claim_29(gains([9, 4, 2])).word == NOT_TESTED
    assert across.claim_29(gains([2, 2, 2, 2])).word == CONTRADICTED
    np.testing.assert_array_equal(across.ranks([3, 1, 3, 9]), [1.5, 0, 1.5, 3])


def test_times_of_steps_are_curves_of_a_lane_for_each_round():
    found = report.seconds("skip_thoughts", "full", {"none": "ours without norm", "x": "no peer"})
    (curve,) = found.values()
    assert isinstance(curve, Curve) and curve.lanes.shape[1] == 1 and (curve.lanes > 0).all()
    assert report.seconds("no_such_benchmark", "full", {"none": "ours"}) == {}


def test_of_several_sets_of_runs_the_one_nearest_to_the_paper_counts_in_any_order():
    def runs(changes, speed):
        x = np.arange(1.0, 21)
        ours = {
            ("nll_batch128", norm): Curve(x, np.exp(-rate * x)[None])
            for norm, rate in (("none", 0.1), ("layer", 0.1 * speed))
        }
        run = report.Run(*([None] * 8))
        run.config = dict(batch_size=128)
        section = report.Section("mnist", "paper", changes, [run])
        return section, report.Gathered([], [], ours, {})

    sets = [runs(["lr", "init"], 4.0), runs([], 2.0)]
    for order in (sets, sets[::-1]):
        (gain,) = report.gains(order, paper=False)
        assert gain.factor == pytest.approx(2.0, rel=0.05)
