"""Rotations: from body factors to the thin unitary factor I + L Rᴴ, applied row by row.

Input: `BodyFactors`. Output: a `LowRankRotation`, by transport or polar projection through a core of size 2k,
its certificate, its derivatives, and arrays multiplied by it.
"""
