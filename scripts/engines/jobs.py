"""Runs as jobs: the command that makes each, and the default engine, processes of this machine."""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import contextlib
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


def read_config(words: Sequence[str]):
    """Return the config of these flags, as the command of a run reads it.

    Raises:
        One of cli.FLAG_ERRORS: a value is wrong.
    """
    values = flags.FlagValues()
    argv = ["read", *words]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    return values.config


def check(words: list[str]) -> list[tuple[int, float]]:
    """Check the config of one run as its command does, load its task, and return its lanes.

    Raises:
        InputError: a value is wrong or a data set is missing.
    """
    import experiments
    from ln.training import train

    try:
        for word in words:
            if word.startswith("--config="):
                cli.check_config_file(word)
        config = read_config(words)
        task = experiments.load(config)
        lanes = train.make_lanes(config)
        train.make_optimizer(config)
        train.Plan.of(config, task)
    except cli.FLAG_ERRORS as error:
        raise cli.as_input_error(error, words) from error
    return lanes


def run_here(
    jobs: list[Job],
    workers: int,
    saving: "letting_runs_save | None" = None,
    due: Callable[[Job], bool] = lambda job: True,
) -> Iterator[tuple[Job, int]]:
    """Runs jobs in processes of this machine.

    Args:
        saving: where the caller wants to stop runs before they end.
        due: whether a job is still to do when its turn comes.
    """
    numbered = ((number, job) for number, job in enumerate(jobs, start=1) if due(job))
    if workers == 1 and saving is None:
        for number, job in numbered:
            print(f"[{number}/{len(jobs)}] {job.folder}", flush=True)
            yield job, cli.call(job.words)
        return
    entered = contextlib.nullcontext(saving) if saving else letting_runs_save()
    with entered as asking, futures.ThreadPoolExecutor(workers) as pool:
        waiting: dict[futures.Future, Job] = {}
        while True:
            free = 0 if saving and saving.asked else workers - len(waiting)
            for number, job in itertools.islice(numbered, free):
                print(f"[{number}/{len(jobs)}] {job.folder}", flush=True)
                process = asking.watch(Process(job))
                waiting[pool.submit(process.wait)] = job
            if not waiting:
                return
            for future in futures.wait(waiting, return_when=futures.FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()


class letting_runs_save:
    """Ctrl-C reaches the runs too: they save and end, and waiting for them is all to do here.

    Args:
        signals: those that ask runs to save.
        seconds: time after which to ask by itself.

    Attributes:
        asked: whether one came, or the time is up.
        stopped: whether one came.
    """

    def __init__(self, signals=(signal.SIGINT,), seconds: float | None = None):
        self.signals, self.asked, self.stopped = signals, False, False
        self._processes: list[Process] = []
        self._timer = threading.Timer(seconds, self._ask) if seconds is not None else None

    def watch(self, process: "Process") -> "Process":
        """Asks the process too, which not every signal reaches by itself."""
        self._processes.append(process)
        if self.asked:
            process.stop()
        return process

    def _ask(self, *received):
        self.asked, self.stopped = True, self.stopped or bool(received)
        for process in self._processes:
            process.stop()

    def __enter__(self):
        self.before = {s: signal.signal(s, self._ask) for s in self.signals}
        if self._timer:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_):
        if self._timer:
            self._timer.cancel()
        for number, handler in self.before.items():
            signal.signal(number, handler)


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
