"""Stacks of complex rows as real rows of twice the length, in numpy.

A complex product or update is a pair of real ones, so one real kernel with twice as many thin columns serves
all four dtypes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = Any


def numbers_in(x: Array) -> int:
    """Real numbers in an entry."""
    return 2 if x.dtype.kind == "c" else 1


def stack(x: Array) -> Array:
    """With one batch axis; row-major, and of the type that numba has for arrays that may be written."""
    flags = x.flags
    if not flags.writeable:
        x = _as_writeable(x)
    if x.ndim == 2 and flags.c_contiguous:
        return x[None]
    return np.ascontiguousarray(x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:]))


class _Memory:
    """The memory of an array, for numpy to make another array of."""

    def __init__(self, x: Array) -> None:
        self.__array_interface__ = {**x.__array_interface__, "data": (x.ctypes.data, False)}
        self.owner = x


def _as_writeable(x: Array) -> Array:
    """A read-only array under another type, for kernels that only read it: else numba compiled them again."""
    return np.asarray(_Memory(x)) if x.size else np.empty(x.shape, x.dtype)


def real_rows(x: Array) -> Array:
    """A row-major stack, with its complex entries as pairs of real ones."""
    x = stack(x)
    return x.view(x.real.dtype) if x.dtype.kind == "c" else x


def dual_rows(thin: Array) -> Array:
    """Real rows whose dot products with a row read as real are the parts of row · column, for every column.

    They are also the parts of columnᴴ and i columnᴴ, along which a product with columnᴴ changes a row.
    """
    rows = thin.reshape(math.prod(thin.shape[:-2]), *thin.shape[-2:]).mT
    if thin.dtype.kind != "c":
        rows = np.ascontiguousarray(rows)
        # For numba a read-only array has another type.
        return rows if rows.flags.writeable else rows.copy()
    real = np.empty((len(rows), rows.shape[1], 2, rows.shape[2], 2), rows.real.dtype)
    real[:, :, 0, :, 0] = real[:, :, 1, :, 1] = rows.real
    real[:, :, 1, :, 0] = rows.imag
    real[:, :, 0, :, 1] = -rows.imag
    return real.reshape(len(rows), 2 * rows.shape[1], 2 * rows.shape[2])


def columns_of(total: Array, numbers: int, shape: tuple[int, ...]) -> Array:
    """The columns Σ conj(row) · weight from the real sums with all parts of the weights."""
    if numbers == 1:
        return total.mT.reshape(shape)
    # Last axes: column, part of the weight, entry, part of the row.
    s = total.reshape(len(total), shape[-1], 2, shape[-2], 2)
    product = np.empty((len(total), shape[-2], shape[-1]), np.result_type(total.dtype, np.complex64))
    product.real = (s[:, :, 0, :, 0] + s[:, :, 1, :, 1]).mT
    product.imag = (s[:, :, 1, :, 0] - s[:, :, 0, :, 1]).mT
    return product.reshape(shape)


def columns_of_rows(rows: Array, numbers: int) -> Array:
    """The columns that `dual_rows` has laid out."""
    if numbers == 1:
        return np.ascontiguousarray(rows.mT)
    columns = np.empty(
        (len(rows), rows.shape[2] // 2, rows.shape[1] // 2), np.result_type(rows.dtype, np.complex64)
    )
    columns.real, columns.imag = rows[:, ::2, ::2].mT, rows[:, 1::2, ::2].mT
    return columns
