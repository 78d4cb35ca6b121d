"""A whole descent step, compiled: U (I + L Rᴴ) from U, its gradient and a seed.

    test rows ──products with A──> samples ──Gram–Schmidt──> basis B
    B and probes ──products with A──> A B, Uᴴ(U Z) ──Gram–Schmidt──> T in the basis [B, Q₂] ──rotation.py──>

A = (FᴴG − GᴴF)/2 is the tangent of two stacks of rows F and G: of U itself and its gradient, or of body
factors c and b as F = cᵀ and G = bᵀ, which give its conjugate, A*.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import FACTORS, RIGHT
from ..vectors.basis import clear, collect, conjugate, copy, extend, transpose
from ..vectors.blocks import ONE, PANEL, ZERO, Range, add_rows, dot_rows, panel_rows, turn_rows
from ..vectors.compiling import inner, outer
from ..vectors.random import random_rows
from .planes import planes
from .rotation import Memory, Step, Work, heal, make_probes, turn, work_of

Floats = NDArray[Any]

_RIGHT: Any = np.int64(RIGHT)
_PANEL: Any = np.int64(PANEL)

# The parts of a step, which are run from one to another.
BEGIN, FIRST_PRODUCT, MIDDLE, SECOND_PRODUCT, TURN, ROTATE, END = range(7)


@outer
def descend(
    stacks: tuple[Floats, Floats, Floats, Floats, Floats],
    counts: tuple[int, ...],
    memory: Memory,
    parts: Range,
    where: Range,
    rows: Range,
) -> None:
    """Parts of the step for a range of matrices, or for some of the rows of one.

    Matrix by matrix, each in cache for all traversals. `stacks` holds the matrices, F, G, the step sizes and
    the results: for FACTORS the rows of C and then those of Q. F and G of body factors, which may be given as
    columns, are used as a whole and not by rows. `counts` are a Step.
    """
    matrices, fronts, gradients, sizes, out = stacks
    step = Step(*counts)
    work = work_of(step, memory)
    stream = (step.high, step.low, _RIGHT, ZERO)
    for s in range(where[0], where[1]):
        matrix, front, gradient = matrices[s], fronts[s], gradients[s]
        if step.turned:
            front, gradient = work.thin[0], work.thin[1]
        some = (ZERO, front.shape[0]) if step.body else rows
        for part in range(parts[0], parts[1]):
            if part == BEGIN:
                if step.turned:
                    transpose(fronts[s], step.parts, front)
                    transpose(gradients[s], step.parts, gradient)
                random_rows(stream, s, (ZERO, ZERO), step.parts, work.along, ZERO, step.width, work.words)
                if step.body:
                    conjugate(work.along, step.width, step.parts)
                make_probes(step, work, s)
                clear(work.total, step.width + step.made)
            elif part == FIRST_PRODUCT:
                _product(front, gradient, step.width, step.width, work, some)
            elif part == MIDDLE:
                for _ in range(step.again):
                    collect(work.total, ZERO, step.width, step.parts, 0.5)
                    make_basis(step, work)
                    _product(front, gradient, step.width, step.width, work, some)
                collect(work.total, ZERO, step.width, step.parts, 0.5)
                make_basis(step, work)
            elif part == SECOND_PRODUCT:
                # Probes ride along where the rows are those of U.
                beside = ZERO if step.body else step.made
                _product(front, gradient, step.width, step.width + beside, work, some)
                if step.made and step.body:
                    _look(matrix, step, work, rows)
            elif part == TURN:
                collect(work.total, ZERO, step.width, step.parts, 0.5)
                make_tangent(step, work)
                planes(work.small, step.parts, step.pairs, work.dots, work.sizes)
                turn(step, work, sizes[s])
                if step.body:
                    conjugate(work.left, 2 * step.pairs, step.parts)
                    conjugate(work.right, 2 * step.pairs, step.parts)
                heal(step, work)
            elif step.update == FACTORS:
                copy(work.left, ZERO, out[s], ZERO, 2 * step.pairs)
            else:
                width = 2 * (step.made + step.pairs)
                turn_rows(matrix, work.left, work.right, width, out[s], work.dots, rows[0], rows[1])


@inner
def _look(matrix: Floats, step: Step, work: Work, rows: Range) -> None:
    """The products of the probes with UᴴU alone."""
    width, made, total, dots = step.width, step.made, work.total, work.dots
    panel = panel_rows(matrix)
    weights = (dots, ZERO, dots.shape[1], ONE)
    for top in range(rows[0], rows[1], panel):
        count = min(panel, rows[1] - top)
        dot_rows(matrix, top, count, work.along, width, made, dots, ZERO)
        add_rows(total, width, total, width, made, matrix, (top, count), weights)


@inner
def _product(matrix: Floats, gradient: Floats, paired: int, width: int, work: Work, rows: Range) -> None:
    """total[j] += Σ_i (g_i · w_j) u_i − (u_i · w_j) g_i over a range of rows, each read once.

    From w_j with j = `paired` on, total[j] += Σ_i (u_i · w_j) u_i.
    """
    along, total, dots = work.along, work.total, work.dots
    panel, apart = panel_rows(matrix), dots.shape[1]
    for top in range(rows[0], rows[1], panel):
        count = min(panel, rows[1] - top)
        dot_rows(matrix, top, count, along, ZERO, width, dots, ZERO)
        dot_rows(gradient, top, count, along, ZERO, paired, dots, _PANEL)
        for i in range(count):
            for j in range(paired):
                dots[i, j], dots[PANEL + i, j] = dots[PANEL + i, j], -dots[i, j]
        add_rows(total, ZERO, total, ZERO, width, matrix, (top, count), (dots, ZERO, apart, ONE))
        add_rows(total, ZERO, total, ZERO, paired, gradient, (top, count), (dots, PANEL * apart, apart, ONE))


@inner
def make_basis(step: Step, work: Work) -> None:
    """From the products with the test rows to the basis, which takes their place."""
    copy(work.total, ZERO, work.basis, ZERO, step.width)
    extend(work.basis, ZERO, step.width, step.parts, work.coordinates, work.dots)
    copy(work.basis, ZERO, work.along, ZERO, step.width)
    clear(work.total, step.width + step.made)


@inner
def make_tangent(step: Step, work: Work) -> None:
    """From the products with the basis to T = [[H, −Sᴴ], [S, 0]] in the basis [B, Q₂]; H made skew.

    [H, S] are the coordinates of A B.
    """
    width, parts, basis, coordinates = step.width, step.parts, work.basis, work.coordinates
    copy(work.total, ZERO, basis, width, width)
    extend(basis, width, 2 * width, parts, coordinates, work.dots)
    T, count = work.small.T.view(np.float64), width // parts
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
