"""Tables of numbers in documents, made from results/ where a comment asks for one.

    <!-- generated: curves reduced/draw bound at 1,4,8,12,15 -->
    (the table)
    <!-- end -->

The words after "generated:" are the name of one of the BLOCKS below and its arguments; folders are
below results/.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import functools
import json
from pathlib import Path
import re
import tomllib

import numpy as np

from experiments.claims import CLAIMS
from experiments.curves import COUNTS, Panel, from_readings
from experiments.theory.checks import Check
from ln.errors import InputError, choose
from ln.training import runs
from scripts.benchmarks.timing import milliseconds
from scripts.pages import charts, claims, evidence
from scripts.pages.charts import styles_of
from scripts.pages.evidence import Study
from scripts.pages.sections import RESULTS, Section, gather, read_sections
from scripts.pages.tables import number, rows_of, table_of
from scripts.pages.theory import WORDS

ROOT = RESULTS.parent
TEMPLATES = Path(__file__).parent
ANALYSIS = RESULTS / "theory.json"  # what the analysis says of each claim, which takes a minute
FIGURES = RESULTS / "figures"
BLOCK = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """Return the documents that may have generated tables."""
    return [ROOT / "README.md", RESULTS / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def write() -> None:
    """Write the tables of all documents, and the figures of all experiments, anew."""
    if not ANALYSIS.is_file():
        runs.write_atomically(ANALYSIS, json.dumps(claims.analysis(), indent=1, ensure_ascii=False))
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if (filled := fill(text, path)) != text:
            runs.write_atomically(path, filled)
            print(f"Updated {path.relative_to(ROOT)}.")
    several = [study for study in studied() if len(study.measured) > 1]
    rates = evidence.by_experiment(several, key=lambda study: (len(study.measured),))
    speeds = evidence.speeds_chart(compared()) | dict(width=640)
    drawn = dict(speed_ups=speeds, rates=evidence.rates_chart(rates))
    named = tomllib.loads((FIGURES / "figures.toml").read_text(encoding="utf-8"))
    for file, (folder, name) in named.items():
        (section, *_), _ = read_sections(RESULTS / folder)
        curves = gather(section)
        (figure,) = (figure for figure in section.figures if figure.name == name)
        drawn[file] = charts.side_by_side(figure, curves.ours, curves.theirs)
    for file, chart in drawn.items():
        runs.write_atomically(FIGURES / f"{file}.png", charts.png(chart))


def fill(text: str, path: Path) -> str:
    """Return the text of a document with its tables as results/ has them now."""

    def block(match: re.Match) -> str:
        name, *words = match[2].split()
        try:
            make = choose("generated block", name, BLOCKS)
            return match[1] + make(*words) + "\n" + match[3]
        except (TypeError, ValueError, LookupError, OSError, InputError) as error:
            raise InputError(f"{path}: the block {match[2]!r} is wrong: {error}") from error

    return BLOCK.sub(block, text)


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a Markdown table; its first columns are texts, the others numbers."""
    marks = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, marks, *rows))


@functools.cache
def studied() -> list[Study]:
    return evidence.studies(read_sections(RESULTS, apart=True)[0])


def compared() -> list[Study]:
    return evidence.by_experiment(studied(), evidence.strength)


# --- Blocks ---


def results() -> str:
    """Layer norm's speed-up by experiment."""

    def link(study: Study) -> str:
        return f"[{study.title}](docs/results/{study.section.experiment}.md)"

    return grid(evidence.HEAD, [(link(study), *study.cells) for study in compared()], texts=2)


def all_claims() -> str:
    """The verdicts on all claims; those of the analysis as results/theory.json has them."""
    shown = claims.page(RESULTS, stored_analysis())
    return environment().get_template("claims.md").render(**shown).strip()


def stored_analysis() -> list[Check]:
    return [Check(*check) for check in json.loads(ANALYSIS.read_text(encoding="utf-8"))]


def analysis() -> str:
    """The statements that the analysis checks."""
    texts: dict[int | None, str] = {claim.number: claim.text for claim in CLAIMS}
    rows = [(c.statement or texts[c.number], WORDS[c.holds], c.because) for c in stored_analysis()]
    return grid(("statement", "verdict", "numbers"), rows, texts=3)


def settings(folder: str) -> str:
    """What runs change against the paper."""
    (section, *_), _ = read_sections(RESULTS / folder)
    pairs = (text.split(": ", 1) for text in section.changes if not text.startswith("eval_every"))
    rows = [(f"`{key}`", *values.split(" -> ")) for key, values in pairs]
    return grid(("setting", "the paper", "ours"), rows)


def curves(folder: str, *words: str) -> str:
    """Readings of panels by norm: `curves FOLDER PANEL... at X,X,... [by seed]`.

    PANEL/SPLIT is a panel with the readings of another split. X counts updates or epochs.
    """
    at = words.index("at")
    places, by_seed = list(map(float, words[at + 1].split(","))), words[at + 2 :] == ("by", "seed")
    (study,), rows = evidence.studies(read_sections(RESULTS / folder)[0]), []
    for name in words[:at]:
        panel = plain_panel(study.section, name)
        title = f"{panel.label}, {panel.title}: " if at > 1 else ""
        for rate, section in sorted(study.sections.items()):
            many = f", {rate:g}" if len(study.sections) > 1 else ""
            series = section.series(panel.where)
            for norm, (label, *_) in styles_of(series).items():
                curve = from_readings(series[norm].readings, panel, series[norm].stored.finished)
                assert curve is not None, f"no readings of {name}"
                values = [panel.times * curve.at(x) for x in places]
                texts = [seeds(v, panel) if by_seed else number(v, panel.digits) for v in values]
                rows.append([title + label + many, *texts])
    head = f"{COUNTS[panel.x]}s" if at > 1 else f"{panel.label}, after … {COUNTS[panel.x]}s"
    return grid([head, *(f"{x:,g}" for x in places)], rows)


def plain_panel(section: Section, name: str) -> Panel:
    """Return a panel, of another split if its name has one, whose x counts from 0 in ones."""
    panels = {panel.name: panel for figure in section.figures for panel in figure.panels}
    name, _, split = name.partition("/")
    panel = choose("panel", name, panels)
    moved = dict(split=split, title=f"{panel.title}, {split}") if split else {}
    return dataclasses.replace(panel, x_per=1, x_plus=0, **moved)


def seeds(values: np.ndarray, panel: Panel) -> str:
    return ", ".join(f"{value:{panel.digits}}" for value in values) or "–"


def numbers(folder: str, name: str, _at: str = "at", places: str = "") -> str:
    """Ours beside the paper's in one panel: `numbers FOLDER PANEL [at X,X,...]`, and summaries."""
    (section, *_), _ = read_sections(RESULTS / folder)
    panels = {panel.name: panel for figure in section.figures for panel in figure.panels}
    landmarks = tuple(map(float, places.split(","))) if places else ()
    panel = dataclasses.replace(choose("panel", name, panels), landmarks=landmarks)
    gathered = gather(section)
    table = table_of(panel, gathered.ours, gathered.theirs)
    return grid([table["title"], *table["head"]], table["rows"])


def table(folder: str) -> str:
    """The table of the paper that runs belong to, with the paper's rows and ours."""
    (section, *_), _ = read_sections(RESULTS / folder)
    (shown,) = section.tables
    head = ["", *(column.label for column in shown.columns), "seeds", "updates"]
    rows = rows_of(shown, gather(section).ours)
    return grid(head, [(row["model"], *row["cells"]) for row in rows])


def speed(names: str, kind: str = "peers") -> str:
    """Times of benchmarks: `speed FILE,FILE... [training]`, a column for each case.

    Below the time of the first peer, the others' times divided by it: the median over rounds, and
    the lowest and the highest.
    """
    columns: dict[str, dict[str, str]] = {}
    for name in names.split(","):
        file = json.loads((RESULTS / "speed" / f"{name}.json").read_text(encoding="utf-8"))
        for case, measured in file["cases"].items():
            title = f"{name}, {case}" if "," in names else case
            commit, load = (str(file["environment"][key]) for key in ("commit", "load_average"))
            last = {"commit": commit[:7] + commit[40:], "load average": load}
            columns[title] = times(measured[kind]) | last
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    rows.sort(key=lambda row: row in last)  # the conditions come last
    return grid(
        ["", *columns], [(row, *(c.get(row, "") for c in columns.values())) for row in rows]
    )


def times(peers: dict) -> dict[str, str]:
    """Return the rows of a case, by name."""
    (first, reference), *others = peers.items()
    ours = np.array(reference["seconds_per_step"])
    rows = {f"{first}, ms": milliseconds(np.median(ours))}
    for name, peer in others:
        ratios = np.divide(peer["seconds_per_step"], ours)
        rows[name] = f"{np.median(ratios):.2f} ({ratios.min():.2f}–{ratios.max():.2f})"
    if temporary := reference.get("facts", {}).get("temporary_bytes"):
        rows[f"{first}: temporary memory"] = f"{temporary / 2**20:.0f} MiB"
    return rows


def quote(path: str) -> str:
    """The tables that a text file has."""
    text = (RESULTS / path).read_text(encoding="utf-8")
    return "\n\n".join(re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)).replace("\n\n\n", "\n\n")


BLOCKS = dict(
    analysis=analysis,
    results=results,
    claims=all_claims,
    settings=settings,
    curves=curves,
    numbers=numbers,
    table=table,
    speed=speed,
    quote=quote,
)


def environment():
    """Return the environment of all templates."""
    import jinja2

    known = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known.policies["json.dumps_kwargs"] = dict(separators=(",", ":"), ensure_ascii=False)
    known.globals |= dict(
        curves=charts.CURVES, config=charts.CONFIG, symbols=charts.SYMBOLS, library=charts.library
    )
    return known
