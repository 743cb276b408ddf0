"""The report: curves from runs and from the paper, and the page."""

import contextlib
import importlib
import io
import itertools
import json
import re
import sys

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest

from configs import mnist as config_file
from configs import order_embeddings as order_config
from configs import sequential_mnist as sequential_config
import experiments
from experiments import curves
from experiments.curves import PUBLISHED, Curve, Panel
from ln.errors import InputError
from ln.training import runs
from ln.training.runs import Reading
from scripts import report
from scripts.pages import charts, evidence, results, sections
from scripts.pages.charts import is_short, y_limits

PNG = b"\x89PNG\r\n\x1a\n"


def a_panel(**changes):
    return Panel(**dict(name="p", title="", split="test", metric="error", label="") | changes)


# --- Figures and published curves ---


@pytest.mark.parametrize("name", experiments.names("figures"))
def test_figures_name_things_that_exist(name):
    config_file = importlib.import_module(f"configs.{name}")
    file = experiments.part(name, "figures")
    sweep = [set(point) for point in config_file.sweep()]
    names = []
    for figure in file.FIGURES:
        names += [panel.name for panel in figure.panels]
        assert all(set(panel.where) <= point for panel in figure.panels for point in sweep)
        if figure.source is not None:
            published = curves.published(PUBLISHED / f"{figure.name}.csv")
            assert {panel.name for panel in figure.panels} == {key[0] for key in published}
    for table in getattr(file, "TABLES", ()):
        names += [column.name for column in table.columns]
        ours = {row.norm for row in table.rows} - {None, "month"}  # "month": more updates
        assert ours <= set(config_file.get_config().norms)
    assert len(set(names)) == len(names)  # claims find numbers by them


@pytest.mark.parametrize(
    "panel, message",
    [
        ("Panel(*'nsml', metrik=1),", "line 2: .* unexpected keyword argument 'metrik'"),
        ("Panel(*'ntsml', x='epohc'),", "line 2: .*'epohc'. Did you mean 'epoch'?"),
    ],
)
def test_an_invalid_row_of_a_figure_gives_its_line(panel, message, monkeypatch, tmp_path):
    path = tmp_path / "wrong" / "figures.py"
    path.parent.mkdir()
    path.write_text(
        f"from experiments.curves import Figure, Panel\npanels = ({panel})\n"
        f'FIGURES = (Figure(name="f", title="", caption="", panels=panels),)\n'
    )
    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    monkeypatch.setattr(experiments, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "experiments.wrong", raising=False)
    with pytest.raises(InputError, match=re.escape(str(path)) + " " + message):
        experiments.part("wrong", "figures")


# --- Curves of runs ---


def readings():
    """Return readings of two seeds on two splits at three steps."""
    return [
        Reading(seed, 0.1, step, step / 10, split, dict(error=step + seed))
        for step in (10, 20, 30)
        for split in ("valid", "test")
        for seed in (0, 1)
    ]


def test_a_curve_has_the_readings_that_every_lane_has():
    rows = readings()
    curve = curves.from_readings(rows[:-1], a_panel(x="epoch", x_plus=-1), complete=True)
    assert curve.x.tolist() == [0, 1]  # the last row of lane 1 has not been written
    assert curve.lanes.tolist() == [[10, 20], [11, 21]] and curve.seeds == (0, 1)
    assert curve.at(1).tolist() == [20, 21] and curve.at(5).tolist() == []
    assert curves.from_readings(rows, a_panel(x_per=5), complete=True).x.tolist() == [2, 4, 6]
    assert curves.from_readings(rows, a_panel(split="train"), complete=True) is None


def test_a_table_has_each_lanes_value_at_its_best_step():
    column, best = a_panel(), {(0, 0.1): 20, (1, 0.1): 30}
    curve = curves.at_best(readings(), best, column, complete=True)
    assert curve.lanes.tolist() == [[20], [31]] and curve.x.tolist() == [25]
    assert curves.at_best(readings()[:-1], best, column, complete=True) is None


def test_an_unfinished_curve_has_no_last_values():
    x, lanes = np.arange(3.0), np.array([[3.0, 2.0, 1.0], [5.0, 4.0, 3.0]])
    assert Curve(x, lanes).last("mean", 2).tolist() == [1.5, 3.5]
    assert Curve(x, lanes).last("min", 0).tolist() == [1, 3]
    assert Curve(x, lanes, complete=False).last("mean", 2).tolist() == []


def test_each_lane_first_reaches_a_level_or_never():
    curve = curves.Curve(np.array([3.0, 4.0, 5.0]), np.array([[9, 2, 5], [9, 8, 7], [1, 8, 7]]))
    np.testing.assert_array_equal(curve.first(2), [4, np.nan, 3])
    np.testing.assert_array_equal(curve.first(8, falling=False), [3, 3, 4])


@pytest.mark.parametrize("falling, limits", [(True, (0, 90)), (False, (10, 100))])
def test_an_axis_shows_all_but_the_worst_tenth_of_a_curve(falling, limits):
    panel = a_panel(falling=falling, limits=(50, 60))
    low, high = y_limits(panel, False, [Curve(np.arange(101.0), np.arange(101.0)[None])])
    assert (low, round(high)) == (limits[0], round(limits[1] + 0.02 * (limits[1] - limits[0])))
    assert y_limits(a_panel(), False, []) == (0, 1.02)


@pytest.mark.parametrize("end, short", [(19, True), (20, False)])
def test_runs_that_end_early_have_a_logarithmic_axis(end, short):
    ours, theirs = ({"layer": Curve(np.array([1.0, x]), np.zeros((1, 2)))} for x in (end, 100))
    assert is_short(ours, theirs) == short and not is_short(ours, {})


# --- The page ---


def write_folder(folder, config, rows, finished=True):
    """Write a run folder of invented numbers."""
    session = dict(
        command=f"-m scripts.train --config.norm={config.norm}",
        step=0,
        commit="0123456789" * 4 + "+",
        python="3.11.9",
        versions=dict(jax="0.10.2"),
        device="invented",
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(runs.as_json(config)))
    runs.write_rows(folder / "metrics.jsonl", rows)
    runs.write_rows(folder / "sessions.jsonl", [session, dict(session, commit=None)])
    if finished:
        (folder / "finished.json").write_text("{}")
    return folder


def write_run(root, norm, batch_size, error=0.01, nll=1e-3, epochs=65, name=None, **changes):
    """Write a run of figure 6: two seeds, 0.9 and 1.1 times the values."""
    config = config_file.get_config("tiny")
    sizes = dict(norm=norm, batch_size=batch_size, seeds=(0, 1), steps="65 epochs")
    config.update_from_flattened_dict(sizes | changes)
    rows = [
        dict(step=10 * epoch, epoch=epoch, split=split, seed=seed, lr=lr)
        | dict(error=error * (0.9 + 0.2 * seed) * lr / 1e-3, nll=nll * (0.9 + 0.2 * seed))
        for epoch in range(1, epochs + 1)
        for split in ("train", "valid", "test")
        for seed in config.seeds
        for lr in config.lr
    ]
    folder = root / "mnist" / (name or f"norm={norm},batch_size={batch_size}")
    return write_folder(folder, config, rows, finished=epochs == 65)


def page_of(root, out, **words):
    """Return the text of a page; pictures would take most of the time, and are not drawn."""
    flags.FLAGS.mark_as_parsed()
    words |= dict(runs=root and str(root), out=str(out))
    with flagsaver.flagsaver(**words), pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "svg", lambda _: "<svg></svg>")
        report.main([])
    return (out / "index.html").read_text(encoding="utf-8")


def write_order_embeddings(root, norm, pace, order=True, **changes):
    """Write a run of figure 1: recalls rise at a pace to 40 %, on the test set 10 % lower; mean
    ranks fall to 6, a half with every seed; the best is the last but one.
    """
    config = order_config.get_config("tiny")
    config.update_from_flattened_dict(dict(norm=norm, seeds=(0, 1), steps="18000 steps") | changes)
    rows = []
    for unit, split, seed in itertools.product(range(1, 61), ("valid", "test"), config.seeds):
        row = dict(step=300 * unit, epoch=None, split=split, seed=seed, lr=config.lr[0])
        recall = 40 * (1 - 0.1 ** (pace * unit / 60)) - (unit == 60) - 10 * (split == "test")
        for what in ("image", "caption"):
            row |= {f"{what}_r{K}": recall + seed for K in (1, 5, 10)}
            row[f"{what}_mean"] = 46 - recall + seed / 2
        row["sum"] = 3 * (recall + seed)
        rows.append(row | dict(order=0.9) if order else row)
    write_folder(root / "order_embeddings" / f"norm={norm},lr={config.lr[0]}", config, rows)


def write_estimates(folder):
    estimate = dict(step=650, split="test", metric="nll", seed=1, cases=10_000)
    values = ((50, 81.5678, 1e-3), (1, 83.0, 1e-3), (1, 99.0, 2e-3))
    rows = [estimate | dict(samples=k, value=v, error=0.1234, lr=lr) for k, v, lr in values]
    runs.write_rows(folder / "evaluations.jsonl", [dict(estimate, value=84.0, lr=1e-3), *rows])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a page and the printed text.

    The run of weight norm on MNIST is in progress; that without norm is in another section, since
    it has other learning rates; one run is broken. One run of order embeddings has other units.
    """
    root, out = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("page")
    for batch_size in (128, 4):
        write_estimates(write_run(root, "layer", batch_size, error=0.0125, nll=1e-5))
        write_run(root, "batch", batch_size, error=0.014, nll=1e-2)
    write_run(root, "none", 128, error=0.020, nll=1e-3, lr=(1e-3, 2e-3))
    write_run(root, "weight", 128, error=0.023, nll=1e-3, epochs=3)
    (write_run(root, "batch", 4, 1, 1, name="broken") / "config.json").write_text("{}")
    for norm, pace in (("none", 1), ("layer", 2)):
        write_order_embeddings(root / "1", norm, pace)
    write_order_embeddings(root / "2", "layer", 2, order=False, hidden=9)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        return page_of(root, out), printed.getvalue()


@pytest.fixture
def page(made):
    return made[0]


def row_of(page, label):
    row = re.search(f'<th scope="row">{re.escape(label)}</th>(.*?)</tr>', page, re.DOTALL)
    return re.findall(r">([^<>]+)</td>", row[1])


def cells_after(page, title):
    """Return the cells of the rows below a title."""
    table = page[page.index(title) :]
    return [re.findall(r"<td>(.*?)</td>", row) for row in table.split("<tr>")[2:]]


def test_the_papers_figures_come_first_and_in_order(page):
    """The other settings of an experiment are folded behind its strongest."""
    titles = "top order_embeddings mnist next broken".split()
    assert re.findall('<h2 id="(.*?)"', page) == titles
    assert len(re.findall('<details class="more" id="(order_embeddings|mnist)-', page)) == 2
    assert "hidden: 1024 → 9" in page[page.index('id="order_embeddings-') :]
    assert page.count("The paper has no such figure.") == 1


def test_a_page_needs_no_other_file_but_its_sister_pages(page):
    links = re.findall(r"""(?:src|href)=["'](?!data:|#)([^"'#]*)""", page[: page.index("<script")])
    assert set(links) <= {"claims/index.html", "theory/index.html"}
    assert len(page.encode()) < 2_000_000 and "@import" not in page[: page.index("<script")]


def test_a_chart_says_what_it_shows(page):
    """Data are there once: published curves apart, since several settings show them."""
    assert "layer norm, ours from 1.25 to 1.25" in page and "layer norm, the paper from" in page
    specs = re.findall(r'<script type="application/json">(.*?)</script>', page)
    own = [json.loads(spec) for spec in specs if "published" in spec]
    assert {row["who"] for spec in own for row in spec["data"]["values"]} == {"ours"}
    shared = json.loads(re.search('id="shared">(.*?)</script>', page)[1])
    assert {spec["published"] for spec in own} == set(shared["published"])


def test_a_chart_is_a_picture_for_paper_and_for_documents(tmp_path):
    write_run(tmp_path, "layer", 128)
    (section,), _ = sections.read_sections(tmp_path)
    (figure,), (ours, theirs) = section.figures, sections.gather(section)
    text = charts.svg(charts.panel_chart(figure.panels[0], ours, theirs))
    assert "currentColor" in text and "#0072b2" in text and len(text) < 60_000
    assert charts.png(charts.side_by_side(figure, ours, theirs)).startswith(PNG)


def test_a_page_without_its_library_gives_one_line(tmp_path, monkeypatch):
    write_run(tmp_path / "runs", "layer", 128)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(InputError, match="pip install vl-convert-python"):
        page_of(tmp_path / "runs", tmp_path / "page")


def test_a_page_has_our_number_beside_the_papers(page):
    rows = re.findall(r'<th scope="row">epoch = 64</th>(.*?)</tr>', page, re.DOTALL)
    cells = [re.findall(r">([^<>]+)</td>", row) for row in rows]
    assert cells[2][cells[2].index("1.250 ± 0.177") + 1] == "1.295"  # layer, batch size 128


def test_a_page_shows_when_each_seed_reaches_a_level(page):
    cells = row_of(page, "updates / 300 when 38 is reached")
    assert cells == ["never, never", "55", "40, 34", "45"]


def test_a_page_says_what_was_changed_and_how_it_was_run(page):
    for words in (
        "dataset: &#34;mnist&#34; → &#34;digits&#34;",
        "hidden: 1000 → 8",
        "python -m scripts.train --config.norm=batch",
        "0123456789+",
        "jax 0.10.2",
    ):
        assert words in page


def test_a_run_in_progress_is_labelled_and_has_no_last_values(page):
    assert "norm=weight,batch_size=128 has done 3 of 65 epochs" in page
    assert "2.300 ± 0.325" in page and "–" in page


def test_a_page_lists_the_estimates_of_trained_models(page):
    rows = cells_after(page, "Estimates of trained models")
    assert [row[:1] + row[5:] for row in rows[:2]] == [
        ["layer norm", "1", "83 ± 0.12", "10,000"]
    ] * 2
    assert "81.568 ± 0.12" in page and "99.00" not in page


def test_a_table_has_the_papers_rows_and_ours(page):
    assert row_of(page, "order embeddings, layer norm")[:4] == ["48.5", "80.6", "89.8", "5.1"]
    assert row_of(page, "symmetric, Vendrov et al.")[1] == "–"
    # 40 (1 - 0.1^(59 / 60)) - 10 and 40 (1 - 0.1^(118 / 60)) - 10, and seed 1 one more.
    assert row_of(page, "ours, no norm")[:4] == ["26.3 ± 0.7"] * 3 + ["20.4 ± 0.4"]
    assert row_of(page, "ours, layer norm")[:4] == ["30.1 ± 0.7"] * 3 + ["16.7 ± 0.4"]
    assert row_of(page, "ours, layer norm")[-2:] == ["2", "17,700"]


def test_diverged_lanes_are_named_and_no_curve_has_them(tmp_path):
    folder = write_run(tmp_path, "layer", 128, error=0.02, nll=1e-3, lr=(1e-3, 2e-3, 4e-3))
    diverged = [  # one seed of the best rate at once, and one of the worst when it was the best
        dict(step=430, seed=0, lr=1e-3, cause="the loss is nan"),
        dict(step=640, seed=1, lr=4e-3, cause="the loss is inf"),
    ]
    _, rows = runs.load(folder)
    for row in rows:
        row["error"] *= (row["lr"], row["seed"]) != (4e-3, 1)
    last = {(row["seed"], row["lr"]): row["step"] for row in diverged}
    rows = [row for row in rows if row["step"] < last.get((row["seed"], row["lr"]), 1e9)]
    runs.write_rows(folder / "metrics.jsonl", rows)
    runs.write_rows(folder / "diverged.jsonl", diverged)
    page = page_of(tmp_path, tmp_path / "page")
    assert "<strong>Diverged:</strong> 2 of the 6 lanes" in page
    assert "seed 0 at learning rate 0.001, at 430: the loss is nan; seed 1" in page
    assert "<td>diverged at 640: the loss is inf</td>" in page
    assert "Curves and tables are of learning rate 0.002" in page  # no lane of it diverged
    assert "0.002, best of 0.001, 0.002, 0.004" in page
    rows = cells_after(page, "All lanes of norm=layer,batch_size=128")
    lanes = itertools.product(("0.001", "0.002", "0.004"), ("0", "1"))
    assert [tuple(row[:2]) for row in rows[:6]] == list(lanes)


@pytest.mark.parametrize(
    "file, content",
    [
        ("config.json", "{}"),
        ("config.json", json.dumps(runs.as_json(config_file.get_config()) | dict(norms=3))),
        ("config.json", json.dumps(runs.as_json(config_file.get_config()) | dict(experiment="x"))),
        ("metrics.jsonl", "12\n"),
        ("diverged.jsonl", '{"seed": 0}\n'),
    ],
)
def test_a_broken_run_is_skipped_and_named(file, content, tmp_path):
    good = write_run(tmp_path, "layer", 128, error=0.01, nll=1e-3)
    broken = write_run(tmp_path, "batch", 128, error=0.02, nll=1e-3)
    (broken / file).write_text(content)
    (section,), (error,) = sections.read_sections(tmp_path)
    assert [shown.stored.folder for shown in section.runs] == [good]
    assert str(broken) in error


def test_a_page_ends_with_the_broken_runs(made):
    page, printed = made
    assert page.index("Broken runs") > page.rindex("finished") and "broken/config.json" in page
    assert re.search(r"Skipped a broken run: \S+broken/config.json is damaged", printed)


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(experiments, "part", lambda name, file: None)
    sections.papers_of.cache_clear()
    yield
    sections.papers_of.cache_clear()


def test_metrics_without_figures_are_drawn(no_figures, tmp_path):
    """Each split and metric is a panel; each setting of the sweep is a section."""
    for norm, batch_size in itertools.product(("none", "layer"), (128, 4)):
        write_run(tmp_path, norm, batch_size, error=0.02, nll=1.0, epochs=3)
    both, _ = sections.read_sections(tmp_path)
    assert ["batch_size: 128 -> 4" in section.changes for section in both] == [False, True]
    for section in both:
        (figure,), ours = section.figures, sections.gather(section).ours
        names = [(panel.split, panel.metric) for panel in figure.panels]
        assert names[0] == ("valid", "error")  # that of config.select
        assert set(names) == set(itertools.product(("train", "valid", "test"), ("error", "nll")))
        norms = itertools.product([panel.name for panel in figure.panels], ("none", "layer"))
        assert set(ours) == set(norms)


def test_a_run_without_metrics_has_a_default_page(no_figures, tmp_path):
    write_run(tmp_path, "layer", 4, error=0.02, nll=1.0, epochs=0)
    ((main, others),) = results.page(tmp_path)["groups"]
    assert main["figures"] == [] and main["studies"] == [] and others == []


@pytest.mark.parametrize(
    "root, out, message",
    [
        ("nothing", "page", "First train some: python -m scripts.sweep"),
        ("a", "site", "is not a page of this command. Choose another --out"),
        ("a", "file", "is a file. Give a folder"),
        ("", "page", "are the same curve of the same figure"),
    ],
)
def test_bad_input_gives_one_line_and_no_page(root, out, message, tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / "runs" / name, "layer", 128, error=0.01, nll=1e-3)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=re.escape(message)):
        page_of(tmp_path / "runs" / root, tmp_path / out)
    assert (tmp_path / "site" / "index.html").read_text() == "mine"
    assert not (tmp_path / "page").exists()


def test_a_page_begins_with_the_speed_up_of_each_section(page):
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in page.split("<tr>")[2:4]]
    assert rows[0][1:3] == ["1.45 ×", "2.00 ×, 2 pairs"] and rows[0][6] == "R@1 [%]"
    assert "no finished pair of runs" in rows[1][0]


def write_rates(root, paces):
    """Write runs of figure 1: (norm, rate) -> pace."""
    for (norm, rate), pace in paces.items():
        write_order_embeddings(root, norm, pace, lr=(rate,))


def test_the_best_rate_may_have_fewer_seeds_but_three(tmp_path):
    for rate, pace, count in ((0.001, 1, 4), (0.003, 1.6, 3), (0.01, 2, 2)):
        write_order_embeddings(tmp_path, "none", pace, lr=(rate,), seeds=tuple(range(count)))
    (study,) = evidence.studies(sections.read_sections(tmp_path)[0])
    assert study.best_rate("none") == 0.003


def test_speed_ups_are_at_one_rate_and_at_the_best_of_each(tmp_path):
    """No norm is better at 0.01, layer norm at 0.001; the config's rate is 0.001."""
    paces = {("none", 0.001): 1, ("layer", 0.001): 2, ("none", 0.01): 1.6, ("layer", 0.01): 1.6}
    write_rates(tmp_path, paces)
    (study,) = evidence.studies(sections.read_sections(tmp_path)[0])
    assert sorted(study.by_rate) == [0.001, 0.01] and study.rate == 0.001
    assert study.by_rate[0.01].values == pytest.approx([0, 0])
    assert (study.best_rate("none"), study.best_rate("layer")) == (0.01, 0.001)
    low, best = (np.exp(gains.values.mean()) for gains in (study.by_rate[0.001], study.at_best))
    assert low == pytest.approx(2, rel=0.1) and best == pytest.approx(2 / 1.6, rel=0.1)
    assert charts.png(evidence.rates_chart([study])).startswith(PNG)


@pytest.mark.parametrize(
    "changes, data",
    [({}, "scenes of scikit-learn's digits (stand-in)"), (dict(dataset="mine"), "mine")],
)
def test_a_speed_up_of_one_rate_is_not_tuned(tmp_path, changes, data):
    for norm, pace in (("none", 1), ("layer", 2)):
        write_order_embeddings(tmp_path, norm, pace, **changes)
    (study,) = evidence.studies(sections.read_sections(tmp_path)[0])
    assert study.at_best is None and "not run" in study.cells
    assert study.setting == f"{data}, reduced, 22 % of the updates"


def test_a_surface_has_the_speed_up_of_each_shape(tmp_path):
    for (pixels, fast), norm in itertools.product(((28, 1.5), (4, 3.0)), ("none", "layer")):
        config = sequential_config.get_config("tiny")
        config.update_from_flattened_dict(
            dict(norm=norm, seeds=(0, 1), steps="600 steps", pixels_per_step=pixels, noise=0.1)
        )
        pace = fast if norm == "layer" else 1.0
        rows = [
            dict(step=10 * n, epoch=None, split="valid", seed=seed, lr=config.lr[0])
            | dict(error=0.9 * np.exp(-pace * n / 12))
            for n, seed in itertools.product(range(1, 61), (0, 1))
        ]
        write_folder(tmp_path / "sequential_mnist" / f"norm={norm},{pixels}", config, rows)
    known = evidence.studies(sections.read_sections(tmp_path)[0])
    chart = evidence.surface_chart(known)
    factors = {row["length"]: row["factor"] for row in chart["data"]["values"]}
    assert factors == {28: pytest.approx(1.5, rel=0.1), 196: pytest.approx(3.0, rel=0.1)}
    assert charts.png(chart).startswith(PNG)
