"""Peers: implementations of the same computation, and how they are compared and timed."""
