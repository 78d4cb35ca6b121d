"""The planes in which a tangent rotates, and the leading ones."""

from __future__ import annotations

from .._array import Array, Namespace, astype, complex_dtype, is_complex
from .._linalg import adjoint, broadcast, eigh, hstack, qr, thin_product
from ..types import BodyFactors


def two_sided(xp: Namespace, image: Array, basis: Array) -> tuple[Array, Array]:
    """(C, B) from AB and B, such that skew(C Bᴴ) has every entry of A that touches range(B)."""
    inside = thin_product(xp, adjoint(xp, basis), image)
    return 2.0 * image - thin_product(xp, basis, inside), basis


def leading_planes(xp: Namespace, left: Array, right: Array, k: int) -> tuple[BodyFactors, Array]:
    """The best body factors (C, Q) with k columns for T = skew(left rightᴴ), and the norm of every part.

    skew(C Qᴴ) is the nearest such matrix to T. A column pairs one of the largest positive eigenvalues λ of
    the Hermitian iT with one of the largest negative ones −μ: λ v₊v₊ᴴ − μ v₋v₋ᴴ = ½(x yᴴ + y xᴴ) with
    x = √λ v₊ + √μ v₋ and y = √λ v₊ − √μ v₋. For real T, λ = μ and v₋ = v̄₊; x, y span the plane of rotation.
    """
    left, right = broadcast(xp, left, right)
    n, m = left.shape[-2:]
    if 2 * m < n:
        basis, R = qr(xp, hstack(xp, left, right))
        a, b = R[..., :m], R[..., m:]
    else:
        basis, a, b = None, left, right
    T = thin_product(xp, a, adjoint(xp, b))
    T = 0.5 * (T - adjoint(xp, T))
    w, v = eigh(xp, 1j * astype(xp, T, complex_dtype(xp, T.dtype)))
    k = min(k, w.shape[-1])
    positive, negative = _clipped(xp, xp.flip(w, axis=-1)[..., :k]), _clipped(xp, -w[..., :k])
    up = xp.flip(v, axis=-1)[..., :k] * xp.sqrt(positive)[..., None, :]
    if is_complex(xp, T.dtype):
        down = v[..., :k] * xp.sqrt(negative)[..., None, :]
        C, Q = -1j * (up + down), up - down
    else:
        C, Q = 2.0 * xp.imag(up), 2.0 * xp.real(up)
    C, Q = (astype(xp, x, T.dtype) for x in (C, Q))
    if basis is not None:
        C, Q = (thin_product(xp, basis, x) for x in (C, Q))
    return BodyFactors(C, Q), xp.hypot(positive, negative)


def _clipped(xp: Namespace, x: Array) -> Array:
    # NaN stays NaN.
    return xp.where(x < 0, 0.0, x)
