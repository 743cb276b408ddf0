"""The built-in stories: what they look like, that they can be answered, and how well at best."""

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
def splits(data_dir):
    return datasets.load("stories", data_dir)


@pytest.fixture(scope="module")
def texts(splits):
    """Return passage, question and answer of each example of a split, in words."""
    words = vocabulary.split(splits["train"]["words"])

    def decoded(split, name):
        starts, tokens = split[f"{name}_starts"], split[f"{name}s"]
        return [vocabulary.decode(tokens[a:b], words) for a, b in itertools.pairwise(starts)]

    def examples(split):
        answers = [vocabulary.decode([answer], words) for answer in split["answers"]]
        return list(
            zip(decoded(split, "passage"), decoded(split, "question"), answers, strict=True)
        )

    return {name: examples(split) for name, split in splits.items()}


def candidates(passage, question):
    """Return the entities of the passage that did what the question asks for."""
    placeholder, *asked, _, thing = question.split()
    assert placeholder == cloze.PLACEHOLDER
    told = DEED_OF[" ".join(asked)]
    sentences = [sentence.split() for sentence in passage.split(" .") if sentence]
    return [words[0] for words in sentences if words[1] == told and words[-1] == thing]


def test_sizes_are_as_documented_and_every_word_is_known(splits):
    assert {name: len(split["answers"]) for name, split in splits.items()} == stories.SIZES
    for split in splits.values():
        assert min(split["passages"].min(), split["questions"].min()) >= vocabulary.SPECIAL


def test_a_reader_can_answer_all_but_ambiguous_questions(texts):
    chances = []
    for passage, question, answer in itertools.chain(*texts.values()):
        entities = candidates(passage, question)
        assert answer in entities and len(entities) in (1, 2)
        chances.append(1 / len(entities))
    assert np.mean(chances) == pytest.approx(stories.CEILING, abs=0.005)


def test_the_stories_are_the_same_on_every_machine(splits, data_dir):
    recorded = arrays.manifest(data_dir, "stories")["arrays"]
    assert {key: recorded[key]["sha256"][:8] for key in DIGESTS} == DIGESTS
