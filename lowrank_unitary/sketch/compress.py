"""Compress thin factors to fewer columns."""

from __future__ import annotations

from typing import TypeVar

from .._array import Array, validate
from .._linalg import RNG, check_rng, hstack
from ..types import BodyFactors, LowRankFactors
from .operator import Operator, operator_of
from .samples import Samples
from .svd import svd_sketch
from .tolerance import largest_rank

Factors = TypeVar("Factors", LowRankFactors, BodyFactors)

# "columns" needs entries; "lsi" has no use for factors.
METHODS = ("exact", "randomized", "krylov", "single_pass")


def compress_factors(
    factors: Factors,
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
) -> Factors:
    """Approximate left @ rightᴴ by factors with fewer columns; the product is never formed.

    Parameters
    ----------
    factors : LowRankFactors or BodyFactors
        left (…, m, r) and right (…, n, r), for any r, also many times n.
    rank : int, optional
        k, from 1 to min(m, n); or `rtol`. Factors of at most k columns are returned as they are.
    method : {"exact", "randomized", "krylov", "single_pass"}, optional
        By default ``"exact"`` where r ≤ k + 8, where samples would be no thinner than the factors, else
        ``"randomized"``.
    rtol, max_rank, masked, oversample, power_iterations, rng, test_matrix : as for :func:`svd_sketch`

    Returns
    -------
    LowRankFactors or BodyFactors
        Of the type of `factors`, with k columns: left holds the singular values, right is orthonormal.

    Notes
    -----
    For the same seed the sketch of the product, to rounding. Randomised: 2q + 2 products with ℓ columns, each
    O(r(m + n)ℓ). Exact: O((m + n)r² + r³). :func:`add_factors` sums many terms in bounded memory.

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
        validate.choice("method", method, METHODS)
    op = operator_of("factors", factors)
    width = int(factors.left.shape[-1])
    if rank is not None and rtol is None:
        rank = largest_rank(op.smaller_side, rank, rtol, max_rank, masked=masked)
        if width <= rank:
            _check_options(op, rank, oversample, power_iterations, rng, test_matrix)
            return factors
    if method is None:
        most = largest_rank(op.smaller_side, rank, rtol, max_rank, masked=masked)
        method = "exact" if width <= most + 8 else "randomized"
    sketch = svd_sketch(
        factors, rank, method=method, rtol=rtol, max_rank=max_rank, masked=masked, oversample=oversample,
        power_iterations=power_iterations, rng=rng, test_matrix=test_matrix,
    )  # fmt: skip
    return type(factors)(*sketch.factors())


def _check_options(
    op: Operator,
    rank: int,
    oversample: int | None,
    power_iterations: int | None,
    rng: RNG,
    test_matrix: Array | str,
) -> None:
    """Refuse wrong options of a sketch, also where none is made."""
    for name, value in (("oversample", oversample), ("power_iterations", power_iterations)):
        validate.count(name, 0 if value is None else value)
    check_rng(rng, op.like)
    Samples.of(op, test_matrix, rank, 0, rows=op.columns)


def add_factors(factors: Factors, more: Factors, /, rank: int, *, rng: RNG = None) -> Factors:
    """The sum of two products of thin factors, compressed to `rank` columns where it has more.

    Parameters
    ----------
    factors, more : LowRankFactors or BodyFactors
        Both of one type, (…, m, r) and (…, n, r) with any r each.
    rank : int
        Largest number of columns of the result.
    rng : as for :func:`svd_sketch`

    Returns
    -------
    LowRankFactors or BodyFactors
        Of the type of the arguments.

    Notes
    -----
    A sequence of any length is summed in the memory of rank + r columns. What a truncation drops is lost:
    a direction that grows slowly over many blocks is missing where it is never among the largest `rank`.

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
    if not isinstance(factors, LowRankFactors | BodyFactors):
        raise TypeError(f"factors must be LowRankFactors or BodyFactors, got {type(factors).__name__}.")
    if type(factors) is not type(more):
        raise TypeError(
            f"factors and more must be of one type, got {type(factors).__name__} and {type(more).__name__}: "
            f"LowRankFactors are in the ambient frame, BodyFactors in that of a unitary matrix."
        )
    xp = validate.namespace_of(
        **{"factors.left": factors.left, "factors.right": factors.right},
        **{"more.left": more.left, "more.right": more.right},
    )
    validate.outer_factors(*factors)
    validate.outer_factors(*more, "more.")
    for (name, first), second in zip(factors._asdict().items(), more, strict=True):
        if first.ndim < 2 or second.ndim < 2 or first.shape[-2] != second.shape[-2]:
            raise ValueError(
                f"more.{name} must have the rows of factors.{name}, {tuple(first.shape)}, got "
                f"{tuple(second.shape)}."
            )
    both = (hstack(xp, first, second) for first, second in zip(factors, more, strict=True))
    return compress_factors(type(factors)(*both), rank, rng=rng)
