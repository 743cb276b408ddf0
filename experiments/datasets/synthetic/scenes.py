"""The built-in stand-in for COCO: scenes of two handwritten digits, described at five levels.

A scene has two of scikit-learn's real digits (`digits`), of different classes, each small or large,
one above the other or left of it: 720 kinds of scenes. Its five captions say more and more, in
words that vary:

    0   a three                                 one of the digits, sometimes the first one
    1   a large seven                           the other, and its size
    2   a three above a seven                   both digits, and their places
    3   there is a big seven and a small three  both digits and sizes
    4   a little three over a large seven       everything

`ABOVE` lists the pairs of captions of an image whose first says less, and so is more general.

The features of an image are its `similarities` to digits that are in no scene. A linear map of them
can tell, with some errors, which digits are there, where and how large. No digit is in scenes of
two splits.

Prepared: the arrays of `experiments.datasets.captions`, and

    above     int32 [7, 2]        pairs (k, l): caption k of every image says less than caption l
    pictures  uint8 [N, 36, 36]   0 is background
"""

import dataclasses
import itertools

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from experiments.datasets import Dataset, arrays, captions, vocabulary
from experiments.datasets.synthetic import digits

SCENES = dict(train=2_160, valid=500, test=500)  # 2,160: every kind three times
ABOVE = ((0, 2), (0, 3), (0, 4), (1, 3), (1, 4), (2, 4), (3, 4))

SMALL, LARGE = 8, 16  # pixels
SIDE = 36  # of a picture, pixels
HALF = SIDE // 2  # where the second digit's part begins
SWAY = 3  # pixels to either side of the middle
WHITE = 16  # the largest pixel of scikit-learn's digits
# Top, bottom, left, right: whether digits are side by side, and which of the two this is.
PLACES = tuple(itertools.product((False, True), (0, 1)))

TEMPLATES = 64
DISLIKE = 0.5  # a correlation up to this is no similarity
FAINT = 2  # standard deviation of a window's pixels below which it is like nothing
LEVELS = 255  # of similarities

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZES = (("small", "little"), ("large", "big"))
RELATIONS = {  # is beside -> of the first digit to the second, of the second to the first
    False: (("above", "over"), ("below", "under")),
    True: (("left of", "to the left of"), ("right of", "to the right of")),
}
OPENINGS = ("", "", "there is", "a picture of")
BOTH = ("and", "with")


@dataclasses.dataclass(frozen=True)
class Scene:
    """The contents of a picture.

    Attributes:
        classes: the classes of the two digits.
        large: whether each of them is large, else it is small.
        beside: whether the first is left of the second, else it is above it.
    """

    classes: tuple[int, int]
    large: tuple[bool, ...]
    beside: bool


KINDS = tuple(
    Scene(classes, large, beside)
    for classes in itertools.permutations(range(10), 2)
    for large in itertools.product((False, True), repeat=2)
    for beside in (False, True)
)


def make() -> arrays.Splits:
    """Return 2,160 training, 500 validation and 500 test scenes."""
    images, templates = real_digits()
    made = {split: draw(split, images[split]) for split in SCENES}
    words = vocabulary.by_count(made["train"][2])
    splits = {}
    for split, (_, pictures, sentences) in made.items():
        features = similarities(pictures, templates)
        # From here on one rounding a number: the sum of squares of whole numbers is exact.
        features = features / np.sqrt((features**2).sum(1, keepdims=True))
        splits[split] = captions.pack(features.astype(np.float32), sentences, words)
        splits[split]["above"] = np.array(ABOVE, np.int32)
        splits[split]["pictures"] = np.round(pictures * (255 / WHITE)).astype(np.uint8)
    splits["train"]["words"] = vocabulary.join(words)
    return splits


def real_digits() -> tuple[dict[str, list[np.ndarray]], np.ndarray]:
    """Return images of 8 x 8 whole numbers from 0 to WHITE.

    Returns:
        For each split the images of each class, ``[n, 8, 8]``; and the templates.
    """
    splits = digits.make()
    images = {
        split: np.round(values["x"].reshape(-1, 8, 8) * (WHITE / 255)).astype(int)
        for split, values in splits.items()
    }
    splits["train"]["y"][:TEMPLATES] = -1  # in no scene
    by_class = {s: [images[s][splits[s]["y"] == k] for k in range(10)] for s in splits}
    return by_class, images["train"][:TEMPLATES]


def draw(split: str, images: list[np.ndarray]) -> tuple[list[Scene], np.ndarray, list[str]]:
    """Draw the scenes of a split, each kind as often as any other or once less.

    Args:
        split: determines their number, and the seed.
        images: those of each class of digits, ``[n, 8, 8]``.

    Returns:
        The scenes, their pictures ``[N, SIDE, SIDE]``, 0 to WHITE, and five captions of each.
    """
    # RandomState's numbers are the same in every version of numpy; those of Generator may change.
    draw = np.random.RandomState(list(SCENES).index(split))
    count = SCENES[split]
    orders = [draw.permutation(len(KINDS)) for _ in range(-(-count // len(KINDS)))]
    scenes = [KINDS[k] for k in np.concatenate(orders)[:count]]
    pictures = np.stack([picture(scene, images, draw) for scene in scenes])
    return scenes, pictures, [caption for scene in scenes for caption in describe(scene, draw)]


# --- Pictures ---


def corners(which: int, width: int) -> tuple[range, range]:
    """Return the first rows and the first columns that a digit may have.

    Digits are one above the other; if they are side by side, swap rows and columns.
    """
    middle = (SIDE - width) // 2
    return (
        range(which * HALF, (which + 1) * HALF - width + 1),
        range(middle - SWAY, middle + SWAY + 1),
    )


def picture(scene: Scene, images: list[np.ndarray], draw: np.random.RandomState) -> np.ndarray:
    """Return a picture of a scene, ``[SIDE, SIDE]``."""
    pixels = np.zeros((SIDE, SIDE), int)
    for which, (label, large) in enumerate(zip(scene.classes, scene.large, strict=True)):
        image = pick(images[label], draw)
        image = enlarge(image) if large else image
        along, across = (pick(places, draw) for places in corners(which, len(image)))
        row, column = (across, along) if scene.beside else (along, across)
        pixels[row : row + len(image), column : column + len(image)] = image
    return pixels


def pick(options, draw: np.random.RandomState):
    """Return one of some options, drawn with equal probabilities."""
    return options[draw.randint(len(options))]


def enlarge(image: np.ndarray) -> np.ndarray:
    """Enlarge an image of 8 x 8 pixels bilinearly to 16 x 16, black around."""
    # Along one axis pixel i of the 16 has its centre at i / 2 - 1/4, where pixel j of the 8 has it
    # at j, and takes from it 1 minus their distance. All in quarters: whole numbers.
    shares = np.maximum(0, 4 - abs(2 * np.arange(LARGE)[:, None] - 1 - 4 * np.arange(SMALL)))
    return (shares @ image @ shares.T + 8) // 16


def similarities(pictures: np.ndarray, templates: np.ndarray) -> np.ndarray:
    """Return the similarities of pictures to templates, whole numbers ``[N, 512]``.

    For each place of a digit, each size and each template: the largest correlation of the template
    with the picture, over all positions of a digit. Its excess over DISLIKE is squared, and scaled
    to 0 to LEVELS.

    Args:
        pictures: ``[N, SIDE, SIDE]``, 0 to WHITE.
        templates: ``[K, 8, 8]``, 0 to WHITE.
    """
    # Up to the square root these are whole numbers up to 2²⁴, for which float32 is exact in any
    # order, and after it there is no sum: the features are the same on every machine.
    pictures = pictures.astype(np.float32)
    flat = templates.reshape(len(templates), -1).astype(np.float32)  # [K, 64]
    centred = flat.shape[1] * flat - flat.sum(1, keepdims=True)
    lengths = np.sqrt((centred.astype(int) ** 2).sum(1)).astype(np.float32)
    parts = []
    for (beside, which), width in itertools.product(PLACES, (SMALL, LARGE)):
        along, across = corners(which, width)
        rows, columns = (across, along) if beside else (along, across)
        part = pictures[:, rows[0] : rows[-1] + width, columns[0] : columns[-1] + width]
        windows = windows_of(part, width // SMALL)  # [N, P, 64]
        sums, squares = windows.sum(-1), (windows**2).sum(-1)
        faint = (flat.shape[1] * FAINT * (width // SMALL) ** 2) ** 2
        spread = np.sqrt(np.maximum(flat.shape[1] * squares - sums**2, faint))
        best = (windows @ centred.T / spread[..., None]).max(1)
        parts.append(best * np.float32(np.sqrt(flat.shape[1])) / lengths)
    above = np.maximum(np.concatenate(parts, 1) - np.float32(DISLIKE), 0) / np.float32(1 - DISLIKE)
    return np.round(LEVELS * above**2).astype(int)


def windows_of(part: np.ndarray, step: int) -> np.ndarray:
    """Return all windows of ``8 step x 8 step`` pixels, as 8 x 8 sums of ``step x step``.

    Args:
        part: a part of pictures, ``[N, height, width]``.
        step: 1 or 2.

    Returns:
        ``[N, P, 64]``.
    """
    sums = sliding_window_view(part, (step, step), (1, 2)).sum((-2, -1))
    size = (SMALL - 1) * step + 1
    windows = sliding_window_view(sums, (size, size), (1, 2))[..., ::step, ::step]
    return windows.reshape(len(part), -1, SMALL * SMALL)


# --- Captions ---


def describe(scene: Scene, draw: np.random.RandomState) -> list[str]:
    """Return the five captions of a scene."""
    k = draw.randint(2)
    texts = (
        digit(scene, k, False, draw),
        digit(scene, 1 - k, True, draw),
        related(scene, False, draw),
        listed(scene, draw),
        related(scene, True, draw),
    )
    return [f"{pick(OPENINGS, draw)} {caption}".strip() for caption in texts]


def digit(scene: Scene, which: int, sized: bool, draw: np.random.RandomState) -> str:
    """Return one of the digits in words, with or without its size."""
    words = NAMES[scene.classes[which]]
    if sized:
        words = f"{pick(SIZES[scene.large[which]], draw)} {words}"
    return f"{'an' if words[0] == 'e' else 'a'} {words}"


def related(scene: Scene, sized: bool, draw: np.random.RandomState) -> str:
    """Return both digits and their places, seen from either."""
    k = draw.randint(2)
    relation = pick(RELATIONS[scene.beside][k], draw)
    return f"{digit(scene, k, sized, draw)} {relation} {digit(scene, 1 - k, sized, draw)}"


def listed(scene: Scene, draw: np.random.RandomState) -> str:
    """Return both digits and their sizes, in either order."""
    k = draw.randint(2)
    first, second = digit(scene, k, True, draw), digit(scene, 1 - k, True, draw)
    return f"{first} {pick(BOTH, draw)} {second}"


DATASET = Dataset(title="scenes of scikit-learn's digits", stands_for="coco", make=make)
