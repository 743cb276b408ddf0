"""What the demonstrations check, and what they return."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import jax

SEED = 0
EXACT = 1e-12  # below it a float64 number is 0 up to rounding
DIFFERENT = 1e-2  # above it a number is not 0; a number in between fits neither

# Name -> number of the claim of the paper that the statement is part of, and the statement.
STATEMENTS = {
    "others": (1, "Other examples change neither the outputs of an example nor its gradient."),
    "test": (2, "Layer norm computes the same in training and in test."),
    "online": (3, "Layer norm learns from batches of one."),
    "time": (4, "An RNN has no arrays per time step, and the same states in longer sequences."),
    "table 1": (5, "All 18 entries of Table 1 hold."),
    "units": (6, "Layer norm is invariant to one γ added to all w_i, not to the scale of one."),
    "example": (7, "Layer norm is invariant to the scale of a single example."),
    "plain": (8, "A plain layer fits weight norm, and batch norm in test mode, not layer norm."),
    "outputs": (9, "Doubling the weights leaves the outputs unchanged."),
    "curvature": (9, "Doubling the weights halves the curvature along them (differences from ½)."),
    "rate": (9, "From k W_0 the first loss is the same, and at k² times the rate of W all are."),
    "stop": (10, "‖W‖² grows by η²‖∂L/∂W‖² at each step, so that directions turn less and less."),
    "gains": (11, "Inputs 10 x multiply ds² by 100 without norm and with weight norm only."),
    "summed": (30, "Layer norm is invariant to shift and scale of an example's summed inputs."),
    "bias": (31, "On a batch of one, batch norm returns its bias, and the gradient of W is 0."),
}

WORDS = {True: "confirmed", False: "contradicted", None: "not decided"}


class Check(NamedTuple):
    """A statement, and the numbers that decide it.

    Attributes:
        number: of the claim of the paper that the check is part of; None if of none of them.
        holds: None if the numbers do not decide.
        because: the numbers.
    """

    number: int | None
    statement: str
    holds: bool | None
    because: str


class Result(NamedTuple):
    """What a demonstration returns: checks, and the numbers that its page shows, by name."""

    checks: Sequence[Check]
    numbers: dict[str, Any]


def float64(function: Callable[[int], Result]) -> Callable[[int], Result]:
    """Make a demonstration run in float64, without changing the precision of other code."""

    @wraps(function)
    def run(seed: int = SEED) -> Result:
        with jax.enable_x64(True):
            return function(seed)

    return run


def check(name: str, zero: Sequence[float], nonzero: Sequence[float] = ()) -> Check:
    """Return a check that holds if the numbers `zero` vanish and the numbers `nonzero` do not."""
    holds = all(value < EXACT for value in zero) and all(value > DIFFERENT for value in nonzero)
    because = f"Expected 0: {', '.join(map(sci, zero))}."
    if nonzero:
        because += f" Expected not 0: {', '.join(map(sci, nonzero))}."
    return Check(*STATEMENTS[name], holds, because)


def sci(value: float) -> str:
    """Return "3.1e-16": two digits tell rounding from a difference."""
    mantissa, exponent = f"{float(value):.1e}".split("e")
    return mantissa + (f"e{int(exponent)}" if int(exponent) else "") if value else "0"
