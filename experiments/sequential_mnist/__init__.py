"""Sequential MNIST (Cooijmans et al. 2016), which is not in the paper."""
