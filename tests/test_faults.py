"""Faults of the machine: no room, nothing to write to, a clock that goes backwards, kill -9 in the
writing of a page.

What a damaged run folder does stands in test_runs.py, kill -9 in training in test_resume.py.
"""

import datetime
import itertools
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import time

from absl import flags
from absl.testing import flagsaver
import jax
import numpy as np
import pytest

from configs import mnist
import experiments
from experiments.datasets import arrays
from ln.errors import InputError
from ln.training import runs, train
from scripts import report

PROJECT = Path(__file__).parent.parent
SIZES = dict(norm="batch", hidden=64, seeds=(0, 1), steps="12 steps")  # a checkpoint has 180 kB
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def make_config(data_dir):
    def make(**overrides):
        config = mnist.get_config("tiny")
        config.data_dir = str(data_dir)
        config.update_from_flattened_dict(SIZES | overrides)
        return config

    return make


def fit(config, folder):
    return train.fit(experiments.load(config), config, folder)


@pytest.fixture(scope="module")
def whole(make_config, tmp_path_factory):
    """The run that nothing disturbs: its folder, and its last state."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, fit(make_config(), folder)


def assert_same_run(whole, folder, state):
    assert (folder / "metrics.jsonl").read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()
    jax.tree.map(np.testing.assert_array_equal, state, whole[1])
    config = runs.read_config(folder)
    saved = train.load(experiments.load(config), folder, "newest")
    jax.tree.map(np.testing.assert_array_equal, saved, whole[1])


def command(name, *words):
    return subprocess.run(
        [sys.executable, "-m", f"scripts.{name}", *map(str, words)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=100,
    )


def assert_refused(done, *words):
    """It ended as after any input that cannot be used, in one line that says what to do."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: Cannot write to ") and done.stderr.count("\n") == 1
    for word in words:
        assert str(word) in done.stderr


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- No room, or nothing to write to ---


class Disk:
    """A small file system of its own at a place.

    ``resize("40k")`` makes it larger or smaller, ``resize("ro")`` read-only.
    """

    def __init__(self, place):
        self.place = place
        place.mkdir()
        self._mount("-t", "tmpfs", "-o", "size=64k", "tmpfs")

    def _mount(self, *words):
        program = shutil.which("mount")
        if program is None:
            pytest.skip("there is no `mount` here")
        done = subprocess.run([program, *words, self.place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")

    def resize(self, size):
        self._mount("-o", "remount," + (size if size == "ro" else f"rw,size={size}"))

    def fill(self):
        with (self.place / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk")
    yield disk
    subprocess.run(["umount", "-l", disk.place], check=True)


# In the first checkpoint and in the second, which a thread writes while training goes on.
@pytest.mark.parametrize("size, saved", [("60k", []), ("400k", ["2"])])
def test_on_a_full_disk_training_ends_in_one_line_and_goes_on_once_there_is_room(
    whole, make_config, data_dir, disk, size, saved
):
    folder = disk.place / "run"
    disk.resize(size)
    settings = [f"--config.{key}={value}" for key, value in SIZES.items() if key != "seeds"]
    words = ("--config=configs/mnist.py:tiny", *settings, "--config.seeds=0,1")
    done = command("train", *words, f"--config.data_dir={data_dir}", f"--workdir={folder}")
    assert_refused(done, folder, "No space left", "Make room", "goes on from the newest checkpoint")
    assert [name for name in names(folder / "checkpoints") if name.isdigit()] == saved
    disk.resize("64m")
    assert_same_run(whole, folder, fit(make_config(), folder))
    sessions = runs.read_rows(folder / "sessions.jsonl")
    assert sessions[-1]["step"] == (2 if saved else 0)


def test_on_a_full_disk_a_preparation_ends_in_one_line_and_leaves_nothing(disk):
    disk.resize("40k")  # digits have 92 kB
    assert_refused(command("data", "digits", f"--data_dir={disk.place}"), "--data_dir")
    assert names(disk.place) == []
    disk.resize("4m")
    assert command("data", "digits", f"--data_dir={disk.place}").returncode == 0


def test_on_a_full_disk_a_report_ends_in_one_line_and_the_old_page_stays(whole, disk):
    out = disk.place / "page"
    report.write(out, {"picture.png": b"old"}, f"old {report.MARK}")
    disk.fill()
    words = (f"--runs={whole[0].parent}", f"--out={out}")
    assert_refused(command("report", *words), out, "No space left", "--out")
    assert names(out) == ["index.html", "picture.png"]
    assert (out / "index.html").read_text() == f"old {report.MARK}"
    assert (out / "picture.png").read_bytes() == b"old"
    disk.resize("64m")
    assert command("report", *words).returncode == 0
    assert (out / "index.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_read_only_run_is_not_trained_but_read_and_reported(
    whole, make_config, data_dir, disk, tmp_path
):
    disk.resize("64m")
    folder = disk.place / "run"
    shutil.copytree(whole[0], folder)
    disk.resize("ro")
    settings = [f"--config.{key}={value}" for key, value in SIZES.items() if key != "seeds"]
    words = ("--config=configs/mnist.py:tiny", *settings, "--config.seeds=0,1")
    done = command("train", *words, f"--config.data_dir={data_dir}", f"--workdir={folder}")
    assert_refused(done, folder, "Read-only", "--workdir")
    state = train.load(experiments.load(make_config()), folder, "newest")
    jax.tree.map(np.testing.assert_array_equal, state, whole[1])
    evaluated = command("evaluate", f"--workdir={folder}")
    assert_refused(evaluated, "evaluations.jsonl", "Read-only", "choose another folder")
    refused = command("report", f"--runs={disk.place}", f"--out={disk.place / 'page'}")
    assert_refused(refused, "Read-only", "--out")
    assert command("report", f"--runs={disk.place}", f"--out={tmp_path / 'page'}").returncode == 0


# --- Other data ---


def replace_data(data_dir):
    """Prepares other cases under the same name."""
    splits = {split: dict(found) for split, found in arrays.read(data_dir, "digits").items()}
    splits["train"]["x"] = splits["train"]["x"][::-1].copy()
    shutil.rmtree(data_dir / "digits")
    arrays.write(data_dir, "digits", splits, dict(source="a test"))


def change_a_pixel(data_dir):
    path = data_dir / "digits" / "train.x.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7b")


@pytest.mark.parametrize(
    "change, said",
    [
        (replace_data, "other data: digits has changed since"),
        (change_a_pixel, "train.x.npy was changed since it was prepared. Delete or move"),
    ],
)
def test_a_run_whose_data_set_has_changed_is_not_resumed(make_config, tmp_path, change, said):
    config = make_config(data_dir=str(tmp_path), steps="2 steps")
    fit(config, tmp_path / "run")
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    change(tmp_path)
    config.steps = "4 steps"
    with pytest.raises(InputError, match=said):
        fit(config, tmp_path / "run")
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


# --- kill -9 in the writing of a page ---

# Draws once; then a process for each n that is killed at the n-th file that it writes or moves,
# after half of what it writes. What it leaves lies in <out>/<n>.
KILLED = """
import os, signal, sys
from pathlib import Path
from absl import flags
from scripts import report
from scripts.pages import results

root, out = map(Path, sys.argv[1:])
shown = results.page(root)
results.page = lambda root: shown

def reached():
    global left
    left -= 1
    return left == 0

def write(path, content, whole=Path.write_bytes):
    if reached():
        whole(path, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(path, content)

def replace(old, new, whole=os.replace):
    if reached():
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(old, new)

for left in range(1, 6):
    page = out / str(left)
    child = os.fork()
    if not child:
        Path.write_bytes, os.replace = write, replace
        flags.FLAGS(["report", f"--runs={root}", f"--out={page}"])
        report.main([])
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_report_that_is_killed_leaves_the_old_page_or_none_and_no_half_of_one(whole, tmp_path):
    """Of two files, one picture and the page: written, written, moved, moved, and done."""
    picture, old = "1-mnist-tiny-figure_6.png", f"old {report.MARK}"
    for n in (1, 2, 3, 4):
        mine = tmp_path / str(n) / "mine.tmp"
        mine.parent.mkdir()
        mine.write_text("mine")
        if n % 2 == 0:  # there is a page already
            report.write(mine.parent, {picture: b"old"}, old)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, whole[0].parent, tmp_path],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    statuses = [int(line) for line in done.stdout.split() if line.lstrip("-").isdigit()]
    assert statuses == [-9, -9, -9, -9, 0]
    new = (tmp_path / "5" / "index.html").read_text(encoding="utf-8")
    assert names(tmp_path / "5") == [picture, "index.html"] and "</html>" in new
    for n in (1, 2, 3, 4):
        out = tmp_path / str(n)
        left = [name for name in names(out) if name.endswith(".partial")]
        assert len(left) == 1
        page = out / "index.html"
        assert page.read_text() == old if n % 2 == 0 else not page.exists()
        if (out / picture).exists():  # whole, the old or the new
            new_picture = (tmp_path / "5" / picture).read_bytes()
            assert (out / picture).read_bytes() == (new_picture if n == 4 else b"old")
        report.write(out, {picture: b"next"}, f"next {report.MARK}")
        assert names(out) == [picture, "index.html", "mine.tmp"]
        assert page.read_text() == f"next {report.MARK}"
        assert (out / "mine.tmp").read_text() == "mine"


# --- A clock that goes backwards ---


@pytest.fixture
def backwards(monkeypatch):
    """Whoever looks at the clock finds it an hour before the last look."""
    began, looks = time.time(), itertools.count(1)

    def seconds():
        return began - 3600 * next(looks)

    class Datetime(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(seconds(), tz)

    monkeypatch.setattr(time, "time", seconds)
    monkeypatch.setattr(time, "time_ns", lambda: int(seconds() * 1e9))
    monkeypatch.setattr(datetime, "datetime", Datetime)
    return seconds


def test_a_run_while_the_clock_goes_backwards_is_the_same_run(
    whole, make_config, tmp_path, backwards, capsys
):
    folder = tmp_path / "run"
    fit(make_config(steps="6 steps"), folder)
    state = fit(make_config(), folder)  # and goes on, days before it began
    shown = capsys.readouterr().out
    assert "Resuming at step 6." in shown and "ETA 0:00:00" in shown and "ETA -" not in shown
    assert_same_run(whole, folder, state)
    assert names(folder / "checkpoints") == names(whole[0] / "checkpoints")
    first, second = (row["time"] for row in runs.read_rows(folder / "sessions.jsonl"))
    assert second < first and runs.is_finished(folder)
    config = experiments.load(make_config())
    jax.tree.map(  # "best" and "newest" are so by step
        np.testing.assert_array_equal, train.load(config, folder), train.load(config, whole[0])
    )
    for path in folder.rglob("*"):  # and not by the times of the files
        os.utime(path, (0, 0) if "12" in path.parts else (backwards(), backwards()))
    saved = train.load(config, folder, "newest")
    jax.tree.map(np.testing.assert_array_equal, saved, whole[1])


def test_events_of_a_clock_that_goes_backwards_are_all_there(make_config, tmp_path, backwards):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in ("6 steps", "12 steps"):
        fit(make_config(steps=steps), tmp_path / "run")
    (folder,) = (tmp_path / "run" / "events").glob("seed=1,*")
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})  # all of them
    events.Reload()
    shown = events.Tensors("update/loss")
    assert [event.step for event in shown] == list(range(1, 13))
    assert shown[-1].wall_time < shown[0].wall_time


def test_a_report_while_the_clock_goes_backwards_is_the_same_page(whole, tmp_path, request):
    flags.FLAGS.mark_as_parsed()
    pages = []
    for out in (tmp_path / "usual", tmp_path / "backwards"):
        with flagsaver.flagsaver(runs=str(whole[0].parent), out=str(out)):
            report.main([])
        pages.append((out / "index.html").read_text(encoding="utf-8"))
        request.getfixturevalue("backwards")  # from now on
    usual, back = (re.split(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", page) for page in pages)
    assert usual == back and len(usual) > 1
