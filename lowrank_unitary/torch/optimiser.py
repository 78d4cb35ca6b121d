"""The base of optimisers that move some parameters as unitary matrices, and the others as torch does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from .._array import validate
from .._kernels import UPDATES
from ..step import unitary_step
from ..tangent.momentum import MomentumState, momentum_step
from ..tangent.sketch import compress_tangent, tangent_sketch
from ..types import BodyFactors
from .capture import captured_factors, clear
from .marking import check_square, is_marked

Gradient = torch.Tensor | BodyFactors
State = dict[str, Any]

# Entries up to which parameters of one kind are stacked and moved in one call (n = 256): the copies cost less
# than the calls.
_STACKED = 1 << 16


class UnitaryOptimiser(torch.optim.Optimizer):
    """Which parameters are unitary, their gradients, and one call for those of one kind."""

    # The rule for all other parameters.
    ordinary: type[torch.optim.Optimizer]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, ``params`` and options such as ``unitary=True``, as ``torch.optim.Optimizer`` does."""
        super().add_param_group(param_group)
        # A refused group must not stay.
        group = self.param_groups.pop()
        self.check(group)
        self.param_groups.append(group)

    def check(self, group: dict[str, Any]) -> None:
        """Raise for options that a group cannot have."""
        validate.choice("update", group["update"], UPDATES)
        for name in ("heal", "seed"):
            validate.count(name, group[name])
        for parameter in group["params"]:
            if group["unitary"]:
                check_square("a parameter of a group with unitary=True", parameter)
            if group["unitary"] or is_marked(parameter):
                n = parameter.shape[-1]
                validate.rank(group["rank"], n)
                if group["heal"] > n:
                    raise ValueError(f"heal must be between 0 and n = {n}, got {group['heal']}.")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all parameters that have a gradient; `closure` evaluates the model and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        positions, rest = itertools.count(), []
        stacks: dict[Any, list[tuple[int, torch.Tensor, Gradient]]]
        for group in self.param_groups:
            others, stacks = [], {}
            for parameter in group["params"]:
                position = next(positions)
                if not (group["unitary"] or is_marked(parameter)):
                    if "steps" in self.state.get(parameter, {}):
                        raise RuntimeError(
                            "a parameter that was moved as a unitary one has lost its mark, as a deepcopy "
                            "does: call mark_unitary on it, or use a group with unitary=True."
                        )
                    others.append(parameter)
                elif (gradient := _gradient(parameter)) is not None:
                    kind = (
                        position if parameter.numel() > _STACKED else parameter.shape,
                        parameter.dtype,
                        parameter.device,
                        gradient[0].shape if isinstance(gradient, BodyFactors) else None,
                        *((key, getattr(x, "shape", x)) for key, x in self.state[parameter].items()),
                    )
                    stacks.setdefault(kind, []).append((position, parameter, gradient))
            rest.append({**group, "params": others})
            for stack in stacks.values():
                self._move_together(group, *zip(*stack, strict=True))
        if any(group["params"] for group in rest):
            # The same state and the same groups, without those that are unitary.
            inner = self.ordinary(rest)  # type: ignore[call-arg]
            inner.state = self.state
            inner.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients, also those captured in factors."""
        super().zero_grad(set_to_none)
        for group in self.param_groups:
            for parameter in group["params"]:
                clear(parameter)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the result of ``state_dict()``, to the last bit."""
        super().load_state_dict(state_dict)
        # Groups saved by another optimiser lack some options.
        for group in self.param_groups:
            for key, value in self.defaults.items():
                group.setdefault(key, value)
        # torch casts state to the dtype of its parameter; for half precision factors are float32.
        for saved, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            for index, parameter in zip(saved["params"], group["params"], strict=True):
                for key in ("left", "right", "second"):
                    if key in (state := state_dict["state"].get(index, {})):
                        self.state[parameter][key] = state[key].to(parameter.device)

    def _move_together(
        self,
        group: dict[str, Any],
        positions: tuple[int, ...],
        parameters: tuple[torch.Tensor, ...],
        gradients: tuple[Gradient, ...],
    ) -> None:
        """One step of parameters of one kind, in place; more than one of them as a stack."""
        alone = len(parameters) == 1
        unitary = parameters[0].detach() if alone else torch.stack(parameters)
        gradient: Gradient
        if isinstance(gradients[0], BodyFactors):
            gradient = BodyFactors(*map(_stacked, zip(*gradients, strict=True)))
        else:
            gradient = _stacked(gradients)
        states: list[State] = [self.state[parameter] for parameter in parameters]
        before = {
            key: x if isinstance(x, int) else _stacked([state[key] for state in states])
            for key, x in states[0].items()
        }
        steps = before.get("steps", 0)
        rng = [group["seed"], positions[0], steps]
        if isinstance(gradient, BodyFactors):
            # As many products as with an n×n gradient.
            gradient = compress_tangent(gradient, group["rank"], power_iterations=0, rng=rng)
        gradient, after = self.direction(group, unitary, gradient, before, rng)
        after["steps"] = steps + 1
        moved = unitary_step(
            unitary,
            gradient,
            -group["lr"] if group["maximize"] else group["lr"],
            rank=group["rank"],
            update=group["update"],
            heal=group["heal"],
            rng=rng,
            overwrite_unitary=True,
        )
        for i, (parameter, state) in enumerate(zip(parameters, states, strict=True)):
            if not alone:
                parameter.copy_(moved[i])
            for key, x in after.items():
                state[key] = x if alone or isinstance(x, int) else x[i].clone()
            clear(parameter)

    def direction(
        self, group: dict[str, Any], unitary: torch.Tensor, gradient: Gradient, state: State, rng: list[int]
    ) -> tuple[Gradient, State]:
        """The direction to move against, and the state for the next step."""
        raise NotImplementedError


def _gradient(parameter: torch.Tensor) -> Gradient | None:
    """The gradient as an array, or in captured factors."""
    factors, grad = captured_factors(parameter), parameter.grad
    if grad is None:
        return factors
    if grad.is_sparse:
        raise RuntimeError(
            "a unitary parameter must have a dense gradient, got a sparse one: leave sparse=False in the "
            "module that makes it."
        )
    if factors is None:
        return grad
    # A capturing layer with a penalty on its weight.
    return grad + (parameter @ factors.left) @ factors.right.mH


def _stacked(tensors: Any) -> torch.Tensor:
    """A stack of several tensors, or a single tensor itself."""
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors))


def averaged(
    group: dict[str, Any],
    unitary: torch.Tensor,
    gradient: Gradient,
    state: State,
    rng: list[int],
    *,
    scaling: str,
    **options: Any,
) -> tuple[Gradient, State]:
    """The direction of momentum_step, and the state for the next step."""
    if not isinstance(gradient, BodyFactors):
        gradient = tangent_sketch(unitary, gradient, group["rank"], rng=rng)
    averages = MomentumState.start(unitary, group["rank"], scaling=scaling)
    if "left" in state:
        averages = MomentumState(
            BodyFactors(state["left"], state["right"]),
            state.get("second", averages.second),
            averages.steps + state["steps"],
        )
    direction, averages = momentum_step(gradient, averages, **options)
    kept = {"left": averages.momentum.left, "right": averages.momentum.right}
    return direction, kept if scaling == "none" else {**kept, "second": averages.second}
