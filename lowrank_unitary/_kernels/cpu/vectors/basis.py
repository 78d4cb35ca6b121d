"""Thin columns as real rows, and orthonormal bases of them.

A complex column w stands as two rows, (re, −im) and (im, re) entry by entry, as in real.dual_rows. A sum of
such pairs with real weights is one of columns with complex weights, so that real algebra serves both.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .blocks import ONE, ZERO, add_rows, dot_rows
from .compiling import inner

Floats = NDArray[Any]

# Passes of Gram–Schmidt: a second suffices for columns that are independent to rounding.
_PASSES = 4


@inner
def second_row(rows: Floats, j: int) -> None:
    """Row j + 1, the second of a complex column, from row j."""
    first, second = rows[j], rows[j + 1]
    for m in range(0, first.shape[0], 2):
        second[m] = -first[m + 1]
        second[m + 1] = first[m]


@inner
def conjugate(rows: Floats, count: int, parts: int) -> None:
    """The first rows become those of the conjugate columns."""
    if parts == 2:
        for j in range(0, count, 2):
            first, second = rows[j], rows[j + 1]
            for m in range(0, first.shape[0] - 1, 2):
                first[m + 1] = -first[m + 1]
                second[m] = -second[m]


@inner
def collect(rows: Floats, start: int, count: int, parts: int, factor: float) -> None:
    """Rows of columns factor · Σ conj(row) weight, in place, from real sums with all parts of the weights."""
    for j in range(start, start + count, parts):
        a, b = rows[j], rows[j + parts - 1]
        if parts == 1:
            scale(a, factor)
            continue
        for m in range(0, a.shape[0] - 1, 2):
            real, imag = factor * (a[m] + b[m + 1]), factor * (b[m] - a[m + 1])
            a[m], a[m + 1], b[m], b[m + 1] = real, -imag, imag, real


@inner
def extend(rows: Floats, start: int, count: int, parts: int, coordinates: Floats, dots: Floats) -> None:
    """Orthonormalise rows from `start` to `count` against each other and all before, in place.

    coordinates[j] are the weights of all rows in what was the j-th column. A column that depends on those
    before it becomes zero. NaN stays in its column and goes into all later ones.
    """
    least = 4.0 * np.finfo(rows.dtype).eps
    for j in range(start, count, parts):
        coordinates[j // parts] = 0.0
    together = start > 0 and _project(rows, start, count, parts, coordinates, dots)
    for j in range(start, count, parts):
        weights, unit, first = coordinates[j // parts], 1.0, ZERO
        if together:
            # The norm before the projection.
            size, first = weights[j], start
        else:
            size = _look(rows, j, dots)
            if not _in_range(size):
                unit = _unit(rows[j])
                scale(rows[j], 1.0 / unit)
                size = _look(rows, j, dots)
        length = size
        for turn in range(_PASSES):
            if j == 0:
                break
            before = length
            if turn or together:
                dot_rows(rows, first, j - first, rows, j, ONE, dots, ZERO)
            for i in range(first, j):
                weights[i] += unit * dots[i - first, 0]
                dots[i - first, 0] = -dots[i - first, 0]
            add_rows(rows, j, rows, j, ONE, rows, (first, j - first), (dots, ZERO, dots.shape[1], ONE))
            first, length = ZERO, _norm(rows, j, dots)
            if not length <= 0.7 * before:
                break
        if length <= least * size:
            weights[j] = 0.0
            scale(rows[j], 0.0)
        else:
            weights[j] = unit * length
            scale(rows[j], 1.0 / length)
        if parts == 2:
            second_row(rows, j)


@inner
def _project(rows: Floats, start: int, count: int, parts: int, coordinates: Floats, dots: Floats) -> bool:
    """A first pass of all columns from `start` on against those before, at once, which is faster.

    False, and no row is changed, where a norm is out of range; else it is kept as the column's own weight.
    """
    for j in range(start, count, parts):
        size = _norm(rows, j, dots)
        if not _in_range(size):
            return False
        coordinates[j // parts, j] = size
    dot_rows(rows, ZERO, start, rows, start, count - start, dots, ZERO)
    for j in range(start, count):
        for i in range(start):
            if (j - start) % parts == 0:
                coordinates[j // parts, i] = dots[i, j - start]
            dots[i, j - start] = -dots[i, j - start]
    inside = (dots, ZERO, dots.shape[1], ONE)
    add_rows(rows, start, rows, start, count - start, rows, (ZERO, start), inside)
    if parts == 2:
        for j in range(start, count, 2):
            second_row(rows, j)
    return True


@inner
def _in_range(size: float) -> bool:
    """Whether squares neither overflow nor underflow in single precision, in this form False for NaN."""
    return 1e-12 < size < 1e12


@inner
def _look(rows: Floats, j: int, dots: Floats) -> float:
    """The products of row j with those before, in `dots`, and its norm."""
    dot_rows(rows, ZERO, j + 1, rows, j, ONE, dots, ZERO)
    return math.sqrt(dots[j, 0])


@inner
def _norm(rows: Floats, j: int, dots: Floats) -> float:
    dot_rows(rows, j, ONE, rows, j, ONE, dots, ZERO)
    return math.sqrt(dots[0, 0])


@inner
def scale(row: Floats, factor: float) -> None:
    """In place."""
    for m in range(row.shape[0]):
        row[m] *= factor


@inner
def _unit(row: Floats) -> float:
    """The power of two just above the largest entry, where its inverse is in range; 1 for zero and NaN."""
    largest = 0.0
    for m in range(row.shape[0]):
        largest = max(largest, abs(row[m]))
    if not 0.0 < largest < np.inf:
        return 1.0
    return max(2.0 ** math.ceil(math.log2(largest)), 4.0 * np.finfo(row.dtype).tiny)


# By rows: with two indices numba allows for negative ones, and the loop is not vectorised.
@inner
def copy(rows: Floats, start: int, to: Floats, o: int, count: int) -> None:
    """Some rows to another place, as far as both go."""
    for j in range(count):
        source, target = rows[start + j], to[o + j]
        for m in range(min(rows.shape[1], to.shape[1])):
            target[m] = source[m]


@inner
def clear(rows: Floats, count: int) -> None:
    """The first rows become zero."""
    for j in range(count):
        row = rows[j]
        for m in range(row.shape[0]):
            row[m] = 0.0


@inner
def transpose(columns: Floats, parts: int, rows: Floats) -> None:
    """Columns as rows, entries of several numbers each."""
    for i in range(columns.shape[0]):
        source = columns[i]
        for j in range(rows.shape[0]):
            if parts == 1:
                rows[j, i] = source[j]
            else:
                rows[j, 2 * i], rows[j, 2 * i + 1] = source[2 * j], source[2 * j + 1]
