"""The script for a few minutes on a GPU: its parts, deadlines and archives."""

import json
import re
import tarfile
import time

import pytest

from scripts.engines import timed
from tests.commands import run

PLAIN = re.compile(r"[A-Za-z0-9._/=,-]+")

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
    for name in ("checkpoints/400", "events", "layer-seeds-0"):
        (session.folder / name).mkdir(parents=True)
        (session.folder / name / "metrics.jsonl").write_text("{}")
    session.write()
    logs = {"logs/one.txt", "logs/two.txt"}
    assert set(read(session.archive)) == logs | {"report.json", "layer-seeds-0/metrics.jsonl"}
    assert [path.name for path in session.archive.parent.iterdir()] == [session.archive.name]


SAVE = """
import signal, time
def stop(*_):
    print("saved")
    raise SystemExit(130)
signal.signal(signal.SIGTERM, stop)
print("began")
time.sleep(60)
"""


def test_a_part_may_save_when_its_time_is_up(session, monkeypatch):
    monkeypatch.setattr(timed, "LEAST", 0.1)
    session = session(minutes=0.15)  # 4 seconds
    assert session.run("save", ("-c", SAVE))
    assert read(session.archive)["logs/save.txt"] == b"began\nsaved\n"
    session.run("late", ("-c", ""))
    assert outcomes(read(session.archive)) == {"save": "out of time", "late": "no time left"}


def test_the_deadline_ends_a_part_that_does_not_stop(session, monkeypatch):
    monkeypatch.setattr(timed, "GRACE", 0.5)
    stubborn, began = SAVE.replace("raise SystemExit(130)", "pass"), time.monotonic()
    session(minutes=0.15).run("stubborn", ("-c", stubborn))
    assert time.monotonic() - began < 15


@pytest.mark.slow
def test_the_training_command_compares_and_trains(tmp_path):
    """On a busy machine a part may run out of time."""
    words = f"--out={tmp_path}/out", f"--work={tmp_path}/work", f"--data_dir={tmp_path}/data"
    done = run("scripts.gpu", "train", "--minutes=2", "--scale=tiny", "--only=mnist", *words)
    assert done.returncode == 0, done.stderr
    texts = read(tmp_path / "out" / "gpu_train.tar.gz")
    parts = outcomes(texts)
    assert set(parts) == {"device", "figure_6"}
    assert set(parts.values()) <= {"finished", "out of time"}, texts
    if parts["device"] == "finished":
        rows = json.loads(texts["device.json"])["mnist-layer"]
        assert rows["on this device"]["differs_by"] == 0
    if parts["figure_6"] == "finished":
        sizes = {f"figure_6/mnist/norm=layer,batch_size={size}" for size in (4, 128)}
        assert {f"{name}/metrics.jsonl" for name in sizes} <= set(texts)
