"""DRAW on binarized MNIST (§6.4, figure 4)."""
