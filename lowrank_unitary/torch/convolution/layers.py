"""Layers that are isometric convolutions on a torus, with their gradients captured in factors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ..._array import array_namespace, complex_dtype, is_complex, real_dtype, validate
from ..._linalg import RNG
from ...convolution.convolve import checked_shape
from ...convolution.frequencies import checked_torus
from ...convolution.kernel import kernel_of_spectrum
from ...convolution.pixels import checked_stride, pixel_shuffle, pixel_unshuffle
from ...convolution.spectrum import Spectrum
from ...convolution.starts import delta_spectrum, identity_spectrum, random_spectrum
from ..marking import mark_unitary
from .recorded import recorded

_STARTS: dict[str, Callable[..., Spectrum]] = {
    "identity": lambda *args, rng, **options: identity_spectrum(*args, **options),
    "delta": delta_spectrum,
    "haar": random_spectrum,
}


class _UnitaryConv(torch.nn.Module):
    axes: int
    real: torch.nn.Parameter | None
    complex: torch.nn.Parameter | None
    bias: torch.nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        torus: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        init: str = "identity",
        dtype: torch.dtype | None = None,
        device: Any = None,
        rng: RNG = None,
    ) -> None:
        super().__init__()
        self.in_channels = validate.positive("in_channels", in_channels)
        self.out_channels = validate.positive("out_channels", out_channels)
        self.groups = validate.positive("groups", groups)
        self.torus = checked_torus(self._for_every_axis("torus", torus))
        self.stride = checked_stride(self._for_every_axis("stride", stride))
        validate.flag("bias", bias)
        validate.choice("init", init, tuple(_STARTS))
        if any(size % step for size, step in zip(self.torus, self.stride, strict=True)):
            raise ValueError(f"stride must divide the torus {self.torus}, got {self.stride}.")
        if in_channels % groups:
            raise ValueError(f"groups must divide in_channels, got {groups} and {in_channels}.")
        if out_channels % groups:
            raise ValueError(f"groups must divide out_channels, got {groups} and {out_channels}.")
        dtype = torch.get_default_dtype() if dtype is None else dtype
        batch = (groups,) if groups > 1 else ()
        made = _STARTS[init](
            out_channels // groups, in_channels // groups * math.prod(self.stride),
            torus=self._coarse, dtype=dtype, batch=batch, rng=rng, xp=torch, device=device,
        )  # fmt: skip
        # A stack of no matrices is no parameter: all those of complex signals are complex.
        for name, part in made._asdict().items():
            self.register_parameter(name, mark_unitary(torch.nn.Parameter(part)) if part.numel() else None)
        shift = torch.zeros(out_channels, dtype=dtype, device=device) if bias else None
        self.register_parameter("bias", None if shift is None else torch.nn.Parameter(shift))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The convolution of `input`, (…, in_channels, N₁, …, N_d), by the matrices, plus the bias."""
        x = self._checked(input, self.torus, self.in_channels)
        if max(self.stride) > 1:
            x = pixel_unshuffle(x, self.stride)
        y = self._convolved(x, adjoint=False)
        return y if self.bias is None else y + self._shift(self.bias)

    def inverse(self, output: torch.Tensor) -> torch.Tensor:
        """The input, (…, in_channels, N₁, …, N_d), with this output; the nearest or smallest of several."""
        y = self._checked(output, self._coarse, self.out_channels)
        x = self._convolved(y if self.bias is None else y - self._shift(self.bias), adjoint=True)
        shuffled: torch.Tensor = pixel_shuffle(x, self.stride) if max(self.stride) > 1 else x
        return shuffled

    def spectrum(self) -> Spectrum:
        """The matrices, detached: for :func:`lowrank_unitary.spectrum_defect`, for instance."""
        return Spectrum(*(part.detach() for part in self._stacks()))

    def to_conv(self) -> Any:
        """A plain layer of torch with the same results: padding is circular, the kernel of full width."""
        d = self.axes
        kernel = kernel_of_spectrum(self.spectrum(), torus=self._coarse)
        kernel = kernel.reshape(self.out_channels, -1, *self._coarse)
        padding: Any = "same"
        if max(self.stride) > 1:
            # Of the offsets s·o − r on the fine torus, r is the place in a block of pixels.
            dims = tuple(range(-d, 0))
            kernel = torch.roll(kernel, tuple(-((size - 1) // 2) for size in self._coarse), dims)
            fine = tuple((size - 1) // 2 for size in self.torus)
            kernel = torch.roll(pixel_shuffle(kernel, self.stride), fine, dims)
            # Strided layers pad both sides alike. Where that leaves one place too few, a zero goes in front.
            short = [step == 1 and size % 2 == 0 for size, step in zip(self.torus, self.stride, strict=True)]
            for axis, zero in zip(dims, short, strict=True):
                if zero:
                    front = torch.zeros_like(kernel.narrow(axis, 0, 1))
                    kernel = torch.cat([front, kernel], dim=axis)
            padding = tuple(size + zero for size, zero in zip(fine, short, strict=True))
        layer = getattr(torch.nn, f"Conv{d}d")(
            self.in_channels, self.out_channels, tuple(kernel.shape[-d:]), self.stride, padding,
            groups=self.groups, bias=self.bias is not None, padding_mode="circular",
            dtype=kernel.dtype, device=kernel.device,
        )  # fmt: skip
        with torch.no_grad():
            layer.weight.copy_(kernel)
            if self.bias is not None:
                layer.bias.copy_(self.bias)
        return layer

    def extra_repr(self) -> str:
        """The options."""
        more = "".join(
            f", {name}={value}"
            for name, value, usual in (
                ("stride", self.stride, (1,) * self.axes),
                ("groups", self.groups, 1),
                ("bias", self.bias is not None, True),
            )
            if value != usual
        )
        return f"{self.in_channels}, {self.out_channels}, torus={self.torus}{more}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> _UnitaryConv:
        """As in torch, with one precision for both stacks.

        ``double()`` would leave complex tensors as they are, ``to(dtype)`` would drop their imaginary parts.
        """

        def of_parts(tensor: torch.Tensor) -> torch.Tensor:
            if not tensor.is_complex():
                return fn(tensor)
            parts = fn(torch.view_as_real(tensor))
            return fn(tensor) if parts.is_complex() else torch.view_as_complex(parts.contiguous())

        super()._apply(of_parts, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def _coarse(self) -> tuple[int, ...]:
        """The torus of the result."""
        return tuple(size // step for size, step in zip(self.torus, self.stride, strict=True))

    def _for_every_axis(self, name: str, value: Any) -> Any:
        if (size := validate.index(value)) is not None:
            return (size,) * self.axes
        if not isinstance(value, tuple | list) or len(value) != self.axes:
            raise ValueError(
                f"{name} must be a whole number, or a tuple of {self.axes} of them, got {value!r}."
            )
        return value

    def _stacks(self) -> Spectrum:
        given = next(part for part in (self.real, self.complex) if part is not None)
        xp = array_namespace(given)
        real = real_dtype(xp, given.dtype)
        none = given.new_empty((*given.shape[:-3], 0, *given.shape[-2:]), dtype=real)
        return Spectrum(
            none if self.real is None else self.real,
            none.to(complex_dtype(xp, real)) if self.complex is None else self.complex,
        )

    def _checked(self, signal: torch.Tensor, torus: tuple[int, ...], channels: int) -> torch.Tensor:
        stacks = self._stacks()
        dtype = stacks.complex.dtype if self.real is None else stacks.real.dtype
        validate.namespace_of(input=signal, parameters=stacks.complex)
        if torch.is_autocast_enabled(signal.device.type) and not is_complex(torch, dtype):
            signal = signal.to(dtype)
        if signal.dtype != dtype:
            raise TypeError(
                f"input must be {dtype}, as the layer is, got {signal.dtype}: convert one of the two."
            )
        checked_shape("input", signal, torus, (), channels)
        return signal

    def _convolved(self, x: torch.Tensor, *, adjoint: bool) -> torch.Tensor:
        stacks = self._stacks()
        if any(part.requires_grad and not part.is_leaf for part in stacks):
            raise ValueError(
                "the matrices must be parameters themselves, got the results of operations, behind which the "
                "factors of their gradients would be lost: use lowrank_unitary.convolve there."
            )
        d = self.axes
        if self.groups > 1:
            x = x.reshape(*x.shape[: -d - 1], self.groups, -1, *x.shape[-d:])
        y = recorded(x, stacks, self._coarse, adjoint)
        return y.flatten(-d - 2, -d - 1) if self.groups > 1 else y

    def _shift(self, bias: torch.Tensor) -> torch.Tensor:
        return bias.reshape(-1, *self.axes * (1,))


class UnitaryConv1d(_UnitaryConv):
    """An isometric circular convolution of signals (…, C_in, N).

    All as for :class:`UnitaryConv2d`, with one axis.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> layer = lut.UnitaryConv1d(3, 3, 16, init="haar", bias=False, rng=0)
    >>> x = torch.ones(2, 3, 16)
    >>> bool(torch.isclose(torch.linalg.norm(layer(x)), torch.linalg.norm(x)))
    True
    """

    axes = 1


class UnitaryConv2d(_UnitaryConv):
    """An isometric circular convolution of signals (…, C_in, N₁, N₂): a unitary matrix at every frequency.

    Parameters
    ----------
    in_channels, out_channels : int
        C_in and C_out. With C_out ≥ C_in s₁s₂ the layer is an isometry; with fewer its matrices have
        orthonormal rows, and it is one on the complement of what it drops.
    torus : int or tuple of int
        N₁, N₂, the size of the signals.
    stride : int or tuple of int
        s₁, s₂, which divide N₁ and N₂: blocks of pixels become channels, so that nothing is lost.
    groups : int
        As in ``torch.nn.Conv2d``.
    bias : bool
        Whether to add a trainable vector, at first zero.
    init : {"identity", "delta", "haar"}
        Initial matrices: :func:`~lowrank_unitary.identity_spectrum`,
        :func:`~lowrank_unitary.delta_spectrum` or :func:`~lowrank_unitary.random_spectrum`.
    dtype : torch.dtype, optional
        Of the signals, real or complex, in single or double precision.
    device, rng : as for :func:`~lowrank_unitary.random_unitary`

    Attributes
    ----------
    real, complex : torch.nn.Parameter or None
        The stacks of :class:`~lowrank_unitary.Spectrum`, marked as unitary (:func:`mark_unitary`), with the
        groups, if more than one, on the first axis. None where the torus has no such frequency.
    bias : torch.nn.Parameter or None, shape (C_out,)

    Notes
    -----
    The gradient with respect to the matrices is captured in factors, as by :func:`unitary_linear`, in the
    metric of the kernel: the optimisers of this package move them as they are, others do not. The backward
    pass computes all factors anyway, as parts of the gradient with respect to the input.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary as lu
    >>> import lowrank_unitary.torch as lut
    >>> layer = lut.UnitaryConv2d(4, 16, (8, 8), stride=2, init="delta", rng=0)
    >>> x = torch.ones(5, 4, 8, 8)
    >>> y = layer(x)
    >>> y.shape
    torch.Size([5, 16, 4, 4])
    >>> bool(torch.allclose(layer.inverse(y), x, atol=1e-5))
    True
    >>> optimiser = lut.UnitarySGD(layer.parameters(), lr=0.01, rank=2)
    >>> torch.mean(y**4).backward()
    >>> optimiser.step()
    >>> bool(lu.spectrum_defect(layer.spectrum()) < 1e-5)
    True
    """

    axes = 2


class UnitaryConv3d(_UnitaryConv):
    """An isometric circular convolution of signals (…, C_in, N₁, N₂, N₃).

    All as for :class:`UnitaryConv2d`, with three axes.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> layer = lut.UnitaryConv3d(2, 2, (4, 4, 3))
    >>> layer(torch.zeros(1, 2, 4, 4, 3)).shape
    torch.Size([1, 2, 4, 4, 3])
    """

    axes = 3
