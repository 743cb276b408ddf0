"""Copies the runs of a plan to the folder of results."""

from pathlib import Path

import experiments
from ln.errors import InputError, writing
from ln.training import runs
from scripts.engines.stages import Length, Stage
from scripts.pages import documents

MOST = 20 * 2**20  # bytes of runs
COPIED = ("config.json", "sessions.jsonl", "finished.json", "diverged.jsonl", "dead.jsonl")


def collect(stages: list[Stage], results: Path, dry_run: bool = False) -> None:
    """Copy finished and diverged runs to results/<experiment>/<stage>/<run>.

    Other files of these folders stay as they are. The documents' tables are written anew.

    Raises:
        InputError: another run or no run has that folder, or the results would be too large.
    """
    written: dict[Path, str] = {}
    copied = 0
    for run in (runs.read(folder) for stage in stages for folder in runs.find(stage.folder)):
        if not run.finished and not run.diverged:
            continue
        place = results / run.config["experiment"] / run.folder.parent.name / run.folder.name
        check(run, place)
        written |= {place / name: text for name, text in contents(run).items()}
        copied += 1
        if dry_run:
            print(f"{run.folder} -> {place}")
    size = sum(len(text.encode()) for text in written.values())
    if results.resolve().name == "results":  # else the folder holds more than results
        files = (path for name in experiments.names() for path in (results / name).rglob("*"))
        size += sum(path.stat().st_size for path in files if path.is_file() and path not in written)
    if size > MOST:
        raise InputError(
            f"The runs in {results} would take {size / 2**20:.1f} MB; the limit is "
            f"{MOST / 2**20:.0f} MB. Move runs away, or collect fewer stages with --only."
        )
    if not dry_run:
        with writing(results, "folder for the plan's file"):
            for path, text in written.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                runs.write_atomically(path, text)
        if results.resolve() == documents.RESULTS:
            documents.write()
    done = "would be copied" if dry_run else "copied"
    print(f"{copied} runs {done} to {results}; its runs take {size / 2**20:.1f} MB.")


def check(run: runs.Stored, place: Path) -> None:
    """Raise InputError if a place holds something else than an earlier state of the run."""
    if not place.exists():
        return
    if not (place / "config.json").is_file():
        raise InputError(f"{place} exists and is not a run; move it away.")
    known, config = runs.read(place).config, run.config
    aside = {key: config[key] for key in (*runs.PLACES, runs.LENGTH)}
    longer = Length.read(known[runs.LENGTH]).count > Length.read(config[runs.LENGTH]).count
    if known | aside != config or longer:
        raise InputError(f"{place} is not the run in {run.folder}; move one of them away.")


def contents(run: runs.Stored) -> dict[str, str]:
    """Return the files to copy; of the metrics those of updates only if a figure shows them."""
    file = experiments.part(run.config["experiment"], "figures")
    panels = [panel for figure in getattr(file, "FIGURES", ()) for panel in figure.panels]
    drawn = any(panel.split == "update" for panel in panels)
    kept = [row.row for row in run.rows if row.split != "update" or drawn]
    files = (run.folder / name for name in COPIED)
    texts = {file.name: file.read_text(encoding="utf-8") for file in files if file.exists()}
    return texts | {"metrics.jsonl": "".join(map(runs.to_line, kept))}
