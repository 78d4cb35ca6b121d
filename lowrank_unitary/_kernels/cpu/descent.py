"""A whole descent step, compiled: U (I + L Rᴴ) from U, its gradient and a seed.

    test rows ──products with A──> samples ──Gram–Schmidt──> basis B
    B and probes ──products with A──> A B and Uᴴ(U Z) ──Gram–Schmidt──> T in the basis [B, Q₂]
    T ──planes, angles──> L and R ──healing──> rotation of the rows

A = (UᴴG − GᴴU)/2 is the tangent. Thin columns are real rows (basis.py).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import PROBES, RIGHT, UPDATES
from .basis import collect, extend
from .blocks import PANEL, Range, add_rows, dot_rows, glue, ZERO, outer, panel_rows, turn_rows
from .planes import Small, planes
from .random import random_rows

Floats = NDArray[Any]
Numbers = NDArray[Any]

_RIGHT, _PROBES = np.int64(RIGHT), np.int64(PROBES)
_GEODESIC, _CAYLEY, _POLAR = range(len(UPDATES))

_PANEL = np.int64(PANEL)
# The parts of a step, which are run from one to another.
BEGIN, FIRST_PRODUCT, MIDDLE, SECOND_PRODUCT, TURN, ROTATE, END = range(7)


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


Memory = tuple[Floats, Floats, Floats, Numbers, NDArray[np.uint32]]


class Work(NamedTuple):
    """What is made of one matrix, in its order; the memory of all of them."""

    # Test rows, then the basis; probes at the end. The products with them.
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


def memory_for(step: Step, n: int, dtype: Any) -> Memory:
    """The arrays of which `_work` takes parts: a few large ones, since each costs time at every call."""
    _, _, parts, width, made, pairs, _ = step
    m, turned = 2 * width // parts, 2 * (pairs + made)
    return (
        np.empty((4 * width + 2 * made + 2 * turned, parts * n), dtype),
        np.empty((max(2 * PANEL, 2 * width), turned + width), dtype),
        np.empty((2 * m + 8, parts * m)),
        np.empty((2, m, m), np.float64 if parts == 1 else np.complex128),
        np.empty((2, n), np.uint32),
    )


def rows_of_total(step: Step) -> slice:
    """Where the products are in the first array of the memory."""
    return slice(step.width + step.made, 2 * (step.width + step.made))


@glue
def _work(step: Step, memory: Memory) -> Work:
    rows, dots, numbers, T, words = memory
    width, made, m = step.width, step.made, T.shape[1]
    total, basis, left = width + made, 2 * (width + made), 2 * (2 * width + made)
    right = left + 2 * (step.pairs + made)
    return Work(
        rows[:total], rows[total:basis], rows[basis:left], rows[left:right], rows[right:],
        dots, numbers[:m], numbers[m], Small(T[0], T[1], numbers[m + 8 :], numbers[m + 1 : m + 8]), words,
    )  # fmt: skip


@outer
def descend(
    matrices: Floats,
    gradients: Floats,
    sizes: Floats,
    out: Floats,
    counts: tuple[int, ...],
    memory: Memory,
    parts: Range,
    where: Range,
    rows: Range,
) -> None:
    """Parts of the step for a range of matrices, or for some of the rows of one.

    Matrix by matrix, each in cache for all traversals. `sizes` are the step sizes, `counts` a Step.
    """
    step = Step(*counts)
    work = _work(step, memory)
    for s in range(where[0], where[1]):
        matrix, gradient = matrices[s], gradients[s]
        for part in range(parts[0], parts[1]):
            if part == BEGIN:
                _begin(step, work, s)
            elif part == FIRST_PRODUCT:
                _product(matrix, gradient, step.width, step.width, work, rows)
            elif part == MIDDLE:
                _middle(step, work)
            elif part == SECOND_PRODUCT:
                _product(matrix, gradient, step.width, step.width + step.made, work, rows)
            elif part == TURN:
                _turn(step, work, sizes[s])
            else:
                width = 2 * (step.made + step.pairs)
                turn_rows(matrix, work.left, work.right, width, out[s], work.dots, rows[0], rows[1])


@glue
def _product(matrix: Floats, gradient: Floats, paired: int, width: int, work: Work, rows: Range) -> None:
    """total[j] += Σ_i (g_i · w_j) u_i − (u_i · w_j) g_i over a range of rows, each read once.

    From w_j with j = `paired` on, total[j] += Σ_i (u_i · w_j) u_i.
    """
    along, total, dots = work.along, work.total, work.dots
    panel = panel_rows(matrix)
    by = (dots.shape[1], 1)
    for top in range(rows[0], rows[1], panel):
        count = min(panel, rows[1] - top)
        dot_rows(matrix, top, count, along, ZERO, width, dots, ZERO)
        dot_rows(gradient, top, count, along, ZERO, paired, dots, _PANEL)
        for i in range(count):
            for j in range(paired):
                dots[i, j], dots[PANEL + i, j] = dots[PANEL + i, j], -dots[i, j]
        add_rows(total, ZERO, total, ZERO, width, matrix, top, count, dots, ZERO, by)
        add_rows(total, ZERO, total, ZERO, paired, gradient, top, count, dots, PANEL * by[0], by)


@glue
def _begin(step: Step, work: Work, place: int) -> None:
    """Test rows and orthonormal probes for one matrix of a stack."""
    high, low, begin = step.high, step.low, (ZERO, ZERO)
    random_rows((high, low, _RIGHT, False), place, begin, work.along, ZERO, step.width, work.words)
    if step.made:
        random_rows((high, low, _PROBES, True), place, begin, work.along, step.width, step.made, work.words)
        # Probes are made orthonormal at the place of the basis.
        _copy(work.along, step.width, work.basis, ZERO, step.made)
        extend(work.basis, ZERO, step.made, step.parts, work.coordinates, work.dots)
        _copy(work.basis, ZERO, work.along, step.width, step.made)
    _clear(work.total, step.width + step.made)


@glue
def _middle(step: Step, work: Work) -> None:
    """From the products with the test rows to the basis, which takes their place."""
    collect(work.total, ZERO, step.width, step.parts, 0.5)
    _copy(work.total, ZERO, work.basis, ZERO, step.width)
    extend(work.basis, ZERO, step.width, step.parts, work.coordinates, work.dots)
    _copy(work.basis, ZERO, work.along, ZERO, step.width)
    _clear(work.total, step.width + step.made)


@glue
def _turn(step: Step, work: Work, size: float) -> None:
    """From the products with the basis and the probes to the rows that turn those of U."""
    width, made, parts, basis = step.width, step.made, step.parts, work.basis
    collect(work.total, ZERO, width, parts, 0.5)
    collect(work.total, width, made, parts, 1.0)
    _copy(work.total, ZERO, basis, width, width)
    extend(basis, width, 2 * width, parts, work.coordinates, work.dots)
    _tangent_in_basis(work.coordinates, width // parts, parts, work.small.T.view(np.float64))
    _rotation(step, work, size)
    if made:
        _heal(step, work)


@glue
def _tangent_in_basis(coordinates: Floats, count: int, parts: int, T: Floats) -> None:
    """T = [[H, −Sᴴ], [S, 0]] from the coordinates [H, S] of A B in the basis [B, Q₂]; H made skew."""
    T[:] = 0.0
    for j in range(count):
        for i in range(2 * count):
            share = 0.5 if i < count else 1.0
            real = share * coordinates[count + j, parts * i]
            T[i, parts * j] += real
            T[j, parts * i] -= real
            if parts == 2:
                imag = -share * coordinates[count + j, 2 * i + 1]
                T[i, 2 * j + 1] += imag
                T[j, 2 * i + 1] += imag


@glue
def _rotation(step: Step, work: Work, size: float) -> None:
    """L and R of the rotation by −η T, in its leading planes."""
    basis, left, right, dots, count = work.basis, work.left, work.right, work.dots, 2 * step.pairs
    planes(work.small, step.parts, step.pairs, dots, work.sizes)
    _clear(right, count)
    add_rows(right, ZERO, right, ZERO, count, basis, ZERO, basis.shape[0], dots, ZERO, (dots.shape[1], 1))
    # Orthonormal to the rounding of their own dtype, the largest angles first.
    extend(right, ZERO, count, step.parts, work.coordinates, dots)
    for r in range(0, count, 2):
        cosine, sine = _angle(size * work.sizes[r // 2], step.update)
        x, y = right[r], right[r + 1]
        for m in range(x.shape[0]):
            left[r, m] = cosine * x[m] - sine * y[m]
            left[r + 1, m] = cosine * y[m] + sine * x[m]


@glue
def _angle(theta: float, update: int) -> tuple[float, float]:
    """cos φ − 1 and sin φ of the angle by which a plane turns, in which nothing cancels at small θ."""
    if update == _GEODESIC:
        return -2.0 * math.sin(0.5 * theta) ** 2, math.sin(theta)
    half = 0.5 * theta if update == _CAYLEY else theta
    hypotenuse = math.hypot(1.0, half)
    cosine, sine = 1.0 / hypotenuse, half / hypotenuse
    if update == _CAYLEY:
        return -2.0 * sine * sine, 2.0 * sine * cosine
    return -sine * (half / (1.0 + hypotenuse)), sine


@glue
def _heal(step: Step, work: Work) -> None:
    """Healing before the rotation, (I + H₁H₂ᴴ)(I + LRᴴ), as in heal.healing_rotation; its rows come last."""
    made, dots, left, right, count = step.made, work.dots, work.left, work.right, 2 * step.pairs
    by, norm = (dots.shape[1], 1), 0.0
    for j in range(count, count + made):
        for m in range(left.shape[1]):
            z = work.along[step.width + j - count, m]
            d = work.total[step.width + j - count, m] - z
            left[j, m], left[made + j, m], right[j, m], right[made + j, m] = z, d, d, z
            norm += d * d / step.parts
    dot_rows(left, count, made, right, count, made, dots, ZERO)
    shortened = -0.5 / math.sqrt(1.0 + norm)
    for i in range(made):
        for j in range(made):
            dots[i, j] = -dots[i, j]
    add_rows(right, count, right, count, made, left, count, made, dots, ZERO, by)
    for j in range(count, count + 2 * made):
        for m in range(left.shape[1]):
            right[j, m] *= shortened
    dot_rows(right, count, 2 * made, left, ZERO, count, dots, ZERO)
    add_rows(left, ZERO, left, ZERO, count, left, count, 2 * made, dots, ZERO, by)


@glue
def _copy(rows: Floats, start: int, to: Floats, o: int, count: int) -> None:
    for j in range(count):
        for m in range(rows.shape[1]):
            to[o + j, m] = rows[start + j, m]


@glue
def _clear(rows: Floats, count: int) -> None:
    for j in range(count):
        for m in range(rows.shape[1]):
            rows[j, m] = 0.0
