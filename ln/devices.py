"""All devices of a machine at work on one run: its lanes, or the cases of its batches, or both, are
spread over them. No task and no model knows; what crosses devices is the compiler's affair.
"""

import math
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from ln.errors import InputError

LANES, CASES = "lanes", "cases"


class Spread(NamedTuple):
    """How a run lies on devices.

    Attributes:
        mesh: of the axes LANES and CASES; None on one device, where nothing is to be done.
        batch_size: by which a batch's axis of cases is known.
    """

    mesh: Mesh | None = None
    batch_size: int = 0

    @classmethod
    def over(cls, devices: list, lanes: int, batch_size: int) -> "Spread":
        """As many devices along the lanes as divide both; the others share each batch.

        Raises:
            InputError: what is left of the devices does not divide the batch.
        """
        n = len(devices)
        if n == 1:
            return cls()
        along = math.gcd(lanes, n)
        sharing = n // along
        if batch_size % sharing:
            below = batch_size - batch_size % sharing
            sizes = " or ".join(str(size) for size in (below, below + sharing) if size)
            raise InputError(
                f"{lanes} lane(s) and config.batch_size={batch_size} cannot be spread over {n} "
                f"devices: take a multiple of {n} lanes (config.seeds times config.lr), or "
                f"config.batch_size={sizes}; or let it see fewer devices."
            )
        grid = np.array(devices).reshape(along, sharing)
        # Explicit axes, the default elsewhere, would ask the models to say where arrays lie.
        mesh = Mesh(grid, (LANES, CASES), axis_types=(AxisType.Auto, AxisType.Auto))
        return cls(mesh, batch_size)

    def sharding(self, *axes: str | None) -> NamedSharding | None:
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec(*axes))

    @property
    def outputs(self):
        """Where a call leaves the state ``[lanes, ...]`` and the metrics ``[K, lanes]``."""
        return None if self.mesh is None else (self.sharding(LANES), self.sharding())

    def state(self, state: Any) -> Any:
        """The state, leaves ``[lanes, ...]``, on its devices."""
        return state if self.mesh is None else jax.device_put(state, self.sharding(LANES))

    def batches(self, batches: Any) -> Any:
        """Batches, leaves ``[K, B, ...]``, on their devices."""
        if self.mesh is None:
            return jax.device_put(batches)

        def put(leaf):
            is_of_cases = leaf.ndim > 1 and leaf.shape[1] == self.batch_size
            return jax.device_put(leaf, self.sharding(*([None, CASES] if is_of_cases else [])))

        return jax.tree.map(put, batches)

    def gathered(self, tree: Any) -> Any:
        """Arrays of all devices as one device has them."""
        return tree if self.mesh is None else jax.device_get(tree)


ALONE = Spread()
