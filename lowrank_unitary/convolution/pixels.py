"""Blocks of pixels as channels: how an isometry takes strides."""

from __future__ import annotations

import math
from typing import Any

from .._array import Array, validate


def pixel_unshuffle(signal: Array, stride: tuple[int, ...], /) -> Array:
    """Move the pixels of every block into channels: an isometry to a coarser torus.

    Parameters
    ----------
    signal : array, shape (…, C, N₁, …, N_d)
    stride : tuple of int
        s₁, …, s_d, divisors of the sizes of the torus.

    Returns
    -------
    array, shape (…, C·s₁⋯s_d, N₁/s₁, …, N_d/s_d)
        Channel (c, r₁, …, r_d), the last index running fastest, holds the pixels r of all blocks, as in
        torch's ``pixel_unshuffle``. A convolution of the result is one of `signal` with that stride.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> lu.pixel_unshuffle(np.arange(6.0)[None], (2,))
    array([[0., 2., 4.],
           [1., 3., 5.]])
    """
    xp = validate.namespace_of(signal=signal)
    steps = checked_stride(stride)
    d = len(steps)
    *leading, channels = _leading("signal", signal, d)
    sizes = tuple(int(size) for size in signal.shape[-d:])
    if any(size % step for size, step in zip(sizes, steps, strict=True)):
        raise ValueError(f"stride must divide the sizes {sizes} of the torus of signal, got {steps}.")
    coarse = [size // step for size, step in zip(sizes, steps, strict=True)]
    first = len(leading) + 1
    split = [part for pair in zip(coarse, steps, strict=True) for part in pair]
    order = [*range(first), *range(first + 1, first + 2 * d, 2), *range(first, first + 2 * d, 2)]
    blocks = xp.permute_dims(xp.reshape(signal, (*leading, channels, *split)), tuple(order))
    return xp.reshape(blocks, (*leading, channels * math.prod(steps), *coarse))


def pixel_shuffle(signal: Array, stride: tuple[int, ...], /) -> Array:
    """The inverse of :func:`pixel_unshuffle`: channels back into pixels.

    Parameters
    ----------
    signal : array, shape (…, C·s₁⋯s_d, M₁, …, M_d)
    stride : tuple of int
        s₁, …, s_d.

    Returns
    -------
    array, shape (…, C, s₁M₁, …, s_dM_d)

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> signal = np.arange(24.0).reshape(2, 3, 4)
    >>> np.array_equal(lu.pixel_shuffle(lu.pixel_unshuffle(signal, (3, 2)), (3, 2)), signal)
    True
    """
    xp = validate.namespace_of(signal=signal)
    steps = checked_stride(stride)
    d = len(steps)
    *leading, channels = _leading("signal", signal, d)
    if channels % math.prod(steps):
        raise ValueError(
            f"signal must have a multiple of {math.prod(steps)} channels on axis {-d - 1} for the stride "
            f"{steps}, got {channels}."
        )
    coarse = [int(size) for size in signal.shape[-d:]]
    split = (*leading, channels // math.prod(steps), *steps, *coarse)
    first = len(leading) + 1
    order = [*range(first), *(first + i + j for i in range(d) for j in (d, 0))]
    fine = [size * step for size, step in zip(coarse, steps, strict=True)]
    blocks = xp.permute_dims(xp.reshape(signal, split), tuple(order))
    return xp.reshape(blocks, (*leading, channels // math.prod(steps), *fine))


def checked_stride(stride: Any) -> tuple[int, ...]:
    """The argument as a tuple, or an error."""
    steps = validate.sizes("stride", stride)
    if not steps or min(steps) < 1:
        raise ValueError(f"stride must hold a number of 1 or more for every axis of the torus, got {steps}.")
    return steps


def _leading(name: str, signal: Array, d: int) -> list[int]:
    if signal.ndim < d + 1 or 0 in signal.shape[-d - 1 :]:
        raise ValueError(
            f"{name} must have an axis of channels and {d} axes of the torus, of sizes from 1 on, got "
            f"{tuple(signal.shape)}: the stride has a number for each of the latter."
        )
    return [int(size) for size in signal.shape[:-d]]
