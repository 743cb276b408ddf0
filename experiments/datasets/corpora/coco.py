"""MSCOCO: photographs, each described by five people (Lin et al. 2014, Chen et al. 2015).

Vendrov et al. (2016), on whose code the paper builds, took Karpathy's split and of each photograph
the activations of VGG-19's layer fc7 after its ReLU, averaged over ten crops and scaled to norm 1.
Nothing here computes features: they come with the captions, in one of two layouts, in the folder
or archive (.zip, .tar, .tar.gz, .tar.xz) that is given, or in coco/ or data/coco/ in it.

The authors' own, 113,287 / 5,000 / 5,000 images:

    train.txt, val.txt, test.txt     captions, one a line, blanks between their words; the first
                                     five are of the first image, and so on
    images/10crop/train.npy, ...     float32 [N, 4096]; or the one other folder in images/

Karpathy's, where there is no train.txt:

    dataset_coco.json                {"images": [{"split": "train", "filename": "COCO_….jpg",
                                                  "sentences": [{"tokens": ["a", "man"]}]}]}
                                     restval is for training; the first five sentences count
    images/10crop/train.npy, ...     as above, rows as the split's images in dataset_coco.json
    features.npy                     or this, a row for each image of dataset_coco.json

Features are divided by their norm. As in the authors' code the vocabulary has all words of the
training images and of the first 1,000 validation images, by which they stopped.

Prepared: the arrays of `experiments.datasets.captions`; and, from dataset_coco.json, ``names``,
uint8: the names of the images' files, one a line.
"""

import dataclasses
import io
import itertools
import json
from pathlib import Path
import re
import shutil

import numpy as np

from experiments.datasets import Dataset, arrays, captions, text, vocabulary
from experiments.datasets.captions import CAPTIONS
from experiments.datasets.originals import Source, readable, table_of
from ln.errors import InputError, writing

SPLITS = dict(train="train", valid="val", test="test")  # split -> the stem of its files
SPLIT_OF = dict(train="train", restval="train", val="valid", test="test")  # Karpathy's -> ours
KARPATHY = "dataset_coco.json"
ALL = "features.npy"
DEV = 1_000  # validation images whose words are known
FOLDERS = ("", "coco/", "data/coco/", "*/", "*/coco/", "*/data/coco/")
WANTED = re.compile(r"(?:.*/)?(?:dataset_coco\.json|features\.npy|(?:train|val|test)\.(?:txt|npy))")


@dataclasses.dataclass(frozen=True)
class Features:
    """Rows of a .npy file, each divided by its norm; read on demand.

    The file is mapped anew for every slice, so that no more of it stays in memory.

    Attributes:
        path: a file of floats ``[n, D]``.
        rows: the rows to use, ``[N]``.
        norms: their norms, float32 ``[N]``.
        shape: N and D.
    """

    path: Path
    rows: np.ndarray
    norms: np.ndarray
    shape: tuple[int, int]
    dtype = np.dtype(np.float32)

    @classmethod
    def from_file(cls, path: Path, rows: np.ndarray | None = None) -> "Features":
        """Return all rows of a file, or the given ones.

        Raises:
            InputError: there is no such file, it is truncated or not of floats ``[n, D]``, or a row
                is not finite or has a norm of 0.
        """
        values = mapped(path)
        rows = np.arange(len(values)) if rows is None else rows
        raw = cls(path, rows, np.ones(len(rows), np.float32), (len(rows), values.shape[1]))
        parts = [np.square(block, dtype=np.float64).sum(1) for block in arrays.blocks(raw)]
        norms = np.sqrt(np.concatenate(parts)).astype(np.float32)
        bad = rows[~(np.isfinite(norms) & (norms > 0))]
        if len(bad):
            raise InputError(
                f"{path}: expected finite numbers and a norm above 0 in every row, not so in "
                f"{len(bad):,} of {len(rows):,}, the first of them row {bad[0]:,} (from 0)."
            )
        return dataclasses.replace(raw, norms=norms)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> np.ndarray:
        with np.errstate(over="ignore"):  # float64 above float32's range: raised as not finite
            values = mapped(self.path)[self.rows[part]].astype(np.float32)
        return values / self.norms[part, None]


def mapped(path: Path) -> np.ndarray:
    """Return the floats ``[n, D]`` of a .npy file, mapped read-only.

    Raises:
        InputError: there is no such file, or it holds something else, or less.
    """
    with readable(path):
        try:
            values = np.lib.format.open_memmap(path, mode="r")
        except ValueError as error:
            raise InputError(f"{path} is no complete .npy file ({error}).") from error
    if values.ndim != 2 or values.dtype.kind != "f" or not values.size:
        raise InputError(
            f"{path}: expected floats [images, numbers of each], found {values.dtype} "
            f"{list(values.shape)}."
        )
    return values


def read(source: Source) -> arrays.Splits:
    """Return the splits of a folder or archive, and print what was read.

    Raises:
        InputError: a file is missing, damaged or does not fit another.
    """
    if source.path.is_dir():
        return read_folder(source.path)
    # The features are mapped, so an archive of them is unpacked first.
    folder = source.work()
    for name, file in source.files(WANTED):
        path = folder / name
        with writing(source.folder, "--data_dir"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as copy:
                shutil.copyfileobj(file, copy)
    try:
        return read_folder(folder)
    except InputError as error:  # it names a folder that will be gone
        raise InputError(str(error).replace(str(folder), str(source.path))) from error


def read_folder(folder: Path) -> arrays.Splits:
    """Return the splits of the folder with the captions, or of a folder around it."""
    root = find(folder)
    if (root / "train.txt").is_file():
        read, names = {split: lines(root / f"{stem}.txt") for split, stem in SPLITS.items()}, {}
        images = features(root)
    else:
        read, names, rows = read_karpathy(root / KARPATHY)
        images = features(root, rows)
    for split, values in images.items():
        count, width = CAPTIONS * len(values), values.shape[1]
        check(f"{values.path}: for its rows", count, len(read[split]), "captions")
        check(f"{values.path}: as in train", images["train"].shape[1], width, "numbers a row")
    words = vocabulary.by_count(itertools.chain(read["train"], read["valid"][: CAPTIONS * DEV]))
    splits = {split: captions.pack(images[split], read[split], words) for split in SPLITS}
    splits["train"]["words"] = vocabulary.join(words)
    for split in names:
        splits[split]["names"] = vocabulary.join(names[split])
    print(summary(splits, len(words)))
    return splits


def check(place: str, expected: int, actual: int, what: str) -> None:
    if expected != actual:
        raise InputError(f"{place} expected {expected:,} {what}, found {actual:,}.")


def find(folder: Path) -> Path:
    """Return the folder with the captions, in or below a folder.

    Raises:
        InputError: there is none, or more than one.
    """
    for place, name in itertools.product(FOLDERS, ("train.txt", KARPATHY)):
        paths = sorted(folder.glob(place + name))
        if len(paths) > 1:
            raise InputError(f"Give one of these folders: {', '.join(map(str, paths))}.")
        if paths:
            return paths[0].parent
    raise InputError(
        f"{folder} has no train.txt and no {KARPATHY}, and neither has coco or data/coco in it."
    )


def features(root: Path, rows: dict[str, np.ndarray] | None = None) -> dict[str, Features]:
    """Return the features of each split.

    Args:
        root: the folder with the captions.
        rows: those of each split in a file of all features, if there may be one.

    Raises:
        InputError: there are none, or a file cannot be used.
    """
    path = root / ALL
    if rows and path.is_file():
        total = sum(map(len, rows.values()))
        check(f"{path}: for {KARPATHY}", total, len(mapped(path)), "rows")
        return {split: Features.from_file(path, rows[split]) for split in SPLITS}
    folders = [path.parent for path in root.glob("images/*/train.npy")]
    folder = folders[0] if len(folders) == 1 else root / "images" / "10crop"
    return {split: Features.from_file(folder / f"{stem}.npy") for split, stem in SPLITS.items()}


def lines(path: Path) -> list[str]:
    """Return the captions of a file.

    Raises:
        InputError: there is no such file, no caption, or a blank line.
    """
    with readable(path):
        file = io.BytesIO(path.read_bytes())
    rows = list(text.lines(file, str(path), legacy="latin-1"))
    while rows and not rows[-1]:
        rows.pop()
    if not all(rows) or not rows:
        number = rows.index("") + 1 if rows else 1
        raise InputError(f"{path}: expected a caption in every line, line {number:,} is blank.")
    return rows


def read_karpathy(path: Path) -> tuple[dict, dict, dict]:
    """Return captions, names of images, and rows of features of each split.

    Raises:
        InputError: the file is damaged, or an image has too few captions.
    """
    sentences: dict[str, list[str]] = {split: [] for split in SPLITS}
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    rows: dict[str, list[int]] = {split: [] for split in SPLITS}
    with readable(path):
        data = path.read_bytes()
    try:
        for row, image in enumerate(json.loads(data, object_hook=slim)["images"]):
            split, name = SPLIT_OF[image["split"]], image["filename"]
            five = [sentence for sentence in image["sentences"][:CAPTIONS] if sentence.strip()]
            check(f"{path}: for {name}", CAPTIONS, len(five), "captions that are not empty")
            sentences[split] += five
            names[split].append(name)
            rows[split].append(row)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: expected {{"images": [{{"split": {" or ".join(SPLIT_OF)}, "filename", '
            f'"sentences": [{{"tokens"}}]}}]}} ({type(error).__name__}: {error}).'
        ) from error
    if empty := [split for split in SPLITS if not rows[split]]:
        raise InputError(f"{path} has no images of {', '.join(empty)}.")
    return sentences, names, {split: np.array(rows[split]) for split in SPLITS}


def slim(value: dict):
    """Return a sentence of JSON as its words, so that the rest of it need not be kept."""
    return text.clean(" ".join(value["tokens"])) if "tokens" in value else value


def summary(splits: arrays.Splits, words: int) -> str:
    """Return a table of what was read."""
    columns = {}
    for split, values in splits.items():
        lengths, tokens = np.diff(values["starts"]), values["tokens"]
        columns[split] = {
            "images": f"{len(values['images']):,}",
            "features of an image": f"{values['images'].shape[1]:,}",
            "captions": f"{len(lengths):,}",
            "words": f"{len(tokens):,}",
            "words in the longest caption": f"{lengths.max():,}",
            "unknown words": f"{np.mean(tokens == vocabulary.UNKNOWN):.2%}",
        }
    return f"{table_of(columns)}\n  vocabulary: {words:,} words"


DATASET = Dataset(
    title="COCO's captions with features of the images",
    read=read,
    needs="train.txt, val.txt, test.txt (or dataset_coco.json for the captions) and "
    "images/10crop/{train,val,test}.npy, in a folder or an archive",
    budget=2**34,
    url="http://www.cs.toronto.edu/~vendrov/order/coco.zip, 1 GB",
)
