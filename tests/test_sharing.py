"""Devices of a machine, shared out among the runs of a sweep."""

import os
import signal
import time

import pytest

from ln.errors import InputError
from scripts.engines import devices, jobs

GPUS = devices.Devices("CUDA_VISIBLE_DEVICES", [str(n) for n in range(8)])


def hold(job):
    """Train nothing; fail if another worker has this device."""
    held = job.folder.parent / "held" / os.environ["CUDA_VISIBLE_DEVICES"]
    held.mkdir(parents=True)
    time.sleep(0.05)
    held.rmdir()
    job.folder.write_text(f"{held.name} {os.getpid()}")
    return 0


def die_once(job):
    """Kill the worker at the first try of a job, fail at the second, then train nothing."""
    tries = len(list(job.folder.parent.glob(f"{job.folder.name}.*")))
    job.folder.with_suffix(f".{tries}").write_text("")
    if job.folder.name == "run1" and tries == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 if job.folder.name == "run2" else 0


@pytest.mark.parametrize(
    "workers, per_run, chosen, fraction",
    [
        (None, None, "0 1 2 3 4 5 6 7", None),
        (None, 3, "0,1,2 3,4,5", None),
        (1, None, "0,1,2,3,4,5,6,7", None),
        (3, None, "0,1 2,3 4,5", None),
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


def train(folder, count, shares, job):
    todo = [jobs.Job(folder / f"run{n}", "") for n in range(count)]
    start = jobs.start_here(shares, job)
    return jobs.train(
        todo, start, jobs.Clock(len(shares)), jobs.Stopping(), lambda job: job.folder.exists()
    )


def test_eight_workers_share_no_device(tmp_path):
    assert train(tmp_path, 16, devices.share(GPUS, None), hold) == {}
    held = [path.read_text().split() for path in tmp_path.glob("run*")]
    assert {device for device, _ in held} == set(GPUS.names)
    assert len(held) == 16 and len({process for _, process in held}) == 8


def test_a_killed_worker_stops_no_other_run(tmp_path):
    assert train(tmp_path, 4, [{}], die_once) == {tmp_path / "run2": 2}
    tried = sorted(path.name for path in tmp_path.iterdir())
    assert tried == ["run0.0", "run1.0", "run1.1", "run2.0", "run3.0"]


def test_a_process_logs_its_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{devices.FORCED}=3")
    actual = devices.ask()
    assert actual == devices.Devices("", ["0", "1", "2"])
    assert devices.share(actual, None, 2) == [
        {"XLA_FLAGS": f"{devices.FORCED}=3 {devices.FORCED}=2"}
    ]
    monkeypatch.setenv("JAX_PLATFORMS", "nothing")
    with pytest.raises(InputError, match="jax finds no device here .*nothing"):
        devices.ask()
