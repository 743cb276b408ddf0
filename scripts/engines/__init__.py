"""Engines that train many runs."""
