"""The built-in handwriting: its writers and lines, and that it can be read."""

import hashlib

import numpy as np
import pytest

from experiments.datasets.synthetic import pen

DIGEST = "b4da52ca373d60d8defde4118b61d0d4c1d86505bc4cf897db984acb1fb321df"
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def written():
    """Return the lines of each split's writers."""
    return {
        split: [line for number in numbers for line in pen.written_by(number)]
        for split, numbers in pen.WRITERS.items()
    }


# --- Which lines there are ---


def test_the_lines_are_the_same_on_every_machine(written):
    lines = [line for split in SPLITS for line in written[split]]
    offsets = np.concatenate([offsets for offsets, _ in lines])
    np.testing.assert_array_equal(offsets, np.round(offsets))
    content = offsets.astype("<i2").tobytes() + "\n".join(text for _, text in lines).encode()
    assert hashlib.sha256(content).hexdigest() == DIGEST
