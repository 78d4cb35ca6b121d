"""Serial kernels on real rows: panels of rows that stay in cache, by blocks that stay in registers.

A block makes eight to sixteen multiply-adds of six to ten loads, which is bound by arithmetic and not by
the caches. A few rows of a matrix are given by the first and their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiling import inner, outer
from .simd import TALL, WIDE, dots_of, sums_of

Floats = NDArray[Any]
Range = tuple[int, int]
# An array, where in its memory they begin, and the steps from row to row and from sum to sum.
Weights = tuple[Floats, int, int, int]

# Rows at a time, and their bytes: they stay in the second-level cache between their dot products and what is
# made of them.
PANEL = 4 * TALL
_PANEL_BYTES = 1 << 18
# Columns at a time: four rows of them stay in the first-level cache.
_COLUMNS = 1024

# Literals would be types of their own: a function called with 0 and with 1 would be compiled twice.
ZERO: Any = np.int64(0)
ONE: Any = np.int64(1)

_dots_4, _dots_2, _dots_1, _dot = dots_of(TALL, 4), dots_of(TALL, 2), dots_of(TALL, 1, 2), dots_of(1, 1, 2)
_sums_wide, _sums_4, _sums_2, _sums_1 = sums_of(WIDE), sums_of(4), sums_of(2), sums_of(1)


@inner
def dot_rows(
    rows: Floats, first: int, count: int, left: Floats, start: int, width: int, out: Floats, o: int
) -> None:
    """out[o + i, j] = rows[first + i] · left[start + j]."""
    for i in range(o, o + count):
        for j in range(width):
            out[i, j] = 0
    length = min(rows.shape[1], left.shape[1])
    for top in range(0, length, _COLUMNS):
        columns = (top, min(top + _COLUMNS, length))
        j = 0
        while j < width:
            wide = 4 if width - j >= 4 else 2 if width - j >= 2 else 1
            i = 0
            while i < count:
                if i + TALL > count:
                    for p in range(j, j + wide):
                        _dot(rows, first + i, left, start + p, out, o + i, p, columns)
                    i += 1
                    continue
                if wide == 4:
                    _dots_4(rows, first + i, left, start + j, out, o + i, j, columns)
                elif wide == 2:
                    _dots_2(rows, first + i, left, start + j, out, o + i, j, columns)
                else:
                    _dots_1(rows, first + i, left, start + j, out, o + i, j, columns)
                i += TALL
            j += wide


@inner
def add_rows(
    out: Floats,
    o: int,
    base: Floats,
    b: int,
    width: int,
    rows: Floats,
    some: Range,
    weights: Weights,
) -> None:
    """out[o + j] = base[b + j] + Σ_i w_ij rows[start + i], `some` the start and the number of the rows."""
    length, (array, at, by_row, by_sum) = min(rows.shape[1], out.shape[1]), weights
    for top in range(0, length, _COLUMNS):
        columns = (top, min(top + _COLUMNS, length))
        j = 0
        while j < width:
            here = (array, at + j * by_sum, by_row, by_sum)
            if j + WIDE <= width:
                _sums_wide(out, o + j, base, b + j, rows, some, here, columns)
                j += WIDE
            elif j + 4 <= width:
                _sums_4(out, o + j, base, b + j, rows, some, here, columns)
                j += 4
            elif j + 2 <= width:
                _sums_2(out, o + j, base, b + j, rows, some, here, columns)
                j += 2
            else:
                _sums_1(out, o + j, base, b + j, rows, some, here, columns)
                j += 1


@inner
def panel_rows(matrix: Floats) -> int:
    """The rows of a panel."""
    return TALL * max(1, min(4, _PANEL_BYTES // (TALL * matrix.shape[1] * matrix.itemsize)))


@outer
def gather(
    matrices: Floats, weights: Floats, probes: Floats, total: Floats, dots: Floats, where: Range, rows: Range
) -> None:
    """total[s, j] += Σ_i weights[s, i, j] matrices[s, i], for a range of matrices and of their rows.

    Further weights are the products of the row with the probes. `dots` is memory for those of a panel.
    """
    for s in range(where[0], where[1]):
        pull_rows(matrices[s], weights[s], probes[s], ZERO, probes.shape[1], total[s], dots, rows)


@inner
def pull_rows(
    matrix: Floats,
    weights: Floats,
    probes: Floats,
    start: int,
    made: int,
    total: Floats,
    dots: Floats,
    rows: Range,
) -> None:
    """The same for one matrix, with `made` probes from row `start` on."""
    given, panel = weights.shape[1], panel_rows(matrix)
    for top in range(rows[0], rows[1], panel):
        count = min(panel, rows[1] - top)
        add_rows(total, ZERO, total, ZERO, given, matrix, (top, count), (weights, top * given, given, ONE))
        if made:
            dot_rows(matrix, top, count, probes, start, made, dots, ZERO)
            add_rows(total, given, total, given, made, matrix, (top, count), (dots, ZERO, dots.shape[1], ONE))


@outer
def look(matrices: Floats, left: Floats, out: Floats, where: Range, rows: Range) -> None:
    """out[s, i, j] = matrices[s, i] · left[s, j], for ranges of s and i."""
    for s in range(where[0], where[1]):
        dot_rows(matrices[s], rows[0], rows[1] - rows[0], left[s], 0, left.shape[1], out[s], rows[0])


@outer
def rotate(
    matrices: Floats, left: Floats, right: Floats, out: Floats, dots: Floats, where: Range, rows: Range
) -> None:
    """out[s, i] = matrices[s, i] + Σ_j (matrices[s, i] · left[s, j]) right[s, j], for ranges of s and i."""
    for s in range(where[0], where[1]):
        turn_rows(matrices[s], left[s], right[s], left.shape[1], out[s], dots, rows[0], rows[1])


@outer
def rotate_and_add(
    matrices: Floats,
    left: Floats,
    right: Floats,
    outside: Floats,
    out: Floats,
    dots: Floats,
    where: Range,
    rows: Range,
) -> None:
    """The same with matrices[s, i] · left[s, j] + outside[s, i, j] in place of the product alone."""
    width = left.shape[1]
    for s in range(where[0], where[1]):
        matrix = matrices[s]
        panel = panel_rows(matrix)
        for top in range(rows[0], rows[1], panel):
            count = min(panel, rows[1] - top)
            dot_rows(matrix, top, count, left[s], ZERO, width, dots, ZERO)
            for i in range(count):
                for j in range(width):
                    dots[i, j] += outside[s, top + i, j]
            inside = (dots, ZERO, ONE, dots.shape[1])
            add_rows(out[s], top, matrix, top, count, right[s], (ZERO, width), inside)


@inner
def turn_rows(
    matrix: Floats, left: Floats, right: Floats, width: int, out: Floats, dots: Floats, first: int, end: int
) -> None:
    """The same for one matrix, with the first `width` rows of L and R."""
    panel = panel_rows(matrix)
    for top in range(first, end, panel):
        count = min(panel, end - top)
        dot_rows(matrix, top, count, left, ZERO, width, dots, ZERO)
        add_rows(out, top, matrix, top, count, right, (ZERO, width), (dots, ZERO, ONE, dots.shape[1]))
