"""Draw figures, fill tables and decide claims from run folders: one page, <out>/index.html.

    python -m scripts.report --runs=runs/small
    python -m scripts.report --runs=runs/paper --out=report/paper
    python -m scripts.report --theory --out=report/theory
    python -m scripts.report --claims --runs=runs/small
    python -m scripts.report --documents
    python -m scripts.report --csv --latex --markdown --runs=runs/small

The page shows every run folder below --runs, also of runs in progress; curves and numbers leave out
diverged lanes. A broken run is skipped and named at the end. The file figures.py of an experiment
lists what to draw (without it the page shows every metric); the paper's curves are in
results/published/. The page contains all it needs; a chart's menu saves it as SVG or PNG.

--theory needs no runs: it checks the claims of section 5 (experiments/theory/) in less than a
minute, and also writes checks.json. --claims shows all claims of the paper and their verdicts by
the analysis and by the runs below --runs, if any; runs in different folders, or with different
settings, are different tests of a claim. If the folder theory beside it has checks.json, the
command takes these and saves a minute.

--csv, --latex and --markdown write tables in place of a page: the final results of all runs, each
lane at its best step by config.select, as results.csv, .tex and .md; with --csv also all rows of
all runs as metrics.csv. They need pandas.

--documents writes the tables of README.md, docs/ and results/README.md, and two of their figures,
anew from results/ (scripts/pages/documents.py). It computes the analysis only if
results/theory.json is missing.
"""

import datetime
from pathlib import Path

from absl import flags

from ln.errors import InputError, writing
from scripts import cli

RUNS = flags.DEFINE_string("runs", None, "folder of runs, at any depth [runs/small]")
THEORY = flags.DEFINE_bool("theory", False, "section 5 as numbers, instead of runs")
CLAIMS = flags.DEFINE_bool("claims", False, "all claims of the paper, with verdicts")
DOCUMENTS = flags.DEFINE_bool("documents", False, "the tables of README.md and docs/, instead")
TABLES = dict(csv="results.csv", latex="results.tex", markdown="results.md")  # flag -> file
for word, name in TABLES.items():
    flags.DEFINE_bool(word, False, f"the final results as a table, {name}")
OUT = flags.DEFINE_string("out", None, "folder of the page [report, report/theory, report/claims]")

PAGE, CHECKS = "index.html", "checks.json"
MARK = '<meta name="generator" content="scripts.report">'  # in every page of this command


def write_tables(root: Path, out: Path, words: list[str]) -> None:
    """Write the final results in the formats of these flags, and with "csv" all metrics too."""
    from ln.training import runs
    from scripts.pages.tables import markdown

    results = runs.results(root)
    shown = results.map(lambda value: f"{value:.4g}" if isinstance(value, float) else value)
    lines = markdown(results.columns, shown.replace("nan", "–").itertuples(index=False), texts=6)
    texts = dict(csv=results.to_csv(index=False), markdown=f"{lines}\n")
    texts["latex"] = results.to_latex(index=False, escape=True)
    files = {TABLES[word]: texts[word] for word in words}
    if "csv" in words:
        files["metrics.csv"] = runs.table(root).to_csv(index=False)
    with writing(out, "--out"):
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (out / name).write_text(text, encoding="utf-8")
            print(out / name)


def main(_):
    """Write the page or the documents that the flags ask for."""
    if THEORY.value + CLAIMS.value + DOCUMENTS.value > 1:
        raise InputError("Give one of --theory, --claims and --documents.")
    words = [word for word in TABLES if flags.FLAGS[word].value]
    if words and (THEORY.value or CLAIMS.value or DOCUMENTS.value):
        raise InputError(
            f"--{words[0]} writes tables of runs: give it without another kind of page."
        )
    if (RUNS.value and (THEORY.value or DOCUMENTS.value)) or (OUT.value and DOCUMENTS.value):
        raise InputError("--theory takes no --runs, and --documents neither --runs nor --out.")
    if DOCUMENTS.value:
        from scripts.pages import documents

        return documents.write()
    if words:
        if not Path(RUNS.value or "runs/small").is_dir():
            raise InputError(f"--runs={RUNS.value} is no folder. Give the folder of your runs.")
        return write_tables(Path(RUNS.value or "runs/small"), Path(OUT.value or "report"), words)
    kind = "theory" if THEORY.value else "claims" if CLAIMS.value else "results"
    out = Path(OUT.value or ("report" if kind == "results" else f"report/{kind}"))
    file = out / PAGE
    if out.exists() and not out.is_dir():
        raise InputError(f"--out={out} is a file. Give a folder.")
    if file.exists() and MARK not in file.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f"{file} is not a page of this command. Choose another --out.")

    from ln.training import runs
    from scripts.pages import claims, documents, results

    if kind == "theory":
        shown = claims.analysis_page()
    elif kind == "claims":
        stored = out.parent / "theory" / CHECKS
        checks = claims.read_checks(stored) if stored.is_file() else None
        shown = claims.page(Path(RUNS.value) if RUNS.value else None, checks)
    else:
        shown = results.page(Path(RUNS.value or "runs/small"))
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    template = documents.environment().get_template(f"{kind}.html")
    with writing(out, "--out"):
        out.mkdir(parents=True, exist_ok=True)
        if kind == "theory":
            runs.write_atomically(out / CHECKS, claims.checks_as_json(shown["results"]))
        for left in out.glob(f"{PAGE}.*.tmp"):  # by a report that was killed
            left.unlink()
        runs.write_atomically(file, template.render(**shown, made=made, mark=MARK))
    print(f"The report: {file}")


if __name__ == "__main__":
    cli.run(main)
