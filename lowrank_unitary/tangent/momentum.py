"""Momentum in the body frame: a low-rank average tangent, and its scaling."""

from __future__ import annotations

import math
from typing import NamedTuple

from .._array import Array, Namespace, astype, placement, real_dtype, thin_dtype, validate
from .._linalg import adjoint, beside, broadcast, hstack, promoted, qr, unit_scaled
from ..types import BodyFactors, body_pair, checked_body_factors
from .planes import best_columns

SCALINGS = ("none", "scalar", "rows")
# Rows of the second moment below this share of the mean one are scaled as at this share.
_FLOOR = 1e-8


class MomentumState(NamedTuple):
    """The running averages of a descent; arrays of fixed shapes.

    Attributes
    ----------
    momentum : BodyFactors, both (…, n, k)
        (C, Q), with skew(C Qᴴ) the average tangent.
    second : array, shape (…, 0, 1), (…, 1, 1) or (…, n, 1)
        Root mean square of the entries of the tangent: none, of the matrix, or row by row. Real.
    steps : array, shape ()
        Number of steps taken, real.
    """

    momentum: BodyFactors
    second: Array
    steps: Array

    @classmethod
    def start(cls, unitary: Array, /, rank: int, *, scaling: str = "none") -> MomentumState:
        """Zero averages.

        Parameters
        ----------
        unitary : array, shape (…, m, n)
            The matrix to be moved.
        rank : int
            k, the number of columns of the momentum.
        scaling : {"none", "scalar", "rows"}
            Whether :func:`momentum_step` divides by a root mean square of the gradients, as RMSprop and Adam
            do: of the whole matrix, or row by row.

        Examples
        --------
        >>> import numpy as np
        >>> import lowrank_unitary as lu
        >>> lu.MomentumState.start(np.eye(10), 3, scaling="rows").second.shape
        (10, 1)
        """
        xp = validate.namespace_of(unitary=unitary)
        n = validate.frame_size("unitary", unitary)
        k = validate.rank(rank, min(unitary.shape[-2:]))
        rows = {"none": 0, "scalar": 1, "rows": n}[validate.choice("scaling", scaling, SCALINGS)]
        batch, place = tuple(unitary.shape[:-2]), placement(unitary)
        dtype = thin_dtype(xp, unitary.dtype)
        real = real_dtype(xp, dtype)
        # Two arrays: JAX cannot donate one twice.
        blocks = ((n, k, dtype), (n, k, dtype), (rows, 1, real))
        C, Q, second = (
            beside(xp, xp.zeros((*batch, *size), dtype=kind, device=place), unitary) for *size, kind in blocks
        )
        return cls(BodyFactors(C, Q), second, xp.zeros((), dtype=real, device=place))


def momentum_step(
    body_factors: BodyFactors,
    state: MomentumState,
    /,
    *,
    decay: float = 0.9,
    second_decay: float = 0.999,
    average: bool = True,
    nesterov: bool = False,
    eps: float = 0.0,
) -> tuple[BodyFactors, MomentumState]:
    """Average tangents over steps, and return the direction to move along.

    Parameters
    ----------
    body_factors : BodyFactors
        Of this step's gradient, with any number of columns. Only their tangent part counts.
    state : MomentumState
        From :meth:`MomentumState.start`, then from the last call.
    decay : float
        β₁, from 0 to less than 1: the average is over about 1/(1 − β₁) steps.
    second_decay : float
        β₂, the same for the mean squares, where the state has them.
    average : bool
        True: M ← β₁M + (1 − β₁)A, divided by 1 − β₁ᵗ, as in Adam [1]_. False: M ← β₁M + A, heavy ball, as in
        torch and optax.
    nesterov : bool
        The direction is β₁M plus the last term once more, (1 − β₁)A or A.
    eps : float
        Added to every root mean square that the direction is divided by, as in Adam.

    Returns
    -------
    direction : BodyFactors
        (C, Q) of k columns. ``transport_rotation(BodyFactors(-eta * C, Q))`` descends.
    state : MomentumState
        For the next call.

    Notes
    -----
    O(n(k + m)² + (k + m)³) for m columns, no n×n array. A is the tangent of this step; M is truncated to the
    best k columns. In the body frame M is a tangent at every U.

    ``"scalar"`` divides the direction by the root mean square r of all entries of the tangents, ``"rows"``
    entry (i, j) by √(r_i r_j), which keeps it a tangent. Where ``eps`` is far below them, the step is
    independent of the scale of the loss. A zero gradient gives a zero direction.

    References
    ----------
    .. [1] Diederik Kingma, Jimmy Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> U, target = np.eye(16), lu.cayley_unitary(16, rng=1)
    >>> state = lu.MomentumState.start(U, 4, scaling="scalar")
    >>> for step in range(200):
    ...     body = lu.tangent_sketch(U, U - target, 4, rng=step)
    ...     direction, state = lu.momentum_step(body, state)
    ...     eta = 0.1 * 0.97**step
    ...     U = lu.rotate(U, lu.transport_rotation(lu.BodyFactors(-eta * direction.left, direction.right)))
    >>> bool(np.linalg.norm(U - target) < 0.05)
    True
    """
    xp, n, width = checked_body_factors(body_factors)
    C, Q = _checked_state(xp, body_factors, state, n)
    k, dtype = C.shape[-1], C.dtype
    decay, second_decay = validate.fraction("decay", decay), validate.fraction("second_decay", second_decay)
    if not validate.size("eps", eps) < math.inf:
        raise ValueError(f"eps must be finite, got {eps}.")
    validate.flag("average", average)
    validate.flag("nesterov", nesterov)
    left, right = (astype(xp, x, dtype) for x in broadcast(xp, *body_factors))
    steps = state.steps + 1.0
    latest = (1.0 - decay if average else 1.0) * left
    mean = best_columns(xp, hstack(xp, decay * C, latest), hstack(xp, Q, right), k)
    # decay⁰ = 1 also for decay = 0.
    direction = (
        BodyFactors(mean.left / promoted(xp, 1.0 - decay**steps, mean.left), mean.right) if average else mean
    )
    if nesterov:
        ahead = hstack(xp, decay * direction.left, latest)
        direction = best_columns(xp, ahead, hstack(xp, direction.right, right), k)
    second = state.second
    if second.shape[-2]:
        rms = root_mean_square(xp, left, right, rows=second.shape[-2] > 1) if width else 0.0 * second
        # Roots, as the squares of float32 gradients of 1e-30 are zero.
        second = xp.hypot(math.sqrt(second_decay) * second, math.sqrt(1 - second_decay) * rms)
        scale = _inverse_root(xp, second / xp.sqrt(1.0 - second_decay**steps) + eps)
        direction = BodyFactors(*(astype(xp, scale, dtype) * x for x in direction))
    return direction, MomentumState(mean, second, steps)


def _checked_state(xp: Namespace, body_factors: BodyFactors, state: MomentumState, n: int) -> BodyFactors:
    """The momentum of a state that fits the body factors, or an error."""
    if not isinstance(state, MomentumState):
        raise TypeError(
            f"state must be a MomentumState, got {type(state).__name__}: make one with MomentumState.start."
        )
    C, Q = body_pair(state.momentum, "state.momentum")
    second, steps = state.second, state.steps
    arrays = {
        "state.momentum.left": C, "state.momentum.right": Q, "state.second": second, "state.steps": steps
    }  # fmt: skip
    validate.namespace_of(**{"body_factors.left": body_factors.left}, **arrays)
    validate.factor_pair("state.momentum.left", C, "state.momentum.right", Q, n)
    validate.batches(**{"body_factors.left": body_factors.left, "state.momentum.left": C})
    body = {f"body_factors.{name}": x for name, x in body_factors._asdict().items()}
    validate.same_dtype(xp, "state.momentum", C, **{"state.momentum.right": Q}, **body)
    real = real_dtype(xp, C.dtype)
    if second.ndim < 2 or second.shape[-2] not in (0, 1, n) or second.shape[-1] != 1 or second.dtype != real:
        raise ValueError(
            f"state.second must be {real} and have shape (…, r, 1) with r = 0, 1 or {n}, got {second.dtype} "
            f"and {tuple(second.shape)}."
        )
    if steps.ndim or steps.dtype != real:
        raise ValueError(
            f"state.steps must be {real} and have shape (), got {steps.dtype} and {tuple(steps.shape)}."
        )
    return state.momentum


def root_mean_square(xp: Namespace, left: Array, right: Array, *, rows: bool) -> Array:
    """That of all entries of skew(left rightᴴ), shape (…, 1, 1), or of every row, (…, n, 1)."""
    n = left.shape[-2]
    a, a_unit = unit_scaled(xp, left)
    b, b_unit = unit_scaled(xp, right)
    # Row i is (a_i Bᴴ − b_i Aᴴ)/2; in an orthonormal basis of [A, B] it has 2k entries.
    R = qr(xp, hstack(xp, a, b))[1]
    k = a.shape[-1]
    if not rows:
        a, b = R[..., :k], R[..., k:]
    parts = a @ adjoint(xp, R[..., k:]) - b @ adjoint(xp, R[..., :k])
    norms = xp.linalg.vector_norm(parts, axis=-1 if rows else (-2, -1), keepdims=True)
    return (0.5 / (math.sqrt(n) if rows else n)) * norms * a_unit * b_unit


def _inverse_root(xp: Namespace, rms: Array) -> Array:
    """rms^(−½), bounded for rows far below the mean one; 0 where all rows are zero."""
    floor = _FLOOR * xp.mean(rms, axis=-2, keepdims=True)
    floored = xp.where(rms < floor, floor, rms)
    return xp.where(floored == 0, 0.0, 1.0 / xp.sqrt(xp.where(floored == 0, 1.0, floored)))
