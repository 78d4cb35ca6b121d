"""Which frequencies of a real filter are independent, and where they stand in rfftn's half spectrum."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from .._array import Array, Namespace, is_compiling, is_cupy, is_torch, placement, validate


class HalfSpectrum(NamedTuple):
    """Places in the flat half spectrum of a real signal, arrays of whole numbers.

    Of every conjugate pair at least one frequency stands in the half spectrum, so that a representative can
    be read without conjugation. Both stand there only in the planes 0 and N/2 of the last axis.
    """

    # Of the R frequencies that are their own mirror image, and of one of each of the P pairs.
    real: Array
    complex: Array
    # The numbers of the pairs whose mirror images stand there, too, and the places of these.
    of_pair: Array
    mirrored: Array
    # Every place of the half spectrum, as one among [real, complex, mirrored].
    source: Array


def counts(torus: tuple[int, ...]) -> tuple[int, int]:
    """R and P: frequencies of a real filter that are their own mirror image, and pairs of others."""
    own = 2 ** sum(size % 2 == 0 for size in torus)
    return own, (math.prod(torus) - own) // 2


def half_spectrum(xp: Namespace, torus: tuple[int, ...], like: Array) -> HalfSpectrum:
    """The places of the independent frequencies, in numpy or on the GPU of an array."""
    if not (is_torch(xp) or is_cupy(xp)):
        return _kept(validate.NUMPY, torus, None)
    # What is made in a trace belongs to it.
    return (_made if is_compiling(like) else _kept)(xp, torus, placement(like))


def _made(xp: Namespace, torus: tuple[int, ...], device: Any) -> HalfSpectrum:
    """By arithmetic where they are to be used: a copy from the host would wait for the device."""
    half = (*torus[:-1], torus[-1] // 2 + 1)
    place = xp.arange(math.prod(half), device=device)
    image, stride = 0 * place, 1
    last = 0 * place
    for axis, size in reversed(list(enumerate(torus))):
        mirror = -((place // stride) % half[axis]) % size
        last = mirror if axis == len(torus) - 1 else last
        image = image + stride * mirror
        stride *= half[axis]
    inside = last < half[-1]
    own, first = inside & (image == place), ~inside | (image > place)
    kind = xp.where(own, 0, xp.where(first, 1, 2))
    order, (R, P) = xp.argsort(kind, stable=True), counts(torus)
    number = xp.argsort(order, stable=True)
    mirrored = order[R + P :]
    of_pair = xp.take(number, xp.take(image, mirrored, axis=0), axis=0) - R
    return HalfSpectrum(order[:R], order[R : R + P], of_pair, mirrored, number)


# Kept, as they are needed at every call.
_kept = functools.lru_cache(maxsize=256)(_made)


def checked_torus(torus: Any) -> tuple[int, ...]:
    """The argument as a tuple, or an error."""
    sizes = validate.sizes("torus", torus)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"torus must hold the size of every axis of a signal, 1 or more, got {sizes}.")
    return sizes


def independent_frequencies(
    torus: tuple[int, ...], /, *, xp: Namespace = np, device: Any = None
) -> tuple[Array, Array]:
    """The frequencies that the matrices of the :class:`Spectrum` of a real filter belong to.

    Parameters
    ----------
    torus : tuple of int
        N₁, …, N_d.
    xp, device : as for :func:`random_unitary`

    Returns
    -------
    array of int, shape (R, d)
        Those that are their own mirror image, every component 0 or N_i/2.
    array of int, shape (P, d)
        One of each pair (f, −f) of the others: 2P + R is the product of all N_i.

    Examples
    --------
    >>> import lowrank_unitary as lu
    >>> real, pairs = lu.independent_frequencies((4, 2))
    >>> real.tolist()
    [[0, 0], [0, 1], [2, 0], [2, 1]]
    >>> pairs.tolist()
    [[1, 0], [1, 1]]
    """
    sizes = checked_torus(torus)
    space = validate.namespace_of(xp=validate.prototype(xp, None, device))
    half, found = (*sizes[:-1], sizes[-1] // 2 + 1), _made(space, sizes, device)
    strides = [math.prod(half[axis + 1 :]) for axis in range(len(half))]
    real, pairs = (
        space.stack([(x // stride) % size for stride, size in zip(strides, half, strict=True)], axis=-1)
        for x in (found.real, found.complex)
    )
    return real, pairs
