"""Reproduces the paper's figures: prepares the data, trains the runs, writes the pages.

    python -m scripts.reproduce                           everything, minutes, built-in data
    python -m scripts.reproduce --scale=paper mnist       one experiment at full size, hours

Experiments are named as their folders in experiments/. What is done already is not done again, so a
command that was stopped may be given again and goes on from there. Runs are trained --workers at a
time and go to runs/<scale>, the page to report/<scale>/index.html; without names also section 5 as
numbers, to theory/ beside it, and all claims, to claims/.

Scales other than paper run on built-in data; where the data that these stand in for lie prepared in
--data_dir, on those, still with small models, which takes longer. Then runs go to runs/<scale>-real
and the page to report/<scale>-real.
"""

import importlib
import os
import sys

from absl import flags

import experiments
from ln.errors import choose
from scripts import cli

SCALE = flags.DEFINE_string("scale", "small", "paper, small (minutes on a laptop) or tiny")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of the prepared data sets")
WORKERS = flags.DEFINE_integer(
    "workers", min(4, os.cpu_count() or 1), "how many runs to train at a time", lower_bound=1
)
OUT = flags.DEFINE_string("out", None, "folder of the page; default: report/<scale>")


def main(argv):
    known = experiments.names()
    names = argv[1:] or known
    scale = SCALE.value
    configs = {}
    for name in names:
        choose("experiment", name, dict.fromkeys(known))
        module = importlib.import_module(f"configs.{name}")
        choose(f"scale of {name}", scale, module.SCALES)
        configs[name] = module.get_config(scale)

    from experiments import datasets

    chosen: dict[str, list[str]] = {}  # experiment -> config flags
    for name, config in configs.items():
        chosen[name] = []
        for key in experiments.DATA_KEYS:
            if not config.get(key):
                continue
            real = datasets.real(config[key], DATA_DIR.value)
            if real != config[key]:
                chosen[name].append(f"--config.{key}={real}")
            elif not datasets.arrays.is_prepared(DATA_DIR.value, real):
                datasets.prepare(real, DATA_DIR.value)

    place = f"{scale}-real" if any(chosen.values()) else scale
    failed = []
    for name in names:
        data = "".join(f", on {word.partition('=')[2]}" for word in chosen[name])
        print(f"\n{name}, scale {scale}{data}", flush=True)
        words = [f"--config=configs/{name}.py:{scale}", *chosen[name]]
        words += [f"--config.data_dir={DATA_DIR.value}", f"--root=runs/{place}"]
        status = cli.call(["-m", "scripts.sweep", *words, f"--workers={WORKERS.value}"])
        if status == cli.INTERRUPTED:
            sys.exit(status)
        failed += [name] if status else []
    out = OUT.value or f"report/{place}"
    pages = {"report": [f"--runs=runs/{place}", f"--out={out}"]}
    if not argv[1:]:
        pages["theory"] = ["--theory", f"--out={out}/theory"]
        pages["claims"] = ["--claims", f"--runs=runs/{place}", f"--out={out}/claims"]
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
