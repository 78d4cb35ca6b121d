"""The few operations on n-sized arrays that carry all of the cost, dispatched by namespace.

Each is a plain ladder with the generic array-API line last.
"""

from __future__ import annotations

import numpy as np

from . import _kernels
from ._array import Array, Namespace, is_complex, is_numpy, is_torch, is_writeable, placement

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


def adjoint_product(xp: Namespace, matrix: Array, thin: Array) -> Array:
    """matrixᴴ @ thin, conjugating the thin operands and never the n×n one."""
    if is_numpy(xp) and thin.ndim == 2 and _kernels.apply_to(matrix, thin.shape[1]):
        return _kernels.adjoint_product_rows(matrix, thin)
    if not is_complex(xp, matrix.dtype):
        return matrix.mT @ thin
    if is_torch(xp):
        return matrix.mH @ thin
    return xp.conj(matrix.mT @ xp.conj(thin))


def rotate_rows(xp: Namespace, array: Array, left: Array, right: Array, *, overwrite: bool = False) -> Array:
    """Array + (array @ left) @ rightᴴ: every row moves by itself."""
    right_adjoint = adjoint(xp, right)
    if is_numpy(xp):
        return _rotate_rows_numpy(array, left, right_adjoint, overwrite)
    rotated = array + (array @ left) @ right_adjoint
    if overwrite and is_writeable(array) and rotated.shape == array.shape:
        array[...] = rotated
        return array
    return rotated


def _rotate_rows_numpy(array: Array, left: Array, right_adjoint: Array, overwrite: bool) -> Array:
    batch = np.broadcast_shapes(array.shape[:-2], left.shape[:-2])
    if overwrite:
        out = array
        if np.may_share_memory(array, left) or np.may_share_memory(array, right_adjoint):
            left, right_adjoint = left.copy(), right_adjoint.copy()
    else:
        out = np.empty(batch + array.shape[-2:], dtype=array.dtype)
    if out.ndim == left.ndim == 2 and _kernels.apply_to(array, left.shape[1]):
        _kernels.rotate_rows_in_cache(array, left, right_adjoint, out)
        return out
    rows, columns = array.shape[-2:]
    row_bytes = array.dtype.itemsize * columns * max(1, int(np.prod(batch)))
    panel = max(16, _PANEL_BYTES // max(1, row_bytes))
    for start in range(0, rows, panel):
        block = array[..., start : start + panel, :]
        np.add(block, (block @ left) @ right_adjoint, out=out[..., start : start + panel, :])
    return out
