"""Project, then compress: sketch only the part of the gradient that moves the unitary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._array import Array, Namespace, validate
from .._linalg import RNG, adjoint, check_rng, frobenius_norm, product, pull_back
from ..sketch.operator import Operator, operator_of
from ..sketch.range_finder import power_basis
from ..sketch.test_matrix import Samples
from ..sketch.tolerance import MEASURING, MISSED, basis_within, largest_rank, surely, terms_at_tolerance
from ..types import BodyFactors, LowRankFactors
from .planes import leading_planes, two_sided

# Samples beyond the dimensions of a tangent of rank 2k.
_MORE = 4


def tangent_sketch(
    unitary: Array,
    gradient: Array | LowRankFactors,
    /,
    rank: int | None = None,
    *,
    rtol: float | None = None,
    max_rank: int | None = None,
    masked: bool = False,
    oversample: int | None = None,
    power_iterations: int = 0,
    rng: RNG = None,
    test_matrix: Array | str = "gaussian",
) -> BodyFactors:
    """Sketch the tangent part A = (UᴴG − GᴴU)/2 of a gradient, two-sided, at rank k.

    Only A moves U along the unitary matrices. Compressing the gradient itself first keeps what its
    Hermitian part dominates, which moves nothing. With B the basis found for the range of A, every entry of A
    that touches range(B) is known, B Bᴴ A + A B Bᴴ − B Bᴴ A B Bᴴ; the result is the best that k columns can
    hold of it.

    Parameters
    ----------
    unitary : array, shape (…, n, n)
        The matrix U to be moved, unitary (complex) or orthogonal (real).
    gradient : array, shape (…, n, n), or LowRankFactors
        G, the direction of steepest ascent of a real loss under Re tr(XᴴY): torch's ``.grad`` as it is,
        the complex conjugate of what ``jax.grad`` returns for complex input. Factors stand for left rightᴴ,
        which is never formed.
    rank : int, optional
        k, from 1 to n. Either this or `rtol`. Factors with no more columns than that are only pulled back.
    rtol : float, optional
        In place of a rank: the smallest with ‖A − sketch‖ ≤ rtol ‖A‖ (Frobenius), so that a step of size η
        ends within η rtol ‖A‖ of where the whole tangent would lead. What is missed is measured with ten
        further samples; it is more than that with probability 0.01 at most.
    max_rank : int, optional
        With `rtol`: no more than this. By default n.
    masked : bool
        With `rtol`: return `max_rank` columns whatever the rank, zeros beyond it, for jit.
    oversample : int, optional
        Samples beyond k, by default k + 4: in all as many as a tangent of k columns has dimensions, and 4
        more. The best k columns of what all samples tell are kept.
    power_iterations : int
        Applications of A Aᴴ to the samples, re-orthonormalised.
    rng : int, numpy.random.Generator, torch.Generator, JAX key or None
        Source of the test matrix; the same seed gives the same one on every namespace and device.
    test_matrix : {"gaussian", "rademacher", "sparse_sign"} or array
        Its distribution, or the matrix itself: shape (…, n, ℓ), k ≤ ℓ ≤ n, which sets the oversampling.

    Returns
    -------
    BodyFactors
        left = C and right = Q, both (…, n, k), with skew(C Qᴴ) the sketch of A; in float32 for U in half
        precision. ``transport_rotation(BodyFactors(-eta * C, Q))`` descends by a step of size eta.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit together.

    Notes
    -----
    A column pairs two directions between which A turns, so that k columns hold a matrix of rank 2k. With
    oversample=0 the inner product of the sketch with A is its squared norm, so it descends for any test
    matrix; with more samples the same holds up to what no sample has touched (numerics page). A is never
    formed: each application costs four products with the n×n matrices, 8n² operations (real) a column; there
    are 2 power_iterations + 2, with ℓ = k + oversample columns. Scale-invariant in G.

    References
    ----------
    Range finder: Nathan Halko, Per-Gunnar Martinsson, Joel A. Tropp, "Finding structure with randomness",
    SIAM Review 53 (2011), algorithm 4.4. The two-sided form for skew-Hermitian matrices: documentation of
    this library, numerics page.

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
    tangent = Tangent.of(unitary, gradient)
    if isinstance(gradient, LowRankFactors) and rank is not None and rtol is None:
        k = validate.rank(rank, tangent.gradient.columns)
        if gradient.left.shape[-1] <= k:
            _check_options(tangent, k, oversample, power_iterations, rng, test_matrix)
            return gradient.to_body(unitary)
    return _sketched(tangent, rank, rtol, max_rank, masked, oversample, power_iterations, rng, test_matrix)


def compress_tangent(
    body_factors: BodyFactors,
    /,
    rank: int | None = None,
    *,
    method: str | None = None,
    rtol: float | None = None,
    max_rank: int | None = None,
    masked: bool = False,
    oversample: int | None = None,
    power_iterations: int | None = None,
    rng: RNG = None,
    test_matrix: Array | str = "gaussian",
) -> BodyFactors:
    """The best body factors with k columns for the tangent part skew(left rightᴴ) of given ones.

    What a transport does depends on that part alone. In training the gradient comes as such factors: for y =
    Ux with Δ the gradient with respect to y, the one with respect to U is Δxᴴ, and UᴴΔ, which
    back-propagation computes, and x are its body factors. No read of U is needed to compress them.

    Parameters
    ----------
    body_factors : BodyFactors
        left and right (…, n, m), any m, also many times n.
    rank : int, optional
        k, from 1 to n. Either this or `rtol`. Factors with no more columns are returned as they are.
    method : {"exact", "randomized"}, optional
        ``"exact"``: O(nm² + m³), by default where m ≤ 2k + 16 and 2m < n. ``"randomized"``: as
        :func:`tangent_sketch`, O(nmk).
    rtol, max_rank, masked : optional
        As in :func:`tangent_sketch`.
    oversample, power_iterations, rng, test_matrix
        As in :func:`tangent_sketch`, for ``"randomized"``; products are cheap here, hence 2 power iterations
        by default.

    Returns
    -------
    BodyFactors
        (C, Q) with skew(C Qᴴ) the sketch of skew(left rightᴴ).

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> rng = np.random.default_rng(0)
    >>> U, x, delta = lu.random_unitary(30, rng=1), *rng.standard_normal((2, 30, 8))
    >>> known = U.T @ delta  # from the backward pass
    >>> C, Q = lu.compress_tangent(lu.BodyFactors(known, x), 2)
    >>> V = lu.rotate(U, lu.transport_rotation(lu.BodyFactors(-0.01 * C, Q)))
    >>> bool(lu.is_unitary(V))
    True
    """
    if not isinstance(body_factors, BodyFactors):
        raise TypeError(
            f"body_factors must be BodyFactors, got {type(body_factors).__name__}: LowRankFactors go to "
            f"tangent_sketch, together with the matrix that they move."
        )
    if method is not None:
        validate.choice("method", method, ("exact", "randomized"))
    tangent = Tangent.of(None, body_factors)
    n, m = tangent.gradient.columns, body_factors.left.shape[-1]
    most = largest_rank(n, rank, rtol, max_rank, masked=masked)
    q = 2 if power_iterations is None else power_iterations
    _check_options(tangent, most if rtol is None else 1, oversample, q, rng, test_matrix)
    if method == "exact":
        ignored = {"oversample": oversample, "power_iterations": power_iterations}
        ignored["test_matrix"] = None if isinstance(test_matrix, str) else test_matrix
        for name, value in ignored.items():
            if value is not None:
                raise ValueError(f"{name} has no meaning for method='exact': leave it out.")
    if rtol is None and m <= most:
        return body_factors
    if method is None:
        method = "exact" if m <= 2 * most + 16 and 2 * m < n else "randomized"
    if method == "randomized":
        return _sketched(tangent, rank, rtol, max_rank, masked, oversample, q, rng, test_matrix)
    xp = tangent.xp
    left, right = tangent.gradient.factors or body_factors
    kept, sizes = leading_planes(xp, left, right, most if rtol is None else n)
    return kept if rtol is None else _within(xp, kept, sizes, 0.0 * sizes[..., 0], 0.0, rtol, most, masked)


@dataclass(frozen=True)
class Tangent:
    """A = skew(UᴴG), known by its products; of body factors U is not needed."""

    xp: Namespace
    unitary: Array | None
    gradient: Operator

    @classmethod
    def of(cls, unitary: Array | None, gradient: Any, *, of_unitary: bool = False) -> Tangent:
        """The tangent of a gradient that is an array, LowRankFactors, or BodyFactors.

        Of body factors no U is needed, unless it is the one that they are to move (`of_unitary`).
        """
        if isinstance(gradient, BodyFactors):
            if of_unitary:
                validate.namespace_of(unitary=unitary)
            given = {} if unitary is None else {"unitary": unitary}
            xp = validate.namespace_of(left=gradient.left, right=gradient.right, **given)
            n = None if unitary is None else validate.square("unitary", unitary)
            validate.factor_pair("left", gradient.left, "right", gradient.right, n)
            if unitary is not None:
                validate.batches(unitary=unitary, **gradient._asdict())
                validate.same_dtype(xp, "unitary", unitary, **gradient._asdict())
            return cls(xp, None, operator_of("body_factors", gradient))
        validate.namespace_of(unitary=unitary)
        n = validate.square("unitary", unitary)
        if isinstance(gradient, LowRankFactors):
            op, arrays = operator_of("gradient", gradient, unitary, "unitary"), gradient._asdict()
            shape = (int(gradient.left.shape[-2]), int(gradient.right.shape[-2]))
        else:
            op, arrays, shape = None, {"gradient": gradient}, tuple(getattr(gradient, "shape", (n, n)))[-2:]
        if shape != (n, n):
            raise ValueError(
                f"gradient must have shape (…, {n}, {n}) like unitary, or be LowRankFactors of such a "
                f"matrix, got {shape}."
            )
        xp = validate.namespace_of(unitary=unitary, **arrays)
        validate.batches(unitary=unitary, **arrays)
        validate.same_dtype(xp, "unitary", unitary, **arrays)
        return cls(xp, unitary, op or operator_of("gradient", gradient))

    @property
    def like(self) -> Array:
        """An array with the dtype and the device of its thin blocks."""
        return self.gradient.like if self.unitary is None else self.unitary

    @property
    def batch(self) -> tuple[int, ...]:
        """The leading axes of U and G, broadcast."""
        own = () if self.unitary is None else tuple(self.unitary.shape[:-2])
        return np.broadcast_shapes(own, self.gradient.batch)

    @property
    def operator(self) -> Operator:
        """A as any other matrix; Aᴴ = −A."""
        n = self.gradient.columns
        return Operator(
            "gradient", self.xp, self.like, self.batch, n, n,
            lambda block: self.product(block)[0],
            lambda block: -self.product(block)[0],
        )  # fmt: skip

    def product(self, block: Array, probes: Array | None = None) -> tuple[Array, Array | None]:
        """A @ block, and Uᴴ(U probes) from the same read of U by Uᴴ."""
        there = self.gradient.forward(block)
        if self.unitary is None:
            return 0.5 * (there - self.gradient.backward(block)), None
        pulled, seen = pull_back(self.xp, self.unitary, there, probes)
        return 0.5 * (pulled - self.gradient.backward(product(self.xp, self.unitary, block))), seen


def _check_options(
    tangent: Tangent,
    k: int,
    oversample: int | None,
    power_iterations: int,
    rng: RNG,
    test_matrix: Array | str,
) -> None:
    """Refuse wrong options of a randomised sketch, also where none is made."""
    n = tangent.gradient.columns
    samples_for(n, k, oversample)
    validate.count("power_iterations", power_iterations)
    check_rng(rng, tangent.like)
    Samples.of(tangent.operator, test_matrix, k, 0, rows=n)


def samples_for(n: int, k: int, oversample: int | None = None) -> int:
    """How many samples are drawn."""
    return min(n, k + (k + _MORE if oversample is None else validate.count("oversample", oversample)))


def sketch_tangent(
    tangent: Tangent, k: int, test_matrix: Array, power_iterations: int = 0, probes: Array | None = None
) -> tuple[BodyFactors, Array | None]:
    """The best k columns of what the samples tell, and Uᴴ(U probes) from the last read of U by Uᴴ."""
    basis = power_basis(tangent.operator, test_matrix, power_iterations)
    image, seen = tangent.product(basis, probes)
    factors, _ = leading_planes(tangent.xp, *two_sided(tangent.xp, image, basis), k)
    return factors, seen


def _sketched(
    tangent: Tangent,
    rank: int | None,
    rtol: float | None,
    max_rank: int | None,
    masked: bool,
    oversample: int | None,
    power_iterations: int,
    rng: RNG,
    test_matrix: Array | str,
) -> BodyFactors:
    xp, op, n = tangent.xp, tangent.operator, tangent.gradient.columns
    k = largest_rank(n, rank, rtol, max_rank, masked=masked)
    width = samples_for(n, k, oversample)
    q = validate.count("power_iterations", power_iterations)
    samples = Samples.of(op, test_matrix, k if rtol is None else 1, rng, rows=n)
    width = samples.width(width)
    if rtol is None:
        return sketch_tangent(tangent, k, samples.right(width), q)[0]
    basis, measured = basis_within(op, samples, width, q, rtol, masked=masked)
    C, B = two_sided(xp, op.forward(basis), basis)
    # What no sample has touched, (I − BBᴴ)A(I − BBᴴ), as the columns see it that B was not made of.
    probes = samples.measuring(MEASURING) / math.sqrt(MEASURING)
    untouched = measured - 0.5 * (C @ (adjoint(xp, B) @ probes) - B @ (adjoint(xp, C) @ probes))
    kept, sizes = leading_planes(xp, C, B, n)
    bound = surely(xp, op.dtype, MEASURING, MISSED)
    return _within(xp, kept, sizes, frobenius_norm(xp, untouched), bound, rtol, k, masked)


def _within(
    xp: Namespace,
    factors: BodyFactors,
    sizes: Array,
    left: Array,
    bound: float,
    rtol: float,
    most: int,
    masked: bool,
) -> BodyFactors:
    terms, mask = terms_at_tolerance(xp, sizes, left, bound, rtol, most, masked=masked)
    C, Q = (xp.where(mask[..., None, :], x[..., :terms], 0.0) for x in factors)
    return BodyFactors(C, Q)
