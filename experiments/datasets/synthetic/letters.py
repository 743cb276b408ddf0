"""A single-stroke alphabet of our own: where the pen goes in each letter.

Each line of letters.txt is a letter and its drawing on a grid, y upwards, from the letter's own
left edge at x = 0: the baseline at y = 0, small letters up to 10, ascenders to 18, capitals to 17,
descenders down to -8. A smooth curve goes through the points ``x,y``; after a ``/`` it starts anew,
so that there is a corner; at a ``|`` the pen is lifted.
"""

import dataclasses
from pathlib import Path

import numpy as np

SMOOTH, CORNER, LIFT = range(3)  # what becomes of the curve at a point
MARKS = {"/": CORNER, "|": LIFT}

# A letter's last stroke may continue into the next letter if it ends at the right, and if the first
# stroke of the next begins at the left: the line would cross a round letter.
JOINING = "acdehklmnuvw"
JOINED = "behijklmnprtuvwxz"


@dataclasses.dataclass(frozen=True)
class Letter:
    """A letter as arrays.

    Attributes:
        points: the points of the curve in the order of writing, ``[n, 2]``.
        ends: for each of them SMOOTH, CORNER (a piece of the curve ends, the next begins) or LIFT
            (the stroke ends), ``[n]``; the last is a LIFT.
    """

    points: np.ndarray
    ends: np.ndarray

    @classmethod
    def from_drawing(cls, drawing: list[str]) -> "Letter":
        points: list = []
        ends: list[int] = []
        for word in [*drawing, "|"]:
            if word in MARKS:
                ends[-1] = MARKS[word]
            else:
                points.append(np.array(word.split(","), float))
                ends.append(SMOOTH)
        return cls(np.array(points), np.array(ends))


def read() -> dict[str, Letter]:
    """Return the letters of letters.txt."""
    lines = Path(__file__).with_name("letters.txt").read_text().splitlines()
    return {line[0]: Letter.from_drawing(line[1:].split()) for line in lines}


LETTERS = read()
