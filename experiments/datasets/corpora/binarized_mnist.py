"""MNIST in black and white, as binarized once and for all by Larochelle and Murray (2011).

Three files of text, as they are or gzipped; a line is an image, its 784 pixels row by row, each 0
or 1, with a blank in between:

    binarized_mnist_train.amat   50,000 lines
    binarized_mnist_valid.amat   10,000
    binarized_mnist_test.amat    10,000, sorted by digit

The DRAW paper has other zeros and ones (Salakhutdinov and Murray 2008), so its nats are not
comparable with those of the layer norm paper.

Prepared: ``x`` uint8 ``[N, 784]``, 0 (background) or 1; there are no labels.
"""

import re

import numpy as np

from experiments.datasets import Dataset, arrays
from experiments.datasets.originals import Source, collect

PIXELS = 28 * 28
NAME = re.compile(r"(?:.*/)?binarized_mnist_(train|valid|test)\.amat")
SHA256 = {  # those of tensorflow-datasets
    "train": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "valid": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "test": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}


def read(source: Source) -> arrays.Splits:
    """Return 50,000 training, 10,000 validation and 10,000 test images."""
    return {split: dict(x=decode(data)) for split, data in collect(source, NAME, SHA256).items()}


def decode(data: bytes) -> np.ndarray:
    """Return the images of a file, uint8 ``[N, 784]``."""
    # A character follows each pixel: a blank, or after the last a newline.
    return np.frombuffer(data, np.uint8).reshape(-1, 2 * PIXELS)[:, ::2] - np.uint8(ord("0"))


DATASET = Dataset(
    title="binarized MNIST",
    read=read,
    needs="binarized_mnist_{train,valid,test}.amat, each as it is or gzipped",
    budget=2**29,
    url="http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
    downloads=tuple(f"binarized_mnist_{split}.amat" for split in SHA256),
)
