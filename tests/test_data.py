"""Data as functions of the step: which examples, in which order, padded how, and prepared when."""

import threading

import numpy as np
import pytest

from ln.errors import InputError
from ln.training.data import Buckets, ahead, batch_cases, blocks, epoch_order

SECONDS = 30  # after which a thread that should have acted is given up

# --- Order ---


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_visits_every_example_once(epoch):
    assert sorted(epoch_order(50, 3, epoch)) == list(range(50))


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    before = [epoch_order(50, seed, epoch).copy() for seed, epoch in [(0, 0), (0, 5), (4, 1)]]
    np.random.seed(1)  # the global generator has no part in it
    epoch_order.cache_clear()
    after = [epoch_order(50, seed, epoch) for seed, epoch in reversed([(0, 0), (0, 5), (4, 1)])]
    np.testing.assert_array_equal(before, after[::-1])


def test_epochs_drop_an_incomplete_batch_and_share_none():
    n, size, per_epoch = 22, 4, 5
    for epoch in range(3):
        cases = [batch_cases(epoch * per_epoch + k, n, size, seed=0) for k in range(per_epoch)]
        np.testing.assert_array_equal(np.concatenate(cases), epoch_order(n, 0, epoch)[:20])


@pytest.mark.parametrize("size", [7, 0, -1])
def test_a_batch_that_the_data_cannot_fill_raises(size):
    with pytest.raises(InputError, match=f"config.batch_size is {size}; this data set has 6 "):
        batch_cases(0, n=6, batch_size=size, seed=0)


# --- Blocks ---


@pytest.mark.parametrize("n, count", [(7, 3), (6, 2), (1, 1)])
def test_blocks_hold_all_examples_in_order_and_weigh_no_padding(n, count):
    arrays = dict(
        x=np.arange(1, 1 + 4 * n, dtype=np.uint8).reshape(n, 2, 2),
        y=np.arange(1, 1 + n, dtype=np.int32),
    )
    cut, weights = blocks(arrays, size=3)
    assert weights.shape == (count, 3) and weights.sum() == n
    assert cut["x"].shape == (count, 3, 2, 2) and cut["x"].dtype == np.uint8
    assert cut["y"].shape == (count, 3) and cut["y"].dtype == np.int32
    for name, array in arrays.items():
        np.testing.assert_array_equal(cut[name][weights == 1], array)
        assert (cut[name][weights == 0] == 0).all()


# --- One item ahead ---


def test_the_next_item_is_prepared_while_the_last_is_used():
    begun = [threading.Event() for _ in range(4)]
    threads = set()

    def work(item):
        threads.add(threading.current_thread())
        begun[item].set()
        return item

    results = ahead(work, range(4))
    for item in range(3):
        assert next(results) == item
        assert begun[item + 1].wait(SECONDS)  # the caller has not asked for it yet
    assert list(results) == [3]
    assert len(threads) == 1 and threading.current_thread() not in threads


def test_an_error_and_a_caller_who_stops_early_end_the_thread():
    threads, done = [], []

    def work(item):
        threads.append(threading.current_thread())
        if item == 2:
            raise KeyError("no item 2")
        done.append(item)
        return item

    results = ahead(work, range(9))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match="no item 2"):  # in its turn
        next(results)
    done.clear()
    results = ahead(work, range(1000))
    assert next(results) == 0
    results.close()
    assert not any(thread.is_alive() for thread in threads) and max(done) <= 1


def test_buckets_visit_an_example_at_most_once_an_epoch():
    lengths = np.array([3, 9, 4, 10, 2, 8, 7, 1, 5, 6, 9, 2])
    buckets = Buckets(lengths, [5, 10], batch_size=2, run=2, seed=0)
    assert buckets.steps_per_epoch == 6
    for epoch in range(3):
        steps = range(6 * epoch, 6 * epoch + 6)
        batches = [(buckets.cases(step, seed=1), buckets.length(step)) for step in steps]
        cases = np.concatenate([cases for cases, _ in batches])
        assert sorted(cases) == list(range(12))
        for cases, bound in batches:
            assert (lengths[cases] <= bound).all()
            assert bound == 5 or (lengths[cases] > 5).all()


def test_buckets_too_small_for_a_batch_raise():
    with pytest.raises(InputError, match=r"batch_size is 5; .* 4 \w+ in 2 buckets .* 3 in one"):
        Buckets(np.array([1, 2, 3, 9]), [5, 10], batch_size=5, run=1, seed=0)
