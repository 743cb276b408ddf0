"""Checks of the demonstrations, and their results."""

from collections.abc import Sequence
from typing import Any, NamedTuple

EXACT = 1e-12  # below it a float64 number is 0 up to rounding
DIFFERENT = 1e-2  # above it a number is not 0; a number in between fits neither


class Check(NamedTuple):
    """Numbers that decide a claim of the paper, or a statement.

    Attributes:
        number: of the claim in experiments/claims.py; None if the statement is part of no claim.
        statement: what is checked, or "" if it is the text of the claim.
        holds: None if the numbers do not decide.
        because: the numbers.
    """

    number: int | None
    statement: str
    holds: bool | None
    because: str


class Result(NamedTuple):
    """The result of a demonstration: checks, and the numbers that its page shows, by name."""

    checks: Sequence[Check]
    numbers: dict[str, Any]


def check(
    number: int, zero: Sequence[float], nonzero: Sequence[float] = (), statement: str = ""
) -> Check:
    """Return a check that holds if the numbers `zero` vanish and the numbers `nonzero` do not."""
    holds = all(value < EXACT for value in zero) and all(value > DIFFERENT for value in nonzero)
    because = f"Expected 0: {', '.join(map(sci, zero))}."
    if nonzero:
        because += f" Expected not 0: {', '.join(map(sci, nonzero))}."
    return Check(number, statement, holds, because)


def sci(value: float) -> str:
    """Return "3.1e-16": two digits tell rounding from a difference."""
    mantissa, exponent = f"{float(value):.1e}".split("e")
    return mantissa + (f"e{int(exponent)}" if int(exponent) else "") if value else "0"
