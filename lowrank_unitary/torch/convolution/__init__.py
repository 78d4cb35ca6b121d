"""Layers of torch: signals and stacks of unitary matrices come in, signals go out, gradients as factors."""
