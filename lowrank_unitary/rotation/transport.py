"""Transport: move along the geodesic of a low-rank tangent, or along its Cayley curve."""

from __future__ import annotations

import functools
import math

from .._array import Array, Namespace, astype, complex_dtype, is_complex, validate
from .._kernels import UPDATES
from .._linalg import adjoint, eigh, eye_like, inv, promoted
from ..tangent.planes import turned
from ..types import BodyFactors, LowRankRotation
from .core import CORES, half_defect, low_rank_rotation

# The third update is polar projection.
TRANSPORTS = UPDATES[:2]


def transport_rotation(
    body_factors: BodyFactors, /, *, update: str = "geodesic", core: str = "auto"
) -> LowRankRotation:
    """The rotation exp(Ω), or its Cayley form, for Ω = skew(left rightᴴ) = (left rightᴴ − right leftᴴ)/2.

    Parameters
    ----------
    body_factors : BodyFactors
        left and right of shape (…, n, k): the step in the body frame, sign and step size included.
    update : {"geodesic", "cayley"}
        ``"geodesic"``: exp(Ω). ``"cayley"``: (I + Ω/2)(I − Ω/2)⁻¹, which agrees to O(‖Ω‖³).
    core : {"auto", "gram", "orthonormal"}
        How the 2k×2k core is computed. ``"gram"``: from WᴴW, by matrix products; differentiable.
        ``"orthonormal"``: from a QR of W and an eigendecomposition; exact for every step size.
        ``"auto"``: the cheaper one that is exact to rounding, by value, or a closed form for k = 1;
        ``"gram"`` where values cannot be read (tracing, differentiation, GPU).

    Returns
    -------
    LowRankRotation
        left and right of shape (…, n, 2k), or (…, n, n) where 2k ≥ n and the core is orthonormal.

    Notes
    -----
    O(nk² + k³). With W = [right, left], K = WᴴW and J = ½[[0, −I], [I, 0]]: exp(Ω) = I + W J φ₁(KJ) Wᴴ,
    φ₁(z) = (eᶻ − 1)/z, and the Cayley form is I + W J (I − KJ/2)⁻¹ Wᴴ. Zero, collinear and rank-deficient
    factors need no special case.

    Exact to rounding for every step with ``"auto"`` where values can be read. The Gram core alone loses a
    factor of up to ‖K‖² beyond ‖K‖ = 2, about the step's norm: 4e-12 at norm 100 for collinear factors in
    double precision, 3e-14 for generic ones; NaN beyond norms of about 1000, or where its defect is above
    √eps. A real rotation has determinant +1.

    References
    ----------
    Bobak Kiani, Randall Balestriero, Yann LeCun, Seth Lloyd, "projUNN", NeurIPS 2022, theorem 4.4 (there by
    an eigendecomposition of a projected core).

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> e1, e2 = np.eye(3)[:, :1], np.eye(3)[:, 1:2]
    >>> rotation = lu.transport_rotation(lu.BodyFactors(np.pi * e2, e1))
    >>> np.allclose(lu.rotate(np.eye(3), rotation), [[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    True
    """
    validate.choice("update", update, TRANSPORTS)
    validate.choice("core", core, CORES)

    middle, change = (functools.partial(function, update=update) for function in (gram_middle, dense_change))
    return low_rank_rotation(body_factors, core, update, middle, change)


def gram_middle(xp: Namespace, K: Array, small: bool, update: str) -> Array:
    """M of I + W M Wᴴ from K = WᴴW."""
    k = K.shape[-1] // 2
    # KJ = ½[K₁₂, −K₁₁; …]: J swaps the halves and halves them.
    KJ = 0.5 * xp.concat([K[..., k:], -K[..., :k]], axis=-1)
    factor = phi1(xp, KJ, small) if update == "geodesic" else inv(xp, eye_like(xp, KJ) - 0.5 * KJ)
    return 0.5 * xp.concat([-factor[..., k:, :], factor[..., :k, :]], axis=-2)


def dense_change(xp: Namespace, X: Array, unit: Array, update: str) -> Array:
    """exp(skew(X / unit)) − I, or its Cayley form, for a small matrix."""
    return skew_function(xp, 0.5 * (X - adjoint(xp, X)) / promoted(xp, unit, X), update)


# Degree of the Taylor polynomial of φ₁, and the norm up to which its remainder is below eps: for θ = 0.23
# θ¹¹/12! ≤ 2.0e-16, and 5e-17 in the exponential.
_TAYLOR_DEGREE = 10
_TAYLOR_NORM = 0.23
_SQUARINGS = 12


def phi1(xp: Namespace, A: Array, small: bool) -> Array:
    """φ₁(A) = (e^A − 1)/A by scaling and squaring; X = e^A − I is stored, so that nothing cancels.

    The number of squarings is fixed: 1 where ‖A‖₂ ≤ 0.45 (small), else 12, up to ‖A‖_F = 940; NaN beyond.
    """
    squarings = 1 if small else _SQUARINGS
    eye = eye_like(xp, A)
    scaled = A * 2.0**-squarings
    if not small:
        norm = xp.sqrt(xp.sum(xp.abs(scaled) ** 2, axis=(-2, -1), keepdims=True))
        scaled = xp.where(norm > _TAYLOR_NORM, math.nan, scaled)
    P = eye + scaled / (_TAYLOR_DEGREE + 1)
    for j in range(_TAYLOR_DEGREE, 1, -1):
        P = eye + (scaled @ P) / j
    X = scaled @ P
    for _ in range(squarings):
        P = P + 0.5 * (X @ P)
        X = 2.0 * X + X @ X
    return P


def skew_function(xp: Namespace, omega: Array, update: str) -> Array:
    """exp(Ω) − I or its Cayley form for a small skew-Hermitian Ω, from the eigenvalues iθ of Ω."""
    dtype = omega.dtype
    theta, V = eigh(xp, -1j * xp.astype(omega, complex_dtype(xp, dtype)))
    if not is_complex(xp, dtype):
        planes = theta.shape[-1] // 2
        theta, V = (xp.flip(x, axis=-1)[..., :planes] for x in (theta, V))
    left, right = turned(xp, V, theta, update, dtype)
    Y = left @ adjoint(xp, right)
    # Eigenvectors are orthonormal to some dozens of eps, and so far is the product from unitary.
    N = half_defect(xp, Y)
    return Y + N + Y @ N


def pullback(
    xp: Namespace, X: Array, unit: Array, Q: Array, image: Array, image_back: Array, update: str
) -> tuple[Array, Array]:
    """ĀQ and ĀᴴQ from the products R̄Q and R̄ᴴQ of the cotangent of the rotation, for A = Q (X / unit) Qᴴ.

    In the eigenvectors of Ω, θ = 0 on the complement, the cotangent of Ω is that of the rotation times the
    conjugate divided differences (Daleckii and Krein).
    """
    omega = 0.5 * (X - adjoint(xp, X)) / promoted(xp, unit, X)
    dtype = complex_dtype(xp, X.dtype)
    theta, V = eigh(xp, -1j * astype(xp, omega, dtype))
    within = adjoint(xp, Q) @ image
    ratios = _conjugate_ratios(xp, theta[..., :, None], theta[..., None, :], dtype, update)
    inner = V @ (ratios * (adjoint(xp, V) @ astype(xp, within, dtype) @ V)) @ adjoint(xp, V)
    # To the complement, where θ = 0: φ₁(Ω)ᴴ for the geodesic.
    outer = (V * _conjugate_ratios(xp, theta, 0.0 * theta, dtype, update)[..., None, :]) @ adjoint(xp, V)
    if not is_complex(xp, X.dtype):
        inner, outer = xp.real(inner), xp.real(outer)
    rest, rest_back = image - Q @ within, image_back - Q @ (adjoint(xp, Q) @ image_back)
    side = Q @ (inner - adjoint(xp, inner)) + rest @ outer - rest_back @ adjoint(xp, outer)
    # Ω is the skew part of A, and its cotangent that of Ā.
    return 0.5 * side, -0.5 * side


def _conjugate_ratios(xp: Namespace, x: Array, y: Array, dtype: object, update: str) -> Array:
    """The conjugate of (f(ix) − f(iy))/(ix − iy), for f the exponential or the Cayley transform."""
    if update == "cayley":
        size = 1.0 / ((1.0 + 0.25 * x**2) * (1.0 + 0.25 * y**2))
        x, y, size = (astype(xp, z, dtype) for z in (x, y, size))
        return size * (1.0 - 0.5j * x) * (1.0 - 0.5j * y)
    half = 0.5 * (x - y)
    apart = half != 0
    sinc = xp.where(apart, xp.sin(half) / xp.where(apart, half, 1.0), 1.0)
    return astype(xp, sinc, dtype) * xp.exp(-0.5j * astype(xp, x + y, dtype))
