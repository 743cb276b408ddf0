"""Generate news stories with questions about them.

A story has four sentences. In each another entity did something to something:

    @entity7 sold the old ferry . @entity3 repaired the bridge . …

The question restates one sentence with other words for the deed and without the entity:

    @placeholder disposed of the ferry

One story in ten (AMBIGUOUS) has a fifth sentence, in which another entity did what the question
asks for. No reader can know which of the two is meant, so a perfect reader gets half of these
stories right, and 95 % of all. A guess among the entities of a story is right in a
quarter of the stories or less.
"""

import numpy as np

from experiments.datasets import Dataset, arrays, cloze, vocabulary
from experiments.datasets.cloze import ENTITY, PLACEHOLDER

SIZES = dict(train=8000, valid=1000, test=1000)
ENTITIES = 12
AMBIGUOUS = 0.1

DEEDS = (  # in the words of the story and in the words of the question
    ("sold", "disposed of"),
    ("repaired", "mended"),
    ("bought", "acquired"),
    ("painted", "gave color to"),
    ("visited", "went to see"),
    ("closed", "shut"),
    ("praised", "spoke well of"),
    ("insured", "took a policy for"),
)
THINGS = "bridge ferry library market museum orchard school station theater tower".split()
KINDS = "old new small large famous empty".split()


def story(random: np.random.Generator) -> tuple[str, str, str]:
    """Return a passage, a question and the answer."""

    def some(words, count: int):
        return [words[n] for n in random.permutation(len(words))[:count]]

    pairs = list(zip(some(DEEDS, 4), some(THINGS, 4), strict=True))
    if random.random() < AMBIGUOUS:
        pairs.append(pairs[0])
    entities = [f"{ENTITY}{n}" for n in random.permutation(ENTITIES)[: len(pairs)]]
    sentences = [
        sentence(random, entity, deed[0], thing)
        for entity, (deed, thing) in zip(entities, pairs, strict=True)
    ]
    (_, asked), thing = pairs[0]
    passage = " ".join(some(sentences, len(sentences)))
    return passage, f"{PLACEHOLDER} {asked} the {thing}", entities[0]


def sentence(random: np.random.Generator, entity: str, deed: str, thing: str) -> str:
    """Return a sentence about what an entity did to a thing."""
    kind = f"{KINDS[random.integers(len(KINDS))]} " if random.random() < 0.5 else ""
    return f"{entity} {deed} the {kind}{thing} ."


def make() -> arrays.Splits:
    """Return the stories; validation and test are drawn from the distribution of training."""
    made = {}
    for number, (split, count) in enumerate(SIZES.items()):
        random = np.random.default_rng((7, number))
        made[split] = list(zip(*(story(random) for _ in range(count)), strict=True))
    passages, questions, _ = made["train"]
    words = vocabulary.by_count([*passages, *questions])
    splits = {split: cloze.pack(texts, words) for split, texts in made.items()}
    splits["train"]["words"] = vocabulary.join(words)
    return splits


DATASET = Dataset(title="generated stories", stands_for="cnn", make=make)
