"""The traversals of n×n arrays, which carry the cost, dispatched by namespace, the generic line last.

With rows divided among processes, every process traverses its own; products with the adjoint are summed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._array import (
    Array,
    Namespace,
    astype,
    cuda_view,
    is_cupy,
    is_jax,
    is_numpy,
    is_spread,
    is_torch,
    is_traced,
    is_writeable,
    local_part,
    local_range,
    local_rows,
    note_change,
    numpy_view,
    of_numpy,
    spread_as,
    summed,
)
from .._kernels import cpu, cuda
from .layout import matmul, replicated, split_of
from .thin import adjoint, conj, hstack

# Bytes of a panel of rows, which stays in the second-level cache between its product and its update.
_PANEL_BYTES = 1 << 18


def product(xp: Namespace, matrix: Array, thin: Array) -> Array:
    """Matrix @ thin, in the dtype of the thin operand where that is the wider one."""
    if fast := _fast(xp, thin.shape[-1], matrix, thin):
        kernels, views = fast
        return native(xp, kernels.product_rows(*views))
    if is_spread(matrix):
        part = product(xp, local_part(matrix), thin)
        rows = part.new_zeros((*part.shape[:-2], matrix.shape[-2], part.shape[-1]))
        rows[..., local_range(matrix), :] = part
        return summed(matrix, rows)
    if is_column_major(xp, matrix, thin.shape[-1]):
        return conj(xp, adjoint_product(xp, matrix.mT, conj(xp, thin)))
    if is_jax(xp):
        if is_traced(thin):
            thin = _as_written(thin.mT).mT
        rows, inner = split_of(xp, matrix)
        return _as_written(matmul(xp, astype(xp, matrix, thin.dtype), thin, rows=rows, inner=inner))
    if matrix.dtype == thin.dtype:
        return matrix @ thin
    if is_numpy(xp):
        panels = [panel.astype(thin.dtype) @ thin for _, panel in _panels(matrix, thin)]
        return np.concatenate(panels, axis=-2)
    return xp.astype(matrix, thin.dtype) @ thin


def adjoint_product(xp: Namespace, matrix: Array, thin: Array) -> Array:
    """matrixᴴ @ thin, in the dtype of the thin operand, conjugating thin operands and never the n×n one."""
    if is_spread(matrix):
        return summed(matrix, adjoint_product(xp, local_part(matrix), local_rows(matrix, thin)))
    if matrix.dtype != thin.dtype:
        if is_numpy(xp):
            return sum(
                adjoint_product(xp, panel.astype(thin.dtype), thin[..., rows, :])
                for rows, panel in _panels(matrix, thin)
            )
        matrix = xp.astype(matrix, thin.dtype)
    if fast := _fast(xp, thin.shape[-1], matrix, thin):
        kernels, views = fast
        return native(xp, kernels.adjoint_product_rows(*views))
    if is_column_major(xp, matrix, thin.shape[-1]):
        return conj(xp, product(xp, matrix.mT, conj(xp, thin)))
    if is_jax(xp):
        thin, inner = adjoint(xp, _as_written(thin)), split_of(xp, matrix)[0]
        return adjoint(xp, _as_written(matmul(xp, thin, matrix, inner=inner)))
    if is_torch(xp):
        # MKL takes 30 times as long for a transposed matrix times two columns (n = 1024).
        return adjoint(xp, adjoint(xp, thin) @ matrix)
    return conj(xp, matrix.mT @ conj(xp, thin))


def _as_written(thin: Array) -> Array:
    """A thin block of JAX that XLA may not transpose: on a CPU that can make its product ten times slower.

    A barrier on both sides of a product holds in its derivatives, too.
    """
    return sys.modules["jax"].lax.optimization_barrier(thin) if is_traced(thin) else thin


def thin_product(xp: Namespace, left: Array, right: Array) -> Array:
    """Left @ right for thin or small matrices; on a GPU in full precision, and inside recorded graphs."""
    if arrays := for_cuda(xp, left, right):
        return cuda.thin_product(arrays[0], arrays[1])
    left, right = replicated(xp, left, right)
    return left @ right


def pull_back(xp: Namespace, matrix: Array, thin: Array, probes: Array | None) -> tuple[Array, Array | None]:
    """matrixᴴ @ thin and matrixᴴ (matrix @ probes); by the kernels from one read."""
    if probes is None:
        return adjoint_product(xp, matrix, thin), None
    k = thin.shape[-1]
    columns = k + probes.shape[-1]
    if fast := _fast(xp, columns, matrix, thin, probes):
        kernels, views = fast
        both = native(xp, kernels.adjoint_product_rows(*views))
        return both[..., :k], both[..., k:]
    if is_spread(matrix):
        parts = pull_back(xp, local_part(matrix), local_rows(matrix, thin), probes)
        both = summed(matrix, hstack(xp, *parts))
        return both[..., :k], both[..., k:]
    image = product(xp, matrix, probes)
    both = adjoint_product(xp, matrix, hstack(xp, thin, image, rows=split_of(xp, matrix)[0]))
    return both[..., :k], both[..., k:]


def gram_product(xp: Namespace, matrix: Array, probes: Array) -> Array:
    """matrixᴴ (matrix @ probes); by the kernels from one read."""
    if is_spread(matrix):
        return summed(matrix, gram_product(xp, local_part(matrix), probes))
    if is_jax(xp):
        return adjoint_product(xp, matrix, product(xp, matrix, probes))
    image = pull_back(xp, matrix, astype(xp, matrix[..., :0], probes.dtype), probes)[1]
    assert image is not None
    return image


def rotate_rows(
    xp: Namespace,
    array: Array,
    left: Array,
    right: Array,
    *,
    outside: Array | None = None,
    overwrite: bool = False,
) -> Array:
    """Array + (array @ left + outside) @ rightᴴ in the dtype of the thin factors, rounded once into its own.

    `outside` has the rows of the array and the columns of `left`; None for zeros.
    """
    if is_spread(array):
        outside = None if outside is None else local_rows(array, outside)
        part = rotate_rows(xp, local_part(array), left, right, outside=outside, overwrite=overwrite)
        return spread_as(part, array, written=overwrite)
    more = () if outside is None else (outside,)
    if fast := _fast(xp, left.shape[-1], array, left, right, *more):
        kernels, (view, *thin) = fast
        out, thin = target_of(kernels, view, thin, overwrite=overwrite)
        kernels.rotate_rows_in_cache(view, thin[0], thin[1], out, *thin[2:])
        return written(xp, array, out, overwrite)
    if is_numpy(xp):
        return _rotate_panels(array, left, right, outside, overwrite)
    wide = astype(xp, array, left.dtype)
    inside = product(xp, wide, left) if is_jax(xp) else wide @ left
    if outside is not None:
        inside = inside + outside
    rotated = astype(xp, wide + outer_product(xp, inside, right, array), array.dtype)
    if overwrite and is_writeable(array) and rotated.shape == array.shape:
        array[...] = rotated
        return array
    return rotated


def outer_product(xp: Namespace, left: Array, right: Array, like: Array) -> Array:
    """Left @ rightᴴ, laid out as `like` is."""
    right_adjoint = adjoint(xp, right)
    if not is_jax(xp):
        return left @ right_adjoint
    rows, columns = split_of(xp, like)
    return matmul(xp, left, _as_written(right_adjoint), rows=rows, columns=columns)


def _rotate_panels(array: Array, left: Array, right: Array, outside: Array | None, overwrite: bool) -> Array:
    batch = np.broadcast_shapes(array.shape[:-2], left.shape[:-2], right.shape[:-2])
    if overwrite:
        out = array
        if np.may_share_memory(array, left) or np.may_share_memory(array, right):
            left, right = left.copy(), right.copy()
        if outside is not None and np.may_share_memory(array, outside):
            outside = outside.copy()
    else:
        out = np.empty(batch + array.shape[-2:], dtype=array.dtype)
    narrow = array.dtype != left.dtype
    right_adjoint = adjoint(np, right)
    for rows, panel in _panels(array, left):
        if narrow:
            panel = panel.astype(left.dtype)
        inside = panel @ left
        if outside is not None:
            inside = inside + outside[..., rows, :]
        np.add(panel, inside @ right_adjoint, out=out[..., rows, :], casting="same_kind")
    return out


def is_column_major(xp: Namespace, matrix: Array, columns: int) -> bool:
    """Whether the kernels take the transposed matrix and not this one."""
    view = numpy_view(matrix) if is_numpy(xp) or is_torch(xp) else None
    return view is not None and not view.flags.c_contiguous and cpu.apply_to(view.mT, columns)


def _fast(xp: Namespace, columns: int, matrix: Array, *thin: Array) -> tuple[Any, list[Array]] | None:
    """The kernels for these arrays, and the arrays in their form; None where there are none."""
    if views := for_kernels(xp, columns, matrix, *thin):
        return cpu, views
    # Those of a GPU take no third thin block.
    arrays = for_cuda(xp, matrix, *thin) if len(thin) < 3 else None
    return (cuda, arrays) if arrays and cuda.apply_to(matrix, columns) else None


def for_kernels(xp: Namespace, columns: int, matrix: Array, *thin: Array) -> list[Array] | None:
    """All as numpy arrays for the kernels, with one dtype and batch shape; None where they do not apply."""
    if not (is_numpy(xp) or is_torch(xp)):
        return None
    view = numpy_view(matrix)
    if view is None or not cpu.apply_to(view, columns):
        return None
    dtype, batch = view.dtype, view.shape[:-2]
    views = [view]
    for x in thin:
        view = numpy_view(x)
        if view is None or view.dtype is not dtype or view.shape[:-2] != batch:
            return None
        views.append(view)
    return views


def for_cuda(xp: Namespace, matrix: Array, *thin: Array) -> list[Array] | None:
    """The same for arrays on a GPU."""
    if not (is_cupy(xp) or is_torch(xp)):
        return None
    views = [cuda_view(x) for x in (matrix, *thin)]
    if any(x is None or x.dtype != matrix.dtype or x.shape[:-2] != matrix.shape[:-2] for x in views):
        return None
    return views if cuda.active() else None


def target_of(
    kernels: Any, matrix: Array, thin: list[Array], *, overwrite: bool
) -> tuple[Array, list[Array]]:
    """The array for the result, and thin factors that do not alias it."""
    if not overwrite:
        return kernels.empty_like(matrix), thin
    return matrix, [kernels.copied(x) if kernels.share_memory(matrix, x) else x for x in thin]


def native(xp: Namespace, x: Array) -> Array:
    """A result of the kernels as an array of the caller's namespace."""
    return of_numpy(xp, x) if isinstance(x, np.ndarray) else x


def written(xp: Namespace, array: Array, out: Array, overwritten: bool) -> Array:
    """The written array, in the caller's namespace."""
    if not overwritten:
        return native(xp, out)
    if is_torch(xp):
        note_change(array)
    return array


def _panels(matrix: Array, thin: Array) -> Iterator[tuple[slice, Array]]:
    """Panels of rows of a numpy matrix that stay in cache in the dtype of the thin operand."""
    rows, columns = matrix.shape[-2:]
    count = int(np.prod(np.broadcast_shapes(matrix.shape[:-2], thin.shape[:-2])))
    height = max(16, _PANEL_BYTES // max(1, thin.dtype.itemsize * columns * max(1, count)))
    for start in range(0, rows, height):
        chosen = slice(start, start + height)
        yield chosen, matrix[..., chosen, :]
