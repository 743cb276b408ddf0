"""MSCOCO: photographs, each described by five people (Lin et al. 2014, Chen et al. 2015).

Vendrov et al. (2016), on whose code the paper builds, took Karpathy's split and of each photograph
the activations of VGG-19's layer fc7 after its ReLU, averaged over ten crops and scaled to norm 1.
Nothing here computes features: they come with the captions, in one of two layouts, anywhere in the
folder or archive.

The authors' own, 113,287 / 5,000 / 5,000 images:

    train.txt, val.txt, test.txt     captions, one a line, blanks between their words; the first
                                     five are of the first image, and so on
    images/10crop/train.npy, ...     float32 [N, 4096]; or the one other folder in images/

Karpathy's, where there is no train.txt:

    dataset_coco.json                {"images": [{"split": "train", "filename": "COCO_….jpg",
                                                  "sentences": [{"tokens": ["a", "man"]}]}]}
                                     restval is for training; the first five sentences count
    images/10crop/train.npy, ...     as above, rows as the split's images in dataset_coco.json

Features are divided by their norm. As in the authors' code the vocabulary has all words of the
training images and of the first 1,000 validation images, by which they stopped.

Prepared: the arrays of `experiments.datasets.captions`; and, from dataset_coco.json, ``names``,
uint8: the names of the images' files, one a line.
"""

import dataclasses
import itertools
import json
from pathlib import Path
import re
import shutil

import numpy as np

from experiments.datasets import Dataset, arrays, captions, text, vocabulary
from experiments.datasets.captions import CAPTIONS
from experiments.datasets.originals import Budget, Source, opened, readable, walk
from ln.errors import InputError, writing

SPLITS = dict(train="train", valid="val", test="test")  # split -> the stem of its files
SPLIT_OF = dict(train="train", restval="train", val="valid", test="test")  # Karpathy's -> ours
KARPATHY = "dataset_coco.json"
DEV = 1_000  # validation images whose words are known
WANTED = re.compile(r"(?:.*/)?(?:dataset_coco\.json|(?:train|val|test)\.(?:txt|npy))")


@dataclasses.dataclass(frozen=True)
class Features:
    """Rows of a .npy file, each divided by its norm; read on demand.

    The file is mapped anew for every slice, so that no more of it stays in memory.

    Attributes:
        path: a file of floats ``[N, D]``.
        norms: the norms of the rows, float32 ``[N]``.
        shape: N and D.
    """

    path: Path
    norms: np.ndarray
    shape: tuple[int, ...]
    dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.norms)

    def __getitem__(self, part: slice) -> np.ndarray:
        with np.errstate(over="ignore"):  # `features` refuses float64 above float32's range
            return mapped(self.path)[part].astype(np.float32) / self.norms[part, None]


def features(path: Path) -> Features:
    """Return the rows of a file.

    Raises:
        InputError: there is no such file, it is truncated or not of floats ``[N, D]``, or a row is
            not finite or has a norm of 0.
    """
    shape = mapped(path).shape
    raw = Features(path, np.ones(shape[0], np.float32), shape)
    parts = [np.square(block, dtype=np.float64).sum(1) for block in arrays.blocks(raw)]
    norms = np.sqrt(np.concatenate(parts)).astype(np.float32)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(bad):
        raise InputError(
            f"{path}: expected finite numbers and a norm above 0 in every row, not so in "
            f"{len(bad):,} of {len(norms):,}, the first of them row {bad[0]:,} (from 0)."
        )
    return Features(path, norms, shape)


def mapped(path: Path) -> np.ndarray:
    """Return the floats ``[n, D]`` of a .npy file, mapped read-only.

    Raises:
        InputError: there is no such file, or it holds something else, or less.
    """
    with readable(path), opened(path, Budget("coco", DATASET.budget)):
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
    """Return the splits of a folder or archive.

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
        names: dict[str, list[str]] = {}
        sentences = {split: lines(root / f"{s}.txt") for split, s in SPLITS.items()}
    else:
        sentences, names = read_karpathy(root / KARPATHY)
    folders = [path.parent for path in root.glob("images/*/train.npy")]
    folder = folders[0] if len(folders) == 1 else root / "images/10crop"
    images = {split: features(folder / f"{stem}.npy") for split, stem in SPLITS.items()}
    for split, values in images.items():
        count, width = CAPTIONS * len(values), values.shape[1]
        check(f"{values.path}: for its rows", count, len(sentences[split]), "captions")
        check(f"{values.path}: as in train", images["train"].shape[1], width, "numbers a row")
    known = itertools.chain(sentences["train"], sentences["valid"][: CAPTIONS * DEV])
    words = vocabulary.by_count(known)
    splits = {split: captions.pack(images[split], sentences[split], words) for split in SPLITS}
    splits["train"]["words"] = vocabulary.join(words)
    for split in names:
        splits[split]["names"] = vocabulary.join(names[split])
    return splits


def check(place: str, expected: int, actual: int, what: str) -> None:
    if expected != actual:
        raise InputError(f"{place} expected {expected:,} {what}, found {actual:,}.")


def find(folder: Path) -> Path:
    """Return the folder with the captions.

    Raises:
        InputError: there is none, or several.
    """
    for name in ("train.txt", KARPATHY):
        paths = [path for path in walk(folder) if path.name == name]
        if len(paths) > 1:
            raise InputError(f"Give one of these folders: {', '.join(map(str, paths))}.")
        if paths:
            return paths[0].parent
    raise InputError(f"{folder} has no train.txt and no {KARPATHY}.")


def lines(path: Path) -> list[str]:
    """Return the captions of a file, without blank ones; the caller checks their number."""
    with opened(path, Budget("coco", DATASET.budget)) as file:
        return list(filter(None, text.lines(file, str(path), legacy="latin-1")))


def read_karpathy(path: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return captions and names of images of each split.

    Raises:
        InputError: the file is damaged.
    """
    sentences: dict[str, list[str]] = {split: [] for split in SPLITS}
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    with opened(path, Budget("coco", DATASET.budget)) as file:
        data = file.read()
    try:
        for image in json.loads(data, object_hook=slim)["images"]:
            split = SPLIT_OF[image["split"]]
            sentences[split] += filter(str.strip, image["sentences"][:CAPTIONS])
            names[split].append(image["filename"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f'{path}: expected {{"images": [{{"split": {" or ".join(SPLIT_OF)}, "filename", '
            f'"sentences": [{{"tokens"}}]}}]}} ({type(error).__name__}: {error}).'
        ) from error
    return sentences, names


def slim(value: dict):
    """Return a sentence of JSON as its words, so that the rest of it need not be kept."""
    return text.clean(" ".join(value["tokens"])) if "tokens" in value else value


DATASET = Dataset(
    title="COCO's captions with features of the images",
    read=read,
    needs="train.txt, val.txt, test.txt (or dataset_coco.json for the captions) and "
    "images/10crop/{train,val,test}.npy, in a folder or an archive",
    budget=2**34,
    url="http://www.cs.toronto.edu/~vendrov/order/coco.zip, 1 GB",
)
