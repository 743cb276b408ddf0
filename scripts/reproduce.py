"""Reproduce the paper's figures: prepares the data, trains the runs, writes the pages.

    python -m scripts.reproduce                           everything, minutes, built-in data
    python -m scripts.reproduce --scale=paper mnist       one experiment at full size, hours

Experiments have the names of their folders in experiments/. The command is resumable: it skips
completed work. It trains --workers runs at a time into runs/<scale> and writes the page
report/<scale>/index.html. Without names it also writes section 5 as numbers, in theory/ next to the
page, and all claims, in claims/.

Scales other than paper use built-in data. If the data sets that they stand for are prepared in
--data_dir, these are used instead, with small models too, which takes longer. Runs are then in
runs/<scale>-real and the page in report/<scale>-real.
"""

import importlib
import os
from pathlib import Path
import subprocess
import sys

from absl import flags

import experiments
from ln.errors import InputError, choose
from scripts import cli
from scripts.engines import devices, grid, jobs

SCALE = flags.DEFINE_string("scale", "small", "paper, small (minutes on a laptop) or tiny")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of the prepared data sets")
WORKERS = flags.DEFINE_integer(
    "workers", min(4, os.cpu_count() or 1), "how many runs to train at a time", lower_bound=1
)
OUT = flags.DEFINE_string("out", None, "folder of the page; default: report/<scale>")


def main(argv):
    """Prepare the data, train the runs and write the pages."""
    names = argv[1:] or experiments.names()
    configs = {name: read_config(name) for name in names}
    real = {name: on_real_data(config) for name, config in configs.items()}
    place = f"{SCALE.value}-real" if any(real.values()) else SCALE.value
    out = OUT.value or f"report/{place}"
    pages = {"report": [f"--runs=runs/{place}", f"--out={out}"]}
    if not argv[1:]:
        pages["theory"] = ["--theory", f"--out={out}/theory"]
        pages["claims"] = ["--claims", f"--runs=runs/{place}", f"--out={out}/claims"]
    failed = []
    with jobs.Stopping() as stopping:
        for name in [*names, *pages]:
            print(f"\n{', on '.join([name, *real.get(name, [])])}", flush=True)
            if name in pages:
                words = (sys.executable, "-m", "scripts.report", *pages[name])
                status = subprocess.run(words).returncode
            else:
                status = train(configs[name], Path("runs") / place / name, stopping)
            if stopping.asked:
                sys.exit(cli.INTERRUPTED)
            failed += [name] if status else []
    if failed:
        print(f"Not everything worked: {'; '.join(failed)}. See above.", file=sys.stderr)
        sys.exit(1)


def read_config(name: str):
    """Return the config of an experiment at --scale.

    Raises:
        InputError: there is no such experiment or scale.
    """
    choose("experiment", name, dict.fromkeys(experiments.names()))
    module = importlib.import_module(f"configs.{name}")
    choose(f"scale of {name}", SCALE.value, module.SCALES)
    config = module.get_config(SCALE.value)
    config.data_dir = DATA_DIR.value
    return config


def on_real_data(config) -> list[str]:
    """Replace stand-ins in a config by the data sets that they stand for, if these are prepared.

    Other data sets are prepared.

    Returns:
        The data sets that replace others.
    """
    from experiments import datasets

    chosen = []
    for key in experiments.DATA_KEYS:
        if not config.get(key):
            continue
        real = datasets.real(config[key], DATA_DIR.value)
        if real != config[key]:
            config[key] = real
            chosen.append(real)
        elif not datasets.arrays.is_prepared(DATA_DIR.value, real):
            datasets.prepare(real, DATA_DIR.value)
    return chosen


def train(config, root: Path, stopping: jobs.Stopping) -> int:
    """Train the runs of a config; return an exit status."""
    try:
        todo = grid.unfinished(config, grid.listed(config), root)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not todo:
        return 0
    shares = devices.share(devices.ask(), WORKERS.value, 1)
    return grid.train(todo, jobs.start_here(shares), len(shares), stopping)


if __name__ == "__main__":
    cli.run(main, positional=True)
