"""Body factors become a thin unitary factor I + L Rᴴ, and that is applied to rows.

In come `BodyFactors`; out go a `LowRankRotation`, by transport or polar projection through a core of size 2k,
its certificate and its derivatives, and arrays multiplied by it.
"""
