"""Dense definitions, O(n³), in extended precision: the reference of all tests.

numpy only; nothing of this package is imported. Arguments are array-likes of shape (…, n, n), thin factors
(…, n, k). They are converted to ``numpy.longdouble`` or ``numpy.clongdouble`` (64 significant bits on x86,
double elsewhere), the dtype of the results, matrices (…, n, n) or one number for each. All but the first
guesses are matrix products, since LAPACK has no extended precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Extended = np.ndarray[Any, Any]


def extended(x: ArrayLike) -> Extended:
    """A copy in extended precision, real or complex as the argument is."""
    x = np.asarray(x)
    return x.astype(np.clongdouble if np.iscomplexobj(x) else np.longdouble)


def adjoint(x: Extended) -> Extended:
    """Conjugate transpose of the last two axes."""
    return np.conj(np.swapaxes(x, -1, -2))


def skew(x: Extended) -> Extended:
    """The skew-Hermitian part (X − Xᴴ)/2."""
    return (x - adjoint(x)) / 2


def exponential(x: ArrayLike) -> Extended:
    """Matrix exponential by Taylor series, scaling and squaring."""
    x = extended(x)
    norm = float(np.max(_norm(x), initial=0.0))
    squarings = max(0, int(np.ceil(np.log2(norm))) + 2) if norm > 0 else 0
    scaled = x / np.longdouble(2) ** squarings
    # Change = e^A − I is stored: squaring it loses no digits of a small exponent.
    change = term = scaled
    # ‖A‖ ≤ ¼ after scaling: the first omitted term is below 1e-22.
    for j in range(2, 15):
        term = term @ scaled / j
        change = change + term
    for _ in range(squarings):
        change = 2 * change + change @ change
    return _eye(x) + change


def cayley(x: ArrayLike) -> Extended:
    """The Cayley transform (I + X/2)(I − X/2)⁻¹."""
    x = extended(x)
    return (_eye(x) + x / 2) @ inverse(_eye(x) - x / 2)


def inverse(x: ArrayLike) -> Extended:
    """Inverse: LAPACK in double precision, refined by Newton–Schulz steps."""
    x = extended(x)
    y = extended(np.linalg.inv(_double(x)))
    for _ in range(3):
        y = y @ (2 * _eye(x) - x @ y)
    return y


def polar_factor(x: ArrayLike) -> Extended:
    """The unitary polar factor P of X = P H, H Hermitian and positive, for X not singular.

    SVD in double precision, then corrections in extended precision: P exp(K) with HK + KH = PᴴX − XᴴP, a
    division by s_i + s_j in the basis of right singular vectors.
    """
    x = extended(x)
    u, s, vh = (extended(part) for part in np.linalg.svd(_double(x)))
    p = _newton_schulz(u @ vh)
    sums = s[..., :, None] + s[..., None, :]
    for _ in range(2):
        k = adjoint(vh) @ (vh @ (2 * skew(adjoint(p) @ x)) @ adjoint(vh) / sums) @ vh
        p = _newton_schulz(p + p @ (k + k @ k / 2))
    return p


def _newton_schulz(p: Extended) -> Extended:
    return p @ (3 * _eye(p) - adjoint(p) @ p) / 2


def transport(unitary: ArrayLike, left: ArrayLike, right: ArrayLike, update: str = "geodesic") -> Extended:
    """U exp(Ω), or U times the Cayley transform of Ω, for Ω = skew(Uᴴ left rightᴴ)."""
    u, a, b = extended(unitary), extended(left), extended(right)
    omega = skew((adjoint(u) @ a) @ adjoint(b))
    return u @ {"geodesic": exponential, "cayley": cayley}[update](omega)


def polar(unitary: ArrayLike, left: ArrayLike, right: ArrayLike) -> Extended:
    """U polar(I + Uᴴ left rightᴴ): for unitary U, the unitary matrix nearest to U + left rightᴴ."""
    u, a, b = extended(unitary), extended(left), extended(right)
    return u @ polar_factor(_eye(u) + (adjoint(u) @ a) @ adjoint(b))


def rectangular_transport(
    unitary: ArrayLike, left: ArrayLike, right: ArrayLike, update: str = "geodesic"
) -> Extended:
    """exp(Ω) U, or the Cayley transform, for m×n U and the m×m Ω = skew((2 left − U Uᴴ left) rightᴴ Uᴴ).

    ΩU = G − U(UᴴG + GᴴU)/2 is the projection of G = left rightᴴ to the tangents at U. A wide U is moved as
    its adjoint.
    """
    u, a, b = extended(unitary), extended(left), extended(right)
    if u.shape[-1] > u.shape[-2]:
        return np.swapaxes(
            rectangular_transport(np.swapaxes(u, -1, -2), np.conj(b), np.conj(a), update), -1, -2
        )
    omega = skew((2 * a - u @ (adjoint(u) @ a)) @ adjoint(u @ b))
    return {"geodesic": exponential, "cayley": cayley}[update](omega) @ u


def rectangular_polar(unitary: ArrayLike, left: ArrayLike, right: ArrayLike) -> Extended:
    """The matrix with orthonormal columns (wide: rows) nearest to U + left rightᴴ, for U with such ones."""
    u, a, b = extended(unitary), extended(left), extended(right)
    x = u + a @ adjoint(b)
    if x.shape[-1] > x.shape[-2]:
        return adjoint(rectangular_polar(adjoint(u), b, a))
    w, _, vh = (extended(part) for part in np.linalg.svd(_double(x), full_matrices=False))
    p = w @ vh
    for _ in range(3):
        # An orthonormal basis of the range of x: what it lacks of x, divided by x in the basis.
        h = adjoint(p) @ x
        p = _newton_schulz(p + (x - p @ h) @ inverse(h))
    return p @ polar_factor(adjoint(p) @ x)


def tangent(unitary: ArrayLike, gradient: ArrayLike) -> Extended:
    """The body-frame tangent part (UᴴG − GᴴU)/2 of a gradient."""
    return skew(adjoint(extended(unitary)) @ extended(gradient))


def rotation_matrix(left: ArrayLike, right: ArrayLike) -> Extended:
    """The n×n matrix I + left rightᴴ, for factors (…, n, w)."""
    product = extended(left) @ adjoint(extended(right))
    return _eye(product) + product


def unitarity_defect(unitary: ArrayLike) -> Extended:
    """Frobenius norm of UᴴU − I."""
    u = extended(unitary)
    return _norm(adjoint(u) @ u - _eye(u))


def spectral_norm(x: ArrayLike) -> np.ndarray[Any, Any]:
    """Largest singular value, computed in double precision after scaling."""
    x = extended(x)
    scale = np.max(np.abs(x), axis=(-2, -1), keepdims=True)
    scale = np.where(scale > 0, scale, 1)
    norm = np.linalg.norm(_double(x / scale), 2, axis=(-2, -1))
    return np.asarray(norm * np.asarray(scale[..., 0, 0], dtype=np.float64))


def _eye(x: Extended) -> Extended:
    return np.eye(x.shape[-1], dtype=np.longdouble)


def _norm(x: Extended) -> Extended:
    return np.asarray(np.sqrt(np.sum(np.abs(x) ** 2, axis=(-2, -1))))


def _double(x: Extended) -> np.ndarray[Any, Any]:
    return np.asarray(x, dtype=np.complex128 if np.iscomplexobj(x) else np.float64)
