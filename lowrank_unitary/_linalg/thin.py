"""Thin and small matrices, on any namespace."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._array import (
    Array,
    Namespace,
    astype,
    is_complex,
    is_jax,
    is_torch,
    placement,
    real_dtype,
    stop_gradient,
    values_are_at_hand,
)
from .layout import replicated


def adjoint(xp: Namespace, matrix: Array) -> Array:
    """Conjugate transpose of the last two axes of a thin or small matrix; a view for real arrays."""
    if not is_complex(xp, matrix.dtype):
        return matrix.mT
    if is_torch(xp):
        # torch.conj of array-api-compat has no vmap rule. A lazy conjugate would refuse numpy and DLPack.
        return matrix.mH.resolve_conj()
    return xp.conj(matrix.mT)


def promoted(xp: Namespace, factor: Array, x: Array) -> Array:
    """A real factor of x, or divisor, in the dtype of x for JAX, which may be told to promote nothing."""
    return astype(xp, factor, x.dtype) if is_jax(xp) else factor


def eye_like(xp: Namespace, matrix: Array) -> Array:
    """The identity with the size, dtype and device of the (stacked) square matrix."""
    return xp.eye(matrix.shape[-1], dtype=matrix.dtype, device=placement(matrix))


def broadcast(xp: Namespace, *given: Array, rows: Any = None) -> list[Array]:
    """Blocks with one shape of the batch, and one layout (layout.py)."""
    shapes = [tuple(block.shape[:-2]) for block in given]
    # Not by a set: symbolic sizes of torch have no hash.
    if all(shape == shapes[0] for shape in shapes):
        return replicated(xp, *given, rows=rows)
    batch = np.broadcast_shapes(*shapes)
    blocks = (xp.broadcast_to(block, (*batch, *block.shape[-2:])) for block in given)
    return replicated(xp, *blocks, rows=rows)


def hstack(xp: Namespace, *blocks: Array, rows: Any = None) -> Array:
    """Blocks of columns side by side; batches broadcast."""
    return xp.concat(broadcast(xp, *blocks, rows=rows), axis=-1)


def unit_scaled(xp: Namespace, x: Array) -> tuple[Array, Array]:
    """Matrices divided by their largest entry, and that, (…, 1, 1), or 1 for a zero matrix."""
    # In single precision squares of numbers beyond 1e19 overflow, below 1e-23 underflow.
    largest = xp.max(xp.abs(stop_gradient(x)), axis=(-2, -1), keepdims=True)
    unit = xp.where(largest > 0, largest, 1.0)
    return x / promoted(xp, unit, x), unit


def frobenius_norm(xp: Namespace, x: Array) -> Array:
    """The Frobenius norm without overflow or underflow."""
    x, unit = unit_scaled(xp, x)
    return xp.linalg.matrix_norm(x) * unit[..., 0, 0]


def scaled_columns(xp: Namespace, thin: Array) -> tuple[Array, Array]:
    """Columns scaled to a largest entry near 1 by powers of two, and the powers to undo it.

    A product with a unitary matrix then neither overflows nor underflows.
    """
    largest = xp.max(xp.abs(stop_gradient(thin)), axis=-2, keepdims=True)
    if values_are_at_hand(largest) and xp.all((largest > 2.0**-24) & (largest < 2.0**24)):
        return thin, xp.ones_like(largest)
    usable = (largest > 0) & xp.isfinite(largest)
    # Nearer to 1 than the entry itself: neither the power nor its inverse leaves the range, but for the
    # inverse of a subnormal number.
    exponent = xp.round(0.99 * xp.log2(xp.where(usable, largest, 1.0)))
    least = math.log2(float(xp.finfo(thin.dtype).smallest_normal))
    exponent = xp.where(exponent < least, least, exponent)
    dtype = real_dtype(xp, thin.dtype)
    # A product and not a quotient: complex division squares its divisor.
    inverse, power = (astype(xp, 2.0**x, dtype) for x in (-exponent, exponent))
    return thin * promoted(xp, inverse, thin), power


def conj(xp: Namespace, x: Array) -> Array:
    """The conjugate; a real array itself."""
    return xp.conj(x) if is_complex(xp, x.dtype) else x
