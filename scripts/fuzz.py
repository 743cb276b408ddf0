"""Try random settings, damaged run folders and damaged originals for some minutes.

    python -m scripts.fuzz --minutes=30

It runs tests/test_fuzz.py with one seed after another until the time is up, and stops at the first
input that is neither accepted nor rejected in one line: pytest shows it. The table of what was
tried replaces the one at the end of --out.
"""

from collections import Counter
import contextlib
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


def main(_):
    """Try inputs until the time is up, and write the table."""
    end, wrong = time.monotonic() + 60 * MINUTES.value, ""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "counts.jsonl")
        variables = dict(FUZZ_EXAMPLES="20", FUZZ_COUNTS=str(path), TMPDIR=folder)
        while not wrong and (left := end - time.monotonic()) > 0:
            seed = f"--hypothesis-seed={time.time_ns() % 2**31}"
            command = (sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", seed, TEST)
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run(command, env=os.environ | variables, timeout=left)
                wrong = f"An input was mishandled with {seed}." if done.returncode else ""
        lines = path.read_text().splitlines() if path.is_file() else []
    if not lines:
        raise InputError(f"--minutes={MINUTES.value:g} is too short to try anything.")
    write(Counter(tuple(json.loads(line)) for line in lines))
    if wrong:
        raise InputError(wrong)


def write(counts: Counter) -> None:
    """Write the table of inputs and their results."""
    rows = [HEAD, "|---|---:|---:|"]
    for what in sorted({what for what, _ in counts}):
        rows.append(f"| {what} | {counts[what, 'accepted']:,} | {counts[what, 'rejected']:,} |")
    path = Path(OUT.value)
    before = path.read_text(encoding="utf-8").split(HEAD)[0] if path.is_file() else ""
    path.write_text(before + "\n".join([*rows, ""]), encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
