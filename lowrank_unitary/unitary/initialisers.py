"""Initialisers: Haar-distributed matrices, and initial matrices of recurrent networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._array import Array, Namespace, astype, core_dtype, is_torch, real_dtype, validate
from .._linalg import RNG, START, random_block, uniform_block


def random_unitary(
    n: int,
    columns: int | None = None,
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
        Size, or number of rows.
    columns : int, optional
        Number of columns, by default n. With fewer the columns are orthonormal, with more the rows.
    dtype : dtype of the namespace, optional
        float16, bfloat16, float32, float64, complex64 or complex128; by default that of the namespace,
        float64 for numpy, ``torch.get_default_dtype()`` for torch, float32 for JAX without
        ``jax_enable_x64``.
    batch : tuple of int
        Leading axes.
    rng
        As for :func:`svd_sketch`; a seed gives the same matrix on every namespace, to rounding.
    xp : namespace
        numpy, torch, jax.numpy, cupy, …
    device : device of the namespace, optional
        Device of the result.

    Returns
    -------
    array, shape (…, n, columns)

    Notes
    -----
    QR of a Gaussian matrix, its columns turned by the phases of the diagonal of R. O(n³).

    References
    ----------
    Francesco Mezzadri, "How to generate random matrices from the classical compact groups",
    Notices AMS 54 (2007).

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> U = lu.random_unitary(4, dtype=np.complex64, batch=(3,), rng=0)
    >>> U.shape, U.dtype.name
    ((3, 4, 4), 'complex64')
    """
    like = _prototype(n, dtype, xp, device)
    xp = validate.namespace_of(dtype=like)
    if columns is not None and validate.positive("columns", columns) > n:
        # Its transpose is what steps move by rows.
        return random_unitary(columns, n, dtype=dtype, batch=batch, rng=rng, xp=xp, device=device).mT
    shape = (*validate.sizes("batch", batch), n, n if columns is None else columns)
    Q, R = xp.linalg.qr(random_block(xp, shape, like, rng, START))
    diagonal = xp.linalg.diagonal(R)
    size = xp.abs(diagonal)
    phase = xp.where(size > 0, diagonal, 1.0) / astype(xp, xp.where(size > 0, size, 1.0), Q.dtype)
    made = astype(xp, Q * phase[..., None, :], like.dtype)
    # torch keeps the column-major order of LAPACK, and steps move rows.
    return made.contiguous() if is_torch(xp) else made


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

    An initial matrix for recurrent networks with long memory (the copying problem).

    Parameters
    ----------
    n : int
        Size; for odd n the last row and column are those of the identity.
    dtype, batch, rng, xp, device : as for :func:`random_unitary`

    Returns
    -------
    array, shape (…, n, n)
        exp of a block-diagonal skew-symmetric matrix, determinant 1.

    References
    ----------
    Mikael Henaff, A. Szlam, Y. LeCun, "Recurrent orthogonal networks and long-memory tasks", ICML 2016.

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
        Size; for odd n the last row and column are those of the identity.
    dtype, batch, rng, xp, device : as for :func:`random_unitary`

    Returns
    -------
    array, shape (…, n, n)
        (I + A)⁻¹(I − A) with 2×2 blocks [[0, s], [−s, 0]] in A, s = tan(t/2), t uniform in [0, π/2]: the
        rotations by t, in closed form.

    References
    ----------
    Kyle Helfrich, D. Willmott, Q. Ye, "Orthogonal recurrent neural networks with scaled Cayley transform",
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
    xp = validate.namespace_of(dtype=like)
    sizes = validate.sizes("batch", batch)
    pairs = n // 2
    dtype, wide = like.dtype, core_dtype(xp, real_dtype(xp, like.dtype))
    # One column of angles for every matrix, on the device of the result: the key may be traced.
    angles = uniform_block(xp, (*sizes, pairs, 1), xp.empty((0,), dtype=wide, device=device), rng, START)
    angles = low + (high - low) * angles
    cosines, sines = xp.cos(angles), xp.sin(angles)
    # Entries (j, j) and (j + 1, j) of every column j; an odd last one is that of the identity.
    odd = (*sizes, n % 2)
    on, below = (
        astype(
            xp, xp.concat([xp.reshape(xp.concat(pair, axis=-1), (*sizes, 2 * pairs)), last], axis=-1), dtype
        )
        for pair, last in (
            ([cosines, cosines], xp.ones(odd, dtype=wide, device=device)),
            ([sines, 0.0 * sines], xp.zeros(odd, dtype=wide, device=device)),
        )
    )
    diagonal, lower, upper = (xp.eye(n, k=k, dtype=dtype, device=device) for k in (0, -1, 1))
    return on[..., None, :] * diagonal + below[..., None, :] * lower - below[..., :, None] * upper


def _prototype(n: int, dtype: Any, xp: Namespace, device: Any) -> Array:
    validate.positive("n", n)
    return validate.prototype(xp, dtype, device)
