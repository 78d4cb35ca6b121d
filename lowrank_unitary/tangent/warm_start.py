"""Warm starts: tangent sketches of a slowly changing gradient from the basis of the last one."""

from __future__ import annotations

import math
from typing import NamedTuple

from .._array import Array, Namespace, astype, validate
from .._linalg import RIGHT, RNG, START, adjoint, columns, hstack, qr, random_block, svd
from ..types import BodyFactors, LowRankFactors, body_pair
from .planes import best_columns, two_sided
from .sketch import Tangent, samples_for


class SketchState(NamedTuple):
    """What one tangent sketch passes to the next: arrays of fixed shapes.

    Attributes
    ----------
    basis : array, shape (…, n, ℓ)
        Orthonormal columns, the most important directions of the last tangent first.
    missed : BodyFactors, both (…, n, r)
        What the last sketch truncated; r = 0 without error feedback.
    """

    basis: Array
    missed: BodyFactors

    @classmethod
    def start(
        cls,
        unitary: Array,
        /,
        rank: int,
        *,
        oversample: int | None = None,
        feedback: bool = False,
        rng: RNG = None,
    ) -> SketchState:
        """A random basis: the first sketch is as good as :func:`tangent_sketch`.

        Parameters
        ----------
        unitary : array, shape (…, m, n)
            The matrix to be moved.
        rank : int
            k of the sketches.
        oversample, rng : as for :func:`tangent_sketch`
        feedback : bool
            Add what a sketch truncates to the next one.

        Examples
        --------
        >>> import numpy as np
        >>> import lowrank_unitary as lu
        >>> lu.SketchState.start(np.eye(10), 3, rng=0).basis.shape
        (10, 10)
        """
        xp = validate.namespace_of(unitary=unitary)
        validate.flag("feedback", feedback)
        n = validate.frame_size("unitary", unitary)
        k = validate.rank(rank, min(unitary.shape[-2:]))
        width = samples_for(n, k, oversample)
        block = random_block(xp, (*unitary.shape[:-2], n, width), unitary, rng, START, "uniform")
        nothing = 0.0 * columns(xp, block, slice(min(width, n - k) if feedback else 0))
        return cls(qr(xp, block)[0], BodyFactors(nothing, nothing))


def warm_tangent_sketch(
    unitary: Array,
    gradient: Array | LowRankFactors,
    state: SketchState,
    /,
    rank: int,
    *,
    refresh: float = 0.25,
    rng: RNG = None,
) -> tuple[BodyFactors, SketchState]:
    """Sketch the tangent part of a gradient along the directions of the last sketch and some new ones.

    Parameters
    ----------
    unitary, gradient
        As for :func:`tangent_sketch`; `gradient` may also be BodyFactors.
    state : SketchState
        From :meth:`SketchState.start`, then from the last call.
    rank : int
        k.
    refresh : float
        Share of new samples, from 0 to 1, rounded up to whole columns. With 0 a descent can end in a space
        that the gradient keeps invariant; with 1 nothing is remembered.
    rng
        As for :func:`svd_sketch`; another seed for every step.

    Returns
    -------
    body_factors : BodyFactors
        (C, Q) as from :func:`tangent_sketch`, of the tangent and, with feedback, of what was truncated.
    state : SketchState
        For the next call.

    Notes
    -----
    As many products as :func:`tangent_sketch` without power iterations; while the gradient changes slowly it
    is a power iteration over the steps. The state is in the body frame and moves with U. With feedback every
    direction is used eventually, along gradients that are several steps old.

    References
    ----------
    Error feedback for low-rank updates: Thijs Vogels, Sai Praneeth Karimireddy, Martin Jaggi, "PowerSGD:
    practical low-rank gradient compression for distributed optimization", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> rng = np.random.default_rng(0)
    >>> U, target = np.eye(16), lu.cayley_unitary(16, rng=1)
    >>> state = lu.SketchState.start(U, 2, rng=2)
    >>> for step in range(60):
    ...     body, state = lu.warm_tangent_sketch(U, U - target, state, 2, rng=step)
    ...     U = lu.rotate(U, lu.transport_rotation(lu.BodyFactors(-0.5 * body.left, body.right)))
    >>> bool(np.linalg.norm(U - target) < 1e-3)
    True
    """
    tangent = Tangent.of(unitary, gradient)
    xp, n = tangent.xp, tangent.size
    k = validate.rank(rank, n)
    state = _checked_state(xp, tangent, state)
    width, carried = state.basis.shape[-1], state.missed.left.shape[-1]
    if state.basis.shape[-2] != n or width < k or carried > n - k:
        raise ValueError(
            f"state must have been made for n = {n} and rank = {k}, got one of the shapes "
            f"{tuple(state.basis.shape)} and {tuple(state.missed.left.shape)}."
        )
    refresh = validate.fraction("refresh", refresh, ", a share of the samples", most=True)
    fresh = math.ceil(refresh * width)
    kept = columns(xp, state.basis, slice(width - fresh))
    new = random_block(xp, (*tangent.batch, n, fresh), tangent.like, rng, RIGHT, "uniform")
    left, right = state.missed

    def product(block: Array) -> Array:
        turned, _ = tangent.product(block)
        return turned + 0.5 * (left @ (adjoint(xp, right) @ block) - right @ (adjoint(xp, left) @ block))

    basis, _ = qr(xp, product(hstack(xp, kept, new)))
    image = product(basis)
    found = best_columns(xp, *two_sided(xp, image, basis), k + carried)
    # The image is one more application of A: its directions make the next basis, longest first.
    directions, R = qr(xp, image)
    parts = (slice(k), slice(k, None))
    step, missed = (BodyFactors(*(columns(xp, x, part) for x in found)) for part in parts)
    return step, SketchState(directions @ svd(xp, R)[0], missed)


def _checked_state(xp: Namespace, tangent: Tangent, state: SketchState) -> SketchState:
    """A state in the dtype of the tangent, or an error where the two do not fit together."""
    if not isinstance(state, SketchState):
        raise TypeError(
            f"state must be a SketchState, got {type(state).__name__}: make one with SketchState.start."
        )
    left, right = body_pair(state.missed, "state.missed")
    arrays = {"state.basis": state.basis, "state.missed.left": left, "state.missed.right": right}
    validate.namespace_of(unitary=tangent.like, **arrays)
    n = tangent.size
    if any(x.ndim < 2 or x.shape[-2] != n for x in arrays.values()) or left.shape[-1] != right.shape[-1]:
        raise ValueError(
            f"state must have been made for n = {n}, got one of the shapes "
            f"{', '.join(str(tuple(x.shape)) for x in arrays.values())}."
        )
    validate.batches(unitary=tangent.like, **arrays)
    validate.same_dtype(xp, "unitary", tangent.like, **arrays)
    basis, left, right = (astype(xp, x, tangent.operator.dtype) for x in arrays.values())
    return SketchState(basis, BodyFactors(left, right))
