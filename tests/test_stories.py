"""The built-in stories: what they look like, that they can be answered, and how well at best."""

from collections import Counter
import itertools

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import arrays, cloze, vocabulary
from experiments.datasets.synthetic import stories

DEED_OF = {asked: told for told, asked in stories.DEEDS}


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


@pytest.fixture(scope="module")
def texts(splits):
    """Passage, question and answer of each case of a split, in words."""
    words = vocabulary.split(splits["train"]["words"])

    def decoded(split, what):
        starts, tokens = split[f"{what}_starts"], split[f"{what}s"]
        return [vocabulary.decode(tokens[a:b], words) for a, b in itertools.pairwise(starts)]

    return {
        name: list(
            zip(
                decoded(split, "passage"),
                decoded(split, "question"),
                (vocabulary.decode([answer], words) for answer in split["answers"]),
                strict=True,
            )
        )
        for name, split in splits.items()
    }


def candidates(passage, question):
    """Who in the passage did what the question asks for."""
    placeholder, *asked, _, thing = question.split()
    assert placeholder == cloze.PLACEHOLDER
    told = DEED_OF[" ".join(asked)]
    said = [sentence.split() for sentence in passage.split(" .") if sentence]
    return [words[0] for words in said if words[1] == told and words[-1] == thing]


def test_arrays_are_as_documented(splits):
    assert {name: len(split["answers"]) for name, split in splits.items()} == stories.SIZES
    for name, split in splits.items():
        dtypes = {key: str(array.dtype) for key, array in split.items()}
        expected = dict(
            passages="int32",
            passage_starts="int64",
            questions="int32",
            question_starts="int64",
            answers="int32",
        )
        assert dtypes == expected | (dict(words="uint8") if name == "train" else {})
        for what in ("passage", "question"):
            starts, tokens = split[f"{what}_starts"], split[f"{what}s"]
            assert starts[0] == 0 and starts[-1] == len(tokens) and (np.diff(starts) > 0).all()
            assert tokens.min() >= vocabulary.SPECIAL  # every word is known


def test_whoever_reads_gets_all_right_but_half_of_the_ambiguous_ones(texts):
    chances = []
    for passage, question, answer in itertools.chain(*texts.values()):
        found = candidates(passage, question)
        assert answer in found and len(found) in (1, 2)
        chances.append(1 / len(found))
    assert np.mean(chances) == pytest.approx(stories.CEILING, abs=0.005)


def test_knowing_who_is_in_a_story_is_worth_little(texts):
    right, firsts = [], []
    for passage, _, answer in texts["train"]:
        entities = [word for word in passage.split() if word.startswith(cloze.ENTITY)]
        assert max(Counter(entities).values()) == 1
        right.append(1 / len(entities))
        firsts.append(entities[0] == answer)
    assert np.mean(right) < 0.25 and np.mean(firsts) == pytest.approx(0.25, abs=0.02)


def test_no_story_is_in_two_splits_or_twice_in_one(texts):
    found = list(itertools.chain(*texts.values()))
    assert len({(passage, question) for passage, question, _ in found}) == len(found)


def test_the_stories_are_the_same_on_every_machine(splits, data_dir):
    recorded = arrays.manifest(data_dir, "stories")["arrays"]
    assert {key: recorded[key]["sha256"][:8] for key in DIGESTS} == DIGESTS
