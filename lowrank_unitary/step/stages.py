"""The stages between thin factors and the new matrix, for square and tall U."""

from __future__ import annotations

from .._array import Array, Namespace, astype, core_dtype, real_dtype, thin_dtype, validate
from .._linalg import (
    along_columns,
    hstack,
    promoted,
    pull_back,
    rotate_in_frame,
    rotate_rows,
    scaled_columns,
)
from ..rotation.polar import polar_rotation
from ..rotation.transport import transport_rotation
from ..types import BodyFactors, LowRankRotation, composed
from ..unitary.heal import healing_rotation


def pulled_back(
    xp: Namespace, unitary: Array, left: Array, right: Array, Z: Array | None
) -> tuple[BodyFactors, Array | None]:
    """Body factors in the precision of the core, and Uᴴ(U Z), from one read of U by Uᴴ."""
    thin, working = thin_dtype(xp, unitary.dtype), core_dtype(xp, unitary.dtype)
    left, scale = scaled_columns(xp, astype(xp, left, thin))
    pulled, image = pull_back(xp, unitary, left, Z)
    pulled = in_core(xp, pulled)
    left = pulled * promoted(xp, astype(xp, scale, real_dtype(xp, working)), pulled)
    return BodyFactors(left, astype(xp, astype(xp, right, thin), working)), image


def rotation_of(body: BodyFactors, update: str, core: str) -> LowRankRotation:
    """The rotation of body factors by one of the updates."""
    if update == "polar":
        return polar_rotation(body, core=core)
    return transport_rotation(body, update=update, core=core)


def moved_by(
    unitary: Array,
    rotation: LowRankRotation,
    Z: Array | None,
    image: Array | None,
    overwrite: bool,
    less: Array | None = None,
) -> Array:
    """U times the healing along the probes Z and the rotation, in one read and one write of U.

    For tall U, `less` is taken off the upper left rows of the rotation after the healing.
    """
    xp = validate.namespace_of(unitary=unitary)
    dtype = thin_dtype(xp, unitary.dtype)
    tall = validate.is_tall(unitary)
    rotation = healed(xp, unitary, rotation, Z, image)
    if less is not None:
        left, (n, width) = rotation.left, less.shape[-2:]
        nothing = xp.zeros_like(left[..., : left.shape[-1] - width])
        less = along_columns(xp, astype(xp, less, dtype), left.shape[-2] - n)
        rotation = LowRankRotation(left - hstack(xp, nothing, less), rotation.right)
    return (rotate_in_frame if tall else rotate_rows)(xp, unitary, *rotation, overwrite=overwrite)


def healed(
    xp: Namespace, unitary: Array, rotation: LowRankRotation, Z: Array | None, image: Array | None
) -> LowRankRotation:
    """The healing along the probes Z and then the rotation, in the dtype of the thin factors of U."""
    dtype = thin_dtype(xp, unitary.dtype)
    rotation = LowRankRotation(*(astype(xp, x, dtype) for x in rotation))
    if Z is None:
        return rotation
    healing = healing_rotation(xp, Z, image)
    if validate.is_tall(unitary):
        healing = LowRankRotation(*(along_columns(xp, x, int(unitary.shape[-2])) for x in healing))
    return composed(xp, healing, rotation)


def in_core(xp: Namespace, x: Array) -> Array:
    """A thin block in the precision of the core."""
    return astype(xp, x, core_dtype(xp, x.dtype))
