"""Rows of the experiments come in, their figures and tables go out."""
