"""Apply a low-rank rotation, and multiply two of them."""

from __future__ import annotations

from . import _validate
from ._array import Array, Namespace, astype, on_device_of_arrays, thin_dtype
from ._primitives import adjoint_product, beside, rotate_rows, thin_product
from .factors import LowRankRotation


@on_device_of_arrays
def rotate(
    array: Array, rotation: LowRankRotation, /, *, adjoint: bool = False, overwrite_array: bool = False
) -> Array:
    """Multiply from the right by a low-rank rotation: array @ (I + left rightᴴ).

    Parameters
    ----------
    array : array, shape (…, m, n)
        A unitary matrix to be moved (m = n), or any m row vectors.
    rotation : LowRankRotation
        left and right of shape (…, n, w).
    adjoint : bool
        Multiply by the inverse I + right leftᴴ instead.
    overwrite_array : bool
        Write the result into `array` where its kind allows it (not JAX); the result is returned either way.

    Returns
    -------
    array, shape (…, m, n)
        With the dtype of `array`.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit together, or a read-only array that was to be overwritten.

    Notes
    -----
    4wmn operations (real), no n×n product. ``rotate(rotate(U, r1), r2)`` is U r1 r2. The factor is unitary
    to rounding whatever U is: a defect that U already has neither grows nor shrinks.

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
    left, right = checked(rotation)
    xp = _validate.namespace_of(array=array, left=left, right=right)
    _, n = _validate.matrix("array", array)
    _validate.factor_pair("rotation.left", left, "rotation.right", right, n)
    batch = _validate.batches(array=array, left=left, right=right)
    _validate.same_dtype(xp, "array", array, left=left, right=right)
    if overwrite_array:
        _validate.overwritable("array", "overwrite_array", array, batch)
    if adjoint:
        left, right = right, left
    dtype = thin_dtype(xp, array.dtype)
    left = astype(xp, left, dtype)
    right = astype(xp, right, dtype)
    return rotate_rows(xp, array, left, right, overwrite=overwrite_array)


def checked(rotation: LowRankRotation) -> LowRankRotation:
    """The argument itself, or an error: body factors have the same shapes and mean something else."""
    if not isinstance(rotation, LowRankRotation):
        raise TypeError(
            f"rotation must be a LowRankRotation, got {type(rotation).__name__}: "
            f"make one with transport_rotation or polar_rotation."
        )
    return rotation


def compose(xp: Namespace, first: LowRankRotation, second: LowRankRotation) -> LowRankRotation:
    """(I + L₁R₁ᴴ)(I + L₂R₂ᴴ) = I + [L₁, L₂ + L₁(R₁ᴴL₂)] [R₁, R₂]ᴴ."""
    carried = second.left + thin_product(xp, first.left, adjoint_product(xp, first.right, second.left))
    return LowRankRotation(beside(xp, first.left, carried), beside(xp, first.right, second.right))
