"""Draws figures, fills tables and decides claims from run folders: one page, <out>/index.html.

    python -m scripts.report --runs=runs/small
    python -m scripts.report --runs=runs/paper --out=report/paper
    python -m scripts.report --theory --out=report/theory
    python -m scripts.report --claims --runs=runs/small --out=report/claims

Reads config.json, metrics.jsonl, sessions.jsonl and finished.json of every run folder below --runs,
also of runs that still go on, and evaluations.jsonl where scripts.evaluate has written one. What to
draw stands in the config of their experiment (FIGURES, TABLES, CLAIMS), the paper's curves in
results/published/. The page holds everything it shows; its pictures also lie beside it as PNG
files. --theory needs no runs: it computes what section 5 of the paper claims
(experiments/theory.py), in less than a minute. --claims shows all claims of the paper, with what
the analysis and the runs below --runs, if there are any, found of each.
"""

import base64
import collections
from collections.abc import Iterator
import dataclasses
import datetime
import importlib
import importlib.util
import inspect
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from ln.errors import InputError
from scripts import cli

RUNS = flags.DEFINE_string("runs", "runs/small", "folder with run folders, at any depth")
THEORY = flags.DEFINE_bool("theory", False, "section 5 as numbers, instead of runs")
CLAIMS = flags.DEFINE_bool("claims", False, "all claims of the paper, with verdicts")
OUT = flags.DEFINE_string(
    "out",
    None,
    "folder of the page; made if it is not there [report, report/theory or report/claims]",
)

RESULTS = Path(__file__).resolve().parent.parent / "results"
PUBLISHED, SPEED = RESULTS / "published", RESULTS / "speed"
PAIR = "none", "layer"  # the norms whose paces are compared
MARK = '<meta name="generator" content="scripts.report">'  # by this a page is known as ours

# Config keys that change neither what is learned nor what is drawn, or that name the curve.
ASIDE = (
    *("data_dir", "scale", "seeds", "norm", "steps_per_call", "pad_to"),
    *("log_every", "save_every"),
)

# Name, colour (Okabe and Ito's, told apart by the colour-blind) and marker (for black and white).
STYLES = dict(
    none=("no norm", "#4d4d4d", "s"),
    batch=("batch norm", "#d55e00", "^"),
    layer=("layer norm", "#0072b2", "o"),
    weight=("weight norm", "#009e73", "D"),
    everywhere=("batch norm everywhere", "#e69f00", "v"),
    layer_small=("layer norm, gains from 0.1", "#56b4e9", "X"),
    layer_units=("layer norm, gains of units", "#56b4e9", "X"),
    layer_channels=("layer norm over channels", "#cc79a7", "P"),
    original=("Kiros et al.’s vectors", "#a0a0a0", "d"),
)
FURTHER = (("#cc79a7", "P"), ("#e69f00", "v"), ("#56b4e9", "X"))  # for other names, in turn


@dataclasses.dataclass
class Run:
    """A run folder as the report sees it.

    Attributes:
        rows, evaluations: of one learning rate: where a run has several, the best by its
            config.select.
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

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def seeds(self) -> str:
        return ", ".join(map(str, self.config["seeds"]))

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

    @property
    def title(self) -> str:
        return f"{self.experiment}, scale {self.scale}"

    @property
    def setting(self) -> str:
        return "; ".join(self.changes).replace("->", "→") or "the paper's setting"

    @property
    def seeds(self) -> str:
        return " or ".join(dict.fromkeys(run.seeds for run in self.runs))


def read_run(folder: Path) -> Run:
    from ln import runs

    config, rows = runs.load(folder)
    lr = best_lr(config, rows)
    return Run(
        folder=folder,
        config=config,
        rows=[row for row in rows if row["lr"] == lr],
        evaluations=[
            row for row in runs.read_rows(folder / "evaluations.jsonl") if row["lr"] == lr
        ],
        sessions=runs.read_rows(folder / "sessions.jsonl"),
        finished=runs.is_finished(folder),
        lr=lr,
        changes=changes_against_paper(config),
    )


def best_lr(config: dict, rows: list[dict]) -> float:
    """The learning rate whose mean over seeds of config.select was best at any evaluation."""
    select = config["select"]
    sign = 1 if select["mode"] == "min" else -1
    sums: dict[tuple, float] = {}
    for row in rows:
        if row["split"] == select["split"]:
            key = row["lr"], row["step"]
            sums[key] = sums.get(key, 0.0) + sign * row[select["metric"]]
    return min(sums, key=sums.__getitem__)[0] if sums else config["lr"][0]


def changes_against_paper(config: dict) -> list[str]:
    """The differences to the nearest run of the paper's sweep, norm and ASIDE apart."""
    from ln import runs

    module, norm = importlib.import_module(f"configs.{config['experiment']}"), config["norm"]

    def compared(config):
        chosen = {norm: config["norms"].get(norm, {})}
        return {k: v for k, v in config.items() if k not in ASIDE} | {"norms": chosen}

    found = []
    for point in module.sweep():
        paper = module.get_config("paper")
        paper.update_from_flattened_dict(point)
        found.append(runs.differences(compared(runs.as_json(paper)), compared(config)))
    return min(found, key=len)


def read_sections(root: Path) -> list[Section]:
    """All runs below root of experiments that have figures.

    Raises:
        InputError: there are none.
    """
    from ln import runs

    sections: dict[tuple, Section] = {}
    for folder in runs.find(root):
        name = runs.load(folder)[0]["experiment"]
        if importlib.util.find_spec(f"configs.{name}") is None:
            raise InputError(
                f"{folder} is of experiment {name!r}, but there is no configs/{name}.py."
            )
        if not hasattr(importlib.import_module(f"configs.{name}"), "FIGURES"):
            continue
        run = read_run(folder)
        changes = [text for text in run.changes if not text.startswith("norms.")]
        key = (name, run.config["scale"], *changes)
        sections.setdefault(key, Section(name, run.config["scale"], changes, [])).runs.append(run)
    if not sections:
        raise InputError(
            f"There is no run to report in {root}. First train some: "
            f"python -m scripts.sweep --config=configs/mnist.py:small --root={root.as_posix()}"
        )
    return list(sections.values())


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
    for norm, runs in groups.items():
        seeds = [seed for run in runs for seed in run.config["seeds"]]
        if len(set(seeds)) < len(seeds) or any(run.changes != runs[0].changes for run in runs):
            raise InputError(
                f"{' and '.join(str(run.folder) for run in runs)} are the same curve of the same "
                f"figure. Name a folder by --runs that holds only one of them."
            )
        yield norm, runs


def curves_of(section: Section, panel) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yields ((panel, norm), curve) of the runs that belong in a panel; runs that differ in nothing
    but their seeds are one curve."""
    from experiments import curves

    for norm, runs in groups_of(section, panel.where):
        rows = [row for run in runs for row in run.rows]
        curve = curves.from_rows(rows, panel, complete=all(run.finished for run in runs))
        if curve is not None:
            yield (panel.name, norm), curve


def styles_of(norms) -> dict[str, tuple]:
    """norm -> (name, colour, marker), in the order in which they are drawn and tabulated."""
    others = [norm for norm in norms if norm not in STYLES]
    further = {norm: (norm, *FURTHER[n % len(FURTHER)]) for n, norm in enumerate(others)}
    return {norm: style for norm, style in STYLES.items() if norm in norms} | further


def draw(panels, columns: int, ours: dict, theirs: dict) -> bytes:
    """Draws panels with a common legend below; returns a PNG.

    Args:
        ours, theirs: (panel, norm) -> curve.
    """
    from matplotlib.figure import Figure

    norms = styles_of(dict.fromkeys(norm for _, norm in [*ours, *theirs]))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows + 0.6), dpi=150, layout="constrained")
    lines = {}
    for n, panel in enumerate(panels, start=1):
        panel = dataclasses.replace(panel, x_log=panel.x_log or is_short(panel, ours, theirs))
        axes = figure.add_subplot(rows, columns, n)
        axes.set_yscale("log" if panel.log else "linear")
        axes.set_xscale("log" if panel.x_log else "linear")
        for who, curves in (("paper", theirs), ("ours", ours)):
            for norm, (name, colour, marker) in norms.items():
                if (panel.name, norm) in curves:
                    line = draw_curve(axes, curves[panel.name, norm], panel, who, colour, marker)
                    lines.setdefault(f"{name}, {who}", line)
        axes.set_ylim(y_limits(panel, ours, theirs))
        axes.margins(x=0.02)
        missing = not any(name == panel.name for name, _ in ours)
        axes.set_title(panel.title + (" (no run of ours)" if missing else ""), fontsize=11)
        axes.set_xlabel(panel.x_label)
        axes.set_ylabel(panel.label)
        axes.grid(True, color="#e0e0e0", linewidth=0.6)
    names = sorted(lines, key=lambda name: name.endswith(", paper"))
    figure.legend(
        [lines[name] for name in names],
        names,
        loc="outside lower center",
        ncols=3 * columns if columns > 1 else 2,  # long names of many curves
        fontsize=8,
        frameon=False,
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def draw_curve(axes, curve, panel, who: str, colour: str, marker: str):
    """Draws the mean line, and the band from the lowest to the highest lane."""
    ours = who == "ours"
    low, high = panel.times * curve.lanes.min(0), panel.times * curve.lanes.max(0)
    axes.fill_between(curve.x, low, high, color=colour, alpha=0.22 if ours else 0.10, linewidth=0)
    if (
        ours
    ):  # the lanes themselves: a mean over runs of which one has not fallen yet hides the rest
        axes.plot(curve.x, panel.times * curve.lanes.T, color=colour, alpha=0.5, linewidth=0.6)
    (line,) = axes.plot(
        curve.x,
        panel.times * curve.mean,
        color=colour,
        alpha=1.0 if ours else 0.5,
        linestyle="-" if ours else (0, (4, 2)),
        linewidth=1.8 if ours else 1.2,
        marker=marker,
        markersize=4.5,
        markerfacecolor=colour if ours else "white",
        markevery=marked(curve, panel),
        zorder=3 if ours else 2,
    )
    return line


def marked(curve, panel) -> list[int]:
    """The readings with a marker: few, and evenly along the x axis however noisy the curve."""
    import numpy as np

    if panel.x_log:
        places = np.geomspace(curve.x[curve.x > 0][0], curve.x[-1], 8)
    else:
        places = np.linspace(curve.x[0], curve.x[-1], 8)
    return np.unique(np.searchsorted(curve.x, places)).tolist()


def is_short(panel, ours: dict, theirs: dict) -> bool:
    """Whether our runs end before a fifth of the paper's: a streak on a linear axis."""
    ends = [
        max((curve.x[-1] for (name, _), curve in curves.items() if name == panel.name), default=0)
        for curves in (ours, theirs)
    ]
    return 0 < ends[0] < 0.2 * ends[1]


def y_limits(panel, ours: dict, theirs: dict) -> tuple[float, float]:
    """The panel's limits, widened: on a log axis to all lines, else to most of ours.

    A linear axis cuts off the worst tenth (the start, and spikes), as the paper's does.
    """
    import numpy as np

    low, high = panel.limits
    for (name, _), curve in [*ours.items(), *(theirs.items() if panel.log else ())]:
        values = panel.times * curve.mean
        values = values[np.isfinite(values) & ((values > 0) | (not panel.log))]
        if name == panel.name and len(values):
            most = (0.0, 0.9) if panel.falling else (0.1, 1.0)
            ends = np.quantile(values, (0, 1) if panel.log else most)
            low, high = min(low, ends[0]), max(high, ends[1])
    return (low / 2, high * 2) if panel.log else (low, high + 0.02 * (high - low))


def table(panel, ours: dict, theirs: dict) -> dict:
    """Ours beside the paper's, at the panel's landmarks and in its summaries."""
    norms = styles_of(dict.fromkeys(norm for name, norm in [*ours, *theirs] if name == panel.name))
    labels = [f"{panel.x_label} {x:g}" for x in panel.landmarks]
    for name, count in panel.summaries:
        labels.append(f"{name} of last {count}" if count else f"{name} of all")
    labels += [f"first {panel.x_label} at {panel.times * level:g}" for level in panel.levels]
    head, columns = [], []
    for norm, (name, *_) in norms.items():
        curve, paper = ours.get((panel.name, norm)), theirs.get((panel.name, norm))
        if paper is not None:  # the edges of its band are no seeds
            paper = dataclasses.replace(paper, lanes=paper.mean[None])
        head += [
            f"{name}: ours" + (f", seeds:\N{NO-BREAK SPACE}{len(curve.lanes)}" if curve else ""),
            f"{name}: paper",
        ]
        columns += [cells(c, panel) if c else ["–"] * len(labels) for c in (curve, paper)]
    rows = list(zip(labels, *columns, strict=True))
    return dict(title=f"{panel.label}, {panel.title}", head=head, rows=rows)


def cells(curve, panel) -> list[str]:
    """One column of a table: a curve at the landmarks and in the summaries of its panel."""
    values = [curve.at(x) for x in panel.landmarks]
    values += [curve.last(name, count) for name, count in panel.summaries]
    found = [number(panel.times * lanes, panel.digits) for lanes in values]
    return found + [first(curve, level, panel.falling) for level in panel.levels]


def first(curve, level: float, falling: bool) -> str:
    """Where each lane first reaches a level, such as "36, 41, never"; "…" where it still may."""
    never = "never" if curve.complete else "…"
    return ", ".join(never if x != x else f"{x:g}" for x in curve.first(level, falling))


def number(lanes, digits: str) -> str:
    """The mean over lanes ``[L]`` and, of two or more, the standard deviation; "–" of none."""
    if not len(lanes):
        return "–"
    spread = f" ± {lanes.std(ddof=1):{digits}}" if len(lanes) > 1 else ""
    return f"{lanes.mean():{digits}}{spread}".replace("e-0", "e-")


def numbers_of(section: Section, table: dict) -> tuple[dict, dict]:
    """The numbers of a table as curves of one reading, (column, norm) -> curve: ours, each lane's
    at its best step by config.select, and the paper's."""
    import numpy as np

    from experiments import curves

    columns = [curves.Column(**column) for column in table["columns"]]
    ours, theirs = {}, {}
    for norm, runs in groups_of(section, {}):
        rows, select = [row for run in runs for row in run.rows], runs[0].config["select"]
        for column in columns:
            curve = curves.at_best(rows, select, column, all(run.finished for run in runs))
            if curve is not None:
                ours[column.name, norm] = curve
    for row in table["rows"]:
        for column, value in zip(columns, row["values"], strict=True):
            if row["norm"] is not None and value is not None:
                theirs[column.name, row["norm"]] = curves.Curve(np.zeros(1), np.array([[value]]))
    return ours, theirs


def rows_of(table: dict, ours: dict) -> list[dict]:
    """A table of TABLES as it is shown: the paper's rows, then one for each norm of ours."""
    found = [
        dict(
            model=row["model"],
            paper=True,
            seeds="",
            step="",
            cells=[
                "–" if value is None else f"{value:{column['digits']}}"
                for column, value in zip(table["columns"], row["values"], strict=True)
            ],
        )
        for row in table["rows"]
    ]
    for norm, (name, *_) in styles_of(dict.fromkeys(norm for _, norm in ours)).items():
        curves = [ours.get((column["name"], norm)) for column in table["columns"]]
        (first, *_) = (curve for curve in curves if curve)
        found.append(
            dict(
                model=f"ours, {name}" + ("" if first.complete else ", not finished"),
                paper=False,
                seeds=str(len(first.lanes)),
                step=f"{first.x[0]:,.0f}",
                cells=[
                    number(curve.lanes[:, 0], column["digits"]) if curve else "–"
                    for column, curve in zip(table["columns"], curves, strict=True)
                ],
            )
        )
    return found


def evaluations(section: Section) -> list[tuple]:
    """What was estimated of trained models, one row each: norm, seed, step, split, metric, samples,
    value with its error, cases. The scores beside the estimates are those of training, again."""
    from experiments import curves

    keys = ("seed", "step", "split", "metric", "samples")
    found = []
    for norm, (name, *_) in styles_of([run.config["norm"] for run in section.runs]).items():
        rows = [r for run in section.runs if run.config["norm"] == norm for r in run.evaluations]
        estimates = [row for row in rows if "samples" in row]
        for row in sorted(estimates, key=lambda row: [row[key] for key in keys]):
            value, error = row["value"], row["error"]  # of a single case there is no error
            text = f"{value:.2f}" if error is None else str(curves.Estimate(value, error))
            found.append((name, *(row[key] for key in keys), text, f"{row['cases']:,}"))
    return found


def decide(section: Section, ours: dict, theirs: dict) -> list[dict]:
    """The claims of an experiment by its runs, and by the same rule on the published curves."""
    rules = importlib.import_module(f"experiments.{section.experiment}")
    found = []
    for claim in getattr(importlib.import_module(f"configs.{section.experiment}"), "CLAIMS", ()):
        rule = getattr(rules, claim["rule"])
        found.append(dict(claim, rule=rule_of(rule), ours=rule(ours), paper=rule(theirs)))
    return found


def rule_of(function) -> str:
    return " ".join(inspect.getdoc(function).split())


class Gathered(NamedTuple):
    """What the runs of a section and the paper have to say.

    Attributes:
        figures: those of FIGURES that there is something of, with their panels, and ours and
            theirs, (panel, norm) -> curve.
        tables: those of TABLES, with their rows.
        ours, theirs: all curves, (panel or column, norm) -> curve.
    """

    figures: list[dict]
    tables: list[dict]
    ours: dict
    theirs: dict


def gather(section: Section) -> Gathered:
    from experiments import curves

    config_file = importlib.import_module(f"configs.{section.experiment}")
    found = Gathered([], [], {}, {})
    for entry in config_file.FIGURES:
        panels = [curves.Panel(**panel) for panel in entry["panels"]]
        theirs = curves.published(PUBLISHED / f"{entry['name']}.csv") if entry["source"] else {}
        ours = dict(item for panel in panels for item in curves_of(section, panel))
        if theirs or ours:  # else a figure of ours alone, of which these runs have nothing
            found.figures.append(dict(entry, panels=panels, ours=ours, theirs=theirs))
            found.ours.update(ours)
            found.theirs.update(theirs)
    for entry in getattr(config_file, "TABLES", ()):
        ours, theirs = numbers_of(section, entry)
        found.tables.append(dict(entry, rows=rows_of(entry, ours)))
        found.ours.update(ours)
        found.theirs.update(theirs)
    if hasattr(config_file, "SPEED"):
        found.ours.update(seconds(**config_file.SPEED))
    return found


def seconds(name: str, case: str, peers: dict[str, str]) -> dict:
    """The times of training steps by results/speed/<name>.json, ("seconds", norm) -> a curve with a
    lane for each round; peers: norm -> its name there."""
    import numpy as np

    from experiments import curves

    path = SPEED / f"{name}.json"
    measured = json.loads(path.read_text())["cases"][case]["peers"] if path.is_file() else {}
    return {
        ("seconds", norm): curves.Curve(
            np.zeros(1), np.array(measured[peer]["seconds_per_step"])[:, None]
        )
        for norm, peer in peers.items()
        if peer in measured
    }


def report(section: Section, slug: str) -> tuple[dict, dict[str, bytes]]:
    """What the template shows of a section, and its pictures by file name."""
    found, pictures, figures = gather(section), {}, []
    for figure in found.figures:
        panels, curves = figure["panels"], (figure["ours"], figure["theirs"])
        file = f"{slug}-{figure['name']}.png"
        pictures[file] = draw(panels, figure["columns"], *curves)
        embedded = [  # one by one, so that a phone shows them below each other
            (
                f"{panel.label}, {panel.title}",
                base64.b64encode(draw([panel], 1, *curves)).decode(),
            )
            for panel in panels
        ]
        tables = [table(panel, *curves) for panel in panels]
        figures.append(dict(figure, file=file, pictures=embedded, tables=tables))
    shown = dict(
        section=section,
        slug=slug,
        figures=figures,
        tables=found.tables,
        evaluations=evaluations(section),
        claims=decide(section, found.ours, found.theirs),
        summary=summary(section, found),
    )
    return shown, pictures


def main_panel(section: Section, found: Gathered):
    """The panel that sums a section up: that of the config's MAIN, or the first one with curves."""
    from experiments import curves

    config_file = importlib.import_module(f"configs.{section.experiment}")
    panels = [curves.Panel(**panel) for entry in config_file.FIGURES for panel in entry["panels"]]
    name = getattr(config_file, "MAIN", {}).get("panel", panels[0].name)
    drawn = {panel for panel, _ in found.ours or found.theirs}
    order = sorted(panels, key=lambda panel: (panel.name not in drawn, panel.name != name))
    return order[0]


def summary(section: Section, found: Gathered) -> dict:
    """A line of the table at the top: the first summary of the main panel, ours and the paper's."""
    panel = main_panel(section, found)
    ours = [curve for (where, _), curve in found.ours.items() if where == panel.name]
    name, count = next(  # a short run may have fewer readings than a summary is of
        (of for of in panel.summaries if all(len(curve.last(*of)) for curve in ours)),
        ("median", 1),
    )

    def values(curves: dict) -> str:
        norms = [norm for where, norm in curves if where == panel.name]
        lines = []
        for norm, (label, *_) in styles_of(dict.fromkeys(norms)).items():
            curve = curves[panel.name, norm]
            if curves is found.theirs:
                curve = dataclasses.replace(curve, lanes=curve.mean[None])
            lines.append(f"{label} {number(panel.times * curve.last(name, count), panel.digits)}")
        return "; ".join(lines) or "–"

    what = f"{name} of last {count}" if count else f"{name} of all"
    return dict(
        what=f"{panel.title}: {panel.label}, {what}",
        ours=values(found.ours),
        paper=values(found.theirs),
    )


# --- Claims ---


def gains(gathered: list[tuple[Section, Gathered]], paper: bool) -> list:
    """How much faster layer norm is, an `across.Gain` for each experiment that tells: of its sets
    of runs by the one nearest to the paper's setting, whatever the names of their folders."""
    import numpy as np

    from experiments import across, curves

    gained = {}
    for section, found in sorted(gathered, key=lambda pair: len(pair[0].changes)):
        config_file = importlib.import_module(f"configs.{section.experiment}")
        if not hasattr(config_file, "MAIN") or section.experiment in gained:
            continue
        panel = main_panel(section, found._replace(ours={}) if paper else found)
        pair = [(found.theirs if paper else found.ours).get((panel.name, n)) for n in PAIR]
        if any(curve is None or not curve.complete for curve in pair):
            continue
        factors = curves.Pace.of(*pair, panel.falling).factors
        config = config_file.get_config("paper") if paper else section.runs[0].config
        gained[section.experiment] = across.Gain(
            section.experiment,
            config_file.MAIN["length"],
            config["batch_size"],
            float(np.median(factors)),
        )
    return list(gained.values())


def entries(root: Path | None) -> dict[int, list[dict]]:
    """number -> what was found of a claim, by the analysis or by sets of runs below root."""
    from experiments import across, theory

    found: dict[int, list[dict]] = {}

    def add(claim: dict, where: str, command: str) -> None:
        found.setdefault(claim["number"], []).append(dict(claim, where=where, command=command))

    for function in theory.DEMONSTRATIONS:
        shown = function(theory.SEED)
        for claim in shown.claims:
            if claim.number is not None:
                row = dict(number=claim.number, text=claim.text, source=claim.source)
                row |= dict(rule=shown.rule, ours=claim.verdict, paper=None)
                add(row, "the analysis", "python -m scripts.report --theory")
    sections = [] if root is None else read_sections(root)
    gathered = [(section, gather(section)) for section in sections]
    for section, one in gathered:
        for claim in decide(section, one.ours, one.theirs):
            folders = sorted({run.folder.parent.as_posix() for run in section.runs})
            where = f"{section.title} ({', '.join(folders)}; {section.setting})"
            add(claim, where, f"python -m scripts.sweep --config=configs/{section.experiment}.py")
    tested = {section.experiment for section in sections}
    empty = []
    for name in experiments_with_claims():
        if name not in tested:
            section = Section(name, "paper", [], [])
            one = gather(section)
            empty.append((section, one))
            for claim in decide(section, one.ours, one.theirs):
                add(claim, "no runs here", f"python -m scripts.sweep --config=configs/{name}.py")
    (claim,) = across.CLAIMS
    paper = across.claim_29(gains(gathered + empty, paper=True))
    verdict = across.claim_29(gains(gathered, paper=False))
    row = dict(claim, rule=rule_of(across.claim_29), ours=verdict, paper=paper)
    where = "all runs here" if sections else "no runs here"
    add(row, where, "python -m scripts.reproduce")
    return dict(sorted(found.items()))


def experiments_with_claims() -> list[str]:
    folder = Path(__file__).resolve().parent.parent / "configs"
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    return [n for n in names if hasattr(importlib.import_module(f"configs.{n}"), "CLAIMS")]


def overall(words: list[str]) -> str:
    """One word for several tests of a claim: contradicted where any of them contradicts it, else
    the best that any of them found."""
    from experiments.curves import CONFIRMED, CONTRADICTED, NOT_DECIDED, NOT_TESTED

    return next(w for w in (CONTRADICTED, CONFIRMED, NOT_DECIDED, NOT_TESTED) if w in words)


def claims_page(root: Path) -> tuple[dict, dict[str, bytes]]:
    """What the template shows of all claims; there are no pictures."""
    from ln import runs

    has_runs = root.is_dir() and next(iter(runs.find(root)), None) is not None
    found = entries(root if has_runs else None)
    claims = []
    for number, rows in found.items():
        verdict = overall([row["ours"].word for row in rows])
        text = next(row["text"] for row in rows if row["ours"].word == verdict)
        claims.append(dict(number=number, verdict=verdict, text=text, rows=rows))
    count = collections.Counter(claim["verdict"] for claim in claims)
    return dict(claims=claims, count=count, root=root.as_posix() if has_runs else None), {}


def draw_panels(panels, columns: int) -> bytes:
    """Draws panels of experiments/theory.py; returns a PNG."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows), dpi=150, layout="constrained")
    for n, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, n)
        axes.set_title(panel.title, fontsize=11)
        if panel.matrix is None:
            draw_lines(axes, panel)
        else:
            draw_matrix(axes, panel)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def draw_lines(axes, panel) -> None:
    from matplotlib import colormaps

    for n, line in enumerate(panel.lines):
        if line.style in STYLES:
            _, colour, marker = STYLES[line.style]
        else:  # ordered: from dark to light, without the palest
            colour, marker = colormaps["viridis"](0.9 * line.style), "osD^vPX"[n % 7]
        axes.plot(
            range(len(line.y)) if line.x is None else line.x,
            line.y,
            color=colour,
            linewidth=1.5,
            marker=marker,
            markersize=4.5,
            markevery=(0.03 * n, 0.15),  # so that lines on top of each other can be told apart
            label=line.name,
        )
    axes.set_yscale("log" if panel.y_log else "linear")
    axes.set_ylim(panel.y_limits)
    if panel.x_log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.grid(True, color="#e0e0e0", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)


def draw_matrix(axes, panel) -> None:
    """Draws a picture of a matrix, with lines between the blocks of the units."""
    size = len(panel.matrix)
    axes.imshow(panel.matrix, cmap="RdBu_r", vmin=-panel.limit, vmax=panel.limit)
    for n in range(1, panel.blocks):
        edge = n * size / panel.blocks - 0.5
        axes.axhline(edge, color="#4d4d4d", linewidth=0.6)
        axes.axvline(edge, color="#4d4d4d", linewidth=0.6)
    centres = [(n + 0.5) * size / panel.blocks - 0.5 for n in range(panel.blocks)]
    names = [f"unit {n + 1}" for n in range(panel.blocks)]
    axes.set_xticks(centres, names, fontsize=8)
    axes.set_yticks(centres, names, fontsize=8, rotation=90, va="center")
    axes.tick_params(length=0)


def theory_page() -> tuple[dict, dict[str, bytes]]:
    """What the template shows of section 5, and its pictures by file name."""
    from experiments import theory

    shown, pictures = [], {}
    for function in theory.DEMONSTRATIONS:
        found, name = function(theory.SEED), function.__name__
        if found.panels:
            pictures[f"{name}.png"] = draw_panels(found.panels, found.columns)
        embedded = [
            (panel.title, base64.b64encode(draw_panels([panel], 1)).decode())
            for panel in found.panels
        ]
        shown.append(dict(name=name, demonstration=found, pictures=embedded))
    return dict(shown=shown, seed=theory.SEED), pictures


def report_page(root: Path) -> tuple[dict, dict[str, bytes]]:
    """What the template shows of all runs below root, and its pictures by file name."""
    sections, pictures = [], {}
    for n, section in enumerate(read_sections(root), start=1):
        shown, drawn = report(section, f"{n}-{section.experiment}-{section.scale}")
        sections.append(shown)
        pictures |= drawn
    return dict(sections=sections, root=root.as_posix()), pictures


def main(_):
    import jinja2

    from ln import runs

    if THEORY.value and CLAIMS.value:
        raise InputError("Give one of --theory and --claims.")
    kind = "theory" if THEORY.value else "claims" if CLAIMS.value else "report"
    out = Path(OUT.value or ("report" if kind == "report" else f"report/{kind}"))
    page = out / "index.html"
    if out.exists() and not out.is_dir():
        raise InputError(f"--out={out} is a file. Give a folder.")
    if page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f"{page} is no page of this command. Choose another --out.")
    make = dict(theory=lambda _: theory_page(), claims=claims_page, report=report_page)[kind]
    shown, pictures = make(Path(RUNS.value))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(f"{kind}.html").render(
        **shown,
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        mark=MARK,
    )
    out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        runs.write_atomically(out / name, picture)
    runs.write_atomically(page, text)
    print(f"The report: {page}")


if __name__ == "__main__":
    cli.run(main)
