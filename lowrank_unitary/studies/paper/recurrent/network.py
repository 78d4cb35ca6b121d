"""A recurrent network with one square matrix, and its gradient by back-propagation through time."""

from __future__ import annotations

from typing import Any

import torch


class _Recurrence(torch.autograd.Function):
    """z_t = W h_{t−1} + x_t and h_t = sign(z_t) max(|z_t| + d, 0), from h_0 = 0."""

    @staticmethod
    def forward(ctx: Any, driven: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        z, states = torch.empty_like(driven), torch.empty_like(driven)
        h, transposed = torch.zeros_like(driven[0]), weight.mT
        for x, z_t, h_t in zip(driven, z, states, strict=True):
            torch.addmm(x, h, transposed, out=z_t)
            torch.abs(z_t, out=h_t)
            h_t.add_(bias).clamp_(min=0).mul_(torch.sign(z_t))
            h = h_t
        ctx.save_for_backward(z, states, weight, bias)
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z, states, weight, bias = ctx.saved_tensors
        # Where h is not zero its slope is 1: in z, and up to the sign of z in d.
        deltas = (z.abs().add_(bias) > 0).to(z.dtype)
        deltas[-1].mul_(grad[-1])
        carried = torch.empty_like(deltas[0])
        for t in range(len(z) - 2, -1, -1):
            torch.addmm(grad[t], deltas[t + 1], weight, out=carried)
            deltas[t].mul_(carried)
        of_weight = deltas[1:].flatten(0, 1).mT @ states[:-1].flatten(0, 1)
        return deltas, of_weight, (deltas * torch.sign(z)).sum((0, 1))


class Recurrent(torch.nn.Module):
    """h_t = modReLU(W h_{t−1} + V x_t, d), all of them."""

    def __init__(self, start: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(start)
        self.bias = torch.nn.Parameter(torch.zeros_like(start[0]))

    def forward(self, driven: torch.Tensor) -> torch.Tensor:
        """The states (T, B, n) for inputs V x of that shape."""
        states: torch.Tensor = _Recurrence.apply(driven, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return states


class Long(torch.nn.Module):
    """A long short-term memory, driven through all of its gates."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(hidden, hidden)

    def forward(self, driven: torch.Tensor) -> torch.Tensor:
        """The states (T, B, n) for inputs of that shape."""
        states: torch.Tensor = self.lstm(driven)[0]
        return states


class Network(torch.nn.Module):
    """Symbols (T, B) or vectors (T, B, d) → hidden states → scores of every state or of the last one."""

    def __init__(
        self, recurrent: torch.nn.Module, inputs: torch.nn.Module, hidden: int, outputs: int, *, last: bool
    ) -> None:
        super().__init__()
        self.recurrent, self.inputs, self.last = recurrent, inputs, last
        self.readout = torch.nn.Linear(hidden, outputs)

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        """(B, outputs), or (T, B, outputs)."""
        states = self.recurrent(self.inputs(sequences))
        scores: torch.Tensor = self.readout(states[-1] if self.last else states)
        return scores
