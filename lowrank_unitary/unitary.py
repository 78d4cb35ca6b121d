"""Unitary matrices themselves: where they come from, how far from unitary they are, how to repair them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _validate
from ._array import (
    RNG,
    Array,
    Namespace,
    core_dtype,
    eps,
    generator,
    normal_block,
    qr,
    svd,
    tolerance,
    values_are_at_hand,
)
from ._primitives import adjoint, adjoint_product, eye_like, rotate_rows
from .factors import LowRankRotation


def random_unitary(
    n: int,
    /,
    *,
    dtype: Any = None,
    batch: tuple[int, ...] = (),
    rng: RNG = None,
    xp: Namespace = np,
    device: Any = None,
) -> Array:
    """Unitary matrices from the Haar measure (real dtype: orthogonal, either determinant).

    Parameters
    ----------
    n : int
        Size.
    dtype : dtype of the namespace, optional
        float32, float64, complex64 or complex128; float64 by default.
    batch : tuple of int
        Leading axes.
    rng : int, numpy.random.Generator or None
        Source of randomness; the same seed gives the same matrix on every namespace, to rounding.
    xp : namespace
        numpy, torch, jax.numpy, cupy, …
    device : device of the namespace, optional
        Where the result is to live.

    Returns
    -------
    array, shape (*batch, n, n)

    Raises
    ------
    TypeError, ValueError
        For a size, batch or dtype outside the stated ranges.

    Notes
    -----
    QR of a Gaussian matrix, its columns turned by the phases of the diagonal of R. O(n³).

    References
    ----------
    F. Mezzadri, "How to generate random matrices from the classical compact groups", Notices AMS 54 (2007).

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> U = lu.random_unitary(4, dtype=np.complex64, batch=(3,), rng=0)
    >>> U.shape, U.dtype.name
    ((3, 4, 4), 'complex64')
    """
    like = _prototype(n, dtype, xp, device)
    xp = _validate.namespace_of(dtype=like)
    shape = (*(_validate.count("batch", size) for size in batch), n, n)
    Q, R = xp.linalg.qr(normal_block(xp, shape, like, rng))
    diagonal = xp.linalg.diagonal(R)
    size = xp.abs(diagonal)
    phase = xp.where(size > 0, diagonal, xp.ones_like(diagonal)) / xp.astype(
        xp.where(size > 0, size, xp.ones_like(size)), like.dtype, copy=False
    )
    return Q * phase[..., None, :]


def henaff_unitary(
    n: int,
    /,
    *,
    dtype: Any = None,
    batch: tuple[int, ...] = (),
    rng: RNG = None,
    xp: Namespace = np,
    device: Any = None,
) -> Array:
    """Block-diagonal plane rotations by angles uniform in [−π, π].

    A start for recurrent networks that must remember (the copying problem).

    Parameters
    ----------
    n : int
        Size; where it is odd the last row and column are those of the identity.
    dtype : dtype of the namespace, optional
        float32, float64, complex64 or complex128; float64 by default.
    batch : tuple of int
        Leading axes.
    rng : int, numpy.random.Generator or None
        Source of randomness.
    xp : namespace
        numpy, torch, jax.numpy, cupy, …
    device : device of the namespace, optional
        Where the result is to live.

    Returns
    -------
    array, shape (*batch, n, n)
        exp of a block-diagonal skew-symmetric matrix, determinant 1.

    Raises
    ------
    TypeError, ValueError
        For a size, batch or dtype outside the stated ranges.

    References
    ----------
    M. Henaff, A. Szlam, Y. LeCun, "Recurrent orthogonal networks and long-memory tasks", ICML 2016.

    Examples
    --------
    >>> import lowrank_unitary as lu
    >>> bool(lu.is_unitary(lu.henaff_unitary(5, rng=0)))
    True
    """
    return _plane_rotations(n, -math.pi, math.pi, dtype, batch, rng, xp, device)


def cayley_unitary(
    n: int,
    /,
    *,
    dtype: Any = None,
    batch: tuple[int, ...] = (),
    rng: RNG = None,
    xp: Namespace = np,
    device: Any = None,
) -> Array:
    """Cayley transforms of block-diagonal skew matrices: rotations by angles uniform in [0, π/2].

    Parameters
    ----------
    n : int
        Size; where it is odd the last row and column are those of the identity.
    dtype : dtype of the namespace, optional
        float32, float64, complex64 or complex128; float64 by default.
    batch : tuple of int
        Leading axes.
    rng : int, numpy.random.Generator or None
        Source of randomness.
    xp : namespace
        numpy, torch, jax.numpy, cupy, …
    device : device of the namespace, optional
        Where the result is to live.

    Returns
    -------
    array, shape (*batch, n, n)
        (I + A)⁻¹(I − A) with 2×2 blocks [[0, s], [−s, 0]] in A, s = tan(t/2), t uniform in [0, π/2].

    Raises
    ------
    TypeError, ValueError
        For a size, batch or dtype outside the stated ranges.

    Notes
    -----
    Such a block of the transform is the rotation by t in closed form; no system is solved.

    References
    ----------
    K. Helfrich, D. Willmott, Q. Ye, "Orthogonal recurrent neural networks with scaled Cayley transform",
    ICML 2018.

    Examples
    --------
    >>> import lowrank_unitary as lu
    >>> bool(lu.is_unitary(lu.cayley_unitary(5, rng=0)))
    True
    """
    return _plane_rotations(n, 0.0, 0.5 * math.pi, dtype, batch, rng, xp, device)


def _plane_rotations(
    n: int,
    low: float,
    high: float,
    dtype: Any,
    batch: tuple[int, ...],
    rng: RNG,
    xp: Namespace,
    device: Any,
) -> Array:
    like = _prototype(n, dtype, xp, device)
    xp = _validate.namespace_of(dtype=like)
    sizes = tuple(_validate.count("batch", size) for size in batch)
    angles = generator(rng, like).uniform(low, high, size=(*sizes, n // 2))
    host = np.zeros((*sizes, n, n))
    even = 2 * np.arange(n // 2)
    host[..., even, even] = host[..., even + 1, even + 1] = np.cos(angles)
    host[..., even + 1, even] = np.sin(angles)
    host[..., even, even + 1] = -host[..., even + 1, even]
    if n % 2:
        host[..., -1, -1] = 1.0
    return xp.asarray(host, dtype=like.dtype, device=device)


def _prototype(n: int, dtype: Any, xp: Namespace, device: Any) -> Array:
    if _validate.count("n", n) == 0:
        raise ValueError("n must be 1 or more, got 0.")
    if dtype is None:
        dtype = np.float64 if xp is np else xp.float64
    return xp.empty((0,), dtype=dtype, device=device)


def unitarity_defect(unitary: Array, /, *, probes: int | None = None, rng: RNG = None) -> Array:
    """Frobenius norm of UᴴU − I.

    Parameters
    ----------
    unitary : array, shape (…, n, n)
        The matrix in question.
    probes : int, optional
        None: exact, at O(n³). p: estimated from p random vectors, at O(pn²).
    rng : int, numpy.random.Generator or None
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
    after division by √n. Rounding a unitary matrix to a dtype costs about 0.4·eps·√n (real) already.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> round(float(lu.unitarity_defect(2.0 * np.eye(4))), 12)
    6.0
    """
    xp = _validate.namespace_of(unitary=unitary)
    n = _validate.square("unitary", unitary)
    working = xp.astype(unitary, core_dtype(xp, unitary.dtype), copy=False)
    if probes is None:
        return xp.linalg.matrix_norm(_defect(xp, working))
    p = _validate.count("probes", probes)
    if p == 0:
        raise ValueError("probes must be 1 or more, or None for the exact defect, got 0.")
    test = normal_block(xp, (*working.shape[:-2], n, p), working, rng)
    return xp.linalg.matrix_norm(adjoint_product(xp, working, working @ test) - test) / math.sqrt(p)


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
    is unitary to about n·eps (30·√n·eps at n = 1000) and not to rounding. A matrix that holds NaN gives NaN. Where it is singular the nearest
    unitary matrix is not unique and one of them is returned.

    References
    ----------
    N. J. Higham, "Functions of Matrices", SIAM 2008, chapter 8.

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
    working = xp.astype(unitary, core_dtype(xp, dtype), copy=False)
    defect = _defect(xp, working)
    limit = math.sqrt(eps(xp, dtype))
    if not (values_are_at_hand(working) and bool(xp.all(xp.linalg.matrix_norm(defect) <= limit))):
        u, _, vh = svd(xp, working)
        working = u @ vh
        defect = _defect(xp, working)
    return xp.astype(working - 0.5 * (working @ defect), dtype, copy=False)


def heal_unitary(unitary: Array, probes: int, /, *, rng: RNG = None) -> Array:
    """Shrink the unitarity defect at O(pn²): remove it along p random directions.

    Parameters
    ----------
    unitary : array, shape (…, n, n)
        U, nearly unitary.
    probes : int
        p, from 1 to n: the defect's Frobenius norm contracts by about 1 − p/n.
    rng : int, numpy.random.Generator or None
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
    first order it removes the block of the defect on range(Z) and both cross blocks. It converges for
    defects below about one half; use :func:`reunitarize` for larger ones. The floor is rounding,
    about eps·√n.

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
    n = _validate.square("unitary", unitary)
    p = _validate.rank(probes, n, "probes")
    test = normal_block(xp, (*unitary.shape[:-2], n, p), unitary, rng)
    healing = healing_rotation(xp, unitary, test)
    return rotate_rows(xp, unitary, healing.left, healing.right)


def healing_rotation(xp: Namespace, unitary: Array, test: Array) -> LowRankRotation:
    """The thin right factor of heal_unitary; unitary only as far as U is."""
    Z, _ = qr(xp, test)
    D = adjoint_product(xp, unitary, unitary @ Z) - Z
    S = adjoint_product(xp, Z, D)
    return LowRankRotation(xp.concat([Z, D], axis=-1), -0.5 * xp.concat([D - Z @ S, Z], axis=-1))


def _defect(xp: Namespace, unitary: Array) -> Array:
    return adjoint(xp, unitary) @ unitary - eye_like(xp, unitary)
