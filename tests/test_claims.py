"""All claims of the paper: each has one owner, and verdicts that are computed."""

from pathlib import Path

import numpy as np
import pytest

import experiments
from experiments import across
from experiments.curves import CONFIRMED, CONTRADICTED, NOT_DECIDED, NOT_TESTED, Curve
from experiments.theory import theory
from experiments.theory.checks import Check, Result
from scripts.pages import claims, sections
from tests.test_report import write_run
from tests.test_theory import NUMBERS as OF_THEORY


def test_each_of_the_31_claims_has_one_owner():
    of_experiments = [
        claim["number"]
        for name in claims.experiments_with_claims()
        for claim in experiments.part(name, "figures").CLAIMS
    ]
    owned = [*of_experiments, *(claim["number"] for claim in across.CLAIMS), *OF_THEORY]
    assert sorted(owned) == list(range(1, 32))


@pytest.fixture
def no_analysis(monkeypatch):
    """It takes half a minute, and tests/test_theory.py is of it."""

    def demonstration(seed):
        return Result((Check(1, "first", True, "it is"),), {})

    monkeypatch.setattr(theory, "DEMONSTRATIONS", (demonstration,))


def test_without_runs_only_the_analysis_decides_and_commands_say_how_to_test(no_analysis, tmp_path):
    shown, pictures = claims.page(None)
    by_number = {claim.number: claim for claim in shown["claims"]}
    assert sorted(by_number) == [1, *range(13, 30)] and not pictures and shown["root"] is None
    words = {number: claim.word for number, claim in by_number.items()}
    assert words.pop(1) == CONFIRMED
    words_of_19 = words.pop(19)
    assert words_of_19 != NOT_TESTED  # its times are in results/speed
    assert set(words.values()) == {NOT_TESTED}
    (statement,) = by_number[24].statements
    commands = [command for _, command in statement.needs]
    sweep = "python -m scripts.sweep --config=configs/handwriting.py"
    assert commands == [f"{sweep}:small", sweep] and not statement.findings
    assert statement.paper.word == NOT_DECIDED
    assert by_number[27].statements[0].paper is None  # nothing is published
    assert by_number[29].statements[0].paper.word in (CONFIRMED, CONTRADICTED, NOT_DECIDED)
    assert by_number[19].by_source == {"the benchmark in results/speed": words_of_19}
    assert sum(shown["count"].values()) == len(by_number)


def test_each_set_of_runs_has_a_verdict_of_its_own(no_analysis, tmp_path):
    for place, error in (("a", 0.014), ("b", 0.012)):
        for batch_size in (128, 4):
            for norm in ("layer", "batch"):
                worse = (norm == "layer") == (place == "a") and batch_size == 4
                write_run(tmp_path / place, norm, batch_size, error * (5 if worse else 1), 1e-3)
    write_run(tmp_path / "b", "layer", 128, 0.02, 1e-3, hidden=9, name="other")
    shown, _ = claims.page(tmp_path)
    claim = next(claim for claim in shown["claims"] if claim.number == 25)
    sources = [f"runs of mnist, scale tiny, in {(tmp_path / p).as_posix()}/mnist" for p in "ab"]
    assert claim.by_source == {sources[0]: CONTRADICTED, f"{sources[1]}, set 1": CONFIRMED}
    assert claim.word == CONTRADICTED and claim.shown.decided[0].verdict.because
    ((because, lacking),) = claim.statements[0].lacking.items()
    assert lacking == [f"{sources[1]}, set 2"] and "two seeds or more" in because
    assert sum(shown["count"].values()) == len(shown["claims"])


def test_what_a_benchmark_decides_is_counted_once(no_analysis):
    small, other = (sections.Section("skip_thoughts", scale, [], []) for scale in ("small", "tiny"))
    claim = next(claim for claim in claims.collect([small, other]) if claim.number == 19)
    assert len(claim.statements[0].findings) == 1


def test_a_rule_that_claims_share_stands_below_the_first():
    def claim(number, rule):
        return claims.Claim(number, [claims.Statement("t", "§1", rule, None, ())])

    three = [claim(1, "r"), claim(2, "s"), claim(3, "r")]
    claims.set_rules(three)
    assert [one.rules for one in three] == [["r"], ["s"], [1]]


def test_several_tests_of_a_claim_count_as_the_worst_and_else_as_the_best():
    assert claims.overall([NOT_TESTED, CONFIRMED, CONTRADICTED]) == CONTRADICTED
    assert claims.overall([NOT_DECIDED, NOT_TESTED, CONFIRMED]) == CONFIRMED
    assert claims.overall([NOT_TESTED, NOT_DECIDED]) == NOT_DECIDED
    assert claims.overall([NOT_TESTED]) == NOT_TESTED


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
    found = sections.seconds("skip_thoughts", "full", {"none": "ours without norm", "x": "no peer"})
    (curve,) = found.values()
    assert isinstance(curve, Curve) and curve.lanes.shape[1] == 1 and (curve.lanes > 0).all()
    assert sections.seconds("no_such_benchmark", "full", {"none": "ours"}) == {}


def test_of_several_sets_of_runs_the_one_nearest_to_the_paper_counts_in_any_order():
    def runs(changes, speed):
        x = np.arange(1.0, 21)
        ours = {
            ("nll_batch128", norm): Curve(x, np.exp(-rate * x)[None])
            for norm, rate in (("none", 0.1), ("layer", 0.1 * speed))
        }
        run = sections.Run(Path("runs/layer"), *([None] * 7))
        run.config = dict(batch_size=128)
        section = sections.Section("mnist", "paper", changes, [run])
        return section, sections.Gathered([], [], ours, {}, {})

    sets = [runs(["lr", "init"], 4.0), runs([], 2.0)]
    for order in (sets, sets[::-1]):
        (gain,) = claims.gains(order, paper=False).values()
        assert gain.factor == pytest.approx(2.0, rel=0.05)
