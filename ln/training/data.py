"""Data as functions of the step: the order of an epoch, padding, and prefetching.

Batches are pure functions of (step, seed), so that resuming needs no iterator state.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache, partial, wraps
from typing import TypeVar

import numpy as np

from ln.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def remember_epochs(function: Callable[..., Result]) -> Callable[..., Result]:
    """Cache ``function(*arguments, epoch)`` for the two newest epochs of each ``arguments``.

    Lanes with different orders have different seeds, which are among the arguments. So the cache
    grows with the number of lanes, not of epochs, and no lane evicts the order of another.
    """

    # Two levels: the first keeps every lane, the second two epochs of each.
    @cache
    def for_lane(*key):
        return lru_cache(maxsize=2)(partial(function, *key))

    @wraps(function)
    def cached(*arguments):  # two epochs, since a call of several steps may reach into the next
        *key, epoch = arguments
        return for_lane(*key)(epoch)

    cached.cache_clear = for_lane.cache_clear  # type: ignore[attr-defined]
    return cached


def schedule_seed(data_seed: int) -> int:
    """Return the seed of all that lanes share, such as the padded length of each batch."""
    return max(data_seed, 0)


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order ``[n]`` in which an epoch visits n examples: each epoch has its own."""
    # Seeded by the pair, so that the order of an epoch needs none of those before it.
    order = np.random.default_rng((seed, epoch)).permutation(n)
    order.setflags(write=False)  # shared by all callers of epoch_order
    return order


epoch_order = remember_epochs(permutation)


def batch_cases(step: int, n: int, batch_size: int, seed: int) -> np.ndarray:
    """Return which ``[batch_size]`` of n examples make the batch of a step.

    The incomplete batch at the end of an epoch is dropped.

    Raises:
        InputError: the batch is larger than the data set.
    """
    if not 1 <= batch_size <= n:
        raise InputError(f"config.batch_size is {batch_size}; this data set has {n} examples.")
    # The rest of an epoch, less than a batch, is dropped; it is another rest in each epoch.
    epoch, k = divmod(step, n // batch_size)
    return epoch_order(n, seed, epoch)[k * batch_size :][:batch_size]


class Buckets:
    """Batches of examples of similar length, so that little of a padded batch is padding.

    Every batch has the padded length of its bucket. Which bucket comes at which step is the
    schedule: a function of the step alone, so that all lanes have batches of one shape. Which
    examples of the bucket make the batch depends on a seed, so that lanes can differ.

    Args:
        lengths: of the examples, ``[n]``.
        bounds: the padded lengths, increasing; the last is at least the longest example.
        batch_size: incomplete batches are dropped; each epoch drops other examples.
        run: how many batches of one bucket follow one another, so that a call of several steps has
            one shape.
        seed: of the schedule.

    Raises:
        InputError: no bucket has enough examples for a batch.
    """

    def __init__(self, lengths, bounds, batch_size: int, run: int, seed: int):
        self.bounds, self.batch_size, self.run, self.seed = bounds, batch_size, run, seed
        self.bucket = np.searchsorted(bounds, lengths)
        counts = np.bincount(self.bucket, minlength=len(bounds))
        # Incomplete batches are dropped, so that a bucket has one shape, hence one program.
        self.batches = counts // batch_size if batch_size > 0 else np.zeros_like(counts)
        self.steps_per_epoch = int(self.batches.sum())
        if not self.steps_per_epoch:
            raise InputError(
                f"config.batch_size is {batch_size}; this data set has {len(lengths)} examples in "
                f"{len(bounds)} buckets by length, at most {counts.max()} in one."
            )
        self.schedule = remember_epochs(self._schedule)
        self.filling = remember_epochs(self._filling)

    def _schedule(self, epoch: int) -> np.ndarray:
        """Return the bucket of each batch of an epoch and its number there, ``[steps, 2]``."""
        runs = [
            [(k, n) for n in range(first, min(first + self.run, batches))]
            for k, batches in enumerate(self.batches)
            for first in range(0, batches, self.run)
        ]
        # The 1 separates these numbers from those of `permutation` with the same seed and epoch.
        shuffled = np.random.default_rng((self.seed, epoch, 1)).permutation(len(runs))
        return np.array([batch for n in shuffled for batch in runs[n]])

    def _filling(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Return the examples of each bucket in the order in which they fill its batches."""
        order = permutation(len(self.bucket), seed, epoch)
        # Stable, so that within a bucket the examples keep the random order.
        by_bucket = order[np.argsort(self.bucket[order], kind="stable")]
        ends = np.cumsum(np.bincount(self.bucket, minlength=len(self.bounds)))
        return np.split(by_bucket, ends[:-1])

    def _place(self, step: int) -> tuple[int, int, int]:
        """Return epoch, bucket, and number of the batch within its bucket."""
        epoch, k = divmod(step, self.steps_per_epoch)
        bucket, number = self.schedule(epoch)[k]
        return epoch, int(bucket), int(number)

    def length(self, step: int) -> int:
        """Return the padded length of the batch of a step."""
        return int(self.bounds[self._place(step)[1]])

    def cases(self, step: int, seed: int) -> np.ndarray:
        """Return the examples ``[batch_size]`` of the batch of a step in the order of a seed."""
        epoch, bucket, number = self._place(step)
        return self.filling(seed, epoch)[bucket][number * self.batch_size :][: self.batch_size]


def fill(array: np.ndarray, size: int) -> np.ndarray:
    """Return an array ``[N, ...]`` with zeros behind it, ``[size, ...]``."""
    return np.pad(array, [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1))


def blocks(arrays: dict[str, np.ndarray], size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return arrays ``[N, ...]`` as blocks ``[N/size, size, ...]``, the last one padded.

    With them come weights ``[N/size, size]``: 1 for an example, 0 for padding.
    """
    n = len(next(iter(arrays.values())))
    count = -(-n // size)

    def cut(array):
        return fill(array, count * size).reshape(count, size, *array.shape[1:])

    # Padded and weighted, since a last block of another shape would compile a second program.
    return {k: cut(v) for k, v in arrays.items()}, cut(np.ones(n, np.float32))


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield function(item) for every item; a thread prepares the next while the caller works."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            # One item is with the caller and one in work: more would only hold memory.
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # the caller may stop early
        # Without this, a thread that prepares a batch would keep an interrupted process alive.
        pool.shutdown(cancel_futures=True)
