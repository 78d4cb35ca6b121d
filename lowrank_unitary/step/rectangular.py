"""Steps of a tall U from thin factors, in its frame (_linalg/frame.py)."""

from __future__ import annotations

from .._array import Array, Namespace, astype, core_dtype, real_dtype, thin_dtype
from .._linalg import (
    along_columns,
    gram_product,
    product,
    promoted,
    pull_back,
    scaled_columns,
    stacked,
)
from ..rotation.frame import FrameStep, gram_rotation_in_frame
from ..rotation.polar import polar_isometry
from ..types import BodyFactors
from .stages import in_core, moved_by, rotation_of


def products_of(
    xp: Namespace, unitary: Array, left: Array, right: Array, Z: Array | None
) -> tuple[FrameStep, Array | None]:
    """What a step needs of U before its core, and Uᴴ(U Z): two reads."""
    thin, working = thin_dtype(xp, unitary.dtype), core_dtype(xp, unitary.dtype)
    left, scale = scaled_columns(xp, astype(xp, left, thin))
    c, image = pull_back(xp, unitary, left, Z)
    blocks = [in_core(xp, x) for x in (left, c, gram_product(xp, unitary, c))]
    scale = promoted(xp, astype(xp, scale, real_dtype(xp, working)), blocks[0])
    a, c, s = (block * scale for block in blocks)
    return FrameStep(a, c, s, astype(xp, astype(xp, right, thin), working)), image


def moved_in_frame(
    xp: Namespace,
    unitary: Array,
    step: FrameStep,
    Z: Array | None,
    image: Array | None,
    how: tuple[str, str, bool],
) -> Array:
    """U moved by the step; `how` is the update, the core, and whether U is overwritten."""
    update, core, overwrite = how
    if made := gram_rotation_in_frame(xp, step, update, core):
        rotation, less = made
        return moved_by(unitary, rotation, Z, image, overwrite, less)
    # What leaves the range of U, by one read more.
    x = 2.0 * step.c - step.s
    thin, scale = scaled_columns(xp, astype(xp, x, thin_dtype(xp, unitary.dtype)))
    inside = in_core(xp, product(xp, unitary, thin))
    y = step.a - inside * promoted(xp, astype(xp, scale, real_dtype(xp, inside.dtype)), inside)
    b = along_columns(xp, step.b, int(unitary.shape[-2]))
    if update == "polar":
        rotation = polar_isometry(xp, BodyFactors(stacked(xp, x, y), b), int(unitary.shape[-1]))
    else:
        # Transport is that of a square matrix.
        rotation = rotation_of(BodyFactors(stacked(xp, x, 2.0 * y), b), update, core)
    return moved_by(unitary, rotation, Z, image, overwrite)
