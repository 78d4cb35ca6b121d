"""Assertions for users' tests; each AssertionError gives the largest error and the bound.

All but the last compare with a dense definition in extended precision, O(n³). Arrays of any namespace.
"""

from __future__ import annotations

import numpy as np

from . import reference
from ._array import Array, array_namespace, to_numpy, tolerance, validate
from ._kernels import UPDATES
from ._linalg import RNG
from .sketch.samples import random_test_matrix
from .types import BodyFactors, LowRankFactors, LowRankRotation, checked_rotation


def assert_unitary(unitary: Array, /, *, atol: float | None = None) -> None:
    """Assert that ‖UᴴU − I‖_F ≤ atol for every matrix of a stack; ‖UUᴴ − I‖_F for wide ones.

    Parameters
    ----------
    unitary : array, shape (…, m, n)
        Square, or with orthonormal columns or rows.
    atol : float, optional
        By default c(n, 1)·eps of the dtype, the bound for rounding in a few steps.

    Examples
    --------
    >>> import lowrank_unitary as lu
    >>> from lowrank_unitary.testing import assert_unitary
    >>> assert_unitary(lu.random_unitary(5, rng=0))
    """
    validate.namespace_of(unitary=unitary)
    validate.matrix("unitary", unitary)
    unitary = unitary.mT if validate.is_wide(unitary) else unitary
    bound = _bound(unitary, 1) if atol is None else validate.size("atol", atol)
    defect = _largest(reference.unitarity_defect(to_numpy(unitary)))
    if not defect <= bound:
        raise AssertionError(f"‖UᴴU − I‖_F is {defect:.3g}, more than {bound:.3g}.")


def assert_rotation(rotation: LowRankRotation, /, *, atol: float | None = None) -> None:
    """Assert that I + left rightᴴ is unitary.

    Parameters
    ----------
    rotation : LowRankRotation
        left and right of shape (…, n, w).
    atol : float, optional
        By default c(n, w)·eps of the dtype.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> from lowrank_unitary.testing import assert_rotation
    >>> body = lu.BodyFactors(np.ones((5, 1)), np.eye(5)[:, :1])
    >>> assert_rotation(lu.polar_rotation(body))
    """
    _check_pair("rotation", checked_rotation(rotation))
    left, right = (to_numpy(part) for part in rotation)
    bound = _bound(rotation.left, left.shape[-1]) if atol is None else validate.size("atol", atol)
    defect = _largest(reference.unitarity_defect(reference.rotation_matrix(left, right)))
    if not defect <= bound:
        raise AssertionError(
            f"I + left rightᴴ has a unitarity defect of {defect:.3g}, more than {bound:.3g}."
        )


def assert_matches_dense(
    result: Array,
    unitary: Array,
    left: Array,
    right: Array,
    /,
    *,
    update: str = "geodesic",
    atol: float | None = None,
) -> None:
    """Assert that a step gave what its dense definition gives.

    Parameters
    ----------
    result : array, shape (…, n, n)
        From ``unitary_transport`` or ``polar_projection``.
    unitary : array, shape (…, n, n)
        The matrix before the step.
    left, right : array, shape (…, n, k)
        The step left rightᴴ.
    update : {"geodesic", "cayley", "polar"}
        The update of the step.
    atol : float, optional
        Bound on the Frobenius norm of the difference. By default c(n, k)·eps of the dtype, times the norm of
        the step where that is above 1.

    Notes
    -----
    Near a singular U + left rightᴴ polar errors grow like 1/σ_min: pass `atol`.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> from lowrank_unitary.testing import assert_matches_dense
    >>> U, a, b = np.eye(4), np.ones((4, 1)), np.eye(4)[:, :1]
    >>> assert_matches_dense(lu.unitary_transport(U, a, b), U, a, b)
    """
    validate.choice("update", update, UPDATES)
    for name, x in {"result": result, "unitary": unitary}.items():
        validate.namespace_of(**{name: x})
        validate.square(name, x)
    _check_pair("", (left, right), int(unitary.shape[-1]))
    u, a, b = (to_numpy(x) for x in (unitary, left, right))
    if atol is not None:
        atol = validate.size("atol", atol)
    expected = reference.polar(u, a, b) if update == "polar" else reference.transport(u, a, b, update)
    if atol is None:
        step = np.linalg.norm(a) * np.linalg.norm(b)
        atol = max(1.0, float(step)) * _bound(unitary, a.shape[-1])
    difference = reference.extended(to_numpy(result)) - expected
    error = _largest(np.sqrt(np.sum(np.abs(difference) ** 2, axis=(-2, -1))))
    if not error <= atol:
        raise AssertionError(
            f"the {update} step is off by {error:.3g} (Frobenius norm), more than {atol:.3g}."
        )


def assert_body_factors(
    unitary: Array,
    factors: LowRankFactors,
    body_factors: BodyFactors,
    /,
    *,
    probes: int = 2,
    rtol: float | None = None,
    rng: RNG = 0,
) -> None:
    """Assert that body factors are those of given factors at U: left_b right_bᴴ = Uᴴ left rightᴴ.

    For code that takes Uᴴ left from elsewhere, such as a backward pass: a missing conjugation, or a U that
    has moved since, gives a wrong step without an error.

    Parameters
    ----------
    unitary : array, shape (…, n, n)
    factors : LowRankFactors
        left and right (…, n, m).
    body_factors : BodyFactors
        left and right (…, n, m'), m' need not be m.
    probes : int
        Number of random vectors; one finds any difference with probability 1.
    rtol : float, optional
        Largest difference relative to the product, by default c(n, m)·eps of the dtype.
    rng : as for :func:`~lowrank_unitary.svd_sketch`

    Notes
    -----
    O(n² + nm) for each probe, on the host: cheap enough for a training loop.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> from lowrank_unitary.testing import assert_body_factors
    >>> U, x, delta = lu.random_unitary(30, rng=1), *np.random.default_rng(0).standard_normal((2, 30, 8))
    >>> assert_body_factors(U, lu.LowRankFactors(delta, x), lu.BodyFactors(U.T @ delta, x))
    """
    for name, value, kind in (
        ("factors", factors, LowRankFactors), ("body_factors", body_factors, BodyFactors)
    ):  # fmt: skip
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be {kind.__name__}, got {type(value).__name__}.")
    validate.namespace_of(unitary=unitary)
    n = validate.square("unitary", unitary)
    _check_pair("factors", factors, n)
    _check_pair("body_factors", body_factors, n)
    probes = validate.positive("probes", probes)
    U, left, right, body_left, body_right = map(to_numpy, (unitary, *factors, *body_factors))
    block = random_test_matrix(right.shape[-2], probes, rng=rng)
    expected = reference.adjoint(U) @ (left @ (reference.adjoint(right) @ block))
    difference = body_left @ (reference.adjoint(body_right) @ block) - expected
    sizes = (np.linalg.norm(x, axis=(-2, -1)) for x in (difference, expected, left, right))
    error, size, *norms = (np.asarray(x, dtype=np.float64) for x in sizes)
    relative = _largest(error / np.where(size > 0, size, 1.0))
    # Where the products cancel, rounding follows the factors and not the product.
    scale = max(1.0, _largest(norms[0] * norms[1] / np.where(size > 0, size, 1.0)))
    bound = scale * _bound(unitary, left.shape[-1]) if rtol is None else validate.size("rtol", rtol)
    if not relative <= bound:
        raise AssertionError(
            f"body_factors differ from Uᴴ left rightᴴ by {relative:.3g} of its norm, more than {bound:.3g}: "
            f"are they those of this U, and conjugated where they are complex?"
        )


def _check_pair(name: str, pair: tuple[Array, Array], n: int | None = None) -> None:
    """Refuse what are no two factors of one shape; each may come from another library."""
    names = [f"{name}.{part}" if name else part for part in ("left", "right")]
    for part, x in zip(names, pair, strict=True):
        validate.namespace_of(**{part: x})
    validate.factor_pair(names[0], pair[0], names[1], pair[1], n)


def _bound(x: Array, k: int) -> float:
    return tolerance(array_namespace(x), x.dtype, x.shape[-2], k)


def _largest(values: reference.Extended) -> float:
    return float(np.max(values, initial=0.0))
