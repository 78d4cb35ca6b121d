"""Project, then compress: sketch only the part of the gradient that moves the unitary."""

from __future__ import annotations

from . import _validate
from ._array import RNG, Array, Namespace, astype, normal_block, qr, svd, thin_dtype
from ._primitives import adjoint_product, product, pull_back
from .factors import BodyFactors
from .sketch import check_test_matrix

# Samples beyond the rank.
OVERSAMPLE = 4


def tangent_sketch(
    unitary: Array,
    gradient: Array,
    rank: int,
    /,
    *,
    oversample: int = OVERSAMPLE,
    power_iterations: int = 0,
    rng: RNG = None,
    test_matrix: Array | None = None,
) -> BodyFactors:
    """Sketch the tangent part A = (UᴴG − GᴴU)/2 of a gradient, two-sided, at rank k.

    Only A moves U along the unitary matrices. Compressing the gradient itself first keeps what its
    Hermitian part dominates, which moves nothing. With Q the basis found for the range of A, the result
    stands for Q Qᴴ A + A Q Qᴴ − Q Qᴴ A Q Qᴴ: every entry of A that touches range(Q).

    Parameters
    ----------
    unitary : array, shape (…, n, n)
        The matrix U to be moved, unitary (complex) or orthogonal (real).
    gradient : array, shape (…, n, n)
        G, the direction of steepest ascent of a real loss under Re tr(XᴴY): torch's ``.grad`` as it is,
        the complex conjugate of what ``jax.grad`` returns for complex input.
    rank : int
        k, from 1 to n.
    oversample : int
        Further samples; the k leading directions of all samples are kept.
    power_iterations : int
        Applications of A Aᴴ to the samples, re-orthonormalised.
    rng : int, numpy.random.Generator or None
        Source of the test matrix; the same seed gives the same one on every namespace and device.
    test_matrix : array, shape (…, n, ℓ), k ≤ ℓ ≤ n, optional
        Used in place of random numbers; its width sets the oversampling.

    Returns
    -------
    BodyFactors
        left = C and right = Q, both (…, n, k), Q orthonormal, with skew(C Qᴴ) the sketch of A; in float32
        for U in half precision.
        ``transport_rotation(BodyFactors(-eta * C, Q))`` descends by a step of size eta.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit together.

    Notes
    -----
    C = 2AQ − Q(QᴴAQ), so that skew(CQᴴ) = (CQᴴ − QCᴴ)/2 is the two-sided sketch. The inner product of the
    sketch with A is 2‖AQ‖² − ‖QᴴAQ‖² ≥ ‖AQ‖²: a descent direction whatever Q is, zero only where A Q is.
    A is never formed: each application costs four products with the n×n matrices, 8n² operations (real) a
    column. One is made with ℓ = k + oversample columns, one with k, and 2 power_iterations with ℓ.
    Scale-invariant in G.

    References
    ----------
    Range finder: N. Halko, P.-G. Martinsson, J. A. Tropp, SIAM Review 53 (2011), algorithm 4.4. The
    two-sided form for skew-Hermitian matrices: documentation of this library, numerics page.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> U = lu.random_unitary(20, rng=0)
    >>> G = np.random.default_rng(1).standard_normal((20, 20))
    >>> C, Q = lu.tangent_sketch(U, G, 4, rng=2)
    >>> A = (U.T @ G - G.T @ U) / 2
    >>> sketch = (C @ Q.T - Q @ C.T) / 2
    >>> bool(np.sum(sketch * A) > 0)
    True
    """
    given = {"test_matrix": test_matrix} if test_matrix is not None else {}
    xp = _validate.namespace_of(unitary=unitary, gradient=gradient, **given)
    n = _validate.square("unitary", unitary)
    check_gradient(gradient, n)
    batch = _validate.batches(unitary=unitary, gradient=gradient)
    _validate.same_dtype(xp, "unitary", unitary, gradient=gradient)
    k = _validate.rank(rank, n)
    width = min(n, k + _validate.count("oversample", oversample))
    power_iterations = _validate.count("power_iterations", power_iterations)
    if test_matrix is None:
        test_matrix = normal_block(xp, (*batch, n, width), unitary, rng)
    else:
        check_test_matrix(xp, "unitary", unitary, test_matrix, n, k)
        test_matrix = astype(xp, test_matrix, thin_dtype(xp, unitary.dtype))
    factors, _ = sketch_tangent(xp, unitary, gradient, k, test_matrix, power_iterations)
    return factors


def check_gradient(gradient: Array, n: int) -> None:
    """A gradient has the shape of the matrix that it is taken with respect to."""
    if tuple(gradient.shape[-2:]) != (n, n):
        raise ValueError(
            f"gradient must have shape (…, {n}, {n}) like unitary, got {tuple(gradient.shape)}: "
            f"for a gradient in thin factors see LowRankFactors.to_body."
        )


def sketch_tangent(
    xp: Namespace,
    unitary: Array,
    gradient: Array,
    k: int,
    test_matrix: Array,
    power_iterations: int = 0,
    probes: Array | None = None,
) -> tuple[BodyFactors, Array | None]:
    """The sketch, and Uᴴ(U probes) from the last read of U by Uᴴ."""

    def skew_product(block: Array, probes: Array | None = None) -> tuple[Array, Array | None]:
        pulled, seen = pull_back(xp, unitary, product(xp, gradient, block), probes)
        return 0.5 * (pulled - adjoint_product(xp, gradient, product(xp, unitary, block))), seen

    samples, _ = skew_product(test_matrix)
    Q, R = qr(xp, samples)
    for _ in range(2 * power_iterations):
        samples, _ = skew_product(Q)
        Q, R = qr(xp, samples)
    if Q.shape[-1] > k:
        # The k leading left singular vectors of the samples Q R.
        u, _, _ = svd(xp, R)
        Q = Q @ u[..., :k]
    AQ, seen = skew_product(Q, probes)
    C = 2.0 * AQ - Q @ adjoint_product(xp, Q, AQ)
    return BodyFactors(C, Q), seen
