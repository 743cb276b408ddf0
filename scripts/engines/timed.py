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

GRACE = 8  # seconds from asking a part to stop to killing it
MARGIN = 5  # seconds before the deadline at which the last part is asked to stop
NOT_ARCHIVED = ("checkpoints", "damaged", "events", "lock", "data")

Part = tuple[str, float, list[str]]  # name, share of the time that is left, words of python


def run_for(seconds: float, words: list[str], log: Path) -> str:
    """Run a command of Python, which may save when its time is up; return its outcome in words.

    Args:
        seconds: the time that it has.
        words: behind "python".
        log: its output is appended here.
    """
    command = [sys.executable, "-u", *words]
    with (
        log.open("a") as file,
        subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True) as process,
    ):
        try:
            status = process.wait(seconds)
            return f"exit status {status}" if status else "finished"
        except subprocess.TimeoutExpired:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            return "out of time"
        finally:  # also the processes that it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def write(folder: Path, archive: Path, parts: list[dict]) -> None:
    """Write the report of the parts so far, and the archive as a whole."""
    variables = {k: v for k, v in sorted(os.environ.items()) if k.startswith(("JAX_", "XLA_"))}
    report = dict(command=folder.name, variables=variables, parts=parts)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    partial = archive.with_suffix(".partial")
    with tarfile.open(partial, "w:gz") as tar:
        kept = lambda entry: None if Path(entry.name).name in NOT_ARCHIVED else entry  # noqa: E731
        tar.add(folder, f"gpu_{folder.name}", filter=kept)
    os.replace(partial, archive)


def run(parts: list[Part], folder: Path, archive: Path, minutes: float) -> None:
    """Run parts one after the other until the time is up; write the archive after each."""
    began, done = time.monotonic(), list[dict]()
    for place in (archive.parent, folder / "logs"):
        place.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as at_end:
        at_end.callback(write, folder, archive, done)  # also what an interrupted part has left
        for name, share, words in parts:
            start = time.monotonic()
            left = began + 60 * minutes - MARGIN - start
            outcome = run_for(share * left, words, folder / "logs" / f"{name}.txt")
            ended = time.monotonic()
            row = dict(ended=round(ended - began, 1), seconds=round(ended - start, 1), words=words)
            print(f"{name}: {outcome} after {row['seconds']} s", flush=True)
            done.append(dict(part=name, outcome=outcome) | row)
            write(folder, archive, done)
    print(f"Wrote {archive}", flush=True)
