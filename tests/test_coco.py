"""COCO: its two layouts, known words, bad files, and memory."""

import io
import json
import tracemalloc

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import arrays, captions, vocabulary
from experiments.datasets.corpora import coco
from tests.files import lay
from tests.test_datasets import names, refused

SIZES = dict(train=6, valid=3, test=2)  # images
WIDTH = 8
WORDS = "a man rides on the old brown horse near two dogs in snow while it rains".split()
STEM = dict(train="train", valid="val", test="test")
NEW = {"valid": "zebra", "test": "quokka"}  # in the first caption of the split's last image


def sentences(split):
    """Five captions for each image of a split."""
    draw = np.random.RandomState(SIZES[split])
    lines = []
    for _ in range(5 * SIZES[split]):
        lines.append(" ".join(WORDS[k] for k in draw.randint(len(WORDS), size=draw.randint(2, 9))))
    if split in NEW:
        lines[-5] += f" {NEW[split]} café"
    return lines


def features(split):
    return np.random.RandomState(SIZES[split]).rand(SIZES[split], WIDTH).astype(np.float32) * 3


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def corpus():
    """Return path -> contents, in the layout of the authors."""
    contents = {}
    for split, stem in STEM.items():
        contents[f"{stem}.txt"] = "".join(f"{line}\n" for line in sentences(split)).encode()
        contents[f"images/10crop/{stem}.npy"] = npy(features(split))
    contents["README.txt"] = b"not to be read"
    return contents


@pytest.fixture
def files():
    return corpus()


def prepared(tmp_path, files):
    datasets.prepare("coco", tmp_path / "data", lay(tmp_path / "source", files))
    return datasets.load("coco", tmp_path / "data")


def decoded(splits):
    """Return the captions of each split."""
    words = vocabulary.split(splits["train"]["words"])
    return {
        split: [
            vocabulary.decode(part, words)
            for part in np.split(splits[split]["tokens"], splits[split]["starts"][1:-1])
        ]
        for split in splits
    }


def assert_prepared(splits):
    assert splits.keys() == SIZES.keys()
    words = vocabulary.split(splits["train"].pop("words"))
    assert set(words) == set(" ".join(sentences("train") + sentences("valid")).split())
    for split, arrays_ in splits.items():
        raw = features(split).astype(float)
        unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        expected = captions.pack(np.float32(unit), sentences(split), words)
        assert arrays_.keys() == expected.keys()
        for key, array in expected.items():
            np.testing.assert_allclose(arrays_[key], array, rtol=1e-6)
            assert arrays_[key].dtype == array.dtype


# --- The authors' layout ---


def test_captions_and_images_are_read_from_a_folder(tmp_path, files):
    assert_prepared(prepared(tmp_path, files))
    assert str(tmp_path / "source") in arrays.manifest(tmp_path / "data", "coco")["source"]


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.astype(np.float64) * 1e-3,
        lambda values: values.astype(">f4"),
        lambda values: values * 1e30,
    ],
    ids=["float64", "another byte order", "of any norm"],
)
def test_features_may_be(tmp_path, files, change):
    for split, stem in STEM.items():
        files[f"images/10crop/{stem}.npy"] = npy(change(features(split)))
    assert_prepared(prepared(tmp_path, files))


def test_words_of_the_first_validation_images_are_known(tmp_path, files, monkeypatch):
    assert coco.DEV == 1_000
    splits = prepared(tmp_path / "all", files)
    words = vocabulary.split(splits["train"]["words"])
    assert set(words) == set(" ".join(sentences("train") + sentences("valid")).split())
    assert vocabulary.UNKNOWN in splits["test"]["tokens"]
    assert vocabulary.UNKNOWN not in splits["valid"]["tokens"]
    monkeypatch.setattr(coco, "DEV", SIZES["valid"] - 1)
    splits = prepared(tmp_path / "some", files)
    assert "zebra" not in vocabulary.split(splits["train"]["words"])
    assert decoded(splits)["valid"][-5].endswith(" ? ?")


def test_a_place_with_several_features_raises(tmp_path, files):
    renamed = {name.replace("10crop", "resnet"): data for name, data in files.items()}
    assert_prepared(prepared(tmp_path / "one", renamed))
    with refused("Give a place with one test.npy, not", "images/10crop/test", "images/resnet/test"):
        prepared(tmp_path / "two", renamed | files)


# --- Karpathy's layout ---


def karpathy():
    """Return the images of dataset_coco.json; the splits take turns."""
    images = []
    for k, split in sorted((k, name) for name in SIZES for k in range(SIZES[name])):
        five = sentences(split)[5 * k : 5 * k + 5]
        name = "restval" if split == "train" and k % 2 else STEM[split]
        tokens = [dict(tokens=s.split(), raw=s) for s in [*five, "a sixth one"]]
        images.append(dict(split=name, filename=f"{split}_{k}.jpg", sentences=tokens))
    return images


def with_json(files, images):
    """Return the files with dataset_coco.json in place of the captions."""
    data = json.dumps(dict(images=images, dataset="coco")).encode()
    return {n: d for n, d in files.items() if "images/" in n} | {coco.KARPATHY: data}


def test_five_sentences_count_and_restval_is_for_training(tmp_path, files):
    splits = prepared(tmp_path, with_json(files, karpathy()))
    for split in SIZES:
        expected = [f"{split}_{k}.jpg" for k in range(SIZES[split])]
        assert vocabulary.split(splits[split].pop("names")) == expected
    assert_prepared(splits)


BAD_JSON = {
    "an unknown split": ("train or restval or val or test", dict(split="dev")),
    "four sentences": ("expected 10 captions, found 9", dict(sentences=[dict(tokens=["a"])] * 4)),
    "other sentences": ("TypeError", dict(sentences=[dict(text="a")] * 5)),
    "no words": ("TypeError", dict(sentences=[dict(tokens=[1])] * 5)),
}


@pytest.mark.parametrize("bad", BAD_JSON)
def test_a_bad_json_raises(tmp_path, files, bad):
    words, change = BAD_JSON[bad]
    images = karpathy()
    images[0].update(change)
    with refused(tmp_path / "source", words):
        prepared(tmp_path, with_json(files, images))


# --- Memory ---


def test_features_need_not_fit_into_memory(tmp_path, files, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK", 2**16)
    rows, width = 5 * SIZES["train"], 4_096
    files["train.txt"] *= 5
    for stem, count in (("train", rows), ("val", SIZES["valid"]), ("test", SIZES["test"])):
        values = np.arange(1, count * width + 1, dtype=np.float32).reshape(count, width)
        files[f"images/10crop/{stem}.npy"] = npy(values)
    source = lay(tmp_path / "source", files)
    datasets.prepare("coco", tmp_path / "data", source)  # also imports what is imported at first
    tracemalloc.start()
    try:
        datasets.prepare("coco", tmp_path / "again", source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = (source / "images/10crop/train.npy").stat().st_size
    assert size == 128 + 4 * rows * width and peak < size
    images = datasets.load("coco", tmp_path / "again")["train"]["images"]
    np.testing.assert_allclose(np.square(images, dtype=float).sum(1), 1, rtol=1e-6)


# --- Bad files ---


VAL = "images/10crop/val.npy"
BAD_TEXT = {
    "a caption less": ("expected 15 captions, found 14", lambda text: text[text.index(b"\n") :]),
    "a blank line": ("found 14", lambda text: text.replace(text[: text.index(b"\n")], b" ")),
}
BAD_ARRAY = {
    "an image less": ("expected 10 captions, found 15", lambda values: values[:-1]),
    "another width": ("as in train expected 8 numbers a row, found 7", lambda v: v[:, :-1]),
    "whole numbers": ("expected floats [images, numbers of each]", lambda v: v.astype(int)),
    "no rows": ("[0, 8]", lambda values: values[:0]),
    **{
        f"{value} in row 1": ("not so in row 1 (from 0)", lambda v, x=value: v * [[1], [x], [1]])
        for value in (-np.inf, np.nan, 1e300, 0)
    },
}
BAD = {
    "no features": ("has no val.npy", VAL, lambda data: None),
    "a truncated array": ("val.npy is not complete", VAL, lambda data: data[:-1]),
    "column by column": ("row by row, found", VAL, lambda _: npy(np.asfortranarray(np.eye(8)))),
    "a wide array": ("row by row, found", VAL, lambda data: data.replace(b" 8)", b" 99999999)")),
    **{name: (words, "val.txt", change) for name, (words, change) in BAD_TEXT.items()},
    **{
        name: (words, VAL, lambda data, f=change: npy(f(np.load(io.BytesIO(data)))))
        for name, (words, change) in BAD_ARRAY.items()
    },
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_file_raises_with_its_name(tmp_path, files, bad):
    words, name, change = BAD[bad]
    changed = change(files.pop(name))
    with refused(tmp_path / "source", words, "Needed: train.txt"):
        prepared(tmp_path, files | ({name: changed} if changed else {}))
    assert names(tmp_path / "data") == []
