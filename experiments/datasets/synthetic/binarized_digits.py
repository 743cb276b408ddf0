"""The built-in stand-in for binarized MNIST: scikit-learn's digits, as large, in black and white.

The cases and splits of `digits`. As in MNIST a digit fills the middle 20 x 20 of 28 x 28 pixels:
its 8 x 8 are enlarged bilinearly, and what is at least half white is 1.

Prepared: ``x`` uint8 ``[N, 784]``, 0 (background) or 1.
"""

from pathlib import Path

import numpy as np

from experiments.datasets import arrays
from experiments.datasets.synthetic import digits


def prepare(data_dir: str | Path) -> None:
    """Makes ``<data_dir>/binarized_digits``: 1,297 training, 200 validation and 300 test cases.

    Raises:
        InputError: another data set is in the way.
    """
    splits = {split: dict(x=binarize(found["x"])) for split, found in digits.splits().items()}
    source = f"{digits.SOURCE}, enlarged and binarized"
    arrays.write(data_dir, "binarized_digits", splits, dict(source=source))


def binarize(x: np.ndarray) -> np.ndarray:
    """Images of 8 x 8 pixels, uint8 ``[N, 64]``, 0 to 255 -> uint8 ``[N, 784]``, 0 or 1."""
    # Along one axis pixel i of the 28 has its centre at 0.4 i - 1.9, where pixel j of the 8 has it
    # at j, and takes from it 1 minus their distance. All in tenths: no rounding decides a pixel.
    centres = 4 * np.arange(28) - 19
    shares = np.maximum(0, 10 - abs(centres[:, None] - 10 * np.arange(8)))  # [28, 8]
    grey = shares @ x.reshape(-1, 8, 8) @ shares.T  # [N, 28, 28], 0 to 25,500
    return (grey >= 25_500 // 2).astype(np.uint8).reshape(len(x), -1)
