"""One module per experiment of the paper; each has a Model and a Task."""

import importlib
import pkgutil

from experiments.datasets import arrays
from ln.errors import choose

DATA_KEYS = ("dataset", "tasks")  # of configs, whose values are data sets

# Modules here that are no experiment.
SHARED = ("across", "cases", "curves", "images", "retrieval", "sentence_evaluation", "theory")


def load(config):
    """Returns the Task of ``config.experiment``.

    Raises:
        InputError: there is no such experiment, or its data are missing or broken.
    """
    modules = [
        m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg and m.name not in SHARED
    ]
    name = choose("config.experiment", config.experiment, dict(zip(modules, modules, strict=True)))
    task = importlib.import_module(f"experiments.{name}").Task(config)
    task.data = {
        config[key]: arrays.digest(config.data_dir, config[key])
        for key in DATA_KEYS
        if config.get(key)
    }
    return task
