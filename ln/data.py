"""Data as functions of the step: order of an epoch, padding, and work done one step ahead.

Nothing here has a position of its own: whoever knows the step knows the batch, so that a resumed
run needs no iterator to go on.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np

from ln.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


@lru_cache(maxsize=4)
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order ``[n]`` in which an epoch visits n cases: a new permutation every epoch."""
    order = np.random.default_rng((seed, epoch)).permutation(n)
    order.setflags(write=False)  # shared by all callers
    return order


def batch_cases(step: int, n: int, batch_size: int, seed: int) -> np.ndarray:
    """Which cases ``[batch_size]`` of n make the batch of a step; an incomplete one is dropped.

    Raises:
        InputError: the batch is larger than the data set.
    """
    if not 1 <= batch_size <= n:
        raise InputError(f"config.batch_size is {batch_size}; this data set has {n} cases.")
    epoch, k = divmod(step, n // batch_size)
    return epoch_order(n, seed, epoch)[k * batch_size :][:batch_size]


class Buckets:
    """Batches of cases of like length, so that little of a padded batch is padding.

    Every batch has the padded length of its bucket. Batches of one bucket come ``run`` at a time,
    so that a call of several steps has one shape. All of it is a function of the step.

    Args:
        lengths: of the cases, ``[n]``.
        bounds: the padded lengths, increasing; the last as long as the longest case.
        batch_size: incomplete batches are dropped; of another epoch, other cases.
        run: how many batches of a bucket follow one another.
        seed: of the order.

    Raises:
        InputError: no bucket has cases enough for a batch.
    """

    def __init__(self, lengths, bounds, batch_size: int, run: int, seed: int):
        self.bounds, self.batch_size, self.run, self.seed = bounds, batch_size, run, seed
        self.bucket = np.searchsorted(bounds, lengths)
        counts = np.bincount(self.bucket, minlength=len(bounds))
        self.steps_per_epoch = int((counts // batch_size).sum()) if batch_size > 0 else 0
        if not self.steps_per_epoch:
            raise InputError(
                f"config.batch_size is {batch_size}; this data set has {len(lengths)} cases in "
                f"{len(bounds)} buckets by length, at most {counts.max()} in one."
            )
        self.plan = lru_cache(maxsize=2)(self._plan)

    def _plan(self, epoch: int) -> list[tuple[np.ndarray, int]]:
        """The cases of each batch of an epoch, and their padded length."""
        order, runs = epoch_order(len(self.bucket), self.seed, epoch), []
        for k, bound in enumerate(self.bounds):
            cases = order[self.bucket[order] == k]
            batches = [
                (cases[n : n + self.batch_size], bound)
                for n in range(0, len(cases) - self.batch_size + 1, self.batch_size)
            ]
            runs += [batches[n : n + self.run] for n in range(0, len(batches), self.run)]
        shuffled = np.random.default_rng((self.seed, epoch, 1)).permutation(len(runs))
        return [batch for n in shuffled for batch in runs[n]]

    def batch(self, step: int) -> tuple[np.ndarray, int]:
        """The cases of the batch of a step, and their padded length."""
        epoch, k = divmod(step, self.steps_per_epoch)
        return self.plan(epoch)[k]


def blocks(arrays: dict[str, np.ndarray], size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Cuts arrays ``[N, ...]`` into blocks ``[N/size, size, ...]``, the last one padded.

    Returns them with weights ``[N/size, size]``: 1 for a case, 0 for padding.
    """
    n = len(next(iter(arrays.values())))
    count = -(-n // size)

    def cut(array):
        padding = [(0, count * size - n)] + [(0, 0)] * (array.ndim - 1)
        return np.pad(array, padding).reshape(count, size, *array.shape[1:])

    return {k: cut(v) for k, v in arrays.items()}, cut(np.ones(n, np.float32))


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields function(item) for every item; a thread works on the next while the caller works."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # the caller may stop early
            for future in waiting:
                future.cancel()
