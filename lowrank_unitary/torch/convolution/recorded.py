"""The product of a convolution, recorded so that its backward pass captures body factors."""

from __future__ import annotations

from typing import Any

import torch

from ..._array import array_namespace
from ...convolution.convolve import products, to_frequencies, to_signal
from ...convolution.spectrum import Spectrum
from ..capture import of_parameter


class _Convolved(torch.autograd.Function):
    """H x or Hᴴ x; the backward pass captures body factors, which both passes have computed anyway."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        real: torch.Tensor,
        complex_: torch.Tensor,
        torus: tuple[int, ...],
        adjoint: bool,
    ) -> torch.Tensor:
        xp, groups = array_namespace(x), real.ndim - 3
        with torch.autocast(x.device.type, enabled=False):
            there = to_frequencies(xp, x, torus, groups)
            back = products(xp, Spectrum(real, complex_), there, adjoint=adjoint)
            samples = tuple(x.shape[: x.ndim - groups - 1 - len(torus)])
            y: torch.Tensor = to_signal(xp, back, torus, samples)
        # Of y = Hx with G = ΔXᴴ body factors are (HᴴΔ, X), of z = Hᴴy with G = YΔᴴ they are (Z, Δ).
        square = real.shape[-1] == real.shape[-2]
        ctx.save_for_backward(*(back if adjoint and square else there), real, complex_)
        ctx.parameters = real, complex_
        ctx.how = torus, samples, adjoint
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *kept, real, complex_ = ctx.saved_tensors
        torus, samples, adjoint = ctx.how
        xp = array_namespace(grad)
        with torch.autocast(grad.device.type, enabled=False):
            cotangent = to_frequencies(xp, grad, torus, real.ndim - 3)
            pulled = products(xp, Spectrum(real, complex_), cotangent, adjoint=not adjoint)
            square = real.shape[-1] == real.shape[-2]
            left, right = (kept, cotangent) if adjoint else (pulled if square else cotangent, kept)
            parts = zip(ctx.parameters, ctx.needs_input_grad[1:3], left, right, strict=True)
            for parameter, needed, a, b in parts:
                if needed:
                    of_parameter(parameter).add(a, b)
            return to_signal(xp, pulled, torus, samples) if ctx.needs_input_grad[0] else None, *4 * [None]


# As for unitary_linear.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def recorded(x: torch.Tensor, spectrum: Spectrum, torus: tuple[int, ...], adjoint: bool) -> torch.Tensor:
    """H x, or Hᴴ x, whose backward pass captures factors for the two stacks."""
    y: torch.Tensor = _Convolved.apply(x, *spectrum, torus, adjoint)  # type: ignore[no-untyped-call]
    return y
