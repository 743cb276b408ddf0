"""Layer normalization (Ba, Kiros, Hinton 2016) for JAX and Flax. The equations: `ln.norm`."""
