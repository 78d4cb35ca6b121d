"""Fewer columns for thin factors: the best ones of a product, and the best ones of its tangent part."""

from __future__ import annotations

from typing import TypeVar

from . import _validate
from ._array import RNG, Array, Namespace, astype, complex_dtype, eigh, is_complex, on_device_of_arrays, qr
from ._operator import operator_of
from ._primitives import adjoint, beside, broadcast, thin_product
from .factors import BodyFactors, LowRankFactors
from .sketch import svd_sketch

Factors = TypeVar("Factors", LowRankFactors, BodyFactors)

# Of those of svd_sketch: one needs entries, the other has nothing to say for factors.
METHODS = ("exact", "randomized", "krylov", "single_pass")


@on_device_of_arrays
def compress_factors(
    factors: Factors,
    rank: int | None = None,
    /,
    *,
    method: str | None = None,
    tol: float | None = None,
    max_rank: int | None = None,
    masked: bool = False,
    oversample: int | None = None,
    power_iterations: int | None = None,
    rng: RNG = None,
    test_matrix: Array | str = "gaussian",
) -> Factors:
    """Approximate left @ rightᴴ by factors with fewer columns; the product is never formed.

    Parameters
    ----------
    factors : LowRankFactors or BodyFactors
        left (…, m, r) and right (…, n, r), with any number r of columns, also many times n.
    rank : int, optional
        k, from 1 to min(m, n); or `tol`. Factors with no more columns than that are returned as they are.
    method : {"exact", "randomized", "krylov", "single_pass"}, optional
        As in :func:`svd_sketch`. By default ``"exact"`` where r ≤ k + 8, so that samples would be no thinner
        than the factors, and ``"randomized"`` otherwise.
    tol, max_rank, masked, oversample, power_iterations, rng, test_matrix
        As in :func:`svd_sketch`.

    Returns
    -------
    LowRankFactors or BodyFactors
        Of the type of `factors`, with k columns: left holds the singular values, right is orthonormal.

    Raises
    ------
    TypeError, ValueError
        For arguments outside the stated ranges.

    Notes
    -----
    The same sketch as that of the product, to rounding, for the same seed. Randomised: O(r(m + n)ℓ) for a
    product with ℓ columns, of which there are 2q + 2. Exact: O((m + n)r² + r³).

    To gather a sum of many terms in bounded memory, compress what has been gathered together with the next
    block: ``compress_factors(LowRankFactors(xp.concat([total.left, left], axis=-1), …), k)``, or
    :func:`add_factors`, which does that.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> rng = np.random.default_rng(0)
    >>> delta, h = rng.standard_normal((2, 100, 30)) / np.arange(1, 31) ** 2
    >>> a, b = lu.compress_factors(lu.LowRankFactors(delta, h), 5, rng=1)
    >>> a.shape, b.shape
    ((100, 5), (100, 5))
    >>> bool(np.linalg.norm(delta @ h.T - a @ b.T) < 0.01 * np.linalg.norm(delta @ h.T))
    True
    """
    if not isinstance(factors, LowRankFactors | BodyFactors):
        raise TypeError(f"factors must be LowRankFactors or BodyFactors, got {type(factors).__name__}.")
    if method is not None:
        _validate.choice("method", method, METHODS)
    op = operator_of("factors", factors)
    width = int(factors.left.shape[-1])
    if rank is not None and tol is None:
        rank = _validate.rank(rank, op.smaller_side)
        if width <= rank:
            return factors
    if method is None:
        most = rank if rank is not None else max_rank
        method = "exact" if width <= (op.smaller_side if most is None else most + 8) else "randomized"
    sketch = svd_sketch(
        factors, rank, method=method, tol=tol, max_rank=max_rank, masked=masked, oversample=oversample,
        power_iterations=power_iterations, rng=rng, test_matrix=test_matrix,
    )  # fmt: skip
    return type(factors)(*sketch.factors())


@on_device_of_arrays
def add_factors(factors: Factors, more: Factors, /, *, rank: int, rng: RNG = None) -> Factors:
    """The sum of two products of thin factors, compressed to `rank` columns where it has more.

    Parameters
    ----------
    factors, more : LowRankFactors or BodyFactors
        Both of one type, (…, m, r) and (…, n, r) with any r each.
    rank : int
        The most columns that the result may have.
    rng : int, numpy.random.Generator, JAX key or None
        Source of the test matrix, where one is needed.

    Returns
    -------
    LowRankFactors or BodyFactors
        Of the type of the arguments.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit together.

    Notes
    -----
    A sequence of any length is gathered in the memory of rank + r columns. Every truncation drops what the
    largest `rank` terms do not hold, and what is dropped does not come back: directions that grow slowly out
    of many blocks are lost where they never are among those.

    Examples
    --------
    Back-propagation through 50 time steps:

    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> rng = np.random.default_rng(0)
    >>> deltas, states = rng.standard_normal((2, 50, 20, 4))
    >>> total = lu.LowRankFactors(deltas[0], states[0])
    >>> for delta, state in zip(deltas[1:], states[1:]):
    ...     total = lu.add_factors(total, lu.LowRankFactors(delta, state), rank=12)
    >>> total.left.shape
    (20, 12)
    """
    if type(factors) is not type(more):
        raise TypeError(
            f"factors and more must be of one type, got {type(factors).__name__} and {type(more).__name__}: "
            f"LowRankFactors stand in the ambient frame, BodyFactors in that of a unitary matrix."
        )
    xp = _validate.namespace_of(
        left=factors.left, right=factors.right, more_left=more.left, more_right=more.right
    )
    for (name, first), second in zip(factors._asdict().items(), more, strict=True):
        if first.ndim < 2 or second.ndim < 2 or first.shape[-2] != second.shape[-2]:
            raise ValueError(
                f"more.{name} must have the rows of factors.{name}, {tuple(first.shape)}, got "
                f"{tuple(second.shape)}."
            )
    both = (beside(xp, first, second) for first, second in zip(factors, more, strict=True))
    return compress_factors(type(factors)(*both), rank, rng=rng)


def leading_planes(xp: Namespace, left: Array, right: Array, k: int) -> tuple[BodyFactors, Array]:
    """The best body factors (C, Q) with k columns for T = skew(left rightᴴ), and the norm of every part.

    Best means that skew(C Qᴴ) is as near to T as such a matrix can be. iT is Hermitian; a column pairs one of
    its largest positive eigenvalues λ with one of its largest negative ones −μ: with x = √λ v₊ + √μ v₋ and
    y = √λ v₊ − √μ v₋ the part λ v₊v₊ᴴ − μ v₋v₋ᴴ is ½(x yᴴ + y xᴴ). For real T they belong together, λ = μ and
    v₋ = v̄₊, and x, y span the plane in which that part turns.
    """
    left, right = broadcast(xp, left, right)
    n, m = left.shape[-2:]
    if 2 * m < n:
        basis, R = qr(xp, beside(xp, left, right))
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
    # NaN stays what it is.
    return xp.where(x < 0, 0.0, x)
