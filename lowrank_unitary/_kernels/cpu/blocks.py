"""Serial kernels on real rows with register blocking: a few rows times four or two thin columns.

A block makes twelve to sixteen multiply-adds of seven or eight loads, which is bound by arithmetic and not by
the caches. Dot products use 3×4 blocks: twelve sums and four operands fill the sixteen vector registers of
AVX2; a fourth row spilled sums in every iteration and took 1.6 times as long. Inner loops run over
one-dimensional views: with two indices they are not vectorised.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
Range = tuple[int, int]

# Rows of a partial sum: its rounding error does not grow with n.
_ROWS = 128
# Rows multiplied with the probes before they are summed: cache blocking for the second-level cache.
_PANEL = 16
# Bytes of a panel of rows between their dot products and their update, at least a block: a part of the same
# cache.
_PANEL_BYTES = 1 << 16
# Bytes of a row below which rows are read once before use: the hardware does not prefetch four short rows at
# a time.
_SHORT = 4096
# Columns at a time: blocks of thin columns stay in the first-level cache; longer for few thin columns, since
# long contiguous reads are faster.
_COLUMNS = 1024
_FEW, _LONG = 4, 4096
# Padding of scratch rows, in columns: 4096 bytes apart a load is taken to alias a pending store; false store
# forwarding costs a quarter of the speed.
_APART = 32

# Sums must be reordered to be vectorised. Full fastmath would assume that there are no NaN.
sums = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
# Not reordered: the change of a row is summed first and rounded into the row once. A second rounding of every
# entry raised the drift from unitarity by half.
updates = numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"})


@sums
def gather(
    matrices: Floats, weights: Floats, probes: Floats, given: int, total: Floats, where: Range, rows: Range
) -> None:
    """total[s, j] += Σ_i weights[s, i, j] · matrices[s, i], for a range of matrices and of their rows.

    Weights from column `given` on are the products of the row with the probes.
    """
    columns = matrices.shape[2]
    made = probes.shape[1]
    part = np.empty((total.shape[1], columns + _APART), dtype=matrices.dtype)
    dots = np.empty((_PANEL, made), dtype=matrices.dtype)
    short = columns * matrices.itemsize < _SHORT
    for s in range(where[0], where[1]):
        matrix, weight = matrices[s], weights[s]
        for first in range(rows[0], rows[1], _ROWS):
            part[:] = 0
            if short:
                part[0, columns] = _read_through(matrix[first : min(first + _ROWS, rows[1])])
            for top in range(first, min(first + _ROWS, rows[1]), _PANEL):
                last = min(top + _PANEL, rows[1])
                if made:
                    _dot_rows(matrix[top:last], probes[s], dots)
                    for i in range(last - top):
                        for j in range(made):
                            weight[top + i, given + j] = dots[i, j]
                _add_rows(matrix[top:last], weight[top:last], part)
            for j in range(total.shape[1]):
                to, some = total[s, j], part[j, :columns]
                for m in range(columns):
                    to[m] += some[m]


@sums
def look(matrices: Floats, left: Floats, out: Floats, where: Range, rows: Range) -> None:
    """out[s, i, j] = matrices[s, i] · left[s, j], for ranges of s and i."""
    panel = _panel(matrices.shape[2] * matrices.itemsize, left.shape[1])
    for s in range(where[0], where[1]):
        matrix, along, dots = matrices[s], left[s], out[s]
        for i in range(rows[0], rows[1], panel):
            last = min(i + panel, rows[1])
            _dot_rows(matrix[i:last], along, dots[i:last])


@updates
def rotate(
    matrices: Floats, left: Floats, right: Floats, out: Floats, in_place: bool, where: Range, rows: Range
) -> None:
    """out[s, i] = matrices[s, i] + Σ_j (matrices[s, i] · left[s, j]) right[s, j], for ranges of s and i."""
    columns = matrices.shape[2]
    panel = _panel(columns * matrices.itemsize, left.shape[1])
    dots = np.empty((panel, left.shape[1]), dtype=matrices.dtype)
    change = np.empty((3, _COLUMNS + _APART), dtype=matrices.dtype)
    many = columns * matrices.itemsize < _SHORT and where[1] - where[0] > 1
    for s in range(where[0], where[1]):
        moved, along, to = out[s], left[s], right[s]
        # Always on rows of one array: possible aliasing of two would prevent vectorisation.
        if in_place and many:
            change[0, _COLUMNS] = _read_through(moved)
        for i in range(rows[0], rows[1], panel):
            last = min(i + panel, rows[1])
            panel_rows = moved[i:last]
            if not in_place:
                for h in range(last - i):
                    row, copied = matrices[s, i + h], panel_rows[h]
                    for m in range(columns):
                        copied[m] = row[m]
            _dot_rows(panel_rows, along, dots)
            if to.shape[0] == 2:
                _change_by_two(panel_rows, dots, to[0], to[1])
            elif to.shape[0] == 4:
                _change_by_four(panel_rows, dots, to[0], to[1], to[2], to[3])
            else:
                _change_rows(panel_rows, dots, to, change)


@numba.njit(nogil=True, cache=True)
def _panel(row_bytes: int, width: int) -> int:
    """The rows of a panel: a block of a large matrix, more of a small one to save calls."""
    # Blocks of 3×4, 4×2 and 4×1.
    block = 4 if width < 4 else 12 if width % 4 else 3
    return max(block, min(60, _PANEL_BYTES // row_bytes // block * block))


@sums
def _read_through(rows: Floats) -> float:
    """Fetch rows into the cache; the returned sum keeps the loads from being optimised away."""
    total = rows.dtype.type(0)
    line = 64 // rows.itemsize
    for i in range(rows.shape[0]):
        row = rows[i]
        for m in range(0, row.shape[0], line):
            total += row[m]
    return total


@sums
def _add_rows(rows: Floats, weights: Floats, total: Floats) -> None:
    """total[j] += Σ_i weights[i, j] · rows[i]."""
    count, columns = rows.shape
    width = total.shape[0]
    whole = count // 4 * 4
    length = _LONG if width <= _FEW else _COLUMNS
    for first in range(0, columns, length):
        last = min(first + length, columns)
        j = 0
        while j + 4 <= width:
            s, t = total[j, first:last], total[j + 1, first:last]
            u, v = total[j + 2, first:last], total[j + 3, first:last]
            for i in range(0, whole, 4):
                a0, a1 = rows[i, first:last], rows[i + 1, first:last]
                a2, a3 = rows[i + 2, first:last], rows[i + 3, first:last]
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
                a0, a1 = rows[i, first:last], rows[i + 1, first:last]
                a2, a3 = rows[i + 2, first:last], rows[i + 3, first:last]
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
                a0, a1 = rows[i, first:last], rows[i + 1, first:last]
                a2, a3 = rows[i + 2, first:last], rows[i + 3, first:last]
                s0, s1, s2, s3 = weights[i, j], weights[i + 1, j], weights[i + 2, j], weights[i + 3, j]
                for m in range(last - first):
                    s[m] = s[m] + s0 * a0[m] + s1 * a1[m] + s2 * a2[m] + s3 * a3[m]
    for i in range(whole, count):
        for j in range(width):
            to, row, s0 = total[j], rows[i], weights[i, j]
            for m in range(columns):
                to[m] += s0 * row[m]


@sums
def _dot_rows(rows: Floats, left: Floats, dots: Floats) -> None:
    """dots[i, j] = rows[i] · left[j]."""
    count, columns = rows.shape
    width = left.shape[0]
    zero = rows.dtype.type(0)
    dots[:count] = 0
    length = _LONG if width <= _FEW else _COLUMNS
    for first in range(0, columns, length):
        last = min(first + length, columns)
        j = 0
        while j + 4 <= width:
            s, t = left[j, first:last], left[j + 1, first:last]
            u, v = left[j + 2, first:last], left[j + 3, first:last]
            whole = count // 3 * 3
            for i in range(0, whole, 3):
                a0, a1, a2 = rows[i, first:last], rows[i + 1, first:last], rows[i + 2, first:last]
                s0, s1, s2, t0, t1, t2 = zero, zero, zero, zero, zero, zero
                u0, u1, u2, v0, v1, v2 = zero, zero, zero, zero, zero, zero
                for m in range(last - first):
                    a, b, c = a0[m], a1[m], a2[m]
                    s0 += a * s[m]
                    s1 += b * s[m]
                    s2 += c * s[m]
                    t0 += a * t[m]
                    t1 += b * t[m]
                    t2 += c * t[m]
                    u0 += a * u[m]
                    u1 += b * u[m]
                    u2 += c * u[m]
                    v0 += a * v[m]
                    v1 += b * v[m]
                    v2 += c * v[m]
                for r, sum_s, sum_t, sum_u, sum_v in (
                    (i, s0, t0, u0, v0),
                    (i + 1, s1, t1, u1, v1),
                    (i + 2, s2, t2, u2, v2),
                ):
                    dots[r, j] += sum_s
                    dots[r, j + 1] += sum_t
                    dots[r, j + 2] += sum_u
                    dots[r, j + 3] += sum_v
            _dot_each(rows, whole, left, j, j + 4, first, last, dots)
            j += 4
        while j + 2 <= width:
            k = j + 1
            s, t = left[j, first:last], left[k, first:last]
            whole = count // 4 * 4
            for i in range(0, whole, 4):
                a0, a1 = rows[i, first:last], rows[i + 1, first:last]
                a2, a3 = rows[i + 2, first:last], rows[i + 3, first:last]
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
                for r, sum_s, sum_t in ((i, s0, t0), (i + 1, s1, t1), (i + 2, s2, t2), (i + 3, s3, t3)):
                    dots[r, j] += sum_s
                    dots[r, k] += sum_t
            _dot_each(rows, whole, left, j, j + 2, first, last, dots)
            j += 2
        if j < width:
            s = left[j, first:last]
            whole = count // 4 * 4
            for i in range(0, whole, 4):
                a0, a1 = rows[i, first:last], rows[i + 1, first:last]
                a2, a3 = rows[i + 2, first:last], rows[i + 3, first:last]
                s0, s1, s2, s3 = zero, zero, zero, zero
                for m in range(last - first):
                    s0 += a0[m] * s[m]
                    s1 += a1[m] * s[m]
                    s2 += a2[m] * s[m]
                    s3 += a3[m] * s[m]
                for r, sum_s in ((i, s0), (i + 1, s1), (i + 2, s2), (i + 3, s3)):
                    dots[r, j] += sum_s
            _dot_each(rows, whole, left, j, j + 1, first, last, dots)


@sums
def _dot_each(
    rows: Floats, top: int, left: Floats, start: int, stop: int, first: int, last: int, dots: Floats
) -> None:
    """The remaining rows, one by one."""
    for i in range(top, rows.shape[0]):
        for j in range(start, stop):
            row, column = rows[i, first:last], left[j, first:last]
            total = rows.dtype.type(0)
            for m in range(last - first):
                total += row[m] * column[m]
            dots[i, j] += total


@updates
def _change_by_two(rows: Floats, dots: Floats, u: Floats, v: Floats) -> None:
    """rows[i] += dots[i, 0] · u + dots[i, 1] · v, row by row for long contiguous writes."""
    for i in range(rows.shape[0]):
        row, p, q = rows[i], dots[i, 0], dots[i, 1]
        for m in range(row.shape[0]):
            row[m] += p * u[m] + q * v[m]


@updates
def _change_by_four(rows: Floats, dots: Floats, u: Floats, v: Floats, x: Floats, y: Floats) -> None:
    """The same with two more."""
    for i in range(rows.shape[0]):
        row, p, q, f, g = rows[i], dots[i, 0], dots[i, 1], dots[i, 2], dots[i, 3]
        for m in range(row.shape[0]):
            row[m] += p * u[m] + q * v[m] + f * x[m] + g * y[m]


@updates
def _change_rows(rows: Floats, dots: Floats, right: Floats, change: Floats) -> None:
    """rows[i] += Σ_j dots[i, j] · right[j], for any number of thin columns."""
    count, columns = rows.shape
    width = right.shape[0]
    whole = count // 3 * 3
    zero = rows.dtype.type(0)
    for first in range(0, columns, _COLUMNS):
        last = min(first + _COLUMNS, columns)
        length = last - first
        x, y, z = change[0, :length], change[1, :length], change[2, :length]
        for i in range(0, whole, 3):
            a0, a1, a2 = rows[i, first:last], rows[i + 1, first:last], rows[i + 2, first:last]
            # The first four columns initialise the change, the last ones add it to the rows.
            for j in range(0, width, 4):
                # Beyond the last column it is repeated with weight zero.
                f, g, h = min(j + 1, width - 1), min(j + 2, width - 1), min(j + 3, width - 1)
                s, t = right[j, first:last], right[f, first:last]
                u, v = right[g, first:last], right[h, first:last]
                s0, t0, u0, v0 = dots[i, j], dots[i, f], dots[i, g], dots[i, h]
                s1, t1, u1, v1 = dots[i + 1, j], dots[i + 1, f], dots[i + 1, g], dots[i + 1, h]
                s2, t2, u2, v2 = dots[i + 2, j], dots[i + 2, f], dots[i + 2, g], dots[i + 2, h]
                if j + 3 >= width:
                    v0, v1, v2 = zero, zero, zero
                if j + 2 >= width:
                    u0, u1, u2 = zero, zero, zero
                if j + 1 >= width:
                    t0, t1, t2 = zero, zero, zero
                if width <= 4:
                    for m in range(length):
                        a, b, c, d = s[m], t[m], u[m], v[m]
                        a0[m] += s0 * a + t0 * b + u0 * c + v0 * d
                        a1[m] += s1 * a + t1 * b + u1 * c + v1 * d
                        a2[m] += s2 * a + t2 * b + u2 * c + v2 * d
                elif j == 0:
                    for m in range(length):
                        a, b, c, d = s[m], t[m], u[m], v[m]
                        x[m] = s0 * a + t0 * b + u0 * c + v0 * d
                        y[m] = s1 * a + t1 * b + u1 * c + v1 * d
                        z[m] = s2 * a + t2 * b + u2 * c + v2 * d
                elif j + 4 < width:
                    for m in range(length):
                        a, b, c, d = s[m], t[m], u[m], v[m]
                        x[m] = x[m] + s0 * a + t0 * b + u0 * c + v0 * d
                        y[m] = y[m] + s1 * a + t1 * b + u1 * c + v1 * d
                        z[m] = z[m] + s2 * a + t2 * b + u2 * c + v2 * d
                else:
                    for m in range(length):
                        a, b, c, d = s[m], t[m], u[m], v[m]
                        a0[m] += x[m] + s0 * a + t0 * b + u0 * c + v0 * d
                        a1[m] += y[m] + s1 * a + t1 * b + u1 * c + v1 * d
                        a2[m] += z[m] + s2 * a + t2 * b + u2 * c + v2 * d
        for i in range(whole, count):
            x[:] = 0
            for j in range(width):
                s0, s = dots[i, j], right[j, first:last]
                for m in range(length):
                    x[m] += s0 * s[m]
            a0 = rows[i, first:last]
            for m in range(length):
                a0[m] += x[m]
