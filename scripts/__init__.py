"""The commands: python -m scripts.NAME, each of which answers --help."""
