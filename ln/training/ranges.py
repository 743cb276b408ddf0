"""The ranges of the numbers in configs, in one place. A test asks for one of every number."""

from collections.abc import Iterator, Mapping
import math
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from ln.errors import InputError, is_number

LARGEST = 3.4e38  # anything above is infinite in float32


class Range(NamedTuple):
    """The values from `least` to `most`; most: infinity stands for any number of 32 bits."""

    least: float
    most: float = math.inf
    whole: bool = False  # no fractions

    def __str__(self):
        if self.whole and self.most < math.inf:
            return f"a whole number from {self.least} to {self.most}"
        if self.most < math.inf:
            return f"from {self.least:g} to {self.most:g}"
        return f"{self.least:g} or more" if self.least > -math.inf else "a finite number"

    def has(self, value: Any) -> bool:
        """Return whether the value is a number in the range."""
        most = 2**31 - 1 if isinstance(value, int) else LARGEST
        fits = is_number(value, self.least, self.most) and abs(value) <= most
        return fits and (isinstance(value, int) or not self.whole)


COUNTS = """batch_size bucket_run buckets channels chunk components embedding_dim fold glimpses
    hidden latent length mixtures pad_to pixels_per_step read_size shuffle_block steps_per_call
    train_cases valid_cases valid_triples write_size"""
AMOUNTS = "clip clip_each clip_root init_std margin noise optimizer.eps permutation_seed"

RANGES: dict[str, Range] = {
    **dict.fromkeys(COUNTS.split(), Range(1, whole=True)),
    **dict.fromkeys(AMOUNTS.split(), Range(0)),
    # At 1 a moment would keep nothing of the gradients, and its bias correction divide by zero.
    **dict.fromkeys(("optimizer.b1", "optimizer.b2", "optimizer.decay"), Range(0, 0.999999)),
    "dropout_rate": Range(0, 0.99),
    "data_seed": Range(-1, 2**31 - 1, whole=True),  # -1: each lane has its seed's order
    "kappa_bias": Range(-math.inf),
    "lr": Range(1e-30),
    "max_words": Range(2, whole=True),
    "schedule.tau": Range(0),
    "seeds": Range(0, 2**31 - 1, whole=True),
    "vocab_size": Range(3, whole=True),  # two special words, and one more
}


TABLE = Mapping, "a table of keys and values"
LIST = list | tuple, "a list of numbers"
TEXT = str, "a text"
TYPES: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("norms", "optimizer"), TABLE),
    **dict.fromkeys(("lr", "seeds"), LIST),
    **dict.fromkeys(("data_dir", "dataset", "norm"), TEXT),
}
NEEDED = "experiment", "select.metric", "select.mode", "select.split"  # texts


def check_types(config: Mapping) -> None:
    """Raise InputError if a value is of another type than every run needs, or is missing."""
    tree = _plain(config)
    _check_type("The config", tree, TABLE)
    for key in TYPES.keys() & tree.keys():
        _check_type(f"config.{key}", tree[key], TYPES[key])
    for name, options in tree.get("norms", {}).items():
        _check_type(f"config.norms.{name}", options, TABLE)
    flat = flatten_dict(tree, sep=".")
    for key in NEEDED:
        _check_type(f"config.{key}", flat.get(key), TEXT)


def _check_type(what: str, value: Any, wanted: tuple[Any, str]) -> None:
    kind, words = wanted
    if not isinstance(value, kind):
        raise InputError(f"{what} is {value!r}; it must be {words}.")


def _plain(config: Mapping) -> Mapping:
    # A ConfigDict is no Mapping, and its tuples are one value each until here.
    return config.to_dict() if isinstance(config, ConfigDict) else config


def check(config: Mapping) -> None:
    """Raise InputError if a number is out of its range; without one, any finite number passes."""
    for key, value in numbers(config):
        allowed = RANGES.get(key, Range(-math.inf))
        if not allowed.has(value):
            if not isinstance(value, int | float):
                raise InputError(f"config.{key} is {value!r}; it must be a number: {allowed}.")
            bits = " and fit into 32 bits" if abs(value) > 2**31 else ""
            if allowed.whole and not isinstance(value, int):
                bits = ", a whole number"
            raise InputError(f"config.{key} is {value!r}; it must be {allowed}{bits}.")


def numbers(tree: Mapping) -> Iterator[tuple[str, Any]]:
    """Yield the numbers of a config, behind their keys, and whatever is in place of one.

    Those of a tuple come one by one.
    """
    for key, value in flatten_dict(_plain(tree), sep=".").items():
        for item in value if isinstance(value, tuple | list) else [value]:
            is_a_number = isinstance(item, int | float) and not isinstance(item, bool)
            if is_a_number or key in RANGES:
                yield key, item
