"""Sketches: a few products with a matrix give the leading k terms of its singular value decomposition.

Input: a matrix of any shape, or an operator with products from both sides. Output: `SVDSketch` or
`LowRankFactors`, and error estimates. Nothing here depends on a unitary matrix.
"""
