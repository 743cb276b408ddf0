"""CIFAR-10 (Krizhevsky 2009), for §6.7: 60,000 images of 32 x 32 pixels in ten classes.

The binary version: data_batch_1.bin, …, data_batch_5.bin, test_batch.bin, in a folder or in
cifar-10-binary.tar.gz; a label, then 3,072 bytes, red, green, blue.

Prepared: ``x`` uint8 ``[N, 3072]`` in order of height, width and color; ``y`` int32 ``[N]``.
"""

import re

import numpy as np

from experiments.datasets import Dataset, arrays
from experiments.datasets.originals import Source, collect
from ln.errors import InputError

SIDE, COLORS = 32, 3
D = COLORS * SIDE * SIDE
EXAMPLES = 10_000  # of a file
VALID = 5_000  # the last of the 50,000, ours
NAMES = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
NAME = re.compile(rf"(?:.*/)?({'|'.join(NAMES)})\.bin")
ARCHIVE = re.compile(r"cifar-10-binary\.tar(?:\.gz)?")


def read(source: Source) -> arrays.Splits:
    """Return 45,000 training, 5,000 validation and 10,000 test examples."""
    files = collect(source, NAME, dict.fromkeys(NAMES), ARCHIVE)
    *trained, test = (decode(name, data) for name, data in files.items())
    x, y = map(np.concatenate, zip(*trained, strict=True))
    return dict(
        train=dict(x=x[:-VALID], y=y[:-VALID]),
        valid=dict(x=x[-VALID:], y=y[-VALID:]),
        test=dict(x=test[0], y=test[1]),
    )


def decode(name: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return images ``[N, D]`` and labels ``[N]`` of a file.

    Raises:
        InputError: it has another size.
    """
    if len(data) != EXAMPLES * (1 + D):
        raise InputError(
            f"{name}.bin has {len(data):,} bytes; expected {EXAMPLES:,} images of {D:,} bytes and "
            f"their labels."
        )
    rows = np.frombuffer(data, np.uint8).reshape(EXAMPLES, 1 + D)
    planes = rows[:, 1:].reshape(EXAMPLES, COLORS, SIDE, SIDE)
    return planes.transpose(0, 2, 3, 1).reshape(EXAMPLES, D), rows[:, 0].astype(np.int32)


DATASET = Dataset(
    title="CIFAR-10",
    read=read,
    needs="cifar-10-binary.tar.gz, or the files in it",
    budget=2**29,
    url="https://www.cs.toronto.edu/~kriz/",
    downloads=("cifar-10-binary.tar.gz",),
)
