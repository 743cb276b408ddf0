"""Cells on several devices: what they communicate, how much memory they need, what they compute."""

from functools import cache
import json

import pytest

from tests.commands import on_devices
from tests.parallel_steps import COMPUTED, ROWS
from tests.products import exhaustive

# Each cell in each schedule once.
PAIRS = ["RNN, layer, cpu", "RNN, batch, accelerator", "LSTM, batch, cpu"]
PAIRS += ["LSTM, layer, accelerator", "GRU, layer, cpu", "GRU, layer, accelerator"]
SLOW = ("attentive_reader", "convnet", "draw", "handwriting", "sequential_mnist", "skip_thoughts")


def json_of(*words):
    ran = on_devices(4, "-m", *words)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def measured():
    return json_of("tests.parallel", *PAIRS)


@pytest.fixture(scope="module")
def steps(data_dir):
    """Return a function of whether the rows that take minutes are meant: row -> numbers."""

    @cache
    def measured(slow):
        rows = [row for row in ROWS if (row in SLOW) == slow]
        return json_of("tests.parallel_steps", data_dir, *rows)

    return measured


def check(measured):
    """Check that devices send no more than the parameters and need only their shares."""
    assert measured["collectives"] and max(measured["collectives"]) <= measured["parameters"]
    alone, four = measured["memory"]
    assert four <= 0.35 * alone


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_a_sharded_batch_stays_sharded(measured, pair):
    check(measured[pair])


@pytest.mark.slow
@pytest.mark.parametrize("row", [exhaustive(row) if row in SLOW else row for row in ROWS])
def test_training_on_several_devices_is_that_on_one(steps, row):
    """They may exchange points [B, H] of order embeddings, whose loss pairs the whole batch."""
    (name, _, lanes), measured = ROWS[row], steps(row in SLOW)[row]
    if lanes == 1:  # or each device needs the batches of its lanes
        check(measured)
    difference = measured["difference"]
    assert difference is None if name not in COMPUTED else difference < 5e-5


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_several_devices_give_the_gradients_of_one(measured, pair):
    places = {"auto", "explicit", "shard_map"} & measured[pair].keys()
    assert len(places) == (2 if "batch" in pair else 3)  # the statistics of a shard are others
    assert max(measured[pair][place] for place in places) < 1e-5
