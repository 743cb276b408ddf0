"""The built-in scenes: what they show, that captions are true and ordered, what features tell."""

from collections import Counter
import re

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import arrays, vocabulary
from experiments.datasets.synthetic import digits, scenes

SPLITS = ("train", "valid", "test")
DIGESTS = {
    "train.images": "d8c41fc8",
    "train.tokens": "a4e91836",
    "train.pictures": "44e57984",
    "train.words": "951e133e",
    "valid.images": "092da927",
    "valid.tokens": "0d7f696d",
    "valid.pictures": "a22c5739",
    "test.images": "168c4e1f",
    "test.tokens": "0580f299",
    "test.pictures": "01308ed6",
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def prepared(data_dir):
    return datasets.load("scenes", data_dir)


@pytest.fixture(scope="module")
def images():
    """Of each split those of each class; and the templates."""
    return scenes.real_digits()


@pytest.fixture(scope="module")
def made(images):
    """The scenes of each split."""
    return {split: scenes.make(split, images[0][split])[0] for split in SPLITS}


@pytest.fixture(scope="module")
def texts(prepared):
    """The captions of each split, ``[N][5]``."""
    words = vocabulary.split(prepared["train"]["words"])
    found = {}
    for split, content in prepared.items():
        parts = np.split(content["tokens"], content["starts"][1:-1])
        decoded = [vocabulary.decode(part, words) for part in parts]
        found[split] = [decoded[k : k + 5] for k in range(0, len(decoded), 5)]
    return found


# --- Which scenes there are ---


def test_the_scenes_are_the_same_on_every_machine(prepared, data_dir):
    recorded = arrays.manifest(data_dir, "scenes")["arrays"]
    assert {key: recorded[key]["sha256"][:8] for key in DIGESTS} == DIGESTS


def test_there_are_2160_training_500_validation_and_500_test_scenes(prepared):
    for split, count in dict(train=2_160, valid=500, test=500).items():
        content = prepared[split]
        assert content["images"].shape == (count, 512)
        assert content["pictures"].shape == (count, 36, 36)
        assert content["starts"].shape == (5 * count + 1,)
        assert content["starts"][-1] == len(content["tokens"])
        assert content["tokens"].min() >= vocabulary.SPECIAL  # every word is known
        dtypes = {key: str(array.dtype) for key, array in content.items()}
        assert dtypes == dict(
            images="float32", tokens="int32", starts="int64", above="int32", pictures="uint8"
        ) | (dict(words="uint8") if split == "train" else {})


def test_each_of_720_kinds_is_there_thrice_in_training_and_at_most_once_elsewhere(made):
    counts = {split: Counter(made[split]) for split in SPLITS}
    assert len(counts["train"]) == 720 and set(counts["train"].values()) == {3}
    assert set(counts["valid"].values()) == set(counts["test"].values()) == {1}
    assert made["valid"] != made["test"]


def test_no_digit_is_in_two_splits_and_no_template_in_a_scene(images):
    of_class, templates = images
    found = [image.tobytes() for split in SPLITS for same in of_class[split] for image in same]
    found += [image.tobytes() for image in templates]
    assert len(set(found)) == len(found) == 1_797
    assert len(templates) == 64
    pixels = digits.splits()["test"]
    for label, same in enumerate(of_class["test"]):
        expected = pixels["x"][pixels["y"] == label].reshape(-1, 8, 8)
        np.testing.assert_array_equal(np.round(same * (255 / 16)), expected)


# --- Captions ---

PHRASE = r"(an?) (?:(small|little|large|big) )?(\w+)"
CAPTION = re.compile(
    rf"(?:there is |a picture of )?{PHRASE}"
    rf"(?: (and|with|above|over|below|under|(?:to the )?(?:left|right) of) {PHRASE})?"
)
SIZE = dict(small=False, little=False, large=True, big=True)
RELATION = {  # and whether the first digit named lies before the other
    "above": ("above", 1),
    "over": ("above", 1),
    "below": ("above", -1),
    "under": ("above", -1),
    "left of": ("left of", 1),
    "right of": ("left of", -1),
}
DIGITS = "zero one two three four five six seven eight nine".split()


def facts(caption):
    """What a caption says: which digits are there, their sizes, and which lies before which."""
    groups = CAPTION.fullmatch(caption).groups()
    found, named = set(), []
    for article, size, name in (groups[:3], groups[4:]):
        if name is not None:
            assert article == ("an" if size is None and name == "eight" else "a")
            named.append(DIGITS.index(name))
            found.add(("there is", named[-1]))
            found |= {("large", named[-1], SIZE[size])} if size else set()
    relation = RELATION.get((groups[3] or "and").removeprefix("to the "))
    if relation:
        name, step = relation
        found.add((name, *named[::step]))
    return found


def truth(scene):
    """All that can be said of a scene."""
    relation = ("left of" if scene.beside else "above", *scene.classes)
    sizes = {("large", *pair) for pair in zip(scene.classes, scene.large, strict=True)}
    return {relation} | sizes | {("there is", label) for label in scene.classes}


def test_captions_say_nothing_that_is_not_so_and_the_last_says_all(made, texts):
    for split in SPLITS:
        for scene, five in zip(made[split], texts[split], strict=True):
            said = [facts(caption) for caption in five]
            assert set().union(*said) == said[4] == truth(scene)
            assert [len(each) for each in said] == [1, 2, 3, 4, 5]


def test_above_has_exactly_the_pairs_of_which_one_caption_says_less(prepared, texts):
    for split in SPLITS:
        above = {tuple(pair) for pair in prepared[split]["above"].tolist()}
        assert len(above) == 7 == len(prepared[split]["above"])
        for five in texts[split]:
            said = [facts(caption) for caption in five]
            assert above == {(k, m) for k in range(5) for m in range(5) if said[k] < said[m]}


def test_the_same_is_said_in_different_words_and_from_either_side(texts):
    words = Counter(word for five in texts["train"] for text in five for word in text.split())
    assert len(words) == 30 and min(words.values()) > 100
    ways = {}
    for five in texts["train"]:
        for k, caption in enumerate(five):
            ways.setdefault((k, frozenset(facts(caption))), set()).add(caption)
    everything = [found for (k, _), found in ways.items() if k == 4]
    assert len(everything) == 720 and np.mean([len(found) for found in everything]) > 2.5


def test_either_digit_is_the_one_of_the_first_caption(made, texts):
    first = [
        facts(five[0]) == {("there is", s.classes[0])}
        for s, five in zip(made["train"], texts["train"], strict=True)
    ]
    assert 0.45 < np.mean(first) < 0.55


# --- Pictures ---


def test_a_picture_shows_the_digits_where_and_as_large_as_the_scene_says(made, images, prepared):
    for scene, picture in zip(made["test"], prepared["test"]["pictures"], strict=True):
        picture = picture.T if scene.beside else picture
        for part, label, large in zip(
            (picture[:18], picture[18:]), scene.classes, scene.large, strict=True
        ):
            part = part.T if scene.beside else part
            (top, left), (bottom, right) = (
                np.argwhere(part > 0).min(0),
                np.argwhere(part > 0).max(0),
            )
            extent = max(bottom - top, right - left) + 1
            assert 14 <= extent <= 16 if large else 7 <= extent <= 8
            if not large:  # it is a real digit of this class and split
                known = {
                    np.round(image * (255 / 16))
                    .astype(np.uint8)[image.any(1)][:, image.any(0)]
                    .tobytes()
                    for image in images[0]["test"][label]
                }
                assert part[top : bottom + 1, left : right + 1].tobytes() in known


def test_a_digit_is_enlarged_bilinearly():
    image = np.random.RandomState(0).randint(0, 17, (8, 8))
    grey = np.pad(image.astype(float), 1)  # black around
    at = np.arange(16) / 2 - 0.25
    for axis in (0, 1):
        grey = np.apply_along_axis(lambda line: np.interp(at, np.arange(-1, 9), line), axis, grey)
    found = scenes.enlarge(image)
    assert found.max() <= scenes.WHITE
    np.testing.assert_array_equal(found, np.floor(grey + 0.5))


# --- Features ---


def test_similarities_are_what_the_best_correlation_exceeds_a_half_by_squared(images):
    rng = np.random.RandomState(0)
    pictures = scenes.make("valid", images[0]["valid"])[1][:3]
    templates = images[1][:5]
    found = scenes.similarities(pictures, templates).reshape(3, 4, 2, 5)
    for n, place, size, k in rng.randint((3, 4, 2, 5), size=(40, 4)):
        step, best = 1 + size, 0.0
        width = 8 * step
        for a in range(18 - width + 1):
            for b in range(-3, 4):
                along, across = 18 * (place % 2) + a, (36 - width) // 2 + b
                row, column = (along, across) if place < 2 else (across, along)
                window = pictures[n, row : row + width, column : column + width].astype(float)
                window = window.reshape(8, step, 8, step).mean((1, 3)).ravel()
                window, template = window - window.mean(), templates[k].ravel().astype(float)
                template -= template.mean()
                lengths = max(np.linalg.norm(window), 8 * scenes.FAINT) * np.linalg.norm(template)
                best = max(best, window @ template / lengths)
        expected = 255 * max(0, (best - 0.5) / 0.5) ** 2
        assert abs(found[n, place, size, k] - expected) <= 0.5 + 1e-3


def test_a_template_is_most_similar_to_itself(images):
    pictures = np.zeros((64, 36, 36), int)
    pictures[:, 5:13, 13:21] = images[1]  # small, on top
    found = scenes.similarities(pictures, images[1]).reshape(64, 4, 2, 64)
    np.testing.assert_array_equal(found[:, 0, 0].argmax(1), np.arange(64))
    assert (found[range(64), 0, 0, range(64)] == 255).all()
    assert found[:, 1].max() < 255 and found[:, 2:, 1].max() < 255


def test_features_have_norm_1_and_are_not_negative(prepared):
    for split in SPLITS:
        found = prepared[split]["images"]
        np.testing.assert_allclose(np.square(found, dtype=float).sum(1), 1, rtol=1e-6)
        assert found.min() == 0


def test_a_linear_map_finds_out_what_is_to_be_seen_in_new_scenes(prepared, made):
    def told(split):
        """Of each scene which digit is at each of four places ``[N, 4, 10]``, and their sizes."""
        found, large = np.zeros((len(made[split]), 4, 10)), []
        for n, scene in enumerate(made[split]):
            for which in (0, 1):
                found[n, 2 * scene.beside + which, scene.classes[which]] = 1
            large.append(scene.large)
        return found, np.array(large)

    def read(target):
        x = np.column_stack([prepared["train"]["images"], np.ones(2_160)]).astype(float)
        weights = np.linalg.solve(x.T @ x + 0.1 * np.eye(513), x.T @ target)
        return np.column_stack([prepared["test"]["images"], np.ones(500)]) @ weights

    (known, large), (expected, sizes) = told("train"), told("test")
    guess = read(known.reshape(-1, 40)).reshape(-1, 4, 10)
    at_place = guess.argmax(-1)[expected.any(-1)] == expected.argmax(-1)[expected.any(-1)]
    assert at_place.mean() > 0.9  # by chance 0.1
    present = read(known.sum(1)).argsort(1)[:, -2:]
    assert np.take_along_axis(expected.sum(1), present, 1).mean() > 0.85  # by chance 0.2
    assert ((read(large) > 0.5) == sizes).mean() > 0.97
    beside = read(known[:, 2:].sum((1, 2)))
    assert ((beside > 1) == (expected[:, 2:].sum((1, 2)) > 1)).mean() > 0.97
