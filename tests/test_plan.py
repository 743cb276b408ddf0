"""A plan of runs: its stages, scores, estimates, and the command."""

import itertools
import math
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from ln.errors import InputError
from ln.training import runs
from scripts import cli
from scripts.engines import collect, jobs, plan, stages

PROJECT = Path(__file__).parent.parent
PLAN = PROJECT / "results" / "plan.toml"

SWEEP = dict(
    name="tiny",
    config="configs/mnist.py:tiny",
    grid=dict(norm=["none", "layer"], seeds=[3]),
    steps="4 steps",
    minutes=1.0,
)
CURVES = dict(norm="layer", batch_size=4, steps="1 epoch", epochs=[0], minutes=1.0)
LONGER = CURVES | dict(steps="2 epochs", epochs=[0, 1])
HALVING = dict(
    name="setting",
    config="configs/mnist.py:tiny",
    grid=dict(optimizer=dict(b2=[0.999, 0.99]), lr=[0.1, 0.2]),
    published="figure_6",
    tie=0.05,
    score={"nll_batch{batch_size}": dict(split="train", metric="nll", weight=2.0)},
    rungs=[dict(keep=2, curves=[CURVES]), dict(curves=[LONGER])],
)
FAIR = dict(
    name="fair",
    config="configs/mnist.py:tiny",
    norms=["none", "layer"],
    rates=[1e-3, 3e-3, 1e-2, 3e-2],
    seeds=[2, 3, 4, 5, 6, 7],
    length_short="4 steps",
    steps="12 steps",
    minutes=3.0,
)
# ml_collections loads a config file by load_module, which is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")


def make(kind, table, root, **changes):
    return stages.build(kind, "the stage", table | changes, root=root)


def sweep(root, **changes):
    return make(stages.Sweep, SWEEP, root, **changes)


def halving(root, **changes):
    return make(stages.Halving, HALVING, root, **changes)


def fair(root, **changes):
    return make(stages.Fair, FAIR, root, **changes)


def write_run(run, values, split="valid", metric="error", finished=True):
    """Write a run folder with readings; values: step and epoch -> value."""
    config = run.resolved()
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.json").write_text(config.to_json())
    selected = {config.select.metric: 0.5} if split == config.select.split else {}
    lane = dict(seed=config.seeds[0], lr=config.lr[0])
    rows = [
        dict(step=at, epoch=at, split=split) | lane | selected | {metric: value}
        for at, value in values.items()
    ]
    runs.write_rows(run.folder / "metrics.jsonl", rows)
    runs.write_rows(run.folder / "sessions.jsonl", [dict(step=0, command="", versions={})])
    if finished:
        (run.folder / "finished.json").write_text("{}")


def diverge(run):
    write_run(run, {}, finished=False)
    row = dict(step=1, seed=0, lr=0.1, cause="the loss is inf")
    runs.write_rows(run.folder / "diverged.jsonl", [row])


def names(wave):
    return [run.folder.name for run in wave]


# --- Reading ---


@pytest.mark.parametrize(
    "make, changes, message",
    [
        (sweep, dict(minuts=3), "no key 'minuts'. Did you mean 'minutes'"),
        (sweep, dict(minutes="4"), "minutes is '4'; it must be of type float"),
        (sweep, dict(steps="four"), "'four' is not a length"),
        (sweep, dict(grid=dict(norm=["none", "none"])), "2 runs would have the folder"),
        (sweep, dict(grid=dict(init=["a/b", "c"])), "1 runs would have the folder"),
        (sweep, dict(grid=dict(steps=["1 step", "2 steps"])), "'steps' is given twice"),
        (halving, dict(published="figure_66"), "Did you mean 'figure_6'"),
        (halving, dict(rungs=[dict(curves=[CURVES | dict(lr=1)])]), "'lr' is given twice"),
        (halving, dict(rungs=[dict(curves=[CURVES | dict(norm="layr")])]), "nll_batch4, layer"),
        (halving, dict(rungs=[dict(curves=[CURVES | dict(epochs=[99])])]), "no epoch 99"),
        (fair, dict(settings=dict(lr=0.1)), "'lr' is given twice"),
    ],
)
def test_a_wrong_stage_raises(make, changes, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        list(make(tmp_path, **changes).waves())
    assert "\n" not in str(error.value)


def tiny(name, kind="sweep"):
    """Return the text of a sweep in a plan's file."""
    return (
        f'[[stage]]\nname = "{name}"\nkind = "{kind}"\nconfig = "configs/mnist.py:tiny"\n'
        'grid = { norm = "none" }\nsteps = "4 steps"\nminutes = 1.0\n'
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("[[stage]\n", "cannot be used"),
        ('stage = ["x"]\n', r"each begins with \[\[stage\]\]"),
        ('[[stage]]\nname = "a"\nkind = "fair"\n', "plan.toml .* stage 'a' has no 'config'"),
        ("", r"each begins with \[\[stage\]\]"),
        (tiny("a", "sweeep"), "Did you mean 'sweep'"),
        (tiny("a") + tiny("a"), "'a': two stages have this name"),
        (tiny("a") + 'settings_of = "a"\n', "it must be an earlier stage"),
    ],
)
def test_a_broken_file_raises(text, message, tmp_path):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        stages.read(tmp_path / "plan.toml", tmp_path)


def test_names_hold_what_varies(tmp_path):
    grid = [dict(norm="none"), dict(batch_size=[4, 8], norm="layer", hidden=5)]
    (wave,) = sweep(tmp_path, grid=grid).waves()
    assert names(wave)[:2] == ["norm=none", "norm=layer,batch_size=4,hidden=5"]
    (wave,) = sweep(tmp_path).waves()
    assert names(wave) == ["norm=none", "norm=layer"]  # one seed: not named


def test_a_later_stage_takes_the_choice(tmp_path):
    first, second = tiny("a"), tiny("b") + 'settings_of = "a"\n'
    path = tmp_path / "plan.toml"
    path.write_text(first + second)
    with pytest.raises(InputError, match="paste the .stage.choice."):
        plan.check(stages.read(path, tmp_path)[1])
    path.write_text(first + "[stage.choice]\noptimizer.b2 = 0.5\n" + second)
    (wave,) = stages.read(path, tmp_path)[1].waves()
    assert wave[0].resolved().optimizer.b2 == 0.5


# --- Runs on disk ---


def test_settled_runs_reach_their_length(tmp_path):
    short, long = (wave[0] for wave in sweep(tmp_path, steps=["4 steps", "8 steps"]).waves())
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


def test_lengths_share_the_minutes(tmp_path):
    waves = sweep(tmp_path, steps=["1 step", "4 steps"], minutes=8.0).waves()
    assert [wave[0].minutes for wave in waves] == [2, 6]


# --- Halving ---


def write_factor(run, factors):
    """Write a run whose NLL is the published one times a factor in each epoch."""
    theirs = stages.published_curves("figure_6")["nll_batch4", "layer"]
    values = {e + 1: factor * theirs.at(e).mean() for e, factor in enumerate(factors)}
    write_run(run, values, "train", "nll")


def test_halving_keeps_the_best(tmp_path):
    stage = halving(tmp_path)
    waves = stage.waves()
    first = next(waves)
    assert len(first) == len(stage.known()) == 4 and len(stage.unsettled()) == 6
    diverge(first[0])
    for run, factor in zip(first[1:], (4, 0.5, 1.5), strict=True):
        write_factor(run, [factor])
    second = next(waves)
    assert names(second) == names([first[3], first[2]])
    assert len(stage.known()) == 6 and stage.unsettled() == second


def test_the_score_is_the_mean_distance(tmp_path):
    stage = halving(tmp_path)
    setting = stages.product(stage.grid)[0]
    run = next(r for wave in stage.waves() for r in wave if r.steps == "2 epochs")
    write_factor(run, [2.0, 0.25])
    expected = 2.0 * (math.log(2) + math.log(4)) / 2
    assert stage.score_of(stage.rungs[1], setting) == pytest.approx(expected)
    write_factor(run, [2.0])  # no reading after the second epoch
    assert stage.score_of(stage.rungs[1], setting) == math.inf


@pytest.mark.parametrize("tie, chosen", [(0.0, "0.99"), (0.5, "0.999")])
def test_a_tie_goes_to_the_first(tie, chosen, tmp_path):
    stage = halving(tmp_path, tie=tie, rungs=HALVING["rungs"][1:])
    assert "no setting has readings" in stage.table()
    (wave,) = stage.waves()
    for run, factor in zip(wave, (1.2, 3, 1.1, 4), strict=True):
        write_factor(run, [factor, factor])
    table = stage.table()
    assert f"[stage.choice]\noptimizer.b2 = {chosen}\nlr = 0.1" in table
    assert table.count("<- chosen") == 1


# --- Fair learning rates ---


def write_readings(wave, score, metric="error"):
    for run in wave:
        parts = dict(part.split("=") for part in run.folder.name.split(","))
        write_run(run, {4: score(parts["norm"], float(parts["lr"]))}, metric=metric)


def test_fair_takes_the_best_inside(tmp_path):
    stage = fair(tmp_path)
    waves = stage.waves()
    grid = next(waves)
    write_readings(grid[2:4], lambda norm, lr: 0.5)  # too few to decide anything
    assert sum(map(len, stage.waves())) == 2 * (4 + 2) * 2 + 2 * 2 * 6
    assert len(grid) == 2 * 4 * 2 and {run.steps for run in grid} == {"4 steps"}
    best = dict(none=3e-3, layer=1e-2)
    write_readings(grid, lambda norm, lr: abs(math.log(lr / best[norm])))
    assert (next(waves), next(waves)) == ([], [])
    common = stage.common()
    final = set(names(next(waves)))
    rates = {(norm, rate) for norm in best for rate in (best[norm], common)}
    assert final == {f"norm={n},lr={lr},seeds={s}" for n, lr in rates for s in range(2, 8)}
    table = stage.table()
    assert table.count("<- chosen") == 2 and "edge" not in table


def test_fair_widens_at_most_twice(tmp_path):
    stage = fair(tmp_path)
    waves = stage.waves()
    widened = []
    for _ in range(3):
        wave = next(waves)
        write_readings(wave, lambda norm, lr: lr if norm == "none" else -lr)
        widened.append(sorted({name.split(",seeds")[0] for name in names(wave)}))
    assert widened[1:] == [
        ["norm=layer,lr=0.1", "norm=none,lr=0.0003"],
        ["norm=layer,lr=0.3", "norm=none,lr=0.0001"],
    ]
    assert {name.split(",")[1] for name in names(next(waves))} >= {"lr=0.3", "lr=0.0001"}
    assert stage.table().count("<- chosen, at the edge") == 2


def test_more_may_be_better(tmp_path):
    """In configs/order_embeddings.py config.select.mode is "max"."""
    stage = fair(tmp_path, config="configs/order_embeddings.py:tiny")
    write_readings(next(stage.waves()), lambda norm, lr: 5 - abs(lr - 1e-2), metric="sum")
    assert stage.best("none", stage.rates) == stage.common() == 1e-2
    assert "0.01     5        (5, 5)  <- chosen" in stage.table()


def test_a_diverged_seed_loses(tmp_path):
    stage = fair(tmp_path)
    grid = next(stage.waves())
    write_readings(grid, lambda norm, lr: abs(math.log(lr / 3e-3)))
    diverge(next(r for r in grid if "norm=layer,lr=0.003,seeds=1" in r.folder.name))
    assert stage.best("none", stage.rates) == 3e-3 and stage.best("layer", stage.rates) != 3e-3
    assert "0.003    nan" in stage.table() and "diverged" in stage.table()


def test_a_norm_that_always_diverges_trains_no_more(tmp_path):
    stage = fair(tmp_path, check_ranking=True)
    waves = stage.waves()
    grid = next(waves)
    write_readings(grid, lambda norm, lr: abs(math.log(lr / 1e-2)))
    for run in grid:
        if "norm=none" in run.folder.name:
            diverge(run)
    assert (next(waves), next(waves)) == ([], [])
    assert {name.split(",")[0] for name in names(next(waves))} == {"norm=layer"}
    assert stage.common() == 1e-2  # the diverged norm has no vote
    assert "none         all diverged" in stage.table() and stage.table().count("chosen") == 2
    for run in grid:
        diverge(run)
    assert stage.unsettled() == [] and "There is no common rate" in stage.table()


@pytest.mark.parametrize(
    "losses, best", [([1, 1, 1, 1], 3e-3), ([0, 1, 1, 0], 1e-3), ([0, 1, 0, 0], 1e-2)]
)
def test_ties_prefer_the_middle(losses, best, tmp_path):
    stage = fair(tmp_path)
    by_rate = dict(zip(stage.rates, losses, strict=True))
    write_readings(next(stage.waves()), lambda norm, lr: by_rate[lr])
    assert stage.best("none", stage.rates) == stage.common() == best


def test_rankings_compare_lengths(tmp_path):
    stage = fair(tmp_path, check_ranking=True, norms=["none"])
    for run in itertools.chain(*stage.waves()):
        lr = float(run.folder.name.split(",")[1].partition("=")[2])
        distance = abs(math.log(lr / 3e-3))
        write_run(run, {4: distance, 12: -distance})
    assert "Kendall's tau -1.00" in stage.table()


# --- The runner ---


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """A runner of a sweep whose jobs only pretend: status(job, attempt) -> exit status."""

    class Pretended:
        place = ""

        def __init__(self, job, status):
            self.job, self.poll = job, lambda: status

    def make(status, **changes):
        stage, attempts = sweep(tmp_path, **changes), {}
        by_config = {run.job: run for wave in stage.waves() for run in wave}

        def start(some):
            for job in some:
                attempts[job] = attempts.get(job, 0) + 1
                ended = status(job.folder.name, attempts[job])
                if ended == 0:
                    write_run(by_config[job], {})
                yield Pretended(job, ended)

        monkeypatch.setattr(jobs, "start_here", lambda workers: lambda some: list(start(some)))
        monkeypatch.setattr(jobs, "LOOK", 0)
        monkeypatch.setattr(plan, "check", lambda stage: None)
        return plan.Runner([stage], 1, jobs.Stopping()), stage, attempts

    return make


def test_finished_runs_are_skipped(runner, capsys):
    tiny, stage, attempts = runner(lambda name, attempt: 0)
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
    def status(name, attempt):
        return 0 if "none" in name else (first, second)[attempt - 1]

    tiny, stage, attempts = runner(status)
    tiny.train(stage)
    assert tiny.status() == expected and sorted(attempts.values()) == sorted([1, tries])
    assert ("1 runs failed:" in capsys.readouterr().err) == (expected == 1)


def test_a_failed_run_is_not_continued(runner):
    statuses = {"norm=none": 0, "norm=layer": 2}
    tiny, stage, attempts = runner(lambda name, _: statuses[name], steps=["2 steps", "4 steps"])
    tiny.train(stage)
    assert sorted(job.folder.name for job in attempts) == ["norm=layer", "norm=none", "norm=none"]


def test_a_wrong_value_stops_its_stage(tmp_path, capsys):
    stage = sweep(tmp_path, grid=dict(norm=["none", "layr"]), settings=dict(data_dir=str(tmp_path)))
    tiny = plan.Runner([stage], 1, jobs.Stopping())
    tiny.train(stage)
    assert "Did you mean 'layer'" in capsys.readouterr().err
    assert tiny.status() == 1 and not stage.folder.exists()


def test_a_damaged_run_stops_its_stage(runner, capsys):
    tiny, stage, attempts = runner(lambda name, attempt: 0)
    (damaged, _) = next(stage.waves())
    write_run(damaged, {})
    (damaged.folder / "config.json").write_text("{")
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
    with pytest.raises(InputError, match=message):
        plan.check(sweep(tmp_path, **changes))


@pytest.mark.parametrize(
    "words, message",
    [
        (["--minutes=nan"], "--minutes=nan is not a time"),
        (["--space=lr=1,2", "--trials=3"], "takes no --space, --trials"),
        (["--root=README.md/x"], "Cannot write to README.md"),
    ],
)
def test_wrong_flags_are_one_line(words, message):
    words = ("-m", "scripts.sweep", f"--plan={PLAN}", "--only=claim_29", *words)
    done = subprocess.run((sys.executable, *words), cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


# --- Collecting ---


@pytest.fixture
def finished(tmp_path):
    """A stage with one finished run and one that is not, and the place of the first."""
    stage = sweep(tmp_path / "runs")
    run, unfinished = next(stage.waves())
    write_run(run, {4: 0.5})
    write_run(unfinished, {4: 0.5}, finished=False)
    return stage, tmp_path / "results" / "mnist" / "tiny" / "norm=none"


def test_collect_keeps_foreign_files(finished, tmp_path, capsys):
    stage, place = finished
    collect.collect([stage], tmp_path / "results", dry_run=True)
    assert f"-> {place}" in capsys.readouterr().out and not place.exists()
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not a run"):
        collect.collect([stage], tmp_path / "results")
    assert os.listdir(place) == ["notes.txt"]
    place.rename(tmp_path / "away")
    collect.collect([stage], tmp_path / "results")
    (place / "notes.txt").write_text("mine")
    collect.collect([stage], tmp_path / "results")
    assert (place / "notes.txt").read_text() == "mine"


def test_collect_drops_update_rows(finished, tmp_path):
    stage, place = finished
    path = stage.folder / "norm=none" / "metrics.jsonl"
    rows = runs.read_rows(path)
    runs.write_rows(path, [rows[0] | dict(split="update"), *rows])
    collect.collect([stage], tmp_path / "results")
    assert os.listdir(place.parent) == ["norm=none"]
    assert runs.read_rows(place / "metrics.jsonl") == rows


def test_collect_updates_documents(finished, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(collect.documents, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(collect.documents, "write", lambda: written.append(finished[1].exists()))
    collect.collect([finished[0]], tmp_path / "results", dry_run=True)
    assert not written
    collect.collect([finished[0]], tmp_path / "results")
    assert written == [True]


def test_collect_keeps_another_run(finished, tmp_path, monkeypatch):
    stage, place = finished
    collect.collect([stage], tmp_path / "results")
    text = (place / "config.json").read_text()
    (place / "config.json").write_text(text.replace('"none"', '"batch"', 1))
    with pytest.raises(InputError, match="not the run"):
        collect.collect([stage], tmp_path / "results")
    (place / "config.json").write_text(text)
    monkeypatch.setattr(collect, "MOST", 10)
    with pytest.raises(InputError, match="would take"):
        collect.collect([stage], tmp_path / "results")


# --- The plan of the results ---


@pytest.mark.parametrize("stage", stages.read(PLAN, Path("runs/plan")), ids=lambda s: s.name)
def test_the_plan_knows_its_configs(stage):
    planned = {run.folder: run for wave in stage.waves() for run in wave}
    assert planned
    for run in planned.values():
        config = run.resolved()
        assert config.norm in config.norms and len(config.seeds) == len(config.lr) == 1


def test_the_recorded_choice_follows_from_the_stored_runs():
    """Every run behind the choice of figure 6's setting is in results/, and gives it again."""
    planned = {stage.name: stage for stage in stages.read(PLAN, PLAN.parent / "mnist")}
    stage = planned["figure_6_setting"]
    assert not stage.unsettled()
    assert stage.choice and stage.chosen() == jobs.flat(stage.choice)


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
    assert "The time is up" in timed.stdout
    assert "tiny: " in timed.stdout.partition("What remains")[2]

    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    while "Resuming at step" not in process.stdout.readline():
        pass
    time.sleep(1)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130

    reached = max(runs.read(folder).progress() for folder in runs.find(root))
    length = f"{int(max(reached, 100)) + 1_000} steps"
    path.write_text(text.replace("STEPS", length))
    done = run("--workers=2")
    assert done.returncode == 0, done.stdout + done.stderr
    for folder in runs.find(root):
        stored = runs.read(folder)
        assert (stored.config["seeds"], stored.config["steps"]) == ([5], length)
        keys = [(row.step, row.split) for row in stored.rows]
        assert stored.finished and len(keys) == len(set(keys))
    listed = run("--dry_run")
    assert "4 runs known, 4 finished, 0 to do" in listed.stdout
