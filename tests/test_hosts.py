"""Several processes train one run, real ones on this machine: the same run as of one, also when one
of them is lost."""

from pathlib import Path
import signal
import socket
import subprocess
import sys
import time

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest

from ln.errors import InputError
from ln.training import runs
from scripts import cli, hosts
from tests.test_resume import wait_until

PROJECT = Path(__file__).parent.parent
SETTINGS = (
    "--config=configs/mnist.py:tiny",
    "--config.norm=batch",
    "--config.batch_size=12",
    "--config.steps=60",
    "--config.log_every=10",
    "--config.save_every=20",
    "--config.eval_every=30",
)
# Writes down how many cases each batch had that was loaded, and trains.
CODE = """
import sys
from absl import app
from experiments.tasks import Cases
from scripts import cli, train

batch, seen = Cases.batch, open(sys.argv.pop(1), "a")

def watched(self, step, seed, rows):
    found = batch(self, step, seed, rows)
    print(len(found["y"]), file=seen, flush=True)
    return found

Cases.batch = watched
cli.run(train.main)
"""


class Processes:
    """Processes of one run, each with folders of its own; only the first needs the one to work in.

    Args:
        settings: of all; of_each: of one each.
    """

    def __init__(self, place: Path, count: int, *settings, of_each=()):
        place.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.folders = [place / f"run{n}" for n in range(count)]
        self.all = [
            subprocess.Popen(
                [
                    *(sys.executable, "-c", CODE, place / f"cases{n}", *SETTINGS),
                    *(f"--coordinator=127.0.0.1:{port}", f"--processes={count}", f"--process={n}"),
                    *(f"--workdir={folder}", f"--config.data_dir={place.parent / str(n)}"),
                    *settings,
                    *of_each[n : n + 1],
                ],
                cwd=PROJECT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for n, folder in enumerate(self.folders)
        ]

    def until_saved(self) -> None:
        def is_saved():
            return any(p.name.isdigit() for p in self.folders[0].glob("checkpoints/*"))

        wait_until(is_saved, self.all[0])

    def end(self, timeout=60) -> tuple[list[int], list[str]]:
        """Their exit statuses and outputs."""
        try:
            texts = [process.communicate(timeout=timeout)[0] for process in self.all]
        finally:
            for process in self.all:
                process.kill()
        return [process.returncode for process in self.all], texts


def metrics(folder):
    return runs.read_rows(folder / "metrics.jsonl")


def assert_same_run(folder, other, rtol=2e-4):
    """The same rows of seed 0 but for rounding, the last of them of the last step."""
    found, expected = ([r for r in metrics(f) if r["seed"] == 0] for f in (folder, other))
    assert len(found) == len(expected) > 0 and runs.is_finished(folder)
    for row, like in zip(found, expected, strict=True):
        assert [row[k] for k in ("step", "split")] == [like[k] for k in ("step", "split")]
        np.testing.assert_allclose(row["nll"], like["nll"], rtol=rtol)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def alone(place):
    """The run of one process."""
    words = [*SETTINGS, f"--workdir={place / 'alone'}", f"--config.data_dir={place}"]
    subprocess.run([sys.executable, "-m", "scripts.train", *words], cwd=PROJECT, check=True)
    return place / "alone"


@pytest.mark.slow
@pytest.mark.parametrize("count, lanes, cases", [(2, 1, 6), (3, 1, 4), (2, 2, 12)])
def test_several_processes_make_the_run_of_one_and_each_loads_its_part(
    alone, place, count, lanes, cases
):
    folder = place / f"{count},{lanes}"
    processes = Processes(folder, count, f"--config.seeds={','.join(map(str, range(lanes)))}")
    statuses, texts = processes.end()
    assert statuses == [0] * count, texts
    assert_same_run(processes.folders[0], alone)
    for n in range(count):
        assert set((folder / f"cases{n}").read_text().split()) == {str(cases)}
    assert not any(folder.exists() for folder in processes.folders[1:])
    assert f"{count} x cpu, {count} processes" in texts[0] and "loss" not in texts[1]
    (session,) = runs.read_rows(processes.folders[0] / "sessions.jsonl")
    assert session["processes"] == count


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_when_one_is_killed_the_others_say_so_and_another_number_goes_on(place, lost):
    long = "--config.steps=3000"
    folder = place / f"lost{lost}"
    processes = Processes(folder, 3, long)
    processes.until_saved()
    processes.all[lost].kill()
    began = time.monotonic()
    statuses, texts = processes.end(timeout=hosts.HEARTBEAT + 45)
    assert time.monotonic() - began < hosts.HEARTBEAT + 45
    for n in {0, 1, 2} - {lost}:
        assert statuses[n] in (hosts.LOST, -signal.SIGABRT)
        assert f"error: {hosts.GONE}" in texts[n]
    saved = max(int(p.name) for p in processes.folders[0].glob("checkpoints/*") if p.name.isdigit())
    again = Processes(folder, 2, f"--config.steps={saved + 40}")
    statuses, texts = again.end()
    assert statuses == [0, 0] and f"Resuming at step {saved:,}." in texts[0]
    words = [*SETTINGS, f"--config.steps={saved + 40}", f"--config.data_dir={place}"]
    words += [f"--workdir={folder / 'alone'}"]
    subprocess.run([sys.executable, "-m", "scripts.train", *words], cwd=PROJECT, check=True)
    assert_same_run(again.folders[0], folder / "alone", rtol=1e-3)


@pytest.mark.slow
def test_sigterm_to_one_stops_all_after_the_same_step_and_is_saved(place):
    folder = place / "stopped"
    processes = Processes(folder, 2, "--config.steps=3000", "--config.save_every=3000")
    wait_until(lambda: metrics(processes.folders[0]), processes.all[0])
    processes.all[1].send_signal(signal.SIGTERM)
    statuses, texts = processes.end()
    assert statuses == [cli.INTERRUPTED] * 2, texts
    (saved,) = (p.name for p in processes.folders[0].glob("checkpoints/*") if p.name.isdigit())
    assert f"Saved step {saved} in" in texts[0] and "To resume:" in texts[0]


@pytest.mark.slow
def test_who_does_not_come_or_wants_something_else_is_no_reason_to_wait_for_ever(place):
    folder = place / "alike"
    differ = Processes(folder, 2, of_each=("--config.lr=1e-3", "--config.lr=1e-2"))
    statuses, texts = differ.end()
    assert statuses == [2, 2] and all("Process 1 has another config" in text for text in texts)
    assert not differ.folders[0].exists()
    waits = Processes(folder, 2, "--patience=4")
    waits.all[1].kill()
    statuses, texts = waits.end()
    assert statuses[0] == hosts.LOST and "not all processes of this run were there" in texts[0]


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(coordinator="host:1", processes=2), "all of --coordinator"),
        (dict(coordinator="host:1", processes=2, process=2), "numbered from 0 to 1"),
        (dict(coordinator="host", processes=2, process=0), "write HOST:PORT"),
    ],
)
def test_a_place_that_cannot_be_is_refused(given, words):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(**given), pytest.raises(InputError, match=words):
        hosts.Place.of_flags()


def test_without_flags_one_process_trains_alone():
    flags.FLAGS.mark_as_parsed()
    assert hosts.Place.of_flags() is None
    with flagsaver.flagsaver(distributed=True):
        assert hosts.Place.of_flags() == hosts.Place(None, None, None)
