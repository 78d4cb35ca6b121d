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


# Inner loops run over one-dimensional views: with two indices they are not vectorised, 4 to 10 times slower.


@_sums
def _four_rows_dot(rows: Floats, left: Floats, dots: Floats) -> None:
    columns = rows.shape[1]
    zero = rows.dtype.type(0)
    dots[:] = 0
    for first in range(0, columns, _COLUMNS):
        last = min(first + _COLUMNS, columns)
        a0, a1, a2, a3 = rows[0, first:last], rows[1, first:last], rows[2, first:last], rows[3, first:last]
        for j in range(0, left.shape[0], 2):
            u, v = left[j, first:last], left[j + 1, first:last]
            s0, s1, s2, s3, t0, t1, t2, t3 = zero, zero, zero, zero, zero, zero, zero, zero
            for m in range(last - first):
                s0 += a0[m] * u[m]
                s1 += a1[m] * u[m]
                s2 += a2[m] * u[m]
                s3 += a3[m] * u[m]
                t0 += a0[m] * v[m]
                t1 += a1[m] * v[m]
                t2 += a2[m] * v[m]
                t3 += a3[m] * v[m]
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
            a, u = row[first : first + _COLUMNS], left[j, first : first + _COLUMNS]
            s = row.dtype.type(0)
            for m in range(a.shape[0]):
                s += a[m] * u[m]
            dots[j] += s


@_sums
def adjoint_kernel(
    matrix: Floats, weights: Floats, probes: Floats, given: int, total: Floats, start: int, stop: int
) -> None:
    """total[j] += Σ_i weights[i, j] · matrix[i] over the rows start … stop.

    Weights from column `given` on are made on the way: the products of the row with the probes.
    """
    columns = matrix.shape[1]
    part = np.empty_like(total)
    dots = np.zeros((4, probes.shape[0]), dtype=matrix.dtype)
    made = min(weights.shape[1] - given, probes.shape[0])
    for first in range(start, stop, _ROWS):
        last = min(first + _ROWS, stop)
        part[:] = 0
        whole = first + (last - first) // 4 * 4
        for i in range(first, whole, 4):
            if probes.shape[0]:
                _four_rows_dot(matrix[i : i + 4], probes, dots)
                weights[i : i + 4, given : given + made] = dots[:, :made]
            a0, a1, a2, a3 = matrix[i], matrix[i + 1], matrix[i + 2], matrix[i + 3]
            for j in range(0, weights.shape[1], 2):
                p0, p1, p2, p3 = weights[i, j], weights[i + 1, j], weights[i + 2, j], weights[i + 3, j]
                k = j + 1
                q0, q1, q2, q3 = weights[i, k], weights[i + 1, k], weights[i + 2, k], weights[i + 3, k]
                p, q = part[j], part[k]
                for m in range(columns):
                    p[m] += (p0 * a0[m] + p1 * a1[m]) + (p2 * a2[m] + p3 * a3[m])
                    q[m] += (q0 * a0[m] + q1 * a1[m]) + (q2 * a2[m] + q3 * a3[m])
        for i in range(whole, last):
            if probes.shape[0]:
                _one_row_dot(matrix[i], probes, dots[0])
                weights[i, given : given + made] = dots[0, :made]
            for j in range(weights.shape[1]):
                part[j] += weights[i, j] * matrix[i]
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


@_updates
def _update_row(row: Floats, dots: Floats, right: Floats, change: Floats, out: Floats) -> None:
    if right.shape[0] == 2:
        p, q, u, v = dots[0], dots[1], right[0], right[1]
        for m in range(row.shape[0]):
            out[m] = row[m] + (p * u[m] + q * v[m])
        return
    for first in range(0, row.shape[0], _COLUMNS):
        a, b = row[first : first + _COLUMNS], out[first : first + _COLUMNS]
        length = a.shape[0]
        c = change[:length]
        c[:] = 0
        for j in range(0, right.shape[0], 2):
            p, q = dots[j], dots[j + 1]
            u, v = right[j, first : first + _COLUMNS], right[j + 1, first : first + _COLUMNS]
            for m in range(length):
                c[m] += p * u[m] + q * v[m]
        for m in range(length):
            b[m] = a[m] + c[m]
