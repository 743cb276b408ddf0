"""A seed varies the order of the data; the schedule of shapes is common to all lanes."""

from functools import cache

import jax
import numpy as np
import pytest

import experiments
from experiments import datasets
from ln.training import data, train
from tests.cells import assert_equal
from tests.learning import tiny_config

NAMES = experiments.names()
BUCKETS = {  # several padded lengths, where an experiment has any
    "order_embeddings": dict(buckets=3, pad_to=2),
    "attentive_reader": dict(buckets=3),
    "handwriting": dict(length=200, buckets=3, bucket_run=2),
    "skip_thoughts": dict(pad_to=2),
}


@pytest.fixture(scope="module")
def make_task(data_dir):
    @cache
    def make(name, seeds=(0,), data_seed=-1):
        settings = BUCKETS.get(name, {}) | dict(seeds=seeds, data_seed=data_seed)
        config = tiny_config(name, data_dir, **settings)
        for key in experiments.DATA_KEYS:
            if config.get(key):
                datasets.prepare(config[key], data_dir)
        return experiments.load(config)

    return make


def differ(a, b):
    return any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_two_seeds_differ_in_all_but_shape(make_task, name):
    task, shapes = make_task(name), set()
    for step in range(0, 24, 2):
        a, b = (task.batch(step, seed) for seed in (0, 1))
        assert differ(a, b)
        assert jax.tree.map(np.shape, a) == jax.tree.map(np.shape, b)
        lengths = [a[k] for k in ("length", "passage_length") if k in a]
        assert all((length <= task.shape(step)).all() for length in lengths)
        shapes.add(task.shape(step))
    assert len(shapes) > 1 or name not in BUCKETS


@pytest.mark.parametrize("name", NAMES)
def test_the_schedule_of_shapes_depends_on_data_seed_alone(make_task, name):
    def shapes(**settings):
        return [make_task(name, **settings).shape(step) for step in range(30)]

    assert shapes() == shapes(seeds=(5, 6)) == shapes(data_seed=0)
    if name in BUCKETS:
        assert shapes() != shapes(data_seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_batches_can_be_gathered_on_the_device(make_task, name):
    """`gather` traced, from arrays on the device, returns what `batch` returns on the host."""
    task, seed = make_task(name), 3
    numbers = {k: np.asarray(v) for k, v in task.arrays.items() if k not in ("words", "books")}
    arrays = jax.device_put(numbers)
    for step in (0, 5):
        gather = jax.jit(
            lambda arrays, indices, step=step: task.gather(arrays, indices, task.shape(step))
        )
        assert_equal(gather(arrays, task.indices(step, seed)), task.batch(step, seed))


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_a_part_of_the_batch(make_task, name):
    task = make_task(name)
    whole, part = task.batch(4, 2), task.batch(4, 2, slice(1, 3))
    assert_equal(jax.tree.map(lambda leaf: leaf[1:3], whole), part)


def test_a_number_gives_all_lanes_one_order():
    lanes = [(0, 0.1), (1, 0.1), (0, 0.2)]
    assert train.data_seeds(lanes, 7) == [7]
    assert train.data_seeds(lanes, -1) == [0, 1, 0]
    assert train.data_seeds([(4, 0.1), (4, 0.2)], -1) == [4]


def test_orders_are_made_once_for_each_lane_and_epoch():
    made = []
    order = data.remember_epochs(lambda n, seed, epoch: made.append((seed, epoch)) or (seed, epoch))
    for epoch in range(4):
        for _ in range(3):
            for seed in range(10):
                assert order(50, seed, epoch) == (seed, epoch)
                assert order(50, seed, epoch + 1) == (seed, epoch + 1)  # a call may reach into it
    assert len(made) == len(set(made)) == 10 * 5
