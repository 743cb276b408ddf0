"""Copies the runs of a plan to the folder of results."""

from pathlib import Path

import experiments
from ln.errors import InputError, writing
from ln.training import runs
from scripts.engines.stages import Stage
from scripts.pages import documents

COPIED = ("config.json", "sessions.jsonl", "finished.json", "diverged.jsonl", "dead.jsonl")
LARGEST = 20e6  # bytes of the folder of results, which each clone downloads


def collect(stages: list[Stage], results: Path, dry_run: bool = False) -> None:
    """Copy finished and diverged runs to results/<experiment>/<stage>/<run>.

    Other files of these folders stay as they are. Then the tables in documents are written anew.

    Raises:
        InputError: something else than an earlier state of the run has that folder, or the folder
            of results would be too large.
    """
    stored = [runs.read(folder) for stage in stages for folder in runs.find(stage.folder)]
    texts = dict[Path, str]()
    for run in stored:
        if run.finished or run.diverged:
            folder = results / run.config["experiment"] / Path(*run.folder.parts[-2:])
            check(run, folder)
            texts |= {folder / name: text for name, text in contents(run).items()}
            if dry_run:
                print(f"{run.folder} -> {folder}")
    others = [p for p in results.rglob("*") if p.is_file() and p not in texts]
    size = sum(p.stat().st_size for p in others) + sum(len(t.encode()) for t in texts.values())
    if size > LARGEST:
        raise InputError(
            f"{results} would have {size / 1e6:.1f} MB, and {LARGEST / 1e6:.0f} MB is the most: "
            f"take fewer stages with --only, or move old runs away."
        )
    copied = len({path.parent for path in texts})
    print(f"{copied} runs {'would be' if dry_run else 'are'} copied to {results}.")
    if dry_run:
        return
    with writing(results, "folder for the plan's file"):
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            runs.write_atomically(path, text)
    if results.resolve() == documents.RESULTS:
        documents.write()


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
