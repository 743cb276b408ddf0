"""Faults: no room, a read-only folder, power failures, changed data, kill -9 in writing a page.

test_runs.py damages run folders; test_resume.py kills training.
"""

import functools
from functools import partial
import os
from pathlib import Path
import shutil
import subprocess

import jax
import numpy as np
import pytest

from configs import mnist
import experiments
from experiments import datasets
from experiments.datasets import arrays
from ln.errors import InputError
from ln.training import checkpoints, origin, runs, train
from scripts import report
from tests.cells import assert_equal
from tests.commands import assert_rejected, python, run
from tests.learning import tiny_config
from tests.test_datasets import names, refused
from tests.test_report import page_of
from tests.test_train import exploding, fit

SIZES = dict(norm="batch", hidden=64, seeds=(0, 1), steps="12 steps")  # a checkpoint has 180 kB
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def make_config(data_dir):
    return partial(tiny_config, "mnist", data_dir, **SIZES)


@pytest.fixture(scope="module")
def whole(make_config, tmp_path_factory):
    """Return the folder and the last state of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, fit(make_config(), folder)


def assert_same_run(whole, folder, state):
    assert (folder / "metrics.jsonl").read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()
    assert_equal(state, whole[1])
    config = runs.read_config(folder)
    saved = train.load(experiments.load(config), folder, "newest")
    assert_equal(saved, whole[1])


SETTINGS = [f"--config.{key}={value}" for key, value in SIZES.items() if key != "seeds"]
TRAIN = ("--config=configs/mnist.py:tiny", *SETTINGS, "--config.seeds=0,1")


# --- No room, or nothing to write to ---


class Disk:
    """A small file system; ``resize("40k")`` changes its size, ``resize("ro")`` its mode."""

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


# In the first checkpoint and in the second, which a thread writes while training continues.
@pytest.mark.parametrize("size, saved", [("60k", []), ("400k", ["2"])])
def test_training_on_a_full_disk_resumes_with_room(whole, make_config, data_dir, disk, size, saved):
    folder = disk.place / "run"
    disk.resize(size)
    done = run("scripts.train", *TRAIN, f"--config.data_dir={data_dir}", f"--workdir={folder}")
    assert_rejected(done, folder, "No space left", "Make room", "from the newest checkpoint")
    assert [name for name in names(folder / "checkpoints") if name.isdigit()] == saved
    disk.resize("64m")
    assert_same_run(whole, folder, fit(make_config(), folder))
    sessions = runs.read_rows(folder / "sessions.jsonl")
    assert sessions[-1]["step"] == (2 if saved else 0)


def test_preparation_on_a_full_disk_leaves_nothing(disk):
    disk.resize("40k")  # digits have 92 kB
    with refused("No space left", "--data_dir"):
        datasets.prepare("digits", disk.place)
    assert names(disk.place) == []
    disk.resize("4m")
    datasets.prepare("digits", disk.place)


def test_a_report_on_a_full_disk_leaves_the_old_page(whole, disk):
    out = disk.place / "page"
    out.mkdir()
    (out / "index.html").write_text(f"old {report.MARK}")
    disk.fill()
    with refused(out, "No space left", "--out"):
        page_of(whole[0].parent, out)
    assert names(out) == ["index.html"]
    assert (out / "index.html").read_text() == f"old {report.MARK}"
    disk.resize("64m")
    assert page_of(whole[0].parent, out).startswith("<!DOCTYPE html>")


def test_a_read_only_run_is_read_but_not_trained(whole, make_config, disk, tmp_path):
    disk.resize("64m")
    folder = disk.place / "run"
    shutil.copytree(whole[0], folder)
    disk.resize("ro")
    with refused(folder, "Read-only", "--workdir"):
        fit(make_config(), folder)
    state = train.load(experiments.load(make_config()), folder, "newest")
    assert_equal(state, whole[1])
    evaluated = run("scripts.evaluate", f"--workdir={folder}")
    assert_rejected(evaluated, "evaluations", "Read-only", "choose another folder")
    with refused("Read-only", "--out"):
        page_of(disk.place, disk.place / "page")
    assert "batch norm" in page_of(disk.place, tmp_path / "page")


# --- Power failures ---


class Writes:
    """Record a run folder after each write, and the part on the disk if power fails then.

    On the disk are the contents of a file at its last fsync, and the names at the last fsync of the
    folder. A checkpoint is there once it is committed: orbax syncs its arrays.
    """

    def __init__(self, folder, place, monkeypatch):
        self.folder, self.place = folder, place
        self.states = {}  # (name, content) of each file, and the checkpoints -> nothing
        self.synced = {}  # inode -> [content]
        self.names = {}  # name -> the same list
        for owner, name in ((os, "fsync"), (os, "replace"), (checkpoints, "save")):
            monkeypatch.setattr(owner, name, partial(getattr(self, name), getattr(owner, name)))
        write = runs.Run.write
        monkeypatch.setattr(runs.Run, "write", lambda run, *row: self.write(write, run, *row))

    def files(self):
        return [path for path in self.folder.glob("*") if path.is_file() and path.name != "lock"]

    def note(self, *changed):
        saved = tuple(sorted(path.name for path in self.place.glob("*")))
        now = {path.name: path.read_bytes() for path in self.files()}
        durable = {name: content for name, (content,) in self.names.items()}
        for files in (now, now | dict(changed), durable):
            self.states[tuple(sorted(files.items())), saved] = None

    def fsync(self, fsync, descriptor):
        fsync(descriptor)
        status = os.fstat(descriptor)
        if self.folder.exists() and os.path.samestat(status, self.folder.stat()):
            boxes = {p.name: self.synced.setdefault(p.stat().st_ino, [b""]) for p in self.files()}
            self.names = boxes
            self.note()
        for path in self.files():
            if os.path.samestat(status, path.stat()):
                self.synced.setdefault(status.st_ino, [b""])[0] = path.read_bytes()
                self.note()

    def replace(self, replace, old, new):
        ours = Path(new).parent == self.folder
        if ours and Path(new).exists():
            self.synced.pop(Path(new).stat().st_ino, None)  # another file may have its number next
        replace(old, new)
        if ours:
            self.note()

    def write(self, write, run, *row):
        write(run, *row)
        self.note(("metrics.jsonl", (self.folder / "metrics.jsonl").read_bytes()[:-9]))

    def save(self, save, manager, step, saved):
        self.note()
        save(manager, step, saved)
        manager.wait_until_finished()
        shutil.copytree(self.folder / "checkpoints" / str(step), self.place / str(step))
        self.note()


def test_a_power_failure_after_any_write_loses_no_row(tmp_path, monkeypatch):
    """All writes of a run are replayed up to each, with and without those not yet on the disk."""
    config = mnist.get_config("tiny")
    config.update(dict(seeds=(6, 7), steps="4 steps", log_every="1 step", steps_per_call=2))
    task = exploding(config, {7: (1, np.nan)})
    optimizer = train.make_optimizer(config)
    fresh = train.init_lanes(task, optimizer, train.make_lanes(config))
    monkeypatch.setattr(train, "init_lanes", lambda *_: jax.tree.map(jax.numpy.copy, fresh))
    monkeypatch.setattr(train, "make_call", functools.cache(train.make_call))
    monkeypatch.setattr(train, "make_optimizer", lambda _: optimizer)
    monkeypatch.setattr(origin, "commit", lambda: None)
    config.writers = ()
    whole, place = tmp_path / "whole", tmp_path / "saved"
    place.mkdir()
    with monkeypatch.context() as recording:
        writes = Writes(whole, place, recording)
        train.fit(task, config, whole)
    assert 25 < len(writes.states) <= 60
    firsts = set()
    for n, (files, saved) in enumerate(writes.states):
        folder = tmp_path / str(n)
        for step in saved:
            shutil.copytree(place / step, folder / "checkpoints" / step)
        folder.mkdir(exist_ok=True)
        for name, content in files:
            (folder / name).write_bytes(content)
        train.fit(task, config, folder)
        for name in ("metrics.jsonl", "diverged.jsonl"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), (n, name)
        assert not [*folder.glob("*tmp")] and not (folder / "damaged").exists()
        firsts.add(runs.read(folder).sessions[-1]["step"])
    assert firsts == {0, 2, 4}


# --- Other data ---


def replace_data(data_dir):
    """Prepare other examples under the same name."""
    splits = {split: dict(values) for split, values in arrays.read(data_dir, "digits").items()}
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
def test_a_run_is_not_resumed_on_changed_data(make_config, tmp_path, change, said):
    config = make_config(data_dir=str(tmp_path), steps="2 steps")
    fit(config, tmp_path / "run")
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    change(tmp_path)
    config.steps = "4 steps"
    with pytest.raises(InputError, match=said):
        fit(config, tmp_path / "run")
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


# --- kill -9 in the writing of a page ---

# Dies halfway in writing the file, or before it is moved, or not at all.
KILLED = """
import os, signal, sys
from pathlib import Path
from ln.training import files

def die(*words):
    os.kill(os.getpid(), signal.SIGKILL)

write, place = Path.write_bytes, sys.argv[1]
if place == "write":
    Path.write_bytes = lambda path, content: (write(path, content[: len(content) // 2]), die())
if place == "move":
    os.replace = die
files.write_atomically(Path(sys.argv[2]), "new")
"""


@pytest.mark.parametrize("place, expected", [("write", "old"), ("move", "old"), ("", "new")])
def test_a_killed_report_leaves_a_whole_page(tmp_path, place, expected):
    (tmp_path / "index.html").write_text("old")
    done = python("-c", KILLED, place, tmp_path / "index.html")
    assert done.returncode == (-9 if place else 0), done.stderr
    assert (tmp_path / "index.html").read_text() == expected
    assert len(list(tmp_path.glob("index.html.*.tmp"))) == bool(place)
