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


# --- Parts, deadlines and archives ---


def run_parts(tmp_path, minutes, *parts):
    """Run parts, each a name and a program; return the texts of the archive."""
    archive = tmp_path / "out" / "gpu_train.tar.gz"
    todo = [(name, 1.0, ["-c", program]) for name, program in parts]
    timed.run(todo, tmp_path / "work" / "train", archive, minutes)
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    return read(archive)


def test_the_archive_has_what_each_part_left(tmp_path):
    for name in ("checkpoints/400", "events", "layer-seeds-0"):
        folder = tmp_path / "work" / "train" / name
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("{}")
    texts = run_parts(tmp_path, 1, ("one", "print('hello')"), ("two", "raise SystemExit(3)"))
    assert outcomes(texts) == {"one": "finished", "two": "exit status 3"}
    assert texts["logs/one.txt"] == b"hello\n"
    logs = {"logs/one.txt", "logs/two.txt"}
    assert set(texts) == logs | {"report.json", "layer-seeds-0/metrics.jsonl"}


SAVE = """
import signal, time
def stop(*_):
    print("saved")
    raise SystemExit(130)
signal.signal(signal.SIGTERM, stop)
print("began")
time.sleep(60)
"""


def test_a_part_may_save_when_its_time_is_up(tmp_path):
    texts = run_parts(tmp_path, 0.15, ("save", SAVE), ("late", ""))  # 4 seconds
    assert texts["logs/save.txt"] == b"began\nsaved\n"
    assert outcomes(texts) == {"save": "out of time", "late": "out of time"}


def test_the_deadline_ends_a_part_that_does_not_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(timed, "GRACE", 0.5)
    stubborn, began = SAVE.replace("raise SystemExit(130)", "pass"), time.monotonic()
    run_parts(tmp_path, 0.15, ("stubborn", stubborn))
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
