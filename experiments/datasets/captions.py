"""Images with five captions each: what every data set of them has in common.

What is known of an image is a vector of features of norm 1. Captions differ in length, so that
those of a split lie one behind another, the five of the first image first: caption k of image i is
``tokens[starts[5 * i + k]:starts[5 * i + k + 1]]``, without an end.

    images  float32 [N, D]     features
    tokens  int32 [n]          words by number: 2 for the first of the vocabulary, and so on;
                               1 for a word that is not in it; 0, the end or nothing, is none here
    starts  int64 [5 N + 1]    from 0 to n
    words   uint8 [m]          in the training set alone: the vocabulary, as UTF-8, a word a line
"""

from collections.abc import Sequence

import numpy as np

from experiments.datasets.vocabulary import UNKNOWN, numbers

CAPTIONS = 5  # of every image


def pack(images: np.ndarray, captions: Sequence[str], words: Sequence[str]) -> dict:
    """The arrays of a split but for the vocabulary, as above.

    Args:
        images: their features, ``[N, D]``, or what has shape, dtype and slices like them.
        captions: five for each image, ``[5 N]``, with blanks between the words.
        words: the vocabulary.
    """
    number_of = numbers(words)
    tokens = (number_of.get(word, UNKNOWN) for caption in captions for word in caption.split())
    lengths = (len(caption.split()) for caption in captions)
    return dict(
        images=images,
        tokens=np.fromiter(tokens, np.int32),
        starts=np.cumsum([0, *lengths], dtype=np.int64),
    )
