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

    dataset_coco.json                {"images": [{"split": "train", "cocoid": 57870,
                                                  "filename": "COCO_train2014_000000057870.jpg",
                                                  "sentences": [{"tokens": ["a", "man"]}]}]}
                                     restval is for training; the first five sentences count
    captions_train2014.json, ...     COCO's own, here or in annotations/, for images without
                                     "sentences": {"annotations": [{"image_id": 57870,
                                                                    "caption": "A man."}]}
    images/10crop/train.npy, ...     as above, rows as the split's images in dataset_coco.json
    features.npy                     or this, a row for each image of dataset_coco.json

Captions that are not yet in words become so as Karpathy's did: lower case, no punctuation. Features
are divided by their norm. As in the authors' code the vocabulary has all words of the training
images and of the first 1,000 validation images, by which they stopped.

Prepared: the arrays of `experiments.datasets.captions`; and, from dataset_coco.json, ``names``,
uint8: the names of the images' files, one a line.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import itertools
import json
from pathlib import Path
import re
import shutil
import string
import tempfile
import textwrap

import numpy as np

from experiments.datasets import arrays, captions, vocabulary
from experiments.datasets.captions import CAPTIONS
from experiments.datasets.originals import DAMAGED, Files, members
from ln.errors import InputError

SPLITS = dict(train="train", valid="val", test="test")  # split -> what its files are called
SPLIT_OF = dict(train="train", restval="train", val="valid", test="test")  # Karpathy's -> ours
KARPATHY = "dataset_coco.json"
ALL = "features.npy"
DEV = 1_000  # validation images whose words are known
FOLDERS = ("", "coco/", "data/coco/", "*/", "*/coco/", "*/data/coco/")
WANTED = re.compile(r"(?:.*/)?(?:[^/]*\.json|features\.npy|(?:train|val|test)\.(?:txt|npy))")
PUNCTUATION = str.maketrans("", "", string.punctuation)


class Elsewhere(Files):
    """Files that no command downloads."""

    @property
    def expected(self) -> str:
        return (
            f"{', '.join(self.names)} (or {KARPATHY} for the captions) in a folder or an archive, "
            f"and `python -m scripts.data {self.name} --from=DIR`"
        )

    def download(self, folder: Path) -> None:
        """Says what is needed.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self.title} are not downloaded: their archive was {self.url}, 1 GB. Needed: "
            f"{self.expected}. Without them, use the built-in data set `{self.stand_in}`."
        )


FILES = Elsewhere(
    name="coco",
    title="COCO's captions with features of the images",
    url="http://www.cs.toronto.edu/~vendrov/order/coco.zip",
    names=(
        *(f"{stem}.txt" for stem in SPLITS.values()),
        *(f"images/10crop/{stem}.npy" for stem in SPLITS.values()),
    ),
    stand_in="scenes",
)


@dataclasses.dataclass(frozen=True)
class Features:
    """Rows of a .npy file, each divided by its norm; read when they are asked for.

    The file is mapped anew for every slice, so that no more of it stays in memory.

    Attributes:
        path: of the file, which holds floats ``[n, D]``.
        rows: which of them, ``[N]``.
        norms: theirs, float32 ``[N]``.
        shape: N and D.
    """

    path: Path
    rows: np.ndarray
    norms: np.ndarray
    shape: tuple[int, int]
    dtype = np.dtype(np.float32)

    @classmethod
    def of(cls, path: Path, rows: np.ndarray | None = None) -> "Features":
        """Checks the rows of a file.

        Args:
            path: of the file.
            rows: which, None for all.

        Raises:
            InputError: there is no such file, it is truncated or not of floats ``[n, D]``, or a row
                is not finite or has a norm of 0.
        """
        found = mapped(path)
        rows = np.arange(len(found)) if rows is None else rows
        raw = cls(path, rows, np.ones(len(rows), np.float32), (len(rows), found.shape[1]))
        parts = [np.square(block, dtype=np.float64).sum(1) for block in arrays.blocks(raw)]
        norms = np.sqrt(np.concatenate(parts)).astype(np.float32)
        for what, bad in (("finite numbers", ~np.isfinite(norms)), ("a norm above 0", norms == 0)):
            if bad.any():
                raise InputError(
                    f"{path}: expected {what} in every row, not so in {bad.sum():,} of "
                    f"{len(rows):,}, the first of them row {rows[bad][0]:,} (from 0)."
                )
        return dataclasses.replace(raw, norms=norms)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> np.ndarray:
        with np.errstate(over="ignore"):  # float64 above float32's range: refused as not finite
            values = mapped(self.path)[self.rows[part]].astype(np.float32)
        return values / self.norms[part, None]


# Of each split: its captions, its features and, if they are known, the names of its images' files.
Read = tuple[dict[str, list[str]], dict[str, Features], dict[str, list[str]]]


def prepare(data_dir: str | Path, source: str | Path | None = None) -> None:
    """Makes ``<data_dir>/coco``.

    Args:
        data_dir: where prepared data sets lie.
        source: a folder with the files, or an archive of them; that is unpacked for as long.

    Raises:
        InputError: there is no source and nothing prepared, a file is missing, damaged or does not
            fit to another, or another data set is in the way.
    """
    if source is None:
        return FILES.prepare(data_dir, None, read_originals)
    with opened(Path(source)) as folder:
        info = dict(source=f"{FILES.title} from {source}")
        arrays.write(data_dir, FILES.name, read_originals(folder), info)


def read_originals(folder: Path) -> arrays.Splits:
    """The splits of a folder, with `Features` for images. Prints what was read.

    Raises:
        InputError: a file is missing, damaged or does not fit to another.
    """
    root, read = find(folder)
    print(f"{FILES.name}: reading {root}")
    sentences, images, names = read(root)
    for split in SPLITS:
        if images[split].shape[1] != images["train"].shape[1]:
            raise InputError(
                f"{images[split].path}: expected rows of {images['train'].shape[1]:,} numbers, as "
                f"in {images['train'].path}, found {images[split].shape[1]:,}."
            )
    words = vocabulary.by_count(itertools.chain(sentences["train"], sentences["valid"][: CAPTIONS * DEV]))
    splits = {split: captions.pack(images[split], sentences[split], words) for split in SPLITS}
    splits["train"]["words"] = vocabulary.join(words)
    for split in names:
        splits[split]["names"] = vocabulary.join(names[split])
    print(summary(splits, words))
    return splits


# --- Where the files are ---


@contextlib.contextmanager
def opened(source: Path) -> Iterator[Path]:
    """The folder of a source: itself, or for as long what is in the archive.

    Raises:
        InputError: it is neither, or cannot be unpacked.
    """
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise InputError(f"{source} is neither a folder nor an archive. Needed: {FILES.expected}.")
    prefix = f"{FILES.name}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        print(f"{FILES.name}: unpacking {source}")
        try:
            for name, file in members(source, WANTED):
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "wb") as copy:
                    shutil.copyfileobj(file, copy)
        except DAMAGED as error:
            raise InputError(
                f"Cannot unpack {source} into {folder} ({reason(error)}): is it a whole archive, "
                f"and is there room? Needed: {FILES.expected}."
            ) from error
        try:
            yield Path(folder)
        except InputError as error:  # files of a folder that will be gone
            raise InputError(str(error).replace(folder, str(source))) from error


def find(folder: Path) -> tuple[Path, Callable[[Path], Read]]:
    """The folder with the captions in or below a folder, and what reads their layout.

    Raises:
        InputError: there is none, or more than one.
    """
    for place in FOLDERS:
        for name, read in (("train.txt", read_lines), (KARPATHY, read_karpathy)):
            found = sorted(path.parent for path in folder.glob(place + name))
            if len(found) > 1:
                raise InputError(
                    f"{folder} has several {name}, in {', '.join(map(str, found))}: give one of "
                    "these folders."
                )
            if found:
                return found[0], read
    raise InputError(
        f"{folder} has no train.txt and no {KARPATHY}, nor has coco or data/coco in it. "
        f"Needed: {FILES.expected}."
    )


def features(root: Path) -> dict[str, Features]:
    """The features of each split, where each has its file.

    Raises:
        InputError: there are none, or several, or a file cannot be used.
    """
    found = sorted(path.parent for path in root.glob("images/*/train.npy"))
    found = [path for path in found if path.name == "10crop"] or found
    if not found:
        raise missing(root / "images" / "10crop" / "train.npy")
    if len(found) > 1:
        raise InputError(
            f"{root / 'images'} has features in {', '.join(path.name for path in found)}: leave "
            "only one folder there, or call it 10crop."
        )
    return {split: Features.of(found[0] / f"{stem}.npy") for split, stem in SPLITS.items()}


# --- Captions ---


def read_lines(root: Path) -> Read:
    """Captions and features of each split in the authors' layout; no names.

    Raises:
        InputError: a file is missing, damaged or does not fit to another.
    """
    sentences = {split: lines(root / f"{stem}.txt") for split, stem in SPLITS.items()}
    images = features(root)
    for split, stem in SPLITS.items():
        rows, count = len(images[split]), len(sentences[split])
        if count != CAPTIONS * rows:
            raise InputError(
                f"{root / stem}.txt: expected {CAPTIONS * rows:,} captions, {CAPTIONS} for each of "
                f"the {rows:,} rows of {images[split].path}, found {count:,}."
            )
    return sentences, images, {}


def lines(path: Path) -> list[str]:
    """The captions of a file.

    Raises:
        InputError: there is no such file, no caption, or a blank line.
    """
    data = contents(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    # Not splitlines: it would take more characters for ends of lines, some of them Latin-1's.
    found = re.split(r"\r?\n", text.rstrip())
    for number, line in enumerate(found, start=1):
        if not line.strip():
            raise InputError(f"{path}: expected a caption in every line, line {number:,} is blank.")
    return found


def read_karpathy(root: Path) -> Read:
    """Captions, features and names of files of each split in Karpathy's layout.

    Raises:
        InputError: a file is missing, damaged or does not fit to another, or an image has too few
            captions.
    """
    path = root / KARPATHY
    found = parse(path)
    sentences: dict[str, list[str]] = {split: [] for split in SPLITS}
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    rows: dict[str, list[int]] = {split: [] for split in SPLITS}
    others: dict[int, list[str]] | None = None
    few = []
    try:
        for row, image in enumerate(found["images"]):
            split = SPLIT_OF[image["split"]]
            given = image.get("sentences")
            if given is None:
                others = annotations(root) if others is None else others
                given = others.get(image["cocoid"], [])
            given = [sentence for sentence in given[:CAPTIONS] if sentence.strip()]
            if len(given) < CAPTIONS:
                few.append(f"{image['filename']} ({len(given)})")
            sentences[split] += given
            names[split].append(image["filename"])
            rows[split].append(row)
    except (KeyError, TypeError, AttributeError) as error:
        known = " or ".join(SPLIT_OF)
        expected = f'{{"images": [{{"split": {known}, "cocoid", "filename", "sentences"}}]}}'
        raise unlike(path, expected, error) from error
    if few:
        raise InputError(
            f"{path}: expected {CAPTIONS} captions that are not empty for every image, "
            f"{len(few):,} have fewer: {', '.join(few[:3])}{', …' if few[3:] else ''}."
        )
    for split in SPLITS:
        if not rows[split]:
            raise InputError(f"{path}: expected images of {split}, found none.")
    return sentences, matching(root, rows), names


def matching(root: Path, rows: dict[str, list[int]]) -> dict[str, Features]:
    """The features of the images that have these rows in dataset_coco.json.

    Raises:
        InputError: a file is missing, damaged, or of another number of images.
    """

    def check(path: Path, count: int, expected: int, what: str) -> None:
        if count != expected:
            raise InputError(
                f"{path}: expected {expected:,} rows, one for each image of {what} in "
                f"{root / KARPATHY}, found {count:,}."
            )

    path = root / ALL
    if path.is_file():
        check(path, len(mapped(path)), sum(map(len, rows.values())), "any split")
        return {split: Features.of(path, np.array(rows[split])) for split in SPLITS}
    images = features(root)
    for split in SPLITS:
        check(images[split].path, len(images[split]), len(rows[split]), split)
    return images


def annotations(root: Path) -> dict[int, list[str]]:
    """The captions of each image in COCO's own files.

    Raises:
        InputError: there are none, or one is damaged.
    """
    paths = sorted([*root.glob("captions_*.json"), *root.glob("annotations/captions_*.json")])
    if not paths:
        raise missing(root / "captions_train2014.json")
    found: dict[int, list[str]] = {}
    for path in paths:
        data = parse(path)
        try:
            for image, caption in data["annotations"]:  # as `parse` has them
                found.setdefault(image, []).append(caption)
        except (KeyError, TypeError, ValueError) as error:
            raise unlike(path, '{"annotations": [{"image_id", "caption"}]}', error) from error
    return found


def parse(path: Path):
    """What is in a file of JSON, a sentence as its words, an annotation as image and words.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """

    def slim(found: dict):
        if "tokens" in found:
            return " ".join(found["tokens"])
        if "raw" in found:
            return words_of(found["raw"])
        return (found["image_id"], words_of(found["caption"])) if "caption" in found else found

    data = contents(path)
    try:
        return json.loads(data, object_hook=slim)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise unlike(path, "a whole file of JSON, of captions", error) from error


def words_of(text: str) -> str:
    """A sentence in lower case without punctuation, with a blank between its words."""
    return " ".join(text.lower().translate(PUNCTUATION).split())


# --- Files ---


def contents(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise missing(path) from error
    except OSError as error:
        raise InputError(f"Cannot read {path} ({error}).") from error


def mapped(path: Path) -> np.ndarray:
    """The floats ``[n, D]`` of a .npy file, mapped read-only.

    Raises:
        InputError: there is no such file, or it holds something else, or less.
    """
    expected = "a .npy file of floats [images, numbers of each]"
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise missing(path) from error
    except (OSError, EOFError, ValueError) as error:
        raise unlike(path, expected, error) from error
    if values.ndim != 2 or values.dtype.kind != "f" or not values.size:
        raise InputError(f"{path}: expected {expected}, found {values.dtype} {list(values.shape)}.")
    return values


def missing(path: Path) -> InputError:
    return InputError(f"There is no {path}. Needed: {FILES.expected}.")


def unlike(path: Path, expected: str, error: Exception) -> InputError:
    return InputError(f"{path}: expected {expected} ({reason(error)}). Is the file whole?")


def reason(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200)


def summary(splits: arrays.Splits, words: list[str]) -> str:
    """A table of what was read."""
    columns = {}
    for split, found in splits.items():
        lengths, tokens = np.diff(found["starts"]), found["tokens"]
        columns[split] = {
            "images": f"{len(found['images']):,}",
            "captions": f"{len(lengths):,}",
            "words": f"{len(tokens):,}",
            "words in the longest caption": f"{lengths.max():,}",
            "unknown words": f"{np.mean(tokens == vocabulary.UNKNOWN):.2%}",
        }
    rows = [("", *columns)]
    rows += [(what, *(columns[split][what] for split in splits)) for what in columns["train"]]
    table = "".join(
        f"  {what:<28}" + "".join(f"{x:>11}" for x in row) + "\n" for what, *row in rows
    )
    images = [found["images"] for found in splits.values()]
    norms = np.concatenate([found.norms for found in images])
    return (
        f"{table}  vocabulary: {len(words):,} words; features: {images[0].shape[1]:,} an image, "
        f"divided by their norms, {norms.min():.4g} to {norms.max():.4g}"
    )
