"""One call from factors, or from a gradient, to the new unitary matrix."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import numpy as np

from ._array import (
    Array,
    Namespace,
    astype,
    core_dtype,
    is_numpy,
    is_recorded_by_torch,
    is_torch,
    numpy_view,
    real_dtype,
    thin_dtype,
    validate,
)
from ._kernels import UPDATES
from ._linalg import (
    RNG,
    Key,
    check_rng,
    hstack,
    is_column_major,
    key_of,
    promoted,
    pull_back,
    rotate_rows,
    scaled_columns,
    whole_descent,
    whole_step,
    whole_transport,
)
from .rotation.core import CORES
from .rotation.polar import polar_rotation
from .rotation.transport import TRANSPORTS, transport_rotation
from .sketch.samples import Samples
from .sketch.svd import METHODS, svd_sketch
from .tangent.sketch import Tangent, compress_tangent, samples_for, sketch_tangent
from .types import BodyFactors, LowRankFactors, LowRankRotation, composed
from .unitary.heal import healing_rotation, orthonormal_probes

SKETCHES = ("tangent", *METHODS)

_NO_KEY = Key(0, 0)


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
    update, core : as for :func:`transport_rotation`
    heal, rng, overwrite_unitary : as for :func:`unitary_step`

    Returns
    -------
    array, shape (…, n, n)
        U exp(skew(Uᴴ left rightᴴ)), with the dtype of U.

    Notes
    -----
    10kn² operations (real) and O(nk² + k³) for the core. Where c = Uᴴ left is known,
    ``rotate(U, transport_rotation(BodyFactors(c, right)))`` saves one read of U. A real step cannot change
    det U. A column-major U may be moved from its other side, exp(skew(left rightᴴUᴴ)) U: the same for unitary
    U, else different by the defect of U times the step.

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
    return _step_of_factors(unitary, left, right, _How(update, core, heal, rng, overwrite_unitary))


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
    unitary, left, right : as for :func:`unitary_transport`
    core : as for :func:`polar_rotation`
    heal, rng, overwrite_unitary : as for :func:`unitary_step`

    Returns
    -------
    array, shape (…, n, n)
        U polar(I + Uᴴ left rightᴴ), with the dtype of U.

    Notes
    -----
    For unitary U this is the polar factor of U + left rightᴴ; a defect of U stays as it is. Cost, and
    column-major U, as for :func:`unitary_transport`.

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
    return _step_of_factors(unitary, left, right, _How("polar", core, heal, rng, overwrite_unitary))


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
        G, the direction of steepest ascent of a real loss under Re tr(XᴴY): torch's ``.grad`` as it is, the
        complex conjugate of what ``jax.grad`` returns for complex input. LowRankFactors stand for G,
        BodyFactors for UᴴG, which saves reads of U.
    step_size : float or real array broadcasting against the batch
        η; positive descends.
    rank : int
        k, from 1 to n.
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
    array, shape (…, n, n)
        The new unitary matrix, with the dtype of U.

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
        plain = validate.plain_descent(unitary, gradient, step_size, rank, heal)
        if plain is not None:
            rng = key_of(rng, unitary)
            xp, *views = plain
            moved = _descended(xp, unitary, views, step_size, rank, rng, heal, update, overwrite_unitary)
            if moved is not None:
                return moved
    heal = validate.count("heal", heal)
    tangent = Tangent.of(unitary, gradient, of_unitary=True)
    xp, n = tangent.xp, tangent.gradient.columns
    k = validate.rank(rank, n)
    batch = np.broadcast_shapes(tuple(unitary.shape[:-2]), tangent.batch)
    # In the precision of the core: it may be large where its product with the gradient is not.
    wide = real_dtype(xp, core_dtype(xp, unitary.dtype))
    eta = validate.real_scalar(xp, "step_size", step_size, unitary, batch=batch, dtype=wide)
    if overwrite_unitary:
        validate.overwritable("unitary", "overwrite_unitary", unitary, batch)
    key = key_of(rng, unitary)
    thin = isinstance(gradient, LowRankFactors | BodyFactors)
    if sketch == "tangent" and not thin:
        # The step size, too: what is recorded has no view.
        *views, sizes = (
            numpy_view(x) if is_numpy(xp) or is_torch(xp) else None for x in (unitary, gradient, eta)
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
        test = Samples.of(tangent.operator, "uniform", k, key, rows=n).right(samples_for(n, k))
        planes, image = sketch_tangent(tangent, k, test, probes=Z)
        return _moved(unitary, planes.rotation(eta, update), Z, image, overwrite_unitary)
    if isinstance(gradient, BodyFactors):
        kept = compress_tangent(gradient, k, rng=key) if sketch == "tangent" else gradient
        body = _scaled(xp, -eta, BodyFactors(*(_in_core(xp, x) for x in kept)))
        image = None if Z is None else pull_back(xp, unitary, Z[..., :0], Z)[1]
    else:
        body, image = _pulled_back(xp, unitary, gradient.left, gradient.right, Z)
        body = _scaled(xp, -eta, body)
    if sketch == "tangent" and update == "polar":
        # C Qᴴ has a Hermitian part, which the polar factor would keep: pass skew(C Qᴴ) itself.
        body = _skew_factors(xp, *body)
    return _moved(unitary, _rotation(body, update, "auto"), Z, image, overwrite_unitary)


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
    samples = samples_for(unitary.shape[-1], k)
    if heal > samples:
        return None
    if overwrite:
        validate.overwritable("unitary", "overwrite_unitary", unitary, tuple(unitary.shape[:-2]))
    return whole_descent(
        xp, unitary, (views[0], views[1]), eta, key, (samples, heal, k), update, overwrite=overwrite
    )


def _in_core(xp: Namespace, x: Array) -> Array:
    return astype(xp, x, core_dtype(xp, x.dtype))


def _scaled(xp: Namespace, factor: Array, body: BodyFactors) -> BodyFactors:
    return BodyFactors(promoted(xp, factor, body.left) * body.left, body.right)


def _skew_factors(xp: Namespace, C: Array, Q: Array) -> BodyFactors:
    return BodyFactors(hstack(xp, 0.5 * C, -0.5 * Q), hstack(xp, Q, C))


class _How(NamedTuple):
    """The options of a step from factors."""

    update: str
    core: str
    heal: int
    rng: RNG
    overwrite: bool


def _step_of_factors(unitary: Array, left: Array, right: Array, how: _How) -> Array:
    """Move U by left rightᴴ, after all checks: by the kernels, or stage by stage."""
    update, core, heal, rng, overwrite = how
    validate.choice("core", core, CORES)
    heal = validate.count("heal", heal)
    validate.flag("overwrite_unitary", overwrite)
    xp = validate.NUMPY
    batch: tuple[int, ...] = ()
    # The checks take a large share of a small step: a short test for the common case.
    if (k := validate.plain_rank(unitary, left, right)) is None:
        xp = validate.namespace_of(unitary=unitary, left=left, right=right)
        k = validate.factor_pair("left", left, "right", right, validate.square("unitary", unitary))
        batch = validate.batches(unitary=unitary, left=left, right=right)
        validate.same_dtype(xp, "unitary", unitary, left=left, right=right)
    if overwrite:
        validate.overwritable("unitary", "overwrite_unitary", unitary, batch)
    if is_column_major(xp, unitary, 2 * k):
        # The same step of the transposed matrix: for unitary U, U exp(skew(Uᴴ a bᴴ)) = exp(skew(a (Ub)ᴴ)) U.
        moved = _step_of_factors(unitary.mT, xp.conj(right), xp.conj(left), how)
        return unitary if overwrite else moved.mT
    plain = core != "auto" or heal or overwrite or xp is validate.NUMPY
    if not plain and is_recorded_by_torch(unitary, left, right):
        # The same step with the derivative in closed form, finite also where that of the products is not.
        operators = importlib.import_module(".torch.operators", __package__)
        return operators.moved(unitary, left, right, update, core)
    if heal:
        validate.probes("heal", heal, unitary.shape[-1], least=0)
        rng = key_of(rng, unitary)
    else:
        check_rng(rng, unitary)
    if core == "auto" and update != "polar":
        key = rng if heal else _NO_KEY
        moved = whole_transport(xp, unitary, left, right, key, heal, update, overwrite=overwrite)
        if moved is not None:
            return moved
    Z = orthonormal_probes(xp, unitary, heal, rng) if heal else None
    if core == "auto":
        moved = whole_step(xp, unitary, left, right, Z, update, overwrite=overwrite)
        if moved is not None:
            return moved
    body, image = _pulled_back(xp, unitary, left, right, Z)
    return _moved(unitary, _rotation(body, update, core), Z, image, overwrite)


def _rotation(body: BodyFactors, update: str, core: str) -> LowRankRotation:
    if update == "polar":
        return polar_rotation(body, core=core)
    return transport_rotation(body, update=update, core=core)


def _pulled_back(
    xp: Namespace, unitary: Array, left: Array, right: Array, Z: Array | None
) -> tuple[BodyFactors, Array | None]:
    """Body factors in the precision of the core, and Uᴴ(U Z), from one read of U by Uᴴ."""
    thin, working = thin_dtype(xp, unitary.dtype), core_dtype(xp, unitary.dtype)
    left, scale = scaled_columns(xp, astype(xp, left, thin))
    pulled, image = pull_back(xp, unitary, left, Z)
    pulled = _in_core(xp, pulled)
    left = pulled * promoted(xp, astype(xp, scale, real_dtype(xp, working)), pulled)
    return BodyFactors(left, astype(xp, astype(xp, right, thin), working)), image


def _moved(
    unitary: Array, rotation: LowRankRotation, Z: Array | None, image: Array | None, overwrite: bool
) -> Array:
    """U times the healing along the probes Z and the rotation, in one read and one write of U."""
    xp = validate.namespace_of(unitary=unitary)
    dtype = thin_dtype(xp, unitary.dtype)
    rotation = LowRankRotation(*(astype(xp, x, dtype) for x in rotation))
    if Z is not None:
        rotation = composed(xp, healing_rotation(xp, Z, image), rotation)
    return rotate_rows(xp, unitary, *rotation, overwrite=overwrite)
