"""Data sets by name. Preparing may download and convert; loading what is prepared needs only numpy.

To add one: a file here with ``prepare(data_dir, source=None)``, ending in `arrays.write`, and its
name below; one that is built in has ``prepare(data_dir)``.
"""

import importlib
from pathlib import Path

import numpy as np

from experiments.datasets import arrays
from ln.errors import InputError, choose

# Imported when prepared, not before: they may need large packages.
MODULES = {
    "binarized_digits": "experiments.datasets.synthetic.binarized_digits",
    "binarized_mnist": "experiments.datasets.corpora.binarized_mnist",
    "books": "experiments.datasets.corpora.books",
    "cifar10": "experiments.datasets.corpora.cifar10",
    "cnn": "experiments.datasets.corpora.cnn",
    "coco": "experiments.datasets.corpora.coco",
    "digits": "experiments.datasets.synthetic.digits",
    "docs": "experiments.datasets.synthetic.docs",
    "iam": "experiments.datasets.corpora.iam",
    "library": "experiments.datasets.synthetic.library",
    "mnist": "experiments.datasets.corpora.mnist",
    "pen": "experiments.datasets.synthetic.pen",
    "scenes": "experiments.datasets.synthetic.scenes",
    "sentences": "experiments.datasets.corpora.sentences",
    "stories": "experiments.datasets.synthetic.stories",
}
# Need no files, so that loading prepares them where that is still to do.
BUILT_IN = ("binarized_digits", "digits", "docs", "library", "pen", "scenes", "stories")
# Built in -> what it stands in for.
STANDS_FOR = {
    "binarized_digits": "binarized_mnist",
    "digits": "mnist",
    "docs": "books",
    "library": "sentences",
    "pen": "iam",
    "scenes": "coco",
    "stories": "cnn",
}


def real(name: str, data_dir: str | Path) -> str:
    """The data set that a built-in one stands in for, where that is prepared; else its own name."""
    other = STANDS_FOR.get(name)
    return other if other and arrays.is_prepared(data_dir, other) else name


def prepare(name: str, data_dir: str | Path, source: str | Path | None = None) -> None:
    """Makes ``<data_dir>/<name>`` and says so.

    Args:
        name: of the data set, a key of MODULES.
        data_dir: where prepared data sets lie.
        source: a folder with the original files; None downloads them or takes the built-in ones.

    Raises:
        InputError: unknown name, files that cannot be used, or files for what is built in.
    """
    module = importlib.import_module(choose("data set", name, MODULES))
    if name not in BUILT_IN:
        module.prepare(data_dir, source)
    elif source is None:
        module.prepare(data_dir)
    else:
        raise InputError(f"The data set {name} is built in: leave --from out.")


def load(name: str, data_dir: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a prepared data set, ``load(...)["train"]["x"]``, mapped read-only.

    Raises:
        InputError: unknown name, or not prepared; says how to do that.
    """
    choose("data set", name, MODULES)
    if name in BUILT_IN and not arrays.is_prepared(data_dir, name):
        prepare(name, data_dir)
    return arrays.read(data_dir, name)
