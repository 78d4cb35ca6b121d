"""The planes in which a small skew-Hermitian matrix T rotates.

T = H R Hᴴ with R tridiagonal, by Householder mirrors. For real T, R takes the even entries of a vector to
odd ones and back, R = [[0, −Bᵀ], [B, 0]] in that order: the planes are the pairs of singular vectors of a
bidiagonal B of half the size. For complex T, iR is a real symmetric tridiagonal matrix up to phases, whose
eigenvectors are found.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..vectors.basis import scale
from ..vectors.compiling import inner, summing

Numbers = NDArray[Any]
Floats = NDArray[Any]

# Of QL or QR, for one value; two are usual.
_ITERATIONS = 60
_EPS = 2.0**-52
_NOTHING = 1e-60


class Small(NamedTuple):
    """A skew-Hermitian matrix of even size and the memory for its planes."""

    T: Numbers
    mirrors: Numbers
    # For the polar factor alone.
    more: Numbers
    eigen: Floats
    # In its rows: the diagonal, what is beside it, the mirrors' factors, phases in two parts.
    lines: Floats


@inner
def planes(small: Small, parts: int, pairs: int, weights: Floats, sizes: Floats) -> None:
    """The leading planes of T, which is destroyed: eigenvalues w of iT, the largest first, and their vectors.

    Two columns of `weights` for each, x and y: for real T with Tx = wy and Ty = −wx, for complex T as
    real.dual_rows has them, transposed. Complex T: in turn of the largest and the smallest w. An eigenvalue
    of the wrong sign, or one that is rounding, becomes 0, and its vector with it. All w are NaN where T has
    a NaN or an infinity.
    """
    T, mirrors, eigen, lines = small.T, small.mirrors, small.eigen, small.lines
    m = T.shape[0]
    unit = _scaled(T)
    _reduce(T, mirrors, lines[2])
    # No mirror uses the first two rows: room for the parts of a vector.
    d, e, x, y = lines[0], lines[1], mirrors[0].view(np.float64), mirrors[1].view(np.float64)
    count = m // 2 if parts == 1 else m
    for i in range(eigen.shape[0]):
        row = eigen[i]
        for j in range(count):
            row[j] = 0.0
    if parts == 1:
        for j in range(count):
            d[j], e[j] = T[2 * j + 1, 2 * j].real, 0.0
            eigen[j, j], eigen[count + j, j] = 1.0, 1.0
            if j + 1 < count:
                e[j] = -T[2 * j + 2, 2 * j + 1].real
        _singular(d[:count], e, eigen[:count], eigen[count:])
    else:
        for j in range(m):
            eigen[j, j] = 1.0
        _to_real(T, d, e, lines[3], lines[4])
        _ql(d, e, eigen)
    least = 0.0
    for j in range(count):
        least = max(least, 16.0 * _EPS * abs(d[j]))
        # From here on 1 for a vector that has been taken.
        e[j] = 0.0
    for r in range(pairs):
        sign = 1.0 if parts == 1 or r % 2 == 0 else -1.0
        best = -1
        for j in range(count):
            if e[j] == 0.0 and (best < 0 or sign * d[j] > sign * d[best]):
                best = j
        e[best] = 1.0
        sizes[r] = (d[best] if sign * d[best] > least else 0.0) * unit
        # A vector that turns nothing may lie where the basis has zeros, and must not disturb the others.
        share = 0.0 if sizes[r] == 0.0 else 1.0
        if parts == 1:
            for i in range(count):
                x[2 * i], y[2 * i] = share * eigen[best, i], 0.0
                x[2 * i + 1], y[2 * i + 1] = 0.0, share * eigen[count + best, i]
            _mirror(mirrors, lines[2], mirrors[0])
            _mirror(mirrors, lines[2], mirrors[1])
            for i in range(m):
                weights[i, 2 * r], weights[i, 2 * r + 1] = x[i], y[i]
        else:
            for i in range(m):
                x[2 * i], x[2 * i + 1] = (
                    share * eigen[best, i] * lines[3, i],
                    share * eigen[best, i] * lines[4, i],
                )
            _mirror(mirrors, lines[2], mirrors[0])
            for i in range(m):
                weights[2 * i, 2 * r], weights[2 * i + 1, 2 * r] = x[2 * i], -x[2 * i + 1]
                weights[2 * i, 2 * r + 1], weights[2 * i + 1, 2 * r + 1] = x[2 * i + 1], x[2 * i]


@inner
def _scaled(T: Numbers) -> float:
    """Divide T by its largest entry, or by NaN where an entry is not finite."""
    unit, finite = 0.0, True
    for i in range(T.shape[0]):
        row = T[i]
        for j in range(row.shape[0]):
            size = abs(row[j].real) + abs(row[j].imag)
            unit, finite = max(unit, size), finite and size < np.inf
    unit = np.nan if not finite else unit if unit > 0.0 else 1.0
    for i in range(T.shape[0]):
        row = T[i]
        for j in range(row.shape[0]):
            row[j] /= unit
    return unit


# From the last row on, so that loops start from 0: for other starts numba allows for negative indices, and
# the loop is not vectorised.
@summing
def _reduce(T: Numbers, mirrors: Numbers, factors: Floats) -> None:
    """Tridiagonal, of which the entries below the diagonal are right, by mirrors I − τ v vᴴ.

    Those of column j, in row j of `mirrors`, act on the entries before j.
    """
    m = T.shape[0]
    p = mirrors[0]
    for j in range(m - 1, 1, -1):
        v, rest = mirrors[j], 0.0
        for i in range(j):
            v[i] = T[i, j]
        for i in range(j - 1):
            rest += v[i].real * v[i].real + v[i].imag * v[i].imag
        head = v[j - 1]
        length = abs(head)
        size = math.sqrt(length * length + rest)
        factors[j] = 0.0
        # T has entries of size 1: less is rounding, and squares of it underflow.
        if rest <= _NOTHING:
            continue
        phase = head / length if length > 0.0 else head + 1.0
        v[j - 1] = phase * (length + size)
        factors[j] = 1.0 / (size * (size + length))
        inside = 0.0 * head
        for i in range(j):
            row, total = T[i], 0.0 * head
            for o in range(j):
                total += row[o] * v[o]
            p[i] = factors[j] * total
            inside += np.conj(v[i]) * p[i]
        inside *= 0.5 * factors[j]
        for i in range(j):
            p[i] -= inside * v[i]
        for i in range(j):
            row, vi, pi = T[i], v[i], p[i]
            for o in range(j):
                row[o] += vi * np.conj(p[o]) - pi * np.conj(v[o])
        T[j, j - 1] = np.conj(phase) * size


@summing
def _mirror(mirrors: Numbers, factors: Floats, x: Numbers) -> None:
    """The product H x in place of x."""
    for j in range(2, mirrors.shape[0]):
        v, total = mirrors[j], 0.0 * x[0]
        for i in range(j):
            total += np.conj(v[i]) * x[i]
        total *= factors[j]
        for i in range(j):
            x[i] -= total * v[i]


@inner
def _to_real(T: Numbers, d: Floats, e: Floats, turn: Floats, turned: Floats) -> None:
    """The diagonal of S and what is beside it, in iR = D S Dᴴ with S real, D by real and imaginary parts."""
    m = T.shape[0]
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


@inner
def _singular(d: Floats, e: Floats, right: Floats, left: Floats) -> None:
    """Singular values of an upper bidiagonal matrix in place of its diagonal d, and vectors times theirs.

    Implicit QR: Gene Golub, Christian Reinsch, Numerische Mathematik 14 (1970).
    """
    m, size = d.shape[0], 0.0
    for i in range(m):
        size = max(size, abs(d[i]) + abs(e[i]))
    least = 0.5 * _EPS * size
    for end in range(m - 1, -1, -1):
        for _ in range(_ITERATIONS):
            low = end
            while low > 0 and abs(e[low - 1]) > least and abs(d[low - 1]) > least:
                low -= 1
            if low > 0 and abs(e[low - 1]) > least:
                # A row without a diagonal entry: what is beside it is turned into the rows below.
                g, e[low - 1] = e[low - 1], 0.0
                for i in range(low, end + 1):
                    c, s, d[i] = _turn(d[i], g)
                    g, e[i] = -s * e[i], c * e[i]
                    _rotate(left[i], left[low - 1], m, c, s)
            if low == end:
                break
            # The shift is the eigenvalue near the last entry of the lower 2×2 block of BᵀB.
            above = e[end - 2] if end - 1 > low else 0.0
            p, q = d[end - 1] * e[end - 1], d[end] * d[end] + e[end - 1] * e[end - 1]
            half = 0.5 * (d[end - 1] * d[end - 1] + above * above - q)
            spread = math.copysign(math.sqrt(half * half + p * p), half)
            y = d[low] * d[low] - q + (p * (p / (half + spread)) if p != 0.0 else 0.0)
            z = d[low] * e[low]
            for i in range(low, end):
                c, s, r = _turn(y, z)
                if i > low:
                    e[i - 1] = r
                y, e[i] = c * d[i] + s * e[i], c * e[i] - s * d[i]
                z, d[i + 1] = s * d[i + 1], c * d[i + 1]
                _rotate(right[i], right[i + 1], m, c, s)
                c, s, d[i] = _turn(y, z)
                y, d[i + 1] = c * e[i] + s * d[i + 1], c * d[i + 1] - s * e[i]
                if i + 1 < end:
                    z, e[i + 1] = s * e[i + 1], c * e[i + 1]
                _rotate(left[i], left[i + 1], m, c, s)
            e[end - 1] = y
        if d[end] < 0.0:
            d[end] = -d[end]
            scale(left[end], -1.0)


@inner
def _turn(y: float, z: float) -> tuple[float, float, float]:
    """Cosine and sine of the rotation that takes (y, z) to (r, 0), and r."""
    r = math.sqrt(y * y + z * z)
    if r == 0.0:
        return 1.0, 0.0, 0.0
    return y / r, z / r, r


@inner
def _rotate(x: Floats, y: Floats, count: int, c: float, s: float) -> None:
    for m in range(count):
        f = x[m]
        x[m], y[m] = c * f + s * y[m], c * y[m] - s * f


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
                _rotate(vectors[i + 1], vectors[i], m, c, s)
                i -= 1
            if i >= low:
                d[i + 1] -= p
            else:
                d[low] -= p
                e[low] = g
            e[end] = 0.0
