"""Project, then compress: sketch only the part of the gradient that moves U."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._array import (
    Array,
    Namespace,
    has_divided_rows,
    local_part,
    summed,
    validate,
)
from .._array.sharding import check_alike, check_whole_stack
from .._linalg import (
    RNG,
    adjoint,
    adjoint_product,
    check_rng,
    frobenius_norm,
    hstack,
    into_frame,
    key_of,
    product,
    pull_back,
    stacked,
    whole_compression,
    whole_sketch,
)
from ..sketch.operator import Operator, operator_of
from ..sketch.range_finder import power_basis
from ..sketch.samples import Samples
from ..sketch.tolerance import MEASURING, MISSED, basis_within, largest_rank, surely, terms_at_tolerance
from ..types import BodyFactors, LowRankFactors, transposed_gradient
from .planes import Planes, best_columns, leading_planes, two_sided

# Samples beyond the dimensions of a tangent of rank 2k.
_MORE = 4
# Options of a sketch as they are left out: rtol, max_rank, masked, oversample, power_iterations, test_matrix.
_COMMON = (None, None, False, None, 0, "uniform")
# Of the tangent of body factors, where products are cheap, and cost more than the rest with many samples.
POWER_ITERATIONS = 1


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
    test_matrix: Array | str = "uniform",
) -> BodyFactors:
    """Sketch the tangent part A = (UᴴG − GᴴU)/2 of a gradient, two-sided, at rank k.

    Only A moves U along the unitary matrices; the Hermitian part of UᴴG moves nothing. With an orthonormal
    basis B for the range of A, the result is the best approximation with k columns of P A + A P − P A P,
    P = B Bᴴ.

    Parameters
    ----------
    unitary : array, shape (…, m, n)
        U, unitary or orthogonal, m = n; or with orthonormal columns, m > n, or rows.
    gradient : array, shape (…, m, n), or LowRankFactors
        G, as for :func:`unitary_step`. The product of factors is never formed.
    rank : int, optional
        k, from 1 to the smaller side of U. Either this or `rtol`. Factors of at most k columns are only
        pulled back.
    rtol : float, optional
        In place of a rank: the smallest with ‖A − sketch‖_F ≤ rtol ‖A‖_F, so that a step of size η ends
        within η rtol ‖A‖_F of the step along A. Missed with probability 0.01 at most.
    max_rank, masked : as for :func:`svd_sketch`
    oversample : int, optional
        Samples beyond k, by default k + 4: in all the dimension of a tangent of k columns, and 4 more.
    power_iterations : int
        Applications of A Aᴴ to the samples, re-orthonormalised.
    rng, test_matrix : as for :func:`svd_sketch`
        By default uniform numbers, as good as normal ones and made in less time.

    Returns
    -------
    BodyFactors
        left = C and right = Q, both (…, n, k), with skew(C Qᴴ) the sketch of A; in float32 for U in half
        precision. For m ≠ n both (…, m + n, k), in the frame of :meth:`LowRankFactors.to_body`.
        ``transport_rotation(BodyFactors(-eta * C, Q))`` descends by a step of size eta.

    Notes
    -----
    A is never formed: one application costs four products with n×n matrices, 8n² operations (real) a column;
    there are 2 power_iterations + 2, with ℓ = k + oversample columns. k columns hold a matrix of rank 2k.
    With oversample=0 the sketch descends for any test matrix: its inner product with A is its squared norm;
    with more samples this holds up to what no sample has touched (numerics page). Scale-invariant in G.

    References
    ----------
    Range finder: Nathan Halko, Per-Gunnar Martinsson, Joel A. Tropp, "Finding structure with randomness",
    SIAM Review 53 (2011), algorithm 4.4. Two-sided form for skew-Hermitian matrices: numerics page.

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
    # As in unitary_step, a short test for the common case.
    options = (rtol, max_rank, masked, oversample, power_iterations, test_matrix)
    if rank is not None and all(x is y for x, y in zip(options, _COMMON, strict=True)):
        plain = validate.plain_descent(unitary, (gradient,), 0.0, rank, 0)
        if plain is not None:
            rng, counts = key_of(rng, unitary), (samples_for(unitary.shape[-1], rank), rank)
            if made := whole_sketch(plain[0], unitary, gradient, rng, counts):
                return BodyFactors(*made)
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
    test_matrix: Array | str = "uniform",
) -> BodyFactors:
    """The best body factors with k columns for the tangent part skew(left rightᴴ) of given ones.

    For y = Ux with Δ the gradient with respect to y, the one with respect to U is Δxᴴ; its body factors are
    UᴴΔ, which back-propagation computes, and x. No read of U is needed.

    Parameters
    ----------
    body_factors : BodyFactors
        left and right (…, n, m), any m, also many times n.
    rank : int, optional
        k, from 1 to n. Either this or `rtol`. Factors of at most k columns are returned as they are.
    method : {"exact", "randomized"}, optional
        ``"exact"``: O(nm² + m³), by default where m ≤ 2k + 16 and 2m < n. ``"randomized"``: as
        :func:`tangent_sketch`, O(nmk).
    rtol, max_rank, masked, rng, test_matrix : as for :func:`tangent_sketch`
    oversample, power_iterations : int
        As for :func:`tangent_sketch`, by default k + 1 and 1: products are cheap here, and one power
        iteration gains more than the further samples would.

    Returns
    -------
    BodyFactors
        (C, Q) with skew(C Qᴴ) the sketch of skew(left rightᴴ).

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
    n, m = tangent.size, body_factors.left.shape[-1]
    most = largest_rank(n, rank, rtol, max_rank, masked=masked)
    q = POWER_ITERATIONS if power_iterations is None else power_iterations
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
        if oversample is None and rtol is None:
            oversample = max(0, few_samples(n, most, m) - most)
        return _sketched(tangent, rank, rtol, max_rank, masked, oversample, q, rng, test_matrix)
    xp = tangent.xp
    left, right = tangent.gradient.factors or body_factors
    if rtol is None:
        return best_columns(xp, left, right, most)
    planes = leading_planes(xp, left, right, n)
    return _within(planes, 0.0 * planes.sizes[..., 0], 0.0, rtol, most, masked)


@dataclass(frozen=True)
class Tangent:
    """A = skew(UᴴG), given by its products; for body factors without U."""

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
            n = None if unitary is None else validate.frame_size("unitary", unitary)
            validate.factor_pair("left", gradient.left, "right", gradient.right, n)
            if unitary is not None:
                validate.batches(unitary=unitary, **gradient._asdict())
                validate.same_dtype(xp, "unitary", unitary, **gradient._asdict())
            return cls(xp, None, operator_of("body_factors", gradient))
        validate.namespace_of(unitary=unitary)
        m, n = validate.matrix("unitary", unitary)
        check_whole_stack("unitary", unitary)
        if isinstance(gradient, LowRankFactors):
            op, arrays = operator_of("gradient", gradient, unitary, "unitary"), gradient._asdict()
            shape = (int(gradient.left.shape[-2]), int(gradient.right.shape[-2]))
        else:
            op, arrays, shape = None, {"gradient": gradient}, tuple(getattr(gradient, "shape", (m, n)))[-2:]
            check_alike("gradient", gradient, "unitary", unitary)
        if shape != (m, n):
            raise ValueError(
                f"gradient must have shape (…, {m}, {n}) like unitary, or be LowRankFactors of such a "
                f"matrix, got {shape}."
            )
        xp = validate.namespace_of(unitary=unitary, **arrays)
        validate.batches(unitary=unitary, **arrays)
        validate.same_dtype(xp, "unitary", unitary, **arrays)
        if unitary is not None and validate.is_wide(unitary):
            return cls.of(unitary.mT, transposed_gradient(xp, gradient))
        op = op or operator_of("gradient", gradient)
        return cls(xp, unitary, op.of_rows(unitary) if has_divided_rows(unitary) else op)

    @property
    def size(self) -> int:
        """That of A: n, or n + m for an m×n U."""
        n = self.gradient.columns
        return n if self.unitary is None else validate.frame_size("unitary", self.unitary)

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
        """A as an operator; Aᴴ = −A."""
        n = self.size
        return Operator(
            "gradient", self.xp, self.like, self.batch, n, n,
            lambda block: self.product(block)[0],
            lambda block: -self.product(block)[0],
        )  # fmt: skip

    def product(self, block: Array, probes: Array | None = None) -> tuple[Array, Array | None]:
        """A @ block, and Uᴴ(U probes) from the same read of U by Uᴴ."""
        if self.unitary is None:
            return 0.5 * (self.gradient.forward(block) - self.gradient.backward(block)), None
        if validate.is_tall(self.unitary):
            return self._product_in_frame(self.unitary, block, probes)
        xp, rows = self.xp, local_part(self.unitary)
        there = self.gradient.forward(block)
        pulled, probed = pull_back(xp, rows, there, probes)
        image = 0.5 * (pulled - self.gradient.backward(product(xp, rows, block)))
        if not has_divided_rows(self.unitary):
            return image, probed
        # One sum over the processes in place of two or three.
        both = summed(self.unitary, image if probed is None else hstack(xp, image, probed))
        return both[..., : image.shape[-1]], None if probed is None else both[..., image.shape[-1] :]

    def _product_in_frame(
        self, unitary: Array, block: Array, probes: Array | None
    ) -> tuple[Array, Array | None]:
        """The same for a tall U, in its frame: A = [[skew(UᴴG), −Nᴴ], [N, 0]], N = (I − UUᴴ) G."""
        xp, n = self.xp, unitary.shape[-1]
        x, y = block[..., :n, :], block[..., n:, :]
        along, across, image = into_frame(xp, unitary, self.gradient.forward(x), probes)
        y = y + product(xp, unitary, 0.5 * x - adjoint_product(xp, unitary, y))
        return stacked(xp, 0.5 * along - self.gradient.backward(y), across), image


def outside_of(xp: Namespace, unitary: Array, body_factors: BodyFactors) -> BodyFactors:
    """Body factors in the frame of a tall U without what their lower rows have in the range of U."""
    left, right = body_factors
    n, k = unitary.shape[-1], left.shape[-1]
    below = into_frame(xp, unitary, hstack(xp, left, right)[..., n:, :])[1]
    parts = below[..., :k], below[..., k:]
    return BodyFactors(*(stacked(xp, x[..., :n, :], y) for x, y in zip(body_factors, parts, strict=True)))


def _check_options(
    tangent: Tangent,
    k: int,
    oversample: int | None,
    power_iterations: int,
    rng: RNG,
    test_matrix: Array | str,
) -> None:
    """Refuse wrong options of a randomised sketch, also where none is made."""
    n = tangent.size
    samples_for(n, k, oversample)
    validate.count("power_iterations", power_iterations)
    check_rng(rng, tangent.like)
    Samples.of(tangent.operator, test_matrix, k, 0, rows=n)


def samples_for(n: int, k: int, oversample: int | None = None) -> int:
    """The number of samples."""
    return min(n, k + (k + _MORE if oversample is None else validate.count("oversample", oversample)))


def few_samples(n: int, k: int, m: int) -> int:
    """The number of samples for a tangent in body factors of m columns, with a power iteration."""
    # Twice the columns hold all of it.
    return min(n, 2 * m if m <= k + _MORE else 2 * k + 1)


def sketch_tangent(
    tangent: Tangent, k: int, test_matrix: Array, power_iterations: int = 0, probes: Array | None = None
) -> tuple[Planes, Array | None]:
    """The planes of the best k columns from the samples, and Uᴴ(U probes) from the last read of U by Uᴴ."""
    basis = power_basis(tangent.operator, test_matrix, power_iterations)
    image, probed = tangent.product(basis, probes)
    return leading_planes(tangent.xp, *two_sided(tangent.xp, image, basis), k), probed


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
    xp, op, n = tangent.xp, tangent.operator, tangent.size
    k = largest_rank(tangent.gradient.columns, rank, rtol, max_rank, masked=masked)
    width = samples_for(n, k, oversample)
    q = validate.count("power_iterations", power_iterations)
    samples = Samples.of(op, test_matrix, k if rtol is None else 1, rng, rows=n)
    width = samples.width(width)
    if rtol is None:
        made = _by_kernels(tangent, samples, (width, k), q)
        return made or sketch_tangent(tangent, k, samples.right(width), q)[0].factors()
    basis, measured = basis_within(op, samples, width, q, rtol, masked=masked)
    C, B = two_sided(xp, op.forward(basis), basis)
    # (I − BBᴴ)A(I − BBᴴ), what no sample has touched, times columns that B was not made of.
    probes = samples.measuring(MEASURING) / math.sqrt(MEASURING)
    untouched = measured - 0.5 * (C @ (adjoint(xp, B) @ probes) - B @ (adjoint(xp, C) @ probes))
    bound = surely(xp, op.dtype, MEASURING, MISSED)
    return _within(leading_planes(xp, C, B, n), frobenius_norm(xp, untouched), bound, rtol, k, masked)


def _by_kernels(tangent: Tangent, samples: Samples, counts: tuple[int, int], q: int) -> BodyFactors | None:
    """The same sketch in one compiled call, or None."""
    if samples.given is not None or samples.kind != "uniform":
        return None
    xp, gradient, made = tangent.xp, tangent.gradient, None
    if tangent.unitary is None and gradient.factors is not None:
        left, right = gradient.factors
        made = whole_compression(xp, left, right, samples.rng, counts, 2 * q)
    elif tangent.unitary is None or validate.is_tall(tangent.unitary):
        return None
    elif gradient.array is not None and q == 0:
        made = whole_sketch(xp, tangent.unitary, gradient.array, samples.rng, counts)
    return None if made is None else BodyFactors(*made)


def _within(
    planes: Planes,
    left: Array,
    bound: float,
    rtol: float,
    most: int,
    masked: bool,
) -> BodyFactors:
    xp = planes.xp
    terms, mask = terms_at_tolerance(xp, planes.sizes, left, bound, rtol, most, masked=masked)
    C, Q = (xp.where(mask[..., None, :], x[..., :terms], 0.0) for x in planes.factors())
    return BodyFactors(C, Q)
