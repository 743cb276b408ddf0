"""The engine slurm: each run is a job of a cluster, submitted and watched through submitit.

A job starts a worker and waits for its run. When the cluster is about to take the machine away, the
run saves and ends. After SIGUSR2, which submitit asks for before a time limit or a preemption, the
job itself goes back in the queue; after SIGTERM the cluster puts it there, or else this command.
Either way the same run continues.
"""

from pathlib import Path
import signal
import sys

from absl import flags

from ln.errors import InputError
from scripts import cli
from scripts.engines import jobs

REQUEUES = 1000  # of a job, each time it gets on


class Training:
    """A job, which trains one run. submitit pickles it, and calls it on the machine."""

    def __init__(self, job: jobs.Job):
        self.job, self.worker = job, jobs.Worker({})

    def __call__(self) -> int:
        """Return the exit status of the run; leave without a result if it had to save."""
        signal.signal(signal.SIGTERM, lambda *_: self.worker.stop())
        self.worker.begin(self.job)
        if (status := self.worker.wait()) == cli.INTERRUPTED:
            sys.exit(status)  # no result: the job is not done
        return status

    def checkpoint(self):
        """Save the run; return the job to put in the queue for the rest of it."""
        from submitit.helpers import DelayedSubmission

        self.worker.stop()
        self.worker.wait()
        return DelayedSubmission(Training(self.job))


class Submitted:
    """A job at work on the cluster; it outlives this command."""

    def __init__(self, job: jobs.Job, submitted):
        self.job, self.submitted, self.stopped = job, submitted, False

    def poll(self) -> int | None:
        """Return the exit status of the run; that of an interrupted one if there is no result."""
        if self.stopped:
            return cli.INTERRUPTED
        if not self.submitted.done():
            return None
        if self.submitted.exception() is None:
            return self.submitted.result()
        state = self.submitted.state
        print(f"Job {self.submitted.job_id} has no result ({state}): {self.job.folder}", flush=True)
        return 1 if "CANCELLED" in state else cli.INTERRUPTED

    def stop(self) -> None:
        """Leave the job to the cluster."""
        self.stopped = True
        print(f"No longer watching job {self.submitted.job_id}.", flush=True)


def options(words: list[str]) -> dict[str, str | int]:
    """Return the parameters of submitit's executor of words such as "timeout_min=600".

    Raises:
        InputError: a word has another form.
    """
    pairs = jobs.read_pairs(words, "--slurm", "KEY=VALUE, as in timeout_min=600")
    return {key: int(value) if value.isdigit() else value for key, value in pairs.items()}


def start_there(folder: Path, workers: int, per_run: int | None = None) -> tuple[jobs.Start, int]:
    """Return a function that submits jobs, and how many to submit at a time.

    A cluster gets all at once, as an array; processes here are as many as are wanted.

    Args:
        folder: for the files of submitit.
        workers: how many jobs run at a time.
        per_run: GPUs of a job, which no other job has; None: what the cluster gives by default.

    Raises:
        InputError: submitit is not installed, there is no such cluster, or an option is unknown.
    """
    try:
        import submitit
    except ImportError:
        raise InputError("submitit is not installed: pip install 'submitit>=1.5'") from None
    cluster, given = flags.FLAGS.cluster, options(flags.FLAGS.slurm)
    at_once = {"slurm_array_parallelism": workers} if cluster == "slurm" else {}
    gpus = {"gpus_per_node": per_run} if per_run else {}  # a job is one task on one node
    often = {f"{cluster}_max_num_timeout": REQUEUES}
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, **often)
        executor.update_parameters(**at_once | gpus | given)
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        remedy = "Start it where jobs are submitted, or with --cluster=local."
        raise InputError(f"--engine=slurm: {error}. {remedy}") from error

    def start(some: list[jobs.Job]) -> list[Submitted]:
        with executor.batch():
            begun = [Submitted(job, executor.submit(Training(job))) for job in some]
        for job in begun:
            log = job.submitted.paths.stdout
            print(f"{job.job.folder}: job {job.submitted.job_id}, {log}", flush=True)
        return begun

    return start, sys.maxsize if at_once else workers
