"""Pages and generated documents of stored runs."""
