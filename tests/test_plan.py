"""A plan of runs: its stages, their scores, and the command."""

import collections
import math
import time
import types

import pytest

from ln.errors import InputError
from ln.training import runs
from scripts import cli
from scripts.engines import jobs, plan
from tests.commands import PROJECT, start
from tests.commands import run as run_command
from tests.test_report import write_folder

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


def sweep(root, **changes):
    return plan.Stage(**(SWEEP | changes), root=root)


def halving(root, **changes):
    return plan.Halving(**(HALVING | changes), root=root)


def fair(root, **changes):
    return plan.Fair(**(FAIR | changes), root=root)


def write_run(run, values, split="valid", metric="error", finished=True):
    """Write a run folder with readings; values: step and epoch -> value."""
    config = run.resolved()
    selected = {config.select.metric: 0.5} if split == config.select.split else {}
    lane = dict(seed=config.seeds[0], lr=config.lr[0])
    rows = [
        dict(step=at, epoch=at, split=split) | lane | selected | {metric: value}
        for at, value in values.items()
    ]
    write_folder(run.folder, config, rows, finished)


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
        (fair, dict(length_short="four"), "'four' is not a length"),
        (sweep, dict(grid=dict(norm=["none", "none"])), "2 times .*none"),
        (halving, dict(published="figure_66"), "figure_66.csv is missing"),
        (halving, dict(rungs=[dict(curves=[CURVES | dict(norm="layr")])]), "of nll_batch4, layr"),
        (halving, dict(rungs=[dict(curves=[CURVES | dict(epochs=[99])])]), "no epoch 99"),
    ],
)
def test_a_wrong_stage_raises(make, changes, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        make(tmp_path, **changes).check()
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
        ("", "there is no 'stage'"),
        ('[[stage]]\nname = "a"\nkind = "fair"\n', "plan.toml .* stage 'a': .* 'config'"),
        (tiny("a", "sweeep"), "Did you mean 'sweep'"),
        (tiny("a") + "minuts = 1\n", "stage 'a': .* 'minuts'"),
        (tiny("a") + 'settings_of = "b"\n', "stage 'a': there is no 'b'"),
    ],
)
def test_a_broken_file_raises(text, message, tmp_path):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        plan.read(tmp_path / "plan.toml", tmp_path)


def test_a_later_stage_takes_the_choice(tmp_path):
    first, second = tiny("a"), tiny("b") + 'settings_of = "a"\n'
    path = tmp_path / "plan.toml"
    path.write_text(first + second)
    with pytest.raises(InputError, match="paste the .stage.choice."):
        plan.read(path, tmp_path)[1].check()
    path.write_text(first + "[stage.choice]\noptimizer.b2 = 0.5\n" + second)
    (wave,) = plan.read(path, tmp_path)[1].waves()
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


# --- Halving ---


def write_factor(run, factors):
    """Write a run whose NLL is the published one times a factor in each epoch."""
    theirs = plan.published_curves("figure_6")["nll_batch4", "layer"]
    values = {e + 1: factor * theirs.at(e).mean() for e, factor in enumerate(factors)}
    write_run(run, values, "train", "nll")


def test_halving_keeps_the_best(tmp_path):
    stage = halving(tmp_path)
    waves = stage.waves()
    first = next(waves)
    assert first == stage.known() == stage.unsettled() and len(first) == 4
    diverge(first[0])
    for run, factor in zip(first[1:], (4, 0.5, 1.5), strict=True):
        write_factor(run, [factor])
    second = next(waves)
    assert names(second) == names([first[3], first[2]])
    assert len(stage.known()) == 6 and stage.unsettled() == second


def test_the_score_is_the_mean_distance(tmp_path):
    stage = halving(tmp_path, rungs=HALVING["rungs"][1:])
    setting = plan.product(stage.grid)[0]
    run = next(stage.waves())[0]
    write_factor(run, [2.0, 0.25])
    expected = 2.0 * (math.log(2) + math.log(4)) / 2
    assert stage.score_of(stage.rungs[0], setting) == pytest.approx(expected)
    write_factor(run, [2.0])  # no reading after the second epoch
    assert stage.score_of(stage.rungs[0], setting) == math.inf
    assert stage.chosen() is None and "no setting has readings" in stage.table()


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
    assert stage.known() == grid
    assert len(grid) == 2 * 4 * 2 and {run.steps for run in grid} == {"4 steps"}
    best = dict(none=3e-3, layer=1e-2)
    write_readings(grid, lambda norm, lr: abs(math.log(lr / best[norm])))
    assert next(waves) == next(waves) == grid
    common = stage.common()
    final = set(names(next(waves)))
    rates = {(norm, rate) for norm in best for rate in (best[norm], common)}
    assert final == {f"norm={n},lr={lr},seeds={s}" for n, lr in rates for s in range(2, 8)}
    table = stage.table()
    assert table.count("<- best") == 2 and "edge" not in table


def test_fair_widens_at_most_twice(tmp_path):
    stage = fair(tmp_path)
    waves = stage.waves()
    widened = []
    for _ in range(3):
        wave = [run for run in next(waves) if not run.settled]
        write_readings(wave, lambda norm, lr: lr if norm == "none" else -lr)
        widened.append(sorted({name.split(",seeds")[0] for name in names(wave)}))
    assert widened[1:] == [
        ["norm=layer,lr=0.1", "norm=none,lr=0.0003"],
        ["norm=layer,lr=0.3", "norm=none,lr=0.0001"],
    ]
    assert {name.split(",")[1] for name in names(next(waves))} >= {"lr=0.3", "lr=0.0001"}
    assert stage.table().count("<- best at 4 steps, at the edge") == 2


def test_more_may_be_better(tmp_path):
    """In configs/order_embeddings.py config.select.mode is "max"."""
    stage = fair(tmp_path, config="configs/order_embeddings.py:tiny")
    write_readings(next(stage.waves()), lambda norm, lr: 5 - abs(lr - 1e-2), metric="sum")
    assert stage.best("none", stage.rates) == stage.common() == 1e-2


def test_a_diverged_seed_loses(tmp_path):
    stage = fair(tmp_path)
    grid = next(stage.waves())
    write_readings(grid, lambda norm, lr: abs(math.log(lr / 3e-3)))
    diverge(next(r for r in grid if "norm=layer,lr=0.003,seeds=1" in r.folder.name))
    assert stage.best("none", stage.rates) == 3e-3 and stage.best("layer", stage.rates) != 3e-3


def test_a_norm_that_always_diverges_trains_no_more(tmp_path):
    stage = fair(tmp_path, check_ranking=True)
    waves = stage.waves()
    grid = next(waves)
    write_readings(grid, lambda norm, lr: abs(math.log(lr / 1e-2)))
    for run in grid:
        if "norm=none" in run.folder.name:
            diverge(run)
    assert next(waves) == next(waves) == grid
    assert {name.split(",")[0] for name in names(next(waves))} == {"norm=layer"}
    assert stage.common() == 1e-2  # the diverged norm has no vote
    for run in grid:
        diverge(run)
    assert stage.unsettled() == [] and "The common rate is None" in stage.table()


@pytest.mark.parametrize(
    "losses, best", [([1, 1, 1, 1], 3e-3), ([0, 1, 1, 0], 1e-3), ([0, 1, 0, 0], 1e-2)]
)
def test_ties_prefer_the_middle(losses, best, tmp_path):
    stage = fair(tmp_path)
    by_rate = dict(zip(stage.rates, losses, strict=True))
    write_readings(next(stage.waves()), lambda norm, lr: by_rate[lr])
    assert stage.best("none", stage.rates) == stage.common() == best


# --- The runner ---


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train a sweep whose jobs only pretend: status(name, attempt) -> exit status."""
    monkeypatch.setattr(jobs, "LOOK", 0)
    monkeypatch.setattr(plan.Stage, "check", lambda stage: None)
    attempts = collections.Counter()

    def train(status, stage):
        by_folder = {run.folder: run for wave in stage.waves() for run in wave}

        def start(some):
            for job in some:
                attempts[job.folder.name] += 1
                ended = status(job.folder.name, attempts[job.folder.name])
                if ended == 0:
                    write_run(by_folder[job.folder], {})
                yield types.SimpleNamespace(job=job, poll=lambda ended=ended: ended)

        start_all = lambda some: list(start(some))  # noqa: E731
        ended = plan.train([stage], start_all, jobs.Clock(1, 1.0), jobs.Stopping())
        return ended, dict(attempts)

    return train


def test_finished_runs_are_skipped(train, tmp_path, capsys):
    stage = sweep(tmp_path)
    write_run(next(stage.waves())[0], {})
    assert train(lambda name, attempt: 0, stage) == (0, {"norm=layer": 1})
    out = capsys.readouterr().out
    assert "stage 1 of 1: tiny, 1/2 runs, ETA 0:01:00, of the plan 0:01:00" in out


@pytest.mark.parametrize(
    "first, second, tries, expected",
    [
        (-9, 0, 2, 0),  # killed, then trained
        (-9, -9, 2, 1),
        (2, 2, 1, 1),  # an error would come again
        (cli.BUSY, 0, 2, 0),
        (cli.BUSY, cli.BUSY, 2, 0),  # the other process trains it
    ],
)
def test_failures_end_in_a_status(first, second, tries, expected, train, tmp_path, capsys):
    def status(name, attempt):
        return 0 if "none" in name else (first, second)[attempt - 1]

    ended = train(status, sweep(tmp_path, steps=["2 steps", "4 steps"]))
    assert ended == (expected, {"norm=none": 1, "norm=layer": tries})
    assert ("1 runs failed:" in capsys.readouterr().err) == (expected == 1)


def test_estimates_follow_what_was_measured():
    clock = jobs.Clock(2)
    assert clock.eta(8.0) == ""
    clock.add(seconds=60, minutes=4.0)
    assert clock.eta(8.0) == ", ETA 0:01:00"


def test_a_wrong_value_stops_its_stage(tmp_path, capsys):
    stage = sweep(tmp_path, grid=dict(norm=["none", "layr"]), settings=dict(data_dir=str(tmp_path)))
    assert plan.train([stage], jobs.start_here([{}]), jobs.Clock(1), jobs.Stopping()) == 1
    assert "Did you mean 'layer'" in capsys.readouterr().err and not stage.folder.exists()


def test_a_damaged_run_stops_its_stage(train, tmp_path, capsys):
    stage = sweep(tmp_path)
    (damaged, _) = next(stage.waves())
    write_run(damaged, {})
    (damaged.folder / "config.json").write_text("{")
    assert train(lambda name, attempt: 0, stage) == (1, {})
    assert "config.json is damaged" in capsys.readouterr().err


# --- Collecting ---


@pytest.fixture
def finished(tmp_path):
    """Return a stage with one finished run and one that is not, and the place of the first."""
    stage = sweep(tmp_path / "runs")
    run, unfinished = next(stage.waves())
    write_run(run, {4: 0.5})
    write_run(unfinished, {4: 0.5}, finished=False)
    return stage, tmp_path / "results" / "mnist" / "tiny" / "norm=none"


def test_collect_keeps_foreign_files(finished, tmp_path, capsys):
    stage, place = finished
    plan.collect([stage], tmp_path / "results", dry_run=True)
    assert f"-> {place}" in capsys.readouterr().out and not place.exists()
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not the run"):
        plan.collect([stage], tmp_path / "results")
    assert [path.name for path in place.iterdir()] == ["notes.txt"]


def test_collect_drops_update_rows_and_updates_documents(finished, tmp_path, monkeypatch):
    (stage, place), written = finished, []
    monkeypatch.setattr(plan.documents, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(plan.documents, "write", lambda: written.append(place.exists()))
    path = stage.folder / "norm=none" / "metrics.jsonl"
    rows = runs.read_rows(path)
    runs.write_rows(path, [rows[0] | dict(split="update"), *rows])
    plan.collect([stage], tmp_path / "results", dry_run=True)
    assert not written
    plan.collect([stage], tmp_path / "results")
    assert written == [True] and [path.name for path in place.parent.iterdir()] == ["norm=none"]
    assert runs.read_rows(place / "metrics.jsonl") == rows


def test_collect_keeps_results_small(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "LARGEST", 100)
    with pytest.raises(InputError, match="would have .* MB"):
        plan.collect([finished[0]], tmp_path / "results")
    assert not finished[1].exists()


@pytest.mark.parametrize(
    "file, old, new",
    [("config.json", '"none"', '"batch"'), ("metrics.jsonl", '"step": 4', '"step": 9')],
)
def test_collect_keeps_another_or_longer_run(file, old, new, finished, tmp_path):
    stage, place = finished
    plan.collect([stage], tmp_path / "results")
    text = (place / file).read_text()
    assert old in text
    (place / file).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match="not the run"):
        plan.collect([stage], tmp_path / "results")


# --- The plan of the results ---


def test_the_recorded_choice_follows_from_the_stored_runs():
    """Every run behind the choice of figure 6's setting is in results/, and gives it again."""
    planned = {stage.name: stage for stage in plan.read(PLAN, PLAN.parent / "mnist")}
    stage = planned["figure_6_setting"]
    assert not stage.unsettled()
    assert stage.choice and stage.chosen() == plan.flat(stage.choice)
    assert '[stage.choice]\noptimizer.kind = "adam_uncorrected"' in stage.table()


@pytest.mark.slow
def test_a_stopped_plan_resumes(tmp_path):
    every = ", ".join(f'{k}_every = "500 steps"' for k in ("log", "eval", "save"))
    settings = f'settings = {{ data_dir = "{tmp_path.as_posix()}", {every} }}\n'
    path, root = tmp_path / "plan.toml", tmp_path / "runs"
    path.write_text(tiny("tiny").replace("4 steps", "9000000 steps") + settings)
    words = ("scripts.sweep", f"--plan={path}", f"--root={root}")

    with start("-m", *words) as process:
        while not any(path.name.isdigit() for path in root.glob("**/checkpoints/*")):
            time.sleep(0.05)
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 130

    timed = run_command(*words, "--minutes=0.1")
    assert timed.returncode == 0 and "The time is up" in timed.stdout, timed.stdout + timed.stderr
    assert "Resuming at step" in timed.stdout

    (folder,) = runs.find(root)
    length = f"{int(runs.read(folder).progress()) + 1_000} steps"
    path.write_text(path.read_text().replace("9000000 steps", length))
    done = run_command(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    stored = runs.read(folder)
    keys = [(row.step, row.split, row.seed) for row in stored.rows]
    assert stored.finished and len(keys) == len(set(keys)) and stored.config["steps"] == length
