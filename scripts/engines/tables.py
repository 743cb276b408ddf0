"""Tables of a plan: the types of their values, and dataclasses that are read from them."""

from collections.abc import Callable
import contextlib
import dataclasses
import functools
import itertools
import math
import re
from typing import Annotated, Any, get_type_hints

from ln.errors import InputError, nearest

Point = dict[str, Any]  # config key -> value


def number(length: Any) -> float:
    return float(str(length).strip().partition(" ")[0])


def unit(length: str) -> str:
    return length.strip().partition(" ")[2].strip().removesuffix("s") or "step"


def flat(tree: dict, prefix: str = "") -> Point:
    """Flatten nested tables, {"optimizer": {"b2": 0.9}} to {"optimizer.b2": 0.9}."""
    point: Point = {}
    for key, value in tree.items():
        nested = isinstance(value, dict)
        point |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return point


def product(grid: dict | list[dict]) -> list[Point]:
    """Return the points of a grid, or of several, the last key varying fastest."""
    points = []
    for table in grid if isinstance(grid, list) else [grid]:
        axes = flat(table)
        values = [v if isinstance(v, list) else [v] for v in axes.values()]
        points += [dict(zip(axes, point, strict=True)) for point in itertools.product(*values)]
    return points


def keys_of(points: list[Point]) -> list[str]:
    return list(dict.fromkeys(key for point in points for key in point))


def is_number(value: Any, least: float = 0) -> bool:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return real and least <= value < math.inf


def is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def is_whole(value: Any, least: int = 0) -> bool:
    return is_number(value, least) and isinstance(value, int)


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def is_length(value: Any) -> bool:
    with contextlib.suppress(ValueError):
        if isinstance(value, str) and is_positive(number(value)):
            return unit(value) == "epoch" or unit(value) == "step" and number(value).is_integer()
    return False


def are_lengths(value: Any) -> bool:
    lengths = value if isinstance(value, list) else [value]
    if not all(map(is_length, lengths)) or len(set(map(unit, lengths))) != 1:
        return False
    return all(number(a) < number(b) for a, b in itertools.pairwise(lengths))


def is_list(test: Callable[[Any], bool], least: int = 1) -> Callable[[Any], bool]:
    """Return the test of a list of different values, of at least so many."""

    def passes(value: Any) -> bool:
        good = isinstance(value, list) and all(map(test, value))
        return good and len(value) == len(set(value)) >= least

    return passes


def is_grid(value: Any) -> bool:
    tables = value if isinstance(value, list) else [value]
    return bool(tables) and all(isinstance(t, dict) and flat(t) and product(t) for t in tables)


def are_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value)  # `build` checks each of them


# Types of the keys of a plan, each with its description for an error and its test.
Text = Annotated[str, "a text", is_text]
Folder = Annotated[
    str,
    "the name of a folder, of letters, digits and _ . -",
    lambda value: isinstance(value, str) and re.fullmatch(r"\w[\w.-]*", value),
]
Flag = Annotated[bool, "true or false", lambda value: isinstance(value, bool)]
Table = Annotated[dict, "a table of config keys", lambda value: isinstance(value, dict)]
Tables = Annotated[list, "one or more tables", are_tables]
Grid = Annotated[
    dict | list, "a table of config keys or a list of such tables, without empty lists", is_grid
]
Number = Annotated[float, "a number from 0", is_number]
Positive = Annotated[float, "a positive number", is_positive]
Split = Annotated[str, "train, valid or test", ("train", "valid", "test").__contains__]
Panels = Annotated[dict, "one or more panels", lambda value: isinstance(value, dict) and value]
Stages = Annotated[list, "one or more stages; each begins with [[stage]]", are_tables]
Names = Annotated[list, "a list of different texts", is_list(is_text)]
Rates = Annotated[list, "four or more different positive numbers", is_list(is_positive, 4)]
TwoSeeds = Annotated[list, "two or more different whole numbers", is_list(is_whole, 2)]
SixSeeds = Annotated[list, "six or more different whole numbers", is_list(is_whole, 6)]
Count = Annotated[int | None, "a whole number from 1", functools.partial(is_whole, least=1)]
Whole = Annotated[list, "a list of different whole numbers from 0", is_list(is_whole)]
Length = Annotated[str, 'a length such as "300 steps" or "65 epochs"', is_length]
Epochs = Annotated[
    str, 'a length such as "2 epochs"', lambda value: is_length(value) and unit(value) == "epoch"
]
Lengths = Annotated[
    str | list,
    'a length such as "65 epochs" or a list of increasing ones, of one unit',
    are_lengths,
]


def build(kind: type, place: str, table: Any, **more):
    """Return a dataclass with the values of a table.

    Raises:
        InputError: a key is unknown or missing, or its value is wrong.
    """
    hints = get_type_hints(kind, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name not in more}
    if not isinstance(table, dict):
        raise InputError(f"{place} is {table!r}; it must be a table with {', '.join(fields)}.")
    for key in table:
        if key not in fields:
            raise InputError(f"{place} has no key {key!r}.{nearest(key, fields)}")
    for key, field in fields.items():
        expected, is_right = hints[key].__metadata__
        missing = field.default is field.default_factory is dataclasses.MISSING
        if key not in table and missing:
            raise InputError(f"{place} has no {key!r}; add {expected}.")
        if key in table and not is_right(table[key]):
            raise InputError(f"{place}: {key} is {table[key]!r}; it must be {expected}.")
    return kind(**table, **more)
