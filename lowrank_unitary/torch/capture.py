"""Layers that keep their gradient in thin factors and never form it."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

import torch

from ..types import BodyFactors, LowRankFactors
from .marking import is_marked, mark_unitary

_FACTORS = "_lowrank_unitary_factors"
# Columns kept as factors, in multiples of n: 16n² numbers at most. A sketch of m columns takes 16mn
# operations a sample, their n×n sum 2mn²: with few samples the factors are cheaper.
_MOST = 8


class Captured:
    """Factors of a gradient, of a stack too: rows of both, and the m×n sum of those beyond the limit.

    They are body factors of a square matrix, for which the gradient with respect to the input is one of them,
    and ambient factors of a rectangular one.
    """

    def __init__(self, *, square: bool = True) -> None:
        self.square = square
        self.pulled: list[torch.Tensor] = []
        self.inputs: list[torch.Tensor] = []
        self.columns = 0
        self.total: torch.Tensor | None = None

    def __reduce__(self) -> tuple[type[Captured], tuple[()]]:
        """Empty: like gradients, factors are not saved with a module."""
        return Captured, ()

    def add(self, pulled: torch.Tensor, inputs: torch.Tensor) -> None:
        """One more block of rows, (…, rows, n) or (…, rows, m) and (…, rows, n)."""
        self.pulled.append(pulled)
        self.inputs.append(inputs)
        self.columns += pulled.shape[-2]
        if self.columns > _MOST * inputs.shape[-1]:
            self.add_up()

    def add_up(self) -> None:
        """Sum the factors into an m×n matrix."""
        if self.columns:
            part = _joined(self.pulled).mT @ _joined(self.inputs).conj()
            self.total = part if self.total is None else self.total + part
        self.pulled, self.inputs, self.columns = [], [], 0

    def scale(self, factor: torch.Tensor) -> None:
        """Multiply all of it by a number."""
        self.pulled = [block * factor for block in self.pulled]
        self.total = None if self.total is None else self.total * factor

    def factors(self) -> BodyFactors | LowRankFactors:
        """The factors of everything captured."""
        kind = BodyFactors if self.square else LowRankFactors
        if self.total is not None:
            self.add_up()
            n = self.total.shape[-1]
            eye = torch.eye(n).to(self.total)
            return kind(self.total, eye.expand(*self.total.shape[:-2], n, n))
        return kind(_joined(self.pulled).mT, _joined(self.inputs).mT)


def _joined(blocks: list[torch.Tensor]) -> torch.Tensor:
    """All rows; of one block without a copy."""
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-2)


class _UnitaryLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.parameter = weight
        return x @ weight.mT

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        x, weight = ctx.saved_tensors
        # Under autocast they may have a narrower dtype than the weight.
        pulled = grad.to(weight.dtype) @ weight.conj()
        if ctx.needs_input_grad[1]:
            # Copies: both may be overwritten before the optimiser steps.
            captured = of_parameter(ctx.parameter)
            left = pulled.clone() if captured.square else grad.to(weight.dtype, copy=True)
            kept = left, x.detach().to(weight.dtype, copy=True)
            captured.add(*(block.reshape(-1, block.shape[-1]) for block in kept))
        return pulled.to(x.dtype), None


def unitary_linear(x: torch.Tensor, weight: torch.Tensor, /) -> torch.Tensor:
    """The product y = x Uᵀ, whose backward pass captures the body factors of the gradient with respect to U.

    They are x and the gradient with respect to x, for rectangular U that with respect to y; their product is
    never formed. ``weight.grad`` stays None: only the optimisers of this package use the factors.

    Parameters
    ----------
    x : torch.Tensor, shape (…, n)
    weight : torch.nn.Parameter, shape (m, n)
        U. It is marked as unitary.

    Returns
    -------
    torch.Tensor, shape (…, m)

    Notes
    -----
    Factors accumulate over uses of a weight and backward passes until an optimiser steps or its ``zero_grad``
    is called; more than 8n columns are summed to an n×n matrix, without loss. ``torch.autograd.grad``
    captures them as ``.backward()`` does.

    Where no gradient is recorded, or U requires none, this is a plain product. The gradient with respect to x
    is computed even if x requires none. No second derivatives, no ``torch.func`` transforms; under
    ``torch.compile`` the graph breaks here. What works on ``.grad`` misses the factors: GradScaler, hooks,
    averaging over processes other than :func:`average_factors`, and gradient clipping other than
    :func:`clip_grad_norm_`.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> U = torch.nn.Parameter(torch.eye(5))
    >>> h = torch.ones(3, 5)
    >>> for _ in range(4):
    ...     h = torch.tanh(lut.unitary_linear(h, U))
    >>> h.sum().backward()
    >>> U.grad is None, lut.captured_factors(U).left.shape
    (True, torch.Size([5, 12]))
    """
    if weight.ndim != 2:
        raise ValueError(f"weight must be one matrix, of shape (m, n), got {tuple(weight.shape)}.")
    if weight.requires_grad and not weight.is_leaf:
        raise ValueError(
            "weight must be a parameter itself, got the result of an operation, such as a part of a stack or "
            "a parametrised weight, behind which the factors would be lost: use x @ weight.mT there."
        )
    return _recorded(x, weight)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _recorded(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if not is_marked(weight):
        mark_unitary(weight)
    y: torch.Tensor = _UnitaryLinear.apply(x, weight)  # type: ignore[no-untyped-call]
    return y


class CapturingLinear(torch.nn.Linear):
    """A linear layer whose gradient with respect to its weight is captured in factors."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``input`` Uᵀ + bias."""
        y = unitary_linear(input, self.weight)
        return y if self.bias is None else y + self.bias


def capture_factors(module: torch.nn.Linear, /) -> torch.nn.Linear:
    """Let a linear layer capture its gradient as :func:`unitary_linear` does, and return it.

    Parameters
    ----------
    module : torch.nn.Linear
        Its weight is unitary, or has orthonormal columns or rows; it is marked as such. The module is changed
        in place to an instance of a subclass, so that copies and pickles capture as well. In other modules
        call :func:`unitary_linear`.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> layer = lut.capture_factors(torch.nn.Linear(6, 6))
    >>> layer(torch.ones(2, 6)).sum().backward()
    >>> layer.weight.grad is None, layer.bias.grad is None
    (True, False)
    """
    if type(module) not in (torch.nn.Linear, CapturingLinear):
        raise TypeError(
            f"module must be a torch.nn.Linear as it is, got {type(module).__name__}: call unitary_linear "
            f"in the forward pass of other modules."
        )
    mark_unitary(module.weight)
    module.__class__ = CapturingLinear
    return module


def captured_factors(parameter: torch.Tensor, /) -> BodyFactors | LowRankFactors | None:
    """The factors captured for a parameter (…, m, n) since it was last moved or cleared.

    Returns
    -------
    BodyFactors, LowRankFactors or None
        For square U left and right (…, n, columns) with left @ rightᴴ = UᴴG; for a rectangular one
        LowRankFactors with left @ rightᴴ = G.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> lut.captured_factors(torch.nn.Parameter(torch.eye(3))) is None
    True
    """
    captured = getattr(parameter, _FACTORS, None)
    if captured is None or (captured.total is None and not captured.columns):
        return None
    factors: BodyFactors | LowRankFactors = captured.factors()
    return factors


def clip_grad_norm_(
    parameters: Iterable[torch.Tensor] | torch.Tensor, max_norm: float, *, error_if_nonfinite: bool = False
) -> torch.Tensor:
    """Scale all gradients to a norm of at most `max_norm`, those captured in factors too.

    Parameters
    ----------
    parameters : iterable of torch.Tensor, or torch.Tensor
        Ordinary and unitary ones.
    max_norm : float
        From 0 on; inf only measures.
    error_if_nonfinite : bool
        Raise for a norm that is not finite, instead of making all gradients NaN or zero.

    Returns
    -------
    torch.Tensor, shape ()
        The norm before, over all entries of all gradients together.

    Raises
    ------
    RuntimeError
        For a norm that is not finite, where that is asked for.
    TypeError, ValueError
        For a `max_norm` that is no number from 0 on.

    Notes
    -----
    As ``torch.nn.utils.clip_grad_norm_``, which reads ``.grad`` alone. For a unitary U captured factors have
    the norm of the gradient that they stand for. O(nm²) for m captured columns, O(mn²) for more than n.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> layer = lut.capture_factors(torch.nn.Linear(3, 3, bias=False))
    >>> layer.weight.data = torch.eye(3)
    >>> layer(torch.ones(1, 3)).sum().backward()
    >>> round(float(lut.clip_grad_norm_(layer.parameters(), 0.5)), 4)
    3.0
    >>> round(float(lut.clip_grad_norm_(layer.parameters(), torch.inf)), 4)
    0.5
    """
    if isinstance(max_norm, bool) or not isinstance(max_norm, numbers.Real):
        raise TypeError(
            f"max_norm must be a real number, got {max_norm!r} of type {type(max_norm).__name__}."
        )
    if not float(max_norm) >= 0:
        raise ValueError(f"max_norm must be 0 or more, got {max_norm}.")
    given = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
    with torch.no_grad():
        norms = [_gradient_norm(parameter) for parameter in given]
        found = [norm for norm in norms if norm is not None]
        if not found:
            return torch.tensor(0.0)
        total = torch.linalg.vector_norm(torch.stack([norm.to(found[0]) for norm in found]))
        if error_if_nonfinite and not bool(torch.isfinite(total)):
            raise RuntimeError(f"the norm of the gradients is not finite, it is {float(total)}.")
        # As in torch: always multiplied, so that nothing waits for a device.
        factor = torch.clamp(float(max_norm) / (total + 1e-6), max=1.0)
        for parameter in given:
            if parameter.grad is not None:
                parameter.grad.mul_(factor.to(parameter.device))
            if captured_factors(parameter) is not None:
                of_parameter(parameter).scale(factor.to(parameter.device))
    return total


def _gradient_norm(parameter: torch.Tensor) -> torch.Tensor | None:
    """Of the gradient with respect to one parameter, dense, captured or both."""
    factors, grad = captured_factors(parameter), parameter.grad
    if factors is None:
        return None if grad is None else torch.linalg.vector_norm(grad)
    left, right = factors
    if grad is not None:
        return torch.linalg.vector_norm(grad + ambient(parameter, factors))
    if left.shape[-1] < min(left.shape[-2], right.shape[-2]):
        # Q factors have no part in the norm.
        left, right = (torch.linalg.qr(x, mode="r").R for x in factors)
    return torch.linalg.vector_norm(left @ right.mH)


def ambient(parameter: torch.Tensor, factors: BodyFactors | LowRankFactors) -> torch.Tensor:
    """The gradient that captured factors stand for, m×n."""
    left = parameter @ factors.left if isinstance(factors, BodyFactors) else factors.left
    return left @ factors.right.mH


def of_parameter(parameter: torch.Tensor) -> Captured:
    """The store of a parameter's factors."""
    captured = getattr(parameter, _FACTORS, None)
    if captured is None:
        captured = Captured(square=parameter.shape[-1] == parameter.shape[-2])
        setattr(parameter, _FACTORS, captured)
    return captured


def clear(parameter: torch.Tensor) -> None:
    """Drop the captured factors."""
    if hasattr(parameter, _FACTORS):
        delattr(parameter, _FACTORS)
