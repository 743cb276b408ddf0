"""All claims of the paper, with what the analysis, the runs and the paper's own curves say."""

import collections
from collections.abc import Iterator
import dataclasses
import inspect
from pathlib import Path
from typing import NamedTuple

import numpy as np

import experiments
from experiments import across
from experiments.curves import CONFIRMED, CONTRADICTED, NOT_DECIDED, NOT_TESTED, Pace, Verdict
from experiments.theory import theory
from scripts.pages.sections import (
    Gathered,
    Section,
    gather,
    main_panel,
    read_sections,
)

PAIR = "none", "layer"  # the norms whose paces are compared
ORDER = CONTRADICTED, CONFIRMED, NOT_DECIDED, NOT_TESTED
ANALYSIS = "python -m scripts.report --theory"
EVERYTHING = ("all experiments at small scale", "python -m scripts.reproduce")


class Finding(NamedTuple):
    """What one set of runs, a benchmark or the analysis says of a statement.

    Attributes:
        source: where its numbers come from, in words.
        details: the command that shows more of them, or "".
    """

    verdict: Verdict
    source: str
    details: str


@dataclasses.dataclass
class Statement:
    """A claim, or a part of it, and the rule that decides it.

    Attributes:
        place: in the paper.
        paper: the verdict by the same rule on the paper's own data; None where these do not do.
        needs: (what it takes, command) of ways to test it.
    """

    text: str
    place: str
    rule: str
    paper: Verdict | None
    needs: tuple[tuple[str, str], ...]
    findings: list[Finding] = dataclasses.field(default_factory=list)

    @property
    def decided(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.verdict.word != NOT_TESTED]

    @property
    def lacking(self) -> dict[str, list[str]]:
        """What is missing -> the sources of which it is missing, where runs do not test it."""
        found: dict[str, list[str]] = {}
        for verdict, source, _ in self.findings:
            if verdict.word == NOT_TESTED:
                found.setdefault(verdict.because, []).append(source)
        return found

    @property
    def word(self) -> str:
        return overall([finding.verdict.word for finding in self.findings])


@dataclasses.dataclass
class Claim:
    """A claim of the paper, which may be several statements.

    Attributes:
        rules: of its statements, each once; in place of one that an earlier claim has, its number.
    """

    number: int
    statements: list[Statement] = dataclasses.field(default_factory=list)
    rules: list[str | int] = dataclasses.field(default_factory=list)

    @property
    def word(self) -> str:
        return overall([statement.word for statement in self.statements])

    @property
    def shown(self) -> Statement:
        """The statement that stands for it in the overview."""
        return next(one for one in self.statements if one.word == self.word)

    @property
    def by_source(self) -> dict[str, str]:
        """Source -> its verdicts, such as "confirmed", or "2 confirmed, 2 not decided"."""
        words: dict[str, list[str]] = {}
        for statement in self.statements:
            for verdict, source, _ in statement.decided:
                words.setdefault(source, []).append(verdict.word)
        return {source: counted(found) for source, found in words.items()}


def overall(words: list[str]) -> str:
    """One word for several verdicts: contradicted where any of them is, else the best of them."""
    return next((word for word in ORDER if word in words), NOT_TESTED)


def counted(words: list[str]) -> str:
    if len(words) == 1:
        return words[0]
    return ", ".join(f"{words.count(word)} {word}" for word in ORDER if word in words)


class Decided(NamedTuple):
    """A claim of an experiment by its runs; paper is None where the paper's data do not do."""

    claim: dict
    rule: str
    ours: Verdict
    paper: Verdict | None
    source: str


def decide(section: Section, found: Gathered) -> list[Decided]:
    """The claims of an experiment by the same rule on our curves and on the published ones; by a
    benchmark, not by runs, what asks for nothing but its times."""
    rules, decided = experiments.part(section.experiment, "claims"), []
    for claim in getattr(section.figures_file, "CLAIMS", ()):
        rule = getattr(rules, claim["rule"])
        ours, source = rule(found.times), "the benchmark in results/speed"
        if ours.word == NOT_TESTED:
            ours, source = rule(found.ours), section.source
        paper = rule(found.theirs)
        has_paper = paper.word != NOT_TESTED
        decided.append(Decided(claim, rule_of(rule), ours, paper if has_paper else None, source))
    return decided


def rule_of(function) -> str:
    return " ".join(inspect.getdoc(function).split())


def gains(gathered: list[tuple[Section, Gathered]], paper: bool) -> dict[str, across.Gain]:
    """Source -> how much faster layer norm is there; of each experiment by those of its runs that
    tell, and of these by the ones nearest to the paper's setting."""
    found: dict[str, tuple[str, across.Gain]] = {}  # by experiment
    for section, one in sorted(gathered, key=lambda of: len(of[0].changes)):
        main = getattr(section.figures_file, "MAIN", None)
        if main is None or section.experiment in found:
            continue
        _, panel = main_panel(section, one._replace(ours={}) if paper else one)
        pair = [(one.theirs if paper else one.ours).get((panel.name, norm)) for norm in PAIR]
        if any(curve is None or not curve.complete for curve in pair):
            continue
        config = section.config_file.get_config("paper") if paper else section.runs[0].stored.config
        factor = float(np.median(Pace.of(*pair, panel.falling).factors))
        gain = across.Gain(section.experiment, main["length"], config["batch_size"], factor)
        found[section.experiment] = section.source, gain
    return dict(found.values())


def read_sets(root: Path) -> list[Section]:
    """The sets of runs below root: in the same folder, with the same settings, norms apart."""
    sections, _ = read_sections(root, apart=True)
    of_source: dict[str, list[Section]] = {}
    for section in sections:
        of_source.setdefault(section.source, []).append(section)
    for same in of_source.values():
        for n, section in enumerate(same, start=1):
            section.mark = f", set {n}" if len(same) > 1 else ""
    return sections


Part = tuple[int, Statement, Finding | None]  # the number of a claim, and what was found of it


def of_analysis() -> Iterator[Part]:
    for function in theory.DEMONSTRATIONS:
        shown = function(theory.SEED)
        for claim in shown.claims:
            if claim.number is not None:
                statement = Statement(claim.text, claim.source, shown.rule, None, ())
                yield claim.number, statement, Finding(claim.verdict, "the analysis", ANALYSIS)


def of_runs(gathered: list[tuple[Section, Gathered]]) -> Iterator[Part]:
    for section, found in gathered:
        sweep = f"python -m scripts.sweep --config=configs/{section.experiment}.py"
        needs = ("minutes, on built-in data", f"{sweep}:small"), ("the paper’s setting", sweep)
        details = " ".join(f"python -m scripts.report --runs={place}" for place in section.folders)
        for claim, rule, ours, paper, source in decide(section, found):
            statement = Statement(claim["text"], claim["source"], rule, paper, needs)
            if source != section.source:  # a benchmark
                yield claim["number"], statement, Finding(ours, source, "")
            else:
                finding = Finding(ours, source, details) if section.runs else None
                yield claim["number"], statement, finding


def of_all(gathered: list[tuple[Section, Gathered]]) -> Iterator[Part]:
    """Claim 29, which compares experiments."""
    ((claim,), rule) = across.CLAIMS, across.claim_29
    ours, theirs = (gains(gathered, paper) for paper in (False, True))
    paper, found = rule(list(theirs.values())), rule(list(ours.values()))
    statement = Statement(claim["text"], claim["source"], rule_of(rule), paper, (EVERYTHING,))
    verdict = Verdict(found.word, f"{found.because} They are {'; '.join(ours)}.")
    finding = Finding(verdict, f"{len(ours)} sets of runs", "") if ours else None
    yield claim["number"], statement, finding


def collect(sections: list[Section]) -> list[Claim]:
    """All claims, with what the analysis and the sets of runs found of each."""
    without = sorted(set(experiments_with_claims()) - {one.experiment for one in sections})
    empty = [Section(name, "paper", [], []) for name in without]
    gathered = [(section, gather(section)) for section in sections + empty]
    claims: dict[int, Claim] = {}
    for number, new, finding in (*of_analysis(), *of_runs(gathered), *of_all(gathered)):
        statements = claims.setdefault(number, Claim(number)).statements
        known = next((one for one in statements if one.text == new.text), None)
        if known is None:
            statements.append(known := new)
        if finding is not None and finding not in known.findings:  # a benchmark's comes again
            known.findings.append(finding)
    return [claims[number] for number in sorted(claims)]


def experiments_with_claims() -> list[str]:
    names = experiments.names("figures")
    return [n for n in names if hasattr(experiments.part(n, "figures"), "CLAIMS")]


def set_rules(claims: list[Claim]) -> None:
    """A rule that several claims share stands below the first of them."""
    first: dict[str, int] = {}
    for claim in claims:
        for rule in dict.fromkeys(statement.rule for statement in claim.statements):
            number = first.setdefault(rule, claim.number)
            claim.rules.append(rule if number == claim.number else number)


def page(root: Path | None) -> tuple[dict, dict[str, bytes]]:
    """What the template shows of all claims, by the analysis alone where root is None; there are no
    pictures."""
    sections = [] if root is None else read_sets(root)
    claims = collect(sections)
    set_rules(claims)
    count = collections.Counter(claim.word for claim in claims)
    ordered = {word: count[word] for word in (CONFIRMED, CONTRADICTED, NOT_DECIDED, NOT_TESTED)}
    return dict(claims=claims, count=ordered, sections=sections, root=root and root.as_posix()), {}
