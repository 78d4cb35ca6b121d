"""Matrices and what moves them in, moved matrices out: whole steps, compiled, from gradients and from factors."""
