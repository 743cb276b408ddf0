"""Runs as jobs: the command that makes each, and the default engine, processes of this machine."""

from collections.abc import Callable, Iterator
from concurrent import futures
import itertools
import os
from pathlib import Path
import shlex
import signal
import subprocess
import sys
import threading
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from scripts import cli


class Job(NamedTuple):
    """A run to make: its folder, and the command behind "python"."""

    folder: Path
    words: tuple[str, ...]

    def __str__(self):
        return f"python {shlex.join(self.words)}"


# Takes jobs, trains some at a time, and yields each with its exit status as it ends.
Engine = Callable[[list[Job], int], Iterator[tuple[Job, int]]]


def settings(overrides: dict, argv: list[str]) -> list[str]:
    """The config flags of one run: those given to this command, then the run's own."""
    given = [word for word in argv if word.startswith(("--config=", "--config."))]
    return given + [f"--config.{key}={value}" for key, value in overrides.items()]


def make_job(folder: Path, overrides: dict) -> Job:
    """The run of these overrides of the config that was given to this command."""
    words = settings(overrides, sys.argv[1:])
    return Job(folder, ("-m", "scripts.train", *words, f"--workdir={folder.as_posix()}"))


def check(words: list[str]) -> None:
    """Reads the config of one run as its command will, and loads its task.

    Raises:
        InputError, or one of cli.FLAG_ERRORS: a value is wrong or a data set is missing.
    """
    import experiments
    from ln import train

    values = flags.FlagValues()
    argv = ["check", *words]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    experiments.load(values.config)
    train.make_lanes(values.config)


def run_here(jobs: list[Job], workers: int) -> Iterator[tuple[Job, int]]:
    """Runs jobs in processes of this machine."""
    numbered = enumerate(jobs, start=1)
    if workers == 1:
        for number, job in numbered:
            print(f"[{number}/{len(jobs)}] {job.folder}", flush=True)
            yield job, cli.call(job.words)
        return
    with letting_runs_save(), futures.ThreadPoolExecutor(workers) as pool:
        waiting: dict[futures.Future, Job] = {}
        while True:
            for number, job in itertools.islice(numbered, workers - len(waiting)):
                print(f"[{number}/{len(jobs)}] {job.folder}", flush=True)
                waiting[pool.submit(lambda job: Process(job).wait(), job)] = job
            if not waiting:
                return
            for future in futures.wait(waiting, return_when=futures.FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()


class letting_runs_save:
    """Ctrl-C reaches the runs too: they save and end, and waiting for them is all to do here.

    Attributes:
        asked: whether it came.
    """

    asked = False

    def _ask(self, *_):
        self.asked = True

    def __enter__(self):
        self.before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_):
        signal.signal(signal.SIGINT, self.before)


class Process:
    """A job at work; its lines appear behind the name of its folder."""

    def __init__(self, job: Job):
        self.job = job
        # By default each would take most of a GPU's memory at once.
        environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | os.environ
        self._process = subprocess.Popen(
            [sys.executable, *job.words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        )
        self._shown = threading.Thread(target=self._show)
        self._shown.start()

    def _show(self):
        for line in self._process.stdout:
            print(f"{self.job.folder.name} | {line}", end="", flush=True)

    def wait(self) -> int:
        """Returns the exit status."""
        self._shown.join()
        with self._process:
            return self._process.wait()

    def poll(self) -> int | None:
        """The exit status, or None while it is at work."""
        return None if self._process.poll() is None else self.wait()

    def stop(self) -> None:
        """Asks it to save and end."""
        self._process.terminate()
