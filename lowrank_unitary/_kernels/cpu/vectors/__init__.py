"""Rows of real numbers in, sums over them out: loops in explicit vectors, thin blocks as rows, their bases."""
