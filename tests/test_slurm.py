"""The engine slurm, on submitit's executor of local processes, with a scheduler's signals."""

import os
from pathlib import Path
import signal
import sys

from absl import flags
import pytest

from ln.errors import InputError
from ln.training import runs
from scripts import sweep  # noqa: F401  defines the flags
from scripts.engines import slurm
from tests.commands import start
from tests.test_resume import wait_until

submitit = pytest.importorskip("submitit")


def children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def processes_of(job):
    """Return the processes of a job: the one that submitit starts, and its run."""
    return [pid for task in children(job) for pid in (task, *children(task))]


def send(number, job):
    for pid in processes_of(job):
        os.kill(pid, number)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_jobs_that_lose_their_machine_resume(tmp_path):
    words = (
        *("-m", "scripts.sweep", "--engine=slurm", "--cluster=local"),
        *("--config=configs/mnist.py:tiny", "--grid=norm=none,layer", "--workers=2"),
        *("--config.steps=3000 steps", "--config.save_every=3000 steps"),
        *("--config.log_every=100 steps", "--config.eval_every=1000 steps"),
        *(f"--root={tmp_path / 'runs'}", f"--config.data_dir={tmp_path}"),
    )
    root, jobs = tmp_path / "runs" / "mnist", {}
    with start(*words) as launcher:
        for line in launcher.stdout:
            if "job " in line:  # "[1/2] folder: job 123, its log"
                name, _, rest = line.partition(": job ")
                jobs[name.rpartition("/")[2]] = int(rest.split(",")[0])
            if len(jobs) == 2:
                break
        before = {}
        for name, number in (("norm=none", signal.SIGUSR2), ("norm=layer", signal.SIGTERM)):
            rows = root / name / "metrics.jsonl"
            wait_until(lambda rows=rows: rows.exists() and rows.stat().st_size, launcher)
            before[name] = processes_of(jobs[name])
            assert len(before[name]) >= 2
            send(number, jobs[name])
        text, _ = launcher.communicate(timeout=100)
    assert launcher.returncode == 0, text
    assert text.count("has no result") == 1 and "norm=layer" in text
    for name in before:
        sessions = runs.read_rows(root / name / "sessions.jsonl")
        steps = [session["step"] for session in sessions]
        assert len(steps) == 2 and 0 == steps[0] < steps[1] < 3000, (name, steps, text)
        rows = [r["step"] for r in runs.read_rows(root / name / "metrics.jsonl")]
        assert len(rows) == 30 + 3 * 3 and runs.is_finished(root / name)


def test_wrong_options_of_a_cluster_raise(tmp_path, monkeypatch):
    flags.FLAGS.mark_as_parsed()
    given = slurm.options(["timeout_min=600", "slurm_partition=gpu"])
    assert given == {"timeout_min": 600, "slurm_partition": "gpu"}
    with pytest.raises(InputError, match="write KEY=VALUE"):
        slurm.options(["partition"])
    with pytest.raises(InputError, match="srun.*--cluster=local"):  # there is no cluster here
        slurm.start_there(tmp_path, 1)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match="pip install 'submitit"):
        slurm.start_there(tmp_path, 1)
