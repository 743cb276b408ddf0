"""Store questions about passages whose answers are entities of the passage.

Entities are anonymous: words ``@entity0``, ``@entity1`` and so on, whose numbers mean nothing
beyond one passage. In the question ``@placeholder`` stands for the answer. The texts of a split are
stored one behind another: the passage of example n is
``passages[passage_starts[n]:passage_starts[n + 1]]``.

    passages         int32 [n]      words by number (experiments/datasets/vocabulary.py)
    passage_starts   int64 [N + 1]  from 0 to n
    questions        int32 [m]      and question_starts: the same for the questions
    answers          int32 [N]      the number of the answer
    words            uint8          only in the training set: the vocabulary, a word a line
"""

from collections.abc import Iterable, Sequence

import numpy as np

from experiments.datasets.vocabulary import UNKNOWN, numbers, ragged

ENTITY = "@entity"  # the first letters of entities
PLACEHOLDER = "@placeholder"


def pack(texts: Iterable[Sequence[str]], words: Sequence[str]) -> dict:
    """Return the arrays of a split, except for the vocabulary.

    Args:
        texts: passages and questions, words with one blank between them, and answers, a word each.
        words: the vocabulary.
    """
    number_of = numbers(words)
    passages, questions, answers = texts
    split: dict[str, np.ndarray] = {}
    for name, parts in (("passage", passages), ("question", questions)):
        # Not split(): some words of CNN contain a blank of another kind.
        words_of_parts = (text.split(" ") for text in parts)
        split[f"{name}s"], split[f"{name}_starts"] = ragged(words_of_parts, number_of)
    split["answers"] = np.array([number_of.get(answer, UNKNOWN) for answer in answers], np.int32)
    return split
