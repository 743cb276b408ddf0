"""Classify the images of permutation invariant MNIST (§6.6)."""

import flax.linen as nn

from experiments import tasks
from experiments.mnist.model import Model
from ln.errors import choose

INITIALIZERS = {
    "he_normal": nn.initializers.he_normal(),
    "glorot_normal": nn.initializers.glorot_normal(),
    "lecun_normal": nn.initializers.lecun_normal(),
}


class Task(tasks.Images):
    """Classify images, which are vectors of pixels."""

    def __init__(self, config):
        self.init_W = choose("config.init", config.init, INITIALIZERS)
        super().__init__(config)

    def model(self, train):
        """Return the network."""
        return tasks.build(Model, self.config, train, init_W=self.init_W)
