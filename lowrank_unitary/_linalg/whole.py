"""Whole steps by the kernels, where there are some for the arrays; each returns None where there are none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._array import Array, Namespace, is_numpy, is_torch, numpy_view, of_numpy
from .._kernels import cpu, cuda
from .random import Key
from .traversals import for_cuda, for_kernels, target_of, written


def whole_step(
    xp: Namespace,
    unitary: Array,
    left: Array,
    right: Array,
    probes: Array | None,
    update: str,
    *,
    overwrite: bool = False,
) -> Array | None:
    """A whole step by the kernels, on a CPU of rank one and up to one probe; else None."""
    probed = () if probes is None else (probes,)
    k, p = left.shape[-1], 0 if probes is None else probes.shape[-1]
    if k == 1 and p <= 1 and (views := for_kernels(xp, 1, unitary, left, right, *probed)):
        view, *thin = views
        if overwrite and view.ndim > 2:
            # A stack is moved matrix by matrix: columns that alias a later one are copied.
            out, thin = target_of(cpu, view, thin, overwrite=True)
        else:
            out = view if overwrite else np.empty_like(view)
        if not cpu.rank_one_step(view, thin[0], thin[1], thin[2] if probed else None, update, out):
            return None
        return written(xp, unitary, out, overwrite)
    if not (arrays := for_cuda(xp, unitary, left, right, *probed)):
        return None
    view, *thin = arrays
    if not cuda.steps_apply_to(view, k, p):
        return None
    out, thin = target_of(cuda, view, thin, overwrite=overwrite)
    cuda.low_rank_step(view, thin[0], thin[1], thin[2] if probed else None, update, out)
    return written(xp, unitary, out, overwrite)


def whole_descent(
    xp: Namespace,
    unitary: Array,
    views: tuple[Array | None, ...],
    step_size: Any,
    key: Any,
    counts: tuple[int, int, int],
    update: str,
    *,
    overwrite: bool,
) -> Array | None:
    """A whole step against a gradient by the kernels; None where there are none.

    `views` are U and its gradient as numpy arrays, or U and two body factors; `counts` those of samples,
    probes and columns of the step. The step size is a number or one for each matrix.
    """
    given = [view for view in views if view is not None]
    if len(given) < len(views) or not _is_for_kernels(key):
        return None
    view, *slopes = given
    if not all(cpu.descent_applies_to(view, slope, counts[0]) for slope in slopes):
        return None
    # Numpy takes five microseconds to find that shapes are the same.
    if any(x.shape != view.shape for x in slopes):
        batch = np.broadcast_shapes(*(x.shape[:-2] for x in (view, *slopes)))
        view, *slopes = (_with_batch(x, batch) for x in (view, *slopes))
    if overwrite and 0 in view.strides:
        # Entries that share memory cannot be written one by one.
        return None
    sizes = _one_for_each(step_size, view)
    if overwrite and view.ndim > 2:
        # A stack is moved matrix by matrix: gradients that alias a later one are copied.
        slopes = [slope.copy() if cpu.share_memory(view, slope) else slope for slope in slopes]
    out = view if overwrite and view.flags.c_contiguous else np.empty(view.shape, view.dtype)
    cpu.descent_step(
        view, slopes[0] if len(slopes) == 1 else (slopes[0], slopes[1]), sizes, key[:2], counts, update, out
    )
    if overwrite and out is not view:
        view[...] = out
    return written(xp, unitary, out, overwrite)


def _with_batch(x: Array, batch: tuple[int, ...]) -> Array:
    shape = (*batch, *x.shape[-2:])
    return x if x.shape == shape else np.broadcast_to(x, shape)


def whole_transport(
    xp: Namespace,
    unitary: Array,
    left: Array,
    right: Array,
    key: Any,
    heal: int,
    update: str,
    *,
    overwrite: bool,
) -> Array | None:
    """A whole step by the kernels, from several columns; else None."""
    k = left.shape[-1]
    if k < 2 or heal > 2 * k or not _is_for_kernels(key):
        return None
    if not (views := for_kernels(xp, k, unitary, left, right)):
        return None
    view, *thin = views
    out, thin = target_of(cpu, view, thin, overwrite=overwrite)
    if not cpu.transport_step(view, thin[0], thin[1], heal, key[:2], update, out):
        return None
    return written(xp, unitary, out, overwrite)


def _one_for_each(step_size: Array, stack: Array) -> Array:
    """A step size, or several shaped to multiply a stack of matrices, for every matrix of it."""
    if type(step_size) is float:
        return np.array([step_size] * math.prod(stack.shape[:-2]))
    shape = (*stack.shape[:-2], 1, 1)
    # A copy: for numba an array that is read-only has another type.
    return np.array(np.broadcast_to(step_size, shape).reshape(-1), np.float64)


def whole_rotation(xp: Namespace, left: Array, right: Array, update: str) -> tuple[Array, Array] | None:
    """The rotation of body factors by the kernels, on a CPU of rank one; None where there are none."""
    if arrays := for_cuda(xp, left, right):
        if cuda.steps_apply_to(arrays[0], left.shape[-1], 0):
            return cuda.rotation(arrays[0], arrays[1], update)
        return None
    if left.shape[-1] != 1 or not (is_numpy(xp) or is_torch(xp)) or not cpu.active():
        return None
    b, c = numpy_view(right), numpy_view(left)
    if b is None or c is None or (rotation := cpu.rank_one_rotation(c, b, update)) is None:
        return None
    before, after = rotation
    return of_numpy(xp, before), of_numpy(xp, after)


def whole_sketch(
    xp: Namespace, unitary: Array, gradient: Array, key: Any, counts: tuple[int, int]
) -> tuple[Array, Array] | None:
    """C and Q of the sketched tangent of a gradient by the kernels; counts of samples and columns."""
    if not (views := _for_sketch(xp, unitary, gradient, key, counts)):
        return None
    C, Q = cpu.tangent_factors(*views, key[:2], counts)
    return of_numpy(xp, C), of_numpy(xp, Q)


def whole_compression(
    xp: Namespace, left: Array, right: Array, key: Any, counts: tuple[int, int], again: int
) -> tuple[Array, Array] | None:
    """The same of the tangent skew(left rightᴴ), with so many products beyond two."""
    if not (views := _for_sketch(xp, left, right, key, counts)):
        return None
    C, Q = cpu.compressed_factors(*views, key[:2], counts, again)
    return of_numpy(xp, C), of_numpy(xp, Q)


def whole_columns(xp: Namespace, left: Array, right: Array, k: int) -> tuple[Array, Array] | None:
    """C and Q of the best k columns of the tangent skew(left rightᴴ) by the kernels, or None."""
    if k > left.shape[-1] or not (is_numpy(xp) or is_torch(xp)):
        return None
    a, b = numpy_view(left), numpy_view(right)
    # With more columns the small eigenproblem takes most of the time, and LAPACK less of it.
    if a is None or b is None or not cpu.descent_applies_to(a, b, 4 * a.shape[-1]):
        return None
    C, Q = cpu.best_columns(a, b, k)
    return of_numpy(xp, C), of_numpy(xp, Q)


def _is_for_kernels(key: Key) -> bool:
    """Whether the kernels can make the numbers of a key: they count matrices from the first one on."""
    return isinstance(key.high, int) and not key.matrix


def _for_sketch(
    xp: Namespace, one: Array, other: Array, key: Any, counts: tuple[int, int]
) -> tuple[Array, Array] | None:
    """Two stacks as numpy arrays of one shape, or None where the kernels do not take them."""
    if not (is_numpy(xp) or is_torch(xp)) or not isinstance(key, Key) or not _is_for_kernels(key):
        return None
    view, beside = numpy_view(one), numpy_view(other)
    if view is None or beside is None or not cpu.descent_applies_to(view, beside, counts[0]):
        return None
    shape = np.broadcast_shapes(view.shape, beside.shape)
    return np.broadcast_to(view, shape), np.broadcast_to(beside, shape)
