"""Run folders: what is rejected, kept, dropped and read."""

import errno
import importlib
import json
import math
import os
from pathlib import Path
import shutil
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from configs import mnist
from ln.errors import InputError, writing
from ln.training import origin, runs

LANES = [(0, 1e-3), (1, 1e-3)]
STATE = {"params": {"w": jnp.arange(6.0).reshape(2, 3)}, "stats": {}, "step": jnp.zeros(2, int)}


def make_config(**overrides):
    config = mnist.get_config("tiny")
    config.update_from_flattened_dict(dict(seeds=(0, 1)) | overrides)
    return config


def open_run(folder, data=None, **overrides):
    return runs.Run(folder, make_config(**overrides), LANES, data)


def write_steps(run, *steps):
    run.start(0)
    for step in steps:
        run.write(step, None, "update", {"loss": np.array([0.1, 0.2]) * step})


def save(run, step, error=None):
    """Write a checkpoint of a step, and its score if there is one."""
    if error is not None:
        run.write(step, None, "valid", {"error": np.full(2, error)})
    run.save(step, {**STATE, "step": jnp.full(2, step)}, {})


def kept(folder):
    return {int(p.name) for p in (folder / "checkpoints").iterdir()}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


# --- Opening ---


def test_a_run_of_another_config_raises(folder):
    open_run(folder).close()
    before = (folder / "config.json").read_text()
    with pytest.raises(InputError, match=r'norm: "layer" -> "batch".*another --workdir'):
        open_run(folder, norm="batch")
    assert (folder / "config.json").read_text() == before
    open_run(folder, data_dir="elsewhere").close()  # no setting; and the lock was released


def test_a_folder_of_other_files_raises(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not empty and holds no config.json"):
        open_run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_other_data_raise(folder):
    open_run(folder, {"mnist": "a", "digits": "b"}).close()
    open_run(folder, {"mnist": "a"}).close()
    with pytest.raises(InputError, match="other data: digits has changed"):
        open_run(folder, {"mnist": "a", "digits": "c"})
    open_run(folder, {"mnist": "a", "digits": "b"}).close()  # the lock was released


def test_differences_name_every_key_once():
    old = dict(a=1, b=dict(c=2, d=[3]), e=4)
    new = dict(a=1, b=dict(c=5, d=[3]), f=4)
    assert runs.differences(old, new) == ["b.c: 2 -> 5", 'e: 4 -> "(none)"', 'f: "(none)" -> 4']


# --- Checkpoints ---


def test_a_checkpoint_returns_a_copy_of_state_and_sums(folder):
    leaf = np.ones((2, 3))
    with open_run(folder) as run:
        assert run.restore(STATE) == (STATE, {})
        run.start(0)
        run.save(3, {"w": leaf}, {"loss": np.array([0.1, 1 / 3])})
        leaf += 7  # the trainer reuses the memory while the checkpoint is still being written
    with open_run(folder) as run:
        assert run.newest() == 3
        state, sums = run.restore({"w": leaf})
    assert (np.asarray(state["w"]) == 1).all()
    assert {name: values.tolist() for name, values in sums.items()} == {"loss": [0.1, 1 / 3]}


@pytest.mark.parametrize("mode, best", [("min", 2), ("max", 5)])
def test_the_newest_two_and_the_best_checkpoint_are_kept(folder, mode, best):
    """In a second session too, and with a score that is not finite."""
    for first, errors in ((1, [0.5, 0.1]), (3, [math.nan, None, 0.9, 0.6, 0.5])):
        with open_run(folder, **{"select.mode": mode}) as run:
            run.restore(STATE)
            run.start(first - 1)
            for step, error in enumerate(errors, start=first):
                save(run, step, error)
    assert kept(folder) == {best, 6, 7}

    def read(which):
        return runs.read_checkpoint(folder, which, STATE)["step"].tolist()

    with open_run(folder, **{"select.mode": mode}):  # it may be training
        assert [read(which) for which in ("newest", "best", "6")] == [[7] * 2, [best] * 2, [6] * 2]
        with pytest.raises(InputError, match="Known: .*6, 7, best, newest"):
            read("8")


def test_a_missing_checkpoint_or_score_raises(folder):
    open_run(folder).close()
    with pytest.raises(InputError, match="has no checkpoints yet"):
        runs.read_checkpoint(folder, "newest", STATE)
    with open_run(folder) as run:
        run.start(0)
        save(run, 1)
    with pytest.raises(InputError, match="has a score: take the newest"):
        runs.read_checkpoint(folder, "best", STATE)


def test_a_checkpoint_of_another_shape_raises(folder):
    with open_run(folder) as run:
        run.start(0)
        save(run, 3)
        run.newest()
        with pytest.raises(InputError, match="checkpoint of step 3 .* does not fit"):
            run.restore({**STATE, "params": {"v": jnp.zeros((2, 4))}})


def cut(path):
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil(path):
    path.write_bytes(b"\xff garbage")


def flip(path):
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    "file, damage",
    [
        *(("state/d/*", damage) for damage in (cut, flip)),  # the arrays
        ("state/d", shutil.rmtree),
        ("state/manifest.ocdbt", spoil),
        ("state/_METADATA", spoil),
        *(("sums/metadata", damage) for damage in (Path.unlink, flip)),
        ("*", lambda path: shutil.rmtree(path) if path.is_dir() else path.unlink()),  # all of it
    ],
)
def test_a_damaged_checkpoint_is_set_aside(folder, capsys, file, damage):
    with open_run(folder) as run:
        run.start(0)
        save(run, 1, 0.5)
        save(run, 2, 0.4)
    for path in list((folder / "checkpoints/2").glob(file)):
        damage(path)
    with pytest.raises(InputError, match="not fit|Known: .*1, best"):
        runs.read_checkpoint(folder, "2", STATE)
    with open_run(folder) as run:
        assert run.restore(STATE)[0]["step"].tolist() == [1, 1]
        shown = capsys.readouterr().out
        assert "checkpoint of step 2 is damaged" in shown and "from that of step 1" in shown
        run.start(1)
        save(run, 2)
    assert len(list((folder / "damaged").iterdir())) == 1
    with open_run(folder) as run:
        assert run.restore(STATE)[0]["step"].tolist() == [2, 2]


def test_no_checkpoint_is_moved_if_all_are_damaged(folder):
    with open_run(folder) as run:
        run.start(0)
        save(run, 1)
        save(run, 2)
    for path in (folder / "checkpoints").glob("*/state/d/*"):
        cut(path)
    with open_run(folder) as run, pytest.raises(InputError, match="checkpoint of step 2"):
        run.restore(STATE)
    assert not (folder / "damaged").exists()


def test_a_failed_last_checkpoint_releases_the_folder(folder, monkeypatch):
    text = "RESOURCE_EXHAUSTED: Failed to write 9 bytes: No room [os_error_code='28']"
    with pytest.raises(OSError, match="No room"), open_run(folder) as run:
        run.start(0)

        def late(wait=run._checkpoints.wait_until_finished):
            monkeypatch.undo()
            wait()
            raise ValueError(text)

        save(run, 1)
        monkeypatch.setattr(run._checkpoints, "wait_until_finished", late)
    assert run._file.closed
    open_run(folder).close()


# --- Rows and sessions ---


def save_twice(folder):
    """Write two sessions; in each a row, a lane that diverges, and a checkpoint."""
    for step in (1, 2):
        with open_run(folder, {"digits": "a"}) as run:
            run.restore(STATE)
            run.start(step - 1)
            run.write(step, None, "update", {"loss": np.array([0.1, 0.2])})
            run.diverge(step - 1, runs.Divergence(step, "the loss is nan"))
            save(run, step)


LOGS = ("metrics.jsonl", "diverged.jsonl", "sessions.jsonl")


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("change", [lambda s: "", lambda s: s[:20], lambda s: s.replace("1", "2")])
def test_rows_lost_before_all_checkpoints_raise(folder, name, change):
    save_twice(folder)
    path = folder / name
    path.write_text(left := change(path.read_text()))
    with (
        pytest.raises(InputError, match=f"{name} has .* up to step 2. Put the whole file back"),
        open_run(folder) as run,
    ):
        run.restore(STATE)
    assert path.read_text() == left


@pytest.mark.parametrize("name", LOGS)
def test_an_older_checkpoint_is_taken_if_rows_are_lost(folder, name, capsys):
    save_twice(folder)
    path = folder / name
    text = path.read_text()
    path.write_text(text[: text.rindex("\n", 0, -1) + 1])
    with open_run(folder) as run:
        assert run.restore(STATE)[0]["step"].tolist() == [1, 1]
        run.start(1)
        assert len(runs.read(folder).rows) == 2 and run.diverged == {0}
    assert "step 2 is damaged, or rows before it are" in capsys.readouterr().out


def test_lost_digests_of_data_are_noticed(folder):
    save_twice(folder)
    (folder / "data.json").unlink()
    with open_run(folder, {"digits": "b"}) as run, pytest.raises(InputError, match="data.json has"):
        run.restore(STATE)
    (folder / "data.json").unlink()
    with open_run(folder, {"digits": "a"}) as run:  # they are the same still
        assert run.restore(STATE)[0]["step"].tolist() == [2, 2]


def test_a_checkpoint_of_an_earlier_version_counts_rows(folder):
    """It has no digests."""
    save_twice(folder)
    for path in (folder / "checkpoints").glob("*/sums/metadata"):
        path.write_text(json.dumps({"loss": [0.5, 1.0], "rows so far": 3}))
    with open_run(folder) as run:
        state, sums = run.restore(STATE)
        assert state["step"].tolist() == [2, 2] and sums["loss"].tolist() == [0.5, 1.0]
        (folder / "metrics.jsonl").write_text("")
        with pytest.raises(InputError, match="has 0 of 3 rows"):
            run.restore(STATE)


def test_another_arithmetic_raises(folder, monkeypatch):
    save_twice(folder)
    monkeypatch.setattr(runs, "arithmetic", lambda: origin.arithmetic() | dict(enable_x64="True"))
    with pytest.raises(InputError, match='enable_x64: false -> "True"'):
        open_run(folder)
    rows = [{k: v for k, v in row.items() if k != "arithmetic"} for row in sessions(folder)]
    runs.write_rows(folder / "sessions.jsonl", rows)  # as earlier versions wrote it
    open_run(folder).close()


def sessions(folder):
    return runs.read(folder).sessions


def test_other_settings_of_the_machine_are_one_line(folder, monkeypatch, capsys):
    for value in ("1", "1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        with open_run(folder) as run:
            run.start(0)
    shown = capsys.readouterr().out
    assert 'rounding may differ: tuning.OMP_NUM_THREADS: "1" -> "2".' in shown
    assert shown.count("rounding") == 1
    assert sessions(folder)[-1]["tuning"]["OMP_NUM_THREADS"] == "2"


def test_a_commit_is_of_the_repository_that_tracks_the_code(monkeypatch, tmp_path):
    copied = tmp_path / "ln" / "training" / "origin.py"
    copied.parent.mkdir(parents=True)
    monkeypatch.setattr(origin, "__file__", str(copied))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert runs.commit() is None
    assert len(origin.code()) == 64


@pytest.mark.parametrize("name, count", [("metrics", 2), ("sessions", 2), ("diverged", 1)])
def test_a_half_written_last_line_is_dropped(folder, name, count):
    with open_run(folder) as run:
        write_steps(run, 1)
        run.diverge(0, runs.Divergence(1, "the loss is nan"))
    path = folder / f"{name}.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 1, "sp\xff')
    assert len(runs.load(folder)[1]) == 2
    with open_run(folder) as run:
        run.start(1)
        assert run.diverged == {0}
    assert path.read_text().endswith("}\n") and len(runs.read_rows(path)) == count


def test_a_run_is_finished_once_it_says_so(folder):
    with open_run(folder) as run:
        write_steps(run, 1)
        assert not runs.is_finished(folder)
        run.finish(1)
    assert runs.is_finished(folder) and list(runs.find(folder.parent)) == [folder]
    (session,) = runs.read(folder).sessions
    wanted = {"time", "command", "step", "commit", "python", "versions", "device", "backend"}
    assert wanted <= session.keys() and "jax" in session["versions"]


def test_tensorboard_shows_each_row_once_and_settings(folder):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    with open_run(folder) as run:
        write_steps(run, 1, 2, 3)
    with open_run(folder) as run:
        run.start(2)
        run.write(4, None, "update", {"loss": np.array([0.4, 0.8])})
    events = EventAccumulator(str(folder / "events/seed=1,lr=0.001"))
    events.Reload()
    assert events.Tags()["scalars"] == ["update/loss"]
    read = [(event.step, event.value) for event in events.Scalars("update/loss")]
    np.testing.assert_allclose(read, [(1, 0.2), (2, 0.4), (4, 0.8)], rtol=1e-6)
    (content,) = events.PluginTagToContent("hparams").values()
    start = metadata.parse_session_start_info_plugin_data(content).hparams
    assert (start["norm"].string_value, start["lr"].number_value) == ("layer", 1e-3)
    assert start["optimizer.b2"].number_value == 0.999 and start["seed"].number_value == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of another package's threads
def test_wandb_keeps_the_rows_offline(folder, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with open_run(folder, writers=("wandb",)) as run:
        write_steps(run, 1)
    kept = list(folder.glob("wandb/offline-run-*/*.wandb"))
    for _ in range(100):  # its own process writes them
        if rows_are_written := all(b"update/loss" in path.read_bytes() for path in kept):
            break
        time.sleep(0.1)
    assert len(kept) == 2 and rows_are_written and not (folder / "events").exists()


def test_a_writer_that_is_not_installed_is_left_out(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard.plugins.hparams", None)
    with open_run(folder) as run:
        write_steps(run, 1)
    assert "tensorboard is left out" in capsys.readouterr().out and len(runs.load(folder)[1]) == 2
    open_run(folder, writers=()).close()  # no setting of the run


# --- Tables ---


def test_tables_have_each_value_and_the_best(tmp_path, capsys):
    pytest.importorskip("pandas")
    store(tmp_path / "a", all_lanes([4, 3, 2, 9], 1) | all_lanes([3, 5, 2, 1], 2))
    store(tmp_path / "b", {}).folder.joinpath("metrics.jsonl").write_text("12\n")
    values, final = runs.table(tmp_path), runs.results(tmp_path)
    assert "Skipped a broken run" in capsys.readouterr().out
    columns = "run experiment norm seed lr step epoch split metric value".split()
    assert list(values.columns) == columns and len(values) == 8 and set(values.run) == {"a"}
    row = values[(values.seed == 1) & (values.lr == 0.2) & (values.step == 2)].iloc[0]
    assert (row.experiment, row.split, row.metric, row.value) == ("mnist", "valid", "error", 1)
    final = final.set_index("lr")  # of seeds 0 and 1: 3 and 2, 3 and 1
    assert final["mean"].to_dict() == {0.1: 2.5, 0.2: 2.0} and set(final.seeds) == {2}
    assert final["std"].to_dict() == pytest.approx({0.1: 0.5**0.5, 0.2: 2**0.5})


def test_tables_without_pandas_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"layer-normalization-jax\[tables\]"):
        runs.table(tmp_path)


# --- The reader ---

SELECT = dict(split="valid", metric="error", mode="min")
CONFIG = dict(experiment="mnist", seeds=[0, 1], lr=[0.1, 0.2], steps="4 steps", select=SELECT)
ROW = dict(step=1, epoch=None, split="valid", seed=0, lr=0.1, error=0.5)


def store(folder, errors, mode="min", **diverged):
    """Write a run with a reading of config.select for each (step, seed, lr)."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | dict(select=SELECT | dict(mode=mode))))
    rows = [
        ROW | dict(step=step, seed=seed, lr=lr, error=error)
        for (step, seed, lr), error in errors.items()
    ]
    runs.write_rows(folder / "metrics.jsonl", rows)
    for name, lines in diverged.items():
        runs.write_rows(folder / f"{name}.jsonl", lines)
    return runs.read(folder)


def all_lanes(values, step):
    lanes = [(0, 0.1), (0, 0.2), (1, 0.1), (1, 0.2)]
    return {(step, *lane): value for lane, value in zip(lanes, values, strict=True)}


def test_scores_are_means_over_lanes(folder):
    errors = all_lanes([1, 2, 3, 4], 1) | all_lanes([2, 0, 4, 0], 2) | {(3, 0, 0.1): 0.0}
    run = store(folder, errors)
    assert run.lanes == [(0, 0.1), (0, 0.2), (1, 0.1), (1, 0.2)] == run.remaining
    assert run.scores() == {1: 2.5, 2: 1.5}  # step 3 lacks lanes
    assert run.scores([(0, 0.1), (1, 0.1)]) == {1: 2, 2: 3}
    assert run.best() == (2, 1.5) and run.best(steps=[1, 3]) == (1, 2.5)
    assert run.best([(0, 0.1)]) == (3, 0.0) and run.progress() == 3 and run.progress("epoch") == 0


@pytest.mark.parametrize("mode, best", [("min", (2, 0.2)), ("max", (5, 0.8))])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_never_wins(folder, mode, best, bad):
    errors = dict(enumerate([bad, 0.2, bad, 0.7, 0.8], start=1))
    run = store(folder, {(step, 0, 0.1): x for step, x in errors.items()}, mode)
    assert run.best([(0, 0.1)]) == best and run.best([(0, 0.1)], steps=[1, 3]) is None
    json.loads((folder / "metrics.jsonl").read_text().splitlines()[0], parse_constant=pytest.fail)


@pytest.mark.parametrize("name", ["diverged", "dead"])  # now and in earlier versions
def test_scores_leave_out_diverged_lanes(folder, name):
    lines = [dict(step=2, seed=0, lr=0.1, cause="the loss is nan")]
    run = store(folder, all_lanes([9, 1, 2, 3], 1), **{name: lines})
    assert run.diverged == {(0, 0.1): (2, "the loss is nan")}
    assert run.remaining == [(0, 0.2), (1, 0.1), (1, 0.2)] and run.scores() == {1: 2}
    lines += [dict(line, seed=seed, lr=lr) for line in lines for seed, lr in run.remaining]
    lines[2] |= dict(step=7)
    run = store(folder, all_lanes([9, 1, 2, 3], 1), **{name: lines})
    assert run.remaining == [(1, 0.1)] and run.best() == (1, 2)  # the last to diverge


def test_a_run_is_read_before_its_first_row(folder):
    open_run(folder).close()
    run = runs.read(folder)
    assert (run.rows, run.sessions, run.finished, run.best()) == ([], [], False, None)
    assert runs.read_config(folder).to_dict() == make_config().to_dict()  # tuples too
    with pytest.raises(InputError, match="is no run folder: there is no .*config.json"):
        runs.read(folder.parent)


NO_OBJECTS = ["12", "[" * 100_000, "9" * 5000]
CHANGED_ROWS = [
    *(dict(step="1"), dict(step=1.5), dict(step=math.nan), dict(seed=None), dict(epoch="first")),
    *(dict(lr="fast"), dict(lr=10**400), dict(error="low"), dict(error=[])),
]
CHANGED_CONFIGS = [
    *(dict(seeds=0), dict(seeds=["0"]), dict(experiment=1), dict(lr=[None]), dict(steps=None)),
    *(dict(select="error"), dict(select={}), dict(select=SELECT | dict(mode="mni"))),
]


CHANGED = {
    "metrics.jsonl": [
        *(json.dumps(ROW | change) for change in CHANGED_ROWS),
        *(json.dumps({k: v for k, v in ROW.items() if k != name}) for name in ROW),
        '{"st',
    ],
    "config.json": ["{}", "", *(json.dumps(CONFIG | change) for change in CHANGED_CONFIGS)],
    **{f"{name}.jsonl": ["{}"] for name in ("sessions", "evaluations", "diverged", "dead")},
}


@pytest.mark.parametrize(
    "name, text", [(name, text) for name in CHANGED for text in (*NO_OBJECTS, *CHANGED[name])]
)
def test_malformed_files_raise_one_line(folder, name, text):
    store(folder, {(1, 0, 0.1): 0.5})
    row = json.dumps(ROW)
    lines = [row, text, row] if name == "metrics.jsonl" else [text]
    (folder / name).write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"{name}.* is damaged") as error:
        runs.read(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("damage", [cut, spoil, lambda path: path.write_text("")])
@pytest.mark.parametrize(
    "name, remedy",
    [("config.json", "Put a copy"), ("data.json", "Delete it if the data are the same")],
)
def test_a_damaged_file_is_named_with_a_remedy(folder, damage, name, remedy):
    open_run(folder, {"digits": "a"}).close()
    damage(folder / name)
    for _ in range(2):  # the second time as the first: it is not locked
        with pytest.raises(InputError, match=f"{name} is damaged .*{remedy}"):
            open_run(folder, {"digits": "a"})


@pytest.mark.parametrize("text", ["NaN", "Infinity", "null"])  # earlier versions wrote the first
def test_a_metric_that_was_not_finite_is_read(folder, text):
    store(folder, {(1, 0, 0.1): 0.5})
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text().replace("0.5", text))
    (row,) = runs.read(folder).rows
    assert not math.isfinite(row.values["error"])


# --- Runs of earlier versions ---

RESULTS = Path(__file__).parent.parent / "results"
STORED = {p.parent: json.loads(p.read_text()) for p in sorted(RESULTS.rglob("config.json"))}


def module_of(config):
    return importlib.import_module(f"configs.{config['experiment']}")


def test_stored_runs_are_read_under_the_present_names():
    for folder, stored in STORED.items():
        config, rows = runs.load(folder)
        known = runs.as_json(module_of(config).get_config(config["scale"]))
        assert set(config) == set(known), folder  # none left and none missing
        for row in runs.RENAMED:
            if config["experiment"] in row.experiments and row.old in stored:
                assert row.old not in config and config[row.new] == row.convert(stored[row.old])
        text = (folder / "metrics.jsonl").read_text()
        assert rows and "".join(map(runs.to_line, rows)) == text, folder
        assert runs.read(folder).best() or config["norm"] in config["norms"]


@pytest.mark.parametrize(
    "folder",
    {stored["experiment"]: f for f, stored in STORED.items() if runs.is_former(stored)}.values(),
    ids=lambda p: str(p.relative_to(RESULTS)),
)
def test_former_runs_are_opened_and_continued_under_their_names(folder, tmp_path):
    """Their defaults were others."""
    shutil.copytree(folder, tmp_path / "run")
    path, config, lanes = tmp_path / "run/config.json", runs.read_config(folder), runs.read(folder)
    text = path.read_text()
    for steps in (config.steps, "9 steps", "9 steps"):
        config.steps = steps
        with runs.Run(tmp_path / "run", config, lanes.lanes) as run:
            assert run.data_seed == STORED[folder]["data_seed"]
        assert json.loads(path.read_text()) == json.loads(text) | dict(steps=steps)
        assert steps == "9 steps" or path.read_text() == text
    config.batch_size += 1
    with pytest.raises(InputError, match="was made by another config .batch_size"):
        runs.Run(tmp_path / "run", config, lanes.lanes)


def test_a_new_run_is_not_taken_for_a_former_one(folder):
    open_run(folder, data_seed=0).close()
    with pytest.raises(InputError, match="data_seed: 0 -> -1"):
        open_run(folder)
    own = dict(experiment="mine", words=7, longest=2)  # another experiment's keys stay as they are
    assert runs.modernize(own | dict(data_seed=3)).items() >= own.items()


@pytest.mark.parametrize(
    "code, remedy",
    [
        (errno.ENOSPC, " Make room, or choose another --out; nothing is lost."),
        (errno.EROFS, " Choose another --out; nothing is lost."),
        (errno.EIO, ""),
    ],
)
def test_an_error_of_writing_says_what_to_do(code, remedy):
    error = OSError(code, os.strerror(code))
    with pytest.raises(InputError) as raised, writing("page", "--out", "; nothing is lost"):
        raise error
    assert str(raised.value) == f"Cannot write to page ({error}).{remedy}"
