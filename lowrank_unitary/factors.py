"""The objects that flow through the library: named tuples of arrays, each in one stated frame."""

from __future__ import annotations

from typing import NamedTuple

from . import _validate
from ._array import Array, astype, on_device_of_arrays, thin_dtype
from ._primitives import adjoint, adjoint_product, scaled_columns


class BodyFactors(NamedTuple):
    """Thin factors of an n×n matrix in the body frame, where the unitary is the identity.

    They stand for ``left @ rightᴴ`` as a step from U to U (I + left rightᴴ). A type of its own, so
    that it cannot be confused with :class:`LowRankFactors` unseen.

    Attributes
    ----------
    left, right : array, shape (…, n, k)
        The two factors.
    """

    left: Array
    right: Array


class LowRankFactors(NamedTuple):
    """Thin factors of an n×n matrix in the ambient frame: a step U + left rightᴴ, or a gradient.

    Attributes
    ----------
    left, right : array, shape (…, m, k) and (…, n, k)
        The two factors.
    """

    left: Array
    right: Array

    @on_device_of_arrays
    def to_body(self, unitary: Array, /) -> BodyFactors:
        """Pull back by Uᴴ: ``BodyFactors(Uᴴ left, right)``.

        Parameters
        ----------
        unitary : array, shape (…, n, n)
            The matrix to be moved.

        Returns
        -------
        BodyFactors
            Factors of Uᴴ left rightᴴ, both of shape (…, n, k), with the dtype of U (float32 for U in half
            precision).

        Raises
        ------
        TypeError, ValueError
            For arguments that do not fit together.

        Notes
        -----
        One read of U: 2kn² operations (real).

        Examples
        --------
        >>> import numpy as np
        >>> import lowrank_unitary as lu
        >>> left, right = np.ones((3, 1)), np.eye(3)[:, :1]
        >>> body = lu.LowRankFactors(left, right).to_body(np.eye(3)[::-1])
        >>> body.left.shape
        (3, 1)
        """
        xp = _validate.namespace_of(unitary=unitary, left=self.left, right=self.right)
        n = _validate.square("unitary", unitary)
        _validate.factor_pair("left", self.left, "right", self.right, n)
        _validate.batches(unitary=unitary, left=self.left, right=self.right)
        _validate.same_dtype(xp, "unitary", unitary, left=self.left, right=self.right)
        dtype = thin_dtype(xp, unitary.dtype)
        left = astype(xp, self.left, dtype)
        right = astype(xp, self.right, dtype)
        left, scale = scaled_columns(xp, left)
        return BodyFactors(adjoint_product(xp, unitary, left) * scale, right)


class SVDSketch(NamedTuple):
    """A truncated singular value decomposition: matrix ≈ ``(U * S[..., None, :]) @ Vh``.

    Attributes
    ----------
    U : array, shape (…, m, k)
        Orthonormal columns.
    S : array, shape (…, k)
        Non-negative numbers in descending order, real.
    Vh : array, shape (…, k, n)
        Orthonormal rows.
    """

    U: Array
    S: Array
    Vh: Array

    @on_device_of_arrays
    def factors(self) -> LowRankFactors:
        """The sketch as thin factors, ``LowRankFactors(U * S, Vhᴴ)``.

        Returns
        -------
        LowRankFactors
            left of shape (…, m, k) and right of shape (…, n, k).

        Examples
        --------
        >>> import numpy as np
        >>> import lowrank_unitary as lu
        >>> matrix = np.diag([3.0, 2.0, 1.0])
        >>> left, right = lu.svd_sketch(matrix, 1, method="exact").factors()
        >>> np.allclose(left @ right.T, np.diag([3.0, 0.0, 0.0]))
        True
        """
        xp = _validate.namespace_of(U=self.U, S=self.S, Vh=self.Vh)
        scale = astype(xp, self.S, self.U.dtype)[..., None, :]
        return LowRankFactors(self.U * scale, adjoint(xp, self.Vh))


class LowRankRotation(NamedTuple):
    """The n×n unitary I + left rightᴴ, unitary to rounding by construction.

    Attributes
    ----------
    left, right : array, shape (…, n, w)
        The two factors; w is 2k for factors of rank k, and n where 2k ≥ n.
    """

    left: Array
    right: Array


class StepCotangents(NamedTuple):
    """Cotangents of the arguments of :func:`unitary_transport` or :func:`polar_projection`.

    Attributes
    ----------
    unitary : array, shape (…, n, n)
        That of U.
    left, right : array, shape (…, n, k)
        Those of the factors of the step.
    """

    unitary: Array
    left: Array
    right: Array


class RotateCotangents(NamedTuple):
    """Cotangents of the arguments of :func:`rotate`.

    Attributes
    ----------
    array : array, shape (…, m, n)
        That of the array that was rotated.
    rotation : BodyFactors, both (…, n, m)
        That of the n×n rotation, left @ rightᴴ, for :func:`transport_rotation_vjp` or
        :func:`polar_rotation_vjp`.
    """

    array: Array
    rotation: BodyFactors
