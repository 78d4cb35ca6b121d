"""Apply a low-rank rotation."""

from __future__ import annotations

from .._array import (
    Array,
    astype,
    has_divided_stack,
    is_writeable,
    local_part,
    own_matrices,
    spread_as,
    thin_dtype,
    validate,
)
from .._linalg import rotate_in_frame, rotate_rows
from ..types import LowRankRotation, checked_rotation


def rotate(
    array: Array, rotation: LowRankRotation, /, *, adjoint: bool = False, overwrite_array: bool = False
) -> Array:
    """Multiply from the right by a low-rank rotation: array @ (I + left rightᴴ).

    Parameters
    ----------
    array : array, shape (…, m, n)
        A unitary matrix to be moved (m = n), or any m row vectors; or a rectangular U, m ≠ n.
    rotation : LowRankRotation
        left and right of shape (…, n, w); or (…, m + n, w) for rectangular U, a rotation of its frame, such
        as that of body factors which :meth:`LowRankFactors.to_body` or :func:`tangent_sketch` gave for U.
    adjoint : bool
        Multiply by the inverse I + right leftᴴ instead.
    overwrite_array : bool
        Write the result into `array`, as `overwrite_unitary` of :func:`unitary_step`.

    Returns
    -------
    array, shape (…, m, n)
        With the dtype of `array`.

    Notes
    -----
    4wmn operations (real), no n×n product. ``rotate(rotate(U, r1), r2)`` is U r1 r2. The factor is unitary
    whatever U is: a defect of U neither grows nor shrinks. A rotation of the frame [U, I − UUᴴ] of m×n U with
    orthonormal columns takes it to U + (U L₁ + L₂) R₁ᴴ, L₁ and R₁ the upper n rows and L₂ the lower m.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> rng = np.random.default_rng(0)
    >>> body = lu.BodyFactors(rng.standard_normal((5, 1)), rng.standard_normal((5, 1)))
    >>> r = lu.transport_rotation(body)
    >>> back = lu.rotate(lu.rotate(np.eye(5), r), r, adjoint=True)
    >>> np.allclose(back, np.eye(5))
    True
    """
    left, right = checked_rotation(rotation)
    validate.flag("adjoint", adjoint)
    xp = validate.namespace_of(array=array, left=left, right=right)
    if has_divided_stack(array):
        part = rotate(
            local_part(array), own_matrices(rotation, array), adjoint=adjoint, overwrite_array=overwrite_array
        )
        return spread_as(part, array, written=overwrite_array)
    m, n = validate.matrix("array", array)
    framed = m != n and left.ndim > 1 and left.shape[-2] == m + n
    validate.factor_pair("rotation.left", left, "rotation.right", right, m + n if framed else n)
    batch = validate.batches(array=array, left=left, right=right)
    validate.same_dtype(xp, "array", array, left=left, right=right)
    if validate.flag("overwrite_array", overwrite_array):
        validate.overwritable("array", "overwrite_array", array, batch)
    if adjoint:
        left, right = right, left
    dtype = thin_dtype(xp, array.dtype)
    left = astype(xp, left, dtype)
    right = astype(xp, right, dtype)
    if framed and m < n:
        moved = rotate_in_frame(xp, array.mT, left, right, overwrite=overwrite_array)
        return array if overwrite_array and is_writeable(array) else moved.mT
    if framed:
        return rotate_in_frame(xp, array, left, right, overwrite=overwrite_array)
    return rotate_rows(xp, array, left, right, overwrite=overwrite_array)
