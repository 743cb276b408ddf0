"""All claims of the paper, with the estimates and verdicts of the analysis and of the runs."""

import collections
from collections.abc import Iterable
import dataclasses
import inspect
from pathlib import Path
from typing import NamedTuple

from experiments import rules
from experiments.claims import CLAIMS
from experiments.curves import Column, Panel
from experiments.rules import Cell, Claim, Row, Verdict
from experiments.theory import theory
from experiments.theory.checks import Check
from ln.errors import InputError
from scripts.pages.sections import Gathered, Section, gather, read_sections

Group = list[tuple[Section, Gathered]]
ANALYSIS, TIMING = "Analysis", "Timing"
FULL, REDUCED = "Training at the paper’s scale", "Training at reduced scale"


class Finding(NamedTuple):
    """What one set of runs, a benchmark or the analysis says of a claim.

    Attributes:
        source: where its numbers come from, in words.
        details: the command that shows more of them, or "".
    """

    verdict: Verdict
    source: str
    details: str = ""

    @property
    def tested(self) -> bool:
        return self.verdict.word != rules.NOT_TESTED


@dataclasses.dataclass
class Entry:
    """A claim on the page; findings are those of the group, others the rest of them."""

    claim: Claim
    group: str
    paper: list[Row]
    findings: list[Finding]
    others: list[Finding] = dataclasses.field(default_factory=list)

    @property
    def word(self) -> str:
        return overall(finding.verdict.word for finding in self.findings)

    @property
    def shown(self) -> list[Finding]:
        return [finding for finding in self.findings + self.others if finding.tested]

    @property
    def lacking(self) -> dict[str, int]:
        """Return what is missing -> the number of sets of runs in which it is."""
        findings = (finding for finding in self.findings + self.others if not finding.tested)
        return collections.Counter(finding.verdict.because for finding in findings)

    @property
    def sweep(self) -> str:
        """Return the command that trains what the claim is about."""
        return f"python -m scripts.sweep --config=configs/{self.claim.experiment}.py"


def overall(words: Iterable[str]) -> str:
    """Return the verdict that all decided sets of runs share, else "not decided"."""
    known = set(words) - {rules.NOT_TESTED}
    decided = known - {rules.NOT_DECIDED}
    if len(decided) == 1:
        return decided.pop()
    return rules.NOT_DECIDED if known else rules.NOT_TESTED


def panels_of(section: Section) -> dict[str, Panel | Column]:
    """Return the panels and columns of an experiment by name."""
    panels = {panel.name: panel for figure in section.figures for panel in figure.panels}
    return panels | {column.name: column for table in section.tables for column in table.columns}


def decide(group: Group, claim: Claim) -> Verdict:
    """Return what sections say of a claim: one, or those of a trend."""
    cells = [
        Cell(section.runs[0].stored.config if section.runs else {}, {**curves.ours, **curves.times})
        for section, curves in group
    ]
    full = claim.is_timing or all(rules.is_full(claim, section.changes) for section, _ in group)
    return rules.decide(claim, cells, panels_of(group[0][0]), full)


def published(claim: Claim, section: Section, curves: Gathered) -> list[Row]:
    """Return the estimates from the paper's own curves and tables."""
    return rules.in_paper(claim, curves.theirs, panels_of(section))


def claims_of(section: Section, curves: Gathered) -> list[tuple[Claim, Verdict, list[Row]]]:
    """Return the claims of a section's experiment, their verdicts and the paper's numbers."""
    return [
        (claim, decide([(section, curves)], claim), published(claim, section, curves))
        for claim in CLAIMS
        if claim.experiment == section.experiment and not claim.is_trend
    ]


def read_sets(root: Path) -> list[Section]:
    """Return the sets of runs below root: the same settings, norms and seeds apart.

    Folders that contain the same runs are different sets.
    """
    sets: list[Section] = []
    for section in read_sections(root, apart=True)[0]:
        n = next((n for n, known in enumerate(sets) if is_complement(known, section)), len(sets))
        before = sets[n].runs if n < len(sets) else []
        sets[n : n + 1] = [dataclasses.replace(section, runs=[*before, *section.runs])]
    count = collections.Counter(section.source for section in sets)
    for n, section in enumerate(sets):
        section.mark = f", set {n + 1}" if count[section.source] > 1 else ""
    return sets


def is_complement(known: Section, section: Section) -> bool:
    """Return whether two sections have the same settings and no run in common."""
    if (known.experiment, known.scale, known.changes) != (
        section.experiment,
        section.scale,
        section.changes,
    ):
        return False
    try:
        both = dataclasses.replace(known, runs=[*known.runs, *section.runs])
        return bool([both.series(panel.where) for f in both.figures for panel in f.panels])
    except InputError:  # the same curve twice
        return False


def by_analysis(claim: Claim, checks: list[Check]) -> Finding:
    """Return what the checks of a claim's number say: all must hold."""
    holds = {check.holds for check in checks if check.number == claim.number}
    word = rules.CONFIRMED if holds == {True} else rules.NOT_DECIDED if holds else rules.NOT_TESTED
    if False in holds:
        word = rules.ERRATUM if claim.is_erratum else rules.CONTRADICTED
    because = " ".join(check.because for check in checks if check.number == claim.number)
    return Finding(Verdict(word, because), "the analysis", "python -m scripts.report --theory")


def by_runs(claim: Claim, gathered: Group) -> dict[str, list[Finding]]:
    """Return what the sets of runs say of a claim, at the paper's scale and at reduced scale."""
    findings = collections.defaultdict(list)
    sets = collections.defaultdict(list)
    for n, (section, curves) in enumerate(gathered):
        sets[tuple(section.folders) if claim.is_trend else n].append((section, curves))
    for group in sets.values():
        section = group[0][0]
        full = all(rules.is_full(claim, section.changes) for section, _ in group)
        source = section.source if len(group) == 1 else f"runs in {' and '.join(section.folders)}"
        if any(run.stored.config.get("data_seed", 0) >= 0 for run in section.runs):
            source += ", all seeds with one order of the data"
        details = " ".join(f"python -m scripts.report --runs={place}" for place in section.folders)
        findings[FULL if full else REDUCED].append(Finding(decide(group, claim), source, details))
    return findings


def collect(sections: list[Section]) -> list[Entry]:
    """Return all claims, each in its group."""
    checks = [check for f in theory.DEMONSTRATIONS for check in f(theory.SEED).checks]
    gathered = [(section, gather(section)) for section in sections]
    names = dict.fromkeys(claim.experiment for claim in CLAIMS if claim.parts)
    empty = {name: Section(name, "paper", [], []) for name in names}
    papers = {name: (section, gather(section)) for name, section in empty.items()}
    entries = []
    for claim in CLAIMS:
        if not claim.parts:
            entries.append(Entry(claim, ANALYSIS, [], [by_analysis(claim, checks)]))
            continue
        paper = papers[claim.experiment]
        if claim.is_timing:
            findings = [Finding(decide([paper], claim), "the benchmark in results/speed")]
            entries.append(Entry(claim, TIMING, published(claim, *paper), findings))
            continue
        groups = by_runs(
            claim, [pair for pair in gathered if pair[0].experiment == claim.experiment]
        )
        full = any(finding.tested for finding in groups[FULL])
        group, rest = (FULL, REDUCED) if full else (REDUCED, FULL)
        entries.append(Entry(claim, group, published(claim, *paper), groups[group], groups[rest]))
    return entries


def page(root: Path | None) -> tuple[dict, dict[str, bytes]]:
    """Return what the template shows of all claims, and no pictures; root None: no runs."""
    sections = [] if root is None else read_sets(root)
    groups: dict[str, list[Entry]] = {ANALYSIS: [], TIMING: [], FULL: [], REDUCED: []}
    for entry in collect(sections):
        groups[entry.group].append(entry)
    counts = {name: collections.Counter(e.word for e in groups[name]) for name in groups}
    laws = [" ".join(inspect.getdoc(rule).split()) for rule in rules.RULES]
    shown = dict(groups=groups, counts=counts, laws=laws, sections=sections)
    return shown | dict(root=root and root.as_posix()), {}
