"""A matrix for every independent frequency, its defect and its repair."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .._array import Array, Namespace, astype, complex_dtype, is_complex, is_half, real_dtype, validate
from ..unitary.defect import reunitarize, unitarity_defect
from .frequencies import checked_torus, counts


class Spectrum(NamedTuple):
    """The matrices by which a convolution on a torus acts at its independent frequencies.

    Only these are stored, so that a filter stays real however they are moved.

    Attributes
    ----------
    real : array, shape (…, R, C_out, C_in)
        At the frequencies that are their own mirror image, where the matrix of a real filter is real.
    complex : array, shape (…, P, C_out, C_in)
        At one of each pair of the others (:func:`independent_frequencies`). For complex signals all
        frequencies are independent: R is 0, and these are all of them, in the order of ``fftn``.

    Leading axes are groups. Functions that take or return a gradient use the same type with factors in the
    place of arrays.
    """

    real: Any
    complex: Any


def checked_stacks(spectrum: Spectrum, name: str = "spectrum") -> Namespace:
    """The namespace of the two stacks of a spectrum that fit together, or an error."""
    if not isinstance(spectrum, Spectrum):
        raise TypeError(
            f"{name} must be a Spectrum(real, complex), got {type(spectrum).__name__}: make one with "
            f"random_spectrum or spectrum_of_kernel."
        )
    own, pairs = (f"{name}.{field}" for field in spectrum._fields)
    xp = validate.namespace_of(**{own: spectrum.real, pairs: spectrum.complex})
    shapes = tuple(spectrum.real.shape), tuple(spectrum.complex.shape)
    for part, shape in zip((own, pairs), shapes, strict=True):
        if len(shape) < 3 or 0 in shape[-2:]:
            raise ValueError(
                f"{part} must have shape (…, frequencies, C_out, C_in), got {shape}: add the missing axes."
            )
    if shapes[0][:-3] != shapes[1][:-3] or shapes[0][-2:] != shapes[1][-2:]:
        raise ValueError(
            f"{own} and {pairs} must agree in all axes but that of the frequencies, got {shapes[0]} and "
            f"{shapes[1]}."
        )
    dtype = spectrum.real.dtype
    if is_complex(xp, dtype) or is_half(xp, dtype) or spectrum.complex.dtype != complex_dtype(xp, dtype):
        raise TypeError(
            f"{own} and {pairs} must be float32 and complex64, or float64 and complex128, got {dtype} and "
            f"{spectrum.complex.dtype}: cast one of the two."
        )
    return xp


def checked_spectrum(
    spectrum: Spectrum, torus: Any, name: str = "spectrum"
) -> tuple[Namespace, tuple[int, ...]]:
    """The namespace and the torus of a spectrum that fits it, or an error."""
    xp, sizes = checked_stacks(spectrum, name), checked_torus(torus)
    R, P = (int(part.shape[-3]) for part in spectrum)
    if (R, P) not in (counts(sizes), (0, math.prod(sizes))):
        raise ValueError(
            f"{name} must have {counts(sizes)[0]} real and {counts(sizes)[1]} complex matrices on the torus "
            f"{sizes}, or 0 and {math.prod(sizes)} for complex signals, got {R} and {P}: pass the torus that "
            f"it was made for."
        )
    return xp, sizes


def signal_dtype(xp: Namespace, spectrum: Spectrum) -> Any:
    """The dtype of the signals that a spectrum acts on."""
    dtype = spectrum.complex.dtype
    return real_dtype(xp, dtype) if spectrum.real.shape[-3] else dtype


def each(function: Callable[..., Array], *spectra: Spectrum) -> Spectrum:
    """A function of stacks, on the real and on the complex ones; a stack of no matrices stays as it is."""
    parts = zip(*spectra, strict=True)
    return Spectrum(*(function(*part) if part[0].shape[-3] else part[0] for part in parts))


def spectrum_defect(spectrum: Spectrum, /) -> Array:
    """The largest unitarity defect over all frequencies, and so a bound for the Lipschitz constant.

    Parameters
    ----------
    spectrum : Spectrum

    Returns
    -------
    array, shape (…)
        δ, the maximum of ‖H_fᴴH_f − I‖_F, one number for each group.

    Notes
    -----
    O(C³) a frequency. All singular values σ of the convolution have 1 − δ ≤ σ² ≤ 1 + δ: it is Lipschitz with
    constant √(1 + δ), and so is its inverse with 1/√(1 − δ).

    Examples
    --------
    >>> import lowrank_unitary as lu
    >>> spectrum = lu.random_spectrum(3, torus=(8, 8), rng=0)
    >>> bool(lu.spectrum_defect(spectrum) < 1e-14)
    True
    """
    xp = checked_stacks(spectrum)
    defects = [unitarity_defect(part) for part in spectrum if part.shape[-3]]
    return xp.max(xp.concat(defects, axis=-1), axis=-1)


def reunitarize_spectrum(spectrum: Spectrum, /) -> Spectrum:
    """The nearest unitary matrix at every frequency (:func:`reunitarize`).

    Parameters
    ----------
    spectrum : Spectrum

    Returns
    -------
    Spectrum

    Notes
    -----
    The nearest isometric convolution of full width, in the Frobenius norm of its kernel. O(C³) a frequency.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> kernel = np.random.default_rng(0).standard_normal((4, 4, 3, 3))
    >>> spectrum = lu.reunitarize_spectrum(lu.spectrum_of_kernel(kernel, torus=(8, 8)))
    >>> bool(lu.spectrum_defect(spectrum) < 1e-14)
    True
    """
    checked_stacks(spectrum)
    return each(reunitarize, spectrum)


def as_complex(xp: Namespace, real: Array) -> Array:
    """A real array in the complex dtype of its precision."""
    return astype(xp, real, complex_dtype(xp, real.dtype))
