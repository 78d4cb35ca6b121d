"""Error estimates for sketches, with bounds that hold with a stated probability."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import array_api_compat as compat

from .._array import Array, astype, eps, thin_dtype, validate
from .._linalg import ERRORS, RNG, adjoint, frobenius_norm, qr, random_block, svd, unit_scaled
from ..types import BodyFactors, LowRankFactors, SVDSketch
from .operator import Operator, operator_of
from .tolerance import surely


class SketchError(NamedTuple):
    """The norm of a difference, estimated from its products with random vectors.

    Attributes
    ----------
    frobenius : array, shape (…)
        Estimate of the Frobenius norm; its square is unbiased.
    frobenius_lower, frobenius_upper : array, shape (…)
        Bounds of the Frobenius norm, with the requested probability.
    spectral_lower : array, shape (…)
        A certain lower bound of the spectral norm, and its estimate.
    spectral_upper : array, shape (…)
        An upper bound of the spectral norm, with the requested probability.
    """

    frobenius: Array
    frobenius_lower: Array
    frobenius_upper: Array
    spectral_lower: Array
    spectral_upper: Array


def sketch_error(
    matrix: Any,
    sketch: SVDSketch | LowRankFactors | BodyFactors,
    /,
    *,
    probes: int = 10,
    probability: float = 0.99,
    power_iterations: int = 1,
    rng: RNG = None,
) -> SketchError:
    """Estimate ‖matrix − sketch‖ from a few products with the matrix.

    Parameters
    ----------
    matrix : as for :func:`svd_sketch`
    sketch : SVDSketch, LowRankFactors or BodyFactors
    probes : int
        Number p of random vectors. They have a stream of their own, so `rng` may be that of the sketch.
    probability : float
        Of both bounds of the Frobenius norm; the bound of the spectral norm holds with a larger one.
    power_iterations : int
        Further products with (matrix − sketch) and its adjoint, for the spectral norm only.
    rng : as for :func:`svd_sketch`

    Returns
    -------
    SketchError
        Real, of the shape of the batch.

    Notes
    -----
    2q + 2 products of the matrix with p columns. The bounds hold for every E = matrix − sketch, from the
    chi-square of rank one, whose tails are heaviest [1]_: with p = 10 and 0.99, from 0.63 to 2.15 times the
    estimate (complex: 0.71 to 1.64). The upper bound of the spectral norm is the root of order 2q + 1 of that
    of ‖(E Eᴴ)^q E Ω‖, the lower one the largest singular value of E on the vectors found.

    References
    ----------
    .. [1] Gábor J. Székely, Nail K. Bakirov, "Extremal probabilities for Gaussian quadratic forms", Probab.
       Theory Relat. Fields 126 (2003).

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> matrix = np.random.default_rng(0).standard_normal((60, 40))
    >>> sketch = lu.svd_sketch(matrix, 5, rng=1)
    >>> error = lu.sketch_error(matrix, sketch, rng=2)
    >>> true = np.linalg.norm(matrix - (sketch.U * sketch.S) @ sketch.Vh)
    >>> bool(error.frobenius_lower <= true <= error.frobenius_upper)
    True
    """
    if not isinstance(sketch, SVDSketch | LowRankFactors | BodyFactors):
        raise TypeError(
            f"sketch must be an SVDSketch, LowRankFactors or BodyFactors, got {type(sketch).__name__}."
        )
    left, right = sketch.factors() if isinstance(sketch, SVDSketch) else sketch
    given = {"matrix": matrix} if compat.is_array_api_obj(matrix) else {}
    validate.namespace_of(**given, **{"sketch.left": left, "sketch.right": right})
    validate.outer_factors(left, right, "sketch.")
    op = operator_of("matrix", matrix, right, "sketch.right")
    validate.same_dtype(op.xp, "matrix", op.like, **{"sketch.left": left, "sketch.right": right})
    left, right = astype(op.xp, left, op.dtype), astype(op.xp, right, op.dtype)
    if right.shape[-2] != op.columns or (op.rows or left.shape[-2]) != left.shape[-2]:
        raise ValueError(
            f"sketch must stand for a matrix of the shape of matrix, ({op.rows}, {op.columns}), got "
            f"({left.shape[-2]}, {right.shape[-2]})."
        )
    left_adjoint, right_adjoint = adjoint(op.xp, left), adjoint(op.xp, right)
    return estimated_norms(
        op,
        lambda block: op.forward(block) - left @ (right_adjoint @ block),
        lambda block: op.backward(block) - right @ (left_adjoint @ block),
        probes,
        probability,
        power_iterations,
        rng,
    )


def leave_one_out_error(samples: Array, /) -> Array:
    """Estimate ‖A − QQᴴA‖_F for Q = orth(A Ω) from the samples A Ω alone.

    Parameters
    ----------
    samples : array, shape (…, m, ℓ)
        A times ℓ ≤ m columns of independent entries of mean 0 and variance 1.

    Returns
    -------
    array, shape (…)
        The root of the mean over j of ‖(I − Q_j Q_jᴴ) A ω_j‖², where Q_j spans all samples but the j-th.

    Notes
    -----
    O(mℓ²) and no product with A: every sample is a probe for the sketch from the others. The mean square is
    that of a sketch from ℓ − 1 samples, an overestimate; power iterations are not accounted for.

    References
    ----------
    Ethan N. Epperly, Joel A. Tropp, "Efficient error and variance estimation for randomized matrix
    computations", SIAM J. Sci. Comput. 46 (2024).

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> matrix = np.diag(1.0 / np.arange(1, 101))
    >>> samples = matrix @ np.random.default_rng(0).standard_normal((100, 20))
    >>> Q, _ = np.linalg.qr(samples)
    >>> true = np.linalg.norm(matrix - Q @ (Q.T @ matrix))
    >>> bool(0.5 * true < lu.leave_one_out_error(samples) < 2 * true)
    True
    """
    xp = validate.namespace_of(samples=samples)
    m, width = validate.matrix("samples", samples)
    if width > m:
        raise ValueError(f"samples must have no more columns than rows, got {tuple(samples.shape)}.")
    dtype = thin_dtype(xp, samples.dtype)
    _, s, vh = svd(xp, qr(xp, astype(xp, samples, dtype))[1])
    # (I − Q_j Q_jᴴ)Aω_j has the length 1/‖row j of R⁻¹‖, and R⁻¹ = V S⁻¹ Uᴴ. Dependent samples leave
    # rounding, below which no singular value is known.
    largest = s[..., :1]
    unit = xp.where(largest > 0, largest, 1.0)
    s = xp.where(s < eps(xp, dtype) * unit, eps(xp, dtype), s / unit)
    rows = xp.sum((xp.abs(vh) / s[..., None]) ** 2, axis=-2)
    return largest[..., 0] * xp.sqrt(xp.mean(1.0 / rows, axis=-1))


def estimated_norms(
    op: Operator,
    forward: Callable[[Array], Array],
    backward: Callable[[Array], Array],
    probes: int,
    probability: float,
    power_iterations: int,
    rng: RNG,
) -> SketchError:
    """The norms of a difference E given by its products, on blocks like those of `op`."""
    xp = op.xp
    p = validate.positive("probes", probes)
    q = validate.count("power_iterations", power_iterations)
    probability = validate.fraction("probability", probability, least=False)
    missed = 0.5 * (1 - probability)
    block = random_block(xp, (*op.batch, op.columns, p), op.like, rng, ERRORS)
    images = forward(block)
    frobenius = frobenius_norm(xp, images) / math.sqrt(p)
    basis, R = qr(xp, images)
    # ‖(E Eᴴ)^q E Ω‖ from triangular factors, each brought to the order of 1: powers overflow early.
    triangle, unit = unit_scaled(xp, R)
    logs = xp.log2(unit[..., 0, 0])
    for step in range(2 * q):
        basis, R = qr(xp, backward(basis) if step % 2 == 0 else forward(basis))
        R, unit = unit_scaled(xp, R)
        triangle, more = unit_scaled(xp, R @ triangle)
        logs = logs + xp.log2((unit * more)[..., 0, 0])
    power = xp.linalg.matrix_norm(triangle)
    norm = xp.where(
        power > 0, 2.0 ** ((xp.log2(xp.where(power > 0, power, 1.0)) + logs) / (2 * q + 1)), power
    )
    rayleigh = svd(xp, qr(xp, backward(basis))[1])[1][..., 0]
    upper, lower = (surely(xp, op.dtype, p, chance) for chance in (missed, 1 - missed))
    # ‖E Ω‖² is p times the estimate; at most all of it belongs to one singular value.
    scale = (upper / math.sqrt(p)) ** (1.0 / (2 * q + 1))
    return SketchError(frobenius, lower * frobenius, upper * frobenius, rayleigh, scale * norm)
