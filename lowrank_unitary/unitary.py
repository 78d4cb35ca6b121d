"""How far a matrix is from unitary, and how to repair it."""

from __future__ import annotations

import math

from . import _validate
from ._array import (
    PROBES,
    RNG,
    Array,
    Namespace,
    astype,
    core_dtype,
    eps,
    is_complex,
    on_device_of_arrays,
    qr,
    random_block,
    svd,
    tolerance,
    values_are_at_hand,
)
from ._primitives import (
    adjoint,
    adjoint_product,
    beside,
    eye_like,
    pull_back,
    rotate_rows,
    thin_product,
)
from .factors import LowRankRotation


@on_device_of_arrays
def unitarity_defect(unitary: Array, /, *, probes: int | None = None, rng: RNG = None) -> Array:
    """Frobenius norm of UᴴU − I.

    Parameters
    ----------
    unitary : array, shape (…, n, n)
        The matrix in question.
    probes : int, optional
        None: exact, at O(n³). p: estimated from p random vectors, at O(pn²).
    rng : int, numpy.random.Generator, JAX key or None
        Source of the probes.

    Returns
    -------
    array, shape (…)
        Real, one number per matrix, in the precision that the small core works in.

    Raises
    ------
    TypeError, ValueError
        For arguments outside the stated ranges.

    Notes
    -----
    Computed in double precision for single-precision data. The estimate is the root of an unbiased
    estimate of the square, the mean of ‖Uᴴ(Uz) − z‖² over p standard normal z. Compare across sizes
    after division by √n. Rounding a unitary matrix to a dtype costs about 0.3·eps·√n already.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> round(float(lu.unitarity_defect(2.0 * np.eye(4))), 12)
    6.0
    """
    xp = _validate.namespace_of(unitary=unitary)
    n = _validate.square("unitary", unitary)
    dtype = core_dtype(xp, unitary.dtype)
    if probes is None:
        return xp.linalg.matrix_norm(_defect(xp, astype(xp, unitary, dtype)))
    p = _validate.count("probes", probes)
    if p == 0:
        raise ValueError("probes must be 1 or more, or None for the exact defect, got 0.")
    test = astype(xp, random_block(xp, (*unitary.shape[:-2], n, p), unitary, rng, PROBES), dtype)
    _, seen = pull_back(xp, unitary, test[..., :0], test)
    return xp.linalg.matrix_norm(seen - test) / math.sqrt(p)


@on_device_of_arrays
def is_unitary(unitary: Array, /, *, tol: float | None = None) -> Array:
    """Whether ‖UᴴU − I‖_F ≤ tol.

    Parameters
    ----------
    unitary : array, shape (…, n, n)
        The matrix in question.
    tol : float, optional
        By default what rounding explains for a fresh matrix: c(n, 1)·eps, about 19·√n·eps of the dtype. A
        matrix that took s steps without healing has drifted by about 0.3·eps·√(n s).

    Returns
    -------
    array of bool, shape (…)
        False for a matrix that holds NaN.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not a stack of square matrices.

    Notes
    -----
    O(n³).

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> bool(lu.is_unitary(np.eye(3))), bool(lu.is_unitary(np.ones((3, 3))))
    (True, False)
    """
    xp = _validate.namespace_of(unitary=unitary)
    n = _validate.square("unitary", unitary)
    bound = tolerance(xp, unitary.dtype, n) if tol is None else tol
    return unitarity_defect(unitary) <= bound


@on_device_of_arrays
def reunitarize(unitary: Array, /) -> Array:
    """Repair: the nearest unitary matrix.

    Parameters
    ----------
    unitary : array, shape (…, n, n)
        A matrix near a unitary one, or any square matrix.

    Returns
    -------
    array, shape (…, n, n)
        The unitary polar factor, with the dtype of the argument.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not a stack of square matrices.

    Notes
    -----
    O(n³). Where the defect d can be read and d² ≤ eps, one Newton–Schulz step U(3I − UᴴU)/2 (two products;
    it leaves ¾d²); otherwise an SVD and then such a step, since the product of the singular vectors alone
    is unitary to about n·eps (30·√n·eps at n = 1000) and not to rounding. A matrix that holds NaN gives
    NaN. Where it is singular the nearest unitary matrix is not unique and one of them is returned.

    References
    ----------
    Nicholas J. Higham, "Functions of Matrices", SIAM 2008, chapter 8.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> np.allclose(lu.reunitarize(np.diag([2.0, -0.5])), np.diag([1.0, -1.0]))
    True
    """
    xp = _validate.namespace_of(unitary=unitary)
    _validate.square("unitary", unitary)
    dtype = unitary.dtype
    working = astype(xp, unitary, core_dtype(xp, dtype))
    defect = _defect(xp, working)
    limit = math.sqrt(eps(xp, dtype))
    if not (values_are_at_hand(working) and bool(xp.all(xp.linalg.matrix_norm(defect) <= limit))):
        u, _, vh = svd(xp, working)
        working = u @ vh
        defect = _defect(xp, working)
    return astype(xp, working - 0.5 * (working @ defect), dtype)


@on_device_of_arrays
def heal_unitary(unitary: Array, probes: int, /, *, rng: RNG = None) -> Array:
    """Shrink the unitarity defect at O(pn²): remove it along p random directions.

    Parameters
    ----------
    unitary : array, shape (…, n, n)
        U, nearly unitary.
    probes : int
        p, from 1 to n: the defect's Frobenius norm contracts by about 1 − p/n.
    rng : int, numpy.random.Generator, JAX key or None
        Source of the random directions; fresh ones are needed at every call.

    Returns
    -------
    array, shape (…, n, n)
        The healed matrix, with the dtype of U.

    Raises
    ------
    TypeError, ValueError
        For arguments outside the stated ranges.

    Notes
    -----
    With orthonormal probes Z, D = Uᴴ(UZ) − Z and S = ZᴴD, the result is U(I − ½[Z(D − ZS)ᴴ + DZᴴ]): to
    first order it removes the block of the defect on range(Z) and both cross blocks. (The bracket is
    divided by √(1 + ‖D‖²), so that a large defect shrinks too; :func:`reunitarize` removes one at once.) The
    floor is rounding, about eps·√n, or about 0.3·eps·n/√2 beside one step for every call. U is read twice and
    written once. The same within a step costs no further read: ``heal=`` of :func:`unitary_step`,
    :func:`unitary_transport` and :func:`polar_projection`.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> U = lu.random_unitary(16, rng=0) * (1 + 1e-6)
    >>> for step in range(400):
    ...     U = lu.heal_unitary(U, 2, rng=step)
    >>> bool(lu.unitarity_defect(U) < 1e-13)
    True
    """
    xp = _validate.namespace_of(unitary=unitary)
    _validate.square("unitary", unitary)
    Z = orthonormal_probes(xp, unitary, probes, rng, "probes")
    _, seen = pull_back(xp, unitary, Z[..., :0], Z)
    healing = healing_rotation(xp, Z, seen)
    return rotate_rows(xp, unitary, healing.left, healing.right)


def orthonormal_probes(xp: Namespace, unitary: Array, probes: int, rng: RNG, name: str) -> Array:
    """Z: random orthonormal columns to look at U along."""
    n = unitary.shape[-1]
    if not 1 <= _validate.count(name, probes) <= n:
        least = 0 if name == "heal" else 1
        raise ValueError(f"{name} must be between {least} and n = {n}, got {probes}.")
    Z = random_block(xp, (*unitary.shape[:-2], n, probes), unitary, rng, PROBES)
    # One column needs no QR, which takes a fifth of the time of a small step.
    return Z / xp.linalg.matrix_norm(Z, keepdims=True) if probes == 1 else qr(xp, Z)[0]


def healing_rotation(xp: Namespace, Z: Array, seen: Array) -> LowRankRotation:
    """The thin right factor of heal_unitary, from Z and Uᴴ(UZ); unitary only as far as U is.

    Divided by √(1 + ‖D‖²) the correction is the same to second order, and shorter than the matrix however
    large the defect is: a matrix far from unitary is brought nearer and not thrown beyond.
    """
    D = seen - Z
    S = adjoint_product(xp, Z, D)
    # Squares and not the square of a norm, which has no derivative at D = 0.
    squares = xp.real(D * xp.conj(D)) if is_complex(xp, D.dtype) else D * D
    shortened = -0.5 / xp.sqrt(1.0 + xp.sum(squares, axis=(-2, -1), keepdims=True))
    return LowRankRotation(beside(xp, Z, D), shortened * beside(xp, D - thin_product(xp, Z, S), Z))


def _defect(xp: Namespace, unitary: Array) -> Array:
    return adjoint(xp, unitary) @ unitary - eye_like(xp, unitary)
