"""A matrix becomes thin: a few products with it give the k best terms of its singular value decomposition.

In comes a matrix of any shape, or whatever can be multiplied from both sides; out go `SVDSketch` or
`LowRankFactors`, and estimates of what they have missed. Nothing here knows of a unitary matrix.
"""
