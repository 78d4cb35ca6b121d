"""From body factors to a low-rank rotation, through a core matrix of size 2k.

With W = [b, c] every function of cbᴴ used here is I + W M Wᴴ, and M depends on K = WᴴW alone. Polar
projection and transport supply M; balancing, the choice of the core and the thin products are shared.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from .._array import (
    Array,
    Namespace,
    astype,
    core_dtype,
    eps,
    placement,
    real_dtype,
    stop_gradient,
    validate,
    values_are_at_hand,
)
from .._linalg import adjoint, adjoint_product, broadcast, product, promoted, qr, whole_rotation
from ..types import BodyFactors, LowRankRotation, checked_body_factors, factor_dtype

CORES = ("auto", "gram", "orthonormal")

Product = Callable[[Array], Array]
# (xp, X, unit, Q, R̄Q, R̄ᴴQ) → (ĀQ, ĀᴴQ), for the function of A = Q (X / unit) Qᴴ with the cotangent R̄.
Pullback = Callable[[Namespace, Array, Array, Array, Array, Array], tuple[Array, Array]]

# The Gram core is used by value up to this spectral norm of the balanced K: the cancellation in W M Wᴴ grows
# with ‖K‖. For a unit vector x, |bᴴx|² + |cᴴx|² ≤ 0.9, so |xᴴcbᴴx| ≤ 0.45: σ_min of I + cbᴴ is above 0.55.
GRAM_LIMIT = 0.9


def low_rank_rotation(
    body_factors: BodyFactors,
    core: str,
    update: str,
    gram_middle: Callable[[Namespace, Array, bool], Array],
    dense_change: Callable[[Namespace, Array, Array], Array],
) -> LowRankRotation:
    """I + W M Wᴴ by the chosen core, or by the kernels where they are available.

    `update` names the function for the kernels.
    `gram_middle(xp, K, small)` gives M from K, where small states ‖K‖₂ ≤ GRAM_LIMIT;
    `dense_change(xp, X, unit)` gives f(X / unit) − I for the small matrix X = unit · Qᴴ c bᴴ Q.
    """
    xp, n, k = checked_body_factors(body_factors)
    validate.choice("core", core, CORES)
    dtype = factor_dtype(xp, body_factors)
    working = core_dtype(xp, dtype)
    c, b = (astype(xp, x, working) for x in broadcast(xp, *body_factors))
    if core == "auto" and (made := whole_rotation(xp, c, b, update)):
        return LowRankRotation(*(astype(xp, x, dtype) for x in made))
    W, K, unit = balanced_gram(xp, c, b)
    small = False
    if core == "auto":
        core, small = choose_core(xp, K, n)
    if core == "gram":
        M = gram_middle(xp, K, small)
        # By the kernels where they are available, as K is: threads of BLAS that spin would take cores from
        # those that move U.
        left, right = W, product(xp, W, adjoint(xp, M if small else unless_wrong(xp, M, K)))
    else:
        Q, (b_small, c_small) = orthonormalise(xp, W, (k, k))
        left, right = Q, Q @ adjoint(xp, dense_change(xp, c_small @ adjoint(xp, b_small), unit))
    return LowRankRotation(astype(xp, left, dtype), astype(xp, right, dtype))


def balanced_gram(xp: Namespace, c: Array, b: Array) -> tuple[Array, Array, Array]:
    """W = [b, c] of balanced columns, K = WᴴW, and the factor by which the product was scaled."""
    # Column-major, as the kernels take thin factors.
    W = xp.concat([b.mT, c.mT], axis=-2).mT
    if values_are_at_hand(W) and math.prod(W.shape) and 2.0**-40 < xp.max(xp.abs(W)) < 2.0**40:
        K = adjoint_product(xp, W, W)
        squares = xp.abs(xp.linalg.diagonal(K))
        if xp.all(squares > 2.0**-80):
            # No overflow or underflow: the norms are read from K, which powers of two scale exactly.
            k = c.shape[-1]
            apart = xp.round(0.25 * (xp.log2(squares[..., :k]) - xp.log2(squares[..., k:])))
            power = astype(xp, 2.0 ** xp.concat([-apart, apart], axis=-1), real_dtype(xp, W.dtype))
            across = power[..., None, :]
            W, down = W * promoted(xp, across, W), promoted(xp, power[..., :, None], K)
            return W, K * promoted(xp, across, K) * down, xp.ones_like(across[..., :1])
    c, b, unit = balance(xp, c, b)
    W = xp.concat([b, c], axis=-1)
    return W, adjoint_product(xp, W, W), unit


def balance(xp: Namespace, c: Array, b: Array) -> tuple[Array, Array, Array]:
    """Scale every column pair by powers of two to equal norms, (c_j δ_j, b_j / δ_j); the product stays.

    A column whose partner is zero is made small, so as not to weigh in K. Where the squares of the columns
    would overflow, all are scaled down: the third result, else 1, is the factor of the product.
    """
    k = c.shape[-1]
    if k == 0:
        return c, b, xp.ones((1, 1), dtype=real_dtype(xp, c.dtype), device=placement(c))
    log_c, log_b = _log2_norm(xp, c), _log2_norm(xp, b)
    log_c, log_b = (
        xp.where(xp.isinf(log_c), -64.0 - xp.where(xp.isinf(log_b), 0.0, log_b), log_c),
        xp.where(xp.isinf(log_b), -64.0 - xp.where(xp.isinf(log_c), 0.0, log_c), log_b),
    )
    # In two halves: δ itself may leave the range of the dtype.
    delta = astype(xp, stop_gradient(2.0 ** xp.round(0.25 * (log_b - log_c))), real_dtype(xp, c.dtype))
    longest = 0.5 * xp.max(log_c + log_b, axis=-1, keepdims=True)
    most = 0.5 * math.log2(float(xp.finfo(c.dtype).max)) - 12
    shrink = 2.0 ** -xp.where(longest > most, xp.round(longest - most), 0.0)
    shrink = astype(xp, stop_gradient(shrink), real_dtype(xp, c.dtype))
    unit = shrink * shrink
    delta, shrink = promoted(xp, delta, c), promoted(xp, shrink, c)
    return c * delta * (delta * shrink), b / delta * (shrink / delta), unit


def _log2_norm(xp: Namespace, x: Array) -> Array:
    """log2 of the norm of every column, safe from overflow and underflow; −inf for a zero column."""
    magnitude = xp.abs(stop_gradient(x))
    largest = xp.max(magnitude, axis=-2, keepdims=True)
    scale = xp.where(largest > 0, largest, 1.0)
    # The largest entry is 1 after scaling: the norm is 0 for a zero column only.
    norm = xp.sqrt(xp.sum((magnitude / scale) ** 2, axis=-2, keepdims=True))
    return xp.where(largest == 0, -math.inf, xp.log2(scale) + xp.log2(xp.where(norm > 0, norm, 1.0)))


def choose_core(xp: Namespace, K: Array, n: int) -> tuple[str, bool]:
    """The core that is exact to rounding, by value where a value can be read, else the Gram core."""
    if not values_are_at_hand(K):
        return "gram", False
    if K.shape[-1] < n and bool(xp.all(gram_is_exact(xp, K))):
        return "gram", True
    return "orthonormal", False


def gram_is_exact(xp: Namespace, K: Array) -> Array:
    """Whether ‖K‖₂ ≤ GRAM_LIMIT, matrix by matrix; False for NaN.

    By ‖K⁸‖_F^⅛, which exceeds ‖K‖₂ by a factor of (2k)^(1/16) at most: 1.2 for k = 16.
    """
    # An entry above 1 is enough, one below 1e-9 does not count; powers may overflow or underflow.
    size = xp.abs(K)
    K = xp.where(xp.all(size <= 1.0, axis=(-2, -1), keepdims=True), xp.where(size < 1e-9, 0.0, K), 1.0)
    for _ in range(3):
        K = K @ K
    return xp.linalg.matrix_norm(K) <= GRAM_LIMIT**8


def unless_wrong(xp: Namespace, M: Array, K: Array, outside: Array | None = None) -> Array:
    """M, or NaN where the defect W X Wᴴ of I + W M Wᴴ is above √eps.

    X = M + Mᴴ + MᴴKM, and what a part outside of the range of W adds; ‖W X Wᴴ‖² = tr(X K X K).
    """
    K, constant = stop_gradient(K), stop_gradient(M)
    transposed = adjoint(xp, constant)
    X = constant + transposed + transposed @ K @ constant
    XK = (X if outside is None else X + stop_gradient(outside)) @ K
    defect_squared = xp.abs(xp.linalg.trace(XK @ XK))[..., None, None]
    return xp.where(defect_squared <= eps(xp, K.dtype), M, math.nan)


def orthonormalise(xp: Namespace, W: Array, widths: Sequence[int]) -> tuple[Array, list[Array]]:
    """Q with orthonormal columns that span W, or I for wide W, and Qᴴ times the blocks of W."""
    n, width = W.shape[-2:]
    if width >= n or width == 0:
        Q, small = broadcast(xp, xp.eye(n, dtype=W.dtype, device=placement(W)), W)
    else:
        Q, small = qr(xp, W)
    ends = list(itertools.accumulate(widths, initial=0))
    return Q, [small[..., start:end] for start, end in itertools.pairwise(ends)]


def half_defect(xp: Namespace, Y: Array) -> Array:
    """½(I − PᴴP) for P = I + Y, formed from Y alone, so that nothing of the size of I has to cancel.

    Y + N + Y N with this N is one Newton–Schulz step of P towards the unitary matrices. For tall Y the
    identity is the first columns of one.
    """
    Y_adjoint, upper = adjoint(xp, Y), Y[..., : Y.shape[-1], :]
    return -0.5 * (upper + adjoint(xp, upper) + Y_adjoint @ Y)


def pull_back_cotangent(
    xp: Namespace, body: BodyFactors, forward: Product, backward: Product, pullback: Pullback
) -> tuple[Array, Array]:
    """Cotangents of c and b from the products of R̄ and R̄ᴴ with thin blocks.

    The rotation is a function of A = c bᴴ, so they are Ā b and Āᴴ c, and b and c lie in the range of Q.
    """
    c, b = broadcast(xp, *body)
    k = c.shape[-1]
    small_c, small_b, unit = balance(xp, c, b)
    Q, (small_b, small_c) = orthonormalise(xp, xp.concat([small_b, small_c], axis=-1), (k, k))
    after_Q, before_Q = pullback(xp, small_c @ adjoint(xp, small_b), unit, Q, forward(Q), backward(Q))
    return after_Q @ (adjoint(xp, Q) @ b), before_Q @ (adjoint(xp, Q) @ c)
