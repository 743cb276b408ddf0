"""Copies the runs of a plan to the folder of results."""

import json
from pathlib import Path

import experiments
from ln.errors import InputError, writing
from ln.training import runs
from scripts.engines.stages import DIVERGED, Stage, has_diverged
from scripts.engines.tables import number

MOST = 20 * 2**20  # bytes of runs
COPIED = ("config.json", "sessions.jsonl", "finished.json", *DIVERGED)


def collect(stages: list[Stage], results: Path, dry_run: bool = False) -> None:
    """Copy finished and diverged runs to results/<experiment>/<stage>/<run>.

    Other files of these folders stay as they are.

    Raises:
        InputError: another run or no run has that folder, or the results would be too large.
    """
    copies: dict[Path, dict[str, str]] = {}
    for folder in (folder for stage in stages for folder in runs.find(stage.folder)):
        if not runs.is_finished(folder) and not has_diverged(folder):
            continue
        config, rows = runs.load(folder)
        target = results / config["experiment"] / folder.parent.name / folder.name
        if target.exists() and not (target / "config.json").is_file():
            raise InputError(f"{target} exists and is not a run; move it away.")
        aside = {key: config[key] for key in (*runs.PLACES, runs.LENGTH)}
        known = runs.load(target)[0] if target.exists() else config
        if known | aside != config or number(known[runs.LENGTH]) > number(config[runs.LENGTH]):
            raise InputError(f"{target} is not the run in {folder}; move one of them away.")
        file = experiments.part(config["experiment"], "figures")
        figures = getattr(file, "FIGURES", ())
        drawn = {panel.split for figure in figures for panel in figure.panels}
        kept = [row for row in rows if row["split"] != "update" or "update" in drawn]
        texts = {name: (folder / name).read_text() for name in COPIED if (folder / name).exists()}
        copies[target] = texts | {"metrics.jsonl": "".join(json.dumps(row) + "\n" for row in kept)}
        if dry_run:
            print(f"{folder} -> {target}")
    written = {
        target / name: text for target, texts in copies.items() for name, text in texts.items()
    }
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
    done = "would be copied" if dry_run else "copied"
    print(f"{len(copies)} runs {done} to {results}; its runs take {size / 2**20:.1f} MB.")
