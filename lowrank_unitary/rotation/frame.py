"""Rotations of the frame of a tall U by the Gram core, from products with U alone.

A step abᴴ has a = U x + y with y orthogonal to U. With c = Uᴴa, s = UᴴU c, e = s − c and x = c − e, the Gram
matrix of [b, x] and of y is known without y: yᴴy = aᴴa − cᴴx − xᴴc + xᴴ(x + e) − eᴴe, to the third power of
the defect of U. And U x + y is a itself, so that y = a − U x is not needed to move U either.
"""

from __future__ import annotations

from typing import NamedTuple

from .._array import Array, Namespace
from .._linalg import adjoint, adjoint_product, along_columns, broadcast, hstack, product, stacked
from ..types import LowRankRotation
from .core import balance, choose_core, unless_wrong
from .polar import gram_parts
from .transport import gram_middle


class FrameStep(NamedTuple):
    """A step of a tall U from thin products, in the precision of the core: a, c = Uᴴa, s = UᴴU c, and b."""

    a: Array
    c: Array
    s: Array
    b: Array


def gram_rotation_in_frame(
    xp: Namespace, step: FrameStep, update: str, core: str
) -> tuple[LowRankRotation, Array] | None:
    """A rotation of the frame by the Gram core, and what to take off its upper left rows; else None.

    The lower left rows are combinations of a in place of y: the second result is U's part of them.
    """
    a, c, s, b = broadcast(xp, *step)
    (m, k), n = a.shape[-2:], c.shape[-2]
    both, b, _ = balance(xp, stacked(xp, stacked(xp, a, c), s), b)
    a, c, s = both[..., :m, :], both[..., m : m + n, :], both[..., m + n :, :]
    e = s - c
    x = c - e
    cx = adjoint_product(xp, c, x)
    yy = adjoint_product(xp, a, a) - cx - adjoint(xp, cx) + adjoint_product(xp, x, x + e)
    yy = yy - adjoint_product(xp, e, e)
    W = hstack(xp, b, x)
    K = adjoint_product(xp, W, W)
    # The tangent has y twice.
    outside = 0.5 * (yy + adjoint(xp, yy)) * (1.0 if update == "polar" else 4.0)
    lower = xp.concat([K[..., k:, :k], K[..., k:, k:] + outside], axis=-1)
    whole = xp.concat([K[..., :k, :], lower], axis=-2)
    small = False
    if core == "auto":
        core, small = choose_core(xp, whole, n)
    if core != "gram":
        return None
    if update == "polar":
        Y, of_y = gram_parts(xp, K, whole[..., k:, k:], small)
        M = xp.concat([Y[..., :k, :], Y[..., k:, :] + of_y], axis=-2)
        M = M if small else unless_wrong(xp, M, K, adjoint(xp, of_y) @ outside @ of_y)
    else:
        M = gram_middle(xp, whole, small, update)
        M = M if small else unless_wrong(xp, M, whole)
        of_y = 2.0 * M[..., k:, :]
    rotation = LowRankRotation(stacked(xp, product(xp, W, M), product(xp, a, of_y)), along_columns(xp, W, m))
    return rotation, product(xp, x, of_y)
