"""Evaluating a checkpoint again: the scores of training, and estimates of −log p(x)."""

from functools import cache
import multiprocessing

import jax
import numpy as np
import pytest

import experiments
from ln.errors import InputError
from ln.training import runs, train
from ln.training.train import variables_of
from scripts import cli
from tests.commands import assert_rejected, run
from tests.learning import tiny_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def train_one(tmp_path_factory, data_dir):
    @cache
    def train_one(name, **settings):
        folder = tmp_path_factory.mktemp("runs") / "run"
        config = tiny_config(name, data_dir, **dict(seeds=(0, 1)) | settings)
        train.fit(experiments.load(config), config, folder)
        return folder

    return train_one


@pytest.fixture(scope="module")
def workdir(train_one):
    return train_one("draw")


def evaluate(folder, *words):
    """Run the command; return the rows that it appended."""
    path = folder / "evaluations.jsonl"
    before = runs.read_rows(path)
    done = run("scripts.evaluate", f"--workdir={folder}", *words)
    assert done.returncode == 0, done.stderr
    rows = runs.read_rows(path)
    assert rows[: len(before)] == before
    return rows[len(before) :]


@pytest.mark.parametrize("name", ["draw", "mnist"])
def test_evaluation_repeats_the_scores_of_training(train_one, name):
    folder = train_one(name)
    rows = evaluate(folder, "--checkpoint=2")
    logged = {
        (row["split"], row["seed"]): row
        for row in runs.load(folder)[1]
        if row["step"] == 2 and row["split"] != "update"
    }
    assert {(row["split"], row["seed"]) for row in rows} == set(logged)
    for row in rows:
        assert row["step"] == 2 and "--checkpoint=2" in row["command"] and "jax" in row["versions"]
        expected = logged[row["split"], row["seed"]][row["metric"]]
        assert row["value"] == pytest.approx(expected, rel=1e-5)


def test_diverged_lanes_are_left_out(train_one):
    folder = train_one("mnist", seeds=(0,), lr=(1e30, 1e-3))
    rows = evaluate(folder, "--checkpoint=newest")
    assert rows and {(row["lr"], row["step"]) for row in rows} == {(1e-3, 4)}


def test_a_run_of_another_arithmetic_is_not_opened(train_one, monkeypatch):
    now = runs.arithmetic() | dict(enable_x64="True")
    monkeypatch.setattr(runs, "arithmetic", lambda: now)
    with pytest.raises(InputError, match='another arithmetic of jax .enable_x64: false -> "True"'):
        experiments.open_run(train_one("mnist"))


def test_a_config_without_a_key_raises_one_line(tmp_path, capsys):
    config = tiny_config("mnist", tmp_path)
    with config.unlocked():
        del config.hidden
    with pytest.raises(InputError, match="The config lacks hidden, which this network needs."):
        experiments.load(config).init(jax.random.key(0))
    with pytest.raises(SystemExit), cli.one_line():
        _ = config.hidden
    error = capsys.readouterr().err
    assert error.startswith("error: The config of this run lacks a key: ") and "hidden" in error
    assert error.count("\n") == 1


def append(path, name):
    for n in range(30):
        runs.append_rows(path, [dict(name=name, n=n)])


def test_two_processes_append_all_rows(tmp_path):
    spawn, path = multiprocessing.get_context("spawn"), tmp_path / "evaluations.jsonl"
    both = [spawn.Process(target=append, args=(path, name)) for name in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(runs.read_rows(path)) == 60


def test_an_estimate_covers_all_examples_in_blocks(workdir):
    task = experiments.load(runs.read_config(workdir))
    x = task.splits["test"]["x"][np.arange(7) * 300 // 7]
    blocks = x[:4], np.concatenate([x[4:], x[:1] * 0])
    state = train.load(task, workdir, "newest")
    rows = evaluate(workdir, "--checkpoint=newest", "--samples=3", "--cases=7", "--block=4")
    rows = [row for row in rows if "samples" in row]
    assert [row["seed"] for row in rows] == [0, 1]
    for lane, row in enumerate(rows):
        keys = [jax.random.fold_in(jax.random.key(0), n) for n in range(2)]
        parts = [
            task.estimate(variables_of(state, lane), *block, samples=3)
            for block in zip(blocks, keys, strict=True)
        ]
        values = np.concatenate(parts)[:7].astype(float)
        assert row["value"] == pytest.approx(values.mean(), rel=1e-5)
        assert row["error"] == pytest.approx(values.std(ddof=1) / 7**0.5, rel=1e-4)
        assert (row["split"], row["metric"]) == ("test", "bound")
        assert (row["samples"], row["cases"]) == (3, 7)


def test_invalid_commands_raise_one_line(workdir, train_one):
    for words, message in [
        ([f"--workdir={workdir}", "--samples=1", "--split=tset"], "Did you mean 'test'"),
        ([f"--workdir={train_one('mnist')}", "--samples=1"], "leave --samples out"),
    ]:
        assert_rejected(run("scripts.evaluate", *words), message)
