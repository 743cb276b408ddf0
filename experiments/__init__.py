"""The experiments of the paper: each folder with a task.py is one."""

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
    from experiments.datasets import arrays  # here, so that models import without data

    task = importlib.import_module(f"experiments.{config.experiment}.task").Task(config)
    task.data = {
        config[key]: arrays.digest(config.data_dir, config[key])
        for key in DATA_KEYS
        if config.get(key)
    }
    return task
