"""The stages between thin factors and the new matrix, for square and tall U."""

from __future__ import annotations

from .._array import Array, Namespace, astype, core_dtype, real_dtype, thin_dtype, validate
from .._linalg import (
    along_columns,
    into_frame,
    promoted,
    pull_back,
    rotate_in_frame,
    rotate_rows,
    scaled_columns,
    stacked,
)
from ..rotation.polar import polar_rotation
from ..rotation.transport import transport_rotation
from ..types import BodyFactors, LowRankRotation, composed
from ..unitary.heal import healing_rotation


def pulled_back(
    xp: Namespace, unitary: Array, left: Array, right: Array, Z: Array | None
) -> tuple[BodyFactors, Array | None]:
    """Body factors in the precision of the core, and Uᴴ(U Z), from one read of U by Uᴴ; of a tall U four."""
    thin, working = thin_dtype(xp, unitary.dtype), core_dtype(xp, unitary.dtype)
    left, scale = scaled_columns(xp, astype(xp, left, thin))
    right = astype(xp, astype(xp, right, thin), working)
    if validate.is_tall(unitary):
        x, y, image = into_frame(xp, unitary, left, Z)
        pulled, right = stacked(xp, x, y), along_columns(xp, right, int(unitary.shape[-2]))
    else:
        pulled, image = pull_back(xp, unitary, left, Z)
    pulled = in_core(xp, pulled)
    left = pulled * promoted(xp, astype(xp, scale, real_dtype(xp, working)), pulled)
    return BodyFactors(left, right), image


def tangent_of(xp: Namespace, body: BodyFactors, n: int) -> BodyFactors:
    """Factors whose skew part is the tangent of a step, from those of the step in the frame of a tall U."""
    c = body.left
    return BodyFactors(stacked(xp, c[..., :n, :], 2.0 * c[..., n:, :]), body.right)


def rotation_of(body: BodyFactors, update: str, core: str) -> LowRankRotation:
    """The rotation of body factors by one of the updates."""
    if update == "polar":
        return polar_rotation(body, core=core)
    return transport_rotation(body, update=update, core=core)


def moved_by(
    unitary: Array, rotation: LowRankRotation, Z: Array | None, image: Array | None, overwrite: bool
) -> Array:
    """U times the healing along the probes Z and the rotation, in one read and one write of U."""
    xp = validate.namespace_of(unitary=unitary)
    dtype = thin_dtype(xp, unitary.dtype)
    rotation = LowRankRotation(*(astype(xp, x, dtype) for x in rotation))
    tall = validate.is_tall(unitary)
    if Z is not None:
        healing = healing_rotation(xp, Z, image)
        if tall:
            healing = LowRankRotation(*(along_columns(xp, x, int(unitary.shape[-2])) for x in healing))
        rotation = composed(xp, healing, rotation)
    return (rotate_in_frame if tall else rotate_rows)(xp, unitary, *rotation, overwrite=overwrite)


def in_core(xp: Namespace, x: Array) -> Array:
    """A thin block in the precision of the core."""
    return astype(xp, x, core_dtype(xp, x.dtype))
