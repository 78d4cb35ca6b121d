"""The objects that flow through the library: named tuples of arrays, each in one stated frame."""

from __future__ import annotations

from typing import Any, NamedTuple

from ._array import Array, Namespace, astype, is_complex, thin_dtype, validate, widest_dtype
from ._linalg import (
    adjoint,
    adjoint_product,
    along_columns,
    conj,
    eye_like,
    hstack,
    into_frame,
    promoted,
    scaled_columns,
    stacked,
    thin_product,
)


class BodyFactors(NamedTuple):
    """Thin factors of an n×n matrix in the body frame, where the unitary is the identity.

    They stand for ``left @ rightᴴ`` as a step from U to U (I + left rightᴴ), where :class:`LowRankFactors`
    stand for a step in the ambient frame.

    Attributes
    ----------
    left, right : array, shape (…, n, k)
    """

    left: Array
    right: Array

    def scaled(self, factor: Any, /) -> BodyFactors:
        """The factors of a multiple of the matrix: ``BodyFactors(factor * left, right)``.

        Parameters
        ----------
        factor : float or real array broadcasting against the batch
            −η, for instance, to descend by a step of size η.

        Examples
        --------
        >>> import numpy as np
        >>> import lowrank_unitary as lu
        >>> lu.BodyFactors(np.ones((2, 1)), np.ones((2, 1))).scaled(-0.5).dense()
        array([[-0.5, -0.5],
               [-0.5, -0.5]])
        """
        xp, left, right = checked_pair(self)
        return BodyFactors(left * validate.real_scalar(xp, "factor", factor, left, "left"), right)

    def dense(self) -> Array:
        """The product left @ rightᴴ, (…, n, n)."""
        xp, left, right = checked_pair(self)
        return left @ adjoint(xp, right)


class LowRankFactors(NamedTuple):
    """Thin factors of an n×n matrix in the ambient frame: a step U + left rightᴴ, or a gradient.

    Attributes
    ----------
    left, right : array, shape (…, m, k) and (…, n, k)
    """

    left: Array
    right: Array

    def scaled(self, factor: Any, /) -> LowRankFactors:
        """The factors of a multiple of the matrix, as :meth:`BodyFactors.scaled`."""
        xp, left, right = checked_pair(self)
        return LowRankFactors(left * validate.real_scalar(xp, "factor", factor, left, "left"), right)

    def dense(self) -> Array:
        """The product left @ rightᴴ, (…, m, n)."""
        xp, left, right = checked_pair(self)
        return left @ adjoint(xp, right)

    def to_body(self, unitary: Array, /) -> BodyFactors:
        """Pull back by Uᴴ: ``BodyFactors(Uᴴ left, right)``.

        Parameters
        ----------
        unitary : array, shape (…, n, n) or (…, m, n)
            U, read once: 2kn² operations (real). A rectangular one is read three times.

        Returns
        -------
        BodyFactors
            Both of shape (…, n, k), with the dtype of U (float32 for U in half precision). For m×n U with
            m > n, of shape (…, n + m, k) in the frame [U, I − UUᴴ]: [c, 2r] and [right, 0], with left = U c +
            r and r orthogonal to U, so that skew(left rightᴴ) of the two is the tangent of the step. A wide U
            stands for its transpose.

        Examples
        --------
        >>> import numpy as np
        >>> import lowrank_unitary as lu
        >>> left, right = np.ones((3, 1)), np.eye(3)[:, :1]
        >>> body = lu.LowRankFactors(left, right).to_body(np.eye(3)[::-1])
        >>> body.left.shape
        (3, 1)
        """
        xp = validate.namespace_of(unitary=unitary, left=self.left, right=self.right)
        m, n = checked_step(xp, unitary, self.left, self.right)
        dtype = thin_dtype(xp, unitary.dtype)
        left = astype(xp, self.left, dtype)
        right = astype(xp, self.right, dtype)
        if m < n:
            unitary, left, right = transposed_step(xp, unitary, left, right)
        left, scale = scaled_columns(xp, left)
        if m == n:
            pulled = adjoint_product(xp, unitary, left)
            return BodyFactors(pulled * promoted(xp, scale, pulled), right)
        x, y, _ = into_frame(xp, unitary, left)
        pulled = stacked(xp, x, 2.0 * y)
        return BodyFactors(pulled * promoted(xp, scale, pulled), along_columns(xp, right, max(m, n)))


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

    def factors(self) -> LowRankFactors:
        """The sketch as thin factors, ``LowRankFactors(U * S, Vhᴴ)``.

        Examples
        --------
        >>> import numpy as np
        >>> import lowrank_unitary as lu
        >>> matrix = np.diag([3.0, 2.0, 1.0])
        >>> left, right = lu.svd_sketch(matrix, 1, method="exact").factors()
        >>> np.allclose(left @ right.T, np.diag([3.0, 0.0, 0.0]))
        True
        """
        xp = checked_sketch(self)
        scale = astype(xp, self.S, self.U.dtype)[..., None, :]
        return LowRankFactors(self.U * scale, adjoint(xp, self.Vh))


class LowRankRotation(NamedTuple):
    """The n×n unitary I + left rightᴴ, unitary to rounding by construction.

    Attributes
    ----------
    left, right : array, shape (…, n, w)
        w is 2k for factors of rank k, and n where 2k ≥ n.
    """

    left: Array
    right: Array

    def inverse(self) -> LowRankRotation:
        """The inverse rotation I + right leftᴴ."""
        return LowRankRotation(self.right, self.left)

    def compose(self, other: LowRankRotation, /) -> LowRankRotation:
        """The product with another rotation: ``rotate(U, r.compose(s))`` is U r s.

        Of width w + v, at O(nwv) for `other` of width v.

        Examples
        --------
        >>> import numpy as np
        >>> import lowrank_unitary as lu
        >>> c, b = np.random.default_rng(0).standard_normal((2, 5, 1))
        >>> r = lu.transport_rotation(lu.BodyFactors(c, b))
        >>> np.allclose(r.compose(r.inverse()).dense(), np.eye(5))
        True
        """
        left, right = checked_rotation(other, "other")
        xp = validate.namespace_of(
            **{"left": self.left, "right": self.right, "other.left": left, "other.right": right}
        )
        validate.factor_pair("left", self.left, "right", self.right)
        n = int(self.left.shape[-2])
        validate.factor_pair("other.left", left, "other.right", right, n)
        validate.batches(left=self.left, right=self.right, other_left=left, other_right=right)
        dtype = widest_dtype(xp, *(x.dtype for x in (*self, *other)))
        return composed(xp, *(LowRankRotation(*(astype(xp, x, dtype) for x in r)) for r in (self, other)))

    def dense(self) -> Array:
        """The matrix I + left @ rightᴴ, (…, n, n)."""
        xp, left, right = checked_pair(self)
        product = left @ adjoint(xp, right)
        return eye_like(xp, product) + product


def _refused(self: Any, other: Any) -> Any:
    """For a tuple `*` repeats, `+` concatenates, and numpy would make one array: all are refused."""
    name = type(self).__name__
    cure = (
        "its inverse is .inverse(), a product .compose(other)"
        if name == "LowRankRotation"
        else "a multiple is .scaled(factor), a sum add_factors(factors, more, rank)"
    )
    raise TypeError(f"{name} is a tuple of two arrays and takes part in no arithmetic: {cure}.")


for _kind in (BodyFactors, LowRankFactors, LowRankRotation):
    for _operator in ("__mul__", "__rmul__", "__add__", "__radd__"):
        setattr(_kind, _operator, _refused)
    # numpy's numbers and arrays leave the operator to the class.
    setattr(_kind, "__array_ufunc__", None)  # noqa: B010


class StepCotangents(NamedTuple):
    """Cotangents of the arguments of :func:`unitary_transport` or :func:`polar_projection`.

    Attributes
    ----------
    unitary : array, shape (…, n, n)
    left, right : array, shape (…, n, k)
    """

    unitary: Array
    left: Array
    right: Array


class RotateCotangents(NamedTuple):
    """Cotangents of the arguments of :func:`rotate`.

    Attributes
    ----------
    array : array, shape (…, m, n)
    rotation : BodyFactors, both (…, n, m)
        That of the n×n rotation, left @ rightᴴ, for :func:`transport_rotation_vjp` or
        :func:`polar_rotation_vjp`.
    """

    array: Array
    rotation: BodyFactors


def checked_step(xp: Namespace, unitary: Array, left: Array, right: Array) -> tuple[int, int]:
    """The sizes m and n of U, which a step left rightᴴ fits, or an error."""
    m, n = validate.matrix("unitary", unitary)
    if m == n:
        validate.factor_pair("left", left, "right", right, n)
    else:
        shapes = left.shape, right.shape
        fit = all(len(shape) > 1 for shape in shapes) and shapes[0][-1] == shapes[1][-1]
        if not fit or left.shape[-2] != m or right.shape[-2] != n:
            raise ValueError(
                f"left and right must have shapes (…, {m}, k) and (…, {n}, k) for unitary of shape (…, {m}, "
                f"{n}), got {tuple(left.shape)} and {tuple(right.shape)}."
            )
    validate.batches(unitary=unitary, left=left, right=right)
    validate.same_dtype(xp, "unitary", unitary, left=left, right=right)
    return m, n


def transposed_step(xp: Namespace, unitary: Array, left: Array, right: Array) -> tuple[Array, Array, Array]:
    """The same step of the transposed matrix: (U + left rightᴴ)ᵀ."""
    return unitary.mT, conj(xp, right), conj(xp, left)


def transposed_gradient(xp: Namespace, gradient: Any) -> Any:
    """The gradient with respect to the transposed matrix; body factors are in the frame of both."""
    if isinstance(gradient, BodyFactors):
        return gradient
    if isinstance(gradient, LowRankFactors):
        return LowRankFactors(conj(xp, gradient.right), conj(xp, gradient.left))
    return gradient.mT


def factor_dtype(xp: Namespace, body_factors: BodyFactors) -> Any:
    """The dtype of thin results: that of the wider of the two factors, single for half precision."""
    return thin_dtype(xp, widest_dtype(xp, body_factors.left.dtype, body_factors.right.dtype))


def checked_body_factors(body_factors: BodyFactors) -> tuple[Namespace, int, int]:
    """The namespace and the sizes n and k of body factors, or an error."""
    left, right = body_pair(body_factors)
    xp = validate.namespace_of(left=left, right=right)
    k = validate.factor_pair("left", left, "right", right)
    validate.batches(left=left, right=right)
    return xp, int(left.shape[-2]), k


def body_pair(body_factors: BodyFactors, name: str = "body_factors") -> BodyFactors:
    """The argument itself, or an error: ambient factors have the same shapes and mean something else."""
    if not isinstance(body_factors, BodyFactors):
        raise TypeError(
            f"{name} must be BodyFactors(left, right), got {type(body_factors).__name__}: factors of "
            f"an ambient step U + left rightᴴ are pulled back by LowRankFactors(left, right).to_body(U)."
        )
    return body_factors


def checked_sketch(sketch: SVDSketch) -> Namespace:
    """The namespace of the three arrays of a singular value decomposition that fit together, or an error."""
    U, S, Vh = sketch
    xp = validate.namespace_of(U=U, S=S, Vh=Vh)
    validate.matrix("U", U)
    validate.matrix("Vh", Vh)
    k = U.shape[-1]
    if S.ndim < 1 or S.shape[-1] != k or Vh.shape[-2] != k:
        raise ValueError(
            f"U, S and Vh must have shapes (…, m, k), (…, k) and (…, k, n), got {tuple(U.shape)}, "
            f"{tuple(S.shape)} and {tuple(Vh.shape)}."
        )
    if is_complex(xp, S.dtype):
        raise TypeError(f"S must be real, got an array of {S.dtype}: singular values are.")
    validate.batches(U=U, S=S[..., None, :], Vh=Vh)
    return xp


def checked_rotation(rotation: LowRankRotation, name: str = "rotation") -> LowRankRotation:
    """The argument itself, or an error: body factors have the same shapes and another meaning."""
    if not isinstance(rotation, LowRankRotation):
        raise TypeError(
            f"{name} must be a LowRankRotation, got {type(rotation).__name__}: "
            f"make one with transport_rotation or polar_rotation."
        )
    return rotation


def checked_pair(factors: Any) -> tuple[Namespace, Array, Array]:
    """The namespace, and the two factors of a product left @ rightᴴ, or an error."""
    left, right = factors
    xp = validate.namespace_of(left=left, right=right)
    validate.outer_factors(left, right)
    validate.batches(left=left, right=right)
    dtype = widest_dtype(xp, left.dtype, right.dtype)
    return xp, astype(xp, left, dtype), astype(xp, right, dtype)


def composed(xp: Namespace, first: LowRankRotation, second: LowRankRotation) -> LowRankRotation:
    """(I + L₁R₁ᴴ)(I + L₂R₂ᴴ) = I + [L₁, L₂ + L₁(R₁ᴴL₂)] [R₁, R₂]ᴴ."""
    carried = second.left + thin_product(xp, first.left, adjoint_product(xp, first.right, second.left))
    return LowRankRotation(hstack(xp, first.left, carried), hstack(xp, first.right, second.right))
