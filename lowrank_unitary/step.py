"""One call from factors, or from a gradient, to the new unitary matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._array import Array, Namespace, astype, core_dtype, thin_dtype, validate
from ._kernels import UPDATES
from ._linalg import (
    RNG,
    check_rng,
    hstack,
    is_column_major,
    key_of,
    pull_back,
    rotate_rows,
    scaled_columns,
    whole_step,
)
from .rotation.core import CORES
from .rotation.polar import polar_rotation
from .rotation.transport import TRANSPORTS, transport_rotation
from .sketch.svd import METHODS, svd_sketch
from .sketch.test_matrix import Samples
from .tangent.sketch import Tangent, compress_tangent, samples_for, sketch_tangent
from .types import BodyFactors, LowRankFactors, LowRankRotation, composed
from .unitary.heal import healing_rotation, orthonormal_probes

SKETCHES = ("tangent", *METHODS)


def unitary_transport(
    unitary: Array,
    left: Array,
    right: Array,
    /,
    *,
    update: str = "geodesic",
    core: str = "auto",
    heal: int = 0,
    rng: RNG = None,
    overwrite_unitary: bool = False,
) -> Array:
    """Move U along the geodesic (or Cayley curve) of the tangent part of the step left rightᴴ.

    Parameters
    ----------
    unitary : array, shape (…, n, n)
        U, unitary or orthogonal.
    left, right : array, shape (…, n, k)
        The step left @ rightᴴ in the ambient frame, sign and step size included: to descend along a
        gradient a bᴴ by a step of size η, left = −ηa and right = b.
    update : {"geodesic", "cayley"}
        See :func:`transport_rotation`.
    core : {"auto", "gram", "orthonormal"}
        See :func:`transport_rotation`.
    heal : int
        Number p of random probes: the unitarity defect of U also contracts by about 1 − p/n, at no further
        read of U (:func:`heal_unitary`). 0 leaves the defect as it is.
    rng : int, numpy.random.Generator, torch.Generator, JAX key or None
        Source of the probes.
    overwrite_unitary : bool
        Write the result into `unitary` where its kind allows it (not JAX).

    Returns
    -------
    array, shape (…, n, n)
        U exp(skew(Uᴴ left rightᴴ)), with the dtype of U.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit together, or a read-only matrix that was to be overwritten.

    Notes
    -----
    10kn² operations (real) and O(nk² + k³) for the core; no n×n factorisation. Whoever holds c = Uᴴ left
    already calls ``rotate(U, transport_rotation(BodyFactors(c, right)))`` and saves one read of U. A real
    step cannot change det U. A column-major U may be moved from its other side, exp(skew(left rightᴴUᴴ)) U:
    the same for unitary U, and different by the defect of U times the step otherwise.

    References
    ----------
    Bobak Kiani, Randall Balestriero, Yann LeCun, Seth Lloyd, "projUNN", NeurIPS 2022, projUNN-T.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> U = lu.random_unitary(6, rng=0)
    >>> rng = np.random.default_rng(1)
    >>> V = lu.unitary_transport(U, rng.standard_normal((6, 2)), rng.standard_normal((6, 2)))
    >>> bool(lu.is_unitary(V))
    True
    """
    validate.choice("update", update, TRANSPORTS)
    return _step_of_factors(unitary, left, right, update, core, heal, rng, overwrite_unitary)


def polar_projection(
    unitary: Array,
    left: Array,
    right: Array,
    /,
    *,
    core: str = "auto",
    heal: int = 0,
    rng: RNG = None,
    overwrite_unitary: bool = False,
) -> Array:
    """Move U by the step left rightᴴ and project back: the nearest unitary to U + left rightᴴ.

    Parameters
    ----------
    unitary : array, shape (…, n, n)
        U, unitary or orthogonal.
    left, right : array, shape (…, n, k)
        The step left @ rightᴴ in the ambient frame, sign and step size included.
    core : {"auto", "gram", "orthonormal"}
        See :func:`polar_rotation`.
    heal : int
        Number p of random probes: the unitarity defect of U also contracts by about 1 − p/n, at no further
        read of U (:func:`heal_unitary`). 0 leaves the defect as it is.
    rng : int, numpy.random.Generator, torch.Generator, JAX key or None
        Source of the probes.
    overwrite_unitary : bool
        Write the result into `unitary` where its kind allows it (not JAX).

    Returns
    -------
    array, shape (…, n, n)
        U polar(I + Uᴴ left rightᴴ), with the dtype of U.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit together, or a read-only matrix that was to be overwritten.

    Notes
    -----
    For unitary U this is the polar factor of U + left rightᴴ. A defect that U already has is left exactly as
    it is, where the polar factor of U + left rightᴴ would remove it at O(n³). 10kn² operations (real)
    and O(nk² + k³) for the core. A column-major U may be moved from its other side, polar(I + left rightᴴUᴴ)
    U: the same for unitary U, and different by the defect of U times the step otherwise.

    References
    ----------
    Bobak Kiani, Randall Balestriero, Yann LeCun, Seth Lloyd, "projUNN", NeurIPS 2022, projUNN-D.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> U = lu.random_unitary(6, dtype=np.complex128, rng=0)
    >>> left, right = np.ones((6, 1)), np.ones((6, 1)) / 6
    >>> V = lu.polar_projection(U, left, right)
    >>> u, _, vh = np.linalg.svd(U + left @ right.T)
    >>> np.allclose(V, u @ vh)
    True
    """
    return _step_of_factors(unitary, left, right, "polar", core, heal, rng, overwrite_unitary)


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
    unitary : array, shape (…, n, n)
        U, unitary or orthogonal.
    gradient : array, shape (…, n, n), LowRankFactors or BodyFactors
        G, the direction of steepest ascent of a real loss under Re tr(XᴴY): torch's ``.grad`` as it is,
        the complex conjugate of what ``jax.grad`` returns for complex input. LowRankFactors stand for it as a
        sum of outer products, BodyFactors for UᴴG, which spares reads of U.
    step_size : float or real array broadcasting against the batch
        η; positive descends.
    rank : int
        k, from 1 to n.
    update : {"geodesic", "cayley", "polar"}
        How U moves: along the geodesic or its Cayley curve, or straight and projected back.
    sketch : {"tangent", "randomized", "krylov", "single_pass", "exact", "lsi", "columns"}
        ``"tangent"`` compresses the part of the gradient that moves U (:func:`tangent_sketch`); the others
        compress the gradient itself (:func:`svd_sketch`), as the projUNN paper does.
    heal : int
        Number p of random probes: the step also contracts the unitarity defect of U by about 1 − p/n
        (:func:`heal_unitary`), at no further read of U. The default of 1 keeps rounding from adding up over
        any number of steps; 0 leaves the defect as it is, for a matrix that is repaired in another way.
    rng : int, numpy.random.Generator, torch.Generator, JAX key or None
        Source of the random test matrices.
    overwrite_unitary : bool
        Write the result into `unitary` where its kind allows it (not JAX).

    Returns
    -------
    array, shape (…, n, n)
        The new unitary matrix, with the dtype of U.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit together, or a read-only matrix that was to be overwritten.

    Notes
    -----
    O(kn²). With the tangent sketch both updates rotate in the same 2k-dimensional space; by the angles θ of
    the sketched tangent for transport, by arctan θ for polar.

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
    validate.count("heal", heal)
    tangent = Tangent.of(unitary, gradient, of_unitary=True)
    xp, n = tangent.xp, tangent.gradient.columns
    k = validate.rank(rank, n)
    batch = np.broadcast_shapes(tuple(unitary.shape[:-2]), tangent.batch)
    eta = validate.real_scalar(xp, "step_size", step_size, unitary, batch=batch)
    if validate.flag("overwrite_unitary", overwrite_unitary):
        validate.overwritable("unitary", "overwrite_unitary", unitary, batch)
    draws = key_of(rng, unitary)
    thin = isinstance(gradient, LowRankFactors | BodyFactors)
    if sketch != "tangent" and not (thin and gradient.left.shape[-1] <= k):
        factors = svd_sketch(gradient, k, method=sketch, rng=draws).factors()
        gradient = BodyFactors(*factors) if isinstance(gradient, BodyFactors) else factors
    if isinstance(gradient, BodyFactors):
        kept = compress_tangent(gradient, k, rng=draws) if sketch == "tangent" else gradient
        body = BodyFactors(-eta * kept.left, kept.right)
        healing = None
        if heal:
            Z = orthonormal_probes(xp, unitary, heal, draws, "heal")
            healing = healing_rotation(xp, Z, pull_back(xp, unitary, Z[..., :0], Z)[1])
    elif sketch == "tangent":
        test = Samples.of(tangent.operator, "gaussian", k, draws, rows=n).right(samples_for(n, k))
        Z = orthonormal_probes(xp, unitary, heal, draws, "heal") if heal else None
        (C, Q), seen = sketch_tangent(tangent, k, test, probes=Z)
        body = BodyFactors(-eta * C, Q)
        healing = None if Z is None else healing_rotation(xp, Z, seen)
    else:
        Z = orthonormal_probes(xp, unitary, heal, draws, "heal") if heal else None
        body, healing = _pulled_back(xp, unitary, -eta * gradient.left, gradient.right, Z)
    if sketch == "tangent" and update == "polar":
        # C Qᴴ has a Hermitian part, which the polar factor would keep: hand over skew(C Qᴴ) itself.
        body = _skew_factors(xp, *body)
    rotation = _rotation(body, update, "auto")
    return _moved(unitary, rotation, healing, overwrite_unitary)


def _skew_factors(xp: Namespace, C: Array, Q: Array) -> BodyFactors:
    """Factors of skew(C Qᴴ)."""
    return BodyFactors(hstack(xp, 0.5 * C, -0.5 * Q), hstack(xp, Q, C))


def _step_of_factors(
    unitary: Array, left: Array, right: Array, update: str, core: str, heal: int, rng: RNG, overwrite: bool
) -> Array:
    """Move U by left rightᴴ along a curve or by projection, after all checks."""
    validate.choice("core", core, CORES)
    validate.count("heal", heal)
    validate.flag("overwrite_unitary", overwrite)
    # Small matrices feel every microsecond of the checks, and the common case passes them at a glance.
    if (k := validate.plain_rank(unitary, left, right)) is not None:
        return _step(validate.NUMPY, k, (), unitary, left, right, update, core, heal, rng, overwrite)
    return _checked_step(unitary, left, right, update, core, heal, rng, overwrite)


def _checked_step(
    unitary: Array, left: Array, right: Array, update: str, core: str, heal: int, rng: RNG, overwrite: bool
) -> Array:
    xp = validate.namespace_of(unitary=unitary, left=left, right=right)
    n = validate.square("unitary", unitary)
    k = validate.factor_pair("left", left, "right", right, n)
    batch = validate.batches(unitary=unitary, left=left, right=right)
    validate.same_dtype(xp, "unitary", unitary, left=left, right=right)
    return _step(xp, k, batch, unitary, left, right, update, core, heal, rng, overwrite)


def _step(
    xp: Namespace,
    k: int,
    batch: tuple[int, ...],
    unitary: Array,
    left: Array,
    right: Array,
    update: str,
    core: str,
    heal: int,
    rng: RNG,
    overwrite: bool,
) -> Array:
    """At one go by the kernels, or part by part."""
    if overwrite:
        validate.overwritable("unitary", "overwrite_unitary", unitary, batch)
    if is_column_major(xp, unitary, 2 * k):
        # The same step of the transposed matrix: for unitary U, U exp(skew(Uᴴ a bᴴ)) = exp(skew(a (Ub)ᴴ)) U.
        left, right = xp.conj(right), xp.conj(left)
        moved = _step_of_factors(unitary.mT, left, right, update, core, heal, rng, overwrite)
        return unitary if overwrite else moved.mT
    Z = orthonormal_probes(xp, unitary, heal, rng, "heal") if heal else None
    if Z is None:
        check_rng(rng, unitary)
    if core == "auto":
        moved = whole_step(xp, unitary, left, right, Z, update, overwrite=overwrite)
        if moved is not None:
            return moved
    body, healing = _pulled_back(xp, unitary, left, right, Z)
    rotation = _rotation(body, update, core)
    return _moved(unitary, rotation, healing, overwrite)


def _rotation(body: BodyFactors, update: str, core: str) -> LowRankRotation:
    """The rotation of body factors, by the stage that makes it."""
    if update == "polar":
        return polar_rotation(body, core=core)
    return transport_rotation(body, update=update, core=core)


def _pulled_back(
    xp: Namespace, unitary: Array, left: Array, right: Array, Z: Array | None
) -> tuple[BodyFactors, LowRankRotation | None]:
    """Body factors in the precision of the core, and the healing rotation, from one read of U by Uᴴ."""
    thin, working = thin_dtype(xp, unitary.dtype), core_dtype(xp, unitary.dtype)
    left, scale = scaled_columns(xp, astype(xp, left, thin))
    pulled, seen = pull_back(xp, unitary, left, Z)
    body = BodyFactors(
        astype(xp, pulled, working) * scale,
        astype(xp, astype(xp, right, thin), working),
    )
    return body, None if Z is None else healing_rotation(xp, Z, seen)


def _moved(
    unitary: Array, rotation: LowRankRotation, healing: LowRankRotation | None, overwrite: bool
) -> Array:
    """U times the healing and the rotation, in one read and one write of U."""
    xp = validate.namespace_of(unitary=unitary)
    dtype = thin_dtype(xp, unitary.dtype)
    rotation = LowRankRotation(*(astype(xp, x, dtype) for x in rotation))
    left, right = rotation if healing is None else composed(xp, healing, rotation)
    return rotate_rows(xp, unitary, left, right, overwrite=overwrite)
