"""The experiments of the paper: each folder with a task.py is one."""

import functools
import importlib
from pathlib import Path
from types import ModuleType

from ln.errors import choose

FOLDER = Path(__file__).parent
DATA_KEYS = ("dataset", "tasks")  # of configs, whose values are data sets


def names(file: str = "task") -> list[str]:
    """Return the experiments that have a ``<file>.py``, in alphabetical order."""
    known = (path.parent.name for path in FOLDER.glob("*/task.py"))
    return sorted(name for name in known if (FOLDER / name / f"{file}.py").is_file())


def part(name: str, file: str) -> ModuleType | None:
    """Return the module ``experiments.<name>.<file>``; None if there is no such file."""
    exists = (FOLDER / name / f"{file}.py").is_file()
    return importlib.import_module(f"experiments.{name}.{file}") if exists else None


def load(config):
    """Return the Task of ``config.experiment``.

    Raises:
        InputError: there is no such experiment, or its data are missing or broken.
    """
    choose("config.experiment", config.experiment, dict.fromkeys(names()))
    task = importlib.import_module(f"experiments.{config.experiment}.task").Task(config)
    task.data = {
        config[key]: digest(config.data_dir, config[key]) for key in DATA_KEYS if config.get(key)
    }
    return task


def check(config):
    """Return the Task of a config that can be trained, before anything is written.

    Raises:
        InputError: a value is out of its range, unknown or does not fit the others, or the data are
            missing or broken.
    """
    from ln.training import train

    task = load(config)
    train.make_lanes(config)
    train.make_optimizer(config)
    train.Plan.of(config, task)
    choose("config.select.mode", config.select.mode, dict(min=None, max=None))
    return task


def digest(data_dir: str, name: str) -> str:
    """Return the digest of a data set, computed once as long as its files stay as they are."""
    files = sorted((Path(data_dir) / name).iterdir())
    return _digest(data_dir, name, tuple((path, path.stat().st_mtime_ns) for path in files))


@functools.cache
def _digest(data_dir: str, name: str, files: tuple) -> str:
    from experiments.datasets import arrays  # here, so that models import without data

    return arrays.digest(data_dir, name)
