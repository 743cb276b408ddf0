"""Run folders: what is refused, what is kept, what is dropped."""

import importlib
import json
import math
from pathlib import Path
import shutil
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from configs import mnist
from ln.errors import InputError
from ln.training import runs

LANES = [(0, 1e-3), (1, 1e-3)]
STATE = {"params": {"w": jnp.arange(6.0).reshape(2, 3)}, "stats": {}, "step": jnp.zeros(2, int)}


def make_config(**overrides):
    config = mnist.get_config("tiny")
    config.update_from_flattened_dict(overrides)
    return config


def open_run(folder, **overrides):
    return runs.Run(folder, make_config(**overrides), LANES)


def write_steps(run, *steps):
    run.start(0)
    for step in steps:
        run.write(step, None, "update", {"loss": np.array([0.1, 0.2]) * step})


def test_a_folder_of_another_config_is_refused_and_left_as_it_was(tmp_path):
    open_run(tmp_path / "run").close()
    before = (tmp_path / "run/config.json").read_text()
    with pytest.raises(InputError, match=r'norm: "layer" -> "batch".*another --workdir'):
        open_run(tmp_path / "run", norm="batch")
    assert (tmp_path / "run/config.json").read_text() == before
    open_run(tmp_path / "run").close()  # and it is not locked


def test_a_place_is_not_part_of_what_is_computed(tmp_path):
    open_run(tmp_path / "run").close()
    open_run(tmp_path / "run", data_dir="elsewhere").close()


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not empty and holds no config.json"):
        open_run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_in_use_is_refused(tmp_path):
    with open_run(tmp_path / "run"):
        with pytest.raises(InputError, match="Another process is writing"):
            open_run(tmp_path / "run")
    open_run(tmp_path / "run").close()


def test_a_select_mode_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="Did you mean 'max'"):
        open_run(tmp_path / "run", **{"select.mode": "maxi"})
    assert not (tmp_path / "run").exists()  # else the corrected config would be another one


def test_differences_name_every_key_once():
    old = dict(a=1, b=dict(c=2, d=[3]), e=4)
    new = dict(a=1, b=dict(c=5, d=[3]), f=4)
    assert runs.differences(old, new) == ["b.c: 2 -> 5", 'e: 4 -> "(none)"', 'f: "(none)" -> 4']


def test_state_and_sums_come_back_as_they_were(tmp_path):
    with open_run(tmp_path / "run") as run:
        run.start(0)
        run.save(3, STATE, {"loss": np.array([0.1, 1 / 3])}, None)
    with open_run(tmp_path / "run") as run:
        assert run.newest() == 3
        state, sums = run.restore({**STATE, "params": {"w": jnp.zeros((2, 3))}})
    np.testing.assert_array_equal(state["params"]["w"], STATE["params"]["w"])
    assert sums["loss"].tolist() == [0.1, 1 / 3]


def test_without_a_checkpoint_the_state_is_the_fresh_one(tmp_path):
    with open_run(tmp_path / "run") as run:
        assert run.restore(STATE) == (STATE, {})


def test_the_config_of_a_run_comes_back_as_it_was_given(tmp_path):
    open_run(tmp_path / "run").close()
    config = runs.read_config(tmp_path / "run")
    assert config.to_dict() == make_config().to_dict()  # tuples too
    with pytest.raises(InputError, match="is no run folder: there is no .*config.json"):
        runs.read_config(tmp_path)


@pytest.mark.parametrize("mode, best", [("min", 3), ("max", 2)])
def test_a_checkpoint_is_read_by_name_or_step_while_the_run_goes_on(tmp_path, mode, best):
    scores = {1: (0.2, 0.4), 2: (0.9, 0.5), 3: (0.1, 0.3)}  # one per lane

    def read(which):
        return runs.read_checkpoint(tmp_path / "run", which, {"w": np.zeros(2)})["w"].tolist()

    with open_run(tmp_path / "run", **{"select.mode": mode}) as run:
        run.start(0)
        for step, errors in scores.items():
            run.write(step, None, "valid", {"error": np.array(errors)})
            run.save(step, {"w": np.full(2, step)}, {}, float(np.mean(errors)))
        run.save(4, {"w": np.full(2, 4)}, {}, None)  # stopped between two evaluations
        run.newest()
        assert [read(which) for which in ("newest", "best", "3")] == [[4] * 2, [best] * 2, [3] * 2]
        with pytest.raises(InputError, match="Known: .*3, 4, best, newest"):
            read("7")


def test_without_a_checkpoint_or_a_score_there_is_nothing_to_read(tmp_path):
    open_run(tmp_path / "run").close()
    with pytest.raises(InputError, match="has no checkpoints yet"):
        runs.read_checkpoint(tmp_path / "run", "newest", STATE)
    with open_run(tmp_path / "run") as run:
        run.start(0)
        run.save(1, STATE, {}, None)
    with pytest.raises(InputError, match="was evaluated: take the newest"):
        runs.read_checkpoint(tmp_path / "run", "best", STATE)


def test_a_saved_state_is_a_copy(tmp_path):
    leaf = np.zeros((2, 3))
    with open_run(tmp_path / "run") as run:
        run.start(0)
        run.save(1, {"w": leaf}, {}, None)
        leaf += 7  # the trainer reuses the memory while the checkpoint is still being written
        state, _ = run.restore({"w": leaf})
    assert (np.asarray(state["w"]) == 0).all()


def test_a_checkpoint_of_another_shape_is_refused_by_name(tmp_path):
    with open_run(tmp_path / "run") as run:
        run.start(0)
        run.save(3, STATE, {}, None)
        run.newest()
        with pytest.raises(InputError, match="checkpoint of step 3 .* does not fit"):
            run.restore({**STATE, "params": {"v": jnp.zeros((2, 4))}})


def cut(path):
    """Leaves the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil(path):
    path.write_bytes(b"\xff garbage")


def damage(folder, step, file="state/d/*", how=cut):
    """Damages a file of a checkpoint; state/d holds the arrays."""
    (path,) = (folder / "checkpoints" / str(step)).glob(file)
    how(path)


@pytest.mark.parametrize(
    "file, how",
    [
        ("state/d/*", cut),
        ("state/d/*", Path.unlink),
        ("state/d", shutil.rmtree),
        ("state/manifest.ocdbt", spoil),
        ("state/_METADATA", spoil),
        ("sums/metadata", cut),
        ("sums/metadata", Path.unlink),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_taken(
    tmp_path, capsys, file, how
):
    folder = tmp_path / "run"
    with open_run(folder) as run:
        write_steps(run, 1, 2, 3)
        for step in (1, 2):
            run.save(step, {**STATE, "step": jnp.full(2, step)}, {}, None)
    damage(folder, 2, file, how)
    with open_run(folder) as run:
        state, _ = run.restore(STATE)
        assert state["step"].tolist() == [1, 1]
        shown = capsys.readouterr().out
        assert "checkpoint of step 2 is damaged" in shown and "from that of step 1" in shown
        run.start(1)
        run.save(2, {**STATE, "step": jnp.full(2, 2)}, {}, None)
    assert len(list((folder / "damaged").iterdir())) == 1
    with open_run(folder) as run:
        assert run.restore(STATE)[0]["step"].tolist() == [2, 2]


def test_where_all_checkpoints_are_damaged_none_is_moved(tmp_path):
    folder = tmp_path / "run"
    with open_run(folder) as run:
        run.start(0)
        for step in (1, 2):
            run.save(step, STATE, {}, None)
    damage(folder, 1)
    damage(folder, 2)
    with open_run(folder) as run, pytest.raises(InputError, match="checkpoint of step 2"):
        run.restore(STATE)
    assert not (folder / "damaged").exists()


@pytest.mark.parametrize("how", [cut, spoil, lambda path: path.write_text("")])
def test_a_damaged_score_is_made_anew_and_the_best_checkpoint_stays_the_best(tmp_path, capsys, how):
    folder = tmp_path / "run"
    with open_run(folder) as run:
        run.start(0)
        for step, error in ((1, 0.1), (2, 0.3), (3, 0.2)):
            run.write(step, None, "valid", {"error": np.full(2, error)})
            run.save(step, {**STATE, "step": jnp.full(2, step)}, {}, error)
    damage(folder, 1, "metrics/metrics", how)
    damage(folder, 3, "metrics/metrics", how)
    with pytest.raises(InputError, match="metrics is damaged.*command that trains this run"):
        runs.read_checkpoint(folder, "newest", STATE)  # who only reads changes nothing
    with open_run(folder) as run:
        assert run.restore(STATE)[0]["step"].tolist() == [3, 3]
        assert capsys.readouterr().out.count("was damaged; it was made anew") == 2
        run.start(3)
        for step in (4, 5):
            run.save(step, STATE, {}, 0.5)
    assert runs.read_checkpoint(folder, "best", STATE)["step"].tolist() == [1, 1]
    assert {int(p.name) for p in (folder / "checkpoints").iterdir()} == {1, 4, 5}


def test_a_folder_of_somebody_else_among_the_checkpoints_is_left_alone(tmp_path):
    folder = tmp_path / "run"
    with open_run(folder) as run:
        run.start(0)
        run.save(1, STATE, {}, None)
    for name in ("notes", "1 (copy)"):
        (folder / "checkpoints" / name).mkdir()
        (folder / "checkpoints" / name / "mine").write_text("mine")
    with open_run(folder) as run:
        assert run.newest() == 1
        run.restore(STATE)
        for step in (2, 3, 4):
            run.save(step, STATE, {}, None)
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"3", "4", "notes", "1 (copy)"}
    assert (folder / "checkpoints" / "notes" / "mine").read_text() == "mine"


def test_an_empty_folder_that_is_named_like_a_newer_checkpoint_is_set_aside(tmp_path, capsys):
    folder = tmp_path / "run"
    with open_run(folder) as run:
        run.start(0)
        run.save(1, {**STATE, "step": jnp.full(2, 1)}, {}, None)
    (folder / "checkpoints" / "7").mkdir()
    with open_run(folder) as run:
        assert run.restore(STATE)[0]["step"].tolist() == [1, 1]
    assert "checkpoint of step 7 is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("how", [cut, spoil, lambda path: path.write_text("")])
def test_a_damaged_config_or_record_of_data_is_refused_by_name_and_with_a_remedy(tmp_path, how):
    folder = tmp_path / "run"
    config = make_config()
    with runs.Run(folder, config, LANES, {"digits": "a"}) as run:
        run.start(0)
    remedies = {"data.json": "Delete it if the data are the same", "config.json": "Put a copy"}
    for name, remedy in remedies.items():
        before = (folder / name).read_bytes()
        how(folder / name)
        for _ in range(2):  # the second time as the first: it is not locked
            with pytest.raises(InputError, match=f"{name} is damaged .*{remedy}"):
                runs.Run(folder, config, LANES, {"digits": "a"})
        if name == "config.json":
            for read in (runs.load, runs.read_config):
                with pytest.raises(InputError, match="config.json is damaged"):
                    read(folder)
        (folder / name).write_bytes(before)
    (folder / "data.json").unlink()  # as told
    runs.Run(folder, config, LANES, {"digits": "a"}).close()
    assert json.loads((folder / "data.json").read_text()) == {"digits": "a"}


def test_an_empty_finished_json_still_says_that_the_run_is_finished(tmp_path):
    with open_run(tmp_path / "run") as run:
        run.finish(1)
    (tmp_path / "run/finished.json").write_text("")
    open_run(tmp_path / "run").close()
    assert runs.is_finished(tmp_path / "run")


def test_a_half_written_line_of_the_dead_is_dropped(tmp_path):
    with open_run(tmp_path / "run") as run:
        run.start(0)
        for lane in (0, 1):
            run.bury(lane, 2, "the loss is nan")
    path = tmp_path / "run/dead.jsonl"
    path.write_bytes(path.read_bytes()[:-9] + b"\xff")
    with open_run(tmp_path / "run") as run:
        assert run.buried() == {0}
        run.start(2)
    assert len(path.read_text().splitlines()) == 1


def test_where_the_last_checkpoint_cannot_be_written_the_folder_is_let_go_of(tmp_path, monkeypatch):
    said = "RESOURCE_EXHAUSTED: Failed to write 9 bytes: No room [os_error_code='28']"
    with pytest.raises(OSError, match="Errno 28"), open_run(tmp_path / "run") as run:
        run.start(0)

        def late(wait=run._checkpoints.wait_until_finished):
            monkeypatch.undo()
            wait()
            raise ValueError(said)

        run.save(1, STATE, {}, None)
        monkeypatch.setattr(run._checkpoints, "wait_until_finished", late)
    assert run._file.closed
    open_run(tmp_path / "run").close()


def test_a_run_is_not_resumed_on_other_data(tmp_path):
    config = make_config()
    with runs.Run(tmp_path / "run", config, LANES, {"mnist": "a", "digits": "b"}):
        pass
    with runs.Run(tmp_path / "run", config, LANES, {"mnist": "a"}):
        pass
    with pytest.raises(InputError, match="other data: digits has changed"):
        runs.Run(tmp_path / "run", config, LANES, {"mnist": "a", "digits": "c"})
    with runs.Run(tmp_path / "run", config, LANES, {"mnist": "a", "digits": "b"}):
        pass  # the lock was let go of


@pytest.mark.parametrize("mode, best", [("min", 2), ("max", 3)])
def test_the_newest_two_and_the_best_checkpoint_are_kept(tmp_path, mode, best):
    with open_run(tmp_path / "run", **{"select.mode": mode}) as run:
        run.start(0)
        for step, score in enumerate([0.5, 0.3, 0.9, 0.6, 0.5, 0.4], start=1):
            run.save(step, STATE, {}, score)
    kept = {int(p.name) for p in (tmp_path / "run/checkpoints").iterdir()}
    assert kept == {best, 5, 6}


def test_the_best_checkpoint_is_known_to_later_sessions(tmp_path):
    for scores in ((0.5, 0.1, 0.9), (0.7, None, 0.8)):
        with open_run(tmp_path / "run") as run:
            first = (run.newest() or 0) + 1
            run.start(first - 1)
            for step, score in enumerate(scores, start=first):
                run.save(step, STATE, {}, score)
    kept = {int(p.name) for p in (tmp_path / "run/checkpoints").iterdir()}
    assert kept == {2, 5, 6}


def test_rows_beyond_the_checkpoint_are_dropped(tmp_path):
    with open_run(tmp_path / "run") as run:
        write_steps(run, 1, 2, 3)
    with open_run(tmp_path / "run") as run:
        run.start(2)
    _, rows = runs.load(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 1, 2, 2]


def test_a_half_written_last_row_is_dropped(tmp_path):
    with open_run(tmp_path / "run") as run:
        write_steps(run, 1)
    path = tmp_path / "run/metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 1, "sp')
    assert len(runs.load(tmp_path / "run")[1]) == 2
    with open_run(tmp_path / "run") as run:
        run.start(1)
    assert path.read_text().endswith("}\n") and path.read_text().count("\n") == 2


# --- The reader ---

CONFIG = dict(
    experiment="mnist",
    seeds=[0, 1],
    lr=[0.1, 0.2],
    steps="4 steps",
    select=dict(split="valid", metric="error", mode="min"),
)
ROW = dict(step=1, epoch=None, split="valid", seed=0, lr=0.1, error=0.5)


def store(folder, errors, mode="min", **diverged):
    """Write a run with a reading of config.select for each (step, seed, lr)."""
    folder.mkdir()
    select = CONFIG["select"] | dict(mode=mode)
    (folder / "config.json").write_text(json.dumps(CONFIG | dict(select=select)))
    rows = [
        ROW | dict(step=step, seed=seed, lr=lr, error=error)
        for (step, seed, lr), error in errors.items()
    ]
    runs.write_rows(folder / "metrics.jsonl", rows)
    for name, lines in diverged.items():
        runs.write_rows(folder / f"{name}.jsonl", lines)
    return runs.read(folder)


def of_all(values, step):
    lanes = [(0, 0.1), (0, 0.2), (1, 0.1), (1, 0.2)]
    return {(step, *lane): value for lane, value in zip(lanes, values, strict=True)}


def test_scores_are_means_over_lanes(tmp_path):
    errors = of_all([1, 2, 3, 4], 1) | of_all([2, 0, 4, 0], 2) | {(3, 0, 0.1): 0.0}
    run = store(tmp_path / "run", errors)
    assert run.lanes == [(0, 0.1), (0, 0.2), (1, 0.1), (1, 0.2)] == run.remaining
    assert run.scores() == {1: 2.5, 2: 1.5}  # step 3 lacks lanes
    assert run.scores([(0, 0.1), (1, 0.1)]) == {1: 2, 2: 3}
    assert run.best() == (2, 1.5) and run.best(steps=[1, 3]) == (1, 2.5)
    assert run.best([(0, 0.1)]) == (3, 0.0) and run.progress() == 3 and run.progress("epoch") == 0


@pytest.mark.parametrize("mode, best", [("min", (2, 0.2)), ("max", (5, 0.8))])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_never_wins(tmp_path, mode, best, bad):
    errors = dict(enumerate([bad, 0.2, bad, 0.7, 0.8], start=1))
    run = store(tmp_path / "run", {(step, 0, 0.1): x for step, x in errors.items()}, mode)
    assert run.best([(0, 0.1)]) == best and run.best([(0, 0.1)], steps=[1, 3]) is None
    assert "NaN" not in (tmp_path / "run/metrics.jsonl").read_text()


@pytest.mark.parametrize("name", ["diverged", "dead"])  # now and in earlier versions
def test_scores_leave_out_diverged_lanes(tmp_path, name):
    lines = [dict(step=2, seed=0, lr=0.1, cause="the loss is nan")]
    run = store(tmp_path / "run", of_all([9, 1, 2, 3], 1), **{name: lines})
    assert run.diverged == {(0, 0.1): (2, "the loss is nan")}
    assert run.remaining == [(0, 0.2), (1, 0.1), (1, 0.2)] and run.scores() == {1: 2}


def test_the_lanes_that_diverged_last_remain(tmp_path):
    lines = [dict(step=step, seed=seed, lr=lr, cause="") for (step, seed, lr) in of_all([0] * 4, 3)]
    lines[2] |= dict(step=7)
    run = store(tmp_path / "run", of_all([9, 1, 2, 3], 1), diverged=lines)
    assert run.remaining == [(1, 0.1)] and run.best() == (1, 2)


def test_a_run_is_read_before_its_first_row(tmp_path):
    open_run(tmp_path / "run").close()
    run = runs.read(tmp_path / "run")
    assert (run.rows, run.sessions, run.finished, run.best()) == ([], [], False, None)


BAD_ROWS = [
    "12",
    "[]",
    "null",
    "[" * 100_000,
    "9" * 5000,
    *(
        json.dumps(ROW | change)
        for change in (
            dict(step="1"),
            dict(step=True),
            dict(step=-1),
            dict(step=1.5),
            dict(seed=None),
            dict(lr=math.nan),
            dict(lr=10**400),
            dict(split=0),
            dict(epoch="1"),
            dict(error="0.5"),
            dict(error=[]),
            dict(error=10**400),
        )
    ),
    json.dumps({k: v for k, v in ROW.items() if k != "error"}),
    '{"st',
]
BAD_CONFIGS = [
    "12",
    "[]",
    "{}",
    "",
    "[" * 100_000,
    *(
        json.dumps(CONFIG | change)
        for change in (
            dict(experiment=1),
            dict(seeds=0),
            dict(seeds=["0"]),
            dict(lr=[None]),
            dict(lr=[math.inf]),
            dict(steps=None),
            dict(select="error"),
            dict(select=CONFIG["select"] | dict(mode="mni")),
        )
    ),
]


@pytest.mark.parametrize("line", BAD_ROWS, ids=lambda text: text[:40])
def test_malformed_rows_raise_one_line(tmp_path, line):
    store(tmp_path / "run", {(1, 0, 0.1): 0.5})
    path = tmp_path / "run/metrics.jsonl"
    path.write_text(f"{path.read_text()}{line}\n{json.dumps(ROW)}\n")
    for read in (runs.read, runs.load):
        with pytest.raises(InputError, match="metrics.jsonl line 2 is damaged") as raised:
            read(tmp_path / "run")
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


@pytest.mark.parametrize("text", BAD_CONFIGS, ids=lambda text: text[:40])
def test_malformed_configs_raise_one_line(tmp_path, text):
    store(tmp_path / "run", {})
    (tmp_path / "run/config.json").write_text(text)
    for read in (runs.read, runs.load, runs.read_config):
        with pytest.raises(InputError, match="config.json is damaged .*Put a copy") as raised:
            read(tmp_path / "run")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["sessions", "evaluations", "diverged", "dead"])
@pytest.mark.parametrize("line", ["12", "{}", "[" * 100_000], ids=lambda text: text[:5])
def test_malformed_lines_of_other_files_raise_one_line(tmp_path, name, line):
    store(tmp_path / "run", {})
    (tmp_path / f"run/{name}.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=f"{name}.jsonl line 1 is damaged"):
        runs.read(tmp_path / "run")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "null"])
def test_a_metric_that_was_not_finite_is_nan_or_infinite(tmp_path, text):
    store(tmp_path / "run", {(1, 0, 0.1): 0.5})
    path = tmp_path / "run/metrics.jsonl"
    path.write_text(path.read_text().replace("0.5", text))
    (row,) = runs.read(tmp_path / "run").rows
    assert not math.isfinite(row.values["error"])


def test_a_session_tells_what_the_numbers_may_depend_on(tmp_path):
    with open_run(tmp_path / "run") as run:
        run.start(0)
    with open_run(tmp_path / "run") as run:
        run.start(0)
    sessions = [json.loads(s) for s in (tmp_path / "run/sessions.jsonl").read_text().splitlines()]
    assert len(sessions) == 2
    wanted = {"time", "command", "step", "commit", "python", "versions", "device", "backend"}
    assert wanted <= sessions[0].keys() and "jax" in sessions[0]["versions"]


def test_a_half_written_session_does_not_spoil_the_next(tmp_path):
    with open_run(tmp_path / "run") as run:
        run.start(0)
    path = tmp_path / "run/sessions.jsonl"
    path.write_text(path.read_text() + '{"time": "20')
    with open_run(tmp_path / "run") as run:
        run.start(0)
    assert len(runs.read_rows(path)) == 2


def test_finished_runs_are_told_from_others(tmp_path):
    with open_run(tmp_path / "run") as run:
        write_steps(run, 1)
        assert not runs.is_finished(tmp_path / "run")
        run.finish(1)
    assert runs.is_finished(tmp_path / "run")
    assert list(runs.find(tmp_path)) == [tmp_path / "run"]


def test_tensorboard_shows_the_rows_and_none_twice(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_run(tmp_path / "run") as run:
        write_steps(run, 1, 2, 3)
    with open_run(tmp_path / "run") as run:
        run.start(2)
        run.write(4, None, "update", {"loss": np.array([0.4, 0.8])})
    events = EventAccumulator(str(tmp_path / "run/events/seed=1,lr=0.001"))
    events.Reload()
    (tag,) = events.Tags()["tensors"]
    assert tag == "update/loss" and [e.step for e in events.Tensors(tag)] == [1, 2, 4]


def test_a_machine_without_tensorboard_trains_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with open_run(tmp_path / "run") as run:
        write_steps(run, 1)
    assert "No tensorboard" in capsys.readouterr().out
    assert len(runs.load(tmp_path / "run")[1]) == 2


# --- Runs of earlier versions ---

RESULTS = Path(__file__).parent.parent / "results"


def module_of(config):
    return importlib.import_module(f"configs.{config['experiment']}")


def former(config: dict) -> dict:
    """Return a config as an earlier version would have written it, for values that invert."""
    config = {k: v for k, v in config.items() if k not in ("schedule", "init_std")}
    for row in runs.RENAMED:
        if config["experiment"] in row.experiments and row.new in config:
            value = config.pop(row.new)
            config[row.old] = 1 - value if row.new == "dropout_rate" else value
    return config | dict(data_seed=0)


STORED = {p.parent: json.loads(p.read_text()) for p in sorted(RESULTS.rglob("config.json"))}


@pytest.mark.parametrize(
    "folder",
    [folder for folder, config in STORED.items() if runs.is_former(config)],
    ids=lambda p: str(p.relative_to(RESULTS)),
)
def test_former_runs_are_read_and_resumed(folder, tmp_path):
    stored = STORED[folder]
    config, rows = runs.load(folder)
    known = runs.as_json(module_of(config).get_config(config["scale"]))
    assert set(config) == set(known)  # under the present names, none left and none missing
    for row in runs.RENAMED:
        if config["experiment"] in row.experiments and row.old in stored:
            assert row.old not in config and config[row.new] == row.convert(stored[row.old])
    assert rows and config["norm"] in config["norms"]
    shutil.copytree(folder, tmp_path / "run")
    lanes = [(seed, lr) for seed in config["seeds"] for lr in config["lr"]]
    run = runs.Run(tmp_path / "run", runs.read_config(folder), lanes)
    assert run.data_seed == stored["data_seed"]
    run.close()
    assert (tmp_path / "run/config.json").read_text() == (folder / "config.json").read_text()


def test_stored_configs_have_the_present_keys():
    for folder, stored in STORED.items():
        config = runs.modernize(stored)
        known = module_of(config).get_config(config["scale"])
        assert set(config) == set(known), folder


@pytest.mark.parametrize("name", ["mnist", "attentive_reader", "skip_thoughts", "handwriting"])
def test_the_command_of_a_former_run_resumes_it(name, tmp_path):
    """Its defaults were other ones; the folder keeps them, and its own names."""
    config = importlib.import_module(f"configs.{name}").get_config("tiny")
    (tmp_path / "run").mkdir()
    path, old = tmp_path / "run/config.json", former(runs.as_json(config))
    path.write_text(json.dumps(old))
    for steps in (config.steps, "9 steps", "9 steps"):
        config.steps = steps
        with runs.Run(tmp_path / "run", config, LANES) as run:
            assert run.data_seed == 0
        assert json.loads(path.read_text()) == old | dict(steps=steps)
    config.batch_size += 1
    with pytest.raises(InputError, match="was made by another config .batch_size"):
        runs.Run(tmp_path / "run", config, LANES)


def test_dropout_rates_are_those_of_the_stored_keep():
    stored = dict(experiment="attentive_reader", keep=0.9, words=3, data_seed=0)
    found = runs.modernize(stored)
    assert found["dropout_rate"] == 0.1 and found["embedding_dim"] == 3
    assert "keep" not in found and found["schedule"] == dict(kind="constant", tau=0.0)


def test_a_new_run_is_not_taken_for_a_former_one(tmp_path):
    open_run(tmp_path / "run", data_seed=0).close()
    with pytest.raises(InputError, match="data_seed: 0 -> -1"):
        open_run(tmp_path / "run")
    own = dict(experiment="mine", words=7, longest=2)  # another experiment's keys stay as they are
    assert runs.modernize(own | dict(data_seed=3)).items() >= own.items()
