"""Spatial kernels to spectra, and back."""

from __future__ import annotations

import numpy as np

from .._array import Array, Namespace, is_half, is_numpy, is_torch, placement, validate
from .convolve import to_frequencies, to_signal
from .frequencies import checked_torus
from .spectrum import Spectrum, checked_spectrum


def spectrum_of_kernel(kernel: Array, /, *, torus: tuple[int, ...]) -> Spectrum:
    """The matrices of a circular convolution, from its kernel.

    Parameters
    ----------
    kernel : array, shape (…, C_out, C_in, k₁, …, k_d)
        Real, or complex for complex signals. Any widths up to those of the torus. Entry j of an axis of width
        k belongs to the offset (k−1)//2 − j: this is the weight of a convolution layer with circular padding,
        which correlates.
    torus : tuple of int
        N₁, …, N_d.

    Returns
    -------
    Spectrum
        Not unitary in general: :func:`reunitarize_spectrum` makes the nearest one that is.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> kernel = np.zeros((2, 2, 3))
    >>> kernel[:, :, 1] = np.eye(2)
    >>> spectrum = lu.spectrum_of_kernel(kernel, torus=(8,))
    >>> spectrum.real.shape, spectrum.complex.shape
    ((2, 2, 2), (3, 2, 2))
    >>> np.allclose(spectrum.complex, np.eye(2))
    True
    """
    xp = validate.namespace_of(kernel=kernel)
    sizes = checked_torus(torus)
    d, shape = len(sizes), tuple(kernel.shape)
    if len(shape) < d + 2 or 0 in shape[-d - 2 :]:
        raise ValueError(
            f"kernel must have shape (…, C_out, C_in, {', '.join(f'k_{i + 1}' for i in range(d))}) on the "
            f"torus {sizes}, got {shape}: add the missing axes."
        )
    if any(width > size for width, size in zip(shape[-d:], sizes, strict=True)):
        raise ValueError(
            f"kernel must be no wider than the torus {sizes}, got the widths {shape[-d:]}: what stands "
            f"beyond would be added to what stands inside; wrap it around first."
        )
    if is_half(xp, kernel.dtype):
        raise TypeError(f"kernel must be in single or double precision, got {kernel.dtype}: convert it.")
    width = shape[-d:]
    kernel = _centred(xp, _padded(xp, kernel, sizes), width)
    # C_out as the samples of a signal: the blocks are the matrices.
    blocks = to_frequencies(xp, xp.moveaxis(kernel, -d - 2, 0), sizes, len(shape) - d - 2)
    # Contiguous, since steps move rows.
    return Spectrum(*(_row_major(xp, part) for part in blocks))


def kernel_of_spectrum(spectrum: Spectrum, /, *, torus: tuple[int, ...]) -> Array:
    """The kernel of full width of a convolution.

    Parameters
    ----------
    spectrum : Spectrum
    torus : tuple of int
        N₁, …, N_d.

    Returns
    -------
    array, shape (…, C_out, C_in, N₁, …, N_d)
        Real for a real filter. The inverse of :func:`spectrum_of_kernel`.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> spectrum = lu.random_spectrum(2, torus=(5, 4), rng=0)
    >>> kernel = lu.kernel_of_spectrum(spectrum, torus=(5, 4))
    >>> kernel.shape
    (2, 2, 5, 4)
    >>> np.allclose(lu.spectrum_of_kernel(kernel, torus=(5, 4)).complex, spectrum.complex)
    True
    """
    xp, sizes = checked_spectrum(spectrum, torus)
    kernel = to_signal(xp, spectrum, sizes, (spectrum.real.shape[-2],))
    return _centred(xp, xp.moveaxis(kernel, 0, -len(sizes) - 2), sizes)


def _centred(xp: Namespace, kernel: Array, width: tuple[int, ...]) -> Array:
    """Exchange entry j of every axis and offset ((k−1)//2 − j) mod N, either way."""
    axes = tuple(range(-len(width), 0))
    return xp.roll(xp.flip(kernel, axis=axes), tuple((k - 1) // 2 + 1 for k in width), axis=axes)


def _padded(xp: Namespace, kernel: Array, torus: tuple[int, ...]) -> Array:
    """Zeros at the end of every axis."""
    for axis, size in zip(range(-len(torus), 0), torus, strict=True):
        shape = list(kernel.shape)
        shape[axis] = size - shape[axis]
        if shape[axis]:
            zeros = xp.zeros(tuple(shape), dtype=kernel.dtype, device=placement(kernel))
            kernel = xp.concat([kernel, zeros], axis=axis)
    return kernel


def _row_major(xp: Namespace, x: Array) -> Array:
    if is_numpy(xp):
        return np.ascontiguousarray(x)
    return x.contiguous() if is_torch(xp) else x
