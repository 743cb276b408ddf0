"""Count the floating-point operations of the matrix products and convolutions of a function.

XLA's own count takes the body of a loop once. This one walks the jaxpr and multiplies the body of a
scan by its length. No training step has a loop of unknown length, which would count as one turn.
"""

import math

from jax.extend.core import ClosedJaxpr, jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr


def count_flops(jaxpr) -> int:
    """Return the operations of a jaxpr, closed or not, but for those whose results are unused.

    A multiplication with an addition counts 2. A conditional counts as its most expensive branch.
    Convolutions with padding count in full.
    """
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    needed, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return sum(map(equation_flops, needed.eqns))


def equation_flops(equation) -> int:
    """Return the operations of an equation, and of the jaxprs in it, as of a jitted function."""
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
    inner = [count_flops(jaxpr) for jaxpr in jaxprs_in_params(params)]
    return max(inner) if name == "cond" else params.get("length", 1) * sum(inner)
