"""Reproduces the paper's figures: prepares the data, trains the runs, writes the pages.

    python -m scripts.reproduce                           everything, minutes, built-in data
    python -m scripts.reproduce --scale=paper mnist       one experiment at full size, hours

Experiments are named as their files in configs/. What is done already is not done again, so a
command that was stopped may be given again and goes on from there. Runs go to runs/<scale>, the
page to report/<scale>/index.html; without names also section 5 as numbers, to theory/ beside it.
"""

import importlib
from pathlib import Path
import sys

from absl import flags

from ln.errors import choose
from scripts import cli

SCALE = flags.DEFINE_string("scale", "small", "paper, small (minutes on a laptop) or tiny")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of the prepared data sets")
OUT = flags.DEFINE_string("out", None, "folder of the page; default: report/<scale>")


def main(argv):
    known = {p.stem: p for p in sorted(Path("configs").glob("*.py")) if p.stem != "__init__"}
    names = argv[1:] or list(known)
    scale = SCALE.value
    configs = {}
    for name in names:
        choose("experiment", name, known)
        module = importlib.import_module(f"configs.{name}")
        choose(f"scale of {name}", scale, module.SCALES)
        configs[name] = module.get_config(scale)

    from experiments import datasets

    for config in configs.values():
        if not datasets.arrays.is_prepared(DATA_DIR.value, config.dataset):
            datasets.prepare(config.dataset, DATA_DIR.value)

    failed = []
    for name in names:
        print(f"\n{name}, scale {scale}", flush=True)
        config = [f"--config={known[name].as_posix()}:{scale}"]
        data = [f"--config.data_dir={DATA_DIR.value}"]
        status = cli.call(["-m", "scripts.sweep", *config, *data])
        if status == cli.INTERRUPTED:
            sys.exit(status)
        failed += [name] if status else []
    out = OUT.value or f"report/{scale}"
    pages = {"report": [f"--runs=runs/{scale}", f"--out={out}"]}
    if not argv[1:]:
        pages["theory"] = ["--theory", f"--out={out}/theory"]
    for name, words in pages.items():
        print(f"\n{name}", flush=True)
        status = cli.call(["-m", "scripts.report", *words])
        if status == cli.INTERRUPTED:
            sys.exit(status)
        failed += [name] if status else []
    if failed:
        print(f"Not everything worked: {', '.join(failed)}; see above.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
