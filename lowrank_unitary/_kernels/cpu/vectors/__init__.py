"""Rows of real numbers in, sums over them out: loops in explicit vectors, thin blocks and their bases."""
