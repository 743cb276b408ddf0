"""The engine optuna: its settings, its reports, and its trials when a launcher dies."""

import itertools
import json
import math
from pathlib import Path

from absl import flags
from absl.testing import flagsaver
import pytest

from configs import mnist
from ln.errors import InputError
from ln.training import runs
from scripts import cli, sweep  # noqa: F401  the latter defines the flags
from scripts.engines import jobs
from tests.commands import start
from tests.test_resume import wait_until

optuna = pytest.importorskip("optuna")
search = pytest.importorskip("scripts.engines.search")
TINY = "--config=configs/mnist.py:tiny"


class Trainer:
    """Stands in for the process of a run: trains nothing, writes what a run writes.

    Attributes:
        error: (seed, lr, evaluation from 1) -> validation error; NaN: the lane has diverged.
        looks: polls until it ends; each shows one more evaluation.
        status: its exit status.
        made: all of them.
    """

    made: list = []
    looks, status = 1, 0

    @staticmethod
    def error(seed, lr, n):
        return abs(math.log10(lr) + 3) + 0.1 / n + 0.01 * seed

    def __init__(self, job):
        self.job, self.stops, self.seen, self.folder = job, 0, 0, job.folder
        self.made.append(self)
        self.config = runs.as_config(json.loads(job.config))
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.json").write_text(job.config)

    def show(self, count):
        rows, diverged, (lr,) = [], {}, self.config.lr
        for n, seed in itertools.product(range(1, count + 1), self.config.seeds):
            error, row = self.error(seed, lr, n), dict(seed=seed, lr=lr, step=n)
            if math.isnan(error):
                diverged.setdefault(seed, row | dict(cause="the loss is nan"))
            else:
                rows.append(row | dict(epoch=None, split="valid", error=error))
        runs.write_rows(self.folder / "metrics.jsonl", rows)
        runs.write_rows(self.folder / "diverged.jsonl", list(diverged.values()))

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

    def stop(self):
        self.stops += 1


@pytest.fixture
def trainer(monkeypatch):
    class Fresh(Trainer):
        made = []

    monkeypatch.setattr(jobs, "start_here", lambda shares: lambda some: [*map(Fresh, some)])
    monkeypatch.setattr(jobs, "LOOK", 0)
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver():
        yield Fresh


def make_config(**changes):
    config = mnist.get_config("tiny")
    config.update(dict(seeds=(0, 1)) | changes)
    return config


def make_search(folder, *space, config=None, workers=1, **values):
    for name, value in dict(space=list(space), **values).items():
        setattr(flags.FLAGS, name, value)
    config = config or make_config()
    axes = search.read_space(flags.FLAGS.space, config)
    return search.Search(folder / flags.FLAGS.study, config, axes, [{}] * workers)


def trials_of(launcher):
    return launcher.study.get_trials(deepcopy=False)


def states_of(launcher):
    return [trial.state.name for trial in trials_of(launcher)]


# --- What is searched ---


def read_space(texts, sampler="tpe"):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(sampler=sampler):
        return search.read_space(texts, make_config())


def test_a_space_is_read():
    space = read_space(["lr=log:1e-4:1e-2", "hidden=int:50:200", "norm=none,layer"])
    assert space["lr"] == optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
    assert space["hidden"] == optuna.distributions.IntDistribution(50, 200)
    assert space["norm"].choices == ("none", "layer")


@pytest.mark.parametrize(
    "texts, sampler, words",
    [
        (["lr"], "tpe", "write KEY=log:LOW:HIGH"),
        (["lr=lg:1e-4:1e-2"], "tpe", "Did you mean 'log'"),
        (["lr=log:0:1"], "tpe", "numbers in order"),
        (["lr=log:1e-2:1e-4"], "tpe", "lr=log:LOW:HIGH"),
        (["lr=log:1e-4:1e-2"], "grid", "lr=VALUE,VALUE"),
        (["hidden=int:1.5:3"], "tpe", "hidden=int:LOW:HIGH"),
        (["seeds=0,1"], "tpe", "no seeds"),
        (["lr=1,2", "lr=3,4"], "tpe", "a key twice"),
    ],
)
def test_a_wrong_space_raises(texts, sampler, words):
    with pytest.raises(InputError, match=words):
        read_space(texts, sampler)


def test_a_trial_has_one_rate():
    config = make_config(lr=(1e-3, 1e-2))
    with pytest.raises(InputError, match="one learning rate"):
        search.read_space(["hidden=int:1:2"], config)
    assert list(search.read_space(["lr=1e-3,1e-2"], config)) == ["lr"]


# --- What is measured ---


def test_the_best_mean_over_seeds_scores_a_trial(trainer, tmp_path):
    trainer.looks = 4
    space = ("lr=log:1e-4:1e-2", "norm=none,layer")
    launcher = make_search(tmp_path, *space, trials=3, pruner="none", workers=2)
    assert launcher.run() == 0
    assert len(trials_of(launcher)) == len(trainer.made) == 3
    for trial, made in zip(trials_of(launcher), trainer.made, strict=True):
        lr = trial.params["lr"]
        assert made.config.lr == (lr,) and made.config.norm == trial.params["norm"]
        assert made.folder == tmp_path / "search" / f"trial={trial.number}"
        at = [abs(math.log10(lr) + 3) + 0.1 / n + 0.005 for n in (1, 2, 3, 4)]
        assert list(trial.intermediate_values.values()) == pytest.approx(at)
        assert trial.state.name == "COMPLETE" and trial.value == pytest.approx(at[3])
    best = min(t.value for t in trials_of(launcher))
    assert f"valid error {best:.5g}" in list(launcher.summary())[1]


def test_a_diverged_trial_is_bad(trainer, tmp_path):
    trainer.error = staticmethod(
        lambda seed, lr, n: math.nan if lr > 1e-3 and seed == 1 and n > 1 else lr
    )
    trainer.looks = 2
    launcher = make_search(tmp_path, "lr=1e-4,1e-3,1e-2", sampler="grid", pruner="none")
    assert launcher.run() == 0
    assert states_of(launcher) == ["COMPLETE", "COMPLETE", "PRUNED"]


def test_a_pruned_run_is_stopped_once(trainer, tmp_path):
    trainer.looks = 20
    grid = dict(sampler="grid", pruner="asha")
    launcher = make_search(tmp_path, "lr=1e-3,1e-2,1e-1", workers=3, **grid)  # from good to bad
    assert launcher.run() == 0
    assert states_of(launcher) == ["COMPLETE", "PRUNED", "PRUNED"]
    assert [made.stops for made in trainer.made] == [0, 1, 1]
    assert all(made.seen < 20 for made in trainer.made[1:])


# --- Several launchers, and what they leave ---


def test_two_launchers_take_each_point_once(trainer, tmp_path):
    space = ("lr=1e-4,1e-3,1e-2", "norm=none,layer")
    a, b = (make_search(tmp_path, *space, sampler="grid", pruner="none") for _ in range(2))
    trials = [launcher.start(1)[0] for launcher in (a, b, a, b, a, b)]
    assert a.start(1) == [] == b.start(1)
    points = {(t.params["lr"], t.params["norm"]) for t in trials_of(a)}
    assert len(points) == 6 == len({trial.job.folder for trial in trials})


def test_trials_of_killed_launchers_are_resumed(trainer, tmp_path, capsys):
    options = dict(trials=2, pruner="none")
    a, b = (make_search(tmp_path, "lr=log:1e-4:1e-2", **options) for _ in range(2))
    (first,), (second,) = a.start(1), b.start(1)
    assert first.job.folder != second.job.folder and b.start(1) == []
    first.process.show(1)
    first.report(prune=False)
    first.lock.release()  # as the system does when it dies
    (again,) = b.start(1)
    assert again.job == first.job and again.told == 1
    assert "trial=0: taking up what was left" in capsys.readouterr().out
    assert a.start(1) == []


def test_a_killed_run_starts_once_more_and_a_busy_one_waits(trainer, tmp_path):
    statuses = iter([-9, cli.BUSY, cli.BUSY, -9, 2])
    trainer.status = property(lambda self: next(statuses))
    launcher = make_search(tmp_path, "lr=log:1e-4:1e-2", trials=2, pruner="none")
    assert launcher.run() == 1
    assert [made.folder.name for made in trainer.made] == ["trial=0"] * 4 + ["trial=1"]
    assert states_of(launcher) == ["FAIL", "FAIL"]


def test_a_study_of_another_search_raises(trainer, tmp_path):
    make_search(tmp_path, "lr=log:1e-4:1e-2", trials=1)
    make_search(tmp_path, "lr=log:1e-4:1e-2", config=make_config(data_dir="x"), trials=5)
    with pytest.raises(InputError, match="another search.*1e-3"):
        make_search(tmp_path, "lr=log:1e-4:1e-3")
    with pytest.raises(InputError, match="another search.*hidden: 8 -> 9"):
        make_search(tmp_path, "lr=log:1e-4:1e-2", config=make_config(hidden=9))


def test_a_damaged_journal_raises(trainer, tmp_path):
    make_search(tmp_path, "lr=log:1e-4:1e-2", trials=1)
    journal = tmp_path / "search" / "journal.log"
    journal.write_bytes(b"{\n" + journal.read_bytes())
    with pytest.raises(InputError, match="journal.log cannot be opened .*another --study"):
        make_search(tmp_path, "lr=log:1e-4:1e-2", trials=1)
    journal.unlink()
    journal.with_name("trial=0").mkdir()
    with pytest.raises(InputError, match="The runs of a search are in .*journal.log is lost"):
        make_search(tmp_path, "lr=log:1e-4:1e-2")


@pytest.mark.parametrize("study", ["", "../evil", "/evil", ".."])
def test_a_study_stays_in_its_folder(study, trainer, tmp_path):
    flags.FLAGS.study = study
    with pytest.raises(InputError, match="--study="):
        search.run(make_config(), tmp_path, lambda: [{}])


def test_a_password_is_never_shown(trainer, tmp_path, monkeypatch):
    url = "postgresql://me:secret@127.0.0.1:1/name"
    with pytest.raises(InputError, match="OPTUNA_STORAGE") as shown:
        make_search(tmp_path, "lr=log:1e-4:1e-2", storage=url)
    monkeypatch.setenv("OPTUNA_STORAGE", url)
    with pytest.raises(InputError, match="me:...@127.0.0.1") as hidden:
        make_search(tmp_path, "lr=log:1e-4:1e-2", storage=None)
    assert "secret" not in f"{shown.value}{hidden.value}"


def test_a_search_continues_once_the_disk_has_room(trainer, tmp_path, monkeypatch):
    backend = optuna.storages.journal.JournalFileBackend
    append, room = backend.append_logs, iter(range(6))

    def full(journal, logs):
        if next(room, None) is None:
            with Path(journal._file_path).open("ab") as file:
                file.write(b'{"op_code":')  # half a line
            raise OSError(28, "No space left on device")
        append(journal, logs)

    monkeypatch.setattr(jobs, "checked", lambda name, config, values: config)
    folder = tmp_path / "mnist"
    make_search(folder, "lr=log:1e-4:1e-2", trials=2)
    monkeypatch.setattr(backend, "append_logs", full)
    with pytest.raises(InputError, match="Cannot write to .*search .*No space left.*--root"):
        search.run(make_config(), folder, lambda: [{}])
    monkeypatch.setattr(backend, "append_logs", append)
    assert search.run(make_config(), folder, lambda: [{}]) == 0
    assert states_of(make_search(folder, "lr=log:1e-4:1e-2", trials=2)) == ["COMPLETE"] * 2


def test_a_study_is_stored_in_a_database(trainer, tmp_path):
    here = dict(storage=f"sqlite:///{tmp_path}/study.db", trials=3)
    a, b = (make_search(tmp_path, "lr=log:1e-4:1e-2", workers=2, **here) for _ in range(2))
    (left,) = a.start(1)
    left.lock.release()
    assert b.run() == 0
    assert states_of(a) == ["COMPLETE"] * 3
    assert len({made.folder for made in trainer.made}) == 3
    assert not (tmp_path / "search" / "journal.log").exists()
    for launcher in (a, b):
        launcher.study._storage._backend.engine.dispose()


@pytest.mark.slow
@pytest.mark.exhaustive  # in one process: test_trials_of_killed_launchers_are_resumed
def test_a_launcher_takes_up_the_run_of_a_killed_one(tmp_path):
    words = (
        *("-m", "scripts.sweep", "--engine=optuna", TINY, "--trials=3"),
        *("--space=lr=log:1e-4:1e-2", "--space=norm=none,layer", "--pruner=none"),
        *("--config.steps=400 steps", "--config.save_every=20 steps"),
        *("--config.log_every=100 steps", "--config.eval_every=100 steps"),
        *(f"--root={tmp_path / 'runs'}", f"--config.data_dir={tmp_path}"),
    )
    folder = tmp_path / "runs" / "mnist" / "search"
    a, b = launchers = [start(*words) for _ in range(2)]
    mine = ""
    for line in a.stdout:
        if " | " in line:
            mine = folder.parent / line.split(" | ")[0]
            break
    wait_until(lambda: any(p.name.isdigit() for p in mine.glob("checkpoints/*")), a)
    a.kill()  # its run loses the pipe to write to and dies of that, or is waited for
    texts = [launcher.communicate(timeout=300)[0] for launcher in launchers]
    assert b.returncode == 0, texts
    assert f"{mine.name}: taking up what was left" in texts[1]
    assert "3 trials in" in texts[1] and "3 complete." in texts[1]
    folders = sorted(folder.glob("trial=*"))
    assert len(folders) == 3
    for run in map(runs.read, folders):
        rows = [(row.step, row.split, row.seed) for row in run.rows]
        assert run.finished and len(set(rows)) == len(rows) and (400, "valid", 0) in rows
    assert runs.read(mine).sessions[-1]["step"] > 0
