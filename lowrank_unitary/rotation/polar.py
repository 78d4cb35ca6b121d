"""Polar projection: the nearest unitary matrix after a low-rank step."""

from __future__ import annotations

import math

from .._array import Array, Namespace, astype, eps, placement, validate
from .._linalg import (
    adjoint,
    along_columns,
    broadcast,
    eye_like,
    hstack,
    inv,
    promoted,
    qr,
    stacked,
    svd,
)
from ..types import BodyFactors, LowRankRotation
from .core import CORES, balance, half_defect, low_rank_rotation, orthonormalise


def polar_rotation(body_factors: BodyFactors, /, *, core: str = "auto") -> LowRankRotation:
    """The unitary polar factor of I + left rightᴴ, the unitary matrix nearest to it.

    Parameters
    ----------
    body_factors : as for :func:`transport_rotation`
    core
        As for :func:`transport_rotation`, with inverses in the Gram core and an SVD in the orthonormal one.

    Returns
    -------
    LowRankRotation
        As from :func:`transport_rotation`.

    Notes
    -----
    O(nk² + k³). With c = left, b = right, W = [b, c], K = WᴴW, Z = [[cᴴc, I], [I, 0]] and
    E = [[0, 0], [I, 0]] the polar factor is I + W M Wᴴ, M = E + Y + E K Y, Y = −Z[S(I + S)]⁻¹,
    S = (I + KZ)^½.

    Exact to rounding for every step with ``"auto"`` where values can be read. The Gram core alone: 1e-12 …
    2e-11 at step norm 3 in double precision, more beyond, and NaN where its defect is above √eps. Where
    I + left rightᴴ is singular the nearest unitary matrix is not unique; the orthonormal core returns one. A
    real factor has determinant +1 for steps of norm below 1; a longer step can give −1.

    References
    ----------
    Bobak Kiani, Randall Balestriero, Yann LeCun, Seth Lloyd, "projUNN", NeurIPS 2022, theorem 4.2. Joseph
    B. Keller, "Closest unitary, orthogonal and Hermitian operators to a given operator", Math. Mag. 48
    (1975).
    Nicholas J. Higham, "Functions of Matrices", SIAM 2008, section 6.3 (product form of Denman–Beavers).

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> c, b = np.array([[0.0], [2.0]]), np.array([[1.0], [0.0]])
    >>> P = lu.rotate(np.eye(2), lu.polar_rotation(lu.BodyFactors(c, b)))
    >>> H = P.T @ (np.eye(2) + c @ b.T)
    >>> np.allclose(H, H.T), bool(np.all(np.linalg.eigvalsh(H) > 0))
    (True, True)
    """
    validate.choice("core", core, CORES)
    return low_rank_rotation(body_factors, core, "polar", _gram_middle, dense_change)


def polar_isometry(xp: Namespace, body_factors: BodyFactors, n: int) -> LowRankRotation:
    """The polar factor of E + left rightᴴ, for factors [c, r] and [b, 0] in the frame of an m×n U.

    E is the first n columns of the identity, which U is in its frame. Rotating U by the result gives the
    matrix with orthonormal columns nearest to U + left rightᴴ: E + L Rᴴ with R zero below row n. By the
    orthonormal core; the Gram core is that of frame.py.
    """
    c, b = broadcast(xp, *body_factors)
    k, dtype = c.shape[-1], c.dtype
    c, b, unit = balance(xp, c, b)
    Q, (b_small, c_small) = orthonormalise(xp, hstack(xp, b, c)[..., :n, :], (k, k))
    N, r_small = qr(xp, c[..., n:, :])
    Y = dense_change(xp, stacked(xp, c_small, r_small) @ adjoint(xp, b_small), unit)
    q = Q.shape[-1]
    left, right = (astype(xp, x, dtype) for x in (stacked(xp, Q @ Y[..., :q, :], N @ Y[..., q:, :]), Q))
    return LowRankRotation(left, along_columns(xp, right, c.shape[-2] - n))


def _gram_middle(xp: Namespace, K: Array, small: bool) -> Array:
    k = K.shape[-1] // 2
    Y, G = gram_parts(xp, K, K[..., k:, k:], small)
    # M = E (I + KY) + Y; E moves the upper half to the lower one.
    return xp.concat([Y[..., :k, :], Y[..., k:, :] + G], axis=-2)


def gram_parts(xp: Namespace, K: Array, squares: Array, small: bool) -> tuple[Array, Array]:
    """Y and the upper half of I + KY, with the products of the whole left factor in Z."""
    k = K.shape[-1] // 2
    eye = eye_like(xp, K)
    # Products with Z = [[squares, I], [I, 0]].
    upper, lower = eye[..., :k, :], eye[..., k:, :]
    Z = xp.concat(broadcast(xp, squares @ upper + lower, upper), axis=-2)
    S = square_root(xp, eye + K @ Z, 5 if small else 10)
    Y = -Z @ inv(xp, S + S @ S)
    return Y, upper + (K @ Y)[..., :k, :]


def square_root(xp: Namespace, A: Array, steps: int) -> Array:
    """A^½ for positive spectrum, by the product form of Denman–Beavers; NaN where it has not converged.

    An eigenvalue λ takes |log₄ λ| steps to come near 1, then four or five more.
    """
    eye = eye_like(xp, A)
    X, residual = A, A
    for _ in range(steps):
        inverse = inv(xp, residual)
        X = 0.5 * (X + X @ inverse)
        residual = 0.5 * eye + 0.25 * (residual + inverse)
    error = xp.sqrt(xp.sum(xp.abs(residual - eye) ** 2, axis=(-2, -1), keepdims=True))
    # Convergence is quadratic: a last residual r leaves an error of r².
    return xp.where(error <= math.sqrt(eps(xp, A.dtype)), X, math.nan)


def dense_change(xp: Namespace, X: Array, unit: Array) -> Array:
    """polar(E + X / unit) − E for a small matrix, square or tall; where the sum is singular, a nearest one.

    E is the identity, for tall X its first columns. An SVD gives the factor P = E + Y to some dozens of eps;
    one Newton step leaves rounding relative to X. With B = unit·E + X it goes to P (I + N), N with the
    Hermitian part ½(I − PᴴP) and the skew part that solves NH + HN = PᴴB − BᴴP, H ≈ PᴴB. Both right sides
    are formed from Y and X, without cancellation.
    """
    rows, columns = X.shape[-2:]
    unit = promoted(xp, unit, X)
    E = xp.eye(rows, columns, dtype=X.dtype, device=placement(X))
    u, s, vh = svd(xp, unit * E + X)
    Y = u @ vh - E
    # EᴴX and EᴴY.
    X_upper, Y_upper = X[..., :columns, :], Y[..., :columns, :]
    # PᴴB − unit·I
    H = unit * adjoint(xp, Y_upper) + X_upper + adjoint(xp, Y) @ X
    v = adjoint(xp, vh)
    # Where rounding would be divided by a tiny sum, the result of the SVD stays.
    sums = s[..., :, None] + s[..., None, :]
    decided = sums > math.sqrt(eps(xp, X.dtype)) * s[..., :1, None]
    skew = xp.where(
        decided, (vh @ (H - adjoint(xp, H)) @ v) / promoted(xp, xp.where(decided, sums, 1.0), X), 0.0
    )
    K = v @ skew @ vh
    N = K + half_defect(xp, Y)
    if rows == columns:
        return Y + N + Y @ N
    return Y + E @ N + Y @ N


def pullback(
    xp: Namespace, X: Array, unit: Array, Q: Array, image: Array, image_back: Array
) -> tuple[Array, Array]:
    """ĀQ and ĀᴴQ from the products R̄Q and R̄ᴴQ of the cotangent of the rotation, for A = Q (X / unit) Qᴴ.

    With I + A = u s vᴴ that of A is u [(G − Gᴴ)_ij/(s_i + s_j)] vᴴ, G = uᴴR̄v; NaN where a sum is zero.
    """
    u, s, vh = svd(xp, promoted(xp, unit, X) * eye_like(xp, X) + X)
    v, uh = adjoint(xp, vh), adjoint(xp, u)
    within = adjoint(xp, Q) @ image
    G = uh @ within @ v
    sums = s[..., :, None] + s[..., None, :]
    # A complex quotient would warn of NaN.
    inner = u @ ((G - adjoint(xp, G)) * promoted(xp, unit / xp.where(sums > 0, sums, math.nan), G)) @ vh
    # To the complement, where s = 1.
    rest, rest_back = image - Q @ within, image_back - Q @ (adjoint(xp, Q) @ image_back)
    outer = (rest @ v - rest_back @ u) * promoted(xp, unit / (unit + s[..., None, :]), G)
    return Q @ inner + outer @ vh, Q @ adjoint(xp, inner) - outer @ uh
