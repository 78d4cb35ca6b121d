"""The n×n matrix itself: how it is made, measured, healed, repaired and stored.

In come sizes and seeds, or a matrix that is nearly unitary; out go a unitary matrix and numbers that say how
far from unitary it is.
"""
