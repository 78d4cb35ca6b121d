"""The part of a gradient that moves U, A = skew(UᴴG), as body factors of k columns.

Input: U and its gradient, an array or thin factors. Output: `BodyFactors` (C, Q) with A ≈ skew(C Qᴴ),
sketched from new samples or from the last basis, compressed, or averaged over steps.
"""
