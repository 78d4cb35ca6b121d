"""A rank for a tolerance: grow a basis until the remainder is small, then keep the terms that are needed."""

from __future__ import annotations

import math
from typing import Any

from .._array import (
    Array,
    Namespace,
    astype,
    is_complex,
    local_part,
    placement,
    validate,
    values_are_at_hand,
)
from .._linalg import adjoint, frobenius_norm, qr
from .operator import Operator
from .range_finder import extended, power_basis
from .samples import Samples

# Columns of a block, columns that only measure the remainder, and the chance that it exceeds its bound.
BLOCK, MEASURING, MISSED = 8, 10, 0.01


def largest_rank(
    largest: int, rank: int | None, rtol: float | None, max_rank: int | None, *, masked: bool
) -> int:
    """k, or with a tolerance its largest value."""
    if (rank is None) == (rtol is None):
        both = "both" if rank is not None else "neither"
        raise ValueError(
            f"give either rank or rtol, got {both}: rank is how many terms, rtol how small an error."
        )
    validate.flag("masked", masked)
    if rtol is None:
        if max_rank is not None or masked:
            raise ValueError("max_rank and masked have no meaning without rtol: leave them out.")
        return validate.rank(rank, largest)
    validate.fraction("rtol", rtol, ", a share of the norm of the matrix")
    return largest if max_rank is None else validate.rank(max_rank, largest, "max_rank")


def basis_within(
    op: Operator, samples: Samples, width: int, q: int, rtol: float, *, masked: bool
) -> tuple[Array, Array]:
    """A basis that misses at most rtol ‖A‖, or of full width, and AΩ/√ℓ of ℓ measuring columns."""
    if masked:
        measured = op.forward(samples.measuring(MEASURING))
        basis = power_basis(op, samples.right(width), q)
    else:
        _readable(local_part(op.like))
        basis, measured = _grown_basis(op, samples, q, rtol, width)
    # E|ω|² = 1: the mean over the measuring columns estimates the square of the norm.
    return basis, measured / math.sqrt(MEASURING)


def _readable(x: Array) -> None:
    if not values_are_at_hand(x):
        raise ValueError(
            "masked must be True with rtol where no value can be read, under jit or on a GPU: no shape can "
            "depend on one there. The result then has max_rank columns, with zeros in S."
        )


def _grown_basis(
    op: Operator, samples: Samples, power_iterations: int, rtol: float, widest: int
) -> tuple[Array, Array]:
    xp = op.xp
    measured = op.forward(samples.measuring(MEASURING))
    # Half of the squared tolerance for the basis, half for the truncation.
    share = math.sqrt(0.5) * rtol / surely(xp, op.dtype, MEASURING, MISSED)
    bound = share * frobenius_norm(xp, measured)
    basis = power_basis(op, samples.right(min(BLOCK, widest)), power_iterations)
    while basis.shape[-1] < widest and bool(xp.any(left_over(xp, basis, measured) > bound)):
        width = basis.shape[-1]
        new = samples.right(min(BLOCK, widest - width), width)
        grown, block = extended(xp, basis, op.forward(new))
        for _ in range(power_iterations):
            other, _ = qr(xp, op.backward(block))
            grown, block = extended(xp, basis, op.forward(other))
        basis = grown
    return basis, measured


def left_over(xp: Namespace, basis: Array, measured: Array) -> Array:
    """‖(I − QQᴴ)AΩ‖_F from Q and AΩ."""
    return frobenius_norm(xp, measured - basis @ (adjoint(xp, basis) @ measured))


def surely(xp: Namespace, dtype: Any, columns: int, chance: float) -> float:
    """The factor from a Frobenius norm estimated with Gaussian columns to an upper bound.

    It fails with the given chance for a matrix of rank one, and less often for any other.
    """
    import scipy.special

    # ‖EΩ‖² is a sum of chi-squares weighted by σ_j(E)²; its lower tail is heaviest where all the weight is on
    # one. A complex column counts twice, as its two parts have half the variance.
    half = columns if is_complex(xp, dtype) else 0.5 * columns
    return float(math.sqrt(half / scipy.special.gammaincinv(half, chance)))


def terms_at_tolerance(
    xp: Namespace, sizes: Array, left: Array, surely: float, rtol: float, most: int, *, masked: bool
) -> tuple[int, Array]:
    """How many leading terms leave no more than rtol ‖A‖, from one to `most`; and a mask of them.

    `sizes` are the norms of orthogonal terms in descending order; `left` estimates the norm outside of them,
    and `surely · left` bounds it. The number is the largest over the batch, or `most` where masked.
    """
    left = astype(xp, left, sizes.dtype)[..., None]
    # Scaled before squaring: the squares of float32 numbers of 1e-30 are zero.
    largest = xp.maximum(sizes[..., :1], left)
    unit = xp.where(largest > 0, largest, 1.0)
    squares, left_squared = (sizes / unit) ** 2, (left / unit) ** 2
    tails = xp.flip(xp.cumulative_sum(xp.flip(squares, axis=-1), axis=-1), axis=-1)
    allowed = rtol**2 * (tails[..., :1] + left_squared) - surely**2 * left_squared
    # tails[r] is what is left when r terms are kept.
    rank = xp.sum(astype(xp, tails > allowed, xp.int32), axis=-1, keepdims=True)
    most = min(most, sizes.shape[-1])
    if not masked:
        _readable(sizes)
        most = max(1, min(most, int(xp.max(rank)))) if math.prod(rank.shape) else 1
    index = xp.arange(most, dtype=rank.dtype, device=placement(sizes))
    return most, (index < rank) | (index == 0)
