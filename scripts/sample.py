"""Show what a trained model makes, from a checkpoint of its run.

    python -m scripts.sample NAME --help    # the files and options of an experiment
    python -m scripts.sample draw --workdir=runs/x
    python -m scripts.sample draw --workdir=runs/x --checkpoint=newest --lane=1 --out=pictures

NAME is an experiment with a samples.py: {names}.

samples.json records the run, the checkpoint and the command. The run may still be training.
"""

import dataclasses
import json
from pathlib import Path
import sys
from typing import Any

from absl import flags

import experiments
from ln.errors import InputError, choose
from scripts import cli

WORKDIR = flags.DEFINE_string("workdir", None, "the run folder")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best (by config.select), newest, or a step")
DATA_DIR = flags.DEFINE_string("data_dir", None, "folder of the prepared data; default: the run's")
LANE = flags.DEFINE_integer("lane", 0, "number of a pair of seed and learning rate of the run")
OUT = flags.DEFINE_string("out", None, "folder of the files; default: WORKDIR/samples")

# Type of an option -> how its flag is made; others are texts.
KINDS: dict[Any, Any] = {int: flags.DEFINE_integer, float: flags.DEFINE_float}
KINDS |= {bool: flags.DEFINE_bool, list[str] | None: flags.DEFINE_multi_string}
RECORD = "samples.json"  # marks a folder as made by this command


def load(name: str):
    """Return the samples.py of an experiment, once its options are flags.

    Raises:
        InputError: there is no such experiment, or it has no samples.py.
    """
    choose("experiment with samples", name, dict.fromkeys(experiments.names("samples")))
    samples: Any = experiments.part(name, "samples")
    for field in dataclasses.fields(samples.Options):
        if field.name not in flags.FLAGS:  # `main` calls this again
            make: Any = KINDS.get(field.type, flags.DEFINE_string)
            bounds = dict(upper_bound=cli.COUNT["upper_bound"]) if field.type is int else {}
            make(field.name, field.default, **bounds, **field.metadata)
    return samples


def prepare(argv: list[str]) -> str:
    """Define the flags of the experiment that is named in argv; return the text of --help."""
    names = experiments.names("samples")
    named = [word for word in argv[1:] if word in names]
    named += [word for word in argv[1:2] if not word.startswith("-")]  # misspelt
    return load(named[0]).__doc__ if named else __doc__.format(names=", ".join(names))


def main(argv):
    """Write the samples of an experiment."""
    from ln.training import runs, train  # jax takes a second

    if len(argv) != 2 or WORKDIR.value is None:
        names = ", ".join(experiments.names("samples"))
        raise InputError(f"Give one experiment of {names}, and --workdir=DIR; --help has examples.")
    samples, out = load(argv[1]), Path(OUT.value or Path(WORKDIR.value) / "samples")
    # A killed process may have left unfinished files, and no record.
    in_use = out.is_file() or any(path.suffix != ".tmp" for path in out.glob("*"))
    if in_use and not (out / RECORD).is_file():
        raise InputError(f"--out={out} is not empty and has no {RECORD}. Choose another folder.")
    options = {f.name: flags.FLAGS[f.name].value for f in dataclasses.fields(samples.Options)}
    workdir, n = WORKDIR.value, LANE.value
    if (known := runs.read_config(workdir).experiment) != argv[1]:
        raise InputError(f"{workdir} is a run of {known}, not of {argv[1]}.")
    trained = experiments.open_run(workdir, CHECKPOINT.value, DATA_DIR.value)
    variables, (seed, lr) = trained.variables(n), trained.stored.lanes[n]
    print(f"{workdir}, step {trained.step:,}, lane {n} (seed {seed}, lr {lr:g})", flush=True)
    with train.products(trained.task.config):
        files = samples.sample(trained.task, variables, samples.Options(**options))
    origin = runs.provenance(trained.step) | dict(seed=seed, lr=lr)
    write(out, files, origin | dict(files=list(files)))


def write(out: Path, files: dict[str, str | bytes], record: dict) -> None:
    """Write files by name, and the record of their origin, to a folder."""
    from ln.training.runs import write_atomically

    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / RECORD, json.dumps(record, indent=2) + "\n")
    for name, content in files.items():
        write_atomically(out / name, content)
        print(out / name)


if __name__ == "__main__":
    with cli.one_line():
        __doc__ = prepare(sys.argv)
    cli.run(main, positional=True)
