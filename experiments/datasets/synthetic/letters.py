"""A single-stroke alphabet of our own: where the pen goes in each letter.

A letter is drawn on a grid, y upwards, from its own left edge at x = 0: the baseline at y = 0,
small letters up to 10, ascenders to 18, capitals to 17, descenders down to -8. A smooth curve goes
through its points ``x,y``; behind a ``/`` it starts anew, so that there is a corner; at a ``|`` the
pen is lifted.
"""

import dataclasses

import numpy as np

SMOOTH, CORNER, LIFT = range(3)  # what becomes of the curve at a point

DRAWINGS = {
    "a": "8,8 5,10 2,9 0,5 1,1 4,0 7,2 8,6 8,10 / 8,3 9,0 11,1",
    "b": "0,18 0,0 / 0,6 2,9 5,10 8,8 8,3 5,0 1,1",
    "c": "8,8 5,10 2,9 0,5 2,1 5,0 8,2",
    "d": "8,7 5,10 2,9 0,5 1,1 4,0 7,2 8,8 8,18 / 8,3 9,0 11,1",
    "e": "1,4 5,5 8,7 5,10 2,9 0,5 2,1 5,0 8,2",
    "f": "8,16 6,18 4,16 3,12 3,0 | 0,10 7,10",
    "g": "8,8 5,10 2,9 0,5 1,1 4,0 7,2 8,6 8,10 / 8,-3 6,-7 3,-8 0,-6",
    "h": "0,18 0,0 / 1,6 4,10 7,9 8,6 8,3 9,0 11,1",
    "i": "0,10 0,3 1,0 3,1 | 0,14 1,16",
    "j": "4,10 4,-4 2,-8 0,-6 | 4,14 5,16",
    "k": "0,18 0,0 | 7,10 0,4 / 6,1 8,0 10,1",
    "l": "0,18 0,3 1,0 3,1",
    "m": "0,10 0,0 / 1,6 3,10 5,10 6,7 6,0 / 7,6 9,10 11,10 12,7 12,3 13,0 15,1",
    "n": "0,10 0,0 / 1,6 4,10 7,9 8,6 8,3 9,0 11,1",
    "o": "5,10 2,9 0,5 2,1 4,0 7,1 8,5 7,9 4,10",
    "p": "0,10 0,-8 / 0,5 2,9 5,10 8,8 8,3 5,0 1,1",
    "q": "8,8 5,10 2,9 0,5 1,1 4,0 7,2 8,6 8,10 / 8,-6 9,-8 11,-6",
    "r": "0,10 0,0 / 1,6 3,9 5,10 7,9",
    "s": "7,8 4,10 1,8 2,6 5,5 7,3 6,1 3,0 0,2",
    "t": "3,16 3,3 4,0 6,1 | 0,10 7,10",
    "u": "0,10 0,4 1,1 3,0 6,2 8,6 8,10 / 8,3 9,0 11,1",
    "v": "0,10 4,0 / 8,10",
    "w": "0,10 3,0 / 6,9 / 9,0 / 12,10",
    "x": "0,10 8,0 | 8,10 0,0",
    "y": "0,10 4,1 | 8,10 0,-8",
    "z": "0,10 8,10 / 0,0 / 8,0",
    "A": "0,0 6,17 / 12,0 | 2,6 10,6",
    "B": "0,17 0,0 | 0,17 5,17 8,15 8,11 5,9 1,9 / 6,9 10,7 10,2 6,0 0,0",
    "C": "11,14 7,17 3,15 0,9 2,3 6,0 11,3",
    "D": "0,17 0,0 | 0,17 5,17 10,13 11,8 9,3 5,0 0,0",
    "E": "9,17 0,17 / 0,0 / 9,0 | 0,9 7,9",
    "F": "9,17 0,17 / 0,0 | 0,9 7,9",
    "G": "11,14 7,17 3,15 0,9 2,3 6,0 11,2 11,8 / 7,8",
    "H": "0,17 0,0 | 11,17 11,0 | 0,9 11,9",
    "I": "0,17 6,17 | 3,17 3,0 | 0,0 6,0",
    "J": "9,17 9,5 7,1 4,0 1,1 0,4",
    "K": "0,17 0,0 | 9,17 1,8 / 10,0",
    "L": "0,17 0,0 / 8,0",
    "M": "0,0 1,17 / 7,5 / 13,17 / 14,0",
    "N": "0,0 0,17 / 10,0 / 10,17",
    "O": "6,17 2,14 0,9 2,3 6,0 10,3 12,9 10,14 6,17",
    "P": "0,17 0,0 | 0,17 6,17 9,15 9,10 6,8 0,8",
    "Q": "6,17 2,14 0,9 2,3 6,0 10,3 12,9 10,14 6,17 | 7,5 12,-2",
    "R": "0,17 0,0 | 0,17 6,17 9,15 9,10 6,8 1,8 / 10,0",
    "S": "9,14 5,17 1,15 1,11 5,9 9,6 9,2 5,0 0,3",
    "T": "0,17 12,17 | 6,17 6,0",
    "U": "0,17 0,6 2,1 6,0 9,2 11,6 11,17",
    "V": "0,17 6,0 / 12,17",
    "W": "0,17 4,0 / 8,13 / 12,0 / 16,17",
    "X": "0,17 11,0 | 11,17 0,0",
    "Y": "0,17 6,8 / 12,17 | 6,8 6,0",
    "Z": "0,17 11,17 / 0,0 / 11,0",
    ".": "0,2 2,0",
    ",": "2,1 2,-1 0,-4",
    "'": "1,18 0,13",
}

# A letter's last stroke may go on into the next letter if it ends at the right, and if the first
# stroke of the next begins at the left: the line would cross a round letter.
JOINING = "acdehklmnuvw"
JOINED = "behijklmnprtuvwxz"


@dataclasses.dataclass(frozen=True)
class Letter:
    """A letter as arrays.

    Attributes:
        points: that the curve goes through, in the order of writing, ``[n, 2]``.
        ends: for each of them SMOOTH, CORNER (a piece of the curve ends, the next begins) or LIFT
            (the stroke ends), ``[n]``; the last is a LIFT.
    """

    points: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, drawing: str) -> "Letter":
        points, ends = [], []
        for word in drawing.split():
            if word in ("/", "|"):
                ends[-1] = CORNER if word == "/" else LIFT
            else:
                x, y = word.split(",")
                points.append((float(x), float(y)))
                ends.append(SMOOTH)
        ends[-1] = LIFT
        return cls(np.array(points), np.array(ends))


LETTERS = {character: Letter.of(drawing) for character, drawing in DRAWINGS.items()}
