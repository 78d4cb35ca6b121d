"""Orthonormal bases that hold most of a matrix, found from its products with random blocks."""

from __future__ import annotations

from .._array import Array, Namespace, astype
from .._linalg import adjoint, hstack, inv, promoted, qr, replicated, svd
from ..types import SVDSketch
from .operator import Operator


def power_basis(op: Operator, samples: Array, power_iterations: int) -> Array:
    """Basis of (A Aᴴ)^q A Ω, orthonormalised between any two products."""
    basis, _ = qr(op.xp, op.forward(samples))
    for _ in range(power_iterations):
        other, _ = qr(op.xp, op.backward(basis))
        basis, _ = qr(op.xp, op.forward(other))
    return basis


def krylov_basis(op: Operator, samples: Array, power_iterations: int) -> Array:
    """Basis of [A Ω, (A Aᴴ) A Ω, …, (A Aᴴ)^q A Ω]."""
    basis, _ = qr(op.xp, op.forward(samples))
    newest = basis
    for _ in range(power_iterations):
        if basis.shape[-1] == basis.shape[-2]:
            break
        other, _ = qr(op.xp, op.backward(newest))
        basis, newest = extended(op.xp, basis, op.forward(other))
    return basis


def extended(xp: Namespace, basis: Array, block: Array) -> tuple[Array, Array]:
    """A basis with what a block adds to it, as far as there is room, and the new columns alone."""
    width = basis.shape[-1]
    # First by itself, so that its scale does not matter; then together with the basis, so that the rounding
    # left of a block of lower rank becomes orthogonal to it.
    basis, _ = qr(xp, hstack(xp, basis, qr(xp, block)[0]))
    return basis, basis[..., width:]


def in_basis(op: Operator, basis: Array) -> SVDSketch:
    """The singular value decomposition of QQᴴA."""
    xp = op.xp
    # SVD of the tall (QᴴA)ᴴ through its small triangular factor: one QR of size n.
    tall_q, small_r = qr(xp, op.backward(basis))
    v_small, s, uh_small = svd(xp, small_r)
    return SVDSketch(basis @ adjoint(xp, uh_small), s, adjoint(xp, tall_q @ v_small))


def single_pass(op: Operator, right: Array, core_right: Array, left: Array, core_left: Array) -> SVDSketch:
    """From AΩ, AᴴΥ and ΦᴴAΨ alone: A ≈ QCPᴴ with Q = orth(AΩ), P = orth(AᴴΥ) and C by least squares."""
    xp = op.xp
    width = right.shape[-1]
    products = op.forward(hstack(xp, right, core_right))
    Q, _ = qr(xp, products[..., :width])
    P, _ = qr(xp, op.backward(left))
    small = adjoint(xp, core_left) @ products[..., width:]
    # (ΦᴴQ) C (ΨᴴP)ᴴ = ΦᴴAΨ, over-determined from both sides.
    C = _solve_tall(xp, adjoint(xp, core_left) @ Q, small)
    C = adjoint(xp, _solve_tall(xp, adjoint(xp, core_right) @ P, adjoint(xp, C)))
    u, s, vh = svd(xp, C)
    return SVDSketch(Q @ u, s, vh @ adjoint(xp, P))


def _solve_tall(xp: Namespace, matrix: Array, right_side: Array) -> Array:
    """Least squares by QR: the matrix is a Gaussian one times orthonormal columns, so of full rank."""
    q, r = qr(xp, matrix)
    return inv(xp, r) @ (adjoint(xp, q) @ right_side)


def least_squares(op: Operator, samples: Array) -> SVDSketch:
    """A ≈ (AV)Vᴴ with V an orthonormal basis of the row space of RᴴA, R Haar."""
    xp = op.xp
    # Only the range of R counts, and that of a Gaussian R is Haar-distributed already.
    row_basis, _ = qr(xp, op.backward(samples))
    u, s, wh = svd(xp, op.forward(row_basis))
    return SVDSketch(u, s, wh @ adjoint(xp, row_basis))


def columns_basis(xp: Namespace, matrix: Array, k: int, uniform: Array) -> Array:
    """The k leading left singular vectors of samples A_j/√(c p_j) of the columns, p_j = |A_j|²/‖A‖²."""
    n, columns = matrix.shape[-1], uniform.shape[-1]
    largest = xp.max(xp.abs(matrix), axis=(-2, -1), keepdims=True)
    scaled = matrix / promoted(xp, xp.where(largest > 0, largest, 1.0), matrix)
    (squares,) = replicated(xp, xp.sum(xp.abs(scaled) ** 2, axis=-2, keepdims=True))
    squares = squares[..., 0, :]
    total = xp.sum(squares, axis=-1, keepdims=True)
    weights = xp.where(total > 0, squares / xp.where(total > 0, total, 1.0), 1.0 / n)
    upper = xp.cumulative_sum(weights, axis=-1)
    lower = upper - weights
    uniform = uniform * upper[..., None, -1:]
    # Column j of the selection marks the interval of the cumulated weights that sample j falls into.
    chosen = (lower[..., :, None] <= uniform) & (uniform < upper[..., :, None])
    chance = xp.where(weights > 0, weights, 1.0)[..., :, None]
    selection = xp.where(chosen, 1.0 / xp.sqrt(columns * chance), 0.0)
    u, _, _ = svd(xp, scaled @ astype(xp, selection, matrix.dtype))
    return u[..., :k]


def factored_svd(xp: Namespace, left: Array, right: Array) -> SVDSketch:
    """The singular value decomposition of left rightᴴ through the triangular factors of both."""
    (q_left, r_left), (q_right, r_right) = qr(xp, left), qr(xp, right)
    u, s, vh = svd(xp, r_left @ adjoint(xp, r_right))
    return SVDSketch(q_left @ u, s, vh @ adjoint(xp, q_right))


def truncated(sketch: SVDSketch, k: int) -> SVDSketch:
    """The k leading terms."""
    return SVDSketch(sketch.U[..., :k], sketch.S[..., :k], sketch.Vh[..., :k, :])
