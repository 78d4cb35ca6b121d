"""A sketch of the tangent skew(L Rᴴ) of given factors, compiled: C and Q of k columns.

test rows ──products with A and Gram–Schmidt, several times──> basis B
B ──product with A──> A B ──Gram–Schmidt──> T in the basis [B, Q₂] ──rotation.py──> C, Q
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import RIGHT
from ..vectors.basis import clear, collect, copy, second_row
from ..vectors.blocks import ZERO, Range, add_rows, dot_rows
from ..vectors.compiling import inner, outer
from ..vectors.random import random_rows
from .descent import make_basis, make_tangent
from .planes import planes
from .rotation import Memory, Step, Work, turn, work_of

Floats = NDArray[Any]

_RIGHT: Any = np.int64(RIGHT)


@outer
def compress(
    left: Floats,
    right: Floats,
    out: Floats,
    counts: tuple[int, ...],
    memory: Memory,
    inside: tuple[Floats, Floats],
    products: int,
    where: Range,
) -> None:
    """The factors of a range of tangents, as rows in `out`; `products` with each before the last one.

    L and R are the real rows of matrices n×m, `inside` is memory for Rᴴw and its product with L.
    """
    step = Step(*counts)
    work = work_of(step, memory)
    stream = (step.high, step.low, _RIGHT, ZERO)
    for s in range(where[0], where[1]):
        random_rows(stream, s, (ZERO, ZERO), step.parts, work.along, ZERO, step.width, work.words)
        for product in range(products + 1):
            clear(work.total, step.width)
            _add_product(left[s], right[s], 0.5, step, work, inside)
            _add_product(right[s], left[s], -0.5, step, work, inside)
            if product < products:
                make_basis(step, work)
        make_tangent(step, work)
        planes(work.small, step.parts, step.pairs, work.dots, work.sizes)
        turn(step, work, 1.0)
        copy(work.left, ZERO, out[s], ZERO, 2 * step.pairs)


@inner
def _add_product(
    left: Floats, right: Floats, factor: float, step: Step, work: Work, inside: tuple[Floats, Floats]
) -> None:
    """total[j] += factor · L (Rᴴ w_j)."""
    width, parts, along, total = step.width, step.parts, work.along, work.total
    inner_rows, values = inside
    count = left.shape[0]
    clear(inner_rows, width)
    by = (parts, along.shape[1])
    add_rows(inner_rows, ZERO, inner_rows, ZERO, width, right, ZERO, count, along, ZERO, by)
    collect(inner_rows, ZERO, width, parts, factor)
    dot_rows(left, ZERO, count, inner_rows, ZERO, width, values, ZERO)
    for j in range(0, width, parts):
        for i in range(count):
            total[j, parts * i] += values[i, j]
            if parts == 2:
                total[j, 2 * i + 1] -= values[i, j + 1]
        if parts == 2:
            second_row(total, j)
