"""The table of claims, verdicts on made-up curves, and the page of all claims."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from configs import mnist
from experiments import rules
from experiments.claims import BUILT_IN, CLAIMS, TASKS
from experiments.curves import Curve
from experiments.rules import (
    AGREES,
    CONFIRMED,
    CONTRADICTED,
    DISAGREES,
    ERRATUM,
    NOT_DECIDED,
    NOT_TESTED,
    Cell,
)
from experiments.theory import theory
from experiments.theory.checks import Check, Result
from ln.errors import InputError
from ln.training import runs
from scripts.pages import claims
from scripts.pages.sections import Section, gather

ROOT = Path(__file__).parent.parent
TRAINED = [claim for claim in CLAIMS if claim.parts]
X = np.arange(1.0, 61)


def section(name):
    return Section(name, "paper", [], [])


def verdict(number, curves, full=True, configs=({},)):
    claim = CLAIMS[number - 1]
    cells = [Cell(config, curves) for config in configs]
    return rules.decide(claim, cells, claims.panels_of(section(claim.experiment)), full)


def progress(claim, ahead, seeds=6):
    """Curves of a claim: those of the norm are ahead of the baseline in pace and in the end."""
    panels, curves = claims.panels_of(section(claim.experiment)), {}
    noise = 0.01 * np.random.default_rng(claim.number).normal(size=(seeds, 1))
    for part in [*claim.parts, *(claim.stand_ins if not claim.parts else ())]:
        pairs = [(part.baseline, 0.0), (part.curve, ahead)] + [
            ((part.minus, norm), 0.0) for _, norm in (part.baseline, part.curve) if part.minus
        ]
        for (names, norm), gain in pairs:
            for name in (*names.split("+"), *filter(None, part.peak.split("+"))):
                falling = getattr(panels.get(name), "falling", True)
                falling = falling if part.falling is None or name in part.peak else part.falling
                gain = -ahead if norm == "none" and claim.number == 27 else gain
                shape = np.minimum((1 + gain) * X / 40, 1 + gain / 9)  # from 40 on it stays
                y = 1 + shape + noise * (1 + 0.1 * (norm == "layer"))
                curves[name, norm] = Curve(X, 100 * (3 - y if falling else y))
    return curves


# --- The table ---


@pytest.mark.parametrize("claim", TRAINED, ids=lambda claim: claim.number)
def test_claims_name_panels_and_norms_that_exist(claim):
    panels = claims.panels_of(section(claim.experiment))
    norms = importlib.import_module(f"configs.{claim.experiment}").get_config().norms
    keys = {key for part in claim.parts + claim.stand_ins for key in part.keys}
    assert {norm for _, norm in keys} <= {"none", *norms}
    if not claim.is_timing:
        assert {name for names, _ in keys for name in names.split("+")} <= set(panels)
    peaks = {name for part in claim.parts for name in part.peak.split("+") if name}
    assert peaks <= set(panels)


def test_an_unknown_experiment_of_a_claim_raises():
    with pytest.raises(InputError, match="Did you mean 'mnist'"):
        rules.Claim(32, "§7", "text", "mnits", parts=CLAIMS[24].parts)
    with pytest.raises(ValueError, match="parts or the experiment theory"):
        rules.Claim(32, "§7", "text", "mnist")


def test_the_paper_has_numbers_and_no_verdicts():
    numbers = {}
    for claim in TRAINED:
        rows = claims.in_paper(claim, (empty := section(claim.experiment), gather(empty)))
        assert all(row.interval == "–" for row in rows)
        numbers[claim.number] = [row.estimate for row in rows]
    assert [number for number, rows in numbers.items() if not rows] == [18, 19, 21, 27, 28, 29]
    assert numbers[22] == ["1.41 ×"] and numbers[24] == ["10.24 ×", "+60.8"]
    assert numbers[15] == ["+1.9", "+1.3", "+0.7", "+0.1", "+1.1", "+0.7", "+0.6", "+0.3"]


# --- Verdicts ---

SIMPLE = [c for c in TRAINED if c.number not in (21, 27, 28, 29) and not c.is_timing]


@pytest.mark.parametrize("claim", SIMPLE, ids=lambda claim: claim.number)
def test_verdicts_turn_with_the_curves(claim):
    ahead, behind = progress(claim, 1.5), progress(claim, -0.5)
    assert verdict(claim.number, ahead).word == CONFIRMED
    assert verdict(claim.number, ahead, full=False).word == AGREES
    assert verdict(claim.number, behind).word == CONTRADICTED
    assert verdict(claim.number, behind, full=False).word == DISAGREES
    assert verdict(claim.number, progress(claim, 0.0)).word == NOT_DECIDED
    assert verdict(claim.number, {}).word == NOT_TESTED


def test_two_pairs_decide_nothing():
    shown = verdict(22, progress(CLAIMS[21], 1.5, seeds=2))
    assert shown.word == NOT_DECIDED and "3 seeds of both norms" in shown.because
    assert [(row.interval, row.pairs) for row in shown.rows] == [("–", 2)]


def test_unfinished_runs_are_named():
    curves = progress(CLAIMS[21], 1.5)
    layer = curves["bound", "layer"]
    shown = verdict(22, curves | {("bound", "layer"): Curve(layer.x, layer.lanes, complete=False)})
    assert shown[:2] == (NOT_TESTED, "It needs finished runs of layer (bound).")


def test_an_end_needs_a_baseline_that_has_peaked():
    climbing = Curve(X, 100 - X + np.arange(6.0)[:, None])
    curves = {("bound", "none"): climbing, ("bound", "layer"): Curve(X, climbing.lanes - 20)}
    assert verdict(23, curves).because == "The baseline was still improving at the end."
    assert verdict(22, curves).word == CONFIRMED  # a pace needs none


@pytest.mark.parametrize("panels", [TASKS, BUILT_IN])
def test_claim_21_excludes_curves_that_still_climb(panels):
    rise = np.minimum(X / 20, 1) + 0.1 * (X > 40) + 0.01 * np.arange(6.0)[:, None]
    climb = X / 60 + 0.01 * np.arange(6.0)[:, None]

    def curves(rising):
        return {(name, "layer"): Curve(X, -rising if "mse" in name else rising) for name in panels}

    assert verdict(21, curves(rise)).word == CONFIRMED
    assert verdict(21, curves(climb)).because == "The baseline was still improving at the end."
    for count, word in ((1, CONFIRMED), (2, CONTRADICTED)):  # all tasks but one
        fall = {(name, "layer"): curves(-rise)[name, "layer"] for name in panels[:count]}
        assert verdict(21, curves(rise) | fall).word == word


def test_claim_27_is_about_the_order_of_three():
    def curves(**paces):
        noise = 1 + 0.01 * np.random.default_rng(0).normal(size=(3, 6, 1))
        rates = zip(paces.items(), noise, strict=True)
        return {("train_nll", norm): Curve(X, n * 0.9 ** (pace * X)) for (norm, pace), n in rates}

    assert verdict(27, curves(none=1, layer=2, batch=4)).word == CONFIRMED
    assert verdict(27, curves(none=1, layer=4, batch=2)).word == CONTRADICTED
    assert verdict(27, curves(none=1, layer=1.05, batch=4)).word == NOT_DECIDED


def test_claim_28_needs_images_with_content_at_the_border():
    def curves(border):
        level = np.ones((6, 3)) * np.linspace(0.99, 1.01, 6)[:, None]
        shares = dict(border=border, inside=0.5)
        norms = ("none", "layer", "batch")
        return {(k, n): Curve(np.arange(3.0), level**i * share)
                for k, share in shares.items() for i, n in enumerate(norms)}  # fmt: skip

    photos, digits = ({"dataset": "cifar10"},), ({"dataset": "mnist"},)
    assert verdict(28, curves(0.1), configs=photos).word == CONFIRMED
    assert verdict(28, curves(0.3), configs=photos).word == NOT_DECIDED
    assert verdict(28, curves(0.6), configs=photos).word == CONTRADICTED
    assert "constant pixels" in verdict(28, curves(0.1), configs=digits).because


@pytest.mark.parametrize("power, word", [(0.3, CONFIRMED), (-0.3, CONTRADICTED), (0, NOT_DECIDED)])
def test_claim_29_is_the_trend_over_lengths_and_batch_sizes(power, word):
    random, cells = np.random.default_rng(0), []
    for pixels, batch_size in ((28, 8), (28, 32), (4, 8), (4, 32)):
        config = dict(pixels_per_step=pixels, batch_size=batch_size)
        pace = 1.5 * Cell(config, {}).ratio ** power * np.exp(0.05 * random.normal(size=(3, 1)))
        curves = {("error_in_order", "none"): 0.9**X * np.ones((3, 1))}
        curves["error_in_order", "layer"] = 0.9 ** (pace * X)
        cells.append(Cell(config, {key: Curve(X, y) for key, y in curves.items()}))
    assert rules.decide(CLAIMS[28], cells, {}, full=True).word == word
    assert rules.decide(CLAIMS[28], cells[:3], {}, full=True).word == NOT_TESTED


@pytest.mark.parametrize(
    "number, changes, full",
    [
        (13, [], True),
        (13, ["lr: [0.001] -> [0.002]", 'optimizer.kind: "adam" -> "sgd"'], True),
        (13, ["lr: 1 -> 2", 'dataset: "coco" -> "scenes"'], False),
        (21, [], False),  # it is about more updates than all others
        (21, ['steps: "1000000 steps" -> "1700000 steps"'], True),
    ],
)
def test_a_claim_has_a_setting_of_data_size_and_length(number, changes, full):
    assert rules.is_full(CLAIMS[number - 1], changes) == full


# --- The page ---


@pytest.fixture
def no_analysis(monkeypatch):
    """Replace the analysis, which takes half a minute, by claims 1 (holds) and 9 (does not)."""
    result = Result((Check(1, "", True, "so"), Check(9, "", False, "not so")), {})
    monkeypatch.setattr(theory, "DEMONSTRATIONS", (lambda seed: result,))


def test_without_runs_only_analysis_and_times_are_shown(no_analysis):
    shown, _ = claims.page(None)
    words = {e.claim.number: e.word for entries in shown["groups"].values() for e in entries}
    assert sorted(words) == list(range(1, 32))
    assert words[1] == CONFIRMED and words[9] == ERRATUM
    assert {words[claim.number] for claim in TRAINED if not claim.is_timing} == {NOT_TESTED}
    assert [entry.claim.number for entry in shown["groups"][claims.TIMING]] == [19]
    assert shown["counts"][claims.ANALYSIS] == {CONFIRMED: 1, ERRATUM: 1, NOT_TESTED: 12}


def write_run(root, norm, batch_size, error=0.01, seeds=(0, 1, 2)):
    """Write the folder of a finished run of figure 6 with made-up numbers."""
    config = mnist.get_config("tiny")
    config.update(norm=norm, batch_size=batch_size, seeds=seeds, steps="20 epochs")
    rows = [
        dict(step=epoch, epoch=float(epoch), split=split, seed=seed, lr=config.lr[0])
        | dict(error=error * (1 + 0.01 * seed), nll=1.0 + abs(epoch - 10))
        for epoch in range(1, 21)
        for split in ("train", "valid", "test")
        for seed in seeds
    ]
    folder = root / "mnist" / f"norm={norm},batch_size={batch_size}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(runs.as_json(config)))
    (folder / "finished.json").write_text("{}")
    runs.write_rows(folder / "metrics.jsonl", rows)


def test_each_set_of_runs_has_a_verdict_at_its_scale(no_analysis, tmp_path):
    for place, sign in (("a", 1), ("b", -1)):
        for batch_size in (128, 4):
            for norm in ("layer", "batch"):
                worse = (norm == "layer") == (sign < 0) and batch_size == 4
                error = 0.05 if worse else 0.01
                write_run(tmp_path / place, norm, batch_size, error)
    shown, _ = claims.page(tmp_path)
    (entry,) = (e for e in shown["groups"][claims.REDUCED] if e.claim.number == 25)
    assert {finding.verdict.word for finding in entry.findings} == {AGREES, DISAGREES}
    assert len(entry.findings) == 2 and entry.word == NOT_DECIDED
    assert not any(CONFIRMED in words for name, words in shown["counts"].items() if "scale" in name)


def test_runs_of_a_claim_may_be_in_several_folders(tmp_path):
    for place, batch_size in (("a", 128), ("b", 4)):
        write_run(tmp_path / place, "layer", batch_size)
    (both,) = claims.read_sets(tmp_path)
    assert len(both.folders) == 2
    write_run(tmp_path / "c", "layer", 4)
    assert len(claims.read_sets(tmp_path)) == 2  # the same curve again


def test_sets_that_contradict_each_other_decide_nothing():
    assert claims.overall([NOT_TESTED, AGREES, DISAGREES]) == NOT_DECIDED
    assert claims.overall([NOT_DECIDED, NOT_TESTED, CONFIRMED]) == CONFIRMED
    assert claims.overall([NOT_TESTED, NOT_DECIDED]) == NOT_DECIDED
    assert claims.overall([]) == NOT_TESTED
