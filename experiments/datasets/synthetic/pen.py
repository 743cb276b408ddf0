"""The built-in stand-in for IAM-OnDB: short lines of common words in generated handwriting.

The alphabet is letters.txt, in which each line is a letter and its drawing on a grid, y upwards,
from the letter's own left edge at x = 0: the baseline at y = 0, small letters up to 10, ascenders
to 18, capitals to 17, descenders down to -8. A smooth curve goes through the points ``x,y``; after
a ``/`` it starts anew, so that there is a corner; at a ``|`` the pen is lifted.

Each of 100 writers has a hand: slant, size, width, the gaps between letters and words, pace,
tremor, the letters that are joined to the next, and the differences of the letters from the
alphabet. Lines of one hand differ a little too. No writer is in two splits.

Prepared: lines of up to 16 characters, 20 a writer, as `lines.pack` lays them out. y grows
downwards; before normalization a unit is about a hundredth of the height of a small letter.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np

from experiments.datasets import Dataset, arrays, lines

WRITERS = dict(train=range(80), valid=range(80, 90), test=range(90, 100))
LINES = 20  # of each writer
LONGEST = 16  # characters
FINE = 8  # straight pieces per segment of a curve
SWAY = 4  # points from one random number of the tremor to the next
STOPS = (",", ".", *8 * ("",))  # one of them follows a word
UNIT = 10  # raw units per unit of the alphabet's grid

SMOOTH, CORNER, LIFT = range(3)  # what becomes of the curve at a point
MARKS = {"/": CORNER, "|": LIFT}
# A letter's last stroke may continue into the next letter if it ends at the right, and if the first
# stroke of the next begins at the left: the line would cross a round letter.
JOINING = "acdehklmnuvw"
JOINED = "behijklmnprtuvwxz"

# Rare letters are less rare here than in English, so that a few thousand words teach them all.
WORDS = Path(__file__).with_name("words.txt").read_text().split()


def letter(drawing: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of a letter's curve in the order of writing, ``[n, 2]``, and their ends.

    An end ``[n]`` is SMOOTH, CORNER (a piece of the curve ends, the next begins) or LIFT (the
    stroke ends); the last is a LIFT.
    """
    points: list[np.ndarray] = []
    ends: list[int] = []
    for word in [*drawing, "|"]:
        if word in MARKS:
            ends[-1] = MARKS[word]
        else:
            points.append(np.array(word.split(","), float))
            ends.append(SMOOTH)
    return np.array(points), np.array(ends)


DRAWINGS = Path(__file__).with_name("letters.txt").read_text().splitlines()
LETTERS = {line[0]: letter(line[1:].split()) for line in DRAWINGS}


def make() -> arrays.Splits:
    """Return 1,600 training, 200 validation and 200 test lines."""
    written = {
        split: [line for number in writers for line in written_by(number)]
        for split, writers in WRITERS.items()
    }
    scale = lines.scale_of(written["train"])
    return {split: lines.pack(written[split], scale) for split in written}


def written_by(number: int) -> list[lines.Line]:
    """Return the lines of a writer."""
    # RandomState's numbers are the same in every version of numpy; those of Generator may change.
    draw = np.random.RandomState(number)
    hand = Hand(draw)
    texts = [compose(draw) for _ in range(LINES)]
    return [(lines.offsets(write(text, hand, draw)), text) for text in texts]


def compose(draw: np.random.RandomState) -> str:
    """Return up to three words, at times with a capital, a comma or a full stop."""
    words = [WORDS[k] for k in draw.randint(len(WORDS), size=3)]
    for k in range(3):
        if draw.rand() < 0.2:
            words[k] = words[k][0].upper() + words[k][1:]
        words[k] += STOPS[draw.randint(len(STOPS))]
    while len(" ".join(words)) > LONGEST:
        words.pop()
    return " ".join(words)


class Hand:
    """The hand of a writer, drawn at random; lengths in units of the alphabet's grid.

    Attributes:
        size: of all, as a multiple.
        width: of the letters, as a multiple.
        slant: how far to the right per unit upwards.
        gap: between letters.
        space: between words, in addition.
        pace: points per unit of length.
        care: points per radian of turning, so that curves are written more slowly.
        tremor: standard deviation of the pen's distance from the curve.
        joins: the letters that are joined to the next.
        forms: the points of the letters less those of the alphabet.
    """

    def __init__(self, draw: np.random.RandomState):
        joining = draw.randint(3) / 2  # the probability of a join: 0, 1/2 or 1
        self.size = draw.uniform(0.85, 1.2)
        self.width = draw.uniform(0.8, 1.1)
        self.slant = draw.uniform(-0.1, 0.45)
        self.gap = draw.uniform(2, 4)
        self.space = draw.uniform(6, 10)
        self.pace = draw.uniform(0.14, 0.18)
        self.care = draw.uniform(0.7, 0.9)
        self.tremor = draw.uniform(0.1, 0.25)
        self.joins = frozenset(c for c in JOINING if draw.rand() < joining)
        self.forms = {
            character: draw.normal(0, 0.35, points.shape)
            for character, (points, _) in LETTERS.items()
        }


def write(text: str, hand: Hand, draw: np.random.RandomState) -> list[np.ndarray]:
    """Return the positions of the pen in a line: for each stroke ``[k, 2]``, in whole raw units."""
    strokes = sample(*curves(*layout(text, hand, draw)), hand)
    n = sum(map(len, strokes))
    knots = np.arange(0, n + SWAY, SWAY)
    sway = [np.interp(np.arange(n), knots, draw.normal(0, hand.tremor, len(knots))) for _ in "xy"]
    positions = np.concatenate(strokes) + np.stack(sway, 1)
    # Rounded, so that the last bits, in which machines differ, decide nothing.
    positions = np.round(positions * (UNIT * hand.size * np.array([1, -1])))
    return np.split(positions, np.cumsum([len(stroke) for stroke in strokes])[:-1])


def layout(text: str, hand: Hand, draw: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of the curves of a line, ``[m, 2]``, and their ends, ``[m]``.

    In units of the alphabet's grid, y upwards, slanted; ends as in `letter`. No two letters
    are the same: each is a little higher or lower, and each of its points is a little off.
    """
    points: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    x = 0.0
    for previous, character in pairwise(" " + text):
        if character == " ":
            x += hand.space
            continue
        own, own_ends = LETTERS[character]
        if previous in hand.joins and character in JOINED:
            ends[-1][-1] = SMOOTH
        moved = np.array([x, draw.normal(0, 0.3)])
        points.append(own * [hand.width, 1] + hand.forms[character] + moved)
        ends.append(own_ends.copy())
        x += own[:, 0].max() * hand.width + hand.gap
    line = np.concatenate(points)
    line += draw.normal(0, 0.25, line.shape)
    line[:, 1] += draw.normal(0, 0.02) * line[:, 0]  # the line rises or falls
    line[:, 0] += hand.slant * line[:, 1]
    return line, np.concatenate(ends)


def curves(points: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return smooth curves through points.

    From point to point runs a cubic. Its direction at a point is that of the parabola through the
    point and its two neighbours; at a corner or an end it bends the curve like its other end.

    Args:
        points: ``[m, 2]``.
        ends: of each point, as in `letter`.

    Returns:
        FINE + 1 points for each segment, ``[s, FINE + 1, 2]``, and whether the pen is lifted after
        it, ``[s]``.
    """
    chords = np.diff(points, axis=0)
    lengths = np.sqrt((chords**2).sum(1, keepdims=True))
    straight = chords / lengths
    lifted = ends == LIFT
    smooth = (ends[1:-1] == SMOOTH) & ~lifted[:-2]
    before, after = lengths[:-1], lengths[1:]
    through = (after * straight[:-1] + before * straight[1:]) / (before + after)
    start, end = straight.copy(), straight.copy()
    start[1:][smooth], end[:-1][smooth] = through[smooth], through[smooth]
    starts_free, ends_free = np.append(True, ~smooth), np.append(~smooth, True)
    start[starts_free] = (2 * straight - end)[starts_free]
    end[ends_free] = (2 * straight - start)[ends_free]

    t = np.linspace(0, 1, FINE + 1)[:, None]
    bend = t * (1 - t) * ((1 - t) * (start - straight)[:, None] - t * (end - straight)[:, None])
    segments = points[:-1, None] + t * chords[:, None] + lengths[:, None] * bend
    written = ~lifted[:-1]
    return segments[written], lifted[1:][written]


def sample(segments: np.ndarray, lifted: np.ndarray, hand: Hand) -> list[np.ndarray]:
    """Return the positions of the pen at equal intervals of time, for each stroke ``[k, 2]``.

    Args:
        segments: of curves, ``[s, FINE + 1, 2]``.
        lifted: whether the stroke ends with the segment, ``[s]``.
        hand: its pace and care give the time that the pen takes.
    """
    steps = np.diff(segments, axis=1)
    lengths = np.sqrt((steps**2).sum(-1))  # [s, FINE]
    directions = (steps / lengths[..., None]).reshape(-1, 2)
    turns = np.sqrt((np.diff(directions, axis=0) ** 2).sum(1))  # radians, if small
    turns[FINE - 1 :: FINE][lifted[:-1]] = 0
    turns = np.append(0, turns) + np.append(turns, 0)  # half of each in the step before, and after
    times = hand.pace * lengths + hand.care * turns.reshape(lengths.shape) / 2
    strokes = []
    last = np.flatnonzero(lifted) + 1
    for first, stop in zip(np.append(0, last[:-1]), last, strict=True):
        clock = np.append(0, np.cumsum(times[first:stop]))
        path = np.concatenate([segments[first, :1], segments[first:stop, 1:].reshape(-1, 2)])
        now = np.linspace(0, clock[-1], 1 + max(1, int(np.round(clock[-1]))))
        strokes.append(np.stack([np.interp(now, clock, axis) for axis in path.T], 1))
    return strokes


DATASET = Dataset(title="generated handwriting", stands_for="iam", make=make)
