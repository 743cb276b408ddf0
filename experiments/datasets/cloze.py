"""Questions about a passage, one of whose entities is the answer: what data sets of them have in
common.

Entities are anonymous: words ``@entity0``, ``@entity1`` and so on, whose numbers say nothing beyond
their own passage. In the question ``@placeholder`` stands for the answer. Texts differ in length,
so that those of a split lie one behind another, without ends: the passage of case n is
``passages[passage_starts[n]:passage_starts[n + 1]]``.

    passages         int32 [n]      words by number (experiments/datasets/vocabulary.py)
    passage_starts   int64 [N + 1]  from 0 to n
    questions        int32 [m]      and question_starts: the same of the questions
    answers          int32 [N]      the number of the entity asked for
    words            uint8          in the training set alone: the vocabulary, a word a line
"""

from collections.abc import Sequence

import numpy as np

from experiments.datasets.vocabulary import UNKNOWN, numbers

ENTITY = "@entity"  # how the words of entities begin
PLACEHOLDER = "@placeholder"


def pack(
    passages: Sequence[str], questions: Sequence[str], answers: Sequence[str], words: Sequence[str]
) -> dict:
    """The arrays of a split but for the vocabulary, as above.

    Args:
        passages, questions: with blanks between the words.
        answers: a word each.
        words: the vocabulary.
    """
    number_of = numbers(words)

    def ragged(texts):
        tokens = (number_of.get(word, UNKNOWN) for text in texts for word in text.split())
        lengths = [len(text.split()) for text in texts]
        return np.fromiter(tokens, np.int32), np.cumsum([0, *lengths], dtype=np.int64)

    (passage, passage_starts), (question, question_starts) = map(ragged, (passages, questions))
    return dict(
        passages=passage,
        passage_starts=passage_starts,
        questions=question,
        question_starts=question_starts,
        answers=np.array([number_of.get(answer, UNKNOWN) for answer in answers], np.int32),
    )
