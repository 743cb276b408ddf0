"""The engine optuna: what is asked, what is told, and what is taken up when a launcher dies."""

import datetime
import itertools
import json
import math
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from absl import flags
from absl.testing import flagsaver
import pytest

from configs import mnist
from ln.errors import InputError
from ln.training import runs
from scripts import cli, sweep
from scripts.engines import jobs, search

optuna = pytest.importorskip("optuna")
PROJECT = Path(__file__).parent.parent
TINY = "--config=configs/mnist.py:tiny"
KNOWN = list(sweep.flatten(mnist.get_config("tiny").to_dict()))


class Trainer:
    """Stands in for the process of a run: trains nothing, writes what a run writes.

    Attributes:
        error: (config, seed, lr, evaluation from 1) -> validation error; NaN: the lane is dead.
        looks: polls until it ends; each shows one more evaluation.
        status: its exit status.
        made: all of them.
    """

    made: list = []
    looks, status = 1, 0

    @staticmethod
    def error(config, seed, lr, n):
        return abs(math.log10(lr) + 3) + 0.1 / n + 0.01 * seed

    def __init__(self, job):
        self.job, self.stops, self.seen = job, 0, 0
        self.made.append(self)
        self.config, self.folder = mnist.get_config("tiny"), job.folder
        given = (w[len("--config.") :].split("=") for w in job.words if w.startswith("--config."))
        for key, value in given:
            if key in ("lr", "seeds"):
                value = tuple(map({"lr": float, "seeds": int}[key], value.split(",")))
            self.config[key] = value
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.json").write_text(json.dumps(runs.as_json(self.config)))

    def show(self, count):
        rows, dead = [], {}
        for n in range(1, count + 1):
            for seed in self.config.seeds:
                for lr in self.config.lr:
                    error, row = self.error(self.config, seed, lr, n), dict(seed=seed, lr=lr)
                    if math.isnan(error):
                        dead.setdefault((seed, lr), row | dict(step=n, cause="the loss is nan"))
                    else:
                        rows.append(row | dict(step=n, split="valid", error=error))
        runs.write_rows(self.folder / "metrics.jsonl", rows)
        runs.write_rows(self.folder / "dead.jsonl", list(dead.values()))

    def poll(self):
        self.seen += 1
        self.show(min(self.seen, self.looks))
        if self.stops:
            return cli.INTERRUPTED
        if self.seen < self.looks:
            return None
        if (status := self.status) == 0:
            (self.folder / "finished.json").write_text("{}")
        return status

    wait = poll

    def stop(self):
        self.stops += 1


@pytest.fixture
def trainer(monkeypatch):
    class Fresh(Trainer):
        made = []

    monkeypatch.setattr(jobs, "Process", Fresh)
    monkeypatch.setattr(search, "LOOK", 0.0)
    monkeypatch.setattr(sys, "argv", ["sweep", TINY, "--config.seeds=0,1"])
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver():
        yield Fresh


def make_search(folder, *space, **values):
    for name, value in dict(space=list(space), **values).items():
        setattr(flags.FLAGS, name, value)
    config = mnist.get_config("tiny")
    axes = search.read_space(list(space), KNOWN, search.SAMPLER.value == "grid")
    return search.Search(folder / search.STUDY.value, config, axes)


def trials_of(found):
    return found.study.get_trials(deepcopy=False)


def test_a_space_is_read():
    texts = ["lr=log:1e-4:1e-2", "hidden=int:50:200", "norm=none,layer"]
    lr, hidden, norm = search.read_space(texts, KNOWN, grid=False)
    assert (lr.low, lr.high, lr.kind, lr.log) == (1e-4, 1e-2, float, True)
    assert (hidden.low, hidden.high, hidden.kind, hidden.log) == (50, 200, int, False)
    assert norm.choices == ("none", "layer")
    lr, hidden = search.read_space(["lr=log:1e-4:1e-2:3", "hidden=int:1:4:10"], KNOWN, grid=True)
    assert lr.grid() == pytest.approx([1e-4, 1e-3, 1e-2]) and hidden.grid() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "texts, grid, words",
    [
        ([], False, "searches a --space"),
        (["lr"], False, "write KEY=log:LOW:HIGH"),
        (["lrr=log:1e-4:1e-2"], False, "Did you mean 'lr'"),
        (["lr=lg:1e-4:1e-2"], False, "Did you mean 'log'"),
        (["lr=log:0:1"], False, "above 0"),
        (["lr=log:1e-2:1e-4"], False, "LOW below HIGH"),
        (["lr=log:1e-4"], False, "lr=log:LOW:HIGH,"),
        (["lr=log:1e-4:1e-2:3"], False, "lr=log:LOW:HIGH,"),
        (["lr=log:1e-4:1e-2"], True, "lr=log:LOW:HIGH:POINTS"),
        (["hidden=int:1.5:3"], False, "hidden=int:LOW:HIGH"),
        (["norm=none,none"], False, "names a value twice"),
        (["norm=none,layer", "norm=batch,weight"], False, "each key once"),
        (["seeds=0,1"], False, "no seed is better"),
    ],
)
def test_a_space_that_cannot_be_is_refused(texts, grid, words):
    flags.FLAGS.mark_as_parsed()
    with pytest.raises(InputError, match=words):
        search.read_space(texts, KNOWN, grid)


def test_a_trial_is_judged_by_its_best_evaluation_in_the_mean_over_seeds(trainer, tmp_path):
    trainer.looks = 4
    found = make_search(tmp_path, "lr=log:1e-4:1e-2", "norm=none,layer", trials=3, pruner="none")
    assert found.run(workers=2) == 0
    assert len(trials_of(found)) == len(trainer.made) == 3
    for trial, made in zip(trials_of(found), trainer.made, strict=True):
        lr = trial.params["lr"]
        assert made.config.lr == (lr,) and made.config.norm == trial.params["norm"]
        assert made.folder == tmp_path / "search" / f"trial={trial.number}"
        at = [abs(math.log10(lr) + 3) + 0.1 / n + 0.005 for n in (1, 2, 3, 4)]
        assert list(trial.intermediate_values.values()) == pytest.approx(at)
        assert trial.state.name == "COMPLETE" and trial.value == pytest.approx(at[3])
    best = min(t.value for t in trials_of(found))
    assert f"valid error {best:.5g}" in list(search.summary(found))[1]


def test_lanes_are_trials_and_a_dead_one_counts_as_bad(trainer, tmp_path):
    def error(config, seed, lr, n):
        return math.nan if lr > 1e-3 and seed == 1 and n > 1 else lr

    trainer.error, trainer.looks = staticmethod(error), 2
    found = make_search(tmp_path, "lr=log:1e-5:1e-1", trials=8, lanes=3, pruner="none")
    found.run(workers=1)
    assert [made.folder.name for made in trainer.made] == ["trials=0-2", "trials=3-5", "trials=6-7"]
    rates = [lr for made in trainer.made for lr in made.config.lr]
    assert rates == [trial.params["lr"] for trial in trials_of(found)]
    states = {(t.params["lr"] > 1e-3, t.state.name, t.value) for t in trials_of(found)}
    assert states == {
        (lr > 1e-3, "PRUNED" if lr > 1e-3 else "COMPLETE", lr) for lr in rates
    }  # of a pruned trial optuna keeps the last reading


def test_what_is_not_worth_it_is_asked_once_to_stop(trainer, tmp_path):
    trainer.looks = 20
    grid = dict(sampler="grid", pruner="asha")
    found = make_search(tmp_path, "lr=log:1e-3:1e-1:3", **grid)  # from good to bad
    assert found.run(workers=3) == 0
    assert [trial.state.name for trial in trials_of(found)] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert [made.stops for made in trainer.made] == [0, 1, 1]
    assert all(made.seen < 20 for made in trainer.made[1:])


def test_two_launchers_share_a_grid_and_take_each_point_once(trainer, tmp_path):
    grid = dict(sampler="grid", pruner="none")
    a, b = (
        make_search(tmp_path, "lr=log:1e-4:1e-2:3", "norm=none,layer", **grid) for _ in range(2)
    )
    groups = [one.next_group() for one in (a, b, a, b, a, b)]
    assert a.next_group() is None is b.next_group()
    points = {(t.params["lr"], t.params["norm"]) for t in trials_of(a)}
    assert len(points) == 6 == len({group.job.folder for group in groups})


def test_what_a_launcher_left_when_it_died_is_taken_up_in_its_folder(trainer, tmp_path, capsys):
    lanes = dict(trials=4, lanes=2, pruner="none")
    a, b = (make_search(tmp_path, "lr=log:1e-4:1e-2", **lanes) for _ in range(2))
    first, second = a.next_group(), b.next_group()
    assert first.job.folder != second.job.folder and b.next_group() is None
    process = trainer(first.job)
    process.show(1)
    a.look(first)
    (told, left) = first.trials
    a.tell(first, told, optuna.trial.TrialState.COMPLETE, 0.5)
    left.claim.release()  # as the system does when it dies
    again = b.next_group()
    assert again.job == first.job  # the same lanes: it is the same run
    assert [(t.number, t.known) for t in again.trials] == [(left.number, 1)]
    assert f"left of trial {left.number}." in capsys.readouterr().out
    assert a.next_group() is None


def test_a_run_that_is_killed_is_started_again_once_and_one_that_is_busy_is_waited_for(
    trainer, tmp_path
):
    statuses = iter([-9, cli.BUSY, cli.BUSY, -9, 2])
    trainer.status = property(lambda self: next(statuses))
    found = make_search(tmp_path, "lr=log:1e-4:1e-2", trials=2, pruner="none")
    assert found.run(workers=1) == 2
    assert [made.folder.name for made in trainer.made] == ["trial=0"] * 4 + ["trial=1"]
    assert [trial.state.name for trial in trials_of(found)] == ["FAIL", "FAIL"]


def test_a_study_of_another_search_is_refused(trainer, tmp_path, monkeypatch):
    make_search(tmp_path, "lr=log:1e-4:1e-2", trials=1)
    make_search(tmp_path, "lr=log:1e-4:1e-2", trials=5)  # more of the same
    with pytest.raises(InputError, match="another search.*1e-3"):
        make_search(tmp_path, "lr=log:1e-4:1e-3")
    monkeypatch.setattr(sys, "argv", ["sweep", TINY, "--config.hidden=9"])
    with pytest.raises(InputError, match="another search.*hidden=9"):
        make_search(tmp_path, "lr=log:1e-4:1e-2")


def test_without_optuna_the_command_that_installs_it_is_named(trainer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match="pip install 'optuna"):
        make_search(tmp_path, "lr=log:1e-4:1e-2")


def test_a_data_base_that_does_not_answer_is_told(trainer, tmp_path):
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://somebody@127.0.0.1:{taken.getsockname()[1]}/nothing"
        with pytest.raises(InputError, match="--storage=.*cannot be used.*data base"):
            make_search(tmp_path, "lr=log:1e-4:1e-2", storage=url)


def test_a_journal_line_that_was_left_half_written_is_cut_off(trainer, tmp_path):
    make_search(tmp_path, "lr=log:1e-4:1e-2", trials=1)
    journal = tmp_path / "search" / "journal.log"
    before = journal.read_bytes()
    journal.write_bytes(before + before.splitlines()[-1][:9])
    for _ in range(2):  # and the next launcher does not find it in the middle
        assert make_search(tmp_path, "lr=log:1e-4:1e-2", trials=1).run(workers=1) == 0
    (trial,) = trials_of(make_search(tmp_path, "lr=log:1e-4:1e-2", trials=1))
    assert trial.state.name == "COMPLETE" and journal.read_bytes().startswith(before)
    for line in journal.read_text().splitlines():
        json.loads(line)


def test_a_journal_that_is_damaged_in_the_middle_is_refused_in_one_line(trainer, tmp_path):
    make_search(tmp_path, "lr=log:1e-4:1e-2", trials=1)
    journal = tmp_path / "search" / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0][:9] + b"\n", *lines]))
    with pytest.raises(InputError, match="journal.log is damaged .*another --study"):
        make_search(tmp_path, "lr=log:1e-4:1e-2", trials=1)


def test_a_search_on_a_full_disk_is_one_line_and_goes_on_once_there_is_room(
    trainer, tmp_path, monkeypatch
):
    backend = optuna.storages.journal.JournalFileBackend
    append, room = backend.append_logs, iter(range(6))

    def full(journal, logs):
        if next(room, None) is None:
            with open(journal._file_path, "ab") as file:
                file.write(b'{"op_code":')
            raise OSError(28, "No space left on device")
        append(journal, logs)

    monkeypatch.setattr(jobs, "check", lambda words: None)
    config, folder = mnist.get_config("tiny"), tmp_path / "mnist"
    make_search(folder, "lr=log:1e-4:1e-2", trials=2)
    monkeypatch.setattr(backend, "append_logs", full)
    with pytest.raises(InputError, match="Cannot write to .*search .*No space left.*--root"):
        search.run(config, folder, KNOWN, 1)
    monkeypatch.setattr(backend, "append_logs", append)
    search.run(config, folder, KNOWN, 1)
    found = make_search(folder, "lr=log:1e-4:1e-2", trials=2)
    assert [trial.state.name for trial in trials_of(found)] == ["COMPLETE"] * 2


def test_a_search_while_the_clock_goes_backwards_is_the_same_search(trainer, tmp_path, monkeypatch):
    def scores(folder):
        found = make_search(folder, "lr=1e-4,1e-3", sampler="grid", pruner="none")
        assert found.run(workers=1) == 0
        return {trial.params["lr"]: trial.value for trial in trials_of(found)}

    expected, began, looks = scores(tmp_path / "a"), time.time(), itertools.count(1)

    class Datetime(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(began - 3600 * next(looks), tz)

    monkeypatch.setattr(datetime, "datetime", Datetime)
    monkeypatch.setattr(time, "time", lambda: began - 3600 * next(looks))
    assert scores(tmp_path / "b") == expected


# --- Real processes ---


@pytest.fixture(scope="module")
def postgres():
    """The address of a PostgreSQL server that lives for these tests."""
    found = shutil.which("initdb") or max(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=0
    )
    if not found:
        pytest.skip("PostgreSQL is not installed here: there is no initdb")
    programs = Path(found).resolve().parent
    programs = programs if (programs / "postgres").exists() else Path(found).parent
    # It refuses to run as root, and another user cannot look into pytest's folders.
    user = dict(user="nobody") if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        if user:
            shutil.chown(folder, **user)
        data = Path(folder) / "data"
        options = dict(check=True, capture_output=True, cwd=folder, **user)
        words = [programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-N"]
        subprocess.run(words, **options)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [programs / "postgres", "-D", data, "-k", folder, "-p", str(port)]
        words += ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1"]
        quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with subprocess.Popen(words, cwd=folder, **quiet, **user) as server:
            for _ in range(200):
                with socket.socket() as line:
                    if line.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"
            server.send_signal(signal.SIGINT)  # ends the connections, too


@pytest.mark.slow
def test_a_study_lies_in_postgresql(trainer, postgres, tmp_path):
    here = dict(storage=postgres, trials=6, lanes=2)
    a, b = (make_search(tmp_path, "lr=log:1e-4:1e-2", **here) for _ in range(2))
    left = a.next_group()
    for trial in left.trials:
        trial.claim.release()
    assert b.run(workers=2) == 0
    assert [t.state.name for t in trials_of(a)] == ["COMPLETE"] * 6
    assert {made.folder for made in trainer.made} >= {left.job.folder} and len(trainer.made) == 3
    assert not (tmp_path / "search" / "journal.log").exists()
    a.close()
    b.close()


@pytest.mark.slow
def test_two_launchers_of_which_one_is_killed_with_its_run_train_each_trial_once(tmp_path):
    words = (
        *(sys.executable, "-m", "scripts.sweep", "--engine=optuna", TINY, "--trials=4"),
        *("--space=lr=log:1e-4:1e-2", "--space=norm=none,layer", "--pruner=none"),
        *("--config.steps=600 steps", "--config.save_every=20 steps"),
        *("--config.log_every=100 steps", "--config.eval_every=100 steps"),
        *(f"--root={tmp_path / 'runs'}", f"--config.data_dir={tmp_path}"),
    )
    pipes = dict(cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    folder = tmp_path / "runs" / "mnist" / "search"
    a, b = launchers = [subprocess.Popen(words, **pipes) for _ in range(2)]
    mine = ""
    for line in a.stdout:
        if " | " in line:
            mine = folder / line.split(" | ")[0]
            break
    while not any(path.name.isdigit() for path in mine.glob("checkpoints/*")):
        assert a.poll() is None
        time.sleep(0.01)
    a.kill()  # its run loses the pipe to write to and dies of that, or is waited for
    texts = [launcher.communicate(timeout=50)[0] for launcher in launchers]
    assert b.returncode == 0, texts
    assert f"left of trial {mine.name.partition('=')[2]}." in texts[1]
    assert "4 trials in" in texts[1] and "4 complete." in texts[1]
    folders = sorted(folder.glob("trial=*"))
    assert len(folders) == 4 and all(map(runs.is_finished, folders))
    for run in folders:
        rows = [(r["step"], r["split"], r["seed"]) for r in runs.read_rows(run / "metrics.jsonl")]
        assert len(set(rows)) == len(rows) and (600, "valid", 0) in rows
    assert runs.read_rows(mine / "sessions.jsonl")[-1]["step"] > 0
