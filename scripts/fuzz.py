"""Try random settings, damaged run folders and damaged originals for some minutes.

    python -m scripts.fuzz --minutes=30

It runs tests/test_fuzz.py with one seed after another, and stops at the first input that is neither
accepted nor rejected in one line: pytest shows it. The table of what was tried replaces the one at
the end of --out.
"""

from collections import Counter
import itertools
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

MINUTES = flags.DEFINE_float("minutes", 10.0, "how long no further seed is begun", lower_bound=0)
OUT = flags.DEFINE_string("out", "docs/robustness.md", "file that ends with the table")
HEAD = "| input | accepted | rejected in one line |"
TEST = Path(__file__).parents[1] / "tests" / "test_fuzz.py"


def main(_):
    end = time.monotonic() + 60 * MINUTES.value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.jsonl"
        environment = dict(os.environ, FUZZ_EXAMPLES="200", FUZZ_COUNTS=str(path))
        for seed in itertools.count(time.time_ns() % 2**31):
            command = (sys.executable, "-m", "pytest", "-q", "-n", "0", f"--hypothesis-seed={seed}")
            code = subprocess.run((*command, TEST), env=environment, check=False).returncode
            counts: Counter = Counter()
            for line in path.read_text().splitlines() if path.is_file() else ():
                what, became, n = json.loads(line)
                counts[what, became] += n
            write(counts)
            if code:
                raise InputError(f"An input was mishandled with --hypothesis-seed={seed}.")
            if time.monotonic() > end:
                return


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
