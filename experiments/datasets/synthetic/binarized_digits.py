"""The built-in stand-in for binarized MNIST: scikit-learn's digits, as large, in black and white.

The examples and splits of `digits`. As in MNIST a digit fills the middle 20 x 20 of 28 x 28 pixels:
its 8 x 8 are enlarged bilinearly, and what is at least half white is 1.

Prepared: ``x`` uint8 ``[N, 784]``, 0 (background) or 1.
"""

import numpy as np

from experiments.datasets import Dataset, arrays
from experiments.datasets.synthetic import digits


def make() -> arrays.Splits:
    """Return 1,297 training, 200 validation and 300 test images."""
    return {split: dict(x=binarize(grey["x"])) for split, grey in digits.make().items()}


def binarize(x: np.ndarray) -> np.ndarray:
    """Enlarge and binarize images of 8 x 8 pixels.

    Args:
        x: uint8 ``[N, 64]``, 0 to 255.

    Returns:
        uint8 ``[N, 784]``, 0 or 1.
    """
    # Along one axis pixel i of the 28 has its centre at 0.4 i - 1.9, where pixel j of the 8 has it
    # at j, and takes from it 1 minus their distance. All in tenths: no rounding decides a pixel.
    centres = 4 * np.arange(28) - 19
    shares = np.maximum(0, 10 - abs(centres[:, None] - 10 * np.arange(8)))  # [28, 8]
    grey = shares @ x.reshape(-1, 8, 8) @ shares.T  # [N, 28, 28], 0 to 25,500
    return (grey >= 25_500 // 2).astype(np.uint8).reshape(len(x), -1)


DATASET = Dataset(title="scikit-learn's digits, binarized", stands_for="binarized_mnist", make=make)
