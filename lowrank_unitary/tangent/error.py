"""Error estimates for tangent sketches."""

from __future__ import annotations

from typing import Any

from .._array import Array, astype, validate
from .._linalg import RNG, adjoint
from ..sketch.error import SketchError, estimated_norms
from ..types import BodyFactors, body_pair
from .sketch import Tangent


def tangent_error(
    unitary: Array | None,
    gradient: Any,
    body_factors: BodyFactors,
    /,
    *,
    probes: int = 10,
    probability: float = 0.99,
    power_iterations: int = 1,
    rng: RNG = None,
) -> SketchError:
    """Estimate the error of a sketch of the tangent.

    Parameters
    ----------
    unitary, gradient : as for :func:`tangent_sketch`
    body_factors : BodyFactors
        (C, Q) with the sketch skew(C Qᴴ) of the tangent A = skew(UᴴG).
    probes, probability, power_iterations, rng : as for :func:`sketch_error`

    Returns
    -------
    SketchError
        Of A − skew(C Qᴴ). A step of size η along the sketch ends within η times this norm of that along A.

    Notes
    -----
    ‖U exp(−ηA) − U exp(−ηÂ)‖ ≤ η‖A − Â‖ in every unitarily invariant norm, also for the Cayley transform, and
    for the polar factor of I + A in the Frobenius norm; for small η with equality to first order. It bounds
    one step from the same U and says nothing about the descent of the loss.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> U = lu.random_unitary(30, rng=0)
    >>> G = np.random.default_rng(1).standard_normal((30, 30))
    >>> body = lu.tangent_sketch(U, G, 4, rng=2)
    >>> error = lu.tangent_error(U, G, body, rng=3)
    >>> whole, sketched = (
    ...     lu.rotate(U, lu.transport_rotation(lu.BodyFactors(-0.01 * left, right)))
    ...     for left, right in ((U.T @ G, np.eye(30)), body)
    ... )
    >>> bool(np.linalg.norm(whole - sketched) <= 0.01 * error.frobenius_upper)
    True
    """
    op = Tangent.of(unitary, gradient).operator
    C, Q = body_pair(body_factors)
    validate.namespace_of(gradient=op.like, **{"body_factors.left": C, "body_factors.right": Q})
    validate.factor_pair("body_factors.left", C, "body_factors.right", Q, op.columns)
    validate.same_dtype(op.xp, "gradient", op.like, **{"body_factors.left": C, "body_factors.right": Q})
    C, Q = astype(op.xp, C, op.dtype), astype(op.xp, Q, op.dtype)
    C_adjoint, Q_adjoint = adjoint(op.xp, C), adjoint(op.xp, Q)

    def missed(block: Array) -> Array:
        return op.forward(block) - 0.5 * (C @ (Q_adjoint @ block) - Q @ (C_adjoint @ block))

    return estimated_norms(
        op, missed, lambda block: -missed(block), probes, probability, power_iterations, rng
    )
