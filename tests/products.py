"""Which rows of a long table `make test` runs; the others are exhaustive."""

from itertools import combinations

import pytest


def exhaustive(*row):
    """Return parameters that are tested by `make test-all` only."""
    return pytest.param(*row, marks=(pytest.mark.slow, pytest.mark.exhaustive))


def covering(size, rows):
    """Return the rows, all but a few of them exhaustive.

    Each combination of `size` values that occurs in a row also occurs in one of the few.
    """
    parts = {row: set(combinations(enumerate(row), size)) for row in rows}
    missing, few = set().union(*parts.values()), []
    while missing:
        few.append(max(parts, key=lambda row: len(parts[row] & missing)))
        missing -= parts[few[-1]]
    return [row if row in few else exhaustive(*row) for row in parts]
