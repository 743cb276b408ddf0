"""Try random settings, damaged run folders and damaged originals for some minutes.

    python -m scripts.fuzz --minutes=30

It runs each part of tests/test_fuzz.py for a third of the time, with one seed after another, and
stops at the first input that is neither accepted nor rejected in one line: pytest shows it. The
table of what was tried replaces the one at the end of --out.
"""

from collections import Counter
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import time

from absl import flags

from ln.errors import InputError
from scripts import cli

MINUTES = flags.DEFINE_float("minutes", 10.0, "time after which it ends", lower_bound=0)
OUT = flags.DEFINE_string("out", "docs/robustness.md", "file that ends with the table")
HEAD = "| input | accepted | rejected in one line |"
TEST = Path(__file__).parents[1] / "tests" / "test_fuzz.py"
PARTS = ("setting", "runs", "originals")  # of the test, by words in their names


def main(_):
    """Try inputs until the time is up, and write the table."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "counts.jsonl")
        variables = dict(FUZZ_EXAMPLES="20", FUZZ_COUNTS=str(path), TMPDIR=folder)
        wrong = ""
        for n, part in enumerate(PARTS, start=1):
            end = began + 60 * MINUTES.value * n / len(PARTS)
            while not wrong and (left := end - time.monotonic()) > 0:
                seed = f"--hypothesis-seed={time.time_ns() % 2**31}"
                words = ("-m", "pytest", "-q", "-p", "no:xdist", "-k", part, seed, TEST)
                try:
                    environment = os.environ | variables
                    subprocess.run(
                        (sys.executable, *words), env=environment, timeout=left, check=True
                    )
                except subprocess.TimeoutExpired:
                    break
                except subprocess.CalledProcessError:
                    wrong = f"An input was mishandled with -k {part} {seed}."
        counts: Counter = Counter()
        for line in path.read_text().splitlines() if path.is_file() else ():
            counts[tuple(json.loads(line))] += 1
    write(counts)
    if wrong:
        raise InputError(wrong)


def write(counts: Counter) -> None:
    """Write the table of inputs and their results."""
    rows = [HEAD, "|---|---:|---:|"]
    rows += [
        f"| {what} | {counts[what, 'accepted']:,} | {counts[what, 'rejected']:,} |"
        for what in sorted({what for what, _ in counts})
    ]
    path = Path(OUT.value)
    before = path.read_text(encoding="utf-8").split(HEAD)[0] if path.is_file() else ""
    path.write_text(before + "\n".join([*rows, ""]), encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
