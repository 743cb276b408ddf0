"""Permutation invariant MNIST (§6.6, figure 6)."""
