"""A rectangular U with orthonormal columns in a frame of its own, in which a step is square.

U is m×n, n ≤ m. A vector of the frame [U, I − UUᴴ] has n + m entries, x and below it y, orthogonal to the
columns of U: it stands for U x + y and has its length. A rotation I + L Rᴴ of the frame takes U to
U + (U L₁ + L₂) R₁ᴴ, with L₁ and R₁ the upper n rows and L₂ the lower m. A wide U is used as its transpose.
"""

from __future__ import annotations

from .._array import Array, Namespace
from .layout import replicated
from .traversals import gram_product, product, pull_back, rotate_rows


def into_frame(
    xp: Namespace, unitary: Array, thin: Array, probes: Array | None = None
) -> tuple[Array, Array, Array | None]:
    """The parts of thin = U x + y, and Uᴴ(U probes) from the first read of U.

    With c = Uᴴ thin, x = c would leave y orthogonal to U to its defect only, which a step would enlarge;
    x = 2c − UᴴUc leaves it so to the square of the defect.
    """
    c, image = pull_back(xp, unitary, thin, probes)
    x = 2.0 * c - gram_product(xp, unitary, c)
    return x, thin - product(xp, unitary, x), image


def stacked(xp: Namespace, x: Array, y: Array) -> Array:
    """Vectors of the frame."""
    return xp.concat(replicated(xp, x, y), axis=-2)


def along_columns(xp: Namespace, x: Array, rows: int) -> Array:
    """Vectors of the frame for the combinations U x, U of so many rows."""
    nothing = xp.zeros_like(x[..., :1, :])
    return stacked(xp, x, xp.broadcast_to(nothing, (*x.shape[:-2], rows, x.shape[-1])))


def rotate_in_frame(
    xp: Namespace, unitary: Array, left: Array, right: Array, *, overwrite: bool = False
) -> Array:
    """U + (U L₁ + L₂) R₁ᴴ, one read and one write."""
    n = unitary.shape[-1]
    left, right = replicated(xp, left, right)
    upper, lower = left[..., :n, :], left[..., n:, :]
    return rotate_rows(xp, unitary, upper, right[..., :n, :], outside=lower, overwrite=overwrite)
