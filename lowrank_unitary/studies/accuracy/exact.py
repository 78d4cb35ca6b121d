"""The reference of the accuracy studies: exact steps and exact defects at O(kn²) and O(n³)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import random_unitary, reference
from ...reference import Extended, adjoint

Numbers = np.ndarray[Any, Any]

# Bits behind the point that are split off. Sums of products of two such numbers stay below 2⁵³ units for
# columns of norm below 2⁶.
_BITS = 20


def exact_step(unitary: Numbers, left: Numbers, right: Numbers, update: str) -> Extended:
    """The exact result of one step U, left @ rightᴴ for the numbers given, in extended precision.

    The dense definitions of ``reference``, applied in the space of dimension 2k in which the step acts: with
    c = Uᴴ left, b = right and Q an orthonormal basis of both, f(cbᴴ) = I + Q [f(QᴴcbᴴQ) − I] Qᴴ. That is
    O(kn²) in place of O(n³): extended precision has no fast products.
    """
    u, a, b = (reference.extended(x) for x in (unitary, left, right))
    c = adjoint(u) @ a
    Q = _basis(np.concatenate([b, c], axis=-1))
    step = (adjoint(Q) @ c) @ adjoint(adjoint(Q) @ b)
    eye = np.eye(Q.shape[-1], dtype=np.longdouble)
    if update == "polar":
        moved = reference.polar_factor(eye + step)
    else:
        curve = {"geodesic": reference.exponential, "cayley": reference.cayley}[update]
        moved = curve(reference.skew(step))
    return u + (u @ Q) @ (moved - eye) @ adjoint(Q)


def error_of(result: Numbers, expected: Extended) -> float:
    """Spectral norm of the difference; NaN where the result is not finite."""
    difference = reference.extended(result) - expected
    return float(reference.spectral_norm(difference)) if np.all(np.isfinite(difference)) else math.nan


def defect_of(unitary: Numbers) -> float:
    """‖UᴴU − I‖_F / √n of U in double or lower precision, exact to far below its rounding; NaN for NaN."""
    if not np.all(np.isfinite(unitary)):
        return math.nan
    # Infinite beyond the range of double precision, without a warning.
    with np.errstate(all="ignore"):
        return float(np.linalg.norm(_defect(_double(unitary)))) / math.sqrt(len(unitary))


def rounded_unitary(n: int, dtype: np.dtype[Any], rng: np.random.Generator) -> Numbers:
    """A Haar-distributed unitary matrix whose defect is that of rounding to the dtype, and no larger."""
    wide = np.complex128 if dtype.kind == "c" else np.float64
    u = random_unitary(n, dtype=wide, rng=rng)
    # QR leaves some eps; a Newton–Schulz step with the exact defect leaves one rounding.
    polished: Numbers = u - u @ _defect(u) / 2
    return polished.astype(dtype)


def _double(x: Numbers) -> Numbers:
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _defect(u: Numbers) -> Numbers:
    """UᴴU − I, with a relative error of about eps, for U in double precision.

    The error of a plain sum of products is of the size of the defect. So U = H + L with H on a grid of 2⁻²⁰:
    HᴴH is exact, and L small.
    """
    high = np.round(u * 2.0**_BITS) * 2.0**-_BITS
    low = u - high
    cross = adjoint(high) @ low
    return (adjoint(high) @ high - np.eye(len(u))) + (cross + adjoint(cross) + adjoint(low) @ low)


def _basis(W: Extended) -> Extended:
    """Orthonormal columns that span those of W, by Gram–Schmidt; dependent columns add none."""
    dependent = 8 * np.finfo(np.longdouble).eps
    found: list[Extended] = []
    for w in W.T:
        length = np.sqrt(np.sum(np.abs(w) ** 2))
        if length == 0:
            continue
        v = w / length
        for _ in range(2):
            for q in found:
                v = v - q * np.sum(np.conj(q) * v)
            # 1 from the second pass on, which removes what rounding left of the others.
            rest = np.sqrt(np.sum(np.abs(v) ** 2))
            if rest <= dependent:
                break
            v = v / rest
        else:
            found.append(v)
    return np.stack(found, axis=-1) if found else W[:, :0]
