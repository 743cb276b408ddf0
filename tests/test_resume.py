"""Processes that are killed: the resumed run is the same run, bit for bit."""

import json
import os
import signal
import time

import pytest

import experiments
from ln.training import runs, train
from tests.cells import assert_equal
from tests.commands import start

pytestmark = pytest.mark.slow
SETTINGS = (
    "--config=configs/mnist.py:tiny",
    "--config.norm=batch",  # with statistics to lose
    "--config.hidden=64",
    "--config.seeds=0,1",
    "--config.steps=600",
    "--config.log_every=70",  # so that checkpoints fall between two rows
    "--config.eval_every=200",
    "--config.save_every=40",
    "--config.steps_per_call=10",
)


def begin(folder, data_dir, *settings):
    words = [*SETTINGS, f"--config.data_dir={data_dir}", f"--workdir={folder}", *settings]
    return start("-m", "scripts.train", *words)


def finish(process):
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return output


def kill(process):
    process.kill()
    process.communicate()


def wait_until(condition, process):
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"ended before it could be stopped:\n{process.communicate()[0]}")
        time.sleep(0.0005)


def last_state(folder):
    """Return the last step that is saved, and its state."""
    state = train.load(experiments.load(runs.read_config(folder)), folder, "newest")
    return train.step_of(state), state


def assert_same_run(a, b):
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
    (step_a, state_a), (step_b, state_b) = map(last_state, (a, b))
    assert step_a == step_b == 600
    assert_equal(state_a, state_b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
    """Return the folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(begin(folder, data_dir))
    return folder


def test_a_killed_run_resumes_as_the_same_run(whole, data_dir, tmp_path):
    folder, checkpoints = tmp_path / "run", tmp_path / "run/checkpoints"

    def newest():
        return max((int(p.name) for p in checkpoints.glob("*") if p.name.isdigit()), default=0)

    process = begin(folder, data_dir)  # killed between checkpoints
    wait_until(lambda: newest() >= 200, process)
    kill(process)

    torn = 0
    for _ in range(5):  # killed while a checkpoint is written; it may just have been finished
        before = newest()
        process = begin(folder, data_dir)
        wait_until(lambda: newest() > before and list(checkpoints.glob("*-tmp*")), process)  # noqa: B023
        kill(process)
        torn = len(list(checkpoints.glob("*-tmp*")))
        if torn:
            break
    assert torn, "no kill hit a checkpoint in the making"

    process = begin(folder, data_dir)
    assert "Resuming at step" in finish(process)
    assert_same_run(whole, folder)
    sessions = [json.loads(s) for s in (folder / "sessions.jsonl").read_text().splitlines()]
    assert [s["step"] for s in sessions] == sorted(s["step"] for s in sessions)


def test_ctrl_c_saves_and_prints_how_to_resume(whole, data_dir, tmp_path):
    folder = tmp_path / "run"
    process = begin(folder, data_dir, "--config.save_every=600")
    rows = folder / "metrics.jsonl"
    wait_until(lambda: rows.exists() and rows.stat().st_size > 1000, process)
    process.send_signal(signal.SIGINT if os.name == "posix" else signal.CTRL_C_EVENT)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 130, output
    assert f"--workdir={folder}" in output and "To resume: python -m scripts.train" in output
    step, _ = last_state(folder)
    assert 0 < step < 600 and step % 10 == 0
    finish(begin(folder, data_dir, "--config.save_every=600"))
    assert_same_run(whole, folder)
