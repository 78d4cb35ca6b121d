"""Healing: remove the unitarity defect along random directions, at O(pn²)."""

from __future__ import annotations

from .._array import Array, Namespace, has_divided_stack, is_complex, local_part, spread_as, validate
from .._linalg import (
    PROBES,
    RNG,
    adjoint_product,
    gram_product,
    hstack,
    key_of_part,
    promoted,
    qr,
    random_block,
    rotate_rows,
    thin_product,
)
from ..types import LowRankRotation


def heal_unitary(unitary: Array, probes: int, /, *, rng: RNG = None) -> Array:
    """Shrink the unitarity defect at O(pn²): remove it along p random directions.

    Parameters
    ----------
    unitary : array, shape (…, m, n)
        U, nearly unitary, or with nearly orthonormal columns or rows.
    probes : int
        p, from 1 to n, the smaller side: the defect's Frobenius norm contracts by about 1 − p/n.
    rng
        As for :func:`svd_sketch`; every call needs new directions.

    Returns
    -------
    array, shape (…, m, n)
        The healed matrix, with the dtype of U.

    Notes
    -----
    With orthonormal probes Z, D = Uᴴ(UZ) − Z and S = ZᴴD, the result is U(I − ½[Z(D − ZS)ᴴ + DZᴴ]), the
    bracket divided by √(1 + ‖D‖²): to first order it removes all of the defect that touches range(Z). The
    floor is rounding, about eps·√n, or 0.3·eps·n/√2 with one step for every call. U is read twice and written
    once; within a step (``heal=`` of :func:`unitary_step`) there is no further read. :func:`reunitarize`
    removes a large defect at once.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> U = lu.random_unitary(16, rng=0) * (1 + 1e-6)
    >>> for step in range(400):
    ...     U = lu.heal_unitary(U, 2, rng=step)
    >>> bool(lu.unitarity_defect(U) < 1e-13)
    True
    """
    xp = validate.namespace_of(unitary=unitary)
    validate.matrix("unitary", unitary)
    if has_divided_stack(unitary):
        part = heal_unitary(local_part(unitary), probes, rng=key_of_part(rng, unitary))
        return spread_as(part, unitary)
    if validate.is_wide(unitary):
        return heal_unitary(unitary.mT, probes, rng=rng).mT
    validate.probes("probes", validate.count("probes", probes), unitary.shape[-1], least=1)
    Z = orthonormal_probes(xp, unitary, probes, rng)
    healing = healing_rotation(xp, Z, gram_product(xp, unitary, Z))
    return rotate_rows(xp, unitary, healing.left, healing.right)


def orthonormal_probes(xp: Namespace, unitary: Array, probes: int, rng: RNG) -> Array:
    """Z: random orthonormal columns."""
    # Uniform numbers: normal ones would take a twentieth of a small step.
    shape = (*unitary.shape[:-2], unitary.shape[-1], probes)
    Z = random_block(xp, shape, unitary, rng, PROBES, "uniform")
    # A QR would take a fifth of the time of a small step.
    return Z / promoted(xp, xp.linalg.matrix_norm(Z, keepdims=True), Z) if probes == 1 else qr(xp, Z)[0]


def healing_rotation(xp: Namespace, Z: Array, image: Array) -> LowRankRotation:
    """The thin right factor of heal_unitary, from Z and Uᴴ(UZ); unitary only as far as U is.

    The division by √(1 + ‖D‖²) changes nothing to second order and bounds the correction, so that a large
    defect shrinks too.
    """
    D = image - Z
    S = adjoint_product(xp, Z, D)
    # A norm has no derivative at D = 0.
    squares = xp.real(D * xp.conj(D)) if is_complex(xp, D.dtype) else D * D
    shortened = promoted(xp, -0.5 / xp.sqrt(1.0 + xp.sum(squares, axis=(-2, -1), keepdims=True)), D)
    return LowRankRotation(hstack(xp, Z, D), shortened * hstack(xp, D - thin_product(xp, Z, S), Z))
