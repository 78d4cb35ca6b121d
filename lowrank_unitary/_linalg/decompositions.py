"""Decompositions that return NaN for NaN, matrix by matrix, where LAPACK raises or hangs."""

from __future__ import annotations

import math

import numpy as np

from .._array import (
    Array,
    Namespace,
    astype,
    core_dtype,
    cuda_view,
    is_cupy,
    is_jax,
    is_torch,
    placement,
    real_dtype,
    values_are_at_hand,
)
from .._kernels import cuda
from . import layout
from .layout import beside, replicated
from .thin import promoted


def _finite_part(xp: Namespace, x: Array) -> tuple[Array, Array]:
    (x,) = replicated(xp, x)
    finite = xp.all(xp.isfinite(x), axis=(-2, -1), keepdims=True)
    return xp.where(finite, x, 0.0), finite


def _or_nan(xp: Namespace, finite: Array, x: Array) -> Array:
    return xp.where(finite, x, math.nan)


def _eye(xp: Namespace, like: Array) -> Array:
    return xp.eye(like.shape[-1], dtype=like.dtype, device=placement(like))


def _by_kernels(xp: Namespace, x: Array) -> Array | None:
    """A thin or small matrix on a GPU for the kernels; None where they do not take it."""
    view = cuda_view(x) if is_cupy(xp) or is_torch(xp) else None
    if view is None or not cuda.decompositions_apply_to(view, view.shape[-1]):
        return None
    return view if cuda.active() else None


def svd(xp: Namespace, x: Array) -> tuple[Array, Array, Array]:
    """Thin SVD; a matrix with a NaN or an infinity gives NaN."""
    clean, finite = _finite_part(xp, x)
    u, s, vh = xp.linalg.svd(clean, full_matrices=False)
    return _or_nan(xp, finite, u), _or_nan(xp, finite[..., 0], s), _or_nan(xp, finite, vh)


def eigh(xp: Namespace, x: Array) -> tuple[Array, Array]:
    """Hermitian eigendecomposition; a matrix with a NaN or an infinity gives NaN."""
    if (view := _by_kernels(xp, x)) is not None:
        return cuda.hermitian_eigen(view)
    clean, finite = _finite_part(xp, x)
    if x.dtype == xp.complex64 and not values_are_at_hand(x):
        # On a GPU, eigenvectors of a stack may not be orthonormal in single precision; vmap hides stacks.
        clean = astype(xp, clean, core_dtype(xp, x.dtype))
    if is_cupy(xp):
        w, v = _eigh_also_of_zero(xp, clean)
    else:
        w, v = xp.linalg.eigh(clean)
    v = astype(xp, v, x.dtype)
    w = astype(xp, w, real_dtype(xp, x.dtype))
    return _or_nan(xp, finite[..., 0], w), _or_nan(xp, finite, v)


def _eigh_also_of_zero(xp: Namespace, x: Array) -> tuple[Array, Array]:
    """For cupy, whose eigh can give NaN for a zero matrix: the identity is decomposed instead."""
    zero = xp.all(x == 0, axis=(-2, -1), keepdims=True)
    w, v = xp.linalg.eigh(xp.where(zero, _eye(xp, x), x))
    return xp.where(zero[..., 0], 0.0, w), v


def qr(xp: Namespace, x: Array) -> tuple[Array, Array]:
    """Thin QR of columns scaled by the largest entry of the matrix; Q is orthonormal for any rank.

    Householder vectors square the entries: unscaled, float32 columns of 1e-30 would give zero.
    """
    if (view := _by_kernels(xp, x)) is not None:
        q = cuda.orthonormal_columns(view)
        return q, cuda.thin_product(q, view, adjoint=True)
    clean, finite = _finite_part(xp, x)
    largest = xp.max(xp.abs(clean), axis=(-2, -1), keepdims=True)
    scale = xp.where(largest > 0, largest, 1.0)
    q, r = layout.qr(xp, clean / promoted(xp, scale, clean))
    return _or_nan(xp, finite, q), _or_nan(xp, finite, r * promoted(xp, scale, r))


def inv(xp: Namespace, x: Array) -> Array:
    """Inverse; an exactly singular matrix gives NaN (JAX, cupy: also inf), and only that one of its batch."""
    if is_cupy(xp) or is_jax(xp):
        # For a stack cupy's inverse returns uninitialised memory; substitution divides by the zero pivot.
        return xp.linalg.solve(x, beside(xp, xp.broadcast_to(_eye(xp, x), x.shape), x))
    if is_torch(xp):
        inverse, info = xp.linalg.inv_ex(x)
        return xp.where((info == 0)[..., None, None], inverse, math.nan)
    try:
        return xp.linalg.inv(x)
    except np.linalg.LinAlgError:
        if x.ndim == 2:
            return xp.full_like(x, math.nan)
        parts = [inv(xp, x[i, ...]) for i in range(x.shape[0])]
        return xp.stack(parts)
