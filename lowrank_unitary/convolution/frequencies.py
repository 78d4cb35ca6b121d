"""Which frequencies of a real filter are independent, and where they stand in rfftn's half spectrum."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._array import Array, Namespace, is_compiling, is_cupy, is_torch, move, validate


@dataclass(frozen=True)
class HalfSpectrum:
    """Places in the flat half spectrum of a real signal, numpy arrays of whole numbers.

    Of every conjugate pair at least one frequency stands in the half spectrum, so that a representative can
    be read without conjugation. Both stand there only in the planes 0 and N/2 of the last axis.
    """

    # Of the R frequencies that are their own mirror image, and of one of each of the P pairs.
    real: np.ndarray[Any, Any]
    complex: np.ndarray[Any, Any]
    # Of the mirror images of some of these pairs, and the numbers of those pairs.
    mirrored: np.ndarray[Any, Any]
    of_pair: np.ndarray[Any, Any]
    # Every place of the half spectrum, as one among [real, complex, mirrored].
    source: np.ndarray[Any, Any]


@functools.lru_cache(maxsize=256)
def half_spectrum(torus: tuple[int, ...]) -> HalfSpectrum:
    """The places of the independent frequencies of real filters on a torus."""
    half = (*torus[:-1], torus[-1] // 2 + 1)
    places = np.arange(math.prod(half))
    frequency = np.stack(np.unravel_index(places, half))
    mirror = -frequency % np.array(torus)[:, None]
    inside = mirror[-1] < half[-1]
    image = np.where(inside, np.ravel_multi_index(mirror, half, mode="clip"), -1)
    real = places[image == places]
    complex_ = places[~inside | (image > places)]
    mirrored = places[inside & (image < places)]
    number = np.empty(len(places), dtype=np.int64)
    for first, some in ((0, real), (len(real), complex_), (len(real) + len(complex_), mirrored)):
        number[some] = first + np.arange(len(some))
    return HalfSpectrum(real, complex_, mirrored, number[image[mirrored]] - len(real), number)


def counts(torus: tuple[int, ...]) -> tuple[int, int]:
    """R and P: frequencies of a real filter that are their own mirror image, and pairs of others."""
    own = 2 ** sum(size % 2 == 0 for size in torus)
    return own, (math.prod(torus) - own) // 2


def checked_torus(torus: Any) -> tuple[int, ...]:
    """The argument as a tuple, or an error."""
    sizes = validate.sizes("torus", torus)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"torus must hold the size of every axis of a signal, 1 or more, got {sizes}.")
    return sizes


def places(xp: Namespace, host: np.ndarray[Any, Any], like: Array) -> Array:
    """Whole numbers of this module next to an array."""
    if is_numpy_like(xp, like):
        return _copied(xp, host.tobytes(), like.device)
    return move(xp, host, like, xp.int64)


def is_numpy_like(xp: Namespace, like: Array) -> bool:
    """Whether index arrays may be kept between calls: within a trace they would leak."""
    return (is_torch(xp) and not is_compiling(like)) or is_cupy(xp)


@functools.lru_cache(maxsize=256)
def _copied(xp: Namespace, host: bytes, device: Any) -> Array:
    """A copy on a device, made once: each one waits for the device."""
    return xp.asarray(np.frombuffer(host, dtype=np.int64).copy(), device=device)


def independent_frequencies(torus: tuple[int, ...], /) -> tuple[Array, Array]:
    """The frequencies that the matrices of the :class:`Spectrum` of a real filter belong to.

    Parameters
    ----------
    torus : tuple of int
        N₁, …, N_d.

    Returns
    -------
    array of int, shape (R, d)
        Those that are their own mirror image, every component 0 or N_i/2.
    array of int, shape (P, d)
        One of each pair (f, −f) of the others. 2P + R is the product of all N_i. Both are numpy arrays.

    Examples
    --------
    >>> import lowrank_unitary as lu
    >>> real, complex_ = lu.independent_frequencies((4, 2))
    >>> real.tolist()
    [[0, 0], [0, 1], [2, 0], [2, 1]]
    >>> complex_.tolist()
    [[1, 0], [1, 1]]
    """
    sizes = checked_torus(torus)
    half, places = (*sizes[:-1], sizes[-1] // 2 + 1), half_spectrum(sizes)
    real, pairs = (np.stack(np.unravel_index(x, half), axis=-1) for x in (places.real, places.complex))
    return real, pairs
