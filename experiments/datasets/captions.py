"""Images with five captions each, as arrays.

An image is a vector of features of norm 1. Captions differ in length, so those of a split come one
behind another, the five of the first image first: caption k of image i is
``tokens[starts[5 * i + k]:starts[5 * i + k + 1]]``, without an end.

    images  float32 [N, D]     features
    tokens  int32 [n]          words by number: 2 for the first of the vocabulary, and so on;
                               1 for an unknown word
    starts  int64 [5 N + 1]    from 0 to n
    words   uint8 [m]          in the training set alone: the vocabulary, as UTF-8, a word a line
"""

from collections.abc import Sequence
from typing import Any

from experiments.datasets.vocabulary import numbers, ragged

CAPTIONS = 5  # of every image


def pack(images: Any, captions: Sequence[str], words: Sequence[str]) -> dict:
    """Return the arrays of a split but for the vocabulary, as above.

    Args:
        images: their features, ``[N, D]``, or what has shape, dtype and slices like them.
        captions: five for each image, ``[5 N]``, with blanks between the words.
        words: the vocabulary.
    """
    tokens, starts = ragged((caption.split() for caption in captions), numbers(words))
    return dict(images=images, tokens=tokens, starts=starts)
