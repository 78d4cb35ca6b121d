"""The unitarity defect, and its repair."""

from __future__ import annotations

import math

from .._array import (
    Array,
    Namespace,
    astype,
    core_dtype,
    eps,
    has_divided_rows,
    has_divided_stack,
    is_spread,
    local_part,
    local_rows,
    spread_as,
    tolerance,
    validate,
    values_are_at_hand,
    whole,
)
from .._linalg import (
    PROBES,
    RNG,
    adjoint,
    alike,
    check_rng,
    eye_like,
    gram_product,
    key_of_part,
    matmul,
    random_block,
    split_of,
    svd,
)


def unitarity_defect(unitary: Array, /, *, probes: int | None = None, rng: RNG = None) -> Array:
    """Frobenius norm of UᴴU − I; of UUᴴ − I for a wide matrix.

    Parameters
    ----------
    unitary : array, shape (…, m, n)
        Square, or with orthonormal columns or rows.
    probes : int, optional
        None: exact, at O(n³). p: estimated from p random vectors, at O(pn²).
    rng : as for :func:`svd_sketch`

    Returns
    -------
    array, shape (…)
        Real, one number per matrix, in the precision of the core.

    Notes
    -----
    The estimate is the root of the mean of ‖Uᴴ(Uz) − z‖² over p standard normal z, unbiased for the square.
    Compare across sizes after division by √n. Rounding a unitary matrix to its dtype gives about 0.3·eps·√n.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> round(float(lu.unitarity_defect(2.0 * np.eye(4))), 12)
    6.0
    """
    xp, unitary = _tall(unitary)
    if has_divided_stack(unitary):
        key = None if probes is None else key_of_part(rng, unitary)
        return spread_as(unitarity_defect(local_part(unitary), probes=probes, rng=key), unitary)
    n = int(unitary.shape[-1])
    dtype = core_dtype(xp, unitary.dtype)
    if probes is None:
        check_rng(rng, unitary)
        return xp.linalg.matrix_norm(_defect(xp, astype(xp, whole(unitary), dtype)))
    p = validate.positive("probes", probes, ", or None for the exact defect")
    test = astype(xp, random_block(xp, (*unitary.shape[:-2], n, p), unitary, rng, PROBES), dtype)
    return xp.linalg.matrix_norm(gram_product(xp, unitary, test) - test) / math.sqrt(p)


def is_unitary(unitary: Array, /, *, atol: float | None = None) -> Array:
    """Whether ‖UᴴU − I‖_F ≤ atol, at O(n³).

    Parameters
    ----------
    unitary : as for :func:`unitarity_defect`
    atol : float, optional
        By default c(n, 1)·eps, about 19·√n·eps of the dtype, the bound for rounding of a fresh matrix, n the
        smaller side. After
        s steps without healing the defect is about 0.3·eps·√(n s).

    Returns
    -------
    array of bool, shape (…)
        False for a matrix that holds NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> bool(lu.is_unitary(np.eye(3))), bool(lu.is_unitary(np.ones((3, 3))))
    (True, False)
    """
    xp, unitary = _tall(unitary)
    n = int(unitary.shape[-1])
    bound = tolerance(xp, unitary.dtype, n) if atol is None else validate.size("atol", atol)
    return unitarity_defect(unitary) <= bound


def reunitarize(unitary: Array, /) -> Array:
    """Repair: the nearest unitary matrix, or the nearest with orthonormal columns or rows: the polar factor.

    Parameters
    ----------
    unitary : array, shape (…, m, n)
        Any matrix.

    Returns
    -------
    array, shape (…, m, n)

    Notes
    -----
    O(n³). Where the defect d can be read and d² ≤ eps, one Newton–Schulz step U(3I − UᴴU)/2, which leaves
    ¾d². Otherwise an SVD and then such a step: the product of the singular vectors is unitary only to about
    n·eps (30·√n·eps at n = 1000). For a singular matrix the result is one of several nearest ones.

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
    if is_spread(unitary):
        _tall(unitary)
        if not has_divided_rows(unitary):
            return spread_as(reunitarize(local_part(unitary)), unitary)
        return spread_as(local_rows(unitary, reunitarize(whole(unitary))), unitary)
    given = unitary
    xp, unitary = _tall(unitary)
    dtype = unitary.dtype
    working = astype(xp, unitary, core_dtype(xp, dtype))
    defect = _defect(xp, working)
    limit = math.sqrt(eps(xp, dtype))
    if not (values_are_at_hand(working) and bool(xp.all(xp.linalg.matrix_norm(defect) <= limit))):
        u, _, vh = svd(xp, working)
        working = alike(xp, u @ vh, working)
        defect = _defect(xp, working)
    rows, columns = split_of(xp, working)
    correction = matmul(xp, working, defect, rows=rows, inner=columns, columns=columns)
    repaired = astype(xp, working - 0.5 * correction, dtype)
    return repaired.mT if validate.is_wide(given) else repaired


def _tall(unitary: Array) -> tuple[Namespace, Array]:
    """The namespace, and the matrices, transposed where they are wide."""
    xp = validate.namespace_of(unitary=unitary)
    validate.matrix("unitary", unitary)
    return xp, unitary.mT if validate.is_wide(unitary) else unitary


def _defect(xp: Namespace, unitary: Array) -> Array:
    rows, columns = split_of(xp, unitary)
    gram = matmul(xp, adjoint(xp, unitary), unitary, rows=rows, inner=rows, columns=columns)
    return gram - eye_like(xp, gram)
