"""Layer norm's speed-up over no norm: a line for each set of runs, and the figures of all lines."""

from collections.abc import Iterable, Mapping
import dataclasses
import functools
import math
from pathlib import Path
import tomllib

from matplotlib.figure import Figure
import numpy as np

from experiments import datasets, rules
from experiments.claims import CLAIMS
from experiments.curves import Panel
from experiments.pictures import png
from experiments.rules import Gains, Part, Row
from scripts.pages.claims import panels_of
from scripts.pages.drawing import GRID, STYLES
from scripts.pages.sections import RESULTS, Curves, Gathered, Section, Shown, gather, papers_of
from scripts.pages.sections import read_sections

NORM, BASELINE = "layer", "none"
FACTORS = 0.5, 0.7, 1, 1.5, 2, 3, 5, 8, 12  # that are marked on axes
SPEEDS = "updates without norm / updates with layer norm"


@dataclasses.dataclass
class Study:
    """Runs with the same settings; norms, seeds and learning rates apart.

    Attributes:
        sections: learning rate -> its runs.
        searched: folder -> the rates of all runs in it, also of shorter ones.
    """

    sections: dict[float, Section]
    searched: Mapping[str, set[float]]

    @functools.cached_property
    def curves(self) -> dict[float, Gathered]:
        return {rate: gather(section) for rate, section in self.sections.items()}

    @property
    def section(self) -> Section:
        """Return the runs of any rate, for what does not depend on it."""
        return next(iter(self.sections.values()))

    @property
    def theirs(self) -> Curves:
        return self.curves[min(self.sections)].theirs

    @property
    def is_full(self) -> bool:
        """Return whether the runs have the paper's data, size and length."""
        return self.section.scale == "paper" and not rules.changed(self.section.changes)

    @functools.cached_property
    def title_and_panel(self) -> tuple[str, Panel]:
        """Return the first panel in which a rate has finished curves of both norms."""
        panels = [(figure.title, panel) for figure in self.section.figures for panel in figure.panels]
        ours = [curves.ours for curves in self.curves.values()]
        return next((pair for pair in panels if any(has_both(pair[1], c) for c in ours)), panels[0])

    @property
    def title(self) -> str:
        return self.title_and_panel[0]

    @property
    def panel(self) -> Panel:
        return self.title_and_panel[1]

    @property
    def end_panel(self) -> Panel:
        """Return the panel of the end: that of the test set if the first is of the training set."""
        panels = [panel for figure in self.section.figures for panel in figure.panels]
        test = [p for p in panels if p.split == "test" and p.where == self.panel.where]
        return test[0] if self.panel.split == "train" and test else self.panel

    def gains(self, part: Part, rate: float, baseline_rate: float) -> Gains | None:
        """Return the gains of layer norm at a rate over no norm at a rate; None without pairs."""
        curves = {k: c for k, c in self.curves[rate].ours.items() if k[1] == NORM}
        curves |= {k: c for k, c in self.curves[baseline_rate].ours.items() if k[1] == BASELINE}
        gains = rules.measure(part, curves, panels_of(self.section))
        return gains if gains and gains.seeds else None

    @functools.cached_property
    def by_rate(self) -> dict[float, Gains]:
        """Return rate -> the speed-up of layer norm over no norm, both at this rate."""
        gains = {rate: self.gains(faster(self.panel), rate, rate) for rate in sorted(self.sections)}
        return {rate: gain for rate, gain in gains.items() if gain}

    @property
    def rate(self) -> float:
        """Return the rate with the most pairs; of several, that nearest to the config's."""
        (given, *_) = np.atleast_1d(papers_of(self.section.experiment)[0]["lr"])
        return max(
            self.by_rate,
            key=lambda rate: (len(self.by_rate[rate].seeds), -abs(math.log(rate / given))),
        )

    def speed_up(self, gains: Gains) -> str:
        return cell(rules.in_words(faster(self.panel), gains, panels_of(self.section)))

    @property
    def is_tuned(self) -> bool:
        """Return whether runs in the same folder have compared rates."""
        return any(len(self.searched[folder]) > 1 for folder in self.sections[self.rate].folders)

    def best_rate(self, norm: str) -> float:
        """Return a norm's best rate by config.select, of those with the most remaining lanes."""

        def order(rate: float) -> tuple[int, float]:
            shown = self.sections[rate].series(self.panel.where).get(norm)
            best = shown and shown.stored.finished and shown.stored.best(shown.lanes)
            return (-len(shown.lanes), shown.stored.sign * best[1]) if best else (0, math.inf)

        return min(sorted(self.sections), key=order)


def has_both(panel: Panel, curves: Curves) -> bool:
    pair = [curves.get((panel.name, norm)) for norm in (NORM, BASELINE)]
    return all(curve is not None and curve.complete for curve in pair)


def faster(panel: Panel) -> Part:
    return Part(rules.faster, (panel.name, NORM), (panel.name, BASELINE))


def better(panel: Panel) -> Part:
    return Part(rules.better, (panel.name, NORM), (panel.name, BASELINE))


# --- From runs to studies ---


def studies(sections: Iterable[Section]) -> list[Study]:
    """Return the studies of sections. Of two folders with the same setting, the larger counts."""
    groups: dict[tuple, dict[float, dict[Path, Section]]] = {}
    searched: dict[str, set[float]] = {}
    for section in sections:
        changes = without_rates(section.changes)
        for part in (part for shown in section.runs for part in rates_of(shown)):
            folder = part.stored.folder.parent
            searched.setdefault(folder.as_posix(), set()).add(part.lr)
            one_order = part.stored.config.get("data_seed", 0) >= 0
            key = section.experiment, section.scale, one_order, *changes
            folders = groups.setdefault(key, {}).setdefault(part.lr, {})
            empty = Section(section.experiment, section.scale, changes, [], section.mark)
            folders.setdefault(folder, empty).runs.append(part)
    return [
        Study({rate: max(folders.values(), key=size) for rate, folders in rates.items()}, searched)
        for rates in groups.values()
    ]


def size(section: Section) -> int:
    return sum(len(shown.lanes) for shown in section.runs)


def without_rates(changes: list[str]) -> list[str]:
    """Return changes without those of the rate, and of how often a run was evaluated."""
    return [text for text in changes if text.partition(":")[0] not in ("lr", "eval_every")]


def rates_of(shown: Shown) -> list[Shown]:
    """Return a run once for each of its learning rates, with the lanes of this rate."""
    changes = without_rates(shown.changes)
    healthy = [lane for lane in shown.stored.lanes if lane not in shown.stored.diverged]
    return [
        Shown(shown.stored, rate, [lane for lane in healthy if lane[1] == rate], changes)
        for rate in map(float, shown.stored.config["lr"])
    ]


def of_results(root: Path = RESULTS) -> list[Study]:
    """Return the study with the best evidence of each experiment of the paper, in its order."""
    chosen: dict[str, Study] = {}
    tested = {claim.experiment for claim in CLAIMS if not claim.is_trend}
    for study in studies(read_sections(root, apart=True)[0]):
        name = study.section.experiment
        if name in tested and study.by_rate:
            chosen[name] = max(chosen.get(name, study), study, key=strength)
    return sorted(chosen.values(), key=lambda study: study.section.place)


def strength(study: Study) -> tuple:
    return study.is_full, len(study.by_rate[study.rate].seeds), -len(study.section.changes)


# --- From studies to lines ---


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the table and of the figure of speed-ups.

    Attributes:
        share: of the paper's updates; None if the paper does not say how many it made.
        rate: of both norms in `ours`.
        best: the speed-up with each norm at its best rate; None if only one rate was run.
    """

    study: Study
    data: str
    share: float | None
    rate: float
    ours: Gains
    best: Gains | None
    paper: Gains | None
    end: Gains | None
    paper_end: Gains | None

    def row(self, gains: Gains | None, part: Part) -> Row | None:
        return gains and rules.in_words(part, gains, panels_of(self.study.section))

    @property
    def cells(self) -> list[str]:
        """Return the speed-ups of the paper, at one rate and at the best, and both ends."""
        speed, end = faster(self.study.panel), better(self.study.end_panel)
        best = cell(self.row(self.best, speed)) if self.best else "not run"
        paper, paper_end = self.row(self.paper, speed), self.row(self.paper_end, end)
        return [
            paper.estimate if paper else "–",
            cell(self.row(self.ours, speed)),
            best,
            paper_end.estimate if paper_end else "–",
            cell(self.row(self.end, end)),
        ]

    @property
    def setting(self) -> str:
        size = "the paper’s setting" if self.study.is_full else "reduced"
        if self.share is None or self.study.is_full:
            return f"{self.data}, {size}"
        return f"{self.data}, {size}, {float(f'{100 * self.share:.2g}'):g} % of the updates"


HEAD = (
    *("experiment", "data, share of the paper’s updates", "speed-up: paper", "ours, at one rate"),
    *("ours, each norm at its best", "end: paper", "ours", "end of"),
)


def cell(row: Row | None) -> str:
    """Return "1.52 × [1.30, 1.77], 5 pairs"; fewer pairs than three have no interval."""
    if row is None:
        return "–"
    span = "" if row.interval == "–" else f" {row.interval}"
    return f"{row.estimate}{span}, {row.pairs} pair{'s' if row.pairs > 1 else ''}"


def line_of(study: Study) -> Line:
    speed, end, rate = faster(study.panel), better(study.end_panel), study.rate
    panels = panels_of(study.section)
    tuned = study.best_rate(NORM), study.best_rate(BASELINE)
    theirs = {
        key: dataclasses.replace(curve, lanes=curve.mean[None])
        for key, curve in study.theirs.items()
    }
    return Line(
        study,
        data_of(study.section),
        share_of(study.section),
        rate,
        study.by_rate[rate],
        study.gains(speed, *tuned) if study.is_tuned else None,
        rules.measure(speed, theirs, panels),
        study.gains(end, rate, rate),
        rules.measure(end, theirs, panels),
    )


def data_of(section: Section) -> str:
    """Return the name of the data: as results/data.toml says, else that of the config."""
    path = section.runs[0].stored.folder.parent.resolve()
    named = tomllib.loads((RESULTS / "data.toml").read_text(encoding="utf-8"))
    name = section.runs[0].stored.config["dataset"]
    row = datasets.table().get(name)
    title = row.title + (" (stand-in)" if row.stands_for else "") if row else name
    return next((name for place, name in named.items() if path == RESULTS / place), title)


def share_of(section: Section) -> float | None:
    """Return the length of runs in the paper's; None if it has none or another unit."""
    paper, ours = papers_of(section.experiment)[0]["steps"], section.runs[0].stored.config["steps"]
    (count, unit), (planned, paper_unit) = ours.split(), paper.split()
    known = any(figure.source for figure in section.figures) and unit == paper_unit
    return float(count) / float(planned) if known else None


# --- Figures ---


def draw_speeds(lines: list[Line]) -> bytes:
    """Return the speed-up of each line with its interval, beside the paper's, as a PNG."""
    figure = Figure(figsize=(9.2, 0.9 + 0.62 * len(lines)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    colour = STYLES[NORM][1]
    for y, line in enumerate(lines):
        fill = colour if line.study.is_full else "white"
        draw_gains(axes, line.ours, y, dict(color=colour, marker="o", markerfacecolor=fill))
        if line.best:
            draw_gains(axes, line.best, y + 0.24, dict(color="#009e73", marker="s", markerfacecolor="white"))
        if line.paper:
            draw_gains(axes, line.paper, y - 0.24, dict(color="#d55e00", marker="D"))
    names = [f"{line.study.title}\n{line.setting}" for line in lines]
    axes.set_yticks(range(len(lines)), names, fontsize=9)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xticks(FACTORS, [f"{factor:g}" for factor in FACTORS])
    axes.margins(x=0.08)
    axes.minorticks_off()
    axes.axvline(1, color="#222222", linewidth=0.8)
    axes.grid(True, axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(SPEEDS)
    marks = [
        ("the paper", dict(color="#d55e00", marker="D")),
        ("ours, one learning rate", dict(color=colour, marker="o", markerfacecolor="white")),
        ("the same at the paper’s scale", dict(color=colour, marker="o")),
        ("ours, each norm at its best rate", dict(color="#009e73", marker="s", markerfacecolor="white")),
    ]
    for name, style in marks:
        axes.plot([], [], linestyle="", label=name, **style)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return png(figure)


def draw_gains(axes, gains: Gains, y: float, style: dict) -> None:
    """Draw a factor with its interval; of two pairs without one, dots; an arrow shows a bound."""
    mean, color = math.exp(gains.values.mean()), style["color"]
    if len(gains.seeds) >= rules.LEAST:
        axes.plot(np.exp(rules.interval(gains.values)), [y, y], color=color, linewidth=1.6)
    elif len(gains.seeds) == 2:
        axes.plot(np.exp(gains.values), [y, y], "|", color=color, markersize=7, alpha=0.8)
    if gains.bounds.any():
        arrow = dict(arrowstyle="->", color=color)
        axes.annotate("", (mean * 1.25, y), (mean, y), arrowprops=arrow)
    axes.plot(mean, y, markersize=7, zorder=3, **style)


def draw_rates(studied: list[Study]) -> bytes:
    """Return the speed-up against the learning rate, of studies with several, as a PNG."""
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    styles = zip(("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"), "oD^svP")
    for study, (color, marker) in zip(studied, styles, strict=False):
        for rate, gains in study.by_rate.items():
            dots = [rate] * len(gains.values)
            axes.plot(dots, np.exp(gains.values), marker, color=color, markersize=4, alpha=0.5)
        means = [math.exp(gains.values.mean()) for gains in study.by_rate.values()]
        label = f"{study.title} ({data_of(study.section)})"
        axes.plot(list(study.by_rate), means, color=color, marker=marker, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    rates = sorted({rate for study in studied for rate in study.by_rate})
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_yticks(FACTORS, [f"{factor:g}" for factor in FACTORS])
    axes.set_ylim(0.45, 3.2)
    axes.minorticks_off()
    axes.axhline(1, color="#222222", linewidth=0.8)
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_xlabel("learning rate of both norms")
    axes.set_ylabel("speed-up of layer norm")
    axes.legend(fontsize=8, frameon=False)
    return png(figure)
