"""Convolutional networks (§6.7), about which the paper has two paragraphs and no number: with layer
norm they learn faster than without norm, with batch norm faster still, because units whose fields
of view lie at the border of the image are rarely active, unlike the others of their layer.

Network and data are ours.
"""

import flax.linen as nn
from jax.nn import relu
import jax.numpy as jnp

from ln.norm import Norm

SIZE = 3  # of the fields of view: 3 x 3
he_normal = nn.initializers.he_normal()


def patches(x):
    """The fields of view around the positions of x ``[B, height, width, C]``, zeros beyond the
    border: ``[B, height, width, 9 C]``.

    A convolution is a matrix product with them. So it is one in lanes too, where XLA would make it
    a convolution by groups of channels, which on a CPU takes many times as long.
    """
    (_, height, width, _), edge = x.shape, SIZE // 2
    around = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    views = [around[:, i : i + height, j : j + width] for i in range(SIZE) for j in range(SIZE)]
    return jnp.concatenate(views, -1)


class Model(nn.Module):
    """h = relu(norm(W ∗ x)), the largest of every 2 x 2 of which go on, for each layer; then
    h = relu(norm(W h)), and logits norm(W h).

    Maps x ``[B, height, width, colours]`` to ``[B, 10]``, and the activities of the convolutional
    layers, each ``[B, height, width, channels]``.

    Attributes:
        channels: of the convolutional layers.
        hidden: units of the layer behind them.
        norm: sites conv, a and out.
    """

    channels: tuple[int, ...]
    hidden: int
    norm: Norm
    classes: int = 10

    @nn.compact
    def __call__(self, x):
        h, activities = x, []
        for channels in self.channels:
            W = self.norm.dense("conv", channels, kernel_init=he_normal)
            h = relu(self.norm("conv")(W(patches(h))))
            activities.append(h)
            h = nn.max_pool(h, (2, 2), (2, 2))
        h = h.reshape(len(h), -1)
        h = relu(self.norm("a")(self.norm.dense("a", self.hidden, kernel_init=he_normal)(h)))
        a = self.norm.dense("out", self.classes, kernel_init=he_normal)(h)
        return self.norm("out")(a), activities
