"""News of nobody: generated stories with questions about them; built in.

A story is four sentences, each about an entity that did something to something:

    @entity7 sold the old ferry . @entity3 repaired the bridge . …

The question restates one of them in other words for what was done, and leaves the entity out:

    @placeholder disposed of the ferry

In one story in ten (AMBIGUOUS) a fifth sentence says of another entity what the question asks for,
so that no reader can know which of the two is meant: of such stories a perfect one gets half right,
of all 95 % (CEILING). Whoever answers with some entity of the story gets a quarter right, or less.
"""

import numpy as np

from experiments.datasets import Dataset, arrays, cloze, vocabulary
from experiments.datasets.cloze import ENTITY, PLACEHOLDER

SIZES = dict(train=8000, valid=1000, test=1000)
ENTITIES = 12
AMBIGUOUS = 0.1
CEILING = 1 - AMBIGUOUS / 2

# What was done, as the story and as the question has it.
DEEDS = (
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
    """A passage, a question and the answer."""

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
    """What an entity did to a thing."""
    kind = f"{KINDS[random.integers(len(KINDS))]} " if random.random() < 0.5 else ""
    return f"{entity} {deed} the {kind}{thing} ."


def make() -> arrays.Splits:
    """Return the stories. Validation and test are drawn as training is."""
    made = {}
    for number, (split, count) in enumerate(SIZES.items()):
        random = np.random.default_rng((7, number))
        made[split] = list(zip(*(story(random) for _ in range(count)), strict=True))
    passages, questions, _ = made["train"]
    words = vocabulary.of([*passages, *questions])
    splits = {split: cloze.pack(*texts, words) for split, texts in made.items()}
    splits["train"]["words"] = vocabulary.join(words)
    return splits


DATASET = Dataset(title="generated stories", stands_for="cnn", make=make)
