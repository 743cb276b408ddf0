"""Count the floating-point operations of the matrix products and convolutions of a function.

XLA's own count takes the body of a loop once. This one walks the jaxpr and multiplies the body of a
scan by its length. No training step has a loop of unknown length, which would count as one turn.
"""

from collections.abc import Iterable, Sequence
import itertools
import math

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def count_flops(jaxpr, used: Sequence[bool] | None = None) -> int:
    """Return the operations of a jaxpr, without the equations whose results are unused.

    A multiplication with an addition counts 2. A conditional counts as its most expensive branch.
    Convolutions with padding count in full.

    Args:
        jaxpr: closed or not.
        used: which of its outputs are used; None for all.
    """
    jaxpr = opened(jaxpr)
    outputs = jaxpr.outvars
    if used is not None and len(used) == len(outputs):
        outputs = itertools.compress(outputs, used)
    needed, total = variables(outputs), 0
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not needed.isdisjoint(equation.outvars):
            needed |= variables(equation.invars)
            total += equation_flops(equation, [var in needed for var in equation.outvars])
    return total


def variables(atoms: Iterable) -> set:
    return {atom for atom in atoms if not isinstance(atom, Literal)}


def equation_flops(equation, used: list[bool]) -> int:
    """Return the operations of an equation, of whose outputs some are used."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        contracted, _ = params["dimension_numbers"][0]
        shape = equation.invars[0].aval.shape
        depth = math.prod(shape[axis] for axis in contracted)
        return 2 * depth * equation.outvars[0].aval.size
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        depth = kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        return 2 * depth * equation.outvars[0].aval.size
    if name == "cond":
        return max(count_flops(branch, used) for branch in params["branches"])
    if name == "scan":  # a carry that is not used afterwards may be used in the next turn
        return params["length"] * count_flops(params["jaxpr"])
    inner = filter(is_jaxpr, jax.tree.leaves(params, is_leaf=is_jaxpr))  # of a jitted function, say
    return sum(count_flops(jaxpr, used) for jaxpr in inner)


def is_jaxpr(value) -> bool:
    return isinstance(value, Jaxpr | ClosedJaxpr)


def opened(jaxpr) -> Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
