"""Run the parts of a command before a deadline, and archive the results after each part."""

import contextlib
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import tarfile
import time

LEAST = 3  # seconds that a part needs to be worth a start
GRACE = 8  # seconds from asking a part to stop to killing it
MARGIN = 5  # seconds before the deadline at which the last part is asked to stop

NOT_ARCHIVED = ("checkpoints", "damaged", "events", "lock", "data")


class Session:
    """Run the parts of a command one after the other, until its time is up.

    Attributes:
        folder: everything that is measured.
        parts: the parts so far, as report.json lists them.
    """

    def __init__(self, command: str, out: Path, work: Path, minutes: float):
        self.began, self.deadline = time.monotonic(), time.monotonic() + 60 * minutes - MARGIN
        self.folder, self.archive = work / command, out / f"gpu_{command}.tar.gz"
        self.command, self.parts = command, list[dict]()
        for folder in (out, self.folder / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        self.write()

    def left(self) -> float:
        """Return the seconds that parts may still take."""
        return max(0.0, self.deadline - time.monotonic())

    def run(self, name: str, words: tuple[str, ...], share: float = 1.0) -> bool:
        """Run a part for at most a share of the time that is left, and write the archive.

        Args:
            words: the command behind "python".

        Returns:
            True if it may continue later: it ended without an error, or ran out of time.
        """
        limit, outcome, began = share * self.left(), "no time left", time.monotonic()
        if limit >= LEAST:
            status = run_for(limit, words, self.folder / "logs" / f"{name}.txt")
            outcome = {None: "out of time", 0: "finished"}.get(status, f"exit status {status}")
        seconds, at = (round(time.monotonic() - start, 1) for start in (began, self.began))
        self.parts.append(dict(part=name, outcome=outcome, ended=at, seconds=seconds, words=words))
        print(f"{at:6.1f} s  {name}: {outcome} after {seconds} s", flush=True)
        self.write()
        return not outcome.startswith("exit")

    def write(self) -> None:
        """Write the report, and the archive as a whole."""
        variables = {k: v for k, v in sorted(os.environ.items()) if k.startswith(("JAX_", "XLA_"))}
        report = dict(command=self.command, variables=variables, parts=self.parts)
        (self.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        partial = self.archive.with_suffix(".partial")
        with tarfile.open(partial, "w:gz") as tar:
            tar.add(self.folder, f"gpu_{self.command}", filter=archived)
        os.replace(partial, self.archive)


def archived(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(entry.name).name in NOT_ARCHIVED else entry


def run_for(seconds: float, words: tuple[str, ...], log: Path) -> int | None:
    """Run a command, which may save when its time is up; return its exit status.

    Args:
        words: the command behind "python".
        log: its output is appended here.

    Returns:
        None if the time was up.
    """
    command = [sys.executable, "-u", *words]
    with (
        log.open("a") as file,
        subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True) as process,
    ):
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            return None
        finally:  # also the processes that it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
