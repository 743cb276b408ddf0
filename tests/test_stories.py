"""The built-in stories: what they look like, that they can be answered, and how well at best."""

import pytest

from experiments import datasets
from experiments.datasets import arrays, vocabulary
from experiments.datasets.synthetic import stories

# With other stories, results/stories could not be compared with new runs.
DIGESTS = {
    "train.passages": "fbc5b1aa",
    "train.questions": "10677402",
    "train.answers": "3428d862",
    "train.words": "a1d540bd",
    "valid.passages": "ef6cccaa",
    "valid.answers": "ee7c1ba9",
    "test.passages": "7d18fefe",
    "test.answers": "768afd5f",
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def splits(data_dir):
    return datasets.load("stories", data_dir)


def test_sizes_are_as_documented_and_every_word_is_known(splits):
    assert {name: len(split["answers"]) for name, split in splits.items()} == stories.SIZES
    for split in splits.values():
        assert min(split["passages"].min(), split["questions"].min()) >= vocabulary.SPECIAL


def test_the_stories_are_the_same_on_every_machine(splits, data_dir):
    recorded = arrays.manifest(data_dir, "stories")["arrays"]
    assert {key: recorded[key]["sha256"][:8] for key in DIGESTS} == DIGESTS
