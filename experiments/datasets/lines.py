"""Lines of handwriting with their texts, as arrays.

As in section 4.1 of Graves (2013), a line is a sequence of points ``(dx, dy, end)``: the pen's
offset from the point before, which may be in the stroke before, and whether the stroke ends with
this point. A line of n points has n offsets, the first (0, 0), before and after normalization: a
network takes it as its first input and predicts the other n - 1. So the network also learns that a
first stroke may be a dot, and ``cumsum`` gives back the line up to its place on the page. y is as
recorded; on a tablet it grows downwards.

Lines differ in length, so a split has them one behind another, and line l of L is
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
OTHER = "?"  # shows the class of all other characters
CLASSES = 1 + len(ALPHABET)
CLASS_OF = {character: k for k, character in enumerate(ALPHABET, start=1)}

Line = tuple[np.ndarray, str]  # offsets, see `offsets`, and the text


def encode(text: str) -> np.ndarray:
    """Return the classes of a text's characters, uint8 ``[U]``: k for ALPHABET[k - 1], else 0."""
    return np.array([CLASS_OF.get(character, 0) for character in text], np.uint8)


def decode(classes: Iterable[int]) -> str:
    """Return the text of classes, with a question mark for each 0."""
    return "".join((OTHER + ALPHABET)[k] for k in classes)


def offsets(strokes: Sequence[np.ndarray]) -> np.ndarray:
    """Return the points of a line, float32 ``[n, 3]``: dx, dy, and 1 where a stroke ends, else 0.

    Args:
        strokes: positions of the pen, ``[k, 2]`` with k > 0 for each stroke.
    """
    positions = np.concatenate(strokes)
    ends = np.zeros(len(positions))
    ends[np.cumsum([len(stroke) for stroke in strokes]) - 1] = 1
    moves = np.diff(positions, axis=0, prepend=positions[:1])
    return np.column_stack([moves, ends]).astype(np.float32)


def scale_of(lines: Iterable[Line]) -> np.ndarray:
    """Return mean and standard deviation of dx and dy without the first of a line, ``[2, 2]``."""
    moves = np.concatenate([points[1:, :2] for points, _ in lines])
    return np.stack([moves.mean(0, np.float64), moves.std(0, np.float64)]).astype(np.float32)


def pack(lines: Iterable[Line], scale: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of a split, as above.

    Args:
        lines: offsets ``[n, 3]`` as recorded, and text, for each; at least one.
        scale: `scale_of` the training lines.
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
    """Return where each of joined parts begins, and where the last ends, int64 ``[L + 1]``."""
    return np.cumsum([0, *map(len, parts)], dtype=np.int64)
