"""The table of claims, verdicts on made-up curves, and the page of all claims."""

import importlib
import itertools

import numpy as np
import pytest

from experiments import rules, theory
from experiments.claims import BUILT_IN, CLAIMS, TASKS
from experiments.curves import Curve
from experiments.rules import Cell
from experiments.theory.checks import Check, Result
from scripts.pages import claims, documents
from scripts.pages.sections import Section, gather
from tests.test_report import write_run

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
    keys = {key for part in claim.parts for key in (*part.keys, (part.peak, part.baseline[1]))}
    for names, norm in keys:
        gain = ahead if (names, norm) in {part.curve for part in claim.parts} else 0.0
        for name in filter(None, names.split("+")):
            shape = np.minimum((1 + gain) * X / 40, 1 + gain / 9)  # from 40 on it stays
            y = 1 + shape + noise * (1 + 0.1 * (norm == "layer"))
            curves[name, norm] = Curve(X, 100 * (3 - y if panels[name].falling else y))
    return curves


# --- The table ---


def test_claims_are_numbered_and_decided_by_runs_or_theory():
    assert [claim.number for claim in CLAIMS] == list(range(1, 32))
    assert all((claim.experiment == "theory") != bool(claim.parts) for claim in CLAIMS)


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


def test_the_paper_has_numbers_and_no_verdicts():
    numbers = {}
    for claim in TRAINED:
        rows = claims.in_paper(claim, empty := section(claim.experiment), gather(empty))
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
    assert verdict(claim.number, ahead).word == "confirmed"
    assert verdict(claim.number, ahead, full=False).word == "agrees"
    assert verdict(claim.number, behind).word == "contradicted"
    assert verdict(claim.number, behind, full=False).word == "disagrees"
    assert verdict(claim.number, progress(claim, 0.0)).word == "not decided"
    assert verdict(claim.number, {}).word == "not tested"


def test_two_pairs_decide_nothing():
    shown = verdict(22, progress(CLAIMS[21], 1.5, seeds=2))
    assert shown.word == "not decided" and "3 seeds of both norms" in shown.because
    assert [(row.interval, row.pairs) for row in shown.rows] == [("–", 2)]


def test_unfinished_runs_are_named():
    curves = progress(CLAIMS[21], 1.5)
    layer = curves["bound", "layer"]
    shown = verdict(22, curves | {("bound", "layer"): Curve(layer.x, layer.lanes, complete=False)})
    assert shown[:2] == ("not tested", "It needs finished runs of layer (bound).")


def test_an_end_needs_a_baseline_that_has_peaked():
    climbing = Curve(X, 100 - X + np.arange(6.0)[:, None])
    curves = {("bound", "none"): climbing, ("bound", "layer"): Curve(X, climbing.lanes - 20)}
    assert verdict(23, curves).because == "The baseline was still improving at the end."
    assert verdict(22, curves).word == "confirmed"  # a pace needs none


@pytest.mark.parametrize("panels", [TASKS, BUILT_IN])
def test_claim_21_excludes_curves_that_still_climb(panels):
    rise = np.minimum(X / 20, 1) + 0.1 * (X > 40) + 0.01 * np.arange(6.0)[:, None]
    climb = X / 60 + 0.01 * np.arange(6.0)[:, None]

    def curves(rising):
        return {(name, "layer"): Curve(X, -rising if "mse" in name else rising) for name in panels}

    assert verdict(21, curves(rise)).word == "confirmed"
    assert verdict(21, curves(climb)).because == "The baseline was still improving at the end."
    for count, word in ((1, "confirmed"), (2, "contradicted")):  # all tasks but one
        fall = {(name, "layer"): curves(-rise)[name, "layer"] for name in panels[:count]}
        assert verdict(21, curves(rise) | fall).word == word


def test_claim_28_needs_images_with_content_at_the_border():
    def curves(border):
        level = np.ones((6, 3)) * np.linspace(0.99, 1.01, 6)[:, None]
        shares = dict(border=border, inside=0.5)
        norms = ("none", "layer", "batch")
        return {(k, n): Curve(np.arange(3.0), level**i * share)
                for k, share in shares.items() for i, n in enumerate(norms)}  # fmt: skip

    photos, digits = ({"dataset": "cifar10"},), ({"dataset": "mnist"},)
    assert verdict(28, curves(0.1), configs=photos).word == "confirmed"
    assert verdict(28, curves(0.3), configs=photos).word == "not decided"
    assert verdict(28, curves(0.6), configs=photos).word == "contradicted"
    assert "constant pixels" in verdict(28, curves(0.1), configs=digits).because


@pytest.mark.parametrize(
    "longer, smaller, word",
    [
        (0.3, 0.3, "confirmed"),
        (-0.3, 0.3, "contradicted"),
        (0.3, -0.3, "contradicted"),
        (0.3, 0, "not decided"),
        (0, 0, "not decided"),
    ],
)
def test_claim_29_is_the_trend_over_lengths_and_batch_sizes(longer, smaller, word):
    random, cells = np.random.default_rng(0), []
    for pixels, batch_size in ((28, 8), (28, 32), (4, 8), (4, 32)):
        config = dict(pixels_per_step=pixels, batch_size=batch_size)
        pace = 3 * (7 / pixels) ** longer * (8 / batch_size) ** smaller
        pace = pace * np.exp(0.05 * random.normal(size=(3, 1)))
        curves = {("error_in_order", "none"): 0.9**X * np.ones((3, 1))}
        curves["error_in_order", "layer"] = 0.9 ** (pace * X)
        cells.append(Cell(config, {key: Curve(X, y) for key, y in curves.items()}))
    assert rules.decide(CLAIMS[28], cells, {}, full=True).word == word
    assert rules.decide(CLAIMS[28], cells[:3], {}, full=True).word == "not tested"
    line = [cells[0], cells[1], cells[0], cells[1]]  # one length
    assert rules.decide(CLAIMS[28], line, {}, full=True).word == "not tested"


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
    shown = claims.page(None)
    words = {e.claim.number: e.word for entries in shown["groups"].values() for e in entries}
    assert sorted(words) == list(range(1, 32))
    assert words[1] == "confirmed" and words[9] == "erratum"
    assert {words[claim.number] for claim in TRAINED if not claim.is_timing} == {"not tested"}
    assert [entry.claim.number for entry in shown["groups"][claims.TIMING]] == [19]
    assert shown["counts"][claims.ANALYSIS] == {"confirmed": 1, "erratum": 1, "not tested": 12}


def test_each_set_of_runs_has_a_verdict_at_its_scale(no_analysis, tmp_path):
    for place, worse in (("a", "batch"), ("b", "layer")):
        for norm, batch_size in itertools.product(("layer", "batch"), (128, 4)):
            error = 0.05 if (norm, batch_size) == (worse, 4) else 0.01
            write_run(tmp_path / place, norm, batch_size, error, seeds=(0, 1, 2))
    shown = claims.page(tmp_path)
    (entry,) = (e for e in shown["groups"][claims.REDUCED] if e.claim.number == 25)
    assert {finding.verdict.word for finding in entry.findings} == {"agrees", "disagrees"}
    assert len(entry.findings) == 2 and entry.word == "not decided"
    assert not any("confirmed" in shown["counts"][name] for name in (claims.FULL, claims.REDUCED))


def test_runs_of_a_claim_may_be_in_several_folders(tmp_path):
    for place, batch_size in (("a", 128), ("b", 4)):
        write_run(tmp_path / place, "layer", batch_size)
    (both,), _ = claims.read_sets(tmp_path)
    assert len(both.folders) == 2
    write_run(tmp_path / "c", "layer", 4)
    assert len(claims.read_sets(tmp_path)[0]) == 2  # the same curve again


def test_the_page_of_claims_names_broken_runs(no_analysis, tmp_path):
    write_run(tmp_path, "layer", 128)
    broken = write_run(tmp_path, "none", 128)
    (broken / "metrics.jsonl").write_text("12\n")
    page = documents.environment().get_template("claims.html")
    text = page.render(**claims.page(tmp_path), made="", mark="")
    assert str(broken) in text[text.index("Broken runs") :]


def test_sets_that_contradict_each_other_decide_nothing():
    assert claims.overall(["not tested", "agrees", "disagrees"]) == "not decided"
    assert claims.overall(["not decided", "not tested", "confirmed"]) == "confirmed"
    assert claims.overall(["not tested", "not decided"]) == "not decided"
    assert claims.overall([]) == "not tested"
