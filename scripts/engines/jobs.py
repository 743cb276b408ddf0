"""Runs as jobs: the config of each, workers that train them, and how a command is stopped."""

import collections
from collections.abc import Callable, Generator, Mapping
import contextlib
import datetime
import gc
import importlib
import io
import itertools
import json
import math
import multiprocessing
import os
from pathlib import Path
import signal
import sys
import threading
import time
import traceback
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from ln.errors import InputError
from scripts import cli
from scripts.engines.devices import Environment

LANE_KEYS = ("seeds", "lr")  # what one program trains side by side
LOOK = 0.1  # seconds between two looks at the workers
CONTEXT = multiprocessing.get_context("spawn")  # a fork would share the threads' locks of jax


class Job(NamedTuple):
    """A run to train.

    Attributes:
        config: the whole config as JSON.
        minutes: how long it takes, as estimated before; relative to other jobs of a command.
    """

    folder: Path
    config: str
    minutes: float = 1.0

    @property
    def is_finished(self) -> bool:
        """Return whether nothing is left to train: the run has ended, at this length."""
        from ln.training import runs

        config = json.loads(self.config)
        is_over = runs.is_finished(self.folder)
        return is_over and runs.read_config(self.folder)[runs.LENGTH] == config[runs.LENGTH]


# --- Configs ---


def read_pairs(texts: list[str], flag: str, form: str) -> dict[str, str]:
    """Return key -> value of texts such as "norm=none,layer".

    Raises:
        InputError: a text has another form, or one key is given twice.
    """
    pairs = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not value:
            raise InputError(f"{flag} {text!r}: write {form}.")
        if key in pairs:
            raise InputError(f"{flag} gives a key twice.")
        pairs[key] = value
    return pairs


def read_grid(axes: list[str]) -> list[dict[str, str]]:
    """Return all combinations of axes such as "norm=none,layer", key -> value.

    Raises:
        InputError: the text has another form, or one key is given twice.
    """
    values = read_pairs(axes, "--grid", "KEY=VALUE,VALUE,... as in norm=none,layer")
    choices = (text.split(",") for text in values.values())
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*choices)]


def listed(config: ConfigDict) -> list[dict]:
    """Return the points that the config file of the experiment lists."""
    return list(importlib.import_module(f"configs.{config.experiment}").sweep())


def names(points: list[dict]) -> list[str]:
    """Return a folder name for each run, made of its values; of lane keys only those that vary."""
    vary = [k for k in LANE_KEYS if len({str(point.get(k)) for point in points}) > 1]
    aside = set(LANE_KEYS) - set(vary)
    pairs = [[f"{k}={v}" for k, v in point.items() if k not in aside] for point in points]
    folders = [",".join(words).replace(" ", "") or "run" for words in pairs]
    if len(set(folders)) < len(folders):
        raise InputError(f"Two runs of this sweep are the same: {', '.join(folders)}.")
    return folders


def override(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Return a copy of a config with some values, each read as --config.KEY=VALUE is.

    Raises:
        InputError: an unknown key, or a value of another type.
    """
    copy = config.copy_and_resolve_references()  # ConfigDict(config) would share nested ones
    argv = ["", *(f"--config.{key}={value}" for key, value in values.items())]
    given = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", copy, flag_values=given, sys_argv=argv)
        given(argv)
    except cli.FLAG_ERRORS as error:
        raise cli.as_input_error(error) from error
    return given.config


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


def unfinished(config: ConfigDict, points: list[dict], root: Path) -> list[Job]:
    """Return the runs that are not finished.

    Raises:
        InputError: one of the runs cannot be trained, two have the same config, or the folder of
            one has a run of another config.
    """
    from ln.training import runs

    pairs = zip(names(points), points, strict=True)
    made = [Job(root / name, checked(name, config, point).to_json()) for name, point in pairs]
    if len({job.config for job in made}) < len(made):  # hidden=8,08
        raise InputError("Two runs of this sweep are the same: a grid writes a value in two ways.")
    for job in made:
        if (job.folder / "config.json").exists():
            runs.continued(job.folder, json.loads(job.config), "--root")
    todo = [job for job in made if not job.is_finished]
    print(f"{len(made)} runs in {root}, {len(made) - len(todo)} of them finished.", flush=True)
    return todo


# --- Workers ---


class Prefixed(io.TextIOBase):
    """A stream of lines, each printed as a whole behind a prefix."""

    def __init__(self, stream, prefix: str):
        self._stream, self._prefix, self._line = stream, prefix, ""

    def write(self, text: str) -> int:
        """Print the whole lines."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._stream.write(f"{self._prefix} | {line}\n")
        return len(text)


def train_run(job: Job) -> int:
    """Train a run in this process; return its exit status."""
    import experiments
    from ln.training import runs, train

    try:
        with cli.one_line():  # which exits
            config = runs.as_config(json.loads(job.config))
            train.fit(experiments.check(config), config, job.folder)
    except SystemExit as end:
        return int(end.code or 0)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def serve(jobs, train: Callable[[Job], int], share: Environment, argv: list[str]) -> None:
    """Train the jobs that come through a pipe, and send back the exit status of each.

    Args:
        jobs: this end of the pipe.
        train: trains a job.
        share: the devices of this worker.
        argv: the command that started it, which runs record.
    """
    os.environ.update(share)
    sys.orig_argv = argv
    cli.open_output()
    cli.silence_threads()
    # Ctrl-C, and what a cluster sends to all processes of a job: the command asks by SIGTERM.
    for name in ("SIGINT", "SIGUSR2"):
        if number := getattr(signal, name, None):  # Windows has no SIGUSR2
            signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError):
        while job := jobs.recv():
            name = "/".join(job.folder.parts[-2:])
            shown = [Prefixed(stream, name) for stream in (sys.stdout, sys.stderr)]
            with contextlib.redirect_stdout(shown[0]), contextlib.redirect_stderr(shown[1]):
                status = train(job)
            gc.collect()  # what the run had on the devices
            jobs.send(status)


def end_with_parent() -> None:
    """Save and end once the command that started this worker is killed."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


class Worker:
    """A process that trains one job after the other; jax stays loaded.

    It starts with its first job, and anew after one that killed it.
    """

    job: Job
    status: int | None = 0  # of the job, None while it is at work
    _process: Any = None

    def __init__(self, share: Environment, train: Callable[[Job], int] = train_run):
        self._share, self._train = share, train

    def begin(self, job: Job) -> "Worker":
        """Start to train a job."""
        if self._process is None:
            self._pipe, theirs = CONTEXT.Pipe()
            given = theirs, self._train, self._share, sys.orig_argv
            self._process = CONTEXT.Process(target=serve, args=given, daemon=True)
            self._process.start()
            theirs.close()  # so that the end of the process ends the pipe
        self.job, self.status = job, None
        with contextlib.suppress(BrokenPipeError):  # it may have been killed
            self._pipe.send(job)
        return self

    def poll(self) -> int | None:
        """Return the exit status of the job, None while it is at work."""
        if self.status is None and self._pipe.poll():
            try:
                self.status = self._pipe.recv()
            except (EOFError, OSError):  # the process was killed
                self._process.join()
                self.status = self._process.exitcode
            if not self._process.is_alive():
                self._process = None
        return self.status

    def wait(self) -> int:
        """Return the exit status of the job once it has ended."""
        while (status := self.poll()) is None:
            time.sleep(LOOK)
        return status

    def stop(self) -> None:
        """Ask it to save and end."""
        if self._process is not None:
            self._process.terminate()


# --- A queue of jobs ---

# Starts jobs. It returns an object for each with the job, `poll` and `stop`, as `Worker` has them.
Start = Callable[[list[Job]], list]


def start_here(shares: list[Environment], train: Callable[[Job], int] = train_run) -> Start:
    """Return a function that starts jobs on this machine, each with a share of its devices.

    Args:
        shares: the environment of each worker, as `devices.share` returns them.
        train: trains a job in its worker, and returns its exit status.
    """
    workers = [Worker(share, train) for share in shares]

    def start(some: list[Job]) -> list[Worker]:
        free = (worker for worker in workers if worker.status is not None)
        return [worker.begin(job) for worker, job in zip(free, some, strict=False)]

    return start


class Stopping:
    """Asks processes to save and end, at Ctrl-C, at SIGTERM, or after some seconds.

    Attributes:
        asked: whether it has asked.
        by_signal: whether a signal came.
        working: what `Start` returned, as `watch` sets it.
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


class Clock:
    """Estimates of how long jobs take, corrected by the times of those that have ended.

    Args:
        slots: how many are at work at a time.
        ratio: measured / estimated time before any has ended; None: unknown.
    """

    def __init__(self, slots: int, ratio: float | None = None):
        self.slots, self._ratio = slots, ratio
        self._measured = self._estimated = 0.0

    def add(self, seconds: float, minutes: float) -> None:
        """Note how long a job took, and its estimate."""
        self._measured, self._estimated = self._measured + seconds, self._estimated + 60 * minutes
        self._ratio = self._measured / self._estimated if self._estimated else self._ratio

    def eta(self, minutes: float, name: str = "ETA") -> str:
        """Return the time that jobs take, as ", ETA 0:12:00"; "" if it is unknown."""
        if self._ratio is None:
            return ""
        seconds = 60 * minutes * self._ratio / self.slots
        return f", {name} {datetime.timedelta(seconds=round(seconds))}"


def watch(
    start: Callable[[int], list], slots: int, stopping: Stopping
) -> Generator[tuple[Job, int], None, None]:
    """Start jobs as long as there are any, and yield each with its exit status as it ends.

    Args:
        start: starts at most so many jobs, and returns what `Start` returns.
        slots: how many are at work at a time.
        stopping: asks them to save and end.
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
    clock: Clock,
    stopping: Stopping,
    is_done: Callable[[Job], bool] = lambda job: job.is_finished,
    later: float = 0.0,
) -> dict[Path, int]:
    """Train jobs, and once more those that were killed or that another process had.

    Args:
        jobs: each with a separate folder.
        start: starts jobs.
        clock: estimates how long they take.
        stopping: asks them to save and end.
        is_done: whether there is nothing left to do.
        later: minutes of what this command does afterwards, as estimated.

    Returns:
        The exit status of each job that is not done, by folder.
    """
    queue, began = collections.deque(jobs), dict[Job, float]()
    waiting = {job.folder: job.minutes for job in jobs}
    again, left = set[Job](), dict[Path, int]()

    def start_some(room: int) -> list:
        due = list[Job]()
        while queue and len(due) < room:
            job = queue.popleft()
            if not is_done(job):  # asked when its turn comes: another command may have trained it
                due.append(job)
        for job in due:
            began[job] = time.monotonic()
            eta = clock.eta(sum(waiting.values()) + later)
            print(f"[{len(began)}/{len(jobs)}] {job.folder}{eta}", flush=True)
        return start(due) if due else []

    with contextlib.closing(watch(start_some, clock.slots, stopping)) as statuses:
        for job, status in statuses:
            killed = status < 0 or status == cli.INTERRUPTED
            if (killed or status == cli.BUSY) and not stopping.asked and job not in again:
                again.add(job)
                queue.append(job)
                continue
            minutes = waiting.pop(job.folder)
            if status == 0:
                clock.add(time.monotonic() - began[job], minutes)
            # A run that is stopped while it starts cannot save, and ends by the signal.
            elif not (killed and stopping.asked) and not is_done(job):
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


def train_all(todo: list[Job], start: Start, clock: Clock, stopping: Stopping) -> int:
    """Train runs; return the exit status of the command."""
    left = train(todo, start, clock, stopping)
    if stopping.asked:
        print("Stopped; the same command continues from here.", flush=True)
        return cli.INTERRUPTED
    return report(left)
