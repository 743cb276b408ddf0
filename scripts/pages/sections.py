"""Run folders, grouped to sections of a report, and the curves and numbers in them."""

import collections
from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import importlib
import importlib.util
import itertools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

import experiments
from experiments.curves import Curve, Figure, Panel, Table, at_best, from_rows, published
from ln.errors import InputError
from ln.training import runs

RESULTS = Path(__file__).resolve().parents[2] / "results"
PUBLISHED, SPEED = RESULTS / "published", RESULTS / "speed"

# Config keys that change neither what is learned nor what is drawn, or that name the curve.
ASIDE = (
    *("data_dir", "scale", "seeds", "data_seed", "norm", "steps_per_call", "pad_to"),
    *("log_every", "save_every"),
)


@dataclasses.dataclass
class Run:
    """A run folder as the report sees it.

    Attributes:
        rows, evaluations: of the lanes of one learning rate that are not dead: where a run has
            several rates, the best by its config.select of those with the fewest dead lanes.
        lanes: what became of every lane, if there are several learning rates or dead ones.
        changes: how the config differs from the nearest run of the paper's sweep.
    """

    folder: Path
    config: dict
    rows: list[dict]
    evaluations: list[dict]
    sessions: list[dict]
    finished: bool
    lr: float
    changes: list[str]
    lanes: list[dict] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def seeds(self) -> str:
        return ", ".join(map(str, self.config["seeds"]))

    @property
    def dead(self) -> list[str]:
        """What ended the lanes that are dead."""
        return [
            f"seed {lane['seed']} at learning rate {lane['lr']}, {lane['fate']}"
            for lane in self.lanes
            if lane["fate"]
        ]

    @property
    def progress(self) -> str:
        planned = str(self.config["steps"])
        unit = "epoch" if "epoch" in planned else "step"
        return f"{self.rows[-1][unit] if self.rows else 0:,g} of {planned}"

    @property
    def commands(self) -> list[str]:
        """What was typed, each once: a run that was stopped has several sessions."""
        return list(dict.fromkeys(f"python {session['command']}" for session in self.sessions))

    @property
    def versions(self) -> str:
        found = [" ".join(pair) for s in self.sessions for pair in s["versions"].items()]
        return ", ".join(dict.fromkeys(found))

    @property
    def commits(self) -> str:
        found = [str(session["commit"]) for session in self.sessions]
        return ", ".join(dict.fromkeys(text[:10] + text[40:] for text in found))

    def every(self, key: str) -> str:
        """What the sessions say of a key, each value once."""
        return ", ".join(dict.fromkeys(str(session[key]) for session in self.sessions))


@dataclasses.dataclass
class Section:
    """The runs of one experiment that differ from the paper in the same way, norms apart."""

    experiment: str
    scale: str
    changes: list[str]
    runs: list[Run]
    mark: str = ""  # tells it from others of the same source

    @property
    def config_file(self):
        return config_file(self.experiment)

    @property
    def figures_file(self):
        """The module of the experiment's figures.py, or None."""
        return experiments.part(self.experiment, "figures")

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What figures.py says to draw; without such a file, every metric."""
        file = self.figures_file
        return file.FIGURES if file else default_figures(self)

    @property
    def name(self) -> str:
        return self.experiment.replace("_", " ")

    @property
    def label(self) -> str:
        """The scale, and whether it is the paper's setting."""
        if not self.changes:
            return "the paper’s setting"
        return f"scale {self.scale}" + (", changed" if self.scale == "paper" else "")

    @property
    def setting(self) -> str:
        return "; ".join(self.changes).replace("->", "→") or "the paper's setting"

    @property
    def seeds(self) -> str:
        return " or ".join(dict.fromkeys(run.seeds for run in self.runs))

    @property
    def norms(self) -> str:
        return ", ".join(dict.fromkeys(run.config["norm"] for run in self.runs))

    @property
    def folders(self) -> list[str]:
        """Those in which its run folders lie."""
        return sorted({run.folder.parent.as_posix() for run in self.runs})

    @property
    def source(self) -> str:
        """Where its numbers come from, as a reader wants to know it."""
        return f"runs of {self.name}, {self.label}, in {' and '.join(self.folders)}{self.mark}"


def config_file(experiment: str):
    """The module of an experiment's config."""
    return importlib.import_module(f"configs.{experiment}")


def read_run(folder: Path) -> Run:
    config, rows = runs.load(folder)
    dead = runs.read_dead(folder)
    lr = best_lr(config, rows, dead)

    def shown(rows: list[dict]) -> list[dict]:
        return [row for row in rows if row["lr"] == lr and (row["seed"], lr) not in dead]

    return Run(
        folder=folder,
        config=config,
        rows=shown(rows),
        evaluations=shown(runs.read_rows(folder / "evaluations.jsonl")),
        sessions=runs.read_rows(folder / "sessions.jsonl"),
        finished=runs.is_finished(folder),
        lr=lr,
        changes=changes_against_paper(config),
        lanes=lanes_of(config, rows, dead) if len(config["lr"]) > 1 or dead else [],
    )


def best_lr(config: dict, rows: list[dict], dead: Mapping[tuple, dict]) -> float:
    """The learning rate whose mean over seeds of config.select was best at any evaluation, of those
    with the fewest dead lanes."""
    select = config["select"]
    sign = 1 if select["mode"] == "min" else -1
    deaths = collections.Counter(lr for _, lr in dead)
    readings: dict[tuple, list[float]] = {}
    for row in rows:
        if row["split"] == select["split"] and (row["seed"], row["lr"]) not in dead:
            readings.setdefault((row["lr"], row["step"]), []).append(sign * row[select["metric"]])
    order = {key: (deaths[key[0]], sum(v) / len(v)) for key, v in readings.items()}
    return min(order, key=order.__getitem__)[0] if order else config["lr"][0]


def lanes_of(config: dict, rows: list[dict], dead: Mapping[tuple, dict]) -> list[dict]:
    """What became of every lane of a run: its best score by config.select, and whether it lives."""
    select, found = config["select"], []
    best = {"min": min, "max": max}[select["mode"]]
    for lr, seed in itertools.product(config["lr"], config["seeds"]):
        mine = [row for row in rows if (row["seed"], row["lr"]) == (seed, lr)]
        scores = {r["step"]: r[select["metric"]] for r in mine if r["split"] == select["split"]}
        step = best(scores, key=scores.__getitem__, default=None)
        death = dead.get((seed, lr))
        found.append(
            dict(
                lr=f"{lr:g}",
                seed=str(seed),
                updates=f"{max((row['step'] for row in mine), default=0):,}",
                score="–" if step is None else f"{scores[step]:.4g}",
                at="–" if step is None else f"{step:,}",
                fate=f"dead at {death['step']:,}: {death['cause']}" if death else "",
            )
        )
    return found


def changes_against_paper(config: dict) -> list[str]:
    """The differences to the nearest run of the paper's sweep, norm and ASIDE apart."""
    module, norm = config_file(config["experiment"]), config["norm"]

    def compared(config):
        chosen = {norm: config["norms"].get(norm, {})}
        return {k: v for k, v in config.items() if k not in ASIDE} | {"norms": chosen}

    found = []
    for point in module.sweep():
        paper = module.get_config("paper")
        paper.update_from_flattened_dict(point)
        found.append(runs.differences(compared(runs.as_json(paper)), compared(config)))
    return min(found, key=len)


def read_sections(root: Path, apart: bool = False) -> list[Section]:
    """All runs below root.

    Args:
        apart: whether runs that do not lie in the same folder are different sections in any case.

    Raises:
        InputError: there are none.
    """
    sections: dict[tuple, Section] = {}
    for folder in runs.find(root):
        name = runs.load(folder)[0]["experiment"]
        if importlib.util.find_spec(f"configs.{name}") is None:
            raise InputError(
                f"{folder} is of experiment {name!r}, but there is no configs/{name}.py."
            )
        run = read_run(folder)
        changes = [text for text in run.changes if not text.startswith("norms.")]
        key = (name, run.config["scale"], *changes, folder.parent if apart else None)
        sections.setdefault(key, Section(name, run.config["scale"], changes, [])).runs.append(run)
    if not sections:
        raise InputError(
            f"There is no run to report in {root}. First train some: "
            f"python -m scripts.sweep --config=configs/mnist.py:small --root={root.as_posix()}"
        )
    return list(sections.values())


def default_figures(section: Section) -> tuple[Figure, ...]:
    """Return a figure of every metric of every split for each setting of the runs, which is all
    but norms and seeds: the page of an experiment without figures.py.
    """
    first = section.runs[0].config
    varied = {
        key
        for run in section.runs
        for key, value in run.config.items()
        if key not in (*ASIDE, "norms") and value != first.get(key)
    }
    settings: list[dict] = []
    for run in section.runs:
        setting = {key: run.config.get(key) for key in sorted(varied)}
        settings += [setting] if setting not in settings else []
    return tuple(
        Figure(
            name=f"metrics_{n}",
            title=", ".join(["All metrics", *(f"{k} {v}" for k, v in setting.items())]),
            caption=f"Every metric of every split. experiments/{section.experiment}/figures.py, "
            "which does not exist, would choose and describe them.",
            source=None,
            columns=2,
            panels=tuple(default_panels(section, setting, n)),
        )
        for n, setting in enumerate(settings, start=1)
    )


def default_panels(section: Section, where: dict, n: int) -> Iterator[Panel]:
    """Yield a panel for each split and metric, that of config.select first."""
    select = section.runs[0].config["select"]
    main = select["split"], select["metric"]
    values: dict[tuple[str, str], list[float]] = {main: []}  # before the first evaluation, too
    for _, group in groups_of(section, where):
        for row in (row for run in group for row in run.rows):
            for name in row.keys() - {"step", "epoch", "split", "seed", "lr"}:
                if np.isfinite(row[name]):
                    values.setdefault((row["split"], name), []).append(row[name])
    for split, metric in sorted(values, key=lambda key: (key != main, key)):
        middle = float(np.median(values[split, metric] or [0.0]))
        yield Panel(
            name=f"{n} {split} {metric}",
            title=split,
            where=where,
            split=split,
            metric=metric,
            label=metric,
            digits=".4g",
            limits=(middle, middle + 1e-3 * (abs(middle) or 1)),  # widened to the curves
            x="step",
            x_label="update",
            summaries=(("mean", 1), ("min", 0), ("max", 0)),
            falling=(split, metric) != main or select["mode"] == "min",
        )


def groups_of(section: Section, where) -> Iterator[tuple[str, list[Run]]]:
    """Yields (norm, its runs) of the runs whose config agrees with where; they differ in nothing
    but their seeds.

    Raises:
        InputError: they differ in more, or have a seed in common.
    """
    groups: dict[str, list[Run]] = {}
    for run in section.runs:
        if all(run.config.get(key) == value for key, value in where.items()):
            groups.setdefault(run.config["norm"], []).append(run)
    for norm, group in groups.items():
        seeds = [seed for run in group for seed in run.config["seeds"]]
        if len(set(seeds)) < len(seeds) or any(run.changes != group[0].changes for run in group):
            raise InputError(
                f"{' and '.join(str(run.folder) for run in group)} are the same curve of the same "
                f"figure. Name a folder by --runs that holds only one of them."
            )
        yield norm, group


def curves_of(section: Section, panels: Iterable[Panel]) -> dict[tuple[str, str], Curve]:
    """(panel, norm) -> curve of the runs that belong in a panel; runs that differ in nothing but
    their seeds are one curve."""
    found = {}
    for panel in panels:
        for norm, group in groups_of(section, panel.where):
            rows = [row for run in group for row in run.rows]
            curve = from_rows(rows, panel, complete=all(run.finished for run in group))
            if curve is not None:
                found[panel.name, norm] = curve
    return found


def numbers_of(section: Section, table: Table) -> tuple[dict, dict]:
    """The numbers of a table as curves of one reading, (column, norm) -> curve: ours, each lane's
    at its best step by config.select, and the paper's."""
    ours, theirs = {}, {}
    for norm, group in groups_of(section, {}):
        rows, select = [row for run in group for row in run.rows], group[0].config["select"]
        for column in table.columns:
            curve = at_best(rows, select, column, all(run.finished for run in group))
            if curve is not None:
                ours[column.name, norm] = curve
    for row in table.rows:
        for column, value in zip(table.columns, row.values, strict=True):
            if row.norm is not None and value is not None:
                theirs[column.name, row.norm] = Curve(np.zeros(1), np.array([[value]]))
    return ours, theirs


class Gathered(NamedTuple):
    """What the runs of a section and the paper have to say.

    Attributes:
        figures: those of FIGURES that there is something of, with their panels.
        tables: those of TABLES.
            Both have their own part of ours and theirs.
        ours, theirs: all curves, (panel or column, norm) -> curve.
        times: of training steps, by a benchmark, ("seconds", norm) -> curve.
    """

    figures: list[dict]
    tables: list[dict]
    ours: dict
    theirs: dict
    times: dict


def gather(section: Section) -> Gathered:
    module = section.figures_file
    times = seconds(**module.SPEED) if hasattr(module, "SPEED") else {}
    found = Gathered([], [], {}, {}, times)
    for figure in section.figures:
        theirs = published(PUBLISHED / f"{figure.name}.csv") if figure.source else {}
        ours = curves_of(section, figure.panels)
        if theirs or ours:  # else a figure of ours alone, of which these runs have nothing
            found.figures.append(dict(vars(figure), ours=ours, theirs=theirs))
    for table in getattr(module, "TABLES", ()):
        ours, theirs = numbers_of(section, table)
        found.tables.append(dict(vars(table), ours=ours, theirs=theirs))
    for entry in found.figures + found.tables:
        found.ours.update(entry["ours"])
        found.theirs.update(entry["theirs"])
    return found


def seconds(name: str, case: str, peers: dict[str, str]) -> dict:
    """The times of training steps by results/speed/<name>.json, ("seconds", norm) -> a curve with a
    lane for each round; peers: norm -> its name there."""
    path = SPEED / f"{name}.json"
    measured = json.loads(path.read_text())["cases"][case]["peers"] if path.is_file() else {}
    return {
        ("seconds", norm): Curve(np.zeros(1), np.array(measured[peer]["seconds_per_step"])[:, None])
        for norm, peer in peers.items()
        if peer in measured
    }


def main_panel(section: Section, found: Gathered) -> tuple[str, Panel]:
    """The panel that sums a section up, below the title of its figure: that of MAIN,
    or the first one with curves."""
    panels = [(figure.title, panel) for figure in section.figures for panel in figure.panels]
    name = getattr(section.figures_file, "MAIN", {}).get("panel")
    drawn = {panel for panel, _ in found.ours or found.theirs}
    return min(panels, key=lambda of: (of[1].name not in drawn, of[1].name != name))
