"""Steps from thin factors: transport and polar projection."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from .._array import (
    Array,
    Namespace,
    has_divided_stack,
    is_recorded_by_torch,
    is_writeable,
    own_matrices,
    spread_as,
    validate,
)
from .._linalg import (
    RNG,
    Key,
    check_rng,
    is_column_major,
    key_of,
    key_of_part,
    whole_step,
    whole_transport,
)
from ..rotation.core import CORES
from ..rotation.transport import TRANSPORTS
from ..types import checked_step, transposed_step
from ..unitary.heal import orthonormal_probes
from .rectangular import moved_in_frame, products_of
from .stages import moved_by, pulled_back, rotation_of

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
    unitary : array, shape (…, m, n)
        U, unitary or orthogonal, m = n; or with orthonormal columns, m > n, or rows.
    left, right : array, shape (…, m, k) and (…, n, k)
        The step left @ rightᴴ in the ambient frame, sign and step size included: to descend along a
        gradient a bᴴ by a step of size η, left = −ηa and right = b.
    update, core : as for :func:`transport_rotation`
    heal, rng, overwrite_unitary : as for :func:`unitary_step`

    Returns
    -------
    array, shape (…, m, n)
        U exp(skew(Uᴴ left rightᴴ)), with the dtype of U. For m > n exp(skew((2 left − UUᴴ left) rightᴴUᴴ)) U,
        the geodesic of the canonical metric along the projection of left rightᴴ to the tangents.

    Notes
    -----
    10kn² operations (real) and O(nk² + k³) for the core; 16kmn for rectangular U. Where c = Uᴴ left is known,
    ``rotate(U, transport_rotation(BodyFactors(c, right)))`` saves one read of U. A real step cannot change
    det U. A column-major U may be moved from its other side, exp(skew(left rightᴴUᴴ)) U: the same for unitary
    U, else different by the defect of U times the step.

    References
    ----------
    Bobak Kiani, Randall Balestriero, Yann LeCun, Seth Lloyd, "projUNN", NeurIPS 2022, projUNN-T. Orthonormal
    columns: Alan Edelman, Tomás Arias, Steven Smith, "The geometry of algorithms with orthogonality
    constraints", SIAM J. Matrix Anal. Appl. 20 (1998).

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
    array, shape (…, m, n)
        U polar(I + Uᴴ left rightᴴ), with the dtype of U. For m ≠ n the matrix with orthonormal columns or
        rows that is nearest to U + left rightᴴ.

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
        if has_divided_stack(unitary):
            of_part = how._replace(rng=key_of_part(rng, unitary)) if heal else how
            own, left, right = (own_matrices(x, unitary) for x in (unitary, left, right))
            moved = _step_of_factors(own, left, right, of_part)
            return spread_as(moved, unitary, written=overwrite)
        m, n = checked_step(xp, unitary, left, right)
        k = int(left.shape[-1])
        batch = validate.batches(unitary=unitary, left=left, right=right)
        if m != n:
            if overwrite:
                validate.overwritable("unitary", "overwrite_unitary", unitary, batch)
            if m < n:
                moved = _step_of_factors(*transposed_step(xp, unitary, left, right), how)
                return unitary if overwrite and is_writeable(unitary) else moved.mT
            return _rectangular_step(xp, unitary, left, right, how)
    if overwrite:
        validate.overwritable("unitary", "overwrite_unitary", unitary, batch)
    if is_column_major(xp, unitary, 2 * k):
        # The same step of the transposed matrix: for unitary U, U exp(skew(Uᴴ a bᴴ)) = exp(skew(a (Ub)ᴴ)) U.
        moved = _step_of_factors(unitary.mT, xp.conj(right), xp.conj(left), how)
        return unitary if overwrite else moved.mT
    plain = core != "auto" or heal or overwrite or xp is validate.NUMPY
    if not plain and is_recorded_by_torch(unitary, left, right):
        # The same step with the derivative in closed form, finite also where that of the products is not.
        operators = importlib.import_module("..torch.operators", __package__)
        return operators.moved(unitary, left, right, update, core)
    if heal:
        validate.probes("heal", heal, unitary.shape[-1], least=0)
        rng = key_of(rng, unitary)
    else:
        check_rng(rng, unitary)
    if core == "auto":
        key = rng if heal else _NO_KEY
        moved = whole_transport(xp, unitary, left, right, key, heal, update, overwrite=overwrite)
        if moved is not None:
            return moved
    Z = orthonormal_probes(xp, unitary, heal, rng) if heal else None
    if core == "auto":
        moved = whole_step(xp, unitary, left, right, Z, update, overwrite=overwrite)
        if moved is not None:
            return moved
    body, image = pulled_back(xp, unitary, left, right, Z)
    return moved_by(unitary, rotation_of(body, update, core), Z, image, overwrite)


def _rectangular_step(xp: Namespace, unitary: Array, left: Array, right: Array, how: _How) -> Array:
    """Move a tall U by left rightᴴ, after the checks of its probes."""
    heal = how.heal
    if heal:
        validate.probes("heal", heal, unitary.shape[-1], least=0)
    else:
        check_rng(how.rng, unitary)
    Z = orthonormal_probes(xp, unitary, heal, how.rng) if heal else None
    step, image = products_of(xp, unitary, left, right, Z)
    return moved_in_frame(xp, unitary, step, Z, image, (how.update, how.core, how.overwrite))
