"""From a small matrix in an orthonormal basis to the rows that turn those of U.

planes of a skew-Hermitian T, or polar factor ──> L and R ──healing──> rotation of the rows. Thin columns are
real rows (basis.py).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ... import FACTORS, PROBES, UPDATES
from ..vectors.basis import clear, collect, copy, extend, scale
from ..vectors.blocks import ONE, PANEL, ZERO, add_rows, dot_rows
from ..vectors.compiling import inner
from ..vectors.random import random_rows
from .planes import Small

Floats = NDArray[Any]
Numbers = NDArray[Any]

# In numbers.
_APART = 48
_PROBES: Any = np.int64(PROBES)
_GEODESIC, _CAYLEY, POLAR = range(len(UPDATES))


class Step(NamedTuple):
    """The numbers of a step."""

    # Of the random key.
    high: int
    low: int
    # Numbers in an entry; rows of samples and of probes; planes.
    parts: int
    width: int
    made: int
    pairs: int
    update: int
    # Whether the tangent is that of body factors, and products with it beyond the two.
    body: int
    again: int
    # Columns of body factors that are given as columns and not as rows.
    turned: int


Memory = tuple[Floats, Floats, Floats, Numbers, NDArray[np.uint32], Floats]


class Work(NamedTuple):
    """What is made of one matrix, in its order; the memory of all of them."""

    # Columns to be multiplied, probes at the end, and their products.
    along: Floats
    total: Floats
    basis: Floats
    left: Floats
    right: Floats
    dots: Floats
    coordinates: Floats
    sizes: Floats
    small: Small
    words: NDArray[np.uint32]
    # Body factors as rows.
    thin: Floats


def memory_for(step: Step, n: int, dtype: Any) -> Memory:
    """The arrays of which `work_of` takes parts: a few large ones, since each costs time at every call."""
    _, _, parts, width, made, pairs, *_ = step
    m, turned = 2 * width // parts, 2 * (pairs + made)
    columns = parts * n
    # Rows that are 4096 bytes apart are taken to alias: zeros beyond their last column keep them off.
    apart = _APART if columns * np.dtype(dtype).itemsize % 4096 == 0 else 0
    made_rows = np.zeros if apart else np.empty
    return (
        made_rows((4 * width + 2 * made + 2 * turned, columns + apart), dtype),
        np.empty((2 * max(PANEL, width, made), turned + width), dtype),
        np.empty((2 * m + 6, parts * m)),
        np.empty((3, m, m), np.float64 if parts == 1 else np.complex128),
        np.empty((2, n), np.uint32),
        np.empty((2, step.turned, columns), dtype),
    )


def rows_of_total(step: Step) -> slice:
    """Where the products are in the first array of the memory."""
    return slice(step.width + step.made, 2 * (step.width + step.made))


@inner
def work_of(step: Step, memory: Memory) -> Work:
    rows, dots, numbers, T, words, thin = memory
    width, made, m = step.width, step.made, T.shape[1]
    total, basis, left = width + made, 2 * (width + made), 2 * (2 * width + made)
    right = left + 2 * (step.pairs + made)
    small = Small(T[0], T[1], T[2], numbers[m + 6 :], numbers[m + 1 : m + 6])
    return Work(
        rows[:total], rows[total:basis], rows[basis:left], rows[left:right], rows[right:],
        dots, numbers[:m], numbers[m], small, words, thin,
    )  # fmt: skip


@inner
def make_probes(step: Step, work: Work, place: int) -> None:
    """Orthonormal probes for one matrix of a stack, at the end of the columns to be multiplied.

    The basis is cleared first: NaN of the last matrix may lie beyond its last column.
    """
    made, basis = step.made, work.basis
    clear(basis, basis.shape[0])
    if made:
        stream = (step.high, step.low, _PROBES, ZERO)
        random_rows(stream, place, (ZERO, ZERO), step.parts, basis, ZERO, made, work.words)
        extend(basis, ZERO, made, step.parts, work.coordinates, work.dots)
        copy(basis, ZERO, work.along, step.width, made)


@inner
def turn(step: Step, work: Work, size: float) -> None:
    """L and R of the rotation by −η T, in its leading planes."""
    basis, left, right, dots, count = work.basis, work.left, work.right, work.dots, 2 * step.pairs
    clear(right, count)
    weights = (dots, ZERO, dots.shape[1], ONE)
    add_rows(right, ZERO, right, ZERO, count, basis, (ZERO, basis.shape[0]), weights)
    # Orthonormal to the rounding of their own dtype, the largest angles first.
    extend(right, ZERO, count, step.parts, work.coordinates, dots)
    if step.update == FACTORS:
        _factors(step.parts, step.pairs, work)
        return
    for r in range(0, count, 2):
        cosine, sine = _angle(size * work.sizes[r // 2], step.update)
        x, y, first, second = right[r], right[r + 1], left[r], left[r + 1]
        for m in range(x.shape[0]):
            first[m] = cosine * x[m] - sine * y[m]
            second[m] = cosine * y[m] + sine * x[m]


@inner
def place(step: Step, work: Work) -> None:
    """L and R of I + Q Y Qᴴ for the basis Q and a small Y, in as many columns as Q has: Q and Q Yᴴ."""
    basis, right, dots, Y, m = work.basis, work.right, work.dots, work.small.T, work.small.T.shape[0]
    for i in range(m):
        for j in range(m):
            x, y = Y[j, i].real, -Y[j, i].imag
            if step.parts == 1:
                dots[i, j] = x
            else:
                dots[2 * i, 2 * j], dots[2 * i + 1, 2 * j] = x, -y
                dots[2 * i, 2 * j + 1], dots[2 * i + 1, 2 * j + 1] = y, x
    count = step.parts * m
    copy(basis, ZERO, work.left, ZERO, count)
    clear(right, count)
    weights = (dots, ZERO, dots.shape[1], ONE)
    add_rows(right, ZERO, right, ZERO, count, basis, (ZERO, count), weights)


@inner
def _factors(parts: int, pairs: int, work: Work) -> None:
    """C and Q, one after the other in place of L, with skew(C Qᴴ) = T in its planes (tangent/planes.py)."""
    left, right, sizes = work.left, work.right, work.sizes
    half = pairs if parts == 1 else 2 * (pairs // 2)
    for r in range(pairs):
        size = math.sqrt((3.0 - parts) * abs(sizes[r]))
        x, y = right[2 * r], right[2 * r + 1]
        for m in range(x.shape[0]):
            if parts == 1:
                left[r, m], left[half + r, m] = size * y[m], size * x[m]
            elif r % 2 == 0:
                left[r, m], left[r + 1, m] = size * y[m], -size * x[m]
                left[half + r, m], left[half + r + 1, m] = size * x[m], size * y[m]
            else:
                left[r - 1, m] += size * y[m]
                left[r, m] -= size * x[m]
                left[half + r - 1, m] -= size * x[m]
                left[half + r, m] -= size * y[m]


@inner
def _angle(theta: float, update: int) -> tuple[float, float]:
    """Cos φ − 1 and sin φ of the angle by which a plane turns, in which nothing cancels at small θ."""
    if update == _GEODESIC:
        return -2.0 * math.sin(0.5 * theta) ** 2, math.sin(theta)
    half = 0.5 * theta if update == _CAYLEY else theta
    hypotenuse = math.hypot(1.0, half)
    cosine, sine = 1.0 / hypotenuse, half / hypotenuse
    if update == _CAYLEY:
        return -2.0 * sine * sine, 2.0 * sine * cosine
    return -sine * (half / (1.0 + hypotenuse)), sine


@inner
def heal(step: Step, work: Work) -> None:
    """Healing before the rotation, (I + H₁H₂ᴴ)(I + LRᴴ), as in heal.healing_rotation; its rows come last."""
    made, dots, left, right, count = step.made, work.dots, work.left, work.right, 2 * step.pairs
    if made == 0:
        return
    collect(work.total, step.width, made, step.parts, 1.0)
    weights, norm = (dots, ZERO, dots.shape[1], ONE), 0.0
    for j in range(made):
        along, total = work.along[step.width + j], work.total[step.width + j]
        first, second = left[count + j], left[count + made + j]
        across, back = right[count + j], right[count + made + j]
        for m in range(left.shape[1]):
            z = along[m]
            d = total[m] - z
            first[m], second[m], across[m], back[m] = z, d, d, z
            norm += d * d / step.parts
    dot_rows(left, count, made, right, count, made, dots, ZERO)
    shortened = -0.5 / math.sqrt(1.0 + norm)
    for i in range(made):
        for j in range(made):
            dots[i, j] = -dots[i, j]
    add_rows(right, count, right, count, made, left, (count, made), weights)
    for j in range(count, count + 2 * made):
        scale(right[j], shortened)
    dot_rows(right, count, 2 * made, left, ZERO, count, dots, ZERO)
    add_rows(left, ZERO, left, ZERO, count, left, (count, 2 * made), weights)
