"""The five tasks that vectors of sentences are tried on (§6.3, table 3), in the files that
skip-thoughts' code reads.

    python -m scripts.data sentences --from=DIR

MR (Pang and Lee 2005), CR (Hu and Liu 2004), SUBJ (Pang and Lee 2004), MPQA (Wiebe et al. 2005):
two files of sentences each, one a line. Class 1 comes first: what is positive, and of SUBJ what is
objective, sentences of plots, whose others are of reviews. SICK (Marelli et al. 2014): pairs of
sentences with scores of how related they are, from 1 to 5, tab separated.

Whoever wrote the files used UTF-8 or, as MR's and SUBJ's did, Windows' code page 1252; which of
them is found out for each file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.datasets import Dataset, vocabulary
from ln.errors import InputError

CLASSES = {  # task -> the files of class 1 and of class 0
    "mr": ("rt-polarity.pos", "rt-polarity.neg"),
    "cr": ("custrev.pos", "custrev.neg"),
    "subj": ("plot.tok.gt9.5000", "quote.tok.gt9.5000"),
    "mpqa": ("mpqa.pos", "mpqa.neg"),
}
SICK = {  # split -> file
    "sick_train": "SICK_train.txt",
    "sick_valid": "SICK_trial.txt",
    "sick_test": "SICK_test_annotated.txt",
}
TASKS: dict[str, tuple[str, ...]] = {**CLASSES, "sick": tuple(SICK.values())}
COUNTS = {  # file -> sentences, or pairs, of the original
    **{"rt-polarity.pos": 5331, "rt-polarity.neg": 5331, "custrev.pos": 2405, "custrev.neg": 1366},
    **{"plot.tok.gt9.5000": 5000, "quote.tok.gt9.5000": 5000, "mpqa.pos": 3311, "mpqa.neg": 7292},
    **{"SICK_train.txt": 4500, "SICK_trial.txt": 500, "SICK_test_annotated.txt": 4927},
}


class Lines(NamedTuple):
    """The lines of a file that have something on them.

    Attributes:
        numbers: of each, counted from 1 over all lines.
        blank: how many have not.
    """

    texts: list[str]
    numbers: list[int]
    encoding: str
    blank: int


def read_lines(path: Path) -> Lines:
    """The lines of a text of either encoding.

    Raises:
        InputError: it cannot be read, or is neither UTF-8 nor code page 1252.
    """
    try:
        data, encoding = path.read_bytes(), "UTF-8"
    except OSError as error:
        raise InputError(f"Cannot read {path} ({error}).") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding = "cp1252"
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise InputError(
                f"{path}, line {line:,}: {data[error.start : error.end]!r} is neither UTF-8 nor "
                f"Windows-1252. Get the original file again."
            ) from error
    # Not str.splitlines, which knows ends of lines that only Unicode knows.
    lines = [line.strip() for line in text.replace("\r\n", "\n").split("\n")]
    if lines[-1] == "":
        lines.pop()
    kept = [n for n, line in enumerate(lines) if line]
    texts = [lines[n] for n in kept]
    return Lines(texts, [n + 1 for n in kept], encoding, len(lines) - len(kept))


def classes(positive: Lines, negative: Lines) -> dict[str, np.ndarray]:
    """The split of a task of two classes."""
    labels = np.repeat(np.array([1, 0], np.int8), [len(positive.texts), len(negative.texts)])
    return dict(text=vocabulary.join(positive.texts + negative.texts), labels=labels)


def pairs(path: Path, lines: Lines) -> dict[str, np.ndarray]:
    """The pairs of a file of SICK.

    Raises:
        InputError: a line is not one of the table; the message names it.
    """
    texts, scores = [], []
    for number, line in list(zip(lines.numbers, lines.texts, strict=True))[1:]:
        cells = [cell.strip() for cell in line.split("\t")]
        try:
            a, b, score = cells[1], cells[2], float(cells[3])
        except (IndexError, ValueError):
            score = np.nan
        if not 1 <= score <= 5:
            raise InputError(
                f"{path}, line {number:,}: expected a number, two sentences and a score from 1 to "
                f"5, separated by tabs; found {line[:80]!r}."
            )
        texts += [a, b]
        scores.append(score)
    return dict(text=vocabulary.join(texts), scores=np.array(scores, np.float32))


def find(source: Path) -> dict[str, Path]:
    """The files of complete tasks, wherever they are below a folder, by name.

    Raises:
        InputError: no task is complete, one has only some of its files, or a file is there twice.
    """
    if not source.is_dir():
        raise InputError(f"{source} is not a folder.")
    found: dict[str, list[Path]] = {name: [] for name in COUNTS}
    for path in sorted(source.rglob("*")):
        if path.name in found and path.is_file():
            found[path.name].append(path)
    for name, paths in found.items():
        if len(paths) > 1:
            raise InputError(
                f"{source} has several {name}: {', '.join(map(str, paths))}. Keep one."
            )
    missing = {task: [n for n in names if not found[n]] for task, names in TASKS.items()}
    partly = {t: lacking for t, lacking in missing.items() if 0 < len(lacking) < len(TASKS[t])}
    if partly or all(missing.values()):
        lacking = partly or missing
        what = "; ".join(f"{task}: {', '.join(names)}" for task, names in lacking.items())
        raise InputError(
            f"{source} lacks files ({what}). There is nowhere to download them from: they came "
            f"with the papers named in experiments/datasets/corpora/sentences.py. A task of which "
            f"all are missing is left out; the built-in stand-in is the data set library."
        )
    if left_out := [task for task, names in missing.items() if names]:
        print(f"sentences: {', '.join(left_out)} left out, their files are not in {source}")
    return {name: paths[0] for name, paths in found.items() if paths}


def read(source: Path) -> dict[str, dict[str, np.ndarray]]:
    """The tasks in a folder, each a split, or three.

    Raises:
        InputError: see `find`, `read_lines` and `pairs`.
    """
    paths = find(source)
    lines = {name: read_lines(path) for name, path in paths.items()}
    splits = {
        task: classes(*(lines[name] for name in names))
        for task, names in CLASSES.items()
        if names[0] in lines
    }
    splits |= {
        split: pairs(paths[name], lines[name]) for split, name in SICK.items() if name in lines
    }
    is_pairs = set(SICK.values())
    print(summary({n: (found, len(found.texts) - (n in is_pairs)) for n, found in lines.items()}))
    return splits


def summary(files: Mapping[str, tuple[Lines, int]]) -> str:
    """What each file has, and what it has otherwise than the original."""
    rows = []
    for name, (lines, count) in files.items():
        blank = f", {lines.blank} blank line(s) left out" if lines.blank else ""
        other = "" if count == COUNTS[name] else f"  NOTE: the original has {COUNTS[name]:,}"
        rows.append(f"  {name:<24}{count:>7,}  {lines.encoding}{blank}{other}")
    return "\n".join(rows)


DATASET = Dataset(
    title="sentence tasks",
    read=lambda source: read(source.path),
    needs=f"a folder with {', '.join(COUNTS)}",
    budget=2**27,
    url="the papers named in experiments/datasets/corpora/sentences.py",
)
