"""Serial kernels on real rows, register-blocked: four rows at a time, with thin columns in fours and twos.

A block of four by four makes sixteen multiply-adds of eight loads, at which the arithmetic units and not the
caches set the pace. Inner loops run over one-dimensional views: with two indices they are not vectorised.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

# Long sums are made of partial sums over this many rows, whose rounding errors do not grow with n.
_ROWS = 64
# Rows that are looked at by the probes before they are summed: they are still in the second-level cache.
_PANEL = 16
# Columns at a time: few enough for the blocks of all thin columns in turn to stay in the first-level cache.
_COLUMNS = 1024

# Sums may be reordered, or they would not vectorise. Not the whole of fastmath, which denies NaN.
sums = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
# Not reordered: the change of a row is summed up first, and rounded into the row once. Two roundings of every
# entry in place of one were seen to raise the drift from unitarity by half.
updates = numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"})


@sums
def gather(
    matrix: Floats, weights: Floats, probes: Floats, given: int, total: Floats, start: int, stop: int
) -> None:
    """total[j] += Σ_i weights[i, j] · matrix[i] over the rows start … stop.

    Weights from column `given` on are made on the way: the products of the row with the probes.
    """
    part = np.empty_like(total)
    dots = np.zeros((4, probes.shape[0]), dtype=matrix.dtype)
    made = min(weights.shape[1] - given, probes.shape[0])
    for first in range(start, stop, _ROWS):
        part[:] = 0
        for top in range(first, min(first + _ROWS, stop), _PANEL):
            last = min(top + _PANEL, stop)
            if made:
                for i in range(top, last, 4):
                    _dot_rows(matrix[i : min(i + 4, last)], probes, dots)
                    for r in range(min(4, last - i)):
                        weights[i + r, given : given + made] = dots[r, :made]
            _add_rows(matrix[top:last], weights[top:last], part)
        total += part


@updates
def rotate(
    matrix: Floats, left: Floats, right: Floats, out: Floats, in_place: bool, start: int, stop: int
) -> None:
    """out[i] = matrix[i] + Σ_j (matrix[i] · left[j]) right[j] over the rows start … stop."""
    dots = np.zeros((4, left.shape[0]), dtype=matrix.dtype)
    change = np.empty((4, _COLUMNS), dtype=matrix.dtype)
    for i in range(start, stop, 4):
        last = min(i + 4, stop)
        rows = out[i:last]
        # Always on rows of one array: of two that may be the same one nothing is vectorised.
        if not in_place:
            rows[:] = matrix[i:last]
        _dot_rows(rows, left, dots)
        if last - i == 4 and right.shape[0] > 4:
            _change_rows(rows, dots, right, change)
        else:
            for r in range(last - i):
                _change_row(rows[r], dots[r], right, change[0])


@sums
def gather_stack(
    matrix: Floats, weights: Floats, probes: Floats, given: int, total: Floats, start: int, stop: int
) -> None:
    """The same for all rows of the matrices start … stop of a stack."""
    for s in range(start, stop):
        gather(matrix[s], weights[s], probes[s], given, total[s], 0, matrix.shape[1])


@updates
def rotate_stack(
    matrix: Floats, left: Floats, right: Floats, out: Floats, in_place: bool, start: int, stop: int
) -> None:
    """The same for all rows of the matrices start … stop of a stack."""
    for s in range(start, stop):
        rotate(matrix[s], left[s], right[s], out[s], in_place, 0, matrix.shape[1])


@sums
def _add_rows(rows: Floats, weights: Floats, total: Floats) -> None:
    """total[j] += Σ_i weights[i, j] · rows[i]."""
    count, columns = rows.shape
    width = total.shape[0]
    whole = count // 4 * 4
    for first in range(0, columns, _COLUMNS):
        last = min(first + _COLUMNS, columns)
        j = 0
        while j + 4 <= width:
            s, t = total[j, first:last], total[j + 1, first:last]
            u, v = total[j + 2, first:last], total[j + 3, first:last]
            for i in range(0, whole, 4):
                a0, a1, a2, a3 = (
                    rows[i, first:last],
                    rows[i + 1, first:last],
                    rows[i + 2, first:last],
                    rows[i + 3, first:last],
                )
                s0, t0, u0, v0 = weights[i, j], weights[i, j + 1], weights[i, j + 2], weights[i, j + 3]
                h = i + 1
                s1, t1, u1, v1 = weights[h, j], weights[h, j + 1], weights[h, j + 2], weights[h, j + 3]
                h = i + 2
                s2, t2, u2, v2 = weights[h, j], weights[h, j + 1], weights[h, j + 2], weights[h, j + 3]
                h = i + 3
                s3, t3, u3, v3 = weights[h, j], weights[h, j + 1], weights[h, j + 2], weights[h, j + 3]
                for m in range(last - first):
                    a, b, c, d = a0[m], a1[m], a2[m], a3[m]
                    s[m] = s[m] + s0 * a + s1 * b + s2 * c + s3 * d
                    t[m] = t[m] + t0 * a + t1 * b + t2 * c + t3 * d
                    u[m] = u[m] + u0 * a + u1 * b + u2 * c + u3 * d
                    v[m] = v[m] + v0 * a + v1 * b + v2 * c + v3 * d
            j += 4
        while j + 2 <= width:
            s, t = total[j, first:last], total[j + 1, first:last]
            for i in range(0, whole, 4):
                a0, a1, a2, a3 = (
                    rows[i, first:last],
                    rows[i + 1, first:last],
                    rows[i + 2, first:last],
                    rows[i + 3, first:last],
                )
                s0, s1, s2, s3 = weights[i, j], weights[i + 1, j], weights[i + 2, j], weights[i + 3, j]
                k = j + 1
                t0, t1, t2, t3 = weights[i, k], weights[i + 1, k], weights[i + 2, k], weights[i + 3, k]
                for m in range(last - first):
                    a, b, c, d = a0[m], a1[m], a2[m], a3[m]
                    s[m] = s[m] + s0 * a + s1 * b + s2 * c + s3 * d
                    t[m] = t[m] + t0 * a + t1 * b + t2 * c + t3 * d
            j += 2
        if j < width:
            s = total[j, first:last]
            for i in range(0, whole, 4):
                a0, a1, a2, a3 = (
                    rows[i, first:last],
                    rows[i + 1, first:last],
                    rows[i + 2, first:last],
                    rows[i + 3, first:last],
                )
                s0, s1, s2, s3 = weights[i, j], weights[i + 1, j], weights[i + 2, j], weights[i + 3, j]
                for m in range(last - first):
                    s[m] = s[m] + s0 * a0[m] + s1 * a1[m] + s2 * a2[m] + s3 * a3[m]
    for i in range(whole, count):
        for j in range(width):
            total[j] += weights[i, j] * rows[i]


@sums
def _dot_rows(rows: Floats, left: Floats, dots: Floats) -> None:
    """dots[i, j] = rows[i] · left[j], for up to four rows."""
    count, columns = rows.shape
    width = left.shape[0]
    zero = rows.dtype.type(0)
    dots[:] = 0
    if count < 4:
        for i in range(count):
            for j in range(width):
                for first in range(0, columns, _COLUMNS):
                    a, u = rows[i, first : first + _COLUMNS], left[j, first : first + _COLUMNS]
                    s0 = zero
                    for m in range(a.shape[0]):
                        s0 += a[m] * u[m]
                    dots[i, j] += s0
        return
    for first in range(0, columns, _COLUMNS):
        last = min(first + _COLUMNS, columns)
        a0, a1, a2, a3 = rows[0, first:last], rows[1, first:last], rows[2, first:last], rows[3, first:last]
        j = 0
        while j + 4 <= width:
            s, t = left[j, first:last], left[j + 1, first:last]
            u, v = left[j + 2, first:last], left[j + 3, first:last]
            s0, s1, s2, s3, t0, t1, t2, t3 = zero, zero, zero, zero, zero, zero, zero, zero
            u0, u1, u2, u3, v0, v1, v2, v3 = zero, zero, zero, zero, zero, zero, zero, zero
            for m in range(last - first):
                a, b, c, d = a0[m], a1[m], a2[m], a3[m]
                s0 += a * s[m]
                s1 += b * s[m]
                s2 += c * s[m]
                s3 += d * s[m]
                t0 += a * t[m]
                t1 += b * t[m]
                t2 += c * t[m]
                t3 += d * t[m]
                u0 += a * u[m]
                u1 += b * u[m]
                u2 += c * u[m]
                u3 += d * u[m]
                v0 += a * v[m]
                v1 += b * v[m]
                v2 += c * v[m]
                v3 += d * v[m]
            dots[0, j] += s0
            dots[1, j] += s1
            dots[2, j] += s2
            dots[3, j] += s3
            dots[0, j + 1] += t0
            dots[1, j + 1] += t1
            dots[2, j + 1] += t2
            dots[3, j + 1] += t3
            dots[0, j + 2] += u0
            dots[1, j + 2] += u1
            dots[2, j + 2] += u2
            dots[3, j + 2] += u3
            dots[0, j + 3] += v0
            dots[1, j + 3] += v1
            dots[2, j + 3] += v2
            dots[3, j + 3] += v3
            j += 4
        while j < width:
            # The odd column out is its own neighbour.
            k = min(j + 1, width - 1)
            s, t = left[j, first:last], left[k, first:last]
            s0, s1, s2, s3, t0, t1, t2, t3 = zero, zero, zero, zero, zero, zero, zero, zero
            for m in range(last - first):
                a, b, c, d = a0[m], a1[m], a2[m], a3[m]
                s0 += a * s[m]
                s1 += b * s[m]
                s2 += c * s[m]
                s3 += d * s[m]
                t0 += a * t[m]
                t1 += b * t[m]
                t2 += c * t[m]
                t3 += d * t[m]
            dots[0, j] += s0
            dots[1, j] += s1
            dots[2, j] += s2
            dots[3, j] += s3
            if k > j:
                dots[0, k] += t0
                dots[1, k] += t1
                dots[2, k] += t2
                dots[3, k] += t3
            j += 2


@updates
def _change_row(row: Floats, dots: Floats, right: Floats, change: Floats) -> None:
    """row += Σ_j dots[j] · right[j]."""
    if right.shape[0] == 2:
        p, q, u, v = dots[0], dots[1], right[0], right[1]
        for m in range(row.shape[0]):
            row[m] += p * u[m] + q * v[m]
        return
    if right.shape[0] == 4:
        p, q, u, v = dots[0], dots[1], right[0], right[1]
        f, g, x, y = dots[2], dots[3], right[2], right[3]
        for m in range(row.shape[0]):
            row[m] += p * u[m] + q * v[m] + f * x[m] + g * y[m]
        return
    for first in range(0, row.shape[0], _COLUMNS):
        a = row[first : first + _COLUMNS]
        c = change[: a.shape[0]]
        c[:] = 0
        for j in range(right.shape[0]):
            p, u = dots[j], right[j, first : first + _COLUMNS]
            for m in range(a.shape[0]):
                c[m] += p * u[m]
        for m in range(a.shape[0]):
            a[m] += c[m]


@updates
def _change_rows(rows: Floats, dots: Floats, right: Floats, change: Floats) -> None:
    """rows[i] += Σ_j dots[i, j] · right[j], for four rows and more than four thin columns."""
    columns = rows.shape[1]
    width = right.shape[0]
    for first in range(0, columns, _COLUMNS):
        last = min(first + _COLUMNS, columns)
        length = last - first
        c0, c1, c2, c3 = change[0, :length], change[1, :length], change[2, :length], change[3, :length]
        change[:] = 0
        j = 0
        while j + 4 <= width:
            s, t = right[j, first:last], right[j + 1, first:last]
            u, v = right[j + 2, first:last], right[j + 3, first:last]
            s0, s1, s2, s3 = dots[0, j], dots[1, j], dots[2, j], dots[3, j]
            k = j + 1
            t0, t1, t2, t3 = dots[0, k], dots[1, k], dots[2, k], dots[3, k]
            k = j + 2
            u0, u1, u2, u3 = dots[0, k], dots[1, k], dots[2, k], dots[3, k]
            k = j + 3
            v0, v1, v2, v3 = dots[0, k], dots[1, k], dots[2, k], dots[3, k]
            for m in range(length):
                a, b, c, d = s[m], t[m], u[m], v[m]
                c0[m] = c0[m] + s0 * a + t0 * b + u0 * c + v0 * d
                c1[m] = c1[m] + s1 * a + t1 * b + u1 * c + v1 * d
                c2[m] = c2[m] + s2 * a + t2 * b + u2 * c + v2 * d
                c3[m] = c3[m] + s3 * a + t3 * b + u3 * c + v3 * d
            j += 4
        while j < width:
            s = right[j, first:last]
            s0, s1, s2, s3 = dots[0, j], dots[1, j], dots[2, j], dots[3, j]
            for m in range(length):
                c0[m] += s0 * s[m]
                c1[m] += s1 * s[m]
                c2[m] += s2 * s[m]
                c3[m] += s3 * s[m]
            j += 1
        a0, a1, a2, a3 = rows[0, first:last], rows[1, first:last], rows[2, first:last], rows[3, first:last]
        for m in range(length):
            a0[m] += c0[m]
            a1[m] += c1[m]
            a2[m] += c2[m]
            a3[m] += c3[m]
