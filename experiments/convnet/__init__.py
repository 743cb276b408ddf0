"""Convolutional networks (§6.7)."""
