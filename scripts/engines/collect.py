"""Copies the runs of a plan to the folder of results."""

from pathlib import Path

import experiments
from ln.errors import InputError, writing
from ln.training import runs
from scripts.engines.stages import Stage
from scripts.pages import documents

COPIED = ("config.json", "sessions.jsonl", "finished.json", "diverged.jsonl", "dead.jsonl")


def collect(stages: list[Stage], results: Path, dry_run: bool = False) -> None:
    """Copy finished and diverged runs to results/<experiment>/<stage>/<run>.

    Other files of these folders stay as they are. Then the tables in documents are written anew.

    Raises:
        InputError: something else than an earlier state of the run has that folder.
    """
    stored = [runs.read(folder) for stage in stages for folder in runs.find(stage.folder)]
    stored = [run for run in stored if run.finished or run.diverged]
    places = [results / place(run) for run in stored]
    for run, folder in zip(stored, places, strict=True):
        check(run, folder)
        if dry_run:
            print(f"{run.folder} -> {folder}")
    print(f"{len(stored)} runs {'would be' if dry_run else 'are'} copied to {results}.")
    if dry_run:
        return
    with writing(results, "folder for the plan's file"):
        for run, folder in zip(stored, places, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in contents(run).items():
                runs.write_atomically(folder / name, text)
    if results.resolve() == documents.RESULTS:
        documents.write()


def place(run: runs.Stored) -> Path:
    return Path(run.config["experiment"], *run.folder.parts[-2:])


def check(run: runs.Stored, folder: Path) -> None:
    """Raise InputError if a folder holds something else than an earlier state of the run."""
    if not folder.exists():
        return
    known = runs.read(folder).config if (folder / "config.json").is_file() else {}
    aside = {key: run.config[key] for key in (*runs.PLACES, runs.LENGTH)}
    longer = known and runs.read(folder).progress() > run.progress()
    if known | aside != run.config or longer:
        raise InputError(f"{folder} is not the run in {run.folder}; move one of them away.")


def contents(run: runs.Stored) -> dict[str, str]:
    """Return the files to copy; of the metrics those of updates only if a figure shows them."""
    file = experiments.part(run.config["experiment"], "figures")
    panels = [panel for figure in getattr(file, "FIGURES", ()) for panel in figure.panels]
    drawn = any(panel.split == "update" for panel in panels)
    kept = [row.row for row in run.rows if row.split != "update" or drawn]
    files = (run.folder / name for name in COPIED)
    texts = {file.name: file.read_text(encoding="utf-8") for file in files if file.exists()}
    return texts | {"metrics.jsonl": "".join(map(runs.to_line, kept))}
