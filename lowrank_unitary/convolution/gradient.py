"""Gradients of a convolution with respect to its matrices, in thin factors."""

from __future__ import annotations

import math

from .._array import Array, is_half, validate
from ..types import BodyFactors, LowRankFactors
from .convolve import checked_shape, to_frequencies
from .frequencies import checked_torus
from .spectrum import Spectrum, checked_spectrum


def convolution_gradient(
    signal: Array, cotangent: Array, /, *, torus: tuple[int, ...], groups: int = 0
) -> Spectrum:
    """The gradient of a loss with respect to the matrices of a convolution, in the metric of its kernel.

    Parameters
    ----------
    signal : array, shape (…, C_in, N₁, …, N_d)
        x, what was convolved.
    cotangent : array, shape (…, C_out, N₁, …, N_d)
        ∂L/∂y, the gradient with respect to the result; for complex signals in the convention of
        :func:`unitary_step`.
    torus : tuple of int
        N₁, …, N_d.
    groups : int
        The number of axes before the channels that are axes of the spectrum. All axes before them are samples
        and become the columns of the factors.

    Returns
    -------
    Spectrum of LowRankFactors
        left (…, frequencies, C_out, m) and right (…, frequencies, C_in, m) for m samples, views or copies of
        Fourier transforms: G_f = Δ_f X_fᴴ, the Fourier transform of the gradient of the kernel.

    Notes
    -----
    Two FFTs. The gradient with respect to the stored entries has weights 1/N and 2/N in its place
    (:func:`spectrum_gradient`).

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> x, target = np.random.default_rng(0).standard_normal((2, 10, 3, 8))
    >>> spectrum = lu.random_spectrum(3, torus=(8,), rng=1)
    >>> for _ in range(100):
    ...     y = lu.convolve(x, spectrum, torus=(8,))
    ...     gradient = lu.convolution_gradient(x, y - target, torus=(8,))
    ...     spectrum = lu.spectrum_step(spectrum, gradient, 0.001, rank=2, rng=0)
    >>> bool(np.linalg.norm(lu.convolve(x, spectrum, torus=(8,)) - target) < np.linalg.norm(y - target))
    True
    """
    left, right = _blocks(("signal", signal), ("cotangent", cotangent), torus, groups)
    return Spectrum(*(LowRankFactors(*pair) for pair in zip(left, right, strict=True)))


def convolution_body_gradient(
    signal: Array, pulled: Array, /, *, torus: tuple[int, ...], groups: int = 0
) -> Spectrum:
    """The same gradient in the body frame, from the gradient with respect to `signal`.

    Parameters
    ----------
    signal, torus, groups : as for :func:`convolution_gradient`
    pulled : array, shape of `signal`
        ∂L/∂x, the gradient with respect to `signal`, which back-propagation computes:
        ``convolve(cotangent, spectrum, torus=torus, adjoint=True)``.

    Returns
    -------
    Spectrum of BodyFactors
        left and right (…, frequencies, C_in, m), with which a step need not pull anything back.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> x, pulled = np.random.default_rng(0).standard_normal((2, 10, 3, 8))
    >>> gradient = lu.convolution_body_gradient(x, pulled, torus=(8,))
    >>> gradient.complex.left.shape
    (3, 3, 10)
    """
    left, right = _blocks(("signal", signal), ("pulled", pulled), torus, groups)
    if left.real.shape != right.real.shape:
        raise ValueError(
            f"pulled must have the shape of signal, got {tuple(pulled.shape)} and {tuple(signal.shape)}: "
            f"pass the gradient with respect to signal, or give the one with respect to the result to "
            f"convolution_gradient."
        )
    return Spectrum(*(BodyFactors(*pair) for pair in zip(left, right, strict=True)))


def _blocks(
    right: tuple[str, Array], left: tuple[str, Array], torus: tuple[int, ...], groups: int
) -> tuple[Spectrum, Spectrum]:
    sizes, groups = checked_torus(torus), validate.count("groups", groups)
    names = dict((right, left))
    xp = validate.namespace_of(**names)
    (x_name, x), (g_name, g) = right, left
    if x.dtype != g.dtype or is_half(xp, x.dtype):
        raise TypeError(
            f"{x_name} and {g_name} must have one dtype of single or double precision, got {x.dtype} and "
            f"{g.dtype}: cast one of the two."
        )
    leading = [checked_shape(name, array, sizes, ()) for name, array in names.items()]
    if leading[0] != leading[1]:
        raise ValueError(
            f"{x_name} and {g_name} must agree in their leading axes, got {tuple(x.shape)} and "
            f"{tuple(g.shape)}."
        )
    if groups > len(leading[0]):
        raise ValueError(
            f"groups must be at most the number of leading axes of {x_name}, {len(leading[0])}, got {groups}."
        )
    # Samples are the columns of factors, and contiguous as rows, along which they are multiplied.
    left, right = (to_frequencies(xp, array, sizes, groups) for array in (g, x))
    return Spectrum(*(block.mT for block in left)), Spectrum(*(block.mT for block in right))


def spectrum_gradient(gradient: Spectrum, /, *, torus: tuple[int, ...]) -> Spectrum:
    """The gradient in the metric of the kernel from the one that automatic differentiation returns.

    Parameters
    ----------
    gradient : Spectrum
        Arrays: the gradient of a loss with respect to the entries of a spectrum.
    torus : tuple of int
        N₁, …, N_d; N is their product.

    Returns
    -------
    Spectrum
        N times the real part, and N/2 times the complex one of a real filter: each entry there stands for a
        pair of frequencies. A step of size η along it is one along the gradient with respect to the kernel.

    Notes
    -----
    Of ``jax.grad``, too: it is conjugated before or after, as the routine that takes it says.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> spectrum = lu.random_spectrum(2, torus=(6,), rng=0)
    >>> gradient = lu.spectrum_gradient(spectrum, torus=(6,))
    >>> np.allclose(gradient.real, 6 * spectrum.real), np.allclose(gradient.complex, 3 * spectrum.complex)
    (True, True)
    """
    _, sizes = checked_spectrum(gradient, torus, "gradient")
    N = float(math.prod(sizes))
    return Spectrum(gradient.real * N, gradient.complex * (0.5 * N if gradient.real.shape[-3] else N))
