"""The runs of a sweep: points that differ from one config, each with a folder named after it."""

import importlib
import itertools
from pathlib import Path

from ml_collections import ConfigDict

from ln.errors import InputError
from scripts import cli
from scripts.engines import jobs

LANE_KEYS = ("seeds", "lr")  # what one program trains side by side


def read_pairs(texts: list[str], flag: str, form: str) -> dict[str, str]:
    """Return key -> value of texts such as "norm=none,layer".

    Raises:
        InputError: a text has another form, or one key is given twice.
    """
    pairs = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not value:
            raise InputError(f"{flag} {text!r}: write {form}.")
        if key in pairs:
            raise InputError(f"{flag} gives a key twice.")
        pairs[key] = value
    return pairs


def read(axes: list[str]) -> list[dict[str, str]]:
    """Return all combinations of axes such as "norm=none,layer", key -> value.

    Raises:
        InputError: the text has another form, or one key is given twice.
    """
    values = read_pairs(axes, "--grid", "KEY=VALUE,VALUE,... as in norm=none,layer")
    choices = (text.split(",") for text in values.values())
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*choices)]


def listed(config: ConfigDict) -> list[dict]:
    """Return the points that the config file of the experiment lists."""
    return list(importlib.import_module(f"configs.{config.experiment}").sweep())


def names(points: list[dict]) -> list[str]:
    """Return a folder name for each run, made of its values; of lane keys only those that vary."""
    vary = [k for k in LANE_KEYS if len({str(point.get(k)) for point in points}) > 1]
    words = [
        ",".join(f"{k}={v}" for k, v in point.items() if k not in LANE_KEYS or k in vary)
        for point in points
    ]
    folders = [word.replace(" ", "") or "run" for word in words]
    if len(set(folders)) < len(folders):
        raise InputError(f"Two runs of this sweep are the same: {', '.join(folders)}.")
    return folders


def unfinished(config: ConfigDict, points: list[dict], root: Path) -> list[jobs.Job]:
    """Return the runs that are not finished.

    Raises:
        InputError: one of the runs cannot be trained.
    """
    from ln.training import runs

    made = [
        jobs.Job(root / name, jobs.checked(name, config, point).to_json())
        for name, point in zip(names(points), points, strict=True)
    ]
    todo = [job for job in made if not runs.is_finished(job.folder)]
    print(f"{len(made)} runs in {root}, {len(made) - len(todo)} of them finished.", flush=True)
    return todo


def train(
    todo: list[jobs.Job], start: jobs.Start, clock: jobs.Clock, stopping: jobs.Stopping
) -> int:
    """Train runs; return the exit status of the command."""
    from ln.training import runs

    left = jobs.train(todo, start, clock, stopping, lambda job: runs.is_finished(job.folder))
    if stopping.asked:
        print("Stopped; the same command continues from here.", flush=True)
        return cli.INTERRUPTED
    return jobs.report(left)
