"""Words by number, and lists of words as arrays: what all data sets of texts have in common."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

END = 0  # of a text, or nothing
UNKNOWN = 1  # a word that is not in the vocabulary
SPECIAL = 2  # numbers that are no words of the vocabulary; its first word has the next


def of(texts: Iterable[str]) -> list[str]:
    """The words of texts by decreasing count, those of equal count as they come first."""
    counts = Counter(word for text in texts for word in text.split())
    return [word for word, _ in counts.most_common()]


def join(words: Iterable[str]) -> np.ndarray:
    """Words, of which none contains a newline, as uint8 ``[m]``."""
    return np.frombuffer("\n".join(words).encode(), np.uint8)


def split(words: np.ndarray) -> list[str]:
    """What was joined."""
    return bytes(words).decode().split("\n")


def numbers(words: Sequence[str]) -> dict[str, int]:
    """The number of each word of a vocabulary."""
    return {word: number for number, word in enumerate(words, start=SPECIAL)}


def decode(tokens: Iterable[int], words: Sequence[str]) -> str:
    """The text of some numbers, with a question mark for each word that is not known."""
    return " ".join("?" if k == UNKNOWN else words[k - SPECIAL] for k in tokens)


def pad(tokens: np.ndarray, starts: np.ndarray, texts, T: int) -> tuple[np.ndarray, np.ndarray]:
    """Some of the texts that lie one behind another in tokens, side by side.

    Args:
        tokens, starts: text n is ``tokens[starts[n]:starts[n + 1]]``.
        texts: which, ``[B]``.
        T: what does not fit is cut.

    Returns:
        int32 ``[B, T]``, END behind each text, and how long the texts are, ``[B]``.
    """
    first, ends = starts[texts], starts[texts + 1]
    at = first[:, None] + np.arange(T)
    is_word = at < ends[:, None]
    padded = tokens[at * is_word] * is_word  # END is 0; also of arrays on the device
    return padded.astype(np.int32), (ends - first).astype(np.int32)
