"""The few operations on n-sized arrays that carry all of the cost, dispatched by namespace.

Each is a plain ladder with the generic array-API line last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from . import _kernels
from ._array import (
    Array,
    Namespace,
    astype,
    is_complex,
    is_numpy,
    is_torch,
    is_writeable,
    placement,
    real_dtype,
    stop_gradient,
)

# Bytes of one panel of rows: it stays in the second-level cache between its product and its update.
_PANEL_BYTES = 1 << 18


def adjoint(xp: Namespace, matrix: Array) -> Array:
    """Conjugate transpose of the last two axes of a thin or small matrix; a view for real arrays."""
    if not is_complex(xp, matrix.dtype):
        return matrix.mT
    if is_torch(xp):
        # torch.conj of array-api-compat has no vmap rule. A lazy conjugate would refuse numpy and DLPack.
        return matrix.mH.resolve_conj()
    return xp.conj(matrix.mT)


def eye_like(xp: Namespace, matrix: Array) -> Array:
    """The identity with the size, dtype and device of the (stacked) square matrix."""
    return xp.eye(matrix.shape[-1], dtype=matrix.dtype, device=placement(matrix))


def broadcast(xp: Namespace, *blocks: Array) -> list[Array]:
    """The blocks with one batch shape."""
    shapes = [tuple(block.shape[:-2]) for block in blocks]
    if len(set(shapes)) == 1:
        return list(blocks)
    batch = np.broadcast_shapes(*shapes)
    return [xp.broadcast_to(block, (*batch, *block.shape[-2:])) for block in blocks]


def beside(xp: Namespace, *blocks: Array) -> Array:
    """Blocks of columns side by side; batches broadcast."""
    return xp.concat(broadcast(xp, *blocks), axis=-1)


def unit_scaled(xp: Namespace, x: Array) -> tuple[Array, Array]:
    """Matrices divided by their largest entry, and that, (…, 1, 1); of a zero matrix 1.

    Squares of numbers beyond 1e19, or below 1e-23, have no place in single precision.
    """
    largest = xp.max(xp.abs(stop_gradient(x)), axis=(-2, -1), keepdims=True)
    unit = xp.where(largest > 0, largest, 1.0)
    return x / unit, unit


def frobenius_norm(xp: Namespace, x: Array) -> Array:
    """The norm of matrices of any scale."""
    x, unit = unit_scaled(xp, x)
    return xp.linalg.matrix_norm(x) * unit[..., 0, 0]


def scaled_columns(xp: Namespace, thin: Array) -> tuple[Array, Array]:
    """Columns brought to a largest entry near 1 by powers of two, and the powers to multiply with again.

    A product with a unitary matrix then neither overflows nor loses digits below the normal range.
    """
    largest = xp.max(xp.abs(stop_gradient(thin)), axis=-2, keepdims=True)
    usable = (largest > 0) & xp.isfinite(largest)
    # A little nearer to 1 than the entry itself: neither the power nor its inverse leaves the range, but for
    # the inverse of a subnormal number.
    exponent = xp.round(0.99 * xp.log2(xp.where(usable, largest, 1.0)))
    least = math.log2(float(xp.finfo(thin.dtype).smallest_normal))
    exponent = xp.where(exponent < least, least, exponent)
    dtype = real_dtype(xp, thin.dtype)
    # A product and not a quotient: complex division squares its divisor.
    inverse, power = (astype(xp, 2.0**x, dtype) for x in (-exponent, exponent))
    return thin * inverse, power


def product(xp: Namespace, matrix: Array, thin: Array) -> Array:
    """Matrix @ thin, in the dtype of the thin operand where that is the wider one."""
    if matrix.dtype == thin.dtype:
        return matrix @ thin
    if is_numpy(xp):
        panels = [panel.astype(thin.dtype) @ thin for _, panel in _panels(matrix, thin)]
        return np.concatenate(panels, axis=-2)
    return xp.astype(matrix, thin.dtype) @ thin


def adjoint_product(xp: Namespace, matrix: Array, thin: Array) -> Array:
    """matrixᴴ @ thin, in the dtype of the thin operand, conjugating thin operands and never the n×n one."""
    if matrix.dtype != thin.dtype:
        if is_numpy(xp):
            return sum(
                adjoint_product(xp, panel.astype(thin.dtype), thin[..., rows, :])
                for rows, panel in _panels(matrix, thin)
            )
        matrix = xp.astype(matrix, thin.dtype)
    if is_numpy(xp) and _kernels.apply_to(matrix, thin.shape[-1]) and matrix.shape[:-2] == thin.shape[:-2]:
        return _kernels.adjoint_product_rows(matrix, thin)
    if not is_complex(xp, matrix.dtype):
        return matrix.mT @ thin
    if is_torch(xp):
        return matrix.mH @ thin
    return xp.conj(matrix.mT @ xp.conj(thin))


def pull_back(xp: Namespace, matrix: Array, thin: Array, probes: Array | None) -> tuple[Array, Array | None]:
    """matrixᴴ @ thin, and beside it matrixᴴ (matrix @ probes); by the fast kernels from one read."""
    if probes is None:
        return adjoint_product(xp, matrix, thin), None
    k = thin.shape[-1]
    columns = k + probes.shape[-1]
    plain = is_numpy(xp) and matrix.dtype == thin.dtype == probes.dtype
    one_batch = matrix.shape[:-2] == thin.shape[:-2] == probes.shape[:-2]
    if plain and one_batch and _kernels.apply_to(matrix, columns):
        both = _kernels.adjoint_product_rows(matrix, thin, probes)
        return both[..., :k], both[..., k:]
    seen = product(xp, matrix, probes)
    both = adjoint_product(xp, matrix, beside(xp, thin, seen))
    return both[..., :k], both[..., k:]


def rotate_rows(xp: Namespace, array: Array, left: Array, right: Array, *, overwrite: bool = False) -> Array:
    """Array + (array @ left) @ rightᴴ: every row moves by itself, in the dtype of the thin factors.

    The sum is rounded once into the dtype of the array.
    """
    if is_numpy(xp):
        return _rotate_rows_numpy(array, left, right, overwrite)
    right_adjoint = adjoint(xp, right)
    wide = astype(xp, array, left.dtype)
    rotated = astype(xp, wide + (wide @ left) @ right_adjoint, array.dtype)
    if overwrite and is_writeable(array) and rotated.shape == array.shape:
        array[...] = rotated
        return array
    return rotated


def step_of_rank_one(
    xp: Namespace,
    unitary: Array,
    left: Array,
    right: Array,
    probe: Array | None,
    kind: str,
    *,
    overwrite: bool = False,
) -> Array | None:
    """A whole step of rank one by the fast kernels; None where they do not take it, or not all of it."""
    if not is_numpy(xp) or not unitary.dtype == left.dtype == right.dtype:
        return None
    if not unitary.shape[:-2] == left.shape[:-2] == right.shape[:-2] or not _kernels.apply_to(unitary, 1):
        return None
    out = unitary if overwrite else np.empty_like(unitary)
    done = _kernels.rank_one_step(unitary, left, right, probe, kind, out)
    return out if done.all() else None


def _rotate_rows_numpy(array: Array, left: Array, right: Array, overwrite: bool) -> Array:
    batch = np.broadcast_shapes(array.shape[:-2], left.shape[:-2])
    if overwrite:
        out = array
        if np.may_share_memory(array, left) or np.may_share_memory(array, right):
            left, right = left.copy(), right.copy()
    else:
        out = np.empty(batch + array.shape[-2:], dtype=array.dtype)
    narrow = array.dtype != left.dtype
    one_batch = array.shape[:-2] == left.shape[:-2] == right.shape[:-2]
    if not narrow and one_batch and _kernels.apply_to(array, left.shape[-1]):
        _kernels.rotate_rows_in_cache(array, left, right, out)
        return out
    right_adjoint = adjoint(np, right)
    for rows, panel in _panels(array, left):
        if narrow:
            panel = panel.astype(left.dtype)
        np.add(panel, (panel @ left) @ right_adjoint, out=out[..., rows, :], casting="same_kind")
    return out


def _panels(matrix: Array, thin: Array) -> Iterator[tuple[slice, Array]]:
    """Panels of rows of a numpy matrix that stay in cache in the dtype of the thin operand."""
    rows, columns = matrix.shape[-2:]
    count = int(np.prod(np.broadcast_shapes(matrix.shape[:-2], thin.shape[:-2])))
    height = max(16, _PANEL_BYTES // max(1, thin.dtype.itemsize * columns * max(1, count)))
    for start in range(0, rows, height):
        chosen = slice(start, start + height)
        yield chosen, matrix[..., chosen, :]
