"""COCO: its two layouts, known words, bad files, and memory."""

import io
import json
import tracemalloc

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import arrays, vocabulary
from experiments.datasets.corpora import coco
from tests.files import PACKED, lay, tar
from tests.test_datasets import names, refused

SIZES = dict(train=6, valid=3, test=2)  # images
WIDTH = 8
WORDS = "a man rides on the old brown horse near two dogs in snow while it rains".split()
STEM = dict(train="train", valid="val", test="test")
NEW = {"valid": "zebra", "test": "quokka"}  # in the first caption of the split's last image


def sentences(split):
    """Five captions for each image of a split."""
    draw = np.random.RandomState(SIZES[split])
    found = []
    for _ in range(5 * SIZES[split]):
        found.append(" ".join(WORDS[k] for k in draw.randint(len(WORDS), size=draw.randint(2, 9))))
    if split in NEW:
        found[-5] += f" {NEW[split]} café"
    return found


def features(split):
    return np.random.RandomState(SIZES[split]).rand(SIZES[split], WIDTH).astype(np.float32) * 3


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.fixture
def files():
    """Path -> contents, in the layout of the authors."""
    found = {}
    for split, stem in STEM.items():
        found[f"{stem}.txt"] = "".join(f"{line}\n" for line in sentences(split)).encode()
        found[f"images/10crop/{stem}.npy"] = npy(features(split))
    found["README.txt"] = b"not to be read"
    found["._train.txt"] = b"\0"
    return found


def prepared(tmp_path, files):
    datasets.prepare("coco", tmp_path / "data", lay(tmp_path / "source", files))
    return datasets.load("coco", tmp_path / "data")


def decoded(found):
    """The captions of each split."""
    words = vocabulary.split(found["train"]["words"])
    return {
        split: [
            vocabulary.decode(part, words)
            for part in np.split(found[split]["tokens"], found[split]["starts"][1:-1])
        ]
        for split in found
    }


def assert_prepared(found):
    assert found.keys() == SIZES.keys()
    known = " ".join(sentences("train") + sentences("valid")).split()
    texts = decoded(found)
    for split, arrays_ in found.items():
        expected = [
            " ".join(word if word in known else "?" for word in caption.split())
            for caption in sentences(split)
        ]
        assert texts[split] == expected
        raw = features(split).astype(float)
        unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        np.testing.assert_allclose(arrays_["images"], unit, rtol=1e-6)
        starts = arrays_["starts"]
        assert starts[0] == 0 and starts[-1] == len(arrays_["tokens"])
        assert len(starts) == 5 * len(unit) + 1 and np.diff(starts).min() > 0
        dtypes = {key: str(array.dtype) for key, array in arrays_.items()}
        expected = dict(images="float32", tokens="int32", starts="int64")
        assert dtypes == expected | (dict(words="uint8") if split == "train" else {})


# --- The authors' layout ---


@pytest.mark.parametrize("place", ["", "coco/", "data/coco/", "unpacked/", "unpacked/data/coco/"])
def test_captions_and_images_are_read_from_a_folder(tmp_path, files, place):
    found = prepared(tmp_path, {place + name: data for name, data in files.items()})
    assert_prepared(found)
    assert str(tmp_path / "source") in arrays.manifest(tmp_path / "data", "coco")["source"]


@pytest.mark.parametrize("end", PACKED)
@pytest.mark.parametrize("place", ["", "data/coco/"])
def test_an_archive_is_read_as_its_folder(tmp_path, files, end, place):
    path = tmp_path / f"coco{end}"
    path.write_bytes(PACKED[end]({place + name: data for name, data in files.items()}))
    datasets.prepare("coco", tmp_path / "data", path)
    assert_prepared(datasets.load("coco", tmp_path / "data"))
    assert names(tmp_path / "data") == ["coco"]
    assert str(path) in arrays.manifest(tmp_path / "data", "coco")["source"]


def test_features_may_lie_in_one_other_folder(tmp_path, files):
    other = {name.replace("10crop", "resnet"): data for name, data in files.items()}
    assert_prepared(prepared(tmp_path / "one", other))
    wrong = {name: npy(np.ones((1, 1))) for name in other if name.endswith("npy")}
    assert_prepared(prepared(tmp_path / "two", files | wrong))
    more = {name.replace("resnet", "vgg"): data for name, data in other.items()}
    with refused("images/10crop/train.npy"):
        prepared(tmp_path / "three", other | more)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b" ", b"  "),
        lambda text: text.rstrip(b"\n"),
        lambda text: text + b"\n\n",
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.decode().encode("latin-1"),
    ],
    ids=["CRLF", "more blanks", "no last end", "blank last lines", "a mark", "Latin-1"],
)
def test_captions_may_have(tmp_path, files, change):
    files["val.txt"] = change(files["val.txt"])
    assert_prepared(prepared(tmp_path, files))


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.astype(np.float64) * 1e-3,
        lambda values: values.astype(">f4"),
        np.asfortranarray,
        lambda values: values * 1e30,
    ],
    ids=["float64", "another byte order", "column by column", "of any norm"],
)
def test_features_may_be(tmp_path, files, change):
    for split, stem in STEM.items():
        files[f"images/10crop/{stem}.npy"] = npy(change(features(split)))
    assert_prepared(prepared(tmp_path, files))


def test_words_of_the_first_validation_images_are_known(tmp_path, files, monkeypatch):
    assert coco.DEV == 1_000
    found = prepared(tmp_path / "all", files)
    words = vocabulary.split(found["train"]["words"])
    assert set(words) == set(" ".join(sentences("train") + sentences("valid")).split())
    assert vocabulary.UNKNOWN in found["test"]["tokens"]
    assert vocabulary.UNKNOWN not in found["valid"]["tokens"]
    monkeypatch.setattr(coco, "DEV", SIZES["valid"] - 1)
    found = prepared(tmp_path / "some", files)
    assert "zebra" not in vocabulary.split(found["train"]["words"])
    assert decoded(found)["valid"][-5].endswith(" ? ?")


# --- Karpathy's layout ---


def karpathy():
    """The images of dataset_coco.json in an order of its own, and where each is in its split."""
    order = [(split, k) for split in SIZES for k in range(SIZES[split])]
    order = [order[k] for k in np.random.RandomState(0).permutation(len(order))]
    images, places = [], []
    for split in SIZES:
        mine = [where for where in order if where[0] == split]
        places.append(sorted(mine))  # within a split the order is that of the features
    at = {split: iter(found) for split, found in zip(SIZES, places, strict=True)}
    order = [next(at[split]) for split, _ in order]
    for split, k in order:
        five = sentences(split)[5 * k : 5 * k + 5]
        name = "restval" if split == "train" and k % 2 else STEM[split]
        images.append(
            {
                "split": name,
                "filename": f"{split}_{k}.jpg",
                "cocoid": 100 * SIZES[split] + k,
                "filepath": "train2014",
                "sentences": [dict(tokens=s.split(), raw=s) for s in [*five, "a sixth one"]],
            }
        )
    return images, order


def as_json(value):
    return json.dumps(value).encode()


@pytest.fixture
def json_files(files):
    found = {name: data for name, data in files.items() if name.startswith("images/")}
    found[coco.KARPATHY] = as_json(dict(images=karpathy()[0], dataset="coco"))
    return found


def assert_named(found):
    for split in SIZES:
        expected = [f"{split}_{k}.jpg" for k in range(SIZES[split])]
        assert vocabulary.split(found[split]["names"]) == expected
    assert_prepared({s: {k: v for k, v in a.items() if k != "names"} for s, a in found.items()})


def test_five_sentences_count_and_restval_is_for_training(tmp_path, json_files):
    assert_named(prepared(tmp_path, json_files))


def test_one_file_may_have_all_features_in_order_of_the_json(tmp_path, json_files):
    rows = np.stack([features(split)[k] for split, k in karpathy()[1]])
    data = {coco.KARPATHY: json_files[coco.KARPATHY], "features.npy": npy(rows)}
    assert_named(prepared(tmp_path, data))


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
    found = datasets.load("coco", tmp_path / "again")["train"]["images"]
    np.testing.assert_allclose(np.square(found, dtype=float).sum(1), 1, rtol=1e-6)


# --- What is refused ---


def removed(name):
    return lambda files: files.pop(name)


def replaced(name, change):
    return lambda files: files.update({name: change(files[name])})


def array(name, change):
    return replaced(name, lambda data: npy(change(np.load(io.BytesIO(data)))))


def put(*where, value):
    """Changes one number of an array."""

    def change(values):
        values[where] = value
        return values

    return change


TRAIN, VAL = "images/10crop/train.npy", "images/10crop/val.npy"
BAD = {
    "no captions": ("no train.txt and no dataset_coco.json", removed("train.txt")),
    "no features": (TRAIN, removed(TRAIN)),
    "a caption less": (
        "test.npy: for its rows expected 10 captions, found 9",
        replaced("test.txt", lambda text: text[: text.rindex(b"\n", 0, -1) + 1]),
    ),
    "an image less": (
        "train.npy: for its rows expected 25 captions, found 30",
        array(TRAIN, lambda values: values[:-1]),
    ),
    "a blank line": (
        "val.txt: expected a caption in every line, line 3 is blank",
        replaced("val.txt", lambda text: b"a\nb\n \n" + text),
    ),
    "an empty file": ("line 1 is blank", replaced("val.txt", lambda text: b"")),
    "another width": (
        "val.npy: as in train expected 8 numbers a row, found 7",
        array(VAL, lambda values: values[:, :-1]),
    ),
    "whole numbers": (
        "val.npy: expected floats [images, numbers of each], found int64 [3, 8]",
        array(VAL, lambda values: values.astype(np.int64)),
    ),
    "three axes": ("float32 [3, 8, 1]", array(VAL, lambda values: values[..., None])),
    "no rows": ("[0, 8]", array(VAL, lambda values: values[:0])),
    "infinities": (
        "train.npy: expected finite numbers and a norm above 0 in every row, not so in 3 of 6, the "
        "first of them row 1 (from 0)",
        array(TRAIN, put(slice(1, 6, 2), 7, value=-np.inf)),
    ),
    "not a number": ("row 4 (from 0)", array(TRAIN, put(4, 2, value=np.nan))),
    "numbers beyond float32": (
        "row 2 (from 0)",
        array(TRAIN, lambda values: put(2, 2, value=1e300)(values.astype(float))),
    ),
    "a row of zeros": ("row 1 (from 0)", array(VAL, put(1, value=0))),
    "a truncated array": ("val.npy is no complete", replaced(VAL, lambda data: data[:-1])),
    "no array": ("val.npy is no complete", replaced(VAL, lambda data: b"<html>" * 99)),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_bad_file_is_refused_by_name(tmp_path, files, bad, is_packed):
    words, change = BAD[bad]
    change(files)
    source = lay(tmp_path / "source", files)
    if is_packed:
        source = tmp_path / "coco.tar"
        source.write_bytes(tar(files))
    with refused(source, words, "Needed: train.txt"):
        datasets.prepare("coco", tmp_path / "data", source)
    assert not (tmp_path / "data").exists() or names(tmp_path / "data") == []


def images_with(change):
    images, _ = karpathy()
    change(images)
    return as_json(dict(images=images))


BAD_JSON = {
    "truncated": ("expected {", lambda: images_with(list)[:-9]),
    "something else": ("expected {", lambda: b'{"annotations": []}'),
    "an unknown split": (
        "train or restval or val or test",
        lambda: images_with(lambda images: images[3].update(split="dev")),
    ),
    "four sentences": (
        ".jpg expected 5 captions that are not empty, found 4",
        lambda: images_with(lambda images: images[3].update(sentences=[dict(tokens=["a"])] * 4)),
    ),
    "sentences of something else": (
        "AttributeError",
        lambda: images_with(lambda images: images[3].update(sentences=[dict(text="a")] * 5)),
    ),
    "tokens that are no words": (
        "TypeError",
        lambda: images_with(lambda images: images[3].update(sentences=[dict(tokens=[1])] * 5)),
    ),
    "no images of a split": (
        "has no images of valid",
        lambda: images_with(
            lambda images: [i.update(split="test") for i in images if i["split"] == "val"]
        ),
    ),
}


@pytest.mark.parametrize("bad", BAD_JSON)
def test_a_bad_json_is_refused(tmp_path, json_files, bad):
    words, make = BAD_JSON[bad]
    json_files[coco.KARPATHY] = make()
    with refused(tmp_path / "source" / coco.KARPATHY, words):
        prepared(tmp_path, json_files)
    assert not (tmp_path / "data").exists()


def test_half_a_character_in_a_caption_is_replaced(tmp_path, json_files):
    json_files[coco.KARPATHY] = images_with(
        lambda images: images[0]["sentences"][0].update(tokens=["a", "\ud83d"])
    )
    words = vocabulary.split(prepared(tmp_path, json_files)["train"]["words"])
    assert "\ufffd" in words


def test_features_of_other_images_are_refused(tmp_path, json_files):
    json_files["features.npy"] = npy(np.ones((12, 4)))
    with refused("features.npy: for dataset_coco.json expected 11 rows, found 12"):
        prepared(tmp_path, json_files)


def test_several_data_sets_in_a_folder_are_refused(tmp_path, files):
    both = {f"{place}/{name}": data for name, data in files.items() for place in ("f8k", "f30k")}
    with refused("Give one of these folders", "f30k", "f8k"):
        prepared(tmp_path, both)
