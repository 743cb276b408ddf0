"""start and reproduce: commands of this project in new processes, timed from their start.

A row has the seconds of some rounds by part; see `scripts.benchmarks.parts`. Runs are on built-in
data, in temporary folders.
"""

from collections.abc import Mapping
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import time

import experiments
from experiments import datasets
from scripts import cli
from scripts.benchmarks.parts import FIRST_CALL
from scripts.benchmarks.timing import Row
from scripts.engines import devices, jobs

ROOT = Path(__file__).parents[2]
Seconds = dict[str, float]  # by part
KEEP_ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # as scripts.train sets it


def begin(words: list[str], place: Path, defaults: Mapping[str, str]) -> subprocess.Popen:
    """Start a module of this project in a folder, where it keeps compiled programs.

    Args:
        words: its name and its arguments.
        place: the folder.
        defaults: variables that hold unless the user has set them.
    """
    here = {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(place / "cache")}
    with (place / "log").open("w") as log:
        return subprocess.Popen(
            (sys.executable, "-m", *words),
            cwd=place,
            env={**defaults, **os.environ, **here},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def end(process: subprocess.Popen, place: Path) -> None:
    """Wait for the end of a process; raise RuntimeError with its last lines if it failed."""
    if process.wait():
        raise RuntimeError((place / "log").read_text()[-2000:])


# --- Runs ---


def prepared(experiment: str, scale: str, folder: str):
    """Return the config of an experiment, on data that are prepared in a folder."""
    config = cli.read_config(experiment, scale)
    config.data_dir = str(Path(folder, "built-in"))
    for key in filter(config.get, experiments.DATA_KEYS):
        datasets.prepare(config[key], config.data_dir)
    return config


def train(config, until: str, place: Path, **defaults: str) -> Seconds:
    """Train a new run by scripts.train, and return its seconds by part."""
    workdir = tempfile.mkdtemp(dir=place)
    given, out = Path(workdir, "given.json"), Path(workdir, "parts.json")
    given.write_text(config.to_json())
    words = [str(out), str(time.time()), until, config.experiment]
    words += [f"--config_json={given}", f"--workdir={workdir}/run"]
    end(begin(["scripts.benchmarks.parts", *words], place, KEEP_ALL | defaults), place)
    return json.loads(out.read_text())


def start(experiment: str, scale: str, folder: str, rounds: int) -> dict[str, Row]:
    """Time a run up to the end of its first call, without compiled programs and then with them."""
    config = prepared(experiment, scale, folder)
    place = Path(tempfile.mkdtemp(dir=folder))
    cold, *warm = (train(config, FIRST_CALL, place) for _ in range(1 + rounds))
    return {"cold": dict(rounds=[cold]), "warm": dict(rounds=warm)}


# --- make reproduce ---


def reproduced(experiment: str, scale: str, folder: str, rounds: int) -> dict[str, Row]:
    """Time one run of make reproduce, that of layer norm, without compiled programs."""
    config = prepared(experiment, scale, folder)
    points = jobs.listed(config)
    named = zip(jobs.names(points), points, strict=True)
    name, point = next((name, point) for name, point in named if point["norm"] == "layer")
    run, place = jobs.override(config, point), Path(tempfile.mkdtemp(dir=folder))
    seconds = train(run, "end", place, **devices.QUICK)
    return {name: dict(rounds=[seconds], variables=devices.QUICK)}


def whole(names: list[str], scale: str, folder: str, rounds: int) -> dict[str, Row]:
    """Time all of make reproduce without compiled programs and data, then once more.

    Args:
        names: of the experiments; empty for all.
        scale: of their configs.
        folder: for the data, the runs and the pages.
        rounds: not used: it takes minutes.

    Raises:
        InputError: an experiment has no such scale.
    """
    for name in names or experiments.names():
        cli.read_config(name, scale)  # raises before anything starts
    place = Path(tempfile.mkdtemp(dir=folder))
    page, rows = place / "report" / scale / "index.html", dict[str, Row]()
    for name in ("all of it", "the same again"):
        began, before, seconds = time.time(), os.times(), {}
        process = begin(["scripts.reproduce", f"--scale={scale}", *names], place, devices.QUICK)
        while not rows and process.poll() is None and "first figure" not in seconds:
            time.sleep(0.1)
            if page.exists():  # drawn once the first run has ended
                seconds["first figure"] = time.time() - began
        end(process, place)
        after = os.times()
        used = after.children_user + after.children_system
        used -= before.children_user + before.children_system
        seconds = {"seconds": time.time() - began, "CPU seconds": used} | seconds
        rows[name] = dict(rounds=[seconds], variables=devices.QUICK)
    return rows
