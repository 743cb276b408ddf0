"""Stored runs, grouped into the sections of a report, and the curves and numbers in them."""

import dataclasses
import functools
import importlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import experiments
from experiments import curves
from experiments.curves import PUBLISHED, Curve, Figure, Panel, Table
from ln.errors import InputError, choose
from ln.training import files, runs
from ln.training.runs import Lane, Reading, Stored

RESULTS = Path(__file__).resolve().parents[2] / "results"

# Config keys that change neither what is learned nor what is drawn, or that name the curve.
ASIDE = {*runs.PLACES, "scale", "seeds", "data_seed", "norm"}
ASIDE |= {"steps_per_call", "pad_to", "log_every", "save_every"}

Curves = dict[tuple[str, str], Curve]  # (panel or column, norm) -> curve


# --- From run folders to sections ---


def read_length(text: Any) -> tuple[float, str]:
    """Return the number and the unit, "epoch" or "step", of "65 epochs" or "300 steps"."""
    number, _, unit = str(text).partition(" ")
    try:
        return float(number), unit.removesuffix("s") or "step"
    except ValueError as error:
        raise InputError(f'{text!r} is not a length; write "300 steps" or "65 epochs".') from error


@dataclasses.dataclass
class Shown:
    """A run, or several that differ in nothing but their seeds, and the part that the page shows.

    Attributes:
        lr: the best learning rate of those with the fewest diverged lanes, by config.select.
        lanes: the lanes of this rate that have not diverged.
        lost: how many have.
        changes: how the config differs from the nearest run of the paper's sweep.
    """

    stored: Stored
    lr: float
    lanes: list[Lane]
    lost: int
    changes: list[str]

    @functools.cached_property
    def readings(self) -> list[Reading]:
        """Return the readings of these lanes."""
        return [reading for reading in self.stored.rows if reading.lane in self.lanes]

    @functools.cached_property
    def best(self) -> dict[Lane, int]:
        """Return the best step of each lane by config.select; none before the first evaluation."""
        return {lane: best[0] for lane in self.lanes if (best := self.stored.best([lane]))}

    @property
    def rank(self) -> tuple[int, float]:
        """Return a key that sorts runs by their diverged lanes, then by their best score."""
        best = self.stored.best(self.lanes)
        return self.lost, self.stored.sign * best[1] if best else math.inf

    @property
    def progress(self) -> str:
        """Return how far the run has come, in words."""
        planned = str(self.stored.config["steps"])
        return f"{self.stored.progress(read_length(planned)[1]):,g} of {planned}"

    @property
    def versions(self) -> str:
        """Return the versions of all sessions."""
        pairs = [pair for session in self.stored.sessions for pair in session["versions"].items()]
        return ", ".join(dict.fromkeys(f"{name} {version}" for name, version in pairs))


@dataclasses.dataclass
class Section:
    """The runs of one experiment that differ from the paper in the same way, norms apart."""

    experiment: str
    scale: str
    changes: list[str]
    runs: list[Shown]

    @property
    def figures_file(self):
        """Return the module of the experiment's figures.py, or None."""
        return experiments.part(self.experiment, "figures")

    @functools.cached_property
    def figures(self) -> tuple[Figure, ...]:
        """Return the figures of figures.py; without such a file, every metric."""
        return self.figures_file.FIGURES if self.figures_file else (default_figure(self),)

    @functools.cached_property
    def panels(self) -> dict[str, Panel]:
        """Return the panels of all figures by name."""
        return {panel.name: panel for figure in self.figures for panel in figure.panels}

    @property
    def tables(self) -> tuple[Table, ...]:
        """Return the tables of figures.py."""
        return getattr(self.figures_file, "TABLES", ())

    @property
    def place(self) -> tuple:
        """Return a key to sort by: the paper's figures in order, the nearest to it first."""
        first = self.figures[0].name
        return not first.startswith("figure_"), first, self.experiment, len(self.changes)

    @property
    def name(self) -> str:
        """Return the experiment in words."""
        return self.experiment.replace("_", " ")

    @property
    def label(self) -> str:
        """Return the scale, or whether it is the paper's setting."""
        if not self.changes:
            return "the paper’s setting"
        return "changed settings" if self.scale == "paper" else f"scale {self.scale}"

    @property
    def setting(self) -> str:
        """Return what was changed, in words."""
        return "; ".join(self.changes).replace("->", "→") or "the paper’s setting"

    def differs(self, main: "Section") -> str:
        """Return in what the settings differ from those of another section."""
        keys = {text.partition(":")[0] for text in self.changes}
        texts = [text.replace("->", "→") for text in self.changes if text not in main.changes]
        back = (text.partition(":")[0] for text in main.changes)
        return "; ".join([*texts, *(f"{key} as in the paper" for key in back if key not in keys)])

    def values(self, key: str) -> str:
        """Return the values of a key in the configs of the runs, in words."""
        values = (shown.stored.config[key] for shown in self.runs)
        texts = (v if isinstance(v, str) else ", ".join(map(str, v)) for v in values)
        return " or ".join(dict.fromkeys(texts))

    @property
    def folders(self) -> list[str]:
        """Return the folders that contain its run folders."""
        return sorted({shown.stored.folder.parent.as_posix() for shown in self.runs})

    @property
    def source(self) -> str:
        """Return where its numbers come from, in words."""
        return f"runs of {self.name}, {self.label}, in {' and '.join(self.folders)}"

    def series(self, where) -> dict[str, Shown]:
        """Return norm -> the runs whose config agrees with where, merged."""
        groups: dict[str, list[Shown]] = {}
        for shown in self.runs:
            if all(shown.stored.config.get(key) == value for key, value in where.items()):
                groups.setdefault(shown.stored.config["norm"], []).append(shown)
        return {norm: merge(group) for norm, group in groups.items()}


def merge(group: list[Shown]) -> Shown:
    """Return runs as one curve of each panel.

    Raises:
        InputError: they differ in more than their seeds, or have a seed in common.
    """
    first, stored = group[0], [shown.stored for shown in group]
    seeds = [seed for run in stored for seed in run.config["seeds"]]
    if len(set(seeds)) < len(seeds) or any(shown.changes != first.changes for shown in group):
        folders = " and ".join(str(run.folder) for run in stored)
        message = f"{folders} are the same curve of the same figure."
        raise InputError(f"{message} Use --runs to name a folder that contains only one of them.")
    rows = [reading for shown in group for reading in shown.readings]
    finished = all(run.finished for run in stored)
    merged = dataclasses.replace(first.stored, rows=rows, finished=finished)
    lanes = [lane for shown in group for lane in shown.lanes]
    return Shown(merged, first.lr, lanes, sum(shown.lost for shown in group), first.changes)


def read_sections(root: Path, apart: bool = False) -> tuple[list[Section], list[str]]:
    """Return the sections of all runs below root, and the errors of broken runs; print these.

    Args:
        root: folder of the runs, at any depth.
        apart: whether runs in different folders always belong to different sections.

    Raises:
        InputError: there is no run that can be read.
    """
    sections: dict[tuple, Section] = {}
    broken = []
    for folder in runs.find(root):
        try:
            run = runs.read(folder)
            shown = min(at_rates(run, changes_against_paper(run)), key=lambda shown: shown.rank)
            name, scale = shown.stored.config["experiment"], str(shown.stored.config["scale"])
        except files.MALFORMED as error:  # an InputError, or a key that only pages need
            text = f"{folder} has a malformed config ({error!r})."
            broken.append(str(error) if isinstance(error, InputError) else text)
            print(f"Skipped a broken run: {broken[-1]}")
            continue
        changes = [text for text in shown.changes if not text.startswith("norms.")]
        key = (name, scale, *changes, folder.parent if apart else None)
        sections.setdefault(key, Section(name, scale, changes, [])).runs.append(shown)
    if not sections:
        remedy = " ".join(broken) or "First train some: python -m scripts.sweep --help shows how."
        raise InputError(f"There is no run to report in {root}. {remedy}")
    return sorted(sections.values(), key=lambda section: section.place), broken


def at_rates(run: Stored, changes: list[str]) -> list[Shown]:
    """Return a run once for each of its learning rates, with the lanes that remain of this rate."""
    lanes = {float(rate): list[Lane]() for rate in run.config["lr"]}
    for lane in run.remaining:
        lanes[lane[1]].append(lane)
    planned = len(run.config["seeds"])
    return [Shown(run, rate, left, planned - len(left), changes) for rate, left in lanes.items()]


def changes_against_paper(run: Stored) -> list[str]:
    """Return the differences to the nearest run of the paper's sweep, norm and ASIDE apart.

    Raises:
        InputError: the config is of no experiment.
    """
    name, norm = run.config["experiment"], run.config["norm"]
    choose(f"experiment in {run.folder}/config.json", name, dict.fromkeys(experiments.names()))

    def compared(config: dict) -> dict:
        kept = {key: value for key, value in config.items() if key not in ASIDE}
        return kept | {"norms": {norm: config["norms"].get(norm, {})}}

    here = compared(run.config)
    return min((runs.differences(compared(paper), here) for paper in papers_of(name)), key=len)


@functools.cache
def papers_of(experiment: str) -> list[dict]:
    """Return the configs of the paper's sweep; of an experiment without figures.py, one config.

    Figures show the runs of a sweep side by side, so these belong to one section.
    """
    module, configs = importlib.import_module(f"configs.{experiment}"), []
    for point in module.sweep() if experiments.part(experiment, "figures") else [{}]:
        config = module.get_config("paper")
        config.update_from_flattened_dict(point)
        configs.append(runs.as_json(config))
    return configs


def default_figure(section: Section) -> Figure:
    """Return a panel for every metric of every split, that of config.select first."""
    select = section.runs[0].stored.config["select"]
    main = select["split"], select["metric"]
    rows = [row for shown in section.runs for row in shown.stored.rows]
    others = sorted({(row.split, metric) for row in rows for metric in row.values})
    style: dict[str, Any] = dict(digits=".4g", summaries=(("mean", 1), ("min", 0), ("max", 0)))
    panels = []
    for split, metric in dict.fromkeys([main, *others]):
        style["falling"] = (split, metric) != main or select["mode"] == "min"
        panels.append(Panel(f"{split} {metric}", split, split, metric, metric, **style))
    file = f"experiments/{section.experiment}/figures.py"
    caption = f"Every metric of every split. A file {file} would choose and describe them."
    return Figure(name="metrics", title="All metrics", caption=caption, panels=tuple(panels))


# --- From sections to curves ---


class Gathered(NamedTuple):
    """The curves of a section: of its panels, and of one reading for the columns of its tables.

    The times of training steps by a benchmark are ("seconds", norm) -> curve.
    """

    ours: Curves
    theirs: Curves


def gather(section: Section) -> Gathered:
    """Return the curves of a section."""
    ours: dict[tuple[str, str], Curve | None] = {}
    theirs: Curves = {}
    for figure in section.figures:
        theirs |= curves.published(PUBLISHED / f"{figure.name}.csv") if figure.source else {}
    for panel in section.panels.values():
        for norm, run in section.series(panel.where).items():
            curve = curves.from_readings(run.readings, panel, run.stored.finished)
            ours[panel.name, norm] = curve
    for table in section.tables:
        theirs |= printed(table)
        for norm, run in section.series({}).items():
            for column in table.columns:
                curve = curves.at_best(run.readings, run.best, column, run.stored.finished)
                ours[column.name, norm] = curve
    if speed := getattr(section.figures_file, "SPEED", None):
        ours |= seconds(**speed)
    return Gathered({key: curve for key, curve in ours.items() if curve is not None}, theirs)


def by_norm(panel: Panel, curves: Curves) -> dict[str, Curve]:
    """Return norm -> curve in a panel."""
    return {norm: curve for (name, norm), curve in curves.items() if name == panel.name}


def printed(table: Table) -> Curves:
    """Return the published numbers of a table, as curves of one reading."""
    return {
        (column.name, row.norm): Curve(np.zeros(1), np.array([[value]]))
        for row in table.rows
        for column, value in zip(table.columns, row.values, strict=True)
        if row.norm is not None and value is not None
    }


def seconds(case: str, peers: dict[str, str]) -> Curves:
    """Return the times of training steps in results/speed/step.json, a lane for each round.

    Args:
        case: of the benchmark.
        peers: norm -> its name in the file.
    """
    path = RESULTS / "speed" / "step.json"
    rows = json.loads(path.read_text())[case] if path.is_file() else {}
    known = {norm: rows[peer]["seconds_per_step"] for norm, peer in peers.items() if peer in rows}
    return {("seconds", norm): Curve(np.zeros(1), np.c_[times]) for norm, times in known.items()}
