"""Retrieve images by captions and captions by images in one space: energies, loss and ranks.

An energy E_ij of caption i and image j is low if the two belong together. It is the penalty of
Vendrov et al. (2016), "Order-Embeddings of Images and Language", for points that are not ordered:
s is above v, as the more general of the two, if s_d <= v_d in all coordinates.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import comb

ELEMENTS = 1 << 22  # of an array of pairs and coordinates, on an accelerator


def violation(s, v):
    """Return E(s, v) = Σ_d max(0, s_d − v_d)²: how far s ``[..., D]`` is from being above v."""
    return (jnp.maximum(s - v, 0) ** 2).sum(-1)


def violations(s, v, block: int | None = None):
    """Return `violation` of all pairs: s ``[M, D]``, v ``[N, D]`` -> E ``[M, N]``.

    An array of pairs and coordinates would have 17 million numbers for a batch of 128. Neither this
    function nor its gradient holds it: both go through the coordinates, ``block`` at a time, with
    arrays ``[block, M, N]``.

    Args:
        s: points ``[M, D]``.
        v: points ``[N, D]``.
        block: a divisor of D; `block_of` chooses one.
    """
    block = block or block_of(len(s), len(v), s.shape[1])

    def add(E, coordinates):
        return E + _squares(*coordinates), None

    zero = jnp.zeros((len(s), len(v)), jnp.result_type(s, v))
    return jax.lax.scan(add, zero, tuple(x.T.reshape(-1, block, len(x)) for x in (s, v)))[0]


def block_of(M: int, N: int, D: int) -> int:
    """Return how many of D coordinates to take at a time for M captions and N images.

    It is 1 on a CPU, so that ``[M, N]`` fits into the cache; elsewhere as many as make ELEMENTS
    numbers, because starting a kernel costs time.
    """
    most = 1 if jax.default_backend() == "cpu" else max(1, ELEMENTS // (M * N))
    return max(n for n in range(1, min(most, D) + 1) if D % n == 0)


@partial(jax.checkpoint, prevent_cse=False)  # the gradient computes the differences anew
def _squares(s, v):
    """Return Σ max(0, s_i − v_j)² ``[M, N]`` over coordinates ``[block, M]`` and ``[block, N]``."""
    return (jax.nn.relu(s[:, :, None] - v[:, None, :]) ** 2).sum(0)


def contrast(E, margin: float):
    """Return Σ_{i≠j} max(0, margin − E_ij + E_jj) + max(0, margin − E_ij + E_ii), E ``[B, B]``.

    It is 0 if the energy of each wrong pair is above that of the image's own pair and of the
    caption's own pair by a margin. It is a sum over the batch, as in the authors' code.
    """
    own = jnp.diag(E)
    hinges = jnp.maximum(0, margin - E + own) + jnp.maximum(0, margin - E + own[:, None])
    return jnp.where(jnp.eye(len(E), dtype=bool), 0, hinges).sum()


class Places(NamedTuple):
    """The places of the first right candidate of N queries in the list sorted by energy.

    Ranks and recalls are means over all orders of candidates with the same energy.

    Attributes:
        before: the number of wrong candidates with less energy than the best right one, ``[N]``.
        level: the number of wrong candidates with its energy, ``[N]``.
        right: the number of right candidates with its energy, itself included, ``[N]``.
    """

    before: np.ndarray | jax.Array
    level: np.ndarray | jax.Array
    right: np.ndarray | jax.Array

    @property
    def ranks(self) -> np.ndarray | jax.Array:
        """Return the expected places ``[N]``; the first place is 0.

        In a random order of k right and l wrong candidates, l / (k + 1) wrong ones precede the
        first right one on average.
        """
        return self.before + self.level / (self.right + 1)

    def recall(self, K: int) -> float:
        """Return R@K, the percentage of queries with a right candidate among the first K."""
        tied = self.level + self.right
        places = np.clip(K - self.before, 0, tied)  # of the first K, those that the ties share
        # The probability that wrong candidates take all of these places.
        miss = comb(tied - places, self.right) / comb(tied, self.right)
        return float(100 * (1 - miss).mean())

    def scores(self) -> dict[str, float]:
        """Return recalls, median and mean rank, as evaluation.py of the authors; ranks from 1."""
        return dict(
            r1=self.recall(1),
            r5=self.recall(5),
            r10=self.recall(10),
            median=float(np.floor(np.median(self.ranks)) + 1),
            mean=float(self.ranks.mean() + 1),
        )


def places(E) -> dict[str, Places]:
    """Return the places of images for their captions and of captions for their images.

    Args:
        E: ``[C N, N]`` for captions, C of each image in turn, and images.

    Returns:
        image: for each caption ``[C N]`` the place of its image; caption: for each image ``[N]``
        the place of its first caption. An energy that is NaN counts against both.
    """
    N = E.shape[1]
    image = jnp.arange(len(E)) // (len(E) // N)  # of each caption
    others = image[:, None] != jnp.arange(N)
    own = jnp.take_along_axis(E, image[:, None], 1)
    best = own.reshape(1, N, -1).min(-1)

    def count(energy, axis):
        # Not "E < energy": it is false for a NaN, whose place would then be the first.
        before, same = others & ~(E >= energy), E == energy
        right = jnp.maximum((~others & same).sum(axis), 1)
        return Places(before.sum(axis), (others & same).sum(axis), right)

    return dict(image=count(own, 1), caption=count(best, 0))
