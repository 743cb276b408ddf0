"""All claims of the paper, with the estimates and verdicts of the analysis and of the runs."""

import collections
from collections.abc import Iterable, Mapping
import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any, NamedTuple

from experiments import rules, theory
from experiments.claims import CLAIMS
from experiments.curves import Panel
from experiments.rules import Cell, Claim, Row, Verdict
from experiments.theory.checks import Check, Result, sci
from ln.errors import InputError
from scripts.pages.sections import Gathered, Section, gather, read_sections

ANALYSIS, TIMING = "Analysis", "Timing"
FULL, REDUCED = "Training at the paper’s scale", "Training at reduced scale"

WORDS = {True: rules.CONFIRMED, False: rules.CONTRADICTED, None: rules.NOT_DECIDED}

Pair = tuple[Section, Gathered]  # runs with the same settings, norms apart, and their curves


class Finding(NamedTuple):
    """The verdict of the analysis, a benchmark or a set of runs on a claim.

    Attributes:
        group: one of the four kinds of evidence above.
        source: where its numbers come from, in words.
        rate: the learning rate of the runs.
    """

    group: str
    verdict: Verdict
    source: str
    rate: str = ""


class Entry(NamedTuple):
    """A claim on the page: it is in the group of its best evidence.

    Attributes:
        paper: the estimates from the published curves and tables.
    """

    claim: Claim
    findings: list[Finding]
    paper: list[Row]

    @property
    def shown(self) -> list[Finding]:
        """Return the findings of what was tested."""
        return [f for f in self.findings if f.verdict.word != rules.NOT_TESTED]

    @property
    def group(self) -> str:
        """Return the best kind of evidence."""
        groups = {finding.group for finding in self.shown} or {f.group for f in self.findings}
        return next((group for group in (ANALYSIS, TIMING, FULL) if group in groups), REDUCED)

    @property
    def word(self) -> str:
        """Return the verdict of its group."""
        return overall(f.verdict.word for f in self.findings if f.group == self.group)

    @property
    def lacking(self) -> dict[str, int]:
        """Return what is missing -> the number of sets of runs that lack it."""
        verdicts = (finding.verdict for finding in self.findings)
        return collections.Counter(v.because for v in verdicts if v.word == rules.NOT_TESTED)


def overall(words: Iterable[str]) -> str:
    """Return the verdict that all decided sets of runs share, else "not decided"."""
    known = set(words) - {rules.NOT_TESTED}
    decided = known - {rules.NOT_DECIDED}
    if len(decided) == 1:
        return decided.pop()
    return rules.NOT_DECIDED if known else rules.NOT_TESTED


# --- Verdicts of the analysis, of runs and of the benchmark ---


def by_analysis(claim: Claim, checks: list[Check]) -> Finding:
    """Return what the checks of a claim's number say: all must hold."""
    checks = [check for check in checks if check.number == claim.number]
    holds = {check.holds for check in checks}
    worst = False if False in holds else None if None in holds else True
    word = WORDS[worst] if holds else rules.NOT_TESTED
    if worst is False and claim.is_erratum:
        word = rules.ERRATUM
    verdict = Verdict(word, " ".join(check.because for check in checks))
    return Finding(ANALYSIS, verdict, "the analysis")


def panels_of(section: Section) -> dict[str, Panel]:
    """Return the panels and columns of an experiment by name."""
    columns = (column for table in section.tables for column in table.columns)
    return section.panels | {column.name: column for column in columns}


def by_runs(claim: Claim, pairs: list[Pair]) -> Finding:
    """Return what a set of runs says, or all sets of a claim about a trend."""
    section = pairs[0][0]
    same = [s.scale == "paper" and rules.is_full(claim, s.changes) for s, _ in pairs]
    full = claim.is_timing or all(same)
    configs = [[run.stored.config for run in section.runs] or [{}] for section, _ in pairs]
    cells = [Cell(c[0], curves.ours) for c, (_, curves) in zip(configs, pairs, strict=True)]
    verdict = rules.decide(claim, cells, panels_of(section), full)
    if claim.is_timing:
        return Finding(TIMING, verdict, "the benchmark in results/speed")
    source = section.source if len(pairs) == 1 else f"runs in {' and '.join(section.folders)}"
    if any(config.get("data_seed", 0) >= 0 for some in configs for config in some):
        source += ", all seeds with one order of the data"
    rates = {f"{run.lr:g}" for section, _ in pairs for run in section.runs}
    return Finding(FULL if full else REDUCED, verdict, source, ", ".join(sorted(rates)))


def in_paper(claim: Claim, section: Section, curves: Gathered) -> list[Row]:
    """Return the estimates from the paper's own curves and tables."""
    return rules.in_paper(claim, curves.theirs, panels_of(section))


def claims_of(section: Section, curves: Gathered) -> list[tuple[Claim, Verdict, list[Row]]]:
    """Return the claims of a section's experiment, their verdicts and the paper's numbers."""
    claims = [c for c in CLAIMS if c.experiment == section.experiment and not c.is_trend]
    pair = section, curves
    return [(claim, by_runs(claim, [pair]).verdict, in_paper(claim, *pair)) for claim in claims]


# --- The page ---


def read_sets(root: Path) -> tuple[list[Section], list[str]]:
    """Return the sets of runs below root: those with the same settings, norms and seeds apart.

    Folders that contain the same runs are different sets. The errors of broken runs come second.
    """
    sets: list[Section] = []
    sections, broken = read_sections(root, apart=True)
    for section in sections:
        n = next((n for n, known in enumerate(sets) if is_complement(known, section)), len(sets))
        runs = [run for known in sets[n : n + 1] for run in known.runs]
        sets[n : n + 1] = [dataclasses.replace(section, runs=[*runs, *section.runs])]
    return sets, broken


def is_complement(known: Section, section: Section) -> bool:
    """Return whether two sections have the same settings and no run in common."""
    both = dataclasses.replace(section, runs=[*known.runs, *section.runs])
    if dataclasses.replace(known, runs=both.runs) != both:
        return False
    try:
        return all(both.series(panel.where) for panel in both.panels.values())
    except InputError:  # the same curve twice
        return False


def checks_of(results: Mapping[str, Result]) -> list[Check]:
    """Return the checks of all demonstrations."""
    return [check for result in results.values() for check in result.checks]


def checks_as_json(results: Mapping[str, Result]) -> str:
    """Return the checks of all demonstrations as JSON."""
    return json.dumps(checks_of(results), indent=1, ensure_ascii=False)


def read_checks(path: Path) -> list[Check]:
    """Return the checks in a file that `checks_as_json` made."""
    return [Check(*check) for check in json.loads(path.read_text(encoding="utf-8"))]


def collect(sections: list[Section], checks: list[Check]) -> list[Entry]:
    """Return all claims with what is known of them."""
    names = dict.fromkeys(claim.experiment for claim in CLAIMS if claim.parts)
    empty = [Section(name, "paper", [], []) for name in names]  # with the paper's curves and times
    papers = {section.experiment: (section, gather(section)) for section in empty}
    runs = collections.defaultdict(list)
    for section in sections:
        runs[section.experiment].append((section, gather(section)))
    entries = []
    for claim in CLAIMS:
        if not claim.parts:
            entries.append(Entry(claim, [by_analysis(claim, checks)], []))
            continue
        paper, pairs = papers[claim.experiment], runs[claim.experiment]
        sets = collections.defaultdict(list)
        for pair in [paper] if claim.is_timing else pairs:
            sets[tuple(pair[0].folders) if claim.is_trend else id(pair)].append(pair)
        findings = [by_runs(claim, group) for group in sets.values()]
        entries.append(Entry(claim, findings, in_paper(claim, *paper)))
    return entries


def analysis_page() -> dict[str, Any]:
    """Return what the template shows of section 5."""
    claims = {claim.number: claim for claim in CLAIMS}
    results = theory.analysis()
    return dict(results=results, claims=claims, words=WORDS, sci=sci, seed=theory.SEED)


def page(root: Path | None, checks: list[Check] | None = None) -> dict[str, Any]:
    """Return what the template shows of all claims.

    Args:
        root: of the runs; None: no runs.
        checks: of the analysis, if they are known.
    """
    sections, broken = ([], []) if root is None else read_sets(root)
    groups: dict[str, list[Entry]] = {ANALYSIS: [], TIMING: [], FULL: [], REDUCED: []}
    for entry in collect(sections, checks_of(theory.analysis()) if checks is None else checks):
        groups[entry.group].append(entry)
    counts = {name: collections.Counter(e.word for e in groups[name]) for name in groups}
    laws = [" ".join((inspect.getdoc(rule) or "").split()) for rule in rules.RULES]
    shown = dict(groups=groups, counts=counts, laws=laws, sections=sections, broken=broken)
    return shown | dict(root=root and root.as_posix())
