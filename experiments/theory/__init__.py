"""The analysis of section 5 and the exact claims, as numbers: `scripts.report --theory`.

Each demonstration is a function of a seed. It returns checks, and the numbers that the page
scripts/pages/theory.html shows. To add one, add it here and a section to the page.
"""

import jax

from experiments.theory import layers, modules, recurrence, training
from experiments.theory.checks import Result

SEED = 0
DEMONSTRATIONS = (
    layers.invariances,
    layers.curvature,
    training.growth,
    layers.fisher,
    layers.magnitudes,
    recurrence.dynamics,
    modules.examples,
    layers.reparametrization,
)


def analysis(seed: int = SEED) -> dict[str, Result]:
    """Return what each demonstration returns, computed in float64, by its name."""
    with jax.enable_x64(True):
        return {function.__name__: function(seed) for function in DEMONSTRATIONS}
