"""A whole step from factors of several columns, compiled.

U exp(skew(c bᴴ)) with c = Uᴴa, or its Cayley form, or U polar(I + c bᴴ).

a and probes ──one read of U──> c and Uᴴ(U Z)
[b, c] ──Gram–Schmidt──> basis and coordinates ──> X = c bᴴ in the basis ──planes or polar factor──> rotation
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..vectors.basis import clear, collect, copy, extend
from ..vectors.blocks import ZERO, Range, pull_rows, turn_rows
from ..vectors.compiling import inner, outer
from .planes import planes
from .polar import polar_change
from .rotation import POLAR, Memory, Step, Work, heal, make_probes, place, turn, work_of

Floats = NDArray[Any]

# The range of the factors, and of those of a polar step: its small matrix has to hold sums with 1.
SMALLEST, LARGEST, LARGEST_POLAR = 2.0**-80, 2.0**80, 2.0**20

# The parts of a step, which are run from one to another.
BEGIN, PRODUCT, TURN, ROTATE, END = range(5)


@outer
def transport(
    stacks: tuple[Floats, Floats, Floats, Floats],
    counts: tuple[int, ...],
    memory: Memory,
    parts: Range,
    where: Range,
    rows: Range,
) -> None:
    """Parts of the step, as in descent.descend: stacks of matrices, the rows of a, b as rows, and results."""
    matrices, weights, right, out = stacks
    step = Step(*counts)
    work = work_of(step, memory)
    for s in range(where[0], where[1]):
        matrix = matrices[s]
        for part in range(parts[0], parts[1]):
            if part == BEGIN:
                make_probes(step, work, s)
                copy(right[s], ZERO, work.basis, ZERO, step.width)
                clear(work.total, step.width + step.made)
            elif part == PRODUCT:
                pull_rows(matrix, weights[s], work.along, step.width, step.made, work.total, work.dots, rows)
            elif part == TURN:
                collect(work.total, ZERO, step.width, step.parts, 1.0)
                copy(work.total, ZERO, work.basis, step.width, step.width)
                if step.update == POLAR:
                    make_product(step, work)
                    polar_change(work.small)
                    place(step, work)
                else:
                    make_tangent(step, work)
                    planes(work.small, step.parts, step.pairs, work.dots, work.sizes)
                    turn(step, work, -1.0)
                heal(step, work)
            else:
                width = 2 * (step.made + step.pairs)
                turn_rows(matrix, work.left, work.right, width, out[s], work.dots, rows[0], rows[1])


@outer
def in_range(weights: Floats, most: float) -> bool:
    """Whether every column of a stack is zero or has a largest entry between SMALLEST and `most`."""
    for s in range(weights.shape[0]):
        for j in range(weights.shape[2]):
            largest = 0.0
            for i in range(weights.shape[1]):
                size = abs(weights[s, i, j])
                # In this form also for NaN.
                if not size <= largest:
                    largest = size
            if largest != 0.0 and not SMALLEST < largest < most:
                return False
    return True


@inner
def make_product(step: Step, work: Work) -> None:
    """From the rows [b, c] to X = Σ_j c_j b_jᴴ in an orthonormal basis, in their place."""
    width, parts, basis, numbers = step.width, step.parts, work.basis, work.coordinates
    extend(basis, ZERO, width, parts, numbers, work.dots)
    extend(basis, width, 2 * width, parts, numbers, work.dots)
    X, count = work.small.T.view(np.float64), width // parts
    X[:] = 0.0
    for j in range(count):
        b, c = numbers[j], numbers[count + j]
        for i in range(2 * count):
            row = X[i]
            for o in range(2 * count):
                if parts == 1:
                    row[o] += c[i] * b[o]
                else:
                    # The second part of a coordinate is minus its imaginary one.
                    row[2 * o] += c[2 * i] * b[2 * o] + c[2 * i + 1] * b[2 * o + 1]
                    row[2 * o + 1] += c[2 * i] * b[2 * o + 1] - c[2 * i + 1] * b[2 * o]


@inner
def make_tangent(step: Step, work: Work) -> None:
    """The same, and T = (X − Xᴴ)/2."""
    make_product(step, work)
    T = work.small.T
    for i in range(T.shape[0]):
        for o in range(i + 1):
            x, y = T[i, o], T[o, i]
            T[i, o], T[o, i] = 0.5 * (x - np.conj(y)), 0.5 * (y - np.conj(x))
