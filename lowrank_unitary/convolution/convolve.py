"""Signals to thin blocks at the independent frequencies, products there, and back."""

from __future__ import annotations

import math

import numpy as np

from .._array import Array, Namespace, is_complex, is_numpy, is_torch, is_traced, move, placement, validate
from .._linalg import conj
from .frequencies import half_spectrum
from .spectrum import Spectrum, as_complex, checked_spectrum, signal_dtype

# The most axes that JAX transforms at once.
_AXES = 3


def convolve(signal: Array, spectrum: Spectrum, /, *, torus: tuple[int, ...], adjoint: bool = False) -> Array:
    """Circular convolution by the matrices of a spectrum: an isometry where all of them are unitary.

    Parameters
    ----------
    signal : array, shape (…, C_in, N₁, …, N_d)
        Real for the spectrum of a real filter, complex for one of complex signals. Leading axes are samples,
        and after them the groups of `spectrum`.
    spectrum : Spectrum
        Matrices C_out×C_in.
    torus : tuple of int
        N₁, …, N_d. The same isometry does not exist at another resolution.
    adjoint : bool
        By the conjugate transposes: the transposed convolution, for square unitary matrices the inverse.

    Returns
    -------
    array, shape (…, C_out, N₁, …, N_d)
        With the dtype of `signal`. For ``adjoint=True`` the two numbers of channels are exchanged.

    Notes
    -----
    FFTs, and 2mC_outC_in operations (complex) a stored frequency for m samples. Differentiable.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> spectrum = lu.random_spectrum(4, torus=(8, 6), rng=0)
    >>> x = np.random.default_rng(1).standard_normal((10, 4, 8, 6))
    >>> y = lu.convolve(x, spectrum, torus=(8, 6))
    >>> np.allclose(np.linalg.norm(y), np.linalg.norm(x))
    True
    >>> np.allclose(lu.convolve(y, spectrum, torus=(8, 6), adjoint=True), x)
    True
    """
    validate.flag("adjoint", adjoint)
    xp, sizes = checked_spectrum(spectrum, torus)
    groups = tuple(spectrum.real.shape[:-3])
    channels = spectrum.real.shape[-2 if adjoint else -1]
    samples = checked_signal("signal", signal, sizes, groups, channels, spectrum)
    blocks = to_frequencies(xp, signal, sizes, len(groups))
    return to_signal(xp, products(xp, spectrum, blocks, adjoint=adjoint), sizes, samples)


def checked_signal(
    name: str,
    signal: Array,
    torus: tuple[int, ...],
    groups: tuple[int, ...],
    channels: int,
    spectrum: Spectrum,
) -> tuple[int, ...]:
    """The shape of the samples of a signal that fits a spectrum, or an error."""
    xp = validate.namespace_of(**{name: signal, "spectrum.complex": spectrum.complex})
    dtype = signal_dtype(xp, spectrum)
    if signal.dtype != dtype:
        of = "complex signals" if is_complex(xp, dtype) else "a real filter"
        parts = ", or convolve its two parts one by one" if is_complex(xp, signal.dtype) else ""
        raise TypeError(
            f"{name} must be {getattr(dtype, '__name__', dtype)}, for this spectrum of {of}, got "
            f"{signal.dtype}: cast one of the two{parts}."
        )
    return checked_shape(name, signal, torus, groups, channels)


def checked_shape(
    name: str, signal: Array, torus: tuple[int, ...], groups: tuple[int, ...], channels: int | None = None
) -> tuple[int, ...]:
    """The shape of the samples of a signal, or an error."""
    shape, d = tuple(signal.shape), len(torus)
    if len(shape) <= d + len(groups):
        form = ", ".join(str(size) for size in (*groups, "channels", *torus))
        raise ValueError(f"{name} must have shape (…, {form}), got {shape}: add the missing axes.")
    if shape[-d:] != torus:
        raise ValueError(
            f"{name} must have the torus {torus} in its last axes, got {shape[-d:]}: a filter is an isometry "
            f"on its own torus alone. Resample it, or make a spectrum with torus={shape[-d:]}."
        )
    if channels is not None and shape[-d - 1] != channels:
        raise ValueError(
            f"{name} must have {channels} channels on axis {-d - 1}, got {shape[-d - 1]}: the matrices of "
            f"the spectrum act on as many."
        )
    leading = shape[: -d - 1]
    if leading[len(leading) - len(groups) :] != groups:
        raise ValueError(
            f"{name} must have the groups {groups} of the spectrum on the axes before its channels, got the "
            f"leading axes {leading}: the axes of samples come first."
        )
    return leading[: len(leading) - len(groups)]


def products(xp: Namespace, spectrum: Spectrum, blocks: Spectrum, *, adjoint: bool) -> Spectrum:
    """The matrices, or their conjugate transposes, times the signals, which are rows of the blocks."""
    parts = zip(spectrum, blocks, strict=True)
    if not adjoint:
        return Spectrum(*(X @ H.mT for H, X in parts))
    # Of the thin block and its product the conjugate is a smaller copy than of the matrices.
    return Spectrum(*(conj(xp, conj(xp, X) @ H) for H, X in parts))


def to_frequencies(xp: Namespace, signal: Array, torus: tuple[int, ...], groups: int) -> Spectrum:
    """Blocks (groups…, frequencies, samples, channels) of signals (samples…, groups…, channels, torus)."""
    *leading, channels = signal.shape[: -len(torus)]
    leading = [int(size) for size in leading]
    batch = leading[len(leading) - groups :]
    m = math.prod(leading[: len(leading) - groups])
    complex_signal = is_complex(xp, signal.dtype)
    spectral = _transformed(xp, signal, torus, half=not complex_signal)
    spectral = xp.reshape(spectral, (m, *batch, channels, math.prod(spectral.shape[-len(torus) :])))
    # A view: the one copy is the choice of frequencies.
    blocks = xp.permute_dims(spectral, _to_blocks(groups))
    if complex_signal:
        return Spectrum(xp.real(blocks[..., :0, :, :]), blocks)
    half = half_spectrum(xp, torus, signal)
    return Spectrum(xp.real(_taken(xp, blocks, half.real)), _taken(xp, blocks, half.complex))


def to_signal(xp: Namespace, blocks: Spectrum, torus: tuple[int, ...], samples: tuple[int, ...]) -> Array:
    """Signals (samples…, groups…, channels, torus) of blocks (groups…, frequencies, samples, channels)."""
    *batch, R, _, channels = blocks.real.shape
    groups, real = len(batch), R > 0
    back = (groups + 1, *range(groups), groups + 2, groups)
    half = (*torus[:-1], torus[-1] // 2 + 1) if real else torus
    spectral = _scattered(xp, blocks, torus, back) if real else xp.permute_dims(blocks.complex, back)
    spectral = xp.reshape(spectral, (*samples, *batch, channels, *half))
    return _transformed_back(xp, spectral, torus, half=real)


def _to_blocks(groups: int) -> tuple[int, ...]:
    """The axes of (samples, groups…, channels, places) in the order of blocks."""
    return (*range(1, groups + 1), groups + 2, 0, groups + 1)


def _taken(xp: Namespace, blocks: Array, index: Array) -> Array:
    # torch copies a chosen part of a permuted tensor in half the time that index_select takes.
    if is_torch(xp):
        return blocks[..., index, :, :]
    index = move(xp, index, blocks, None) if isinstance(index, np.ndarray) else index
    return xp.take(blocks, index, axis=-3)


def _scattered(xp: Namespace, blocks: Spectrum, torus: tuple[int, ...], back: tuple[int, ...]) -> Array:
    """The half spectrum (samples, groups…, channels, places) from its independent frequencies."""
    pairs = blocks.complex
    half = half_spectrum(xp, torus, pairs)
    mirrored = xp.conj(_taken(xp, pairs, half.of_pair))
    if not (is_numpy(xp) or is_torch(xp)) or is_traced(blocks.real, pairs):
        every = xp.concat([as_complex(xp, blocks.real), pairs, mirrored], axis=-3)
        return xp.permute_dims(_taken(xp, every, half.source), back)
    # Written where it is to stand: one copy.
    *batch, _, m, channels = pairs.shape
    shape = (m, *batch, channels, half.source.shape[0])
    spectral = xp.empty(shape, dtype=pairs.dtype, device=placement(pairs))
    groups = len(batch)
    view = xp.permute_dims(spectral, _to_blocks(groups))
    for index, part in ((half.real, blocks.real), (half.complex, pairs), (half.mirrored, mirrored)):
        view[..., index, :, :] = as_complex(xp, part)
    return spectral


def _transformed(xp: Namespace, signal: Array, torus: tuple[int, ...], *, half: bool) -> Array:
    axes = list(range(-len(torus), 0))
    last, others = axes[-_AXES:], axes[:-_AXES]
    transform = xp.fft.rfftn if half else xp.fft.fftn
    spectral = transform(signal, axes=tuple(last))
    while others:
        spectral = xp.fft.fftn(spectral, axes=tuple(others[-_AXES:]))
        others = others[:-_AXES]
    return spectral


def _transformed_back(xp: Namespace, spectral: Array, torus: tuple[int, ...], *, half: bool) -> Array:
    axes = list(range(-len(torus), 0))
    last, others = axes[-_AXES:], axes[:-_AXES]
    while others:
        spectral = xp.fft.ifftn(spectral, axes=tuple(others[-_AXES:]))
        others = others[:-_AXES]
    transform = xp.fft.irfftn if half else xp.fft.ifftn
    return transform(spectral, s=torus[-len(last) :], axes=tuple(last))
