"""The built-in scenes: their pictures, true and ordered captions, and telling features."""

import re

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import vocabulary
from experiments.datasets.synthetic import scenes

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return datasets.load("scenes", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def images():
    """Of each split those of each class; and the templates."""
    return scenes.real_digits()


@pytest.fixture(scope="module")
def made(images):
    """The scenes of each split."""
    return {split: scenes.draw(split, images[0][split])[0] for split in SPLITS}


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


def test_there_are_2160_500_and_500_scenes(prepared):
    for split, count in dict(train=2_160, valid=500, test=500).items():
        content = prepared[split]
        assert content["images"].shape == (count, 512) and content["images"].min() == 0
        norms = np.square(content["images"], dtype=float).sum(1)
        np.testing.assert_allclose(norms, 1, rtol=1e-6)
        assert content["pictures"].shape == (count, 36, 36)
        assert content["starts"].shape == (5 * count + 1,)
        assert content["starts"][-1] == len(content["tokens"])
        assert content["tokens"].min() >= vocabulary.SPECIAL  # every word is known
        dtypes = {key: str(array.dtype) for key, array in content.items()}
        assert dtypes == dict(
            images="float32", tokens="int32", starts="int64", above="int32", pictures="uint8"
        ) | (dict(words="uint8") if split == "train" else {})


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
    """Return the facts of a caption: the digits, their sizes, and which lies before which."""
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
    """Return all facts of a scene."""
    relation = ("left of" if scene.beside else "above", *scene.classes)
    sizes = {("large", *pair) for pair in zip(scene.classes, scene.large, strict=True)}
    return {relation} | sizes | {("there is", label) for label in scene.classes}


def test_captions_are_true_and_the_last_says_all(made, texts):
    for split in SPLITS:
        for scene, five in zip(made[split], texts[split], strict=True):
            said = [facts(caption) for caption in five]
            assert set().union(*said) == said[4] == truth(scene)
            assert [len(each) for each in said] == [1, 2, 3, 4, 5]


# --- Features ---


def test_a_linear_map_reads_new_scenes(prepared, made):
    def truth_of(split):
        """Return the digit at each of four places, ``[N, 4, 10]``, and the sizes, ``[N, 2]``."""
        places = np.zeros((len(made[split]), 4, 10))
        for n, scene in enumerate(made[split]):
            places[n, [2 * scene.beside, 2 * scene.beside + 1], scene.classes] = 1
        return places, np.array([scene.large for scene in made[split]])

    def read(target):
        x = np.column_stack([prepared["train"]["images"], np.ones(2_160)]).astype(float)
        weights = np.linalg.solve(x.T @ x + 0.1 * np.eye(513), x.T @ target)
        return np.column_stack([prepared["test"]["images"], np.ones(500)]) @ weights

    (known, large), (expected, sizes) = truth_of("train"), truth_of("test")
    guess = read(known.reshape(-1, 40)).reshape(-1, 4, 10)
    at_place = guess.argmax(-1)[expected.any(-1)] == expected.argmax(-1)[expected.any(-1)]
    assert at_place.mean() > 0.9  # by chance 0.1
    present = read(known.sum(1)).argsort(1)[:, -2:]
    assert np.take_along_axis(expected.sum(1), present, 1).mean() > 0.85  # by chance 0.2
    assert ((read(large) > 0.5) == sizes).mean() > 0.97
    beside = read(known[:, 2:].sum((1, 2)))
    assert ((beside > 1) == (expected[:, 2:].sum((1, 2)) > 1)).mean() > 0.97
