"""Several processes on this machine train one run: the run of one process, also if one is lost."""

from pathlib import Path
import re
import signal
import socket

import numpy as np
import pytest

from ln.training import runs
from scripts import cli, hosts
from tests.commands import run, start
from tests.products import exhaustive
from tests.test_resume import wait_until

SETTINGS = (
    "--config=configs/mnist.py:tiny",
    "--config.norm=batch",
    "--config.batch_size=12",
    "--config.steps=60",
    "--config.log_every=10",
    "--config.save_every=20",
    "--config.eval_every=30",
)


# Trains, and prints the number of examples of each batch that is loaded.
CODE = """
import sys
from experiments.tasks import Cases
from scripts import cli, train
def watched(*words, batch=Cases.batch):
    loaded = batch(*words)
    print("loaded", len(loaded["y"]), file=sys.stderr)  # the output of others is lost
    return loaded
Cases.batch = watched
cli.run(train.main)
"""


class Processes:
    """Processes of one run, each with its own folders; only the first one writes its run folder.

    Args:
        settings: flags of all processes.
        each: one more flag for each process.
    """

    def __init__(self, place: Path, count: int, *settings, each=()):
        place.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.folders = [place / f"run{n}" for n in range(count)]
        self.all = [
            start(
                *("-c", CODE, *SETTINGS),
                *(f"--coordinator=127.0.0.1:{port}", f"--processes={count}", f"--process={n}"),
                *(f"--workdir={folder}", f"--config.data_dir={place.parent / str(n)}"),
                *(*settings, *each[n : n + 1]),
            )
            for n, folder in enumerate(self.folders)
        ]

    def until_saved(self) -> None:
        def is_saved():
            return any(p.name.isdigit() for p in self.folders[0].glob("checkpoints/*"))

        wait_until(is_saved, self.all[0])

    def end(self, timeout=60) -> tuple[list[int], list[str]]:
        """Return the exit statuses and outputs."""
        try:
            texts = [process.communicate(timeout=timeout)[0] for process in self.all]
        finally:
            for process in self.all:
                process.kill()
        return [process.returncode for process in self.all], texts


def metrics(folder):
    return runs.read_rows(folder / "metrics.jsonl")


def assert_same_run(folder, expected):
    """Compare the rows of seed 0, up to rounding."""
    rows, expected = ([r for r in metrics(f) if r["seed"] == 0] for f in (folder, expected))
    assert len(rows) == len(expected) > 0 and runs.is_finished(folder)
    for row, like in zip(rows, expected, strict=True):
        assert [row[k] for k in ("step", "split")] == [like[k] for k in ("step", "split")]
        np.testing.assert_allclose(row["nll"], like["nll"], rtol=2e-4)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def alone(place):
    """Return the folder of a run of one process."""
    words = [*SETTINGS, f"--workdir={place / 'alone'}", f"--config.data_dir={place}"]
    assert run("scripts.train", *words).returncode == 0
    return place / "alone"


@pytest.mark.slow
@pytest.mark.parametrize(
    "count, lanes, examples", [(2, 1, 6), exhaustive(3, 1, 4), exhaustive(2, 2, 12)]
)
def test_several_processes_make_the_run_of_one(alone, place, count, lanes, examples):
    folder = place / f"{count},{lanes}"
    processes = Processes(folder, count, f"--config.seeds={','.join(map(str, range(lanes)))}")
    statuses, texts = processes.end()
    assert statuses == [0] * count, texts
    assert_same_run(processes.folders[0], alone)
    for text in texts:
        assert set(re.findall(r"loaded (\d+)", text)) == {str(examples)}
    assert not any(folder.exists() for folder in processes.folders[1:])
    assert f"{count} x cpu, {count} processes" in texts[0] and "loss" not in texts[1]
    (session,) = runs.read_rows(processes.folders[0] / "sessions.jsonl")
    assert session["processes"] == count


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, exhaustive(1)])
def test_a_lost_process_ends_the_others(place, lost):
    """Another number of processes continues from the newest checkpoint."""
    folder = place / f"lost{lost}"
    processes = Processes(folder, 3, "--config.steps=3000")
    processes.until_saved()
    processes.all[lost].kill()
    statuses, texts = processes.end(timeout=hosts.HEARTBEAT + 45)
    for n in {0, 1, 2} - {lost}:
        assert statuses[n] in (hosts.LOST, -signal.SIGABRT)
        assert hosts.AGAIN in texts[n]
    saved = max(int(p.name) for p in processes.folders[0].glob("checkpoints/*") if p.name.isdigit())
    again = Processes(folder, 2, f"--config.steps={saved + 40}")
    statuses, texts = again.end()
    assert statuses == [0, 0] and f"Resuming at step {saved:,}." in texts[0]
    rows = [(row["step"], row["split"]) for row in metrics(again.folders[0])]
    assert len(set(rows)) == len(rows) and rows[-1][0] == saved + 40


@pytest.mark.slow
def test_sigterm_to_one_process_saves_and_stops_all(place):
    folder = place / "stopped"
    processes = Processes(folder, 2, "--config.steps=3000", "--config.save_every=3000")
    wait_until(lambda: metrics(processes.folders[0]), processes.all[0])
    processes.all[1].send_signal(signal.SIGTERM)
    statuses, texts = processes.end()
    assert statuses == [cli.INTERRUPTED] * 2, texts
    (saved,) = (p.name for p in processes.folders[0].glob("checkpoints/*") if p.name.isdigit())
    assert f"Saved step {saved} in" in texts[0] and "To resume:" in texts[0]


@pytest.mark.slow
def test_processes_that_differ_or_are_missing_end(place):
    folder = place / "differ"
    differ = Processes(folder, 2, each=("--config.lr=1e-3", "--config.lr=1e-2"))
    statuses, texts = differ.end()
    assert statuses == [2, 2] and all("Process 1 has another config" in text for text in texts)
    assert not differ.folders[0].exists()
    waits = Processes(folder, 2, "--patience=4")
    waits.all[1].kill()
    statuses, texts = waits.end()
    assert statuses[0] not in (0, None) and "does not start within --patience=4 sec" in texts[0]


PLACES = ["--coordinator=host:1 --processes=2", "--distributed"]
PLACES += ["--coordinator=host --processes=2 --process=0"]


@pytest.mark.parametrize("words", PLACES)
def test_invalid_places_raise_one_line(words, tmp_path):
    place = ("--config=configs/mnist.py:tiny", f"--workdir={tmp_path / 'run'}")
    done = run("scripts.train", *place, *words.split())
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert "error: The processes of this run cannot meet" in done.stderr
