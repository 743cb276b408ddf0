"""The script for a few minutes on a GPU: its parts, deadlines and archives."""

import json
from pathlib import Path
import re
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest

from ln.training import runs
from scripts.benchmarks import gpu
from scripts.engines import timed

PROJECT = Path(__file__).parent.parent
PLAIN = re.compile(r"[A-Za-z0-9._/-]+")

# ml_collections loads config files by a deprecated method.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def read(archive):
    """Return the texts of an archive by the names of its files, which are plain."""
    with tarfile.open(archive) as tar:
        files = [entry for entry in tar.getmembers() if entry.isfile()]
        texts = {entry.name.partition("/")[2]: tar.extractfile(entry).read() for entry in files}
    assert all(PLAIN.fullmatch(name) for name in texts), list(texts)
    return texts


def outcomes(texts):
    return {part["part"]: part["outcome"] for part in json.loads(texts["report.json"])["parts"]}


@pytest.fixture
def session(tmp_path):
    return lambda minutes: timed.Session("train", tmp_path / "out", tmp_path / "work", minutes)


# --- Parts, deadlines and archives ---


def test_the_archive_is_rewritten_after_each_part(session):
    session = session(minutes=1)
    assert outcomes(read(session.archive)) == {}
    assert session.run("one", ("-c", "print('hello')"))
    assert not session.run("two", ("-c", "raise SystemExit(3)"))
    assert read(session.archive)["logs/one.txt"] == b"hello\n"
    assert outcomes(read(session.archive)) == {"one": "finished", "two": "exit status 3"}
    session.run("three", ("-c", ""))
    assert list(outcomes(read(session.archive))) == ["one", "two", "three"]
    assert [path.name for path in session.archive.parent.iterdir()] == [session.archive.name]


def test_checkpoints_are_not_archived(session):
    session = session(minutes=1)
    for name in ("checkpoints/400", "events", "layer-seeds-0"):
        (session.folder / "figure_6" / name).mkdir(parents=True)
        (session.folder / "figure_6" / name / "metrics.jsonl").write_text("{}")
    session.write()
    assert set(read(session.archive)) == {"report.json", "figure_6/layer-seeds-0/metrics.jsonl"}


SAVE = """
import signal, time
def stop(*_):
    print("saved")
    raise SystemExit(130)
signal.signal(signal.SIGTERM, stop)
print("began")
time.sleep(60)
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); time.sleep(60)"


def test_a_part_may_save_when_its_time_is_up(session, monkeypatch):
    monkeypatch.setattr(timed, "LEAST", 0.1)
    session = session(minutes=0.15)  # 4 seconds
    assert session.run("save", ("-c", SAVE), share=0.5)
    assert read(session.archive)["logs/save.txt"] == b"began\nsaved\n"
    assert outcomes(read(session.archive)) == {"save": "out of time"}


def test_the_deadline_ends_every_part(session, monkeypatch):
    monkeypatch.setattr(timed, "LEAST", 0.1)
    monkeypatch.setattr(timed, "GRACE", 0.5)
    began = time.monotonic()
    session = session(minutes=0.1)  # 1 second
    session.run("stubborn", ("-c", STUBBORN))
    session.run("late", ("-c", ""))
    assert time.monotonic() - began < 10
    assert outcomes(read(session.archive)) == {"stubborn": "out of time", "late": "no time left"}


# --- Figure 6 ---


def test_figure_6_follows_the_plan(tmp_path):
    six = gpu.figure_6(tmp_path, gpu.Setting("paper", "data"), (3, 4, 5))
    configs = [run.resolved() for run in six]
    expected = [(size, norm) for size in (4, 128) for norm in ("none", "batch", "layer")]
    assert [(config.batch_size, config.norm) for config in configs] == expected
    for config, run in zip(configs, six, strict=True):
        assert (config.seeds, config.data_seed, config.steps) == ((3, 4, 5), -1, "65 epochs")
        assert config.norms.batch.unbiased == (config.batch_size == 4)
        assert config.hidden == 1000 and config.eval_every == "1 epoch"
        assert 55_000 // config.batch_size % config.steps_per_call == 0
        assert PLAIN.fullmatch(run.folder.relative_to(tmp_path).as_posix())


@pytest.mark.parametrize(
    "device, prepared, fastest, expected",
    [
        (0.1, 0.2, 0.1, "input-bound"),
        (0.3, 0.05, 0.1, "dispatch-bound"),
        (0.12, 0.05, 0.1, "device-bound"),
    ],
)
def test_the_slowest_part_bounds_the_step(device, prepared, fastest, expected):
    assert gpu.verdict(device, prepared, fastest) == expected


# --- The comparison with the CPU ---


def test_equal_programs_do_not_differ(tmp_path):
    row = gpu.compare_one("mnist", "layer", str(tmp_path))
    assert row["agrees"] and row["loss"] == row["gradient"] == 0


def test_another_loss_does_not_agree(tmp_path, monkeypatch):
    """The second device computes a loss that is a thousandth larger."""
    two_steps, factors = gpu.two_steps, iter((1, 1.001))

    def scaled(task, device):
        losses, gradients = two_steps(task, device)
        factor = next(factors)
        return [factor * loss for loss in losses], gradients

    monkeypatch.setattr(gpu, "two_steps", scaled)
    row = gpu.compare_one("mnist", "layer", str(tmp_path))
    assert not row["agrees"] and row["loss"] == pytest.approx(1e-3, rel=0.01)


def test_the_worst_gradient_is_named():
    wanted = dict(W=np.array([1.0, -2.0]), b=np.array([1e-9]))
    assert gpu.gradients_differ(wanted, wanted)[0] == 0
    changed = dict(W=np.array([1.0, -2.2]), b=np.array([2e-9]))
    assert gpu.gradients_differ(changed, wanted) == (pytest.approx(0.1), "['W']")


def test_an_experiment_that_fails_is_a_row(tmp_path):
    (tmp_path / "digits").write_text("in the way")
    row = gpu.compare_one("mnist", "layer", str(tmp_path))
    assert not row["agrees"] and "InputError" in row["error"]


# --- The commands ---


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "--help"),
        (["trian", "--out=x"], "Did you mean 'train'"),
        (["train", "--out=x"], "--minutes=N"),
        (["compare", "--out=x", "--only=draww"], "Did you mean 'draw'"),
        (["train", "--out=x", "--minutes=1", "--data_dir=nowhere"], "scripts.data mnist"),
    ],
)
def test_wrong_words_are_rejected_in_one_line(words, message, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "scripts.gpu", *words],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (PROJECT / "x").exists()


def rehearse(tmp_path, name, minutes):
    words = f"--out={tmp_path}/out", f"--work={tmp_path}/work", f"--data_dir={tmp_path}/data"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "scripts.gpu", name, f"--minutes={minutes}"),
            *("--scale=tiny", "--only=mnist", *words),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return read(tmp_path / "out" / f"gpu_{name}.tar.gz")


@pytest.mark.slow
def test_the_training_command_trains_both_batch_sizes(tmp_path):
    """It ends as soon as all is done; on a busy machine some of it runs out of time."""
    texts = rehearse(tmp_path, "train", minutes=2)
    parts = outcomes(texts)
    assert set(parts.values()) <= {"finished", "out of time", "no time left"}, texts
    for size in (4, 128):
        name = f"figure_6_batch{size}/layer-seeds-0-1-2"
        if parts[name.replace("/", "-")] == "finished":
            folder = tmp_path / "work" / "train" / name
            config, rows = runs.load(folder)
            assert config["batch_size"] == size and {row["seed"] for row in rows} == {0, 1, 2}
            stored = {path.rpartition("/")[2] for path in texts if path.startswith(name)}
            assert {"config.json", "sessions.jsonl", "metrics.jsonl", "finished.json"} <= stored


@pytest.mark.slow
def test_the_timing_command_ends_by_its_deadline(tmp_path):
    texts = rehearse(tmp_path, "time", minutes=0.5)
    parts = json.loads(texts["report.json"])["parts"]
    assert [part["part"] for part in parts] == ["rnn", "steps", "lanes"]
    assert parts[-1]["at"] + parts[-1]["seconds"] < 0.5 * 60 + 10
    assert {part["outcome"] for part in parts} <= {"finished", "out of time"}, texts


@pytest.mark.slow
def test_measurements_are_stored_row_by_row(tmp_path):
    setting = gpu.Setting("tiny", str(tmp_path / "data"), ("mnist",))
    for part, count in (("bound", 6), ("steps", 1), ("lanes", 2)):
        gpu.write(part, tmp_path, setting)
        stored = json.loads((tmp_path / f"{part}.json").read_text())
        assert len(stored["rows"]) == count and stored["environment"]["versions"]["jax"]
        for row in stored["rows"]:
            numbers = [value for value in row.values() if isinstance(value, float)]
            assert numbers and min(numbers) > 0
