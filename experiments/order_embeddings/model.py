"""Order embeddings of images and captions (§6.1, figure 1, table 2).

The model is by Vendrov et al. (2016), with layer norm in the GRU that reads the captions. It maps
images and captions to points of one space. A caption must be above its image, because it is the
more general of the two (`experiments.retrieval`). An image is a vector of features from a network
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
        vocabulary: number of words.
        embedding_dim: the dimension of a word's vector.
        hidden: H, units of the GRU and the dimension of the space.
        norm: of the GRU, sites x and h.
    """

    vocabulary: int
    embedding_dim: int
    hidden: int
    norm: Norm

    def setup(self):
        """Define the modules."""
        self.table = self.param("table", small, (self.vocabulary, self.embedding_dim))
        self.encoder = GRU(self.hidden, self.norm, init_W_x=small)
        self.W_image = nn.Dense(self.hidden, kernel_init=nn.initializers.glorot_uniform())

    def point(self, h):
        """Return the absolute values of h ``[..., H]`` with norm 1."""
        # Without negative coordinates the origin is above all points: the most general caption.
        return jnp.abs(h / jnp.linalg.norm(h, axis=-1, keepdims=True))

    def caption(self, tokens, length):
        """Return the points ``[B, H]`` of captions with tokens ``[B, T]`` and lengths ``[B]``."""
        mask = jnp.arange(tokens.shape[1])[:, None] < length
        return self.point(unroll(self.encoder, self.table[tokens.T], mask)[1])

    def image(self, features):
        """Return the points ``[B, H]`` of images with features ``[B, D]``."""
        return self.point(self.W_image(features))

    def __call__(self, tokens, length, features):
        """Return the points of captions and of images, both ``[B, H]``."""
        return self.caption(tokens, length), self.image(features)
