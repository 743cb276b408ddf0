"""Layer normalization (Ba, Kiros, Hinton 2016) for JAX and Flax. See `ln.norm` for the equations."""
