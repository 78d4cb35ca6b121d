"""The unitary polar factor of I + X for a small matrix X, by Newton's iteration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..vectors.compiling import inner, summing
from .planes import Small

Numbers = NDArray[Any]

_EPS = 2.0**-52
# Squares of Frobenius norms: of an X that needs no scaling, and of a last scaled change.
_SMALL, _NEAR = 0.1, 0.01
# Ten suffice for the worst I + X that is not singular to rounding.
_ITERATIONS = 40


@inner
def polar_change(small: Small) -> None:
    """polar(I + X) − I in place of X, which is in `small.T`; NaN where X has one, or an infinity.

    A ← ½ (A + A⁻ᴴ) for A = I + Y, written for Y, so that a small one keeps its digits: A⁻ᴴ = I − Z with
    Z = (I + Yᴴ)⁻¹ Yᴴ. Where A is singular one of the nearest unitary matrices is found.
    """
    Y, M, Z = small.T, small.mirrors, small.more
    m, before = Y.shape[0], 0.0
    for i in range(m):
        before += _squares(Y[i])
    if not before < np.inf:
        Y[:] = np.nan
        return
    if before > _SMALL:
        _approach(small)
    for _ in range(_ITERATIONS):
        for i in range(m):
            for o in range(m):
                M[i, o] = Z[i, o] = np.conj(Y[o, i])
            M[i, i] += 1.0
        _solve(M, Z)
        change, size = 0.0, 0.0
        for i in range(m):
            row, other = Y[i], Z[i]
            for o in range(m):
                new = 0.5 * (row[o] - other[o])
                other[o], row[o] = new - row[o], new
            change += _squares(other)
            size += _squares(row)
        # What is left after this step is the square of its change.
        if change * change <= _EPS * _EPS * (size + _EPS * _EPS):
            return
    Y[:] = np.nan


@inner
def _approach(small: Small) -> None:
    """Y with I + Y near the polar factor of I + X, in place of X: A ← ½ (μA + A⁻ᴴ/μ), scaled by norms.

    Nicholas Higham, "Functions of Matrices", SIAM 2008, section 8.6.
    """
    A, M, Z = small.T, small.mirrors, small.more
    m = A.shape[0]
    for i in range(m):
        A[i, i] += 1.0
    for _ in range(_ITERATIONS):
        along, back, change = 0.0, 0.0, 0.0
        for i in range(m):
            for o in range(m):
                M[i, o], Z[i, o] = np.conj(A[o, i]), 0.0
            Z[i, i] = 1.0
            along += _squares(M[i])
        _solve(M, Z)
        for i in range(m):
            back += _squares(Z[i])
        mu = math.sqrt(math.sqrt(back / along))
        for i in range(m):
            row, other = A[i], Z[i]
            for o in range(m):
                new = 0.5 * (mu * row[o] + other[o] / mu)
                other[o], row[o] = new - row[o], new
            change += _squares(other)
        if change <= _NEAR:
            break
    for i in range(m):
        A[i, i] -= 1.0


@summing
def _squares(x: Numbers) -> float:
    total = 0.0
    for i in range(x.shape[0]):
        total += x[i].real * x[i].real + x[i].imag * x[i].imag
    return total


@inner
def _solve(M: Numbers, Z: Numbers) -> None:
    """M⁻¹ Z in place of Z, by elimination with the largest pivot of a column; M is destroyed.

    A pivot that is zero becomes as large as rounding. A small one stays: it may be that of a short column.
    """
    m, largest = M.shape[0], 0.0
    for i in range(m):
        row = M[i]
        for o in range(m):
            largest = max(largest, abs(row[o].real) + abs(row[o].imag))
    for p in range(m):
        best, size = p, abs(M[p, p])
        for i in range(p + 1, m):
            if abs(M[i, p]) > size:
                best, size = i, abs(M[i, p])
        _swap(M[p], M[best])
        _swap(Z[p], Z[best])
        if size == 0.0:
            M[p, p] = _EPS * largest
        for i in range(p + 1, m):
            factor = -M[i, p] / M[p, p]
            _add(factor, M[p], M[i])
            _add(factor, Z[p], Z[i])
    for p in range(m - 1, -1, -1):
        for i in range(p + 1, m):
            _add(-M[p, i], Z[i], Z[p])
        row, inverse = Z[p], 1.0 / M[p, p]
        for o in range(m):
            row[o] *= inverse


@inner
def _swap(x: Numbers, y: Numbers) -> None:
    for o in range(x.shape[0]):
        x[o], y[o] = y[o], x[o]


@inner
def _add(factor: Any, x: Numbers, to: Numbers) -> None:
    for o in range(x.shape[0]):
        to[o] += factor * x[o]
