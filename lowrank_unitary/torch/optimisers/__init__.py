"""Optimisers of torch: parameters with their gradients come in; unitary ones are moved by low-rank steps."""
