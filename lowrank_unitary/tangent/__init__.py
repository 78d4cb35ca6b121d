"""The part of a gradient that moves U, A = skew(UᴴG), as body factors of k columns.

In come U and its gradient, an array or thin factors; out go `BodyFactors` (C, Q) with A ≈ skew(C Qᴴ), which
need no sight of U any more: sketched afresh or from the last basis, compressed, averaged over steps.
"""
