"""The experiments of the paper: each folder with a task.py is one."""

import importlib
from pathlib import Path
import traceback
from types import ModuleType

from ln.errors import InputError, choose

FOLDER = Path(__file__).parent
DATA_KEYS = ("dataset", "tasks")  # of configs, whose values are data sets


def names(file: str = "task") -> list[str]:
    """Return the experiments that have a ``<file>.py``, in alphabetical order."""
    known = (path.parent.name for path in FOLDER.glob("*/task.py"))
    return sorted(name for name in known if (FOLDER / name / f"{file}.py").is_file())


def part(name: str, file: str) -> ModuleType | None:
    """Return the module ``experiments.<name>.<file>``; None if there is no such file.

    Raises:
        InputError: a row of its tables, such as a Panel, has a wrong field or lacks one.
    """
    path = FOLDER / name / f"{file}.py"
    if not path.is_file():
        return None
    try:
        return importlib.import_module(f"experiments.{name}.{file}")
    except (InputError, TypeError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        raise InputError(f"{path} line {lines[-1] if lines else 1}: {error}") from error


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
