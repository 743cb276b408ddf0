"""The report: curves out of runs and out of the paper, verdicts on claims, and the page."""

import importlib
import itertools
import json
from pathlib import Path
import re
import subprocess
import sys

import numpy as np
import pytest

from configs import draw, handwriting, order_embeddings
from configs import mnist as config_file
import experiments
from experiments import curves
from experiments.curves import Curve, Figure, Panel, typed
from ln.errors import InputError
from ln.training import runs
from scripts.pages import results
from scripts.pages.drawing import is_short, y_limits
from scripts.pages.sections import read_run
from scripts.pages.tables import plus_minus

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "results" / "published"

PANEL = dict(
    name="p", title="", where={}, split="test", metric="error", label="", limits=(0, 1)
) | dict(x="epoch", x_label="epoch")


def a_panel(**changes):
    return Panel(**PANEL | changes)


# --- Published curves ---

LANDMARKS = [  # read off figure 6
    ("error_batch128", "layer", 64, 0.01295),
    ("error_batch128", "batch", 64, 0.01325),
    ("error_batch128", "none", 0, 0.0300),
    ("error_batch4", "batch", 20, 0.04225),
    ("error_batch4", "layer", 64, 0.01365),
    ("nll_batch128", "layer", 21, 1.5e-3),
    ("nll_batch128", "layer", 22, 1.9e-5),
    ("nll_batch128", "none", 42, 1.5e-6),
    ("nll_batch128", "none", 64, 6.4e-11),
    ("nll_batch4", "batch", 10, 5.7e-2),
    ("nll_batch4", "layer", 64, 1.9e-4),
]


@pytest.mark.parametrize("panel, norm, epoch, value", LANDMARKS)
def test_the_published_curves_go_through_the_landmarks_of_figure_6(panel, norm, epoch, value):
    mean = curves.published(PUBLISHED / "figure_6.csv")[panel, norm].at(epoch).mean()
    assert mean == pytest.approx(value, rel=0.03 if panel.startswith("nll") else 1e-9)


def test_the_last_ten_epochs_of_the_published_test_errors_have_the_known_means():
    published = curves.published(PUBLISHED / "figure_6.csv")
    found = {key: 100 * curve.mean[-10:].mean() for key, curve in published.items()}
    assert len(found) == 12
    assert found["error_batch128", "layer"] == pytest.approx(1.29, abs=0.005)
    assert found["error_batch128", "none"] == pytest.approx(1.51, abs=0.005)
    assert found["error_batch4", "batch"] == pytest.approx(2.10, abs=0.005)


def test_a_published_curve_without_a_band_is_one_lane(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("# from somewhere\npanel,norm,x,y,low,high\np,layer,0,1,,\np,layer,1,2,,\n")
    curve = curves.published(path)["p", "layer"]
    assert curve.lanes.tolist() == [[1, 2]]


@pytest.mark.parametrize("name", experiments.names("figures"))
def test_figures_name_things_that_exist(name):
    config_file = importlib.import_module(f"configs.{name}")
    file = experiments.part(name, "figures")
    sweep = [set(point) for point in config_file.sweep()]
    known = {None, *config_file.get_config().norms, *getattr(file, "PAPER_ONLY", ())}
    names = []
    for figure in file.FIGURES:
        names += [panel.name for panel in figure.panels]
        assert all(set(panel.where) <= point for panel in figure.panels for point in sweep)
        if figure.source is not None:
            published = curves.published(PUBLISHED / f"{figure.name}.csv")
            assert {panel.name for panel in figure.panels} == {key[0] for key in published}
    for table in getattr(file, "TABLES", ()):
        names += [column.name for column in table.columns]
        assert all(len(row.values) == len(table.columns) for row in table.rows)
        assert {row.norm for row in table.rows} <= known
    assert len(set(names)) == len(names)  # claims tell numbers apart by them


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(panels=(PANEL | dict(metrik="nll"),)), "panel p: 'metrik'. Did you mean 'metric'"),
        (dict(panels=({"name": "p", "title": ""},)), "panel p needs also: where, split, metric"),
        (dict(panels=PANEL), "'name' must be a dict"),
        (dict(colums=2), "figure f: 'colums'. Did you mean 'columns'"),
        ({}, "figure f needs also: panels"),
    ],
)
def test_an_invalid_row_of_a_figure_is_named(changes, message):
    row = dict(name="f", title="", caption="", source=None, columns=2)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        typed(Figure, "experiments.x.figures", row | changes)
    assert "experiments/x/figures.py, figure f" in str(error.value)


def test_metrics_without_figures_are_drawn(monkeypatch, tmp_path):
    """Each split and metric is a panel, for each setting of the sweep."""
    for norm, batch_size in itertools.product(("none", "layer"), (128, 4)):
        write_run(tmp_path, norm, batch_size, error=0.02, nll=1.0, epochs=3)
    monkeypatch.setattr(experiments, "part", lambda name, file: None)
    shown, pictures = results.page(tmp_path)
    (section,) = shown["sections"]
    assert sorted(figure["title"] for figure in section["figures"]) == [
        f"All metrics, batch_size {batch_size}" for batch_size in (128, 4)
    ]
    for figure in section["figures"]:
        drawn = [(panel.split, panel.metric) for panel in figure["panels"]]
        assert drawn[0] == ("valid", "error")  # that of config.select
        assert set(drawn) == set(itertools.product(("train", "valid", "test"), ("error", "nll")))
        assert {norm for _, norm in figure["ours"]} == {"none", "layer"}
    assert len(pictures) == 2 and section["claims"] == []


def test_a_run_without_metrics_has_a_default_page(monkeypatch, tmp_path):
    write_run(tmp_path, "layer", 4, error=0.02, nll=1.0, epochs=0)
    monkeypatch.setattr(experiments, "part", lambda name, file: None)
    (section,) = results.page(tmp_path)[0]["sections"]
    assert section["figures"] == [] and section["summary"]["rows"] == []


# --- Curves of runs ---


def test_a_curve_has_the_readings_that_every_lane_has():
    rows = [
        dict(step=step, epoch=step / 10, split=split, seed=seed, lr=0.1, error=step + seed)
        for step in (10, 20, 30)
        for split in ("train", "test")
        for seed in (0, 1)
    ]
    curve = curves.from_rows(rows[:-1], a_panel(x_plus=-1), complete=True)
    assert curve.x.tolist() == [0, 1]  # the last row of lane 1 had not been written
    assert curve.lanes.tolist() == [[10, 20], [11, 21]]
    assert curve.at(1).tolist() == [20, 21] and curve.at(5).tolist() == []
    assert curves.from_rows(rows, a_panel(x="step", x_per=5), complete=True).x.tolist() == [2, 4, 6]
    assert curves.from_rows(rows, a_panel(split="valid"), complete=True) is None


def test_an_unfinished_curve_has_no_last_values():
    x, lanes = np.arange(3.0), np.array([[3.0, 2.0, 1.0], [5.0, 4.0, 3.0]])
    assert Curve(x, lanes).last("mean", 2).tolist() == [1.5, 3.5]
    assert Curve(x, lanes).last("min", 0).tolist() == [1, 3]
    assert Curve(x, lanes).last("mean", 4).tolist() == []
    assert Curve(x, lanes, complete=False).last("mean", 2).tolist() == []


def test_a_level_is_reached_by_each_lane_at_its_own_time_or_never():
    curve = curves.Curve(np.array([3.0, 4.0, 5.0]), np.array([[9, 2, 5], [9, 8, 7], [1, 8, 7]]))
    np.testing.assert_array_equal(curve.first(2), [4, np.nan, 3])
    np.testing.assert_array_equal(curve.first(8, falling=False), [3, 3, 4])


@pytest.mark.parametrize(
    "value, error, text",
    [
        (82.3567, 0.1144, "82.36 ± 0.11"),
        (0.01234, 0.00056, "0.01234 ± 0.00056"),
        (1234.5, 67.0, "1234 ± 67"),
        (1.0, 0.0, "1.000 ± 0.000"),
    ],
)
def test_an_estimate_is_shown_with_the_digits_that_its_error_leaves(value, error, text):
    assert plus_minus(value, error) == text


@pytest.mark.parametrize("falling, limits", [(True, (0, 90)), (False, (10, 100))])
def test_an_axis_shows_all_but_the_worst_tenth_of_a_curve(falling, limits):
    panel = a_panel(falling=falling, limits=(50, 60))
    curve = Curve(np.arange(101.0), np.arange(101.0)[None])
    low, high = y_limits(panel, {("p", "layer"): curve}, {})
    assert (low, round(high)) == (limits[0], round(limits[1] + 0.02 * (limits[1] - limits[0])))


@pytest.mark.parametrize("end, short", [(19, True), (20, False), (65, False)])
def test_runs_that_end_early_are_drawn_on_a_logarithmic_axis(end, short):
    ours, theirs = (Curve(np.array([1.0, x]), np.zeros((1, 2))) for x in (end, 100))
    panel = a_panel(falling=True, limits=(0, 1))
    assert is_short(panel, {("p", "layer"): ours}, {("p", "none"): theirs}) == short
    assert not is_short(panel, {("p", "layer"): ours}, {})


# --- The page ---


def write_folder(folder, config, rows, finished=True):
    """Writes a run folder of invented numbers."""
    session = dict(
        command=f"-m scripts.train --config.norm={config.norm}",
        commit="0123456789" * 4 + "+",
        python="3.11.9",
        versions=dict(jax="0.10.2"),
        device="invented",
    )
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(runs.as_json(config)))
    runs.write_rows(folder / "metrics.jsonl", rows)
    runs.write_rows(folder / "sessions.jsonl", [session])
    if finished:
        (folder / "finished.json").write_text("{}")
    return folder


def write_run(root, norm, batch_size, error, nll, epochs=65, name=None, **changes):
    """A run of figure 6: two seeds, 1 ± 0.1 times the values."""
    config = config_file.get_config("tiny")
    sizes = dict(norm=norm, batch_size=batch_size, seeds=(0, 1), steps="65 epochs")
    config.update_from_flattened_dict(sizes | changes)
    rows = [
        dict(step=10 * epoch, epoch=epoch, split=split, seed=seed, lr=lr)
        | dict(error=error * (0.9 + 0.2 * seed) * lr / 1e-3, nll=nll * (0.9 + 0.2 * seed))
        for epoch in map(float, range(1, epochs + 1))
        for split in ("train", "valid", "test")
        for seed in (0, 1)
        for lr in config.lr
    ]
    folder = root / "mnist" / (name or f"norm={norm},batch_size={batch_size}")
    return write_folder(folder, config, rows, finished=epochs == 65)


def report(root, out):
    command = [sys.executable, "-m", "scripts.report", f"--runs={root}", f"--out={out}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def page_of(root, out):
    done = report(root, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"The report: {out / 'index.html'}"
    return (out / "index.html").read_text(encoding="utf-8")


def verdicts(page):
    """What the page says of the claims by our runs."""
    return re.findall(r'verdict [\w ]+">([\w ]+)</strong> by our runs', page)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """(page, its folder): layer norm is better, weight norm goes on; apart from them, since it
    differs in its learning rates, a run without norm.
    """
    root, out = tmp_path_factory.mktemp("good"), tmp_path_factory.mktemp("page")
    for batch_size, batch_error in ((128, 0.014), (4, 0.050)):
        write_run(root, "layer", batch_size, error=0.0125, nll=1e-5)
        write_run(root, "batch", batch_size, error=batch_error, nll=1e-2)
    write_run(root, "none", 128, error=0.020, nll=1e-3, lr=(1e-3, 2e-3))
    write_run(root, "weight", 128, error=0.023, nll=1e-3, epochs=3)
    return page_of(root, out), out


@pytest.mark.slow
def test_the_page_holds_its_pictures_and_names_every_norm(good):
    page, out = good
    assert page.count('src="data:image/png;base64,iVBOR') >= 4
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)|<script|@import|url\(""", page)
    for name in ("no norm", "batch norm", "layer norm", "weight norm"):
        assert f"{name}: ours" in page
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.glob("*.png"))
    assert {path.suffix for path in out.iterdir()} == {".png", ".html"}  # nothing unfinished


@pytest.mark.slow
def test_the_page_has_our_number_beside_the_papers(good):
    page, _ = good
    rows = re.findall(r"<th>epoch 64</th>(.*?)</tr>", page, re.DOTALL)
    cells = [re.findall(r">([^<>]+)</td>", row) for row in rows]
    assert "1.250 ± 0.177" in cells[2]  # layer norm at batch size 128
    assert "1.295" in cells[2]
    assert cells[2].index("1.295") == cells[2].index("1.250 ± 0.177") + 1


@pytest.mark.slow
def test_the_page_names_what_was_scaled_and_how_it_was_run(good):
    page, _ = good
    for words in (
        "dataset: &#34;mnist&#34; → &#34;digits&#34;",
        "hidden: 1000 → 8",
        "python -m scripts.train --config.norm=batch",
        "0123456789+",
        "jax 0.10.2",
    ):
        assert words in page
    assert "hidden: 1000 → 8" in page[page.index("Claims of the paper") :]


@pytest.mark.slow
def test_a_run_that_still_goes_on_is_labelled_and_has_no_last_values(good):
    page, _ = good
    assert "norm=weight,batch_size=128 has done 3 of 65 epochs" in page
    assert "2.300 ± 0.325" in page and "–" in page


@pytest.mark.slow
def test_of_several_learning_rates_the_best_by_validation_is_reported(good):
    page, _ = good
    assert "0.001, best of 0.001, 0.002" in page
    assert "2.000 ± 0.283" in page and "4.000" not in page


@pytest.mark.slow
def test_the_page_shows_every_lane_of_several_learning_rates(good):
    page, _ = good
    table = page[page.index("All lanes of norm=none,batch_size=128") :]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in table.split("<tr>")[2:6]]
    lanes = itertools.product(("0.001", "0.002"), ("0", "1"))
    assert [tuple(row[:2]) for row in rows] == list(lanes)
    assert "All lanes of norm=layer" not in page and "Dead lanes" not in page


def test_dead_lanes_are_named_and_no_curve_is_of_them(tmp_path):
    write_run(tmp_path, "layer", 128, error=0.02, nll=1e-3, lr=(1e-3, 2e-3, 4e-3))
    (folder,) = runs.find(tmp_path)
    config, rows = runs.load(folder)
    dead = [  # one seed of the best rate at once, and one of the worst when it was the best
        dict(step=430, seed=0, lr=1e-3, cause="the loss is nan"),
        dict(step=4_300, seed=1, lr=4e-3, cause="the loss is inf"),
    ]
    for row in rows:
        if row["lr"] == 4e-3 and row["seed"] == 1:
            row["error"] = 0.0
    last = {(row["seed"], row["lr"]): row["step"] for row in dead}
    rows = [r for r in rows if r["step"] < last.get((r["seed"], r["lr"]), 1e9)]
    runs.write_rows(folder / "metrics.jsonl", rows)
    runs.write_rows(folder / "dead.jsonl", dead)
    run = read_run(folder)
    assert run.lr == 2e-3  # the only rate without dead lanes
    assert [(lane["lr"], lane["seed"], lane["fate"]) for lane in run.lanes if lane["fate"]] == [
        ("0.001", "0", "dead at 430: the loss is nan"),
        ("0.004", "1", "dead at 4,300: the loss is inf"),
    ]
    assert len(run.lanes) == 6 and "seed 0 at learning rate 0.001" in run.dead[0]
    runs.write_rows(folder / "dead.jsonl", [*dead, dict(dead[0], lr=2e-3, seed=1)])
    run = read_run(folder)
    assert run.lr == 1e-3 and {row["seed"] for row in run.rows} == {1}


@pytest.mark.slow
def test_verdicts_turn_with_the_numbers(good, tmp_path):
    assert verdicts(good[0])[:2] == ["confirmed", "confirmed"]
    for batch_size, layer_error in ((128, 0.014), (4, 0.050)):
        write_run(tmp_path, "layer", batch_size, error=layer_error, nll=1e-2)
        write_run(tmp_path, "batch", batch_size, error=0.0125, nll=1e-5)
    page = page_of(tmp_path, tmp_path / "page")
    assert verdicts(page) == ["contradicted", "contradicted"]
    assert page_of(tmp_path, tmp_path / "page")  # it may write over its own page


def write_draw(root, norm, pace):
    """A run of figure 4 that falls at a pace from 200 nats to 80, with estimates of seed 1."""
    config = draw.get_config("tiny")
    config.update_from_flattened_dict(dict(norm=norm, seeds=(0, 1), steps="60 epochs"))
    rows = [
        dict(step=10 * epoch, epoch=epoch, split=split, seed=seed, lr=1e-3)
        | dict(bound=80 + seed / 10 + 120 * 0.9 ** (pace * epoch), kl=20.0)
        for epoch in map(float, range(1, 61))
        for split in ("valid", "test")
        for seed in (0, 1)
    ]
    folder = write_folder(root / "draw" / f"norm={norm}", config, rows)
    estimates = [
        dict(step=600, split="test", metric="bound", seed=1, lr=lr, cases=10_000)
        | dict(samples=samples, value=value, error=0.1234)
        for samples, value, lr in ((50, 81.5678, 1e-3), (1, 83.0, 1e-3), (1, 99.0, 2e-3))
    ]
    score = dict(step=600, split="test", metric="bound", seed=1, lr=1e-3, value=84.0)
    runs.write_rows(folder / "evaluations.jsonl", [score, *estimates])


@pytest.mark.slow
def test_the_page_of_draw_has_figure_4_its_claims_and_the_tighter_estimates(tmp_path):
    for norm, pace in (("none", 1), ("layer", 2)):
        write_draw(tmp_path, norm, pace)
    page = page_of(tmp_path, tmp_path / "page")
    assert (tmp_path / "page" / "1-draw-tiny-figure_4.png").exists()
    assert verdicts(page) == ["confirmed", "confirmed"]
    assert "Layer norm is 2.00 times as fast" in page
    assert "Layer norm is 1.39 times as fast" in page  # the paper's own curves
    (row,) = re.findall(r"<th>first epoch at 90</th>(.*?)</tr>", page, re.DOTALL)
    assert re.findall(r">([^<>]+)</td>", row) == ["24, 24", "25", "12, 12", "18", "–", "23"]
    estimates = page[page.index("Estimates of trained models") : page.index("Claims of the paper")]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in estimates.split("<tr>")[2:]]
    assert [row[0] for row in rows] == ["no norm"] * 2 + ["layer norm"] * 2
    assert [row[5:] for row in rows[:2]] == [
        ["1", "83.00 ± 0.12", "10,000"],
        ["50", "81.57 ± 0.12", "10,000"],
    ]


def write_handwriting(root, norm, pace):
    """A run of figure 5 that falls at a pace from 100 nats to −800; updates are 10 nats lower."""
    config = handwriting.get_config("tiny")
    config.update_from_flattened_dict(dict(norm=norm, seeds=(0, 1), steps="12000 steps"))
    falling = ((unit, 900 * 0.93 ** (pace * unit) - 800) for unit in range(1, 61))
    rows = [
        dict(step=200 * unit, epoch=None, split=split, seed=seed, lr=1e-3, nll=nll + seed + shift)
        for unit, nll in falling
        for split, shift in (("update", -10), ("valid", 0), ("test", 0))
        for seed in (0, 1)
    ]
    write_folder(root / "handwriting" / f"norm={norm}", config, rows)


@pytest.mark.slow
def test_the_page_of_handwriting_has_both_panels_of_figure_5_and_its_claim(tmp_path):
    for norm, pace in (("none", 1), ("layer", 3)):
        write_handwriting(tmp_path, norm, pace)
    page = page_of(tmp_path, tmp_path / "page")
    assert (tmp_path / "page" / "1-handwriting-tiny-figure_5.png").exists()
    assert verdicts(page) == ["confirmed"]
    assert "Layer norm is 3.0" in page
    assert "Layer norm is 10.18 times as fast" in page  # the paper's own curves
    test, training = re.findall(r"<th>unit \(200 updates\) 10</th>(.*?)</tr>", page, re.DOTALL)
    cells = [re.findall(r">([^<>]+)</td>", row) for row in (test, training)]
    assert cells[0] == ["-363.9 ± 0.7", "-338.5", "-697.5 ± 0.7", "-552.9"]
    assert cells[1] == ["-373.9 ± 0.7", "-336.1", "-707.5 ± 0.7", "-556.7"]
    (row,) = re.findall(r"<th>first unit \(200 updates\) at -700</th>(.*?)</tr>", page, re.DOTALL)
    assert re.findall(r">([^<>]+)</td>", row) == ["31, 31", "425", "11, 11", "40"]


def write_order_embeddings(root, norm, pace, order=True, **changes):
    """A run of figure 1: recalls rise at a pace to 40 %, on the test set 10 % lower; mean ranks
    fall to 6, a half with every seed; the best is the last but one."""
    config = order_embeddings.get_config("tiny")
    config.update_from_flattened_dict(dict(norm=norm, seeds=(0, 1), steps="18000 steps") | changes)
    rows = []
    for unit, split, seed in itertools.product(range(1, 61), ("valid", "test"), (0, 1)):
        row = dict(step=300 * unit, epoch=None, split=split, seed=seed, lr=1e-3)
        recall = 40 * (1 - 0.1 ** (pace * unit / 60)) - (unit == 60) - 10 * (split == "test")
        for what in ("image", "caption"):
            row |= {f"{what}_r{K}": recall + seed for K in (1, 5, 10)}
            row[f"{what}_mean"] = 46 - recall + seed / 2
        row["sum"] = 3 * (recall + seed)
        rows.append(row | dict(order=0.9) if order else row)
    write_folder(root / "order_embeddings" / f"norm={norm}", config, rows)


@pytest.mark.slow
def test_the_page_of_order_embeddings_has_figure_1_table_2_and_its_claims(tmp_path):
    for norm, pace in (("none", 1), ("layer", 2)):
        write_order_embeddings(tmp_path / "1", norm, pace)
    write_order_embeddings(tmp_path / "2", "layer", 2, order=False, hidden=9)
    page = page_of(tmp_path, tmp_path / "page")
    # A figure of ours alone is left out where runs have nothing of it.
    pictures = sorted(path.name for path in (tmp_path / "page").glob("*.png"))
    names = ("1-order_embeddings-tiny-figure_1", "1-order_embeddings-tiny-order")
    assert pictures == [f"{name}.png" for name in (*names, "2-order_embeddings-tiny-figure_1")]
    assert page.count("The paper has no such figure.") == 1
    assert verdicts(page) == ["confirmed"] * 3 + ["not tested"] * 3
    assert "R@5: Layer norm is 2.00 times as fast" in page
    assert "R@5: Layer norm is 1.63 times as fast" in page  # the paper's own curves
    row, _ = re.findall(r"<th>first unit \(300 updates\) at 38</th>(.*?)</tr>", page, re.DOTALL)
    assert re.findall(r">([^<>]+)</td>", row) == ["never, never", "55", "40, 34", "45"]
    table = page[page.index("Table 2: retrieval") : page.index("Claims of the paper")]
    rows = {
        re.findall(r"<th>(.*?)</th>", row)[0]: re.findall(r"<td.*?>(.*?)</td>", row)
        for row in table.split("<tr>")[2:]
    }
    assert rows["order embeddings, layer norm"][:4] == ["48.5", "80.6", "89.8", "5.1"]
    assert rows["symmetric, Vendrov et al."][1] == "–"
    # 40 (1 - 0.1^(59 / 60)) - 10 and 40 (1 - 0.1^(118 / 60)) - 10, and seed 1 one more.
    assert rows["ours, no norm"][:4] == ["26.3 ± 0.7"] * 3 + ["20.4 ± 0.4"]
    assert rows["ours, layer norm"][:4] == ["30.1 ± 0.7"] * 3 + ["16.7 ± 0.4"]
    assert rows["ours, layer norm"][-2:] == ["2", "17,700"]


@pytest.mark.slow
def test_what_cannot_be_reported_is_refused_in_one_line(tmp_path):
    none = report(tmp_path / "nothing", tmp_path / "page")
    assert none.returncode == 2 and "python -m scripts.sweep --config=" in none.stderr

    runs_ = tmp_path / "runs"
    first = write_run(runs_ / "a", "layer", 128, error=0.01, nll=1e-3)
    foreign = tmp_path / "site" / "index.html"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    kept = report(runs_, foreign.parent)
    assert kept.returncode == 2 and "Choose another --out" in kept.stderr
    assert foreign.read_text() == "mine"

    second = write_run(runs_ / "b", "layer", 128, error=0.02, nll=1e-3)
    twice = report(runs_, tmp_path / "page")
    assert twice.returncode == 2
    assert str(first) in twice.stderr and str(second) in twice.stderr
    for refused in (none, kept, twice):
        assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "page").exists()
