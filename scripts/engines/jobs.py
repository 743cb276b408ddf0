"""Runs as jobs: the config of each, processes that train them, and how a command is stopped."""

import collections
from collections.abc import Callable, Generator, Mapping
import contextlib
import functools
import math
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time
from typing import Any, ClassVar, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from ln.errors import InputError
from scripts import cli
from scripts.engines.devices import Environment

LOOK = 0.1  # seconds between two looks at the processes


class Job(NamedTuple):
    """A run to train: its folder, and its whole config as JSON."""

    folder: Path
    config: str

    @classmethod
    def make(cls, folder: Path, config: ConfigDict) -> "Job":
        return cls(folder, config.to_json())


# --- Configs ---


def parse(define: Callable, words: list[str]) -> ConfigDict:
    """Return the config that a definition of ml_collections makes of these flags."""
    values, argv = flags.FlagValues(), ["", *words]
    try:
        define(flag_values=values, sys_argv=argv)
        values(argv)
    except cli.FLAG_ERRORS as error:
        raise cli.as_input_error(error) from error
    return values.config


@functools.cache
def read_config(name: str) -> ConfigDict:
    """Return the config of FILE[:SCALE]; its caller must not change it.

    Raises:
        InputError: there is no such file or scale.
    """
    word = f"--config={name}"
    cli.check_config_file(name)
    define = functools.partial(config_flags.DEFINE_config_file, "config")
    return parse(define, [word])


def override(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Return a copy of a config with some values, each read as --config.KEY=VALUE is.

    Raises:
        InputError: an unknown key, or a value of another type.
    """
    copy = config.copy_and_resolve_references()  # ConfigDict(config) would share nested ones
    define = functools.partial(config_flags.DEFINE_config_dict, "config", copy)
    words = [f"--config.{key}={value}" for key, value in values.items()]
    return parse(define, words)


def checked(name: str, config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Return `override(config, values)`.

    Raises:
        InputError: a value is wrong, or the run cannot be trained; begins with its name.
    """
    import jax

    import experiments

    # The command that starts runs takes no accelerator from them.
    jax.config.update("jax_platforms", "cpu")
    try:
        run = override(config, values)
        experiments.check(run)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return run


def flat(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings, {"optimizer": {"b2": 0.9}} to {"optimizer.b2": 0.9}."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        values |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return values


# --- Processes ---


class Stopping:
    """Asks processes to save and end, at Ctrl-C, at SIGTERM, or after some seconds.

    Attributes:
        asked: whether it has asked.
        by_signal: whether a signal came.
        working: the processes, as `watch` sets them. Ctrl-C reaches them by itself, SIGTERM not.
    """

    def __init__(self, seconds: float = math.inf):
        self.asked = self.by_signal = False
        self.working: list = []
        self._deadline = time.monotonic() + seconds

    def _ask(self, *received) -> None:
        self.asked, self.by_signal = True, self.by_signal or bool(received)
        for process in self.working:
            process.stop()

    def look(self) -> None:
        """Ask if the time is up."""
        if not self.asked and time.monotonic() >= self._deadline:
            self._ask()

    def __enter__(self):
        signals = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._ask) for number in signals}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Process:
    """A job at work on this machine; each of its lines is printed behind the name of its folder."""

    place: ClassVar = ""

    def __init__(self, job: Job, shares: collections.deque[Environment]):
        self.job, self._shares, self._share = job, shares, shares.popleft()
        piped = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._process = begin(job, **piped, env=os.environ | self._share)
        self._shown = threading.Thread(target=self._show)
        self._shown.start()

    def _show(self) -> None:
        with self._process:  # waits: until the process has ended, it holds its devices
            for line in self._process.stdout or ():
                print(f"{self.job.folder.name} | {line}", end="", flush=True)
        self._shares.append(self._share)

    def poll(self) -> int | None:
        """Return the exit status once its last line is printed, None while it is at work."""
        return None if self._shown.is_alive() else self._process.poll()

    def stop(self) -> None:
        """Ask it to save and end."""
        self._process.terminate()


def begin(job: Job, **options) -> subprocess.Popen:
    """Start the command of a job, which reads the config from its standard input."""
    train = (sys.executable, "-m", "scripts.train", "--config_json=-")
    options |= dict(stdin=subprocess.PIPE, text=True, errors="replace")
    process = subprocess.Popen((*train, f"--workdir={job.folder.as_posix()}"), **options)
    with contextlib.suppress(BrokenPipeError):  # it may have been killed
        assert process.stdin
        with process.stdin:
            process.stdin.write(job.config)
    return process


# Starts jobs. What it returns for each has the job, `poll` and `stop`, as `Process` has them, and
# `place`, which is shown behind the folder.
Start = Callable[[list[Job]], list]


def start_here(shares: list[Environment]) -> Start:
    """Return a function that starts jobs on this machine, each with a share of its devices.

    Args:
        shares: the environment of each job at work, as `devices.share` returns them.
    """
    free = collections.deque(shares)
    return lambda some: [Process(job, free) for job in some]


def watch(
    start: Callable[[int], list], slots: int, stopping: Stopping
) -> Generator[tuple[Job, int], None, None]:
    """Start jobs as long as there are any, and yield each with its exit status as it ends.

    Args:
        start: starts at most so many jobs, and returns what `Start` returns.
        slots: how many are at work at a time.
    """
    working: list = []
    stopping.working = working
    try:
        while True:
            stopping.look()
            room = 0 if stopping.asked else slots - len(working)
            started = start(room) if room else []
            working += started
            for process in started if stopping.asked else ():  # meanwhile
                process.stop()
            if not working:
                return
            for process in list(working):
                if (status := process.poll()) is not None:
                    working.remove(process)
                    yield process.job, status
            time.sleep(LOOK)
    finally:  # after an error: no job stays at work unwatched
        while any(process.poll() is None for process in working):
            time.sleep(LOOK)


def train(
    jobs: list[Job],
    start: Start,
    slots: int,
    stopping: Stopping,
    is_done: Callable[[Job], bool],
) -> dict[Path, int]:
    """Train jobs, and once more those that were killed or that another process had.

    Args:
        is_done: whether there is nothing left to do.

    Returns:
        The exit status of each job that is not done, by folder.
    """
    queue, numbers = collections.deque(jobs), {job: n for n, job in enumerate(jobs, start=1)}
    again, left = set[Job](), dict[Path, int]()

    def start_some(room: int) -> list:
        due = list[Job]()
        while queue and len(due) < room:
            job = queue.popleft()
            if not is_done(job):  # asked when its turn comes: another command may have trained it
                due.append(job)
        started = start(due) if due else []
        for job, process in zip(due, started, strict=True):
            print(f"[{numbers[job]}/{len(jobs)}] {job.folder}{process.place}", flush=True)
        return started

    with contextlib.closing(watch(start_some, slots, stopping)) as statuses:
        for job, status in statuses:
            killed = status < 0 or status == cli.INTERRUPTED
            if (killed or status == cli.BUSY) and not stopping.asked and job not in again:
                again.add(job)
                queue.append(job)
            # A run that is stopped while it starts cannot save, and ends by the signal.
            elif status and not (killed and stopping.asked) and not is_done(job):
                left[job.folder] = status
    return left


def report(left: dict[Path, int]) -> int:
    """Print which runs were left, and return the exit status of the command."""
    busy = [str(folder) for folder, status in left.items() if status == cli.BUSY]
    failed = [f"{f}: exit status {status}" for f, status in left.items() if status != cli.BUSY]
    if busy:
        print(f"Left to another process that is at work on them: {', '.join(busy)}", flush=True)
    if failed:
        print(f"{len(failed)} runs failed:", *failed, sep="\n  ", file=sys.stderr)
    return 1 if failed else 0
