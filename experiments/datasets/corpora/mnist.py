"""MNIST: 70,000 handwritten digits of 28 x 28 pixels (LeCun, Cortes and Burges).

The four original files, big-endian, as they are or gzipped; some copies spell .idx for -idx:

    train-images-idx3-ubyte   2051, 60000, 28, 28 as 32-bit integers; a byte a pixel, row by row
    train-labels-idx1-ubyte   2049, 60000; a byte a label
    t10k-images-idx3-ubyte    the same for the 10,000 test examples
    t10k-labels-idx1-ubyte

Prepared: ``x`` uint8 ``[N, 784]``, 0 is background; ``y`` int32 ``[N]``, 0 to 9.
"""

import re

import numpy as np

from experiments.datasets import Dataset, arrays
from experiments.datasets.originals import Source, collect

VALID = 5_000  # the first of the 60,000; the other 55,000 are the training examples of §6.6
NAME = re.compile(r"(?:.*/)?((?:train|t10k)-(?:images|labels))[-.]idx[13]-ubyte")
SHA256 = {  # of the unpacked bytes: gzip adds its own
    "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def read(source: Source) -> arrays.Splits:
    """Return 55,000 training, 5,000 validation and 10,000 test examples."""
    data = collect(source, NAME, SHA256)
    images = {key: decode(data[f"{key}-images"]).reshape(-1, 28 * 28) for key in ("train", "t10k")}
    labels = {key: decode(data[f"{key}-labels"]).astype(np.int32) for key in ("train", "t10k")}
    return dict(
        train=dict(x=images["train"][VALID:], y=labels["train"][VALID:]),
        valid=dict(x=images["train"][:VALID], y=labels["train"][:VALID]),
        test=dict(x=images["t10k"], y=labels["t10k"]),
    )


def decode(data: bytes) -> np.ndarray:
    """Return the values of a file, uint8. Its fourth byte is the number of axes."""
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])


DATASET = Dataset(
    title="MNIST",
    read=read,
    needs="{train,t10k}-{images-idx3,labels-idx1}-ubyte, each as it is or gzipped",
    budget=2**28,
    url="https://storage.googleapis.com/cvdf-datasets/mnist/",
    downloads=tuple(
        f"{part}-{what}-ubyte.gz"
        for part in ("train", "t10k")
        for what in ("images-idx3", "labels-idx1")
    ),
)
