"""What a tangent sketch has missed."""

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
    """Estimate how much of a step a sketch of the tangent has missed.

    Parameters
    ----------
    unitary, gradient : array or factors
        As :func:`tangent_sketch` takes them.
    body_factors : BodyFactors
        What it returned, (C, Q): skew(C Qᴴ) stands for the tangent A = skew(UᴴG).
    probes : int
        Number of random vectors.
    probability : float
        Chance that both bounds of the Frobenius norm hold.
    power_iterations : int
        For the spectral norm, as in :func:`sketch_error`.
    rng : int, numpy.random.Generator, torch.Generator, JAX key or None
        Source of the probes.

    Returns
    -------
    SketchError
        Of A − skew(C Qᴴ). A step of size η along the sketch ends no further than η times the norm from where
        the whole tangent would have led.

    Raises
    ------
    TypeError, ValueError
        For arguments outside the stated ranges or that do not fit together.

    Notes
    -----
    The exponential and the Cayley transform of skew-Hermitian matrices do not stretch distances, in any
    unitarily invariant norm, nor does the polar factor of I + A in the Frobenius norm: ‖U exp(−ηA) −
    U exp(−ηÂ)‖ ≤ η‖A − Â‖. For small η both sides agree to first order. The bound holds for the result of a
    step from the same U; it says nothing about the descent of the loss.

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
