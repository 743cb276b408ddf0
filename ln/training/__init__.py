"""The trainer: it needs optax, orbax and ml_collections, which the layers do not."""

from importlib.util import find_spec

_NEEDED = "filelock", "ml_collections", "optax", "orbax"
if _missing := [name for name in _NEEDED if find_spec(name) is None]:
    raise ImportError(
        f"ln.training needs {', '.join(_missing)}: "
        f'pip install "layer-normalization-jax[experiments]", or ".[experiments]" in a clone.'
    )
