"""Read the five tasks that sentence vectors are tried on (§6.3, table 3).

    python -m scripts.data sentences --from=DIR

The files are those that skip-thoughts' code reads; SentEval's names are known too. MR (Pang and Lee
2005), CR (Hu and Liu 2004), SUBJ (Pang and Lee 2004), MPQA (Wiebe et al. 2005) are two files each,
with a sentence a line. Class 1 comes first: positive sentences, and in SUBJ the objective ones,
from plots; the subjective ones are from reviews. SICK (Marelli et al. 2014) has pairs of sentences
with scores of their relatedness from 1 to 5, separated by tabs.
"""

import re

import numpy as np

from experiments.datasets import Dataset, arrays, text, vocabulary
from experiments.datasets.originals import Source
from ln.errors import InputError

TASKS = {  # task -> the files of class 1 and of class 0
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
FILES = [name for files in (*TASKS.values(), SICK.values()) for name in files]
SENTEVAL = {"subj.objective": "plot.tok.gt9.5000", "subj.subjective": "quote.tok.gt9.5000"}
# Names as people have them: in small letters or capitals, with or without .txt.
NAMES = {name.lower().removesuffix(".txt"): name for name in FILES} | SENTEVAL
FILE = re.compile(rf"(?:.*/)?({'|'.join(map(re.escape, NAMES))})(?:\.txt)?", re.IGNORECASE)


def read(source: Source) -> arrays.Splits:
    """Return the tasks of a source, each as a split, or three. Leave out those without their files.

    Raises:
        InputError: there is no whole task, or a file is empty or broken.
    """
    lines: dict[str, list[str]] = {}
    for match, file in source.files(FILE):
        # MR and SUBJ are in Windows' encoding.
        lines[NAMES[match[1].lower()]] = text.filled(file, match[0], legacy="cp1252")
    splits: dict[str, dict[str, np.ndarray]] = {}
    for task, files in {**TASKS, "sick": tuple(SICK.values())}.items():
        if missing := [name for name in files if name not in lines]:
            print(f"sentences: {task} left out, {source.path} has no {', '.join(missing)}")
        elif task in TASKS:
            splits[task] = classes(*(lines[name] for name in files))
        else:
            splits |= {split: pairs(name, lines[name]) for split, name in SICK.items()}
    if not splits:
        raise InputError(f"{source.path} has all files of no task.")
    return splits


def classes(positive: list[str], negative: list[str]) -> dict[str, np.ndarray]:
    """Return the split of a task of two classes."""
    labels = np.repeat(np.array([1, 0], np.int8), [len(positive), len(negative)])
    return dict(text=vocabulary.join(positive + negative), labels=labels)


def pairs(name: str, lines: list[str]) -> dict[str, np.ndarray]:
    """Return the pairs of a file of SICK, with or without its header.

    Raises:
        InputError: a line is not a row of the table.
    """
    texts, scores = [], []
    for line in lines:
        cells = [cell.strip() for cell in line.split("\t")]
        if cells[0] == "pair_ID":
            continue
        try:
            a, b, score = cells[1], cells[2], float(cells[3])
        except (IndexError, ValueError):
            score = np.nan
        if not 1 <= score <= 5:
            raise InputError(
                f"{name}: expected a number, two sentences and a score from 1 to 5, separated by "
                f"tabs; found {line[:80]!r}."
            )
        texts += [a, b]
        scores.append(score)
    return dict(text=vocabulary.join(texts), scores=np.array(scores, np.float32))


DATASET = Dataset(
    title="sentence tasks",
    read=read,
    needs=f"a folder or archive with {', '.join(FILES)}",
    budget=2**27,
    records=dict(mr=10_662, cr=3_771, subj=10_000, mpqa=10_603)
    | dict(sick_train=4_500, sick_valid=500, sick_test=4_927),
    url="the papers named in experiments/datasets/corpora/sentences.py",
)
