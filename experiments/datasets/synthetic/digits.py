"""The built-in stand-in for MNIST: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels.

The test half of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI): real
digits of 13 writers, installed with scikit-learn, so that nothing has to be downloaded.

Prepared: ``x`` uint8 ``[N, 64]``, 0 is background; ``y`` int32 ``[N]``, 0 to 9.
"""

import numpy as np

from experiments.datasets import Dataset, arrays

VALID = 200
TEST = 300  # and 1,297 training examples


def make() -> arrays.Splits:
    """Return 1,297 training, 200 validation and 300 test examples."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = np.round(pixels * (255 / 16)).astype(np.uint8)  # as MNIST's, 0..255
    y = labels.astype(np.int32)
    # RandomState's numbers are the same in every version of numpy; those of Generator may change.
    order = np.random.RandomState(0).permutation(len(x))
    rows = dict(train=order[VALID + TEST :], valid=order[:VALID], test=order[VALID : VALID + TEST])
    return {split: dict(x=x[rows[split]], y=y[rows[split]]) for split in rows}


DATASET = Dataset(title="scikit-learn's digits", stands_for="mnist", make=make)
