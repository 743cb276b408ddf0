"""Layer norm's speed-up over no norm: the lines of a table, and two figures of them."""

import collections
from collections.abc import Callable, Iterable
import copy
import dataclasses
import functools
import math
import tomllib

import numpy as np

from experiments import datasets, rules
from experiments.claims import CLAIMS, against
from experiments.curves import Panel
from experiments.rules import Gains, Part
from scripts.pages import charts, sections
from scripts.pages.charts import PAPER, SPECS, Chart
from scripts.pages.claims import panels_of
from scripts.pages.sections import RESULTS, Gathered, Section, gather, papers_of
from scripts.pages.tables import as_line

NORM, BASELINE = "layer", "none"
HEAD = ["experiment", "data, share of the paper’s updates", "speed-up: paper", "ours, at one rate"]
HEAD += ["ours, each norm at its best", "end: paper", "end: ours", "end of"]
RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]  # ticks of learning rates


@dataclasses.dataclass
class Study:
    """Runs of a folder with the same settings, norms and learning rates apart.

    Attributes:
        sections: learning rate -> its runs.
        tuned: whether rates were compared in the folder, here or in runs of another length.
    """

    sections: dict[float, Section]
    tuned: bool = False

    @property
    def section(self) -> Section:
        """Return the runs of any rate, for what does not depend on it."""
        return next(iter(self.sections.values()))

    @functools.cached_property
    def curves(self) -> dict[float, Gathered]:
        """Return the curves at each rate."""
        return {rate: gather(section) for rate, section in self.sections.items()}

    @functools.cached_property
    def panel(self) -> Panel:
        """Return the first panel with finished curves of both norms."""
        panels, curves = list(self.section.panels.values()), self.curves.values()
        known = {key for both in curves for key, curve in both.ours.items() if curve.complete}
        both = (p for p in panels if {(p.name, NORM), (p.name, BASELINE)} <= known)
        return next(both, panels[0])

    @property
    def end_panel(self) -> Panel:
        """Return the panel of the end: of the test set if the first is of the training set."""
        panels, first = self.section.panels.values(), self.panel
        test = (p for p in panels if p.split == "test" and p.where == first.where)
        return next(test, first) if first.split == "train" else first

    @property
    def title(self) -> str:
        """Return the title of the figure."""
        return next(f.title for f in self.section.figures if self.panel in f.panels)

    @property
    def faster(self) -> Part:
        """Return the comparison of how fast the two norms are."""
        return against(rules.faster, self.panel.name, NORM, BASELINE)

    @property
    def better(self) -> Part:
        """Return the comparison of the ends of the two norms."""
        return against(rules.better, self.end_panel.name, NORM, BASELINE)

    def gains(self, part: Part, rate: float, baseline_rate: float) -> Gains | None:
        """Return the gains of layer norm at a rate over no norm at another; None without pairs."""
        both = ((NORM, self.curves[rate]), (BASELINE, self.curves[baseline_rate]))
        curves = {key: c for norm, at in both for key, c in at.ours.items() if key[1] == norm}
        gains = rules.measure(part, curves, panels_of(self.section))
        return gains if gains and gains.seeds else None

    @functools.cached_property
    def by_rate(self) -> dict[float, Gains]:
        """Return rate -> the speed-up with both norms at this rate."""
        rates = sorted(self.sections)
        return {rate: gain for rate in rates if (gain := self.gains(self.faster, rate, rate))}

    @property
    def measured(self) -> dict[float, Gains]:
        """Return the speed-ups of two pairs or more that are more than bounds."""
        known = self.by_rate.items()
        return {rate: g for rate, g in known if len(g.seeds) > 1 and not g.bounds.all()}

    @property
    def rate(self) -> float:
        """Return the rate with the most pairs; of several, that nearest to the config's."""
        (given, *_) = papers_of(self.section.experiment)[0]["lr"]
        pairs = {rate: len(gains.seeds) for rate, gains in self.by_rate.items()}
        return max(pairs, key=lambda rate: (pairs[rate], -abs(math.log(rate / given))))

    @property
    def at_best(self) -> Gains | None:
        """Return the speed-up with each norm at its best rate; None if only one rate was run."""
        rates = self.best_rate(NORM), self.best_rate(BASELINE)
        return self.gains(self.faster, *rates) if self.tuned else None

    def best_rate(self, norm: str) -> float:
        """Return a norm's best rate by config.select.

        Rates with fewer lanes than an interval takes come last, those with diverged lanes next.
        """

        def order(rate: float) -> tuple[float, ...]:
            shown = self.sections[rate].series(self.panel.where).get(norm)
            if not shown or not shown.stored.finished:
                return (math.inf,)
            return (len(shown.lanes) < rules.LEAST, *shown.rank)

        return min(sorted(self.sections), key=order)

    def in_paper(self, part: Part) -> Gains | None:
        """Return the gains of the published lines."""
        theirs = self.curves[min(self.sections)].theirs
        lines = {key: as_line(curve) for key, curve in theirs.items()}
        return rules.measure(part, lines, panels_of(self.section))

    @property
    def is_full(self) -> bool:
        """Return whether the runs have the paper's data, size and length."""
        return self.section.scale == "paper" and not rules.changed(self.section.changes)

    @property
    def data(self) -> str:
        """Return the name of the data: as results/data.toml says, else that of the config."""
        run = self.section.runs[0].stored
        named = tomllib.loads((RESULTS / "data.toml").read_text(encoding="utf-8"))
        known = {RESULTS / place: name for place, name in named.items()}
        name = run.config.get("dataset", self.section.name)
        row = datasets.table().get(name)
        title = row.title + " (stand-in)" * bool(row.stands_for) if row else name
        return known.get(run.folder.parent.resolve(), title)

    @property
    def setting(self) -> str:
        """Return the data, whether the setting is reduced, and the share of the updates."""
        if self.is_full:
            return f"{self.data}, the paper’s size and length"
        configs = self.section.runs[0].stored.config, papers_of(self.section.experiment)[0]
        (ours, unit), (paper, paper_unit) = (sections.read_length(c["steps"]) for c in configs)
        if unit != paper_unit or not any(figure.source for figure in self.section.figures):
            return f"{self.data}, reduced"  # the share is not known
        share = f"{100 * ours / paper:.2g}".replace("1e+02", "100")
        return f"{self.data}, reduced, {share} % of the updates"

    @property
    def cells(self) -> list[str]:
        """Return the cells of HEAD but the experiment."""
        speed, end, rate = self.faster, self.better, self.rate
        return [
            self.setting,
            self.words(speed, self.in_paper(speed)).partition(", ")[0],
            self.words(speed, self.by_rate[rate]),
            self.words(speed, self.at_best) if self.tuned else "not run",
            self.words(end, self.in_paper(end)).partition(", ")[0],
            self.words(end, self.gains(end, rate, rate)),
            self.end_panel.label,
        ]

    def words(self, part: Part, gains: Gains | None) -> str:
        """Return "1.52 × [1.30, 1.77], 5 pairs"; fewer pairs than three have no interval."""
        if gains is None:
            return "–"
        row = rules.in_words(part, gains, panels_of(self.section))
        span = "" if row.interval == "–" else f" {row.interval}"
        return f"{row.estimate}{span}, {row.pairs} pair{'s' if row.pairs > 1 else ''}"


# --- From runs to studies ---


def studies(some: Iterable[Section]) -> list[Study]:
    """Return the runs of sections, grouped into studies."""
    groups: dict[tuple, dict[float, Section]] = {}
    rates_in = collections.defaultdict(set)
    for section in some:
        name, scale, changes = section.experiment, section.scale, without_rate(section.changes)
        for run in section.runs:
            folder = run.stored.folder.parent
            rates = groups.setdefault((name, scale, folder, *changes), {})
            for shown in sections.at_rates(run.stored, without_rate(run.changes)):
                rates.setdefault(shown.lr, Section(name, scale, changes, [])).runs.append(shown)
                rates_in[name, folder].add(shown.lr)
    return [Study(r, len(rates_in[key[0], key[2]]) > 1) for key, r in groups.items()]


def without_rate(changes: list[str]) -> list[str]:
    """Return the changes but for that of the learning rate."""
    return [text for text in changes if not text.startswith("lr:")]


def strength(study: Study) -> tuple:
    """Return a key to sort by how strong the evidence of a study is."""
    pairs = len(study.by_rate[study.rate].seeds)
    return study.is_full, pairs, -len(study.section.changes)


def by_experiment(known: list[Study], key: Callable[[Study], tuple]) -> list[Study]:
    """Return the study with the largest key of each of the paper's experiments, in its order."""
    tested = [claim.experiment for claim in CLAIMS if not claim.is_trend]
    kept = [study for study in known if study.by_rate and study.section.experiment in tested]
    largest = {study.section.experiment: study for study in sorted(kept, key=key)}
    return sorted(largest.values(), key=lambda study: study.section.place)


# --- Figures ---


def speeds_chart(shown: list[Study]) -> Chart:
    """Return the speed-up of each study with its interval, beside the paper's."""
    chart = copy.deepcopy(SPECS["speeds"])
    whose, rows = chart["encoding"]["color"]["scale"]["domain"], []
    for n, study in enumerate(shown):
        gains = study.in_paper(study.faster), study.by_rate[study.rate], study.at_best
        for who, place, gain in zip(whose, (0.62, 0.74, 0.86), gains, strict=True):
            if gain:
                row = dict(y=n + place, who=who, full=who == PAPER or study.is_full)
                rows.append(row | factors(gain))
    lines = ([s.title, s.data, s.setting.removeprefix(f"{s.data}, ")] for s in shown)
    texts = [dict(y=n, text=text) for n, text in enumerate(lines)]
    for layer in chart["layer"][:2]:  # the line at 1, between the texts, and these
        layer["data"] = dict(values=texts)
    chart["encoding"]["y"]["scale"]["domain"] = [0, len(shown)]
    return chart | dict(data=dict(values=rows), height=96 * len(shown))


def described(shown: list[Study]) -> str:
    """Return what the chart of speed-ups shows, for those who cannot see it."""
    texts = [f"{s.title}: {s.cells[2]}, in the paper {s.cells[1]}" for s in shown]
    return f"Speed-up of layer norm by experiment. {'; '.join(texts)}."


def factors(gains: Gains) -> dict:
    """Return a factor with its interval, or with its two pairs; an arrow shows a bound."""
    values, ends = np.exp(gains.values).tolist(), {}
    if len(values) >= rules.LEAST:
        low, high = np.exp(rules.interval(gains.values))
        ends = dict(low=float(low), high=float(high))
    sides = set(np.sign(gains.values[gains.bounds]))  # bounds on both sides bound nothing
    bound = "→" if sides == {1} else "←" if sides == {-1} else ""
    two = values if len(values) == 2 else []
    return dict(factor=math.exp(gains.values.mean()), bound=bound, two=two) | ends


def rates_chart(shown: list[Study]) -> Chart:
    """Return the speed-up against the learning rate of both norms."""
    rows, styles = [], []
    looks = [look for _, *look in charts.STYLES.values()][2:]
    for study, (colour, shape) in zip(shown, looks, strict=False):
        styles.append((study.title, colour, shape))
        factors = {rate: np.exp(gains.values) for rate, gains in study.measured.items()}
        lanes = np.full((max(map(len, factors.values())), len(factors)), np.nan)
        for n, values in enumerate(factors.values()):
            lanes[: len(values), n] = values
        rows.append(charts.curve_row(styles[-1][0], charts.OURS, np.array(list(factors)), lanes))
    axes = "learning rate of both norms", "speed-up of layer norm"
    chart = charts.lines("", axes, rows, styles, (True, True)) | dict(width=640)
    ticks = SPECS["speeds"]["encoding"]["x"]["axis"]["values"]
    for axis, values in (("x", RATES), ("y", ticks)):
        chart["encoding"][axis]["axis"] = dict(values=values, tickCount=20)
    return chart


def by_shape(known: Iterable[Study]) -> dict[tuple[int, int], Study]:
    """Return (length of the sequences, batch size) -> study, of runs of sequential MNIST."""
    configs = ((study.section.runs[0].stored.config, study) for study in known)
    return {(784 // c["pixels_per_step"], c["batch_size"]): study for c, study in configs}


def surface_chart(known: Iterable[Study]) -> Chart:
    """Return the speed-up as a surface over the length of the sequences and the batch size."""
    rows = []
    for (length, size), study in by_shape(known).items():
        if study.by_rate:
            gains = study.by_rate[study.rate]
            words = rules.in_words(study.faster, gains, panels_of(study.section))
            certain = words.interval if words.pairs >= rules.LEAST else f"seeds: {words.pairs}"
            factor, text = math.exp(gains.values.mean()), [words.estimate, certain]
            rows.append(dict(length=length, size=size, factor=factor, text=text))
    return SPECS["surface"] | dict(data=dict(values=rows))
