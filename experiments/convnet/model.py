"""Convolutional networks (§6.7).

The paper has two paragraphs about them and no number: they learn faster with layer norm than
without norm, and faster still with batch norm. It explains this by the units at the border of the
image: they are rarely active, unlike the other units of their layer. The network and the data are
ours.
"""

import flax.linen as nn
from jax.nn import relu
import jax.numpy as jnp

from ln.norm import Norm

SIZE = 3  # pixels: a field of view has 3 x 3
he_normal = nn.initializers.he_normal()


def patches(x):
    """Return the field of view around each position of x ``[B, height, width, C]``.

    A convolution is a matrix product with the fields of view. Under vmap, XLA would turn a
    convolution into one by groups of channels, which takes many times as long on a CPU.

    Returns:
        ``[B, height, width, 9 C]``; pixels beyond the border are 0.
    """
    (_, height, width, _), edge = x.shape, SIZE // 2
    around = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    views = [around[:, i : i + height, j : j + width] for i in range(SIZE) for j in range(SIZE)]
    return jnp.concatenate(views, -1)


class Model(nn.Module):
    """A convolutional network.

    Each convolutional layer is h = relu(norm(W ∗ x)) and a 2 x 2 max pooling. A layer
    h = relu(norm(W h)) and the logits norm(W h) follow.

    Attributes:
        channels: channels of each convolutional layer.
        hidden: units of the layer after them.
        norm: sites conv, a and out.
        classes: number of logits.
    """

    channels: tuple[int, ...]
    hidden: int
    norm: Norm
    classes: int = 10

    @nn.compact
    def __call__(self, x):
        """Classify images x ``[B, height, width, colours]``.

        Returns:
            Logits ``[B, 10]`` and the activities of each convolutional layer before pooling,
            ``[B, height, width, channels]``.
        """
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
