"""Delayed rotations: accumulate thin factors, touch the n×n matrix once every few steps."""

from __future__ import annotations

from typing import NamedTuple

from . import _validate
from ._array import Array
from ._primitives import adjoint_product
from .factors import LowRankRotation
from .rotation import checked, compose, rotate


class DelayedUnitary(NamedTuple):
    """A unitary matrix as ``base @ (I + left rightᴴ)``, the second factor gathering the latest steps.

    Immutable: every method returns a new value. Start with ``DelayedUnitary(U)``.

    Attributes
    ----------
    base : array, shape (…, n, n)
        The matrix as of the last flush.
    rotation : LowRankRotation or None
        What has happened since; None for nothing.

    Notes
    -----
    A rotation of width w after accumulated width v costs 4nvw operations and leaves the n×n matrix alone;
    products with m vectors cost 2n²m + 4nvm. One flush costs one read and one write of the n×n matrix,
    as much as one plain step: flush when v has grown to a few dozen.

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
        """Multiply from the right by a rotation, at O(n) cost.

        Parameters
        ----------
        rotation : LowRankRotation
            left and right of shape (…, n, w).

        Returns
        -------
        DelayedUnitary
            With the rotation behind those accumulated before.
        """
        if self.rotation is None:
            return DelayedUnitary(self.base, checked(rotation))
        xp = _validate.namespace_of(base=self.base, left=checked(rotation).left, right=rotation.right)
        return DelayedUnitary(self.base, compose(xp, self.rotation, rotation))

    def matmul(self, x: Array, /) -> Array:
        """The product U x without forming U.

        Parameters
        ----------
        x : array, shape (…, n, m)
            Column vectors.

        Returns
        -------
        array, shape (…, n, m)
        """
        if self.rotation is None:
            return self.base @ x
        xp = _validate.namespace_of(base=self.base, x=x)
        left, right = self.rotation
        return self.base @ (x + left @ adjoint_product(xp, right, x))

    def adjoint_matmul(self, x: Array, /) -> Array:
        """The product Uᴴ x without forming U.

        Parameters
        ----------
        x : array, shape (…, n, m)
            Column vectors.

        Returns
        -------
        array, shape (…, n, m)
        """
        xp = _validate.namespace_of(base=self.base, x=x)
        y = adjoint_product(xp, self.base, x)
        if self.rotation is None:
            return y
        left, right = self.rotation
        return y + right @ adjoint_product(xp, left, y)

    def flush(self) -> DelayedUnitary:
        """Multiply the accumulated rotation into the base.

        Returns
        -------
        DelayedUnitary
            The same matrix with ``rotation=None``.
        """
        if self.rotation is None:
            return self
        return DelayedUnitary(rotate(self.base, self.rotation))
