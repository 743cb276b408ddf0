"""Lines of handwriting with their texts: what every data set of them has in common.

As in section 4.1 of Graves (2013), a line is a sequence of points ``(dx, dy, end)``: the pen's
offset from the point before, which may lie in the stroke before, and whether the stroke ends with
this point. A line of n points has n offsets, the first (0, 0), before and after normalization: the
input with which a network begins that predicts the other n - 1. So it also learns of a first stroke
that is a dot, and ``cumsum`` gives back the line, but for where it stood. y is as recorded; a
tablet's grows downwards.

Lines differ in length, so that a split is the lines one behind another, line l of L being
``points[point_starts[l]:point_starts[l + 1]]`` and ``text[text_starts[l]:text_starts[l + 1]]``:

    points        float32 [P, 3]   dx and dy less their mean, over their standard deviation, but 0
                                   for the first of a line; end
    point_starts  int64 [L + 1]    from 0 to P
    text          uint8 [C]        classes of characters, see `encode`
    text_starts   int64 [L + 1]    from 0 to C
    scale         float32 [2, 2]   mean and standard deviation of dx and dy, those of training
"""

from collections.abc import Iterable, Sequence
import string

import numpy as np

# Graves (section 5.2) has 57 classes, all digits and most punctuation being one of them. Which
# punctuation he kept he does not say.
ALPHABET = string.ascii_lowercase + string.ascii_uppercase + " .,'"
OTHER = "?"  # how the class of all other characters is shown
CLASSES = 1 + len(ALPHABET)
CLASS_OF = {character: k for k, character in enumerate(ALPHABET, start=1)}

Line = tuple[np.ndarray, str]  # offsets, see `offsets`, and the text


def encode(text: str) -> np.ndarray:
    """The classes of a text's characters, uint8 ``[U]``: k of ALPHABET[k - 1], 0 of any other."""
    return np.array([CLASS_OF.get(character, 0) for character in text], np.uint8)


def decode(classes: Iterable[int]) -> str:
    """The text of classes, with a question mark for each 0."""
    return "".join((OTHER + ALPHABET)[k] for k in classes)


def offsets(strokes: Sequence[np.ndarray]) -> np.ndarray:
    """The points of a line as float32 ``[n, 3]``: dx, dy, and 1 where a stroke ends, else 0.

    Args:
        strokes: where the pen was, ``[k, 2]`` with k > 0 for each stroke.
    """
    positions = np.concatenate(strokes)
    ends = np.zeros(len(positions))
    ends[np.cumsum([len(stroke) for stroke in strokes]) - 1] = 1
    moves = np.diff(positions, axis=0, prepend=positions[:1])
    return np.column_stack([moves, ends]).astype(np.float32)


def scale_of(lines: Iterable[Line]) -> np.ndarray:
    """Mean and standard deviation of dx and dy, float32 ``[2, 2]``, without the first of a line."""
    moves = np.concatenate([points[1:, :2] for points, _ in lines])
    return np.stack([moves.mean(0, np.float64), moves.std(0, np.float64)]).astype(np.float32)


def pack(lines: Iterable[Line], scale: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a split, as above.

    Args:
        lines: offsets ``[n, 3]`` as recorded, and text, for each; at least one.
        scale: what `scale_of` finds for the training lines.
    """
    points, texts = zip(*((points, encode(text)) for points, text in lines), strict=True)
    joined = np.concatenate(points).astype(np.float32)
    joined[:, :2] = (joined[:, :2] - scale[0]) / scale[1]
    point_starts = starts(points)
    joined[point_starts[:-1], :2] = 0
    return dict(
        points=joined,
        point_starts=point_starts,
        text=np.concatenate(texts),
        text_starts=starts(texts),
        scale=scale,
    )


def starts(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Where each part begins when they are joined, and where the last ends, int64 ``[L + 1]``."""
    return np.cumsum([0, *map(len, parts)], dtype=np.int64)
