"""The planes in which a small skew-Hermitian matrix T rotates: Householder mirrors, then implicit QL.

T = H R Hᴴ with R tridiagonal, and iR is a real symmetric tridiagonal matrix up to phases: one QL serves
real and complex T.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..vectors.compiling import inner, summing

Numbers = NDArray[Any]
Floats = NDArray[Any]

# Of QL, for one eigenvalue; two are usual.
_ITERATIONS = 60
_EPS = 2.0**-52


class Small(NamedTuple):
    """A skew-Hermitian matrix and the memory for its planes."""

    T: Numbers
    mirrors: Numbers
    eigen: Floats
    # In its rows: the diagonal, what is beside it, the mirrors' factors, phases and vectors in two parts.
    lines: Floats


@inner
def planes(small: Small, parts: int, pairs: int, weights: Floats, sizes: Floats) -> None:
    """The leading planes of T, which is destroyed: eigenvalues w of iT, the largest first, and their vectors.

    Two columns of `weights` for each, x and y: for real T of (x + iy)/√2, for complex T as real.dual_rows has
    them, transposed. Complex T: in turn of the largest and the smallest w. An eigenvalue of the wrong sign,
    or one that is rounding, becomes 0, and its vector with it. All w are NaN where T has a NaN or an
    infinity.
    """
    T, mirrors, eigen, lines = small.T, small.mirrors, small.eigen, small.lines
    m = T.shape[0]
    unit, finite = 0.0, True
    for i in range(m):
        for j in range(m):
            size = abs(T[i, j].real) + abs(T[i, j].imag)
            unit, finite = max(unit, size), finite and size < np.inf
            eigen[i, j], mirrors[i, j] = 1.0 if i == j else 0.0, 0.0
    if not finite:
        unit = np.nan
    elif unit == 0.0:
        unit = 1.0
    for i in range(m):
        for j in range(m):
            T[i, j] /= unit
    _reduce(T, mirrors, lines[2])
    # iR = D S Dᴴ with S real: its diagonal, what is beside it, D by real and imaginary parts.
    d, e, turn, turned = lines[0], lines[1], lines[3], lines[4]
    turn[0], turned[0] = 1.0, 0.0
    for j in range(m):
        d[j], e[j] = -T[j, j].imag, 0.0
        if j + 1 < m:
            real, imag = -T[j + 1, j].imag, T[j + 1, j].real
            size = math.sqrt(real * real + imag * imag)
            e[j], turn[j + 1], turned[j + 1] = size, 1.0, 0.0
            if size > 0.0:
                turn[j + 1] = (turn[j] * real - turned[j] * imag) / size
                turned[j + 1] = (turn[j] * imag + turned[j] * real) / size
    _ql(d, e, eigen)
    least = 0.0
    for j in range(m):
        least = max(least, 16.0 * _EPS * abs(d[j]))
        # From here on 1 for a vector that has been taken.
        e[j] = 0.0
    for r in range(pairs):
        sign = 1.0 if parts == 1 or r % 2 == 0 else -1.0
        best = -1
        for j in range(m):
            if e[j] == 0.0 and (best < 0 or sign * d[j] > sign * d[best]):
                best = j
        e[best] = 1.0
        sizes[r] = (d[best] if sign * d[best] > least else 0.0) * unit
        x, y = lines[5], lines[6]
        for i in range(m):
            # A vector that turns nothing may lie where the basis has zeros, and must not disturb the others.
            share = 0.0 if sizes[r] == 0.0 else eigen[best, i]
            x[i], y[i] = share * turn[i], share * turned[i]
        _mirror(mirrors, lines[2], x, y)
        for i in range(m):
            if parts == 1:
                weights[i, 2 * r], weights[i, 2 * r + 1] = x[i], y[i]
            else:
                weights[2 * i, 2 * r], weights[2 * i + 1, 2 * r] = x[i], -y[i]
                weights[2 * i, 2 * r + 1], weights[2 * i + 1, 2 * r + 1] = y[i], x[i]


# Loops over rows run from 0, also where the first numbers of a mirror are zero: for other starts numba allows
# for negative indices, and the loop is not vectorised.
@summing
def _reduce(T: Numbers, mirrors: Numbers, factors: Floats) -> None:
    """Tridiagonal, of which the lower half is right, by mirrors I − τ v vᴴ: v as rows, τ as factors."""
    m = T.shape[0]
    # The last row holds no mirror.
    p = mirrors[m - 1]
    for j in range(m - 2):
        v = mirrors[j]
        rest = 0.0
        for i in range(j + 2, m):
            v[i] = T[i, j]
            rest += v[i].real * v[i].real + v[i].imag * v[i].imag
        head = T[j + 1, j]
        length = abs(head)
        size = math.sqrt(length * length + rest)
        factors[j] = 0.0
        if rest == 0.0:
            continue
        phase = head / length if length > 0.0 else head + 1.0
        v[j + 1] = phase * (length + size)
        factors[j] = 1.0 / (size * (size + length))
        inside = 0.0 * head
        for i in range(m):
            p[i] = 0.0
            if i > j:
                row, total = T[i], 0.0 * head
                for o in range(m):
                    total += row[o] * v[o]
                p[i] = factors[j] * total
                inside += np.conj(v[i]) * p[i]
        inside *= 0.5 * factors[j]
        for i in range(m):
            p[i] -= inside * v[i]
        for i in range(j + 1, m):
            row, vi, pi = T[i], v[i], p[i]
            for o in range(m):
                row[o] += vi * np.conj(p[o]) - pi * np.conj(v[o])
        T[j + 1, j] = -phase * size


@summing
def _mirror(mirrors: Numbers, factors: Floats, x: Floats, y: Floats) -> None:
    """X + iy ← H (x + iy)."""
    m = mirrors.shape[0]
    for j in range(m - 3, -1, -1):
        v, real, imag = mirrors[j], 0.0, 0.0
        for i in range(m):
            real += v[i].real * x[i] + v[i].imag * y[i]
            imag += v[i].real * y[i] - v[i].imag * x[i]
        real *= factors[j]
        imag *= factors[j]
        for i in range(m):
            x[i] -= real * v[i].real - imag * v[i].imag
            y[i] -= real * v[i].imag + imag * v[i].real


@inner
def _ql(d: Floats, e: Floats, vectors: Floats) -> None:
    """Eigenvalues of a symmetric tridiagonal matrix in place of its diagonal d, and vectors times theirs.

    Implicit QL: Augustin Dubrulle, Roger Martin, James Wilkinson, Numerische Mathematik 12 (1968).
    """
    m = vectors.shape[0]
    size = 0.0
    for i in range(m):
        size = max(size, abs(d[i]) + abs(e[i]))
    for low in range(m):
        for _ in range(_ITERATIONS):
            end = low
            while end < m - 1 and abs(e[end]) > 0.5 * _EPS * size:
                end += 1
            if end == low:
                break
            g = (d[low + 1] - d[low]) / (2.0 * e[low])
            g = d[end] - d[low] + e[low] / (g + math.copysign(math.sqrt(g * g + 1.0), g))
            s, c, p, i = 1.0, 1.0, 0.0, end - 1
            while i >= low:
                f, b = s * e[i], c * e[i]
                r = math.sqrt(f * f + g * g)
                e[i + 1] = r
                if r == 0.0:
                    break
                r = 1.0 / r
                s, c = f * r, g * r
                g = d[i + 1] - p
                r = (d[i] - g) * s + 2.0 * c * b
                p = s * r
                d[i + 1] = g + p
                g = c * r - b
                upper, lower = vectors[i + 1], vectors[i]
                for o in range(m):
                    f = upper[o]
                    upper[o], lower[o] = s * lower[o] + c * f, c * lower[o] - s * f
                i -= 1
            if i >= low:
                d[i + 1] -= p
            else:
                d[low] -= p
                e[low] = g
            e[end] = 0.0
