"""Permutation invariant MNIST (§6.6, figure 6): a 784-1000-1000-10 network on single images."""

import flax.linen as nn
from jax.nn import relu

from ln.norm import Initializer, Norm


class Model(nn.Module):
    """Two hidden layers, h = relu(norm(W x)), and logits norm(W h).

    Maps x ``[B, D]`` to logits ``[B, 10]``.

    Attributes:
        hidden: units of each hidden layer.
        norm: sites a, of the hidden layers, and out, of the logits.
        init_W: initializer of all matrices.
        classes: number of logits.
    """

    hidden: int
    norm: Norm
    init_W: Initializer
    classes: int = 10

    @nn.compact
    def __call__(self, x):
        """Return the logits ``[B, 10]`` of images x ``[B, D]``."""
        h = x
        for _ in range(2):
            a = self.norm.dense("a", self.hidden, kernel_init=self.init_W)(h)
            h = relu(self.norm("a")(a))
        a = self.norm.dense("out", self.classes, kernel_init=self.init_W)(h)
        return self.norm("out")(a)
