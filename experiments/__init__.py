"""The experiments of the paper: each folder with a task.py is one."""

import functools
import hashlib
import importlib
from pathlib import Path
import traceback
from types import ModuleType
from typing import Any, NamedTuple

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
        InputError: there is no such experiment, a value that every run needs is missing or of
            another type, or the data are missing or broken.
    """
    from ln.training import ranges

    choose("config.experiment", config.experiment, dict.fromkeys(names()))
    ranges.check_types(config)
    task = importlib.import_module(f"experiments.{config.experiment}.task").Task(config)
    task.data = {
        config[key]: digest(config.data_dir, config[key]) for key in DATA_KEYS if config.get(key)
    }
    if path := config.get("word_vectors"):  # so that a run is not resumed with other vectors
        task.data["word_vectors"] = file_digest(Path(path))
    return task


class Trained(NamedTuple):
    """A checkpoint of a run.

    Attributes:
        state: of all lanes, as the trainer has it.
        stored: the rows, lanes and sessions of the run.
    """

    task: Any
    state: Any
    stored: Any

    @property
    def step(self) -> int:
        """Return the step after which it was saved."""
        return int(self.state.step.max())  # in runs of earlier versions, diverged lanes are behind

    @property
    def lanes(self) -> dict[int, tuple[int, float]]:
        """Return number -> seed and learning rate of the lanes that have not diverged by then."""
        diverged = {n for n, (step, _) in self.stored.diverged.items() if step <= self.step}
        return {n: lane for n, lane in enumerate(self.stored.lanes) if lane not in diverged}

    def variables(self, lane: int):
        """Return the variables of the model of a lane.

        Raises:
            InputError: there is no such lane, or it has diverged.
        """
        from ln.training import train

        if lane not in self.lanes:
            known = ", ".join(map(str, self.lanes)) or "none"
            raise InputError(
                f"{self.stored.folder} has no lane {lane} at step {self.step:,} that has not "
                f"diverged. There are: {known}. Take one of them, or another checkpoint."
            )
        return train.variables_of(self.state, lane)


def open_run(folder: Path | str, checkpoint: str = "best", data_dir: str | None = None) -> Trained:
    """Return a checkpoint of a run, which may still be training.

    Args:
        folder: the run folder.
        checkpoint: "best" by config.select, "newest", or a step.
        data_dir: folder of the prepared data; default: the run's.

    Raises:
        InputError: there is no such run, checkpoint or data set; or jax computes in another way
            than in the run.
    """
    from ln.training import runs, train

    config, stored = runs.read_config(folder), runs.read(folder)
    runs.check_arithmetic(stored.folder, stored.sessions)
    config.data_dir = data_dir or config.data_dir
    task = load(config)
    return Trained(task, train.load(task, folder, checkpoint), stored)


def load_run(folder: Path | str, checkpoint: str = "best", lane: int = 0):
    """Return the task, the variables and the config of a run; see `open_run`.

    Args:
        folder: the run folder.
        checkpoint: "best" by config.select, "newest", or a step.
        lane: number of a pair of seed and learning rate of the run.
    """
    trained = open_run(folder, checkpoint)
    return trained.task, trained.variables(lane), trained.task.config


def check(config):
    """Return the Task of a config that can be trained, before anything is written.

    Raises:
        InputError: a value is out of its range, unknown or does not fit the others, or the data are
            missing or broken.
    """
    from ln.training import runs, train

    task = load(config)
    train.make_lanes(config)
    train.make_optimizer(config)
    train.Plan.make(config, task)
    runs.check(config)
    check_select(task, config)
    return task


def check_select(task: Any, config) -> None:
    """Raise InputError if the evaluations have no such split or metric, as far as is known."""
    if not task.metrics or config.get("tasks"):  # of sentences each task has its own metrics
        return
    splits: Any = getattr(task, "scorers", None) or getattr(task, "folds", ("valid",))
    choose("config.select.split", config.select.split, dict.fromkeys(splits))
    choose("config.select.metric", config.select.metric, dict.fromkeys(task.metrics))


def file_digest(path: Path) -> str:
    """Return the digest of what a file of word vectors has, unpacked.

    Raises:
        InputError: it cannot be read.
    """
    from experiments.datasets.originals import Budget, opened
    from experiments.sentence_evaluation import VECTORS

    with opened(path, Budget("config.word_vectors", VECTORS)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(data_dir: str, name: str) -> str:
    """Return the digest of a data set, computed once as long as its files stay as they are."""
    files = sorted((Path(data_dir) / name).iterdir())
    return _digest(data_dir, name, tuple((path, path.stat().st_mtime_ns) for path in files))


@functools.cache
def _digest(data_dir: str, name: str, files: tuple) -> str:
    from experiments.datasets import arrays  # here, so that models import without data

    return arrays.digest(data_dir, name)
