r"""Trains the runs of a config's sweep(), or of a grid given here, one after another.

    python -m scripts.sweep --config=configs/mnist.py:small
    python -m scripts.sweep --config=configs/mnist.py:small --config.hidden=50 --root=runs/narrow \
        --grid norm=none,batch,layer --grid batch_size=128,4

Each run has a folder of its own, <root>/<experiment>/norm=layer,batch_size=4; the default root is
runs/<scale>. Finished runs are skipped and broken ones resumed, so the same command may be given
again at any time. When a run fails the others go on; the command then ends with exit status 1.
Values of seeds and lr are lanes of one run unless the grid varies them. --dry_run lists the runs.
"""

from collections.abc import Iterator
import importlib
import itertools
from pathlib import Path
import shlex
import sys
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from ln.errors import InputError, nearest
from scripts import cli

CONFIG = config_flags.DEFINE_config_file("config", help_string="config file, and :scale")
GRID = flags.DEFINE_multi_string("grid", [], "KEY=VALUE,VALUE,...: an axis, instead of sweep()")
ROOT = flags.DEFINE_string("root", None, "folder of the run folders; default: runs/<scale>")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "lists the runs and stops")

LANE_KEYS = ("seeds", "lr")  # what one program trains side by side


class Job(NamedTuple):
    """A run to make: its folder, and the command behind "python"."""

    folder: Path
    words: list[str]


def read_grid(axes: list[str], config) -> list[dict[str, str]]:
    """All combinations of axes such as "norm=none,layer", as overrides KEY -> VALUE.

    Raises:
        InputError: not of that form, an unknown key, or one key twice.
    """
    values: dict[str, list[str]] = {}
    known = list(flatten(config.to_dict()))
    for axis in axes:
        key, equals, choices = axis.partition("=")
        if not equals or not choices:
            raise InputError(f"--grid {axis!r}: write KEY=VALUE,VALUE,... as in norm=none,layer.")
        if key not in known:
            raise InputError(f"--grid {axis!r}: the config has no {key!r}.{nearest(key, known)}")
        if key in values:
            raise InputError(f"--grid gives {key!r} twice.")
        values[key] = choices.split(",")
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def flatten(tree: dict, prefix: str = "") -> Iterator[str]:
    """The keys of nested dicts, "norms.batch.gain"."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def run_names(points: list[dict]) -> list[str]:
    """One folder name per run, made of its overrides; of lane keys only those that vary."""
    vary = [k for k in LANE_KEYS if len({str(point.get(k)) for point in points}) > 1]
    names = []
    for point in points:
        words = [f"{k}={v}" for k, v in point.items() if k not in LANE_KEYS or k in vary]
        names.append(",".join(words).replace(" ", "") or "run")
    if len(set(names)) < len(names):
        raise InputError(f"Two runs of this sweep are the same: {', '.join(names)}.")
    return names


def settings(overrides: dict, argv: list[str]) -> list[str]:
    """The config flags of one run: those given to this command, then the run's own."""
    given = [word for word in argv if word.startswith(("--config=", "--config."))]
    return given + [f"--config.{key}={value}" for key, value in overrides.items()]


def check(words: list[str]) -> None:
    """Reads the config of one run as its command will, and loads its task.

    Raises:
        InputError, or one of cli.FLAG_ERRORS: a value is wrong or a data set is missing.
    """
    import experiments

    values = flags.FlagValues()
    argv = ["check", *words]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    experiments.load(values.config)


def run_here(jobs: list[Job]) -> Iterator[tuple[Job, int]]:
    """Runs jobs one after another on this machine; yields each with its exit status.

    Other engines go in its place: they take jobs and yield them as they end.
    """
    for number, job in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] {job.folder}", flush=True)
        yield job, cli.call(job.words)


def main(_):
    if CONFIG.value is None:
        raise InputError("Give --config=FILE[:SCALE]; --help has examples.")
    from ln import runs

    config = CONFIG.value
    points = read_grid(GRID.value, config) if GRID.value else sweep_of(config.experiment)
    root = Path(ROOT.value or f"runs/{config.scale}") / config.experiment
    jobs = []
    for name, point in zip(run_names(points), points, strict=True):
        words = settings(point, sys.argv[1:])
        try:
            check(words)
        except cli.FLAG_ERRORS as error:
            raise InputError(f"{name}: {error}") from error
        folder = root / name
        jobs.append(Job(folder, ["-m", "scripts.train", *words, f"--workdir={folder.as_posix()}"]))

    todo = [job for job in jobs if not runs.is_finished(job.folder)]
    print(f"{len(jobs)} runs in {root}, {len(jobs) - len(todo)} of them finished.", flush=True)
    if DRY_RUN.value:
        print("\n".join("python " + shlex.join(job.words) for job in todo))
        return
    failed = []
    for job, status in run_here(todo):
        if status == cli.INTERRUPTED:
            print("Stopped; the same command goes on from here.", flush=True)
            sys.exit(cli.INTERRUPTED)
        if status:
            print(f"Failed with exit status {status}: {job.folder}", flush=True)
            failed.append(str(job.folder))
    if failed:
        print(f"{len(failed)} of {len(todo)} runs failed:", *failed, sep="\n  ", file=sys.stderr)
        sys.exit(1)


def sweep_of(experiment: str) -> list[dict]:
    """The overrides of each run that the experiment's config lists."""
    return list(importlib.import_module(f"configs.{experiment}").sweep())


if __name__ == "__main__":
    cli.run(main)
