"""Order embeddings of images and captions (§6.1, figure 1, table 2): Vendrov et al. (2016), with
layer norm in the GRU that reads the captions.

The model maps both to points of one space. There a caption must be above its image, since it is
the more general of the two (`experiments.retrieval`). An image is a vector of features of a network
that is not trained here.
"""

import flax.linen as nn
import jax.numpy as jnp

from ln.norm import Norm
from ln.rnn import GRU, uniform, unroll

small = uniform(0.1)  # the authors' word vectors and input weights


class Model(nn.Module):
    """Two maps into one space: of captions and of images.

    Attributes:
        vocabulary: rows of the table of words.
        words: numbers of a word's vector.
        hidden: units of the GRU and numbers of a point.
        symmetric: else points have no negative coordinates.
        norm: of the GRU, sites x and h.
    """

    vocabulary: int
    words: int
    hidden: int
    symmetric: bool
    norm: Norm

    def setup(self):
        self.table = self.param("table", small, (self.vocabulary, self.words))
        self.encoder = GRU(self.hidden, self.norm, init_W_x=small)
        self.W_image = nn.Dense(self.hidden, kernel_init=nn.initializers.glorot_uniform())

    def point(self, h):
        """h ``[..., H]`` at length 1 and, unless symmetric, without negative coordinates."""
        h = h / jnp.linalg.norm(h, axis=-1, keepdims=True)
        return h if self.symmetric else jnp.abs(h)

    def caption(self, tokens, length):
        """The points ``[B, H]`` of captions: tokens ``[B, T]`` and lengths ``[B]``."""
        mask = jnp.arange(tokens.shape[1])[:, None] < length
        return self.point(unroll(self.encoder, self.table[tokens.T], mask)[1])

    def image(self, features):
        """The points ``[B, H]`` of features ``[B, D]``."""
        return self.point(self.W_image(features))

    def __call__(self, tokens, length, features):
        return self.caption(tokens, length), self.image(features)
