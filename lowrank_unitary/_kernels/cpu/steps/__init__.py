"""Matrices and their gradients or factors in, moved matrices out: whole steps, compiled."""
