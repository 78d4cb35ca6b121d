"""Initial spectra of isometric convolutions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._array import (
    Array,
    Namespace,
    astype,
    complex_dtype,
    is_complex,
    is_half,
    placement,
    real_dtype,
    validate,
)
from .._linalg import RNG, Key, key_of
from ..unitary.initialisers import random_unitary
from .frequencies import checked_torus, counts
from .spectrum import Spectrum


def random_spectrum(
    channels: int,
    in_channels: int | None = None,
    /,
    *,
    torus: tuple[int, ...],
    dtype: Any = None,
    batch: tuple[int, ...] = (),
    rng: RNG = None,
    xp: Namespace = np,
    device: Any = None,
) -> Spectrum:
    """An isometric convolution whose matrices are independent and from the Haar measure.

    Parameters
    ----------
    channels : int
        C_out.
    in_channels : int, optional
        C_in, by default as many. With fewer the matrices have orthonormal columns, and the convolution is an
        isometry; with more they have orthonormal rows, and its adjoint is one.
    torus : tuple of int
        N₁, …, N_d.
    dtype : dtype of the namespace, optional
        Of the signals: real for a real filter, complex for one of complex signals; in single or double
        precision. By default as for :func:`random_unitary`.
    batch : tuple of int
        Groups.
    rng, xp, device : as for :func:`random_unitary`

    Returns
    -------
    Spectrum
        Of matrices C_out×C_in.

    Notes
    -----
    Its kernel is spread over the whole torus. The real matrices have either determinant.

    Examples
    --------
    >>> import lowrank_unitary as lu
    >>> spectrum = lu.random_spectrum(3, torus=(8, 8), rng=0)
    >>> spectrum.real.shape, spectrum.complex.shape, spectrum.complex.dtype.name
    ((4, 3, 3), (30, 3, 3), 'complex128')
    """
    columns, like, sizes, groups = _prototype(channels, in_channels, torus, dtype, batch, xp, device)
    space = validate.namespace_of(dtype=like)
    first = key_of(rng, like)
    options = {"xp": xp, "device": device}
    real, double = _dtypes(space, like)
    if is_complex(space, like.dtype):
        shape = (*groups, math.prod(sizes))
        own = space.zeros((*groups, 0, channels, columns), dtype=real, device=device)
        return Spectrum(
            own, random_unitary(channels, columns, dtype=double, batch=shape, rng=first, **options)
        )
    return Spectrum(
        *(
            random_unitary(channels, columns, dtype=kind, batch=(*groups, count), rng=key, **options)
            for kind, count, key in zip((real, double), counts(sizes), (first, another(first)), strict=True)
        )
    )


def delta_spectrum(
    channels: int,
    in_channels: int | None = None,
    /,
    *,
    torus: tuple[int, ...],
    dtype: Any = None,
    batch: tuple[int, ...] = (),
    rng: RNG = None,
    xp: Namespace = np,
    device: Any = None,
) -> Spectrum:
    """An isometric convolution with a kernel of width 1: one Haar matrix at every frequency.

    Parameters
    ----------
    channels, in_channels, torus, dtype, batch, rng, xp, device : as for :func:`random_spectrum`

    Returns
    -------
    Spectrum
        Of matrices C_out×C_in.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> spectrum = lu.delta_spectrum(3, torus=(5,), rng=0)
    >>> np.allclose(lu.kernel_of_spectrum(spectrum, torus=(5,))[..., [0, 1, 3, 4]], 0.0)
    True
    """
    columns, like, sizes, groups = _prototype(channels, in_channels, torus, dtype, batch, xp, device)
    matrix = random_unitary(channels, columns, dtype=like.dtype, batch=groups, rng=rng, xp=xp, device=device)
    return _repeated(matrix, sizes)


def identity_spectrum(
    channels: int,
    in_channels: int | None = None,
    /,
    *,
    torus: tuple[int, ...],
    dtype: Any = None,
    batch: tuple[int, ...] = (),
    xp: Namespace = np,
    device: Any = None,
) -> Spectrum:
    """The convolution that changes nothing; it adds channels of zeros, or drops the last ones.

    Parameters
    ----------
    channels, in_channels, torus, dtype, batch, xp, device : as for :func:`random_spectrum`

    Returns
    -------
    Spectrum
        Of matrices C_out×C_in.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> x = np.arange(10.0).reshape(2, 5)
    >>> np.allclose(lu.convolve(x, lu.identity_spectrum(2, torus=(5,)), torus=(5,)), x)
    True
    """
    columns, like, sizes, groups = _prototype(channels, in_channels, torus, dtype, batch, xp, device)
    space = validate.namespace_of(dtype=like)
    eye = space.eye(channels, columns, dtype=like.dtype, device=device)
    return _repeated(space.broadcast_to(eye, (*groups, channels, columns)), sizes)


def another(key: Key) -> Key:
    """The words of another key, for a second stack in one call."""
    return Key(key.high ^ 0x5BF03635, key.low)


def _repeated(matrix: Array, torus: tuple[int, ...]) -> Spectrum:
    """One matrix at all independent frequencies."""
    xp = validate.namespace_of(dtype=matrix)
    real, double = _dtypes(xp, matrix)
    if is_complex(xp, matrix.dtype):
        return Spectrum(
            xp.zeros((*matrix.shape[:-2], 0, *matrix.shape[-2:]), dtype=real, device=placement(matrix)),
            xp.repeat(matrix[..., None, :, :], math.prod(torus), axis=-3),
        )
    return Spectrum(
        *(
            xp.repeat(astype(xp, matrix, kind)[..., None, :, :], count, axis=-3)
            for kind, count in zip((real, double), counts(torus), strict=True)
        )
    )


def _dtypes(xp: Namespace, like: Array) -> tuple[Any, Any]:
    real = real_dtype(xp, like.dtype)
    return real, complex_dtype(xp, real)


def _prototype(
    channels: int, in_channels: int | None, torus: Any, dtype: Any, batch: Any, xp: Namespace, device: Any
) -> tuple[int, Array, tuple[int, ...], tuple[int, ...]]:
    columns = validate.positive("channels", channels)
    if in_channels is not None:
        columns = validate.positive("in_channels", in_channels)
    sizes, groups = checked_torus(torus), validate.sizes("batch", batch)
    like = validate.prototype(xp, dtype, device)
    space = validate.namespace_of(dtype=like)
    if is_half(space, like.dtype):
        raise TypeError(f"dtype must be of single or double precision, got {like.dtype}: no FFT has less.")
    return columns, like, sizes, groups
