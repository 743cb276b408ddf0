"""One module per experiment of the paper; each has a Model and a Task."""

import importlib
import pkgutil

from ln.errors import choose

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
    return importlib.import_module(f"experiments.{name}").Task(config)
