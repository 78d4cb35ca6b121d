"""Delayed rotations: accumulate thin factors, write the n×n matrix once every few steps."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._array import Array, Namespace, astype, thin_dtype, validate, widest_dtype
from .._linalg import RNG, adjoint_product, check_rng, product
from ..rotation.rotate import rotate
from ..types import LowRankRotation, checked_rotation, composed
from .heal import healing_rotation, orthonormal_probes


class DelayedUnitary(NamedTuple):
    """A unitary matrix as ``base @ (I + left rightᴴ)``, with the latest steps in the second factor.

    Immutable: every method returns a new value. Make one with ``DelayedUnitary(U)``.

    Attributes
    ----------
    base : array, shape (…, n, n)
        The matrix as of the last flush.
    rotation : LowRankRotation or None
        The steps since; None for none.

    Notes
    -----
    A rotation of width w after accumulated width v costs 4nvw operations, products with m vectors
    2n²m + 4nvm. A flush costs one read and one write of the n×n matrix, as a plain step: flush when v is a
    few dozen.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> U = lu.random_unitary(8, rng=0)
    >>> delayed = lu.DelayedUnitary(U)
    >>> rng = np.random.default_rng(1)
    >>> for _ in range(3):
    ...     c, b = rng.standard_normal((2, 8, 1))
    ...     r = lu.transport_rotation(lu.BodyFactors(c, b))
    ...     delayed, U = delayed.rotate(r), lu.rotate(U, r)
    >>> np.allclose(delayed.flush().base, U)
    True
    >>> x = rng.standard_normal((8, 2))
    >>> np.allclose(delayed.matmul(x), U @ x), np.allclose(delayed.adjoint_matmul(x), U.T @ x)
    (True, True)
    """

    base: Array
    rotation: LowRankRotation | None = None

    def rotate(self, rotation: LowRankRotation, /) -> DelayedUnitary:
        """Multiply from the right by a rotation, at O(n), after those accumulated before."""
        xp, before = self._checked()
        latest = _fitting(xp, self.base, rotation)
        return DelayedUnitary(self.base, latest if before is None else composed(xp, before, latest))

    def matmul(self, x: Array, /) -> Array:
        """The product U x for x (…, n, m), with the wider dtype of the base and x, without forming U."""
        _, rotation = self._checked()
        xp = validate.namespace_of(base=self.base, x=x)
        dtype, x = _widened(xp, self.base, x)
        if rotation is not None:
            left, right = (astype(xp, part, x.dtype) for part in rotation)
            x = x + left @ adjoint_product(xp, right, x)
        return astype(xp, product(xp, self.base, x), dtype)

    def adjoint_matmul(self, x: Array, /) -> Array:
        """The product Uᴴ x for x (…, n, m), with the wider dtype of the base and x, without forming U."""
        _, rotation = self._checked()
        xp = validate.namespace_of(base=self.base, x=x)
        dtype, x = _widened(xp, self.base, x)
        y = adjoint_product(xp, self.base, x)
        if rotation is not None:
            left, right = (astype(xp, part, y.dtype) for part in rotation)
            y = y + right @ adjoint_product(xp, left, y)
        return astype(xp, y, dtype)

    def flush(self, *, heal: int = 0, rng: RNG = None) -> DelayedUnitary:
        """Multiply the accumulated rotation into the base.

        `heal` and `rng` as for :func:`unitary_step`; healing costs one further read of the base.
        """
        xp, rotation = self._checked()
        if validate.count("heal", heal) == 0:
            check_rng(rng, self.base)
        else:
            validate.probes("heal", heal, self.base.shape[-1], least=0)
            Z = orthonormal_probes(xp, self.base, heal, rng)
            healing = healing_rotation(xp, Z, adjoint_product(xp, self.base, product(xp, self.base, Z)))
            rotation = healing if rotation is None else composed(xp, healing, rotation)
        return self if rotation is None else DelayedUnitary(rotate(self.base, rotation))

    def _checked(self) -> tuple[Namespace, LowRankRotation | None]:
        """The namespace and the rotation, which fits the base, or an error."""
        xp = validate.namespace_of(base=self.base)
        validate.square("base", self.base)
        return xp, None if self.rotation is None else _fitting(xp, self.base, self.rotation)


def _fitting(xp: Namespace, base: Array, rotation: LowRankRotation) -> LowRankRotation:
    """The rotation in the dtype of the base, or an error where it cannot move it."""
    left, right = checked_rotation(rotation)
    factors = {"rotation.left": left, "rotation.right": right}
    validate.namespace_of(base=base, **factors)
    validate.factor_pair("rotation.left", left, "rotation.right", right, base.shape[-1])
    validate.batches(base=base, **factors)
    validate.same_dtype(xp, "base", base, **factors)
    dtype = thin_dtype(xp, base.dtype)
    return LowRankRotation(astype(xp, left, dtype), astype(xp, right, dtype))


def _widened(xp: Namespace, base: Array, x: Array) -> tuple[Any, Array]:
    """The dtype of a product with x, and x in the dtype to compute it in."""
    validate.factor_pair("x", x, "x", x, base.shape[-1])
    validate.batches(base=base, x=x)
    dtype = widest_dtype(xp, base.dtype, x.dtype)
    return dtype, astype(xp, x, thin_dtype(xp, dtype))
