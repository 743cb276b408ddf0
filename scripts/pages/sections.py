"""Stored runs, grouped into the sections of a report, and the curves and numbers in them."""

import dataclasses
import functools
import importlib
import importlib.util
import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

import experiments
from experiments.curves import Curve, Figure, Panel, at_best, from_readings, published
from ln.errors import InputError
from ln.training import runs
from ln.training.runs import Lane, Reading, Stored

RESULTS = Path(__file__).resolve().parents[2] / "results"
PUBLISHED, SPEED = RESULTS / "published", RESULTS / "speed"

# Config keys that change neither what is learned nor what is drawn, or that name the curve.
ASIDE = (
    *("data_dir", "scale", "seeds", "data_seed", "norm", "steps_per_call", "pad_to"),
    *("log_every", "save_every"),
)

Curves = dict[tuple[str, str], Curve]  # (panel or column, norm) -> curve


class Shown(NamedTuple):
    """A run, and the part of it that the page shows.

    Attributes:
        lr: the best learning rate of those with the fewest diverged lanes, by config.select.
        lanes: its lanes that have not diverged.
        changes: how the config differs from the nearest run of the paper's sweep.
    """

    run: Stored
    lr: float
    lanes: list[Lane]
    changes: list[str]

    @property
    def readings(self) -> list[Reading]:
        return [reading for reading in self.run.rows if reading.lane in self.lanes]

    @property
    def progress(self) -> str:
        planned = str(self.run.config["steps"])
        unit = "epoch" if "epoch" in planned else "step"
        return f"{self.run.progress(unit):,g} of {planned}"

    def sessions(self, key: str) -> list[str]:
        """Return what the sessions say about a key, each value once."""
        return list(dict.fromkeys(str(session.get(key, "–")) for session in self.run.sessions))


class Series(NamedTuple):
    """The readings of runs that differ in nothing but their seeds: one curve of a panel."""

    norm: str
    readings: list[Reading]
    select: dict
    finished: bool


@dataclasses.dataclass
class Section:
    """The runs of one experiment that differ from the paper in the same way, norms apart.

    Attributes:
        mark: distinguishes sections of the same source.
    """

    experiment: str
    scale: str
    changes: list[str]
    runs: list[Shown]
    mark: str = ""

    @property
    def config_file(self):
        """Return the module of the experiment's config."""
        return importlib.import_module(f"configs.{self.experiment}")

    @property
    def figures_file(self):
        """Return the module of the experiment's figures.py, or None."""
        return experiments.part(self.experiment, "figures")

    @functools.cached_property
    def figures(self) -> tuple[Figure, ...]:
        """Return the figures of figures.py; without such a file, every metric."""
        return self.figures_file.FIGURES if self.figures_file else default_figures(self)

    @property
    def place(self) -> tuple:
        """Return a key to sort by: the figures of the paper first, and there the nearest to it."""
        first = self.figures[0].name
        return not first.startswith("figure_"), first, self.experiment, len(self.changes)

    @property
    def name(self) -> str:
        return self.experiment.replace("_", " ")

    @property
    def label(self) -> str:
        """Return the scale, and whether it is the paper's setting."""
        if not self.changes:
            return "the paper’s setting"
        return f"scale {self.scale}" + (", changed" if self.scale == "paper" else "")

    @property
    def setting(self) -> str:
        return "; ".join(self.changes).replace("->", "→") or "the paper's setting"

    @property
    def seeds(self) -> str:
        texts = (", ".join(map(str, shown.run.config["seeds"])) for shown in self.runs)
        return " or ".join(dict.fromkeys(texts))

    @property
    def norms(self) -> str:
        return ", ".join(dict.fromkeys(shown.run.config["norm"] for shown in self.runs))

    @property
    def folders(self) -> list[str]:
        """Return the folders that contain its run folders."""
        return sorted({shown.run.folder.parent.as_posix() for shown in self.runs})

    @property
    def source(self) -> str:
        """Return where its numbers come from, in words."""
        return f"runs of {self.name}, {self.label}, in {' and '.join(self.folders)}{self.mark}"

    def series(self, where) -> list[Series]:
        """Return the curves of the runs whose config agrees with where, at most one of a norm.

        Raises:
            InputError: runs of a norm differ in more than their seeds, or have a seed in common.
        """
        groups: dict[str, list[Shown]] = {}
        for shown in self.runs:
            if all(shown.run.config.get(key) == value for key, value in where.items()):
                groups.setdefault(shown.run.config["norm"], []).append(shown)
        return [merge(norm, group) for norm, group in groups.items()]


def merge(norm: str, group: list[Shown]) -> Series:
    stored = [shown.run for shown in group]
    seeds = [seed for run in stored for seed in run.config["seeds"]]
    if len(set(seeds)) < len(seeds) or any(shown.changes != group[0].changes for shown in group):
        raise InputError(
            f"{' and '.join(str(run.folder) for run in stored)} are the same curve of the same "
            f"figure. Use --runs to name a folder that contains only one of them."
        )
    return Series(
        norm,
        [reading for shown in group for reading in shown.readings],
        stored[0].config["select"],
        all(run.finished for run in stored),
    )


def read_sections(root: Path, apart: bool = False) -> tuple[list[Section], list[str]]:
    """Return the sections of all runs below root, and what is wrong with the broken runs.

    Args:
        apart: whether runs in different folders always belong to different sections.

    Raises:
        InputError: there is no run that can be read.
    """
    sections: dict[tuple, Section] = {}
    broken = []
    for folder in runs.find(root):
        try:
            shown = choose_lanes(runs.read(folder))
        except InputError as error:
            broken.append(str(error))
            continue
        name, scale = shown.run.config["experiment"], shown.run.config["scale"]
        changes = [text for text in shown.changes if not text.startswith("norms.")]
        key = (name, scale, *changes, folder.parent if apart else None)
        sections.setdefault(key, Section(name, scale, changes, [])).runs.append(shown)
    if not sections:
        raise InputError(
            f"There is no run to report in {root}. {' '.join(broken) or 'First train some:'} "
            f"python -m scripts.sweep --config=configs/mnist.py:small --root={root.as_posix()}"
        )
    return sorted(sections.values(), key=lambda section: section.place), broken


def choose_lanes(run: Stored) -> Shown:
    def remaining(lr: float) -> list[Lane]:
        return [(seed, lr) for seed in run.config["seeds"] if (seed, lr) not in run.diverged]

    def order(lr: float) -> tuple[int, float]:
        best = run.best(remaining(lr))
        return -len(remaining(lr)), math.inf if best is None else run.sign * best[1]

    lr = min(map(float, run.config["lr"]), key=order)
    return Shown(run, lr, remaining(lr), changes_against_paper(run))


def changes_against_paper(run: Stored) -> list[str]:
    """Return the differences to the nearest run of the paper's sweep, norm and ASIDE apart."""
    config, name = run.config, run.config["experiment"]
    if importlib.util.find_spec(f"configs.{name}") is None:
        raise InputError(f"{run.folder} is a run of {name!r}; there is no configs/{name}.py.")
    differences = (
        runs.differences(compared(paper, config["norm"]), compared(config, config["norm"]))
        for paper in papers(name)
    )
    return min(differences, key=len)


def compared(config: dict, norm: str) -> dict:
    kept = {key: value for key, value in config.items() if key not in ASIDE}
    return kept | {"norms": {norm: config["norms"].get(norm, {})}}


@functools.cache
def papers(experiment: str) -> list[dict]:
    """Return the configs of the paper's sweep."""
    module = importlib.import_module(f"configs.{experiment}")
    configs = []
    for point in module.sweep():
        config = module.get_config("paper")
        config.update_from_flattened_dict(point)
        configs.append(runs.as_json(config))
    return configs
