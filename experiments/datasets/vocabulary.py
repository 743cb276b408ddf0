"""Store words as numbers and lists of words as arrays, as all data sets of text do."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

END = 0  # the end of a text, or padding
UNKNOWN = 1  # a word that is not in the vocabulary
SPECIAL = 2  # how many numbers are not words; the first word of the vocabulary has number 2


def by_count(texts: Iterable[str]) -> list[str]:
    """Return the words of texts by decreasing count; ties are in the order of first use."""
    counts = Counter(word for text in texts for word in text.split())
    return [word for word, _ in counts.most_common()]


def join(words: Iterable[str]) -> np.ndarray:
    """Return words, none of which contains a newline, as uint8 ``[m]``."""
    return np.frombuffer("\n".join(words).encode(), np.uint8)


def split(words: np.ndarray) -> list[str]:
    """Return the words that `join` joined."""
    return bytes(words).decode().split("\n")


def numbers(words: Sequence[str]) -> dict[str, int]:
    """Return the number of each word of a vocabulary."""
    return {word: number for number, word in enumerate(words, start=SPECIAL)}


def ragged(
    texts: Iterable[Iterable[str]], number_of: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return texts of words as numbers, one behind another, and where each text starts.

    Returns:
        tokens int32 ``[n]`` and starts int64 ``[N + 1]``, from 0 to n: text k is
        ``tokens[starts[k]:starts[k + 1]]``.
    """
    tokens, starts = array("i"), [0]
    for words in texts:
        tokens.extend(number_of.get(word, UNKNOWN) for word in words)
        starts.append(len(tokens))
    return np.array(tokens, np.int32), np.array(starts, np.int64)


def decode(tokens: Iterable[int], words: Sequence[str]) -> str:
    """Return the text of numbers, with a question mark for each unknown word."""
    return " ".join("?" if k == UNKNOWN else words[k - SPECIAL] for k in tokens)


def pad(tokens, starts, texts, T: int) -> tuple[np.ndarray, np.ndarray]:
    """Return some texts of a ragged array side by side, cut or padded to T words.

    Args:
        tokens: the array, as `ragged` returns it.
        starts: where its texts start.
        texts: the indices of the texts, ``[B]``.
        T: the length of the result.

    Returns:
        int32 ``[B, T]``, END behind each text, and the lengths of the texts before they are cut,
        ``[B]``.
    """
    first, ends = starts[texts], starts[texts + 1]
    at = first[:, None] + np.arange(T)
    is_word = at < ends[:, None]
    padded = tokens[at * is_word] * is_word  # END is 0; also of arrays on the device
    return padded.astype(np.int32), (ends - first).astype(np.int32)
