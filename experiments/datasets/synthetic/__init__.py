"""The built-in substitutes, which need no files."""
