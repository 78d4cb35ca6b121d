"""A matrix in two half-precision arrays: the second one keeps the rounding error of the first."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._array import HALF, Array, eps, is_half, validate, values_are_at_hand


class CompensatedUnitary(NamedTuple):
    """A matrix as ``high + low * eps / 2``, both arrays in float16 or both in bfloat16.

    Make one with :meth:`split`; :meth:`single` gives the matrix in float32, to be moved and split again.
    It takes four bytes an entry, as float32 does; `high` serves fast products without a copy.

    Attributes
    ----------
    high : array, shape (…, n, n)
        The matrix rounded to half precision.
    low : array, shape (…, n, n)
        The remainder in units of eps/2 of the dtype, rounded too.

    Notes
    -----
    float16: 22 bits, two to three times the defect of float32. bfloat16: 16 bits, about a five-hundredth of
    the defect of bfloat16 alone.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> U = lu.random_unitary(64, dtype=np.float32, rng=0)
    >>> stored = lu.CompensatedUnitary.split(U, np.float16)
    >>> float(np.abs(stored.high - U).max()) > 1e-5, float(np.abs(stored.single() - U).max()) < 1e-7
    (True, True)
    >>> c, b = np.random.default_rng(1).standard_normal((2, 64, 1)).astype(np.float32) / 8
    >>> moved = lu.unitary_transport(stored.single(), c, b, heal=1, rng=2, overwrite_unitary=True)
    >>> stored = lu.CompensatedUnitary.split(moved, np.float16)
    >>> bool(lu.unitarity_defect(stored.single()) < 2e-6)
    True
    """

    high: Array
    low: Array

    @classmethod
    def split(cls, unitary: Array, dtype: Any, /) -> CompensatedUnitary:
        """Round a float32 matrix (…, n, n) to `dtype`, float16 or bfloat16, and keep the remainder."""
        xp = validate.namespace_of(unitary=unitary)
        validate.square("unitary", unitary)
        if unitary.dtype != xp.float32:
            raise TypeError(f"unitary must be float32, got {unitary.dtype}: cast it first.")
        made = validate.prototype(xp, dtype, None).dtype
        if not is_half(xp, made):
            raise TypeError(f"dtype must be one of {', '.join(HALF)}, got {made}.")
        largest = float(xp.finfo(made).max)
        if values_are_at_hand(unitary) and xp.any(xp.isfinite(unitary) & (xp.abs(unitary) > largest)):
            raise ValueError(
                f"unitary must have entries of at most {largest:.5g}, the largest of {made}, got one of "
                f"{float(xp.max(xp.abs(unitary))):.5g}: those of a unitary matrix are at most 1."
            )
        high = xp.astype(unitary, made)
        rest = (unitary - xp.astype(high, xp.float32)) * (2.0 / eps(xp, high.dtype))
        return cls(high, xp.astype(rest, high.dtype))

    def single(self) -> Array:
        """The matrix in float32, (…, n, n)."""
        high, low = self
        xp = validate.namespace_of(high=high, low=low)
        if not is_half(xp, high.dtype) or low.dtype != high.dtype or low.shape != high.shape:
            raise TypeError(
                f"high and low must have one shape and one of the dtypes {', '.join(HALF)}, got "
                f"{tuple(high.shape)} of {high.dtype} and {tuple(low.shape)} of {low.dtype}."
            )
        low = xp.astype(self.low, xp.float32) * (0.5 * eps(xp, self.high.dtype))
        return xp.astype(self.high, xp.float32) + low
