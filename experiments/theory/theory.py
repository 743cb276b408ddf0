"""The analysis of section 5 and the exact claims, as numbers: `scripts.report --theory`.

Each demonstration is a function of a seed. It returns checks, and the numbers that the page
scripts/pages/theory.html shows. To add one, add it here and a section to the page.
"""

from experiments.theory import layers, modules, recurrence, training
from experiments.theory.checks import SEED as SEED

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
