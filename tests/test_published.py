"""The published curves in results/published/ are those of the paper's figures."""

import numpy as np
import pytest

from experiments.curves import PUBLISHED, published

NAN = np.nan  # outside the drawing, or never

# Read off the figures: x -> the curves' values.
READINGS = {
    ("figure_1", "r1", ("layer", "none"), 0.051): {
        20: (34.8, 32.6),
        100: (40.7, 39.4),
        270: (NAN, 40.0),
    },
    ("figure_1", "r5", ("layer", "none"), 0.051): {20: (71.5, NAN), 165: (76.5, 76.7)},
    ("figure_1", "r10", ("layer", "none"), 0.051): {20: (86.2, 83.6), 165: (88.1, 88.2)},
    ("figure_2", "valid", ("none", "batch", "everywhere", "layer"), 0.006): {
        25: (1.000, 0.998, 0.936, 0.786),
        100: (0.993, 0.663, 0.503, 0.490),
        300: (0.728, 0.509, NAN, NAN),
        500: (0.540, NAN, NAN, NAN),
    },
    ("figure_4", "bound", ("none", "weight", "layer"), 0.06): {
        10: (NAN, NAN, 96.5),
        30: (88.0, 88.3, 86.6),
        105: (84.4, 84.05, 83.5),
    },
    ("figure_5", "test", ("none", "layer"), 0.6): {
        1: (NAN, -344),
        50: (-507, -729),
        900: (-762, -828),
    },
    ("figure_5", "train", ("none", "layer"), 0.6): {5: (-239, -470), 900: (-850, NAN)},
    ("figure_6", "error_batch128", ("layer",), 1e-9): {64: (0.01295,)},
    ("figure_6", "error_batch4", ("batch",), 1e-9): {20: (0.04225,)},
    ("figure_6", "nll_batch128", ("layer",), 5e-5): {21: (1.5e-3,)},
    ("figure_6", "nll_batch4", ("layer",), 1e-5): {64: (1.9e-4,)},
    # Errors of Cooijmans et al., whose text has the accuracies.
    ("sequential_mnist", "error_in_order", ("none",), 6e-4): {500: (0.863,)},
    ("sequential_mnist", "error_in_order", ("batch",), 6e-4): {5_000: (0.086,)},
    ("sequential_mnist", "error_permuted", ("none",), 6e-4): {100_000: (0.098,)},
    ("sequential_mnist", "error_permuted", ("batch",), 6e-4): {2_000: (0.237,)},
}


@pytest.mark.parametrize("row", READINGS, ids=lambda row: "_".join(row[:2]))
def test_curves_go_through_the_readings(row):
    figure, panel, norms, error = row
    curves = published(PUBLISHED / f"{figure}.csv")
    for norm, values in zip(norms, zip(*READINGS[row].values(), strict=True), strict=True):
        curve = curves[panel, norm]
        # Between two readings the file may omit one that is on their line.
        drawn = np.interp(list(READINGS[row]), curve.x, curve.mean, left=NAN, right=NAN)
        np.testing.assert_allclose(drawn, values, rtol=0, atol=error)


def test_readings_are_whole_counts():
    """R@K is of 5,000 captions, the reader's error of 3,904 questions."""
    for figure, count in (("figure_1", 50), ("figure_2", 3904)):
        for curve in published(PUBLISHED / f"{figure}.csv").values():
            assert (np.diff(curve.x) > 0).all() and len(curve.lanes) == 1
            np.testing.assert_allclose(curve.mean * count, np.round(curve.mean * count), atol=0.05)


def test_the_best_readings_are_those_of_the_text():
    lowest = {n: c.mean.min() for (_, n), c in published(PUBLISHED / "figure_2.csv").items()}
    expected = dict(none=0.5033, batch=0.4951, everywhere=0.5, layer=0.4777)
    assert lowest == pytest.approx(expected, abs=5e-5)
