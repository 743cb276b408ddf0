"""Copies the runs of a plan to the folder of results."""

import json
from pathlib import Path
import shutil

import experiments
from ln.errors import InputError
from ln.training import runs
from scripts.engines.stages import DIVERGED, Stage, has_diverged, number

MOST = 20 * 2**20  # bytes in the folder of results
COPIED = ("config.json", "sessions.jsonl", "finished.json", *DIVERGED)


def collect(stages: list[Stage], results: Path) -> None:
    """Copy finished and diverged runs to results/<experiment>/<stage>/<run>.

    Raises:
        InputError: another run has that folder, or the results would be too large.
    """
    copies: dict[Path, dict[str, str]] = {}
    for folder in (folder for stage in stages for folder in runs.find(stage.folder)):
        if not runs.is_finished(folder) and not has_diverged(folder):
            continue
        config, rows = runs.load(folder)
        target = results / config["experiment"] / folder.parent.name / folder.name
        aside = {key: config[key] for key in (*runs.PLACES, runs.LENGTH)}
        known = runs.load(target)[0] if (target / "config.json").exists() else config
        if known | aside != config or number(known[runs.LENGTH]) > number(config[runs.LENGTH]):
            raise InputError(f"{target} is not the run in {folder}; move one of them away.")
        file = experiments.part(config["experiment"], "figures")
        figures = getattr(file, "FIGURES", ())
        drawn = {panel.split for figure in figures for panel in figure.panels}
        kept = [row for row in rows if row["split"] != "update" or "update" in drawn]
        texts = {name: (folder / name).read_text() for name in COPIED if (folder / name).exists()}
        copies[target] = texts | {"metrics.jsonl": "".join(json.dumps(row) + "\n" for row in kept)}
    size = sum(len(text) for texts in copies.values() for text in texts.values())
    others = (p for p in results.rglob("*") if p.is_file() and p.parent not in copies)
    if (size := size + sum(path.stat().st_size for path in others)) > MOST:
        raise InputError(f"{results} would have {size / 2**20:.1f} MB; 20 MB are the limit.")
    for target, texts in copies.items():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name, text in texts.items():
            (target / name).write_text(text)
    print(f"{len(copies)} runs copied to {results}, which has {size / 2**20:.1f} MB.")
