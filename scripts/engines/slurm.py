"""The engine slurm: each run is a job of a cluster, submitted and watched through submitit.

A job starts scripts.train and waits for it. When the cluster is about to take the machine away, the
run saves and ends. After SIGUSR2, which submitit asks for before a time limit or a preemption, the
job itself goes back in the queue; after SIGTERM the cluster puts it there, or else this command.
Either way the same run goes on, from there.
"""

from collections.abc import Iterator
import contextlib
import os
import signal
import subprocess
import sys
import time

from absl import flags

from ln.errors import InputError, choose
from scripts import cli
from scripts.engines.jobs import Job

CLUSTER = flags.DEFINE_string(
    "cluster", "slurm", "slurm: what submitit submits to: slurm, or local for processes here"
)
SLURM = flags.DEFINE_multi_string(
    "slurm", [], "slurm: KEY=VALUE for submitit: timeout_min=600, gpus_per_node=1, ..."
)

LOOK = 1.0  # seconds between two looks at the jobs
LOSSES = 3  # how often a job that was lost is submitted again


class Training:
    """What a job does: it trains one run. submitit pickles it, and calls it on the machine."""

    stopped = False

    def __init__(self, words: tuple[str, ...]):
        self.words = words
        self.process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Returns the exit status of the run; none where it saved because it had to."""
        signal.signal(signal.SIGTERM, self.stop)
        # A cluster may send SIGUSR2 to all processes of a job, and it would end the run unsaved.
        self.process = subprocess.Popen([sys.executable, *self.words], preexec_fn=ignore)
        status = self.process.wait()
        if status == cli.INTERRUPTED:
            sys.exit(status)  # no result: the job is not done
        return status

    def stop(self, *_) -> None:
        """Asks the run to save and end. Once, since asking twice is not to wait for it."""
        if self.process is not None and not self.stopped:
            self.stopped = True
            self.process.terminate()

    def checkpoint(self):
        """Saves the run; returns the job to put in the queue for the rest of it."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        if self.process is not None:
            with contextlib.suppress(ChildProcessError):  # it has ended already
                # Not process.wait(): it has been interrupted by the signal that brought us here.
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Training(self.words))


def ignore() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def options(words: list[str]) -> dict:
    """Parameters of submitit's executor, of words such as "timeout_min=600".

    Raises:
        InputError: not of that form.
    """
    found: dict[str, str | int] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise InputError(f"--slurm {word!r}: write KEY=VALUE, as in timeout_min=600.")
        found[key] = int(value) if value.isdigit() else value
    return found


def make_executor(folder, workers: int):
    """submitit's, whose files go to a folder.

    Raises:
        InputError: submitit is not installed, there is no such cluster, or an option is unknown.
    """
    try:
        import submitit
    except ImportError:
        raise InputError(
            "--engine=slurm needs submitit, which is not installed: pip install 'submitit>=1.5'"
        ) from None
    choose("--cluster", CLUSTER.value, {"slurm": None, "local": None})
    given = options(SLURM.value)
    if CLUSTER.value == "slurm":
        given.setdefault("slurm_array_parallelism", workers)
    try:
        often = {f"{CLUSTER.value}_max_num_timeout": 1000}  # each time it gets on
        executor = submitit.AutoExecutor(folder, cluster=CLUSTER.value, **often)
        executor.update_parameters(**given)
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        raise InputError(
            f"--engine=slurm: {error}. Start it where jobs are submitted, or with --cluster=local."
        ) from error
    return executor


def run_there(jobs: list[Job], workers: int) -> Iterator[tuple[Job, int]]:
    """Runs jobs as jobs of the cluster, at most so many at a time.

    The jobs outlive this command: given again while they are at work, it leaves these runs to them.
    """
    if not jobs:
        return
    executor = make_executor(jobs[0].folder.parent / "submitit", workers)
    waiting, at_work = list(enumerate(jobs, start=1)), {}
    losses = dict.fromkeys(jobs, 0)
    try:
        while waiting or at_work:
            # A cluster gets all at once, as an array; processes here are as many as are wanted.
            room = len(waiting) if CLUSTER.value == "slurm" else workers - len(at_work)
            new, waiting = waiting[:room], waiting[room:]
            if new:
                with executor.batch():
                    submitted = [executor.submit(Training(job.words)) for _, job in new]
                for (number, job), job_there in zip(new, submitted, strict=True):
                    at_work[job] = job_there
                    print(
                        f"[{number}/{len(jobs)}] {job.folder}: job {job_there.job_id}, "
                        f"{job_there.paths.stdout}",
                        flush=True,
                    )
            for job, job_there in list(at_work.items()):
                if not job_there.done():
                    continue
                del at_work[job]
                error = job_there.exception()
                if error is None:
                    yield job, job_there.result()
                    continue
                losses[job] += 1
                again = losses[job] <= LOSSES and "CANCELLED" not in job_there.state
                print(
                    f"Job {job_there.job_id} ended without a result, "
                    f"{'so it is submitted again' if again else job_there.state}: {job.folder}",
                    flush=True,
                )
                if again:
                    waiting.append((jobs.index(job) + 1, job))
                else:
                    yield job, 1
            time.sleep(LOOK)
    except KeyboardInterrupt:
        names = ", ".join(job_there.job_id for job_there in at_work.values())
        print(f"No longer watching job {names}.", flush=True)
        raise
