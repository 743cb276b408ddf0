"""The trainer: it needs optax, orbax and ml_collections, which the layers do not."""
