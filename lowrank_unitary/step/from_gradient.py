"""A descent step: sketch the gradient, and move U."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._array import (
    Array,
    Namespace,
    core_dtype,
    has_divided_stack,
    is_numpy,
    is_torch,
    is_writeable,
    local_part,
    numpy_view,
    own_matrices,
    real_dtype,
    spread_as,
    validate,
)
from .._kernels import UPDATES
from .._linalg import RNG, gram_product, hstack, key_of, key_of_part, promoted, whole_descent
from ..rotation.frame import FrameStep
from ..sketch.range_finder import power_basis
from ..sketch.samples import Samples
from ..sketch.svd import METHODS, svd_sketch
from ..tangent.planes import Planes
from ..tangent.sketch import Tangent, few_samples, outside_of, samples_for, sketch_tangent
from ..types import BodyFactors, LowRankFactors, LowRankRotation, transposed_gradient
from ..unitary.heal import orthonormal_probes
from .rectangular import moved_in_frame, products_of
from .stages import in_core, moved_by, pulled_back, rotation_of

SKETCHES = ("tangent", *METHODS)
# Columns of ambient factors, in multiples of the samples, up to which one product with Uᴴ costs less than the
# four with U that samples of the tangent take otherwise.
_PULLED_BACK = 4


def unitary_step(
    unitary: Array,
    gradient: Array | LowRankFactors | BodyFactors,
    step_size: Any,
    /,
    rank: int,
    *,
    update: str = "geodesic",
    sketch: str = "tangent",
    heal: int = 1,
    rng: RNG = None,
    overwrite_unitary: bool = False,
) -> Array:
    """One descent step: sketch the gradient at rank k, then move U.

    Parameters
    ----------
    unitary : array, shape (…, m, n)
        U, unitary or orthogonal, m = n; or with orthonormal columns, m > n, or rows.
    gradient : array, shape (…, m, n), LowRankFactors or BodyFactors
        G, the direction of steepest ascent of a real loss under Re tr(XᴴY): torch's ``.grad`` as it is, the
        complex conjugate of what ``jax.grad`` returns for complex input. LowRankFactors stand for G,
        BodyFactors for UᴴG, which saves reads of U.
    step_size : float or real array broadcasting against the batch
        η; positive descends.
    rank : int
        k, from 1 to the smaller side of U.
    update : {"geodesic", "cayley", "polar"}
        How U moves: along the geodesic, along its Cayley curve, or by a straight step and polar projection.
    sketch : {"tangent", "randomized", "krylov", "single_pass", "exact", "lsi", "columns"}
        ``"tangent"`` compresses the part of the gradient that moves U (:func:`tangent_sketch`); the others
        compress the gradient itself (:func:`svd_sketch`), as the projUNN paper does.
    heal : int
        Number p of random probes: the step also contracts the unitarity defect of U by about 1 − p/n
        (:func:`heal_unitary`), at no further read of U. One probe keeps rounding from accumulating over any
        number of steps; 0 leaves the defect as it is.
    rng
        As for :func:`svd_sketch`; another seed for every step.
    overwrite_unitary : bool
        Write the result into `unitary` where its kind allows it (not JAX). A read-only array is refused.

    Returns
    -------
    array, shape (…, m, n)
        The new matrix, with the dtype of U.

    Notes
    -----
    O(kn²). With the tangent sketch all updates rotate the same planes: by the angles θ of the sketched
    tangent for "geodesic", by 2 arctan(θ/2) for "cayley", by arctan θ for "polar".

    Examples
    --------
    Procrustes: minimise ½‖U X − Y‖² over orthogonal U.

    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((8, 40)) / np.sqrt(40)
    >>> U, Y = np.eye(8), lu.cayley_unitary(8, rng=1) @ X
    >>> before = np.linalg.norm(U @ X - Y)
    >>> for step in range(100):
    ...     U = lu.unitary_step(U, (U @ X - Y) @ X.T, 0.5, rank=2, rng=step)
    >>> bool(np.linalg.norm(U @ X - Y) < 0.05 * before)
    True
    """
    validate.choice("update", update, UPDATES)
    validate.choice("sketch", sketch, SKETCHES)
    validate.flag("overwrite_unitary", overwrite_unitary)
    # The checks would take longer than a small step: a short test for the common case.
    if sketch == "tangent":
        slopes = gradient if isinstance(gradient, BodyFactors) else (gradient,)
        plain = validate.plain_descent(unitary, slopes, step_size, rank, heal)
        if plain is not None:
            rng = key_of(rng, unitary)
            xp, *views = plain
            moved = _descended(xp, unitary, views, step_size, rank, rng, heal, update, overwrite_unitary)
            if moved is not None:
                return moved
    if has_divided_stack(unitary):
        moved = unitary_step(
            local_part(unitary), own_matrices(gradient, unitary), own_matrices(step_size, unitary, 0), rank,
            update=update, sketch=sketch, heal=heal, rng=key_of_part(rng, unitary),
            overwrite_unitary=overwrite_unitary,
        )  # fmt: skip
        return spread_as(moved, unitary, written=overwrite_unitary)
    heal = validate.count("heal", heal)
    tangent = Tangent.of(unitary, gradient, of_unitary=True)
    xp, n = tangent.xp, min(int(x) for x in unitary.shape[-2:])
    k = validate.rank(rank, n)
    batch = np.broadcast_shapes(tuple(unitary.shape[:-2]), tangent.batch)
    # In the precision of the core: it may be large where its product with the gradient is not.
    wide = real_dtype(xp, core_dtype(xp, unitary.dtype))
    eta = validate.real_scalar(xp, "step_size", step_size, unitary, batch=batch, dtype=wide)
    if overwrite_unitary:
        validate.overwritable("unitary", "overwrite_unitary", unitary, batch)
    key = key_of(rng, unitary)
    if validate.is_wide(unitary):
        moved = unitary_step(
            unitary.mT, transposed_gradient(xp, gradient), step_size, rank, update=update, sketch=sketch,
            heal=heal, rng=key, overwrite_unitary=overwrite_unitary,
        )  # fmt: skip
        return unitary if overwrite_unitary and is_writeable(unitary) else moved.mT
    thin, tall = isinstance(gradient, LowRankFactors | BodyFactors), validate.is_tall(unitary)
    if sketch == "tangent" and not tall and isinstance(gradient, LowRankFactors):
        columns = gradient.left.shape[-1]
        gradient = gradient.to_body(unitary) if k < columns <= _PULLED_BACK * samples_for(n, k) else gradient
    if sketch == "tangent" and not tall and not isinstance(gradient, LowRankFactors):
        # The step size, too: what is recorded has no view.
        *views, sizes = (
            numpy_view(x) if is_numpy(xp) or is_torch(xp) else None
            for x in (unitary, *(gradient if thin else (gradient,)), eta)
        )
        if sizes is not None:
            moved = _descended(xp, unitary, views, sizes, k, key, heal, update, overwrite_unitary)
            if moved is not None:
                return moved
    if sketch != "tangent" and not (thin and gradient.left.shape[-1] <= k):
        factors = svd_sketch(gradient, k, method=sketch, rng=key).factors()
        gradient = BodyFactors(*factors) if isinstance(gradient, BodyFactors) else factors
    if heal:
        validate.probes("heal", heal, n, least=0)
    Z = orthonormal_probes(xp, unitary, heal, key) if heal else None
    if sketch == "tangent" and not isinstance(gradient, BodyFactors):
        planes, image = tangent_planes(tangent, k, key, Z)
        return moved_by(unitary, planes.rotation(eta, update), Z, image, overwrite_unitary)
    if isinstance(gradient, BodyFactors):
        body = outside_of(xp, unitary, gradient) if tall else gradient
        image = None if Z is None else gram_product(xp, unitary, Z)
    elif tall:
        step, image = products_of(xp, unitary, gradient.left, gradient.right, Z)
        a, c, s = (promoted(xp, -eta, x) * x for x in (step.a, step.c, step.s))
        step = FrameStep(a, c, s, step.b)
        return moved_in_frame(xp, unitary, step, Z, image, (update, "auto", overwrite_unitary))
    else:
        body, image = pulled_back(xp, unitary, gradient.left, gradient.right, Z)
    if sketch == "tangent":
        rotation = tangent_rotation(xp, body, eta, k, key, update)
    else:
        rotation = rotation_of(_scaled(xp, -eta, body), update, "auto")
    return moved_by(unitary, rotation, Z, image, overwrite_unitary)


def tangent_planes(tangent: Tangent, k: int, key: Any, Z: Array | None) -> tuple[Planes, Array | None]:
    """The planes of a tangent from two products, and Uᴴ(U Z) from the second."""
    test = Samples.of(tangent.operator, "uniform", k, key, rows=tangent.size)
    return sketch_tangent(tangent, k, test.right(samples_for(tangent.size, k)), probes=Z)


def tangent_rotation(
    xp: Namespace, body: BodyFactors, eta: Array, k: int, key: Any, update: str
) -> LowRankRotation:
    """The rotation by a step of size η against the best k columns of the tangent of body factors."""
    if body.left.shape[-1] > k:
        return _planes_of_body(body, k, key).rotation(eta, update)
    body = _scaled(xp, -eta, body)
    if update == "polar":
        # C Qᴴ has a Hermitian part, which the polar factor would keep: pass skew(C Qᴴ) itself.
        body = _skew_factors(xp, *body)
    return rotation_of(body, update, "auto")


def _descended(
    xp: Namespace,
    unitary: Array,
    views: list[Array | None],
    eta: Any,
    k: int,
    key: Any,
    heal: int,
    update: str,
    overwrite: bool,
) -> Array | None:
    """The step by the kernels, or None."""
    n = unitary.shape[-1]
    # A gradient, or two body factors.
    slope = views[-1]
    samples = samples_for(n, k) if len(views) == 2 or slope is None else few_samples(n, k, slope.shape[-1])
    # Few body factors have no more planes.
    k = min(k, samples)
    if heal > samples:
        return None
    if overwrite:
        validate.overwritable("unitary", "overwrite_unitary", unitary, tuple(unitary.shape[:-2]))
    return whole_descent(xp, unitary, tuple(views), eta, key, (samples, heal, k), update, overwrite=overwrite)


def _planes_of_body(body: BodyFactors, k: int, key: Any) -> Planes:
    """The planes of the best k columns from few samples and three products, as by the kernels."""
    tangent = Tangent.of(None, body)
    op = tangent.operator
    samples = Samples.of(op, "uniform", k, key, rows=op.columns)
    test = samples.right(few_samples(op.columns, k, body.left.shape[-1]))
    return sketch_tangent(tangent, k, power_basis(op, test, 0))[0]


def _scaled(xp: Namespace, factor: Array, body: BodyFactors) -> BodyFactors:
    left, right = (in_core(xp, x) for x in body)
    return BodyFactors(promoted(xp, factor, left) * left, right)


def _skew_factors(xp: Namespace, C: Array, Q: Array) -> BodyFactors:
    return BodyFactors(hstack(xp, 0.5 * C, -0.5 * Q), hstack(xp, Q, C))
