"""A plan of runs: its stages, scores, estimates, and the command."""

import json
import math
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
import warnings

from absl import flags
from ml_collections import config_flags
import pytest

from ln.errors import InputError
from ln.training import runs
from scripts import cli
from scripts.engines import collect, jobs, plan, stages

PROJECT = Path(__file__).parent.parent
PLAN = PROJECT / "results" / "plan.toml"

SWEEP = dict(
    name="tiny",
    kind="sweep",
    config="configs/mnist.py:tiny",
    grid=dict(norm=["none", "layer"], seeds=[3]),
    steps="4 steps",
    minutes=1.0,
)
SCORE = dict(split="train", metric="nll", weight=2.0)
CURVES = dict(norm="layer", batch_size=4, steps="1 epoch", epochs=[0], minutes=1.0)
HALVING = dict(
    name="setting",
    kind="halving",
    config="configs/mnist.py:tiny",
    grid=dict(optimizer=dict(b2=[0.999, 0.99]), lr=[0.1, 0.2]),
    published="figure_6",
    tie=0.05,
    score={"nll_batch{batch_size}": SCORE},
    rungs=[
        dict(keep=2, curves=[CURVES]),
        dict(keep=2, curves=[CURVES | dict(steps="2 epochs", epochs=[0, 1])]),
    ],
)
FAIR = dict(
    name="fair",
    kind="fair",
    config="configs/mnist.py:tiny",
    norms=["none", "layer"],
    rates=[1e-3, 3e-3, 1e-2, 3e-2],
    seeds=[2, 3, 4, 5, 6, 7],
    steps="12 steps",
    minutes=3.0,
)


def rung(**changes):
    return dict(rungs=[dict(keep=2, curves=[CURVES]) | changes])


def write_run(run, values, split="valid", metric="error", finished=True, mode="min"):
    """Write a run folder with readings; values: step -> value."""
    run.folder.mkdir(parents=True, exist_ok=True)
    config = dict(
        experiment="mnist",
        steps=run.steps,
        select=dict(split="valid", metric="error", mode=mode),
        data_dir="data",
        words=list(run.words),
    )
    (run.folder / "config.json").write_text(json.dumps(config))
    rows = [
        dict(step=at, epoch=at, split=split, seed=0, lr=0.1) | {metric: value}
        for at, value in values.items()
    ]
    runs.write_rows(run.folder / "metrics.jsonl", rows)
    runs.write_rows(run.folder / "sessions.jsonl", [{}])
    if finished:
        (run.folder / "finished.json").write_text("{}")


def diverge(run):
    write_run(run, {}, finished=False)
    runs.write_rows(run.folder / stages.DIVERGED[0], [dict(step=1, cause="the loss is inf")])


def stage_of(table, root, **changes):
    return stages.read_stage(table["name"], table | changes, root)


def read_words(run):
    """Return the config that the command of a run reads."""
    values = flags.FlagValues()
    argv = ["", *run.job.words[2:-1]]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ml_collections calls load_module
        values(argv)
    return values.config


def folders(wave):
    return [run.folder.name for run in wave]


# --- Reading ---


@pytest.mark.parametrize(
    "table, changes, message",
    [
        (SWEEP, dict(kind="sweeep"), "Did you mean 'sweep'"),
        (SWEEP, dict(minuts=3), "no key 'minuts'. Did you mean 'minutes'"),
        (HALVING, dict(rungs=[dict(keeep=1, curves=[])]), "Did you mean 'keep'"),
        (HALVING, dict(rungs=[dict(keep=1)]), "'curves'"),
        (HALVING, dict(score=dict(nll=dict(wieght=1))), "Did you mean 'weight'"),
        *((SWEEP, dict(name=name), "name is .* folder") for name in ("", ".", "..", "a/b", 3)),
        *((SWEEP, dict(minutes=m), "a positive number") for m in (-4.0, math.nan, True, "4", 0)),
        *(
            (SWEEP, dict(steps=steps), "steps is .* must be a length")
            for steps in (
                *("four", "0 steps", "-4 steps", "4 parsecs", "nan steps", "1.5 steps", "", 4),
                *([], ["4 steps", "1 epoch"], ["8 steps", "4 steps"], ["4 steps", "4 steps"]),
            )
        ),
        *(
            (SWEEP, dict(grid=grid), "grid is .* without empty lists")
            for grid in ({}, [], dict(norm=[]), "norm", [{}], ["norm"])
        ),
        (SWEEP, dict(settings="lr"), "a table of config keys"),
        (SWEEP, dict(config=3), "config is 3; it must be a text"),
        (SWEEP, dict(grid=dict(norm=["none", "none"])), "2 runs would have the folder"),
        (SWEEP, dict(grid=dict(init=["a/b", "c"])), "1 runs would have the folder"),
        (SWEEP, dict(grid=dict(steps=["1 step", "2 steps"])), "'steps' is given twice"),
        (SWEEP, dict(settings=dict(norm="none")), "'norm' is given twice"),
        (SWEEP, dict(settings=dict(lr=[0.1, 0.2])), "lr of a run is"),
        (SWEEP, dict(grid=dict(seeds=[[0, 1], [2, 3]])), "seeds of a run is"),
        *((HALVING, dict(tie=tie), "tie is .* a number from 0") for tie in (-1, "0", math.nan)),
        *((HALVING, {key: []}, f"{key} is") for key in ("rungs", "score", "grid")),
        (HALVING, dict(published="figure_66"), "Did you mean 'figure_6'"),
        (HALVING, dict(score=dict(nll_batch5=SCORE)), "Did you mean 'nll_batch4, layer'"),
        (HALVING, dict(score={"nll_{size}": SCORE}), "'size' among the keys of the curves"),
        (HALVING, dict(score=dict(nll_batch4=SCORE | dict(weight=0))), "weight is 0"),
        (HALVING, dict(score=dict(nll_batch4=SCORE | dict(split="dev"))), "train, valid or test"),
        (HALVING, rung(keep=0), "keep is 0; it must be a whole number from 1"),
        (HALVING, dict(rungs=2 * [dict(curves=[CURVES])]), "only the last one may lack it"),
        (HALVING, rung(curves=[]), "one or more tables"),
        (HALVING, rung(curves=["layer"]), "must be a table with"),
        (HALVING, rung(curves=[CURVES, CURVES]), "2 runs would have the folder"),
        (HALVING, rung(curves=[CURVES | dict(norm="layr")]), "Did you mean 'nll_batch4, layer'"),
        (HALVING, rung(curves=[CURVES | dict(epochs=[])]), "epochs is"),
        (HALVING, rung(curves=[CURVES | dict(epochs=[1])]), "epoch 1 is beyond '1 epoch'"),
        (HALVING, rung(curves=[CURVES | dict(steps="99 epochs", epochs=[70])]), "no epoch 70"),
        (HALVING, rung(curves=[CURVES | dict(lr=0.1)]), "'lr' is given twice"),
        *((FAIR, dict(norms=norms), "norms is") for norms in ([], "none", ["none", "none"], [1])),
        *(
            (FAIR, dict(rates=rates), "four or more")
            for rates in ([1e-3, 1e-2, 1e-1], "1e-3", [1, 2, 3, "4"], [0, 1, 2, 3], [1, 1, 2, 3])
        ),
        (FAIR, dict(seeds=[1, 2, 3, 4, 5, 6, 7]), "none of short_seeds"),
        (FAIR, dict(seeds=[2, 3, 4, 5, 6]), "six or more"),
        *((FAIR, dict(short_seeds=seeds), "two or more") for seeds in ([0], [0, 0], 0)),
        *((FAIR, dict(length_short=n), "at most '12 steps'") for n in ("13 steps", "1 epoch")),
        (FAIR, dict(settings=dict(lr=0.1)), "'lr' is given twice"),
        (FAIR, dict(check_ranking="yes"), "true or false"),
    ],
)
def test_a_wrong_stage_raises(table, changes, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        stage_of(table, tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_a_missing_key_raises(tmp_path):
    with pytest.raises(InputError, match="no 'grid'"):
        stages.read_stage("x", {k: v for k, v in SWEEP.items() if k != "grid"}, tmp_path)


def tiny(name):
    """Return the text of a sweep in a plan's file."""
    return (
        f'[[stage]]\nname = "{name}"\nkind = "sweep"\nconfig = "c.py"\n'
        'grid = { norm = "none" }\nsteps = "4 steps"\nminutes = 1.0\n'
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("[[stage]\n", "cannot be read"),
        ("[[stages]]\n", "Did you mean 'stage'"),
        ('[[stage]]\nname = "a"\nkind = "fair"\n', "plan.toml: stage 'a' has no 'config'"),
        ("", "no 'stage'; add one or more stages"),
        ('[stage]\nname = "a"\n', r"each begins with \[\[stage\]\]"),
        ('stage = "x"\n', r"each begins with \[\[stage\]\]"),
        ('stage = ["x"]\n', "stage 1 is 'x'; it must be a table"),
        (tiny("a") + tiny("a"), "two stages are named 'a'"),
        (tiny("a") + 'settings_of = "a"\n', "it must be an earlier stage"),
        (tiny("a") + 'settings_of = "b"\n' + tiny("b"), "it must be an earlier stage"),
    ],
)
def test_a_broken_file_raises(text, message, tmp_path):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        stages.read(tmp_path / "plan.toml", tmp_path)


def test_names_hold_what_varies(tmp_path):
    grid = [dict(norm="none"), dict(batch_size=[4, 8], norm="layer", hidden=5, noise=0.1)]
    (wave,) = stage_of(SWEEP, tmp_path, grid=grid).waves()
    assert folders(wave)[:2] == ["norm=none", "norm=layer,batch_size=4,hidden=5,noise=0.1"]
    (wave,) = stage_of(SWEEP, tmp_path).waves()
    assert folders(wave) == ["norm=none", "norm=layer"]  # one seed: not named


def test_a_later_stage_takes_the_choice(tmp_path):
    first, second = tiny("a"), tiny("b") + 'settings_of = "a"\n'
    path = tmp_path / "plan.toml"
    path.write_text(first + second)
    with pytest.raises(InputError, match="paste the .stage.choice."):
        plan.check(stages.read(path, tmp_path)[1])
    path.write_text(first + "[stage.choice]\noptimizer.b2 = 0.5\n" + second)
    (wave,) = stages.read(path, tmp_path)[1].waves()
    assert "--config.optimizer.b2=0.5" in wave[0].words


def test_the_words_mean_the_plan(tmp_path):
    """What a job's command reads is what the stage says, value by value."""
    settings = dict(lr=2e-4, optimizer=dict(b2=0.998), norms=dict(batch=dict(unbiased=True)))
    stage = stage_of(SWEEP, tmp_path, settings=settings | dict(save_every="2 steps"))
    (wave,) = stage.waves()
    config = read_words(wave[1])
    assert (config.lr, config.seeds, config.norm) == ((2e-4,), (3,), "layer")
    assert (config.optimizer.b2, config.norms.batch.unbiased) == (0.998, True)
    assert (config.save_every, config.steps) == ("2 steps", "4 steps")


# --- Runs on disk ---


def test_settled_runs_reach_their_length(tmp_path):
    stage = stage_of(SWEEP, tmp_path, steps=["4 steps", "8 steps"])
    short, long = (wave[0] for wave in stage.waves())
    assert not short.settled
    write_run(short, {}, finished=False)
    assert not short.settled
    write_run(short, {})
    assert short.settled and not long.settled
    (long.folder / "finished.json").unlink()
    write_run(long, {3: 0.5}, finished=False)
    assert not short.settled
    write_run(long, {4: 0.5}, finished=False)
    assert short.settled and not long.settled
    diverge(long)
    assert long.settled


def test_a_length_needs_no_unit(tmp_path):
    (wave,) = stage_of(SWEEP, tmp_path, steps="4").waves()
    write_run(wave[0], {3: 0.5, 4: 0.2})
    assert wave[0].settled and wave[0].best() == 0.2


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
@pytest.mark.parametrize("text", ["{}\n{}\n", "3\n3\n", "{\n{\n"])
def test_a_damaged_run_raises(name, text, tmp_path):
    (wave,) = stage_of(SWEEP, tmp_path).waves()
    write_run(wave[0], {4: 0.5})
    (wave[0].folder / name).write_text(text)
    with pytest.raises(InputError, match="damaged|is not JSON"):
        assert wave[0].settled and wave[0].best()


def test_lengths_share_the_minutes(tmp_path):
    waves = stage_of(SWEEP, tmp_path, steps=["1 step", "4 steps"], minutes=8.0).waves()
    assert [wave[0].minutes for wave in waves] == [2, 6]


# --- Halving ---


def theirs(epoch):
    return float(stages.published_curves("figure_6")["nll_batch4", "layer"].at(epoch).mean())


def write_factor(run, factors):
    """Write a run whose NLL is the published one times a factor in each epoch."""
    values = {e + 1: factor * theirs(e) for e, factor in enumerate(factors)}
    write_run(run, values, "train", "nll")


def test_halving_keeps_the_best(tmp_path):
    stage = stage_of(HALVING, tmp_path)
    waves = stage.waves()
    first = next(waves)
    assert len(first) == 4 and len(stage.known()) == 4 and stage.total() == 6
    diverge(first[0])
    for run, factor in zip(first[1:], (4, 0.5, 1.5), strict=True):
        write_factor(run, [factor])
    second = next(waves)
    best, next_best = folders([first[3], first[2]])
    assert folders(second) == [best, next_best]
    assert len(stage.known()) == 6 and stage.unsettled() == second


def test_the_score_is_the_mean_distance(tmp_path):
    stage = stage_of(HALVING, tmp_path)
    rung = stage.rungs[1]
    setting = stages.product(stage.grid)[0]
    run = next(r for wave in stage.waves() for r in wave if r.steps == "2 epochs")
    write_factor(run, [2.0, 0.25])
    expected = 2.0 * (math.log(2) + math.log(4)) / 2
    assert stage.score_of(rung, setting) == pytest.approx(expected)
    write_factor(run, [2.0])  # no reading after the second epoch
    assert stage.score_of(rung, setting) == math.inf


@pytest.mark.parametrize("tie, chosen", [(0.0, "0.99"), (0.5, "0.999")])
def test_a_tie_goes_to_the_first(tie, chosen, tmp_path):
    stage = stage_of(HALVING, tmp_path, tie=tie, rungs=HALVING["rungs"][1:])
    (wave,) = stage.waves()
    for run, factor in zip(wave, (1.2, 3, 1.1, 4), strict=True):
        write_factor(run, [factor, factor])
    table = stage.table()
    assert f"[stage.choice]\noptimizer.b2 = {chosen}\nlr = 0.1" in table
    assert table.count("<- chosen") == 1


def test_halving_without_readings_chooses_nothing(tmp_path):
    assert "no setting has readings" in stage_of(HALVING, tmp_path).table()


def test_a_missing_metric_ends_its_stage_at_once(tmp_path, monkeypatch, capsys):
    stage = stage_of(HALVING, tmp_path, score=dict(nll_batch4=SCORE | dict(metric="nnl")))
    trained = []

    def pretend(todo, workers, saving, due):
        for run in filter(lambda run: run.job in todo and due(run.job), next(stage.waves())):
            write_factor(run, [1.0])
            trained.append(run)
            yield run.job, 0

    monkeypatch.setattr(jobs, "run_here", pretend)
    monkeypatch.setattr(plan, "check", lambda stage: None)
    runner = plan.Runner([stage], 1, jobs.letting_runs_save())
    runner.train(stage)
    assert len(trained) == 1 and runner.status() == 1
    assert "error: setting: The score needs 'nnl'" in capsys.readouterr().err


# --- Fair learning rates ---


def write_readings(wave, score, mode="min"):
    for run in wave:
        parts = dict(part.split("=") for part in run.folder.name.split(","))
        write_run(run, {4: score(parts["norm"], float(parts["lr"]))}, mode=mode)


def test_fair_takes_the_best_inside(tmp_path):
    stage = stage_of(FAIR, tmp_path)
    waves = stage.waves()
    grid = next(waves)
    write_readings(grid[2:4], lambda norm, lr: 0.5)  # too few to decide anything
    assert stage.total() == 2 * (4 + 2) * 2 + 2 * 2 * 6
    assert len(grid) == 2 * 4 * 2 and {run.steps for run in grid} == {"4 steps"}
    best = dict(none=3e-3, layer=1e-2)
    write_readings(grid, lambda norm, lr: abs(math.log(lr / best[norm])))
    assert (next(waves), next(waves)) == ([], [])
    common = stage.common()
    final = set(folders(next(waves)))
    rates = {(norm, rate) for norm in best for rate in (best[norm], common)}
    assert final == {f"norm={n},lr={lr},seeds={s}" for n, lr in rates for s in range(2, 8)}
    table = stage.table()
    assert table.count("<- chosen") == 2 and "edge" not in table


def test_fair_widens_at_most_twice(tmp_path):
    stage = stage_of(FAIR, tmp_path)
    waves = stage.waves()
    widened = []
    for _ in range(3):
        wave = next(waves)
        write_readings(wave, lambda norm, lr: lr if norm == "none" else -lr)
        widened.append(sorted({run.folder.name.split(",seeds")[0] for run in wave}))
    assert widened[1:] == [["norm=layer,lr=0.1", "norm=none,lr=0.0003"]] + [
        ["norm=layer,lr=0.3", "norm=none,lr=0.0001"]
    ]
    assert {run.folder.name.split(",")[1] for run in next(waves)} >= {"lr=0.3", "lr=0.0001"}
    assert stage.table().count("<- chosen, at the edge") == 2


def test_more_may_be_better(tmp_path):
    """In configs/order_embeddings.py config.select.mode is "max"."""
    stage = stage_of(FAIR, tmp_path, config="configs/order_embeddings.py:tiny")
    write_readings(next(stage.waves()), lambda norm, lr: 5 - abs(lr - 1e-2), mode="max")
    assert stage.best("none", stage.rates) == stage.common() == 1e-2
    assert "0.01     5        (5, 5)  <- chosen" in stage.table()


def test_a_diverged_seed_loses(tmp_path):
    stage = stage_of(FAIR, tmp_path)
    grid = next(stage.waves())
    write_readings(grid, lambda norm, lr: abs(math.log(lr / 3e-3)))
    diverge(next(r for r in grid if "norm=layer,lr=0.003,seeds=1" in r.folder.name))
    assert stage.best("none", stage.rates) == 3e-3 and stage.best("layer", stage.rates) != 3e-3
    assert "0.003    nan" in stage.table() and "diverged" in stage.table()


def test_a_norm_that_always_diverges_trains_no_more(tmp_path):
    stage = stage_of(FAIR, tmp_path, check_ranking=True)
    waves = stage.waves()
    grid = next(waves)
    write_readings(grid, lambda norm, lr: abs(math.log(lr / 1e-2)))
    for run in grid:
        if "norm=none" in run.folder.name:
            diverge(run)
    assert (next(waves), next(waves)) == ([], [])
    assert {name.split(",")[0] for name in folders(next(waves))} == {"norm=layer"}
    assert stage.common() == 1e-2  # the diverged norm has no vote
    assert "none         all diverged" in stage.table() and stage.table().count("chosen") == 2

    for run in grid:
        diverge(run)
    assert stage.unsettled() == [] and "There is no common rate" in stage.table()


@pytest.mark.parametrize(
    "losses, best", [([1, 1, 1, 1], 3e-3), ([0, 1, 1, 0], 1e-3), ([0, 1, 0, 0], 1e-2)]
)
def test_ties_prefer_the_middle(losses, best, tmp_path):
    stage = stage_of(FAIR, tmp_path)
    by_rate = dict(zip(stage.rates, losses, strict=True))
    write_readings(next(stage.waves()), lambda norm, lr: by_rate[lr])
    assert stage.best("none", stage.rates) == stage.common() == best


def test_rankings_compare_lengths(tmp_path):
    stage = stage_of(FAIR, tmp_path, check_ranking=True, norms=["none"])
    *_, last = stage.waves()
    for wave in stage.waves():
        for run in wave:
            lr = float(run.folder.name.split(",")[1].partition("=")[2])
            distance = abs(math.log(lr / 3e-3))
            write_run(run, {4: distance, 12: -distance}, finished=True)
    assert "Kendall's tau -1.00" in stage.table()
    assert stages.kendall([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)


# --- The runner ---


def test_estimates_follow_the_measured_times():
    clock = plan.Clock(workers=2)
    assert clock.eta(dict(a=10.0, b=4.0)) == 7
    clock.add("a", measured=6.0, estimated=3.0)
    assert clock.eta(dict(a=10.0, b=4.0)) == 14
    clock.add("b", measured=1.0, estimated=2.0)
    assert clock.eta(dict(a=10.0, b=4.0)) == 11
    assert clock.ratio("c") == pytest.approx(7 / 5)


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """A runner of the stage SWEEP whose jobs only pretend: status(job, attempt) -> exit status."""

    def make(status, **changes):
        attempts: dict = {}

        def pretend(todo, workers, saving, due):
            for job in filter(due, todo):
                attempts[job] = attempts.get(job, 0) + 1
                ended = status(job, attempts[job])
                if ended == 0:
                    write_run(runs_by_job[job], {})
                yield job, ended

        stage = stage_of(SWEEP, tmp_path, **changes)
        runs_by_job = {run.job: run for wave in stage.waves() for run in wave}
        monkeypatch.setattr(jobs, "run_here", pretend)
        monkeypatch.setattr(plan, "check", lambda stage: None)
        return plan.Runner([stage], 1, jobs.letting_runs_save()), stage, attempts

    return make


def test_finished_runs_are_skipped(runner, capsys):
    tiny, stage, attempts = runner(lambda job, attempt: 0)
    none, layer = next(stage.waves())
    write_run(none, {})
    tiny.train(stage)
    assert attempts == {layer.job: 1} and tiny.status() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", ETA")[0] for line in lines if line.startswith("stage")] == [
        "stage 1 of 1: tiny, 1/2 runs",
        "stage 1 of 1: tiny, 2/2 runs",
    ]


@pytest.mark.parametrize(
    "first, second, tries, expected",
    [
        (-9, 0, 2, 0),  # killed, then trained
        (-9, -9, 2, 1),
        (2, 2, 1, 1),  # an error would come again
        (cli.BUSY, 0, 2, 0),
        (cli.BUSY, cli.BUSY, 2, cli.BUSY),
    ],
)
def test_failures_end_in_a_status(first, second, tries, expected, runner, capsys):
    def status(job, attempt):
        return 0 if "none" in job.folder.name else (first, second)[attempt - 1]

    tiny, stage, attempts = runner(status)
    tiny.train(stage)
    assert tiny.status() == expected and sorted(attempts.values()) == sorted([1, tries])
    assert ("1 failed:" in capsys.readouterr().err) == (expected == 1)


def test_a_failed_run_is_not_continued(runner):
    statuses = {"norm=none": 0, "norm=layer": 2}
    tiny, stage, attempts = runner(
        lambda job, attempt: statuses[job.folder.name], steps=["2 steps", "4 steps"]
    )
    tiny.train(stage)
    assert sorted(job.folder.name for job in attempts) == ["norm=layer", "norm=none", "norm=none"]


def test_a_wrong_value_stops_its_stage(tmp_path, capsys):
    stage = stage_of(SWEEP, tmp_path, grid=dict(norm=["none", "layr"]))
    stage.settings = dict(data_dir=str(tmp_path))
    tiny = plan.Runner([stage], 1, jobs.letting_runs_save())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        tiny.train(stage)
    assert "Did you mean 'layer'" in capsys.readouterr().err
    assert tiny.status() == 1 and not stage.folder.exists()


def test_a_damaged_run_stops_its_stage(runner, capsys):
    tiny, stage, attempts = runner(lambda job, attempt: 0)
    stage.folder.joinpath("norm=none").mkdir(parents=True)
    stage.folder.joinpath("norm=none", "config.json").write_text("{")
    tiny = plan.Runner([stage], 1, jobs.letting_runs_save())
    tiny.train(stage)
    assert "config.json is damaged" in capsys.readouterr().err and tiny.status() == 1
    assert not attempts


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(settings=dict(hiden=3)), "Unknown config key 'hiden"),
        (dict(config="configs/mnits.py"), "no config file configs/mnits.py. Did you mean"),
        (dict(settings=dict(lr="(0.1, 0.2)", seeds=3), grid=dict(norm=["none"])), "2 lanes"),
    ],
)
def test_a_wrong_config_has_a_clear_line(changes, message, tmp_path):
    with warnings.catch_warnings(), pytest.raises(InputError, match=message):
        warnings.simplefilter("ignore", DeprecationWarning)
        plan.check(stage_of(SWEEP, tmp_path, **changes))


@pytest.mark.parametrize(
    "words, message",
    [
        (["--minutes=inf"], "--minutes=inf is not a time"),
        (["--minutes=nan"], "--minutes=nan is not a time"),
        (["--space=lr=1,2", "--trials=3"], "takes no --space, --trials"),
        (["--study=x"], "takes no --study"),
        (["--root=README.md/x"], "Cannot write to README.md"),
    ],
)
def test_wrong_flags_are_one_line(words, message):
    words = ("-m", "scripts.sweep", f"--plan={PLAN}", "--only=claim_29", *words)
    done = subprocess.run((sys.executable, *words), cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_collect_keeps_foreign_files(tmp_path, capsys):
    stage = stage_of(SWEEP, tmp_path / "runs")
    write_run(next(stage.waves())[0], {4: 0.5})
    results = tmp_path / "results"
    collect.collect([stage], results, dry_run=True)
    target = results / "mnist" / "tiny" / "norm=none"
    assert f"-> {target}" in capsys.readouterr().out and not results.exists()
    target.mkdir(parents=True)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not a run"):
        collect.collect([stage], results)
    assert os.listdir(target) == ["notes.txt"]
    target.rename(tmp_path / "away")
    collect.collect([stage], results)
    (target / "notes.txt").write_text("mine")
    collect.collect([stage], results)
    assert (target / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name, counts", [("results", True), ("elsewhere", False)])
def test_the_limit_counts_only_results(name, counts, tmp_path, monkeypatch):
    stage = stage_of(SWEEP, tmp_path / "runs")
    write_run(next(stage.waves())[0], {4: 0.5})
    monkeypatch.setattr(collect, "MOST", 5000)
    for folder in ("mnist", "figures"):
        (tmp_path / name / folder).mkdir(parents=True)
    (tmp_path / name / "figures" / "large.png").write_bytes(bytes(5000))
    collect.collect([stage], tmp_path / name)
    (tmp_path / name / "mnist" / "large").write_bytes(bytes(5000))
    if counts:
        with pytest.raises(InputError, match="results would take"):
            collect.collect([stage], tmp_path / name)
    else:
        collect.collect([stage], tmp_path / name)


def test_collect_drops_update_rows(tmp_path, capsys):
    stage = stage_of(SWEEP, tmp_path / "runs")
    finished, unfinished = next(stage.waves())
    write_run(finished, {4: 0.5})
    rows = runs.read_rows(finished.folder / "metrics.jsonl")
    runs.write_rows(finished.folder / "metrics.jsonl", [rows[0] | dict(split="update"), *rows])
    write_run(unfinished, {4: 0.5}, finished=False)
    results = tmp_path / "results"
    for _ in range(2):  # the same run is replaced
        collect.collect([stage], results)
    (target,) = (results / "mnist" / "tiny").iterdir()
    assert target.name == "norm=none" and runs.read_rows(target / "metrics.jsonl") == rows

    before = (target / "config.json").read_text()
    (target / "config.json").write_text(before.replace("norm=none", "norm=batch"))
    with pytest.raises(InputError, match="not the run"):
        collect.collect([stage], results)
    (target / "config.json").write_text(before)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError, match="limit"):
        patch.setattr(collect, "MOST", 10)
        collect.collect([stage], results)


# --- The plan of the results ---


@pytest.mark.parametrize("stage", stages.read(PLAN, Path("runs/plan")), ids=lambda s: s.name)
def test_the_plan_knows_its_configs(stage):
    found = {run.words: run for wave in stage.waves() for run in wave}
    assert found
    for run in found.values():
        config = read_words(run)
        assert config.norm in config.norms and len(config.seeds) == len(config.lr) == 1


@pytest.mark.slow
def test_a_stopped_plan_goes_on(tmp_path):
    every = ", ".join(f'{k}_every = "500 steps"' for k in ("log", "eval", "save"))
    text = f"""
    [[stage]]
    name = "tiny"
    kind = "sweep"
    config = "configs/mnist.py:tiny"
    settings = {{ data_dir = "{tmp_path.as_posix()}", {every} }}
    grid = {{ norm = ["none", "layer"], seeds = 5 }}
    steps = ["100 steps", "STEPS"]
    minutes = 0.1
    """
    path, root = tmp_path / "plan.toml", tmp_path / "runs"
    path.write_text(text.replace("STEPS", "9000000 steps"))
    command = (sys.executable, "-m", "scripts.sweep", f"--plan={path}", f"--root={root}")

    def run(*words):
        return subprocess.run(
            (*command, *words), cwd=PROJECT, capture_output=True, text=True, timeout=200
        )

    timed = run("--minutes=0.25", "--workers=2")
    assert timed.returncode == 0, timed.stdout + timed.stderr
    assert (
        "The time is up" in timed.stdout and "tiny: " in timed.stdout.partition("What remains")[2]
    )

    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    while "Resuming at step" not in process.stdout.readline():
        pass
    time.sleep(1)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130

    reached = max(row["step"] for f in runs.find(root) for row in runs.load(f)[1])
    length = f"{max(reached, 100) + 1_000} steps"
    path.write_text(text.replace("STEPS", length))
    done = run("--workers=2")
    assert done.returncode == 0, done.stdout + done.stderr
    for folder in runs.find(root):
        config, rows = runs.load(folder)
        assert (config["seeds"], config["steps"]) == ([5], length) and runs.is_finished(folder)
        keys = [(row["step"], row["split"]) for row in rows]
        assert len(keys) == len(set(keys))
    listed = run("--dry_run")
    assert "4 runs known, 4 finished, 0 to do" in listed.stdout


def test_the_recorded_choice_follows_from_the_stored_runs():
    """Every run behind the choice of figure 6's setting is in results/, and gives it again."""
    results = Path(__file__).parents[1] / "results"
    planned = {stage.name: stage for stage in stages.read(results / "plan.toml", results / "mnist")}
    stage = planned["figure_6_setting"]
    assert not stage.unsettled()
    assert stage.choice and stage.chosen() == stages.flat(stage.choice)
