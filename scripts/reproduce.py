"""Reproduce the paper's figures: prepares the data, trains the runs, writes the pages.

    python -m scripts.reproduce                           everything, minutes, built-in data
    python -m scripts.reproduce --scale=paper mnist       one experiment at full size, hours

Experiments have the names of their folders in experiments/. The command is resumable: it skips
completed work. It trains --workers runs at a time, the longest first after a quick one, into
runs/<scale>, and draws the page report/<scale>/index.html again as they end. Without names it also
writes section 5 as numbers, in theory/ next to the page, and all claims, in claims/.

Scales other than paper use built-in data. If the data sets that they stand for are prepared in
--data_dir, these are used instead, with small models too, which takes longer. Runs are then in
runs/<scale>-real and the page in report/<scale>-real.
"""

from collections.abc import Iterator
import contextlib
import importlib
import os
from pathlib import Path
import subprocess
import sys
import threading

from absl import flags

import experiments
from ln.errors import InputError
from scripts import cli
from scripts.engines import devices, jobs

SCALE = flags.DEFINE_string("scale", "small", "paper, small (minutes on a laptop) or tiny")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of the prepared data sets")
WORKERS = flags.DEFINE_integer("workers", None, "runs to train at a time [one per GPU, or 4]", 1)
OUT = flags.DEFINE_string("out", None, "folder of the page; default: report/<scale>")

PAUSE = 100  # seconds between two drawings of the page, each of which takes a core about six
ROOT = Path(__file__).resolve().parents[1]
CODE = ("experiments", "ln", "scripts")


def main(argv):
    """Prepare the data, train the runs and write the pages."""
    names = argv[1:] or experiments.names()
    configs = {name: cli.read_config(name, SCALE.value) for name in names}
    real = [data for config in configs.values() for data in on_real_data(config)]
    place = f"{SCALE.value}-real" if real else SCALE.value
    root, out = Path("runs", place), Path(OUT.value or f"report/{place}")
    pages, shares = {out: [f"--runs={root}"]}, share()
    theory, drawn = out / "theory", dict[Path, subprocess.Popen]()
    if not argv[1:]:
        pages[out / "claims"] = ["--claims", f"--runs={root}"]
        if is_old(theory, Path("none")):
            drawn[theory] = start(theory, ["--theory"])
    todo, failed = list[jobs.Job](), list[str]()
    for name, config in configs.items():
        seconds = getattr(importlib.import_module(f"configs.{name}"), "SECONDS", 60)
        try:
            prepare(config)
            left = jobs.unfinished(config, jobs.listed(config), root / name)
            todo += [job._replace(minutes=seconds / 60) for job in left]
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            failed.append(name)
    todo.sort(key=lambda job: -job.minutes)
    todo = todo[-1:] + todo[:-1]  # a quick run first, for the first figure
    with jobs.Stopping() as stopping, drawing(out, pages[out], root):
        status = jobs.train_all(todo, jobs.start_here(shares), jobs.Clock(len(shares)), stopping)
    if stopping.asked:
        sys.exit(cli.INTERRUPTED)
    for process in drawn.values():
        process.wait()  # the page of claims takes its checks
    drawn |= {page: start(page, words) for page, words in pages.items() if is_old(page, root)}
    failed += [str(page) for page, process in drawn.items() if process.wait()]
    print(*(f"The page: {page / 'index.html'}" for page in {**pages, **drawn}), sep="\n")
    if failed:
        print(f"Not everything worked: {'; '.join(failed)}. See above.", file=sys.stderr)
    sys.exit(1 if failed else status)


def on_real_data(config) -> list[str]:
    """Replace stand-ins in a config by the data sets that they stand for, if these are prepared.

    Returns:
        The data sets that replace others.
    """
    from experiments import datasets

    config.data_dir, chosen = DATA_DIR.value, []
    for key in filter(config.get, experiments.DATA_KEYS):
        real = datasets.real(config[key], DATA_DIR.value)
        if real != config[key]:
            print(f"{config.experiment}: on {real}", flush=True)
            config[key] = real
            chosen.append(real)
    return chosen


def prepare(config) -> None:
    """Prepare the data sets of a config that are not there."""
    from experiments import datasets

    for key in filter(config.get, experiments.DATA_KEYS):
        if not datasets.arrays.is_prepared(DATA_DIR.value, config[key]):
            datasets.prepare(config[key], DATA_DIR.value)


def share() -> list[devices.Environment]:
    """Return the environment of each worker; on a CPU, prepare that of all processes."""
    here = devices.ask()
    if not here.variable and SCALE.value != "paper":
        for name, value in devices.QUICK.items():
            os.environ.setdefault(name, value)
    workers = WORKERS.value or (None if here.variable else min(4, os.cpu_count() or 1))
    return devices.share(here, workers)


# --- Pages ---


def start(out: Path, words: list[str], **options) -> subprocess.Popen:
    """Start to draw a page in another process."""
    command = (sys.executable, "-m", "scripts.report", *words, f"--out={out}")
    return subprocess.Popen(command, **options)


def is_old(page: Path, root: Path) -> bool:
    """Return whether a page is missing, or older than a run below root or than the code."""
    file = page / "index.html"
    sources = (path for folder in CODE for path in (ROOT / folder).rglob("*.py"))
    times = (path.stat().st_mtime for path in (*root.rglob("*.jsonl"), *sources))
    return not file.exists() or file.stat().st_mtime < max(times)


@contextlib.contextmanager
def drawing(out: Path, words: list[str], root: Path) -> Iterator[None]:
    """Draw the page again and again as runs end, while the body runs."""
    over = threading.Event()

    def draw():
        shown = 0
        while not over.wait(1):
            if (ended := len(list(root.glob("*/*/finished.json")))) != shown:
                shown = ended
                start(out, words, stdout=subprocess.DEVNULL).wait()
                over.wait(PAUSE)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    cli.run(main, positional=True)
