"""A whole step of rank one, compiled: U (I + L Rᴴ) from U and the two columns of the step, in closed form.

With c = Uᴴa, the step c bᴴ acts on the plane of the orthonormal q₁ = b/‖b‖ and q₂, along c − q₁q₁ᴴc, as the
matrix [[u, 0], [v, 0]] with u = ‖b‖ q₁ᴴc and v = ‖b‖ ‖c − q₁q₁ᴴc‖ ≥ 0. The rotation is a function of u and v.
Thin columns are complex128 for every dtype of U: O(n) work next to O(n²).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import UPDATES
from ..vectors.blocks import ONE, PANEL, ZERO, gather, rotate
from ..vectors.compiling import inner, outer, summing

Numbers = NDArray[Any]

_GEODESIC, _CAYLEY, _POLAR = range(len(UPDATES))

# Norms of columns beyond which squares of products leave the range of double precision …
_LARGEST = 1e70
# … and, with a margin, such sums of the entries of given columns.
_SMALLEST_GIVEN, _LARGEST_GIVEN = 1e-60, 1e60
# The smallest inner product of unit columns that a second orthogonalisation reduces.
_SQUARE = 1e-14


@inner
def plane_change(update: int, u: complex, v: float) -> tuple[complex, complex, complex, complex]:
    """The 2×2 matrix f([[u, 0], [v, 0]]) − I for the geodesic, Cayley or polar f, without cancellation."""
    if update == _POLAR:
        # A = [[d, 0], [v, 1]] with d = 1 + u has the factor (A + e adj(A)ᴴ)/t with e = d/|d|, t = tr (AᴴA)^½.
        d = 1.0 + u
        size = math.hypot(d.real, d.imag)
        g = 1.0 + size
        t = math.hypot(g, v)
        shorter = -v * (v / (t * (g + t)))
        if size == 0.0:
            # Singular: any e of modulus 1.
            return complex(shorter), complex(-v / t), complex(v / t), complex(shorter)
        turn = complex(d.real / size, d.imag / size)
        turned = turn - 1.0
        if d.real > 0.0:
            turned = complex(-u.imag * (u.imag / (size * (d.real + size))), u.imag / size)
        return turn * shorter + turned, -turn * (v / t), complex(v / t), complex(shorter)
    # Ω = i μ I + N with N = [[iμ, −v/2], [v/2, −iμ]] and N² = −ω² I.
    mu = 0.5 * u.imag
    half = 0.5 * v
    if update == _CAYLEY:
        # Ω (I − Ω/2)⁻¹, with a determinant of 1 or more.
        determinant = complex(1.0 + 0.25 * half * half, -mu)
        p = complex(0.0, 2.0 * mu)
        inner, side, corner = complex(1.0), complex(-0.5 * half), complex(1.0, -mu)
        return (
            (p * inner - half * (0.5 * half)) / determinant,
            (p * side - half * corner) / determinant,
            half * inner / determinant,
            half * side / determinant,
        )
    omega = math.hypot(mu, half)
    phase = complex(math.cos(mu), math.sin(mu))
    sinc = math.sin(omega) / omega if omega > 0.0 else 1.0
    # e^{iμ} cos ω − 1
    less = complex(-2.0 * math.sin(0.5 * mu) ** 2, math.sin(mu)) * math.cos(omega)
    less -= 2.0 * math.sin(0.5 * omega) ** 2
    swing = phase * complex(0.0, mu * sinc)
    return less + swing, -phase * (half * sinc), phase * (half * sinc), less - swing


@summing
def _norm(x: Numbers) -> float:
    total = 0.0
    for m in range(x.shape[0]):
        total += x[m].real * x[m].real + x[m].imag * x[m].imag
    return math.sqrt(total)


@summing
def _inner(x: Numbers, y: Numbers) -> complex:
    real, imag = 0.0, 0.0
    for m in range(x.shape[0]):
        real += x[m].real * y[m].real + x[m].imag * y[m].imag
        imag += x[m].real * y[m].imag - x[m].imag * y[m].real
    return complex(real, imag)


@inner
def _scale(x: Numbers, factor: float) -> None:
    for m in range(x.shape[0]):
        x[m] *= factor


@inner
def _rotation(c: Numbers, b: Numbers, update: int, left: Numbers, right: Numbers) -> bool:
    """L and R, as rows, of the rotation of c bᴴ; False where they are out of range. Overwrites c and b."""
    left[:] = 0.0
    right[:] = 0.0
    beta, size = _norm(b), _norm(c)
    # In this form also false for NaN.
    if not (beta <= _LARGEST and size <= _LARGEST):
        return False
    if beta == 0.0 or size == 0.0:
        return True
    if beta < 1.0 / _LARGEST or size < 1.0 / _LARGEST:
        return False
    n = b.shape[0]
    for m in range(n):
        b[m] /= beta
    along = 0j
    for _ in range(2):
        more = _inner(b, c)
        along += more
        for m in range(n):
            c[m] -= more * b[m]
    across = _norm(c)
    if across > 0.0:
        _scale(c, 1.0 / across)
        # For collinear columns rounding remains, which is orthogonalised again.
        for _ in range(4):
            more = _inner(b, c)
            if more.real * more.real + more.imag * more.imag <= _SQUARE * _SQUARE:
                break
            for m in range(n):
                c[m] -= more * b[m]
            rest = _norm(c)
            if rest <= 1e-3:
                across = 0.0
                _scale(c, 0.0)
                break
            _scale(c, 1.0 / rest)
    f11, f12, f21, f22 = plane_change(update, along * beta, across * beta)
    for m in range(n):
        left[0, m] = b[m]
        left[1, m] = c[m]
        right[0, m] = b[m] * f11.conjugate() + c[m] * f12.conjugate()
        right[1, m] = b[m] * f21.conjugate() + c[m] * f22.conjugate()
    return True


@outer
def rotations(c: Numbers, b: Numbers, update: int, left: Numbers, right: Numbers) -> bool:
    """The rotations of columns (s, n), as rows (s, 2, n), all complex128; False where one is out of range."""
    usable = True
    for s in range(c.shape[0]):
        usable &= _rotation(c[s], b[s], update, left[s], right[s])
    return usable


@summing
def _size(column: Numbers) -> float:
    """The sum of the absolute parts of all entries; NaN or infinity where one of them is."""
    total = 0.0
    for m in range(column.shape[0]):
        total += abs(float(column[m, 0].real)) + abs(float(column[m, 0].imag))
    return total


@outer
def usable(left: Numbers, right: Numbers) -> bool:
    """Whether every column of a stack is zero, or finite and within range."""
    for s in range(left.shape[0]):
        for size in (_size(left[s]), _size(right[s])):
            if size != 0.0 and not _SMALLEST_GIVEN <= size <= _LARGEST_GIVEN:
                return False
    return True


@outer
def weigh(left: Numbers, probe: Numbers, weights: Numbers, probes: Numbers) -> None:
    """The first columns as weights of real rows, scaled as by thin.scaled_columns; and probes."""
    stack, n, _ = left.shape
    parts = probes.shape[2] // n
    for s in range(stack):
        power = 1.0 / _power(left[s])
        for m in range(n):
            weights[s, m, 0] = left[s, m, 0].real * power
            if parts == 2:
                weights[s, m, 1] = left[s, m, 0].imag * power
        if probe.shape[2]:
            _lay_out(probe[s, :, 0], parts, probes[s])


@inner
def _power(column: Numbers) -> float:
    """The power of two just above the size of a column."""
    return math.ldexp(1.0, math.frexp(_size(column))[1])


@inner
def _lay_out(x: Numbers, parts: int, rows: Numbers) -> None:
    """Real rows whose dot products with a row read as real are the parts of row · x, as real.dual_rows."""
    for m in range(x.shape[0]):
        if parts == 1:
            rows[0, m] = x[m].real
        else:
            rows[0, 2 * m] = x[m].real
            rows[0, 2 * m + 1] = -x[m].imag
            rows[1, 2 * m] = x[m].imag
            rows[1, 2 * m + 1] = x[m].real


@inner
def _collected(total: Numbers, power: float, out: Numbers) -> None:
    """The column Σ conj(row) · weight · power from the real sums with both parts of the weights."""
    for m in range(out.shape[0]):
        if total.shape[0] == 1:
            out[m] = float(total[0, m]) * power
        else:
            x = float(total[0, 2 * m]) + float(total[1, 2 * m + 1])
            y = float(total[1, 2 * m]) - float(total[0, 2 * m + 1])
            out[m] = complex(x * power, y * power)


@outer
def turn(
    total: Numbers,
    left_column: Numbers,
    right_column: Numbers,
    probe: Numbers,
    update: int,
    left: Numbers,
    right: Numbers,
) -> None:
    """From the sums over the rows of every U of a stack to the thin rows that move it.

    With a probe z, whose sums follow, healing comes first (unitary.healing_rotation), (I + H₁H₂ᴴ)(I + LRᴴ).
    All is NaN where c is out of range and the columns are not: U holds NaN, or is far from unitary.
    """
    stack, n, _ = right_column.shape
    parts = left.shape[2] // n
    thin = np.empty((8, n), np.complex128)
    c, b, z, d, turned = thin[0], thin[1], thin[2], thin[3], thin[4:]
    for s in range(stack):
        _collected(total[s, :parts], _power(left_column[s]), c)
        for m in range(n):
            b[m] = right_column[s, m, 0]
        if not _rotation(c, b, update, turned[:2], turned[2:]):
            turned[:] = np.nan
        if not probe.shape[2]:
            for j in range(2):
                _lay_out(turned[j], parts, left[s, j * parts : (j + 1) * parts])
                _lay_out(turned[2 + j], parts, right[s, j * parts : (j + 1) * parts])
            continue
        _collected(total[s, parts:], 1.0, d)
        for m in range(n):
            z[m] = probe[s, m, 0]
            d[m] -= z[m]
        shortened = -0.5 / math.sqrt(1.0 + _norm(d) ** 2)
        inside = _inner(z, d)
        # c and b are reused for the right factors of the correction.
        for m in range(n):
            c[m] = shortened * (d[m] - z[m] * inside)
            b[m] = shortened * z[m]
        for j in range(2):
            along, across = _inner(c, turned[j]), _inner(b, turned[j])
            for m in range(n):
                turned[j, m] += z[m] * along + d[m] * across
        for j, (first, second) in enumerate(((z, c), (d, b), (turned[0], turned[2]), (turned[1], turned[3]))):
            _lay_out(first, parts, left[s, j * parts : (j + 1) * parts])
            _lay_out(second, parts, right[s, j * parts : (j + 1) * parts])


@outer
def steps(
    matrices: Numbers,
    left: Numbers,
    right: Numbers,
    probe: Numbers,
    update: int,
    out: Numbers,
) -> bool:
    """Move a stack matrix by matrix, each in cache for both traversals.

    One call for a stack: entering compiled code costs as much as a small matrix. False, and nothing is
    written, where a column is out of range.
    """
    if not usable(left, right):
        return False
    count, n, columns = matrices.shape
    parts, made = columns // n, probe.shape[2]
    width = parts * (1 + made)
    weights = np.empty((1, n, parts), matrices.dtype)
    probes = np.empty((1, parts * made, columns), matrices.dtype)
    total = np.empty((1, width, columns), matrices.dtype)
    before = np.empty((1, 2 * width, columns), matrices.dtype)
    after = np.empty((1, 2 * width, columns), matrices.dtype)
    dots = np.empty((PANEL, 2 * width), matrices.dtype)
    alone, rows = (ZERO, ONE), (ZERO, n)
    for s in range(count):
        matrix, a, b, z = matrices[s : s + 1], left[s : s + 1], right[s : s + 1], probe[s : s + 1]
        weigh(a, z, weights, probes)
        total[:] = 0
        gather(matrix, weights, probes, total, dots, alone, rows)
        turn(total, a, b, z, update, before, after)
        rotate(matrix, before, after, out[s : s + 1], dots, alone, rows)
    return True
