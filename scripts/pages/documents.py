"""Tables of numbers in documents, made from results/ where a comment asks for one.

    <!-- generated: curves reduced/draw bound at 1,4,8,12,15 -->
    (the table)
    <!-- end -->

The words after "generated:" are the name of one of the BLOCKS below and its arguments; folders are
below results/.
"""

import dataclasses
import functools
import json
from pathlib import Path
import re
import tomllib

import numpy as np

from experiments import theory
from experiments.claims import CLAIMS
from experiments.curves import COUNTS, Panel, from_readings
from experiments.theory.checks import Check
from ln.errors import InputError, choose
from ln.training import runs
from scripts.benchmarks import timing
from scripts.pages import charts, claims, evidence
from scripts.pages.charts import styles_of
from scripts.pages.evidence import BASELINE, NORM, Study
from scripts.pages.sections import RESULTS, Section, by_norm, gather, read_length, read_sections
from scripts.pages.tables import as_line, first, markdown, number, rows_of, table_of

ROOT = RESULTS.parent
TEMPLATES = Path(__file__).parent
ANALYSIS = RESULTS / "theory.json"  # the checks of the analysis, which takes a minute
FIGURES = RESULTS / "figures"
BLOCK = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """Return the documents that may have generated tables."""
    return [ROOT / "README.md", RESULTS / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def write() -> None:
    """Write the tables of all documents, and the figures of all experiments, anew."""
    if not ANALYSIS.is_file():
        runs.write_atomically(ANALYSIS, claims.checks_as_json(theory.analysis()))
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
        if name == "surface":
            drawn[file] = evidence.surface_chart(studies_in(folder))
            continue
        section = section_in(folder)
        curves = gather(section)
        (figure,) = (figure for figure in section.figures if figure.name == name)
        drawn[file] = charts.side_by_side(figure, *curves)
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


def section_in(folder: str) -> Section:
    """Return the section of the longest runs in a folder of results/; of several, the largest."""
    known = read_sections(RESULTS / folder)[0]
    return max(known, key=lambda section: (length(section), len(section.runs)))


def studies_in(folder: str) -> list[Study]:
    """Return the studies of the runs in a folder of results/."""
    return evidence.studies(read_sections(RESULTS / folder)[0])


def panel_in(section: Section, name: str) -> Panel:
    """Return a panel; PANEL/SPLIT is one with the readings of another split."""
    name, _, split = name.partition("/")
    panel = choose("panel", name, section.panels)
    moved = dict(split=split, title=f"{panel.title}, {split}") if split else {}
    return dataclasses.replace(panel, **moved)


@functools.cache
def studied() -> list[Study]:
    """Return the studies of all stored runs."""
    return evidence.studies(read_sections(RESULTS, apart=True)[0])


def compared() -> list[Study]:
    """Return the strongest study of each experiment."""
    return evidence.by_experiment(studied(), evidence.strength)


# --- Blocks ---


def results(docs: str = "docs") -> str:
    """Return layer norm's speed-up by experiment: `results [DOCS]`, the way to docs/."""
    known = [(study, f"{docs}/results/{study.section.experiment}.md") for study in compared()]
    rows = [(f"[{study.title}]({page})", *study.cells) for study, page in known]
    return markdown(evidence.HEAD, rows, texts=2)


def all_claims() -> str:
    """Return the verdicts on all claims; results/theory.json has those of the analysis."""
    shown = claims.page(RESULTS, stored_analysis())
    return environment().get_template("claims.md").render(**shown).strip()


def stored_analysis() -> list[Check]:
    """Return the checks in results/theory.json."""
    return claims.read_checks(ANALYSIS)


def analysis() -> str:
    """Return the statements that the analysis checks."""
    texts: dict[int | None, str] = {claim.number: claim.text for claim in CLAIMS}
    words, checks = claims.WORDS, stored_analysis()
    rows = [(c.statement or texts[c.number], words[c.holds], c.because) for c in checks]
    return markdown(("statement", "verdict", "numbers"), rows, texts=3)


def settings(folder: str) -> str:
    """Return the settings that differ from the paper's."""
    changes = section_in(folder).changes
    pairs = (text.split(": ", 1) for text in changes if not text.startswith("eval_every"))
    rows = [(f"`{key}`", *values.split(" -> ")) for key, values in pairs]
    return markdown(("setting", "the paper", "ours"), rows)


def curves(folder: str, *words: str) -> str:
    """Return readings of panels by norm: `curves FOLDER PANEL... at X,X,... [by seed]`.

    X counts updates or epochs.
    """
    at = words.index("at")
    places, by_seed = list(map(float, words[at + 1].split(","))), words[at + 2 :] == ("by", "seed")
    study, rows = by_length(studies_in(folder))[-1], []
    for name in words[:at]:
        panel = dataclasses.replace(panel_in(study.section, name), x_per=1, x_plus=0)
        title = f"{panel.label}, {panel.title}: " if at > 1 else ""
        for rate, section in sorted(study.sections.items()):
            series = section.series(panel.where)
            for norm, (label, *_) in styles_of(series).items():
                curve = from_readings(series[norm].readings, panel, series[norm].stored.finished)
                assert curve is not None, f"no readings of {name}"
                values = [panel.times * curve.at(x) for x in places]
                if by_seed:
                    texts = [", ".join(f"{y:{panel.digits}}" for y in v) or "–" for v in values]
                else:
                    texts = [number(lanes, panel.digits) for lanes in values]
                rows.append([title + label + at_rate(rate, study), *texts])
    head = f"{COUNTS[panel.x]}s" if at > 1 else f"{panel.label}, after … {COUNTS[panel.x]}s"
    return markdown([head, *(f"{x:,g}" for x in places)], rows)


def numbers(folder: str, name: str, _at: str = "at", places: str = "") -> str:
    """Return ours beside the paper's in a panel: `numbers FOLDER PANEL [at X,X,...]`; summaries."""
    section = section_in(folder)
    landmarks = tuple(map(float, places.split(","))) if places else ()
    panel = dataclasses.replace(panel_in(section, name), landmarks=landmarks)
    table = table_of(panel, *gather(section))
    return markdown([table["title"], *table["head"]], table["rows"])


def falls(folder: str, name: str, _at: str, levels: str) -> str:
    """Return when each norm's curves first reach levels: `falls FOLDER PANEL at LEVEL,LEVEL,...`.

    A cell has the median over seeds and how many seeds reach the level. The interval of the median
    extends from one sorted time to another, a seed that never reaches the level counting as
    infinitely late: it needs no other assumption, and no estimate of what follows the training.
    """
    study, places = by_length(studies_in(folder))[-1], [float(level) for level in levels.split(",")]
    panel, rows, head = panel_in(study.section, name), [], ["", "seeds"]
    for level in places:
        head += [f"{panel.x_label} when {panel.times * level:g} is reached", "the paper"]
    for rate, gathered in sorted(study.curves.items()):
        ours, theirs = (by_norm(panel, curves) for curves in gathered)
        for norm, (label, *_) in styles_of(ours).items():
            cells = [label + at_rate(rate, study), str(len(ours[norm].lanes))]
            for level in places:
                known = norm in theirs
                paper = first(as_line(theirs[norm]), level, panel.falling) if known else "–"
                cells += [waiting(ours[norm].first(level, panel.falling)), paper]
            rows.append(cells)
    return markdown(head, rows)


def at_rate(rate: float, study: Study) -> str:
    """Return ", 0.001" if a study has several learning rates, else nothing."""
    return f", {rate:g}" if len(study.sections) > 1 else ""


def waiting(times: np.ndarray) -> str:
    """Return the median of times, its 95 % interval, and how many are not NaN."""
    count, reached = len(times), int(np.isfinite(times).sum())
    if not reached:
        return f"never in {count}"
    from scipy.stats import binom  # takes a second or two, and no page needs it

    ordered = np.sort(np.nan_to_num(times, nan=np.inf))
    outside = int(binom.ppf(0.025, count, 0.5))  # sorted times on each side to leave out
    span = f" [{ordered[outside - 1]:g}, {ordered[-outside]:g}]" if outside else ""
    return f"{np.median(ordered):g}{span}, {reached} of {count}".replace("inf", "never")


def table(folder: str) -> str:
    """Return the table of the paper that runs belong to, with the paper's rows and ours."""
    section = section_in(folder)
    (shown,) = section.tables
    head = ["", *(column.label for column in shown.columns), "seeds", "updates"]
    rows = rows_of(shown, gather(section).ours)
    return markdown(head, [(row["model"], *row["cells"]) for row in rows])


def rates(folder: str) -> str:
    """Return layer norm's gains over no norm at each learning rate: `rates FOLDER`."""
    rows, known = [], by_length(studies_in(folder))
    for study in known:
        length, faster, better = study.section.values("steps"), study.faster, study.better
        pairs = {f"{rate:g}": (rate, rate) for rate in study.by_rate}
        pairs["each at its best"] = study.best_rate(NORM), study.best_rate(BASELINE)
        for name, both in pairs.items():
            gains = ((part, study.gains(part, *both)) for part in (faster, better))
            rows.append((length, name, *(study.words(*pair) for pair in gains)))
    head = "length", "learning rate of both norms", "speed-up", f"end: {known[0].end_panel.label}"
    return markdown(head, rows, texts=2)


def surface(folder: str, end: str = "") -> str:
    """Return the speed-up by length of the sequences and batch size: `surface FOLDER [end]`.

    With "end" it is how far layer norm is ahead at the end.
    """
    known = evidence.by_shape(studies_in(folder))
    lengths, sizes = (sorted(set(values)) for values in zip(*known, strict=True))

    def cell(T: int, B: int) -> str:
        study = known.get((T, B))
        if study is None or not study.by_rate:
            return "–"
        part = study.better if end else study.faster
        return study.words(part, study.gains(part, study.rate, study.rate))

    rows = [(f"{T} steps", *(cell(T, B) for B in sizes)) for T in lengths]
    return markdown(["sequences of", *(f"batch size {B}" for B in sizes)], rows)


def by_length(studies: list[Study]) -> list[Study]:
    """Return studies in order of the length of their runs, the longest last."""
    return sorted(studies, key=lambda study: length(study.section))


def length(section: Section) -> float:
    """Return the length of the runs of a section, in epochs or steps."""
    return read_length(section.runs[0].stored.config["steps"])[0]


def speed(benchmark: str) -> str:
    """Return the measurements of a benchmark: `speed BENCHMARK`."""
    return timing.table(json.loads((RESULTS / "speed" / f"{benchmark}.json").read_text()))


def quote(path: str) -> str:
    """Return the tables that a text file has."""
    text = (RESULTS / path).read_text(encoding="utf-8")
    return "\n\n".join(re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)).replace("\n\n\n", "\n\n")


MAKERS = analysis, results, settings, curves, numbers, rates, surface, falls, table, speed, quote
BLOCKS = {make.__name__: make for make in MAKERS} | {"claims": all_claims}


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
    known.globals |= dict(curves=charts.CURVES, config=charts.CONFIG, symbols=charts.SYMBOLS)
    known.globals["library"] = charts.library
    return known
