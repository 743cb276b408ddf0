"""Count the floating-point operations of the matrix products and convolutions of a function.

XLA's own count takes the body of a loop once. This one walks the jaxpr and multiplies the body of a
scan by its length.
"""

from collections.abc import Iterable, Sequence
import itertools
import math
from typing import NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


class Flops(NamedTuple):
    """The result of a count.

    Attributes:
        count: 2 for each multiplication with an addition.
        while_loops: loops of unknown length, each of which counts as one turn.
    """

    count: int = 0
    while_loops: int = 0

    def __add__(self, more):
        return Flops(*map(sum, zip(self, more, strict=True)))

    def times(self, turns: int) -> "Flops":
        return self._replace(count=turns * self.count)


def count_flops(jaxpr, used: Sequence[bool] | None = None) -> Flops:
    """Return the operations of a jaxpr, without the equations whose results nobody uses.

    A conditional counts as its most expensive branch. Convolutions with padding count in full.

    Args:
        jaxpr: closed or not.
        used: which of its outputs are used; None for all.
    """
    jaxpr = opened(jaxpr)
    outputs = jaxpr.outvars
    if used is not None and len(used) == len(outputs):
        outputs = itertools.compress(outputs, used)
    needed = variables(outputs)
    total = Flops()
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not needed.isdisjoint(equation.outvars):
            needed |= variables(equation.invars)
            total += of_equation(equation, [var in needed for var in equation.outvars])
    return total


def variables(atoms: Iterable) -> set:
    return {atom for atom in atoms if not isinstance(atom, Literal)}


def of_equation(equation, used: list[bool]) -> Flops:
    """Return the operations of an equation, of whose outputs some are used."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        contracted, _ = params["dimension_numbers"][0]
        shape = equation.invars[0].aval.shape
        depth = math.prod(shape[axis] for axis in contracted)
        return Flops(2 * depth * equation.outvars[0].aval.size)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        depth = kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        return Flops(2 * depth * equation.outvars[0].aval.size)
    if name == "cond":
        return max(count_flops(branch, used) for branch in params["branches"])
    if name == "scan":  # a carry that is not used afterwards may be used in the next turn
        return count_flops(params["jaxpr"]).times(params["length"])
    if name == "while":
        return count_flops(params["body_jaxpr"]) + Flops(while_loops=1)
    inner = filter(is_jaxpr, jax.tree.leaves(params, is_leaf=is_jaxpr))  # of a jitted function, say
    return sum((count_flops(jaxpr, used) for jaxpr in inner), Flops())


def is_jaxpr(value) -> bool:
    return isinstance(value, Jaxpr | ClosedJaxpr)


def opened(jaxpr) -> Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
