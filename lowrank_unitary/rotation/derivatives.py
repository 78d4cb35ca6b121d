"""Vector-Jacobian products of rotations and steps, for frameworks without automatic differentiation.

A cotangent X̄ of X is the gradient of a real loss: along dX the loss changes by Re tr(X̄ᴴ dX). It is torch's
`.grad`, and the complex conjugate of JAX's cotangent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from .._array import Array, Namespace, astype, core_dtype, is_complex, thin_dtype, validate, widest_dtype
from .._linalg import adjoint_product, hstack, outer_product, product, split_of, thin
from ..types import (
    BodyFactors,
    LowRankFactors,
    LowRankRotation,
    RotateCotangents,
    StepCotangents,
    checked_body_factors,
    checked_rotation,
    factor_dtype,
)
from . import polar, transport
from .core import Product, Pullback, pull_back_cotangent
from .rotate import rotate


def transport_rotation_vjp(
    body_factors: BodyFactors, cotangent: BodyFactors, /, *, update: str = "geodesic"
) -> BodyFactors:
    """Pull a cotangent of the rotation of :func:`transport_rotation` back to the body factors.

    Parameters
    ----------
    body_factors : BodyFactors
        left and right of shape (…, n, k), as passed to :func:`transport_rotation`.
    cotangent : BodyFactors
        Of shape (…, n, m) with any m: left @ rightᴴ is the cotangent of the n×n rotation, not of its thin
        factors, which are not unique. For rotated rows x, xᴴ and the adjoint of the cotangent of the result
        (:func:`rotate_vjp`); for several uses, their columns side by side.
    update : {"geodesic", "cayley"}
        As passed to :func:`transport_rotation`.

    Returns
    -------
    BodyFactors
        Cotangents of left and right, with their shapes and dtypes.

    Notes
    -----
    O(nk(k + m) + k³), no n×n array. With Ω = V diag(iθ) Vᴴ, θ = 0 outside of 2k directions, the cotangent of
    Ω is V (Γ ∘ (Vᴴ R̄ V)) Vᴴ with the conjugate divided differences Γ of e^{iθ}, computed without a quotient:
    exact to rounding at every step size, also at zero, equal or opposite angles.

    References
    ----------
    Nicholas J. Higham, "Functions of Matrices", SIAM 2008, theorem 3.11 (Daleckii and Krein).

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> x, y = np.ones((1, 3)), np.eye(3)[:1]
    >>> body = lu.BodyFactors(np.zeros((3, 1)), np.eye(3)[:, :1])
    >>> error = lu.rotate(x, lu.transport_rotation(body)) - y  # gradient of ½‖rotated − y‖²
    >>> grad = lu.transport_rotation_vjp(body, lu.BodyFactors(x.T, error.T))
    >>> grad.left.ravel()
    array([ 0. , -0.5, -0.5])
    """
    validate.choice("update", update, transport.TRANSPORTS)
    return _rotation_vjp(body_factors, cotangent, functools.partial(transport.pullback, update=update))


def polar_rotation_vjp(body_factors: BodyFactors, cotangent: BodyFactors, /) -> BodyFactors:
    """Pull a cotangent of the rotation of :func:`polar_rotation` back to the body factors.

    Parameters
    ----------
    body_factors : BodyFactors
        left and right of shape (…, n, k), as passed to :func:`polar_rotation`.
    cotangent : as for :func:`transport_rotation_vjp`

    Notes
    -----
    O(nk(k + m) + k³), no n×n array. With the SVD I + left rightᴴ = u s vᴴ its cotangent is
    u [(G − Gᴴ)_ij/(s_i + s_j)] vᴴ, G = uᴴ R̄ v: equal singular values are no exception. Exact to rounding
    over s_min at every step size; NaN where I + left rightᴴ is singular, which has no derivative.

    References
    ----------
    Nicholas J. Higham, "Functions of Matrices", SIAM 2008, section 8.2.

    Examples
    --------
    The angle φ of the factor of [[1 + c₁, 0], [c₂, 1]], tan φ = c₂/(2 + c₁):

    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> body = lu.BodyFactors(np.array([[0.0], [1.0]]), np.array([[1.0], [0.0]]))
    >>> P = lu.rotate(np.eye(2), lu.polar_rotation(body))
    >>> J = np.array([[0.0, -1.0], [1.0, 0.0]])  # dP = P J dφ
    >>> grad = lu.polar_rotation_vjp(body, lu.BodyFactors(P, 0.5 * J.T))
    >>> np.allclose(grad.left.ravel(), [-0.2, 0.4])
    True
    """
    return _rotation_vjp(body_factors, cotangent, polar.pullback)


def rotate_vjp(
    array: Array, rotation: LowRankRotation, cotangent: Array, /, *, adjoint: bool = False
) -> RotateCotangents:
    """Pull a cotangent of the result of :func:`rotate` back to the array and to the n×n rotation.

    Parameters
    ----------
    array, rotation, adjoint : as for :func:`rotate`
    cotangent : array, shape (…, m, n)
        That of the result.

    Returns
    -------
    RotateCotangents
        That of the array, and that of the rotation as the two factors of arrayᴴ @ cotangent, thin where few
        rows are rotated.

    Notes
    -----
    4wmn operations (real). Complex arrays are copied to conjugate them, which :func:`unitary_transport_vjp`
    and :func:`polar_projection_vjp` avoid.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> rng = np.random.default_rng(0)
    >>> x, y, body = rng.standard_normal((2, 9)), rng.standard_normal((2, 9)), rng.standard_normal((2, 9, 3))
    >>> grad = lu.rotate_vjp(x, lu.transport_rotation(lu.BodyFactors(*body)), y)
    >>> lu.transport_rotation_vjp(lu.BodyFactors(*body), grad.rotation).left.shape
    (9, 3)
    """
    checked_rotation(rotation)
    validate.flag("adjoint", adjoint)
    xp = validate.namespace_of(array=array, cotangent=cotangent)
    if array.ndim < 2 or tuple(cotangent.shape[-2:]) != tuple(array.shape[-2:]):
        raise ValueError(
            f"cotangent must have shape (…, m, n) like array, {tuple(array.shape)}, got "
            f"{tuple(cotangent.shape)}: it is that of rotate(array, rotation)."
        )
    left, right = rotation
    given = {"array": array, "rotation.left": left, "rotation.right": right, "cotangent": cotangent}
    validate.namespace_of(**given)
    validate.same_dtype(xp, "array", array, cotangent=cotangent)
    shape = (*validate.batches(**given), *array.shape[-2:])
    cotangent = astype(xp, cotangent, array.dtype)
    if tuple(cotangent.shape) != shape:
        cotangent = xp.broadcast_to(cotangent, shape)
    back = rotate(cotangent, rotation, adjoint=not adjoint)
    factors = (cotangent, array) if adjoint else (array, cotangent)
    return RotateCotangents(_as_of(xp, array, back), BodyFactors(*(thin.adjoint(xp, x) for x in factors)))


def unitary_transport_vjp(
    unitary: Array, left: Array, right: Array, cotangent: Array, /, *, update: str = "geodesic"
) -> StepCotangents:
    """Pull a cotangent of the result of :func:`unitary_transport` back to its three arguments.

    Parameters
    ----------
    unitary, left, right, update : as for :func:`unitary_transport`
    cotangent : array, shape (…, n, n)
        That of the result.

    Returns
    -------
    StepCotangents
        Cotangents of U, left and right, with their shapes and dtypes; summed over batch axes that an argument
        does not have. That of U is not projected to a tangent space.

    Notes
    -----
    About 24kn² operations (real) and O(nk² + k³); the cotangent of U is the only n×n array made. Accuracy as
    for :func:`transport_rotation_vjp`. For steps without healing.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> U, target = np.eye(4), np.eye(4)[[1, 0, 3, 2]]
    >>> left, right = np.zeros((4, 2)), np.eye(4)[:, :2]
    >>> error = lu.unitary_transport(U, left, right) - target  # gradient of ½‖moved − target‖²
    >>> grad = lu.unitary_transport_vjp(U, left, right, error)
    >>> grad.unitary.shape, grad.left.shape, grad.right.shape
    ((4, 4), (4, 2), (4, 2))
    """
    validate.choice("update", update, transport.TRANSPORTS)
    return StepCotangents(*step_cotangents(unitary, left, right, cotangent, update))


def polar_projection_vjp(unitary: Array, left: Array, right: Array, cotangent: Array, /) -> StepCotangents:
    """Pull a cotangent of the result of :func:`polar_projection` back to its three arguments.

    Parameters
    ----------
    unitary, left, right : as for :func:`polar_projection`
    cotangent : array, shape (…, n, n)
        That of the result.

    Notes
    -----
    As :func:`unitary_transport_vjp`; NaN where U + left rightᴴ is singular, see :func:`polar_rotation_vjp`.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> grad = lu.polar_projection_vjp(np.eye(3), np.zeros((3, 1)), np.ones((3, 1)), np.eye(3))
    >>> bool(np.all(grad.left == 0))  # at U = I the trace is stationary
    True
    """
    return StepCotangents(*step_cotangents(unitary, left, right, cotangent, "polar"))


def _rotation_vjp(body_factors: BodyFactors, cotangent: BodyFactors, pullback: Pullback) -> BodyFactors:
    xp, n, _ = checked_body_factors(body_factors)
    if not isinstance(cotangent, BodyFactors):
        raise TypeError(
            f"cotangent must be BodyFactors(left, right) whose product left @ rightᴴ is the cotangent of the "
            f"n×n rotation, got {type(cotangent).__name__}: make them with rotate_vjp."
        )
    given = {f"cotangent.{name}": x for name, x in cotangent._asdict().items()}
    validate.namespace_of(left=body_factors.left, right=body_factors.right, **given)
    validate.factor_pair("cotangent.left", cotangent.left, "cotangent.right", cotangent.right, n)
    validate.batches(left=body_factors.left, right=body_factors.right, **given)
    dtype = core_dtype(xp, widest_dtype(xp, factor_dtype(xp, body_factors), factor_dtype(xp, cotangent)))
    body = BodyFactors(*(astype(xp, x, dtype) for x in body_factors))
    P, R = (astype(xp, x, dtype) for x in cotangent)
    cotangents = pull_back_cotangent(
        xp,
        body,
        lambda block: product(xp, P, adjoint_product(xp, R, block)),
        lambda block: product(xp, R, adjoint_product(xp, P, block)),
        pullback,
    )
    return BodyFactors(*(_as_of(xp, x, c) for x, c in zip(body_factors, cotangents, strict=True)))


def step_cotangents(
    unitary: Array, left: Array, right: Array, cotangent: Array, update: str, *, of_unitary: bool = True
) -> tuple[Array | None, Array, Array]:
    """Cotangents of U, left and right for any update; None for that of a constant U, which is n×n."""
    make: Callable[[BodyFactors], LowRankRotation]
    if update == "polar":
        make, pullback = functools.partial(polar.polar_rotation, core="orthonormal"), polar.pullback
    else:
        make = functools.partial(transport.transport_rotation, update=update, core="orthonormal")
        pullback = functools.partial(transport.pullback, update=update)
    xp = validate.namespace_of(unitary=unitary, left=left, right=right, cotangent=cotangent)
    validate.square("unitary", unitary)
    body = LowRankFactors(left, right).to_body(unitary)
    if tuple(cotangent.shape[-2:]) != tuple(unitary.shape[-2:]):
        raise ValueError(
            f"cotangent must have shape (…, n, n) like unitary, {tuple(unitary.shape)}, got "
            f"{tuple(cotangent.shape)}: it is that of the moved matrix."
        )
    validate.batches(unitary=unitary, left=left, right=right, cotangent=cotangent)
    validate.same_dtype(xp, "unitary", unitary, cotangent=cotangent)
    thin, working = thin_dtype(xp, unitary.dtype), core_dtype(xp, unitary.dtype)
    cotangent = astype(xp, cotangent, unitary.dtype)

    def across(first: Product, second: Product) -> Product:
        # Products with n×n matrices keep their precision, as in the step itself.
        return lambda block: astype(xp, second(first(astype(xp, block, thin))), working)

    body = BodyFactors(*(astype(xp, x, working) for x in body))
    c_bar, b_bar = pull_back_cotangent(
        xp,
        body,
        across(functools.partial(product, xp, cotangent), functools.partial(adjoint_product, xp, unitary)),
        across(functools.partial(product, xp, unitary), functools.partial(adjoint_product, xp, cotangent)),
        pullback,
    )
    c_bar = astype(xp, c_bar, thin)
    of_factors = _as_of(xp, left, product(xp, unitary, c_bar)), _as_of(xp, right, b_bar)
    if not of_unitary:
        return None, *of_factors
    # U⁺ = U R and c = Uᴴa: the cotangent of U is Ū⁺ Rᴴ + a c̄ᴴ.
    before, after, a = (astype(xp, x, thin) for x in (*make(body), left))
    outer = hstack(xp, product(xp, cotangent, after), a, rows=split_of(xp, unitary)[0])
    change = outer_product(xp, outer, hstack(xp, before, c_bar), unitary)
    return _as_of(xp, unitary, astype(xp, cotangent, thin) + change), *of_factors


def _as_of(xp: Namespace, like: Array, cotangent: Array) -> Array:
    """A cotangent with the shape and dtype of `like`: summed over broadcast axes, real for real arrays."""
    ahead = cotangent.ndim - like.ndim
    widened = [i for i in range(like.ndim - 2) if like.shape[i] != cotangent.shape[ahead + i]]
    if ahead or widened:
        axes = (*range(ahead), *(ahead + i for i in widened))
        cotangent = xp.reshape(xp.sum(cotangent, axis=axes, keepdims=True), like.shape)
    if is_complex(xp, cotangent.dtype) and not is_complex(xp, like.dtype):
        cotangent = xp.real(cotangent)
    return astype(xp, cotangent, like.dtype)
