"""MSCOCO: photographs, each described by five people (Lin et al. 2014, Chen et al. 2015).

Vendrov et al. (2016), on whose code the paper builds, took Karpathy's split and of each photograph
the activations of VGG-19's layer fc7 after its ReLU, averaged over ten crops and scaled to norm 1.
Nothing here computes features: they come with the captions, in one of two layouts, anywhere in the
folder or archive.

The authors' own, 113,287 / 5,000 / 5,000 images:

    train.txt, val.txt, test.txt     captions, one a line, blanks between their words; the first
                                     five are of the first image, and so on
    images/10crop/train.npy, ...     float32 [N, 4096]; or the one other folder in images/

Karpathy's:

    dataset_coco.json                {"images": [{"split": "train", "filename": "COCO_….jpg",
                                                  "sentences": [{"tokens": ["a", "man"]}]}]}
                                     restval is for training; the first five sentences count
    images/10crop/train.npy, ...     as above, rows as the split's images in dataset_coco.json

Features are divided by their norm. As in the authors' code the vocabulary has all words of the
training images and of the first 1,000 validation images, by which they stopped.

Prepared: the arrays of `experiments.datasets.captions`; and, from dataset_coco.json, ``names``,
uint8: the names of the images' files, one a line.
"""

import itertools
import json
from pathlib import Path
import re
from typing import IO, Any

import numpy as np

from experiments.datasets import Dataset, arrays, captions, text, vocabulary
from experiments.datasets.captions import CAPTIONS
from experiments.datasets.originals import Source, readable
from ln.errors import InputError, writing

STEMS = dict(train="train", valid="val", test="test")  # split -> the stem of its files
SPLIT_OF = dict(train="train", restval="train", val="valid", test="test")  # Karpathy's -> ours
KARPATHY = "dataset_coco.json"
DEV = 1_000  # validation images whose words are known
WIDEST = 2**20  # numbers of a row
WANTED = re.compile(
    r"(?:.*/)?(?:dataset_coco\.json|(?:train|val|test)\.txt|images/[^/]+/(?:train|val|test)\.npy)"
)


def read(source: Source) -> arrays.Splits:
    """Return the splits of a folder or archive.

    Raises:
        InputError: a file is missing, damaged or does not fit another.
    """
    folder = source.work()
    places: dict[str, str] = {}
    parts: dict[str, Any] = {}
    for match, file in source.files(WANTED):
        kind, place = match[0].rsplit("/", 1)[-1], f"{source.path}/{match[0]}"
        if kind in places:
            raise InputError(f"Give a place with one {kind}, not {places[kind]} and {place}.")
        places[kind] = place
        with writing(source.folder, "--data_dir"):
            if kind.endswith(".npy"):
                parts[kind] = unit_rows(file, place, folder)
            elif kind == KARPATHY:
                parts |= read_karpathy(file, place)
            else:
                parts.setdefault(kind, text.filled(file, place, legacy="latin-1"))
    needed = [f"{stem}.{end}" for end in ("txt", "npy") for stem in STEMS.values()]
    if missing := [kind for kind in needed if kind not in parts]:
        raise InputError(f"{source.path} has no {', '.join(missing)}.")
    said = {split: parts[f"{stem}.txt"] for split, stem in STEMS.items()}
    words = vocabulary.by_count(itertools.chain(said["train"], said["valid"][: CAPTIONS * DEV]))
    splits, width = {}, parts["train.npy"].shape[1]
    for split, stem in STEMS.items():
        images, place = parts[f"{stem}.npy"], places[f"{stem}.npy"]
        check(f"{place}: for its rows", CAPTIONS * len(images), len(said[split]), "captions")
        check(f"{place}: as in train", width, images.shape[1], "numbers a row")
        splits[split] = captions.pack(images, said[split], words)
        if names := parts.get(f"{stem}.names"):
            splits[split]["names"] = vocabulary.join(names)
    splits["train"]["words"] = vocabulary.join(words)
    return splits


def check(place: str, expected: int, actual: int, what: str) -> None:
    """Raise InputError if a file has another number of something than expected."""
    if expected != actual:
        raise InputError(f"{place} expected {expected:,} {what}, found {actual:,}.")


def unit_rows(file: IO[bytes], place: str, folder: Path) -> np.ndarray:
    """Return the rows of a .npy file, each divided by its norm, float32 ``[N, D]``.

    The file is read in pieces, and its rows are kept on disk.

    Raises:
        InputError: it is no .npy file of floats ``[N, D]``, row by row, it is truncated, or a row
            is not finite or has a norm of 0.
    """
    with readable(place):
        version = np.lib.format.read_magic(file)
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    fits = version == (1, 0) and len(shape) == 2 and dtype.kind == "f" and not is_fortran
    if not fits or not shape[0] or not 0 < shape[1] < WIDEST:
        raise InputError(
            f"{place}: expected floats [images, numbers of each], row by row, found {dtype} "
            f"{list(shape)}."
        )
    N, D = shape
    size, rows = D * dtype.itemsize, arrays.Growing(folder, np.float32, D)
    block = max(1, arrays.BLOCK // size)
    for first in range(0, N, block):
        data = file.read(size * min(block, N - first))
        if len(data) < size * min(block, N - first):
            raise InputError(f"{place} is not complete: it should have {N:,} rows.")
        with np.errstate(over="ignore"):  # numbers above float32's range raise below
            values = np.frombuffer(data, dtype).reshape(-1, D).astype(np.float32)
        norms = np.sqrt(np.square(values, dtype=np.float64).sum(1)).astype(np.float32)
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if len(bad):
            raise InputError(
                f"{place}: expected finite numbers and a norm above 0 in every row, not so in row "
                f"{first + bad[0]:,} (from 0)."
            )
        rows.add(values / norms[:, None])
    return rows.mapped()


def read_karpathy(file: IO[bytes], place: str) -> dict[str, list[str]]:
    """Return captions and names of images as those of "train.txt" and "train.names", and so on.

    Raises:
        InputError: the file is damaged.
    """
    parts: dict[str, list[str]] = {
        f"{stem}.{end}": [] for stem in STEMS.values() for end in ("txt", "names")
    }
    try:
        for image in json.loads(file.read(), object_hook=slim)["images"]:
            stem = STEMS[SPLIT_OF[image["split"]]]
            parts[f"{stem}.txt"] += filter(str.strip, image["sentences"][:CAPTIONS])
            parts[f"{stem}.names"].append(text.clean(image["filename"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f'{place}: expected {{"images": [{{"split": {" or ".join(SPLIT_OF)}, "filename", '
            f'"sentences": [{{"tokens"}}]}}]}} ({type(error).__name__}: {error}).'
        ) from error
    return parts


def slim(value: dict):
    """Return a sentence of JSON as its words, so that the rest of it need not be kept."""
    return text.clean(" ".join(value["tokens"])) if "tokens" in value else value


DATASET = Dataset(
    title="COCO's captions with features of the images",
    read=read,
    needs="train.txt, val.txt, test.txt (or dataset_coco.json for the captions) and "
    "images/10crop/{train,val,test}.npy, in a folder or an archive",
    budget=2**34,
    records=dict(train=113_287, valid=5_000, test=5_000),
    url="http://www.cs.toronto.edu/~vendrov/order/coco.zip, 1 GB",
)
