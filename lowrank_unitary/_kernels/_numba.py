"""Serial kernels on real rows, two thin columns and four rows at a time."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

# Long sums are made of partial sums of this length, whose rounding errors do not grow with n.
_ROWS = 64
_COLUMNS = 512

# Sums may be reordered, or they would not vectorise. Not the whole of fastmath, which denies NaN.
_sums = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
# Not reordered: the change of a row is summed up first, and rounded into the row once. Two roundings of every
# entry in place of one were seen to raise the drift from unitarity by half.
_updates = numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"})


@_sums
def adjoint_kernel(matrix: Floats, weights: Floats, total: Floats, start: int, stop: int) -> None:
    """total[j] += Σ_i weights[i, j] · matrix[i] over the rows start … stop."""
    columns = matrix.shape[1]
    width = weights.shape[1]
    part = np.empty_like(total)
    for first in range(start, stop, _ROWS):
        last = min(first + _ROWS, stop)
        part[:] = 0
        whole = first + (last - first) // 4 * 4
        for i in range(first, whole, 4):
            for j in range(0, width, 2):
                p0, p1, p2, p3 = weights[i, j], weights[i + 1, j], weights[i + 2, j], weights[i + 3, j]
                k = j + 1
                q0, q1, q2, q3 = weights[i, k], weights[i + 1, k], weights[i + 2, k], weights[i + 3, k]
                for m in range(columns):
                    a0, a1, a2, a3 = matrix[i, m], matrix[i + 1, m], matrix[i + 2, m], matrix[i + 3, m]
                    part[j, m] += (p0 * a0 + p1 * a1) + (p2 * a2 + p3 * a3)
                    part[k, m] += (q0 * a0 + q1 * a1) + (q2 * a2 + q3 * a3)
        for i in range(whole, last):
            for j in range(width):
                for m in range(columns):
                    part[j, m] += weights[i, j] * matrix[i, m]
        total += part


@_updates
def rotate_kernel(matrix: Floats, left: Floats, right: Floats, out: Floats, start: int, stop: int) -> None:
    """out[i] = matrix[i] + Σ_j (matrix[i] · left[j]) right[j] over the rows start … stop."""
    # All dot products of a row come before its first update: `out` may be `matrix`.
    dots = np.zeros((4, left.shape[0]), dtype=matrix.dtype)
    change = np.empty(_COLUMNS, dtype=matrix.dtype)
    whole = start + (stop - start) // 4 * 4
    for i in range(start, whole, 4):
        _four_rows_dot(matrix[i : i + 4], left, dots)
        for r in range(4):
            _update_row(matrix[i + r], dots[r], right, change, out[i + r])
    for i in range(whole, stop):
        _one_row_dot(matrix[i], left, dots[0])
        _update_row(matrix[i], dots[0], right, change, out[i])


@_sums
def _four_rows_dot(rows: Floats, left: Floats, dots: Floats) -> None:
    columns = rows.shape[1]
    zero = rows.dtype.type(0)
    dots[:] = 0
    for first in range(0, columns, _COLUMNS):
        last = min(first + _COLUMNS, columns)
        for j in range(0, left.shape[0], 2):
            s0, s1, s2, s3, t0, t1, t2, t3 = zero, zero, zero, zero, zero, zero, zero, zero
            for m in range(first, last):
                u, v = left[j, m], left[j + 1, m]
                a0, a1, a2, a3 = rows[0, m], rows[1, m], rows[2, m], rows[3, m]
                s0 += a0 * u
                s1 += a1 * u
                s2 += a2 * u
                s3 += a3 * u
                t0 += a0 * v
                t1 += a1 * v
                t2 += a2 * v
                t3 += a3 * v
            dots[0, j] += s0
            dots[1, j] += s1
            dots[2, j] += s2
            dots[3, j] += s3
            dots[0, j + 1] += t0
            dots[1, j + 1] += t1
            dots[2, j + 1] += t2
            dots[3, j + 1] += t3


@_sums
def _one_row_dot(row: Floats, left: Floats, dots: Floats) -> None:
    for j in range(left.shape[0]):
        dots[j] = 0
        for first in range(0, row.shape[0], _COLUMNS):
            s = row.dtype.type(0)
            for m in range(first, min(first + _COLUMNS, row.shape[0])):
                s += row[m] * left[j, m]
            dots[j] += s


@_updates
def _update_row(row: Floats, dots: Floats, right: Floats, change: Floats, out: Floats) -> None:
    columns = row.shape[0]
    if right.shape[0] == 2:
        p, q = dots[0], dots[1]
        for m in range(columns):
            out[m] = row[m] + (p * right[0, m] + q * right[1, m])
        return
    for first in range(0, columns, _COLUMNS):
        length = min(_COLUMNS, columns - first)
        for j in range(0, right.shape[0], 2):
            p, q = dots[j], dots[j + 1]
            if j == 0:
                for m in range(length):
                    change[m] = p * right[0, first + m] + q * right[1, first + m]
            else:
                for m in range(length):
                    change[m] += p * right[j, first + m] + q * right[j + 1, first + m]
        for m in range(length):
            out[first + m] = row[first + m] + change[m]
