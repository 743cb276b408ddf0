"""Devices of a machine, shared out among the runs of a sweep."""

import subprocess
import sys

import pytest

from ln.errors import InputError
from scripts.engines import devices, jobs

GPUS = devices.Devices("CUDA_VISIBLE_DEVICES", [str(n) for n in range(8)])
HOLD = """
import os, pathlib, sys, time
held = pathlib.Path(sys.argv[1], os.environ["CUDA_VISIBLE_DEVICES"])
held.mkdir()  # fails if another run has this device
time.sleep(0.05)
held.rmdir()
pathlib.Path(sys.argv[2]).write_text(held.name)
"""


@pytest.mark.parametrize(
    "workers, per_run, chosen, fraction",
    [
        (None, 1, "0 1 2 3 4 5 6 7", None),
        (None, 3, "0,1,2 3,4,5", None),
        (2, 2, "0,1 2,3", None),
        (4, 4, "0,1,2,3 4,5,6,7 0,1,2,3 4,5,6,7", "0.450"),
    ],
)
def test_workers_share_only_what_they_must(workers, per_run, chosen, fraction, monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    shares = devices.share(GPUS, workers, per_run)
    assert " ".join(share[GPUS.variable] for share in shares) == chosen
    assert {share.get("XLA_PYTHON_CLIENT_MEM_FRACTION") for share in shares} == {fraction}


def test_too_few_devices_raise():
    with pytest.raises(InputError, match="devices_per_run=9: there are 8"):
        devices.share(GPUS, None, 9)


def test_eight_workers_share_no_device(tmp_path, monkeypatch):
    (held := tmp_path / "held").mkdir()

    def begin(job, **options):
        words = [sys.executable, "-S", "-c", HOLD, str(held), str(job.folder)]
        return subprocess.Popen(words, text=True, **options)

    monkeypatch.setattr(jobs, "begin", begin)
    todo = [jobs.Job(tmp_path / f"run{n}", "") for n in range(16)]
    shares = devices.share(GPUS, None, 1)
    start, stopping = jobs.start_here(shares), jobs.Stopping()
    assert jobs.train(todo, start, len(shares), stopping, lambda job: job.folder.exists()) == {}
    assert {job.folder.read_text() for job in todo} == set(GPUS.names)


def test_a_process_tells_the_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{devices.FORCED}=3")
    found = devices.ask()
    assert found == devices.Devices("", ["0", "1", "2"])
    assert devices.share(found, None, 2) == [
        {"XLA_FLAGS": f"{devices.FORCED}=3 {devices.FORCED}=2"}
    ]
    monkeypatch.setenv("JAX_PLATFORMS", "nothing")
    with pytest.raises(InputError, match="jax finds no device here .*nothing"):
        devices.ask()
