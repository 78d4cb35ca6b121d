"""The base of optimisers that move some parameters as unitary matrices, and the others as torch does."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from ..._array import (
    has_divided_rows,
    has_divided_stack,
    is_spread,
    local_part,
    note_change,
    real_dtype,
    spread_as,
    validate,
)
from ..._kernels import UPDATES
from ..._linalg import RNG, key_of, key_of_part
from ...step import unitary_step
from ...tangent.momentum import MomentumState, momentum_step
from ...tangent.sketch import compress_tangent, tangent_sketch
from ...types import BodyFactors, LowRankFactors
from ..capture import ambient, captured_factors, clear
from ..marking import check_matrix, check_unitary, is_marked

Gradient = torch.Tensor | BodyFactors | LowRankFactors
State = dict[str, Any]

# Entries up to which parameters of one kind are stacked and moved in one call (n = 256): the copies cost less
# than the calls.
_STACKED = 1 << 16


class UnitaryOptimiser(torch.optim.Optimizer):
    """Which parameters are unitary, their gradients, and one call for those of one kind."""

    # The rule for all other parameters.
    ordinary: type[torch.optim.Optimizer]

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        self._found_unitary: set[torch.Tensor] = set()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What has been loaded or copied is checked anew."""
        super().__setstate__(state)
        self._found_unitary = set()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, ``params`` and options such as ``unitary=True``, as ``torch.optim.Optimizer`` does."""
        super().add_param_group(param_group)
        # A refused group must not stay.
        group = self.param_groups.pop()
        self.check(group)
        self.param_groups.append(group)

    def check(self, group: dict[str, Any]) -> None:
        """Raise for options that a group cannot have."""
        for name in ("lr", "weight_decay"):
            check_number(name, group[name])
        for name in ("maximize", "unitary", "check"):
            check_flag(name, group[name])
        validate.choice("update", group["update"], UPDATES)
        for name in ("rank", "heal"):
            validate.count(name, group[name])
        seed = validate.index(group["seed"])
        if seed is None:
            raise TypeError(f"seed must be a whole number, got {group['seed']!r}.")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}.")
        for parameter in group["params"]:
            if group["unitary"]:
                check_matrix("a parameter of a group with unitary=True", parameter)
            if group["unitary"] or is_marked(parameter):
                n = min(parameter.shape[-2:])
                validate.rank(group["rank"], n)
                if group["heal"] > n:
                    raise ValueError(f"heal must be between 0 and n = {n}, got {group['heal']}.")

    # As it is also under torch.compile, which would record the count of steps and the random numbers with it.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all parameters that have a gradient; `closure` evaluates the model and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        positions, rest, any_unitary = itertools.count(), [], False
        stacks: dict[Any, list[tuple[int, torch.Tensor, Gradient]]]
        for group in self.param_groups:
            others, stacks = [], {}
            for parameter in group["params"]:
                position = next(positions)
                if not (group["unitary"] or is_marked(parameter)):
                    if "steps" in self.state.get(parameter, {}):
                        raise RuntimeError(
                            "a parameter that was moved as a unitary one has no mark: call mark_unitary on "
                            "it, or use a group with unitary=True."
                        )
                    others.append(parameter)
                    continue
                any_unitary = True
                if (gradient := _gradient(parameter)) is not None:
                    if parameter not in self._found_unitary and group["check"] and not is_zero(group["lr"]):
                        check_unitary(parameter, [group["seed"], position])
                        self._found_unitary.add(parameter)
                    kind = (
                        position if parameter.numel() > _STACKED or is_spread(parameter) else parameter.shape,
                        parameter.dtype,
                        parameter.device,
                        None if isinstance(gradient, torch.Tensor) else gradient[0].shape,
                        *((key, getattr(x, "shape", x)) for key, x in self.state[parameter].items()),
                    )
                    stacks.setdefault(kind, []).append((position, parameter, gradient))
            rest.append({**group, "params": others})
            for stack in stacks.values():
                self._move_together(group, *zip(*stack, strict=True))
        if not any_unitary:
            raise RuntimeError(
                f"{type(self).__name__} must have a unitary parameter, and none is marked and no group has "
                f"unitary=True: call mark_unitary on those that are (again after to_empty, and after "
                f"load_state_dict with assign=True), or use torch.optim.{self.ordinary.__name__}."
            )
        if any(group["params"] for group in rest):
            # The same state and the same groups, without those that are unitary.
            inner = self.ordinary(rest)  # type: ignore[call-arg]
            inner.state = self.state
            # Without the hooks of all optimisers, which run around this step already.
            move = self.ordinary.step
            getattr(move, "__wrapped__", move)(inner)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients, also those captured in factors."""
        super().zero_grad(set_to_none)
        for group in self.param_groups:
            for parameter in group["params"]:
                clear(parameter)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the result of ``state_dict()``, to the last bit."""
        given: State = {}
        # After all hooks that change the dict, and before all that read the result.
        hooks = (
            self.register_load_state_dict_pre_hook(lambda _, state_dict: given.update(state_dict)),
            self.register_load_state_dict_post_hook(lambda _: self._as_given(given), prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def _as_given(self, state_dict: dict[str, Any]) -> None:
        """Restore what torch changes as it loads a state."""
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
        alone, first = len(parameters) == 1, parameters[0]
        unitary = first.detach() if alone else torch.stack(parameters)
        gradient: Gradient
        if isinstance(gradients[0], torch.Tensor):
            gradient = _stacked(gradients)
        else:
            gradient = type(gradients[0])(*map(_stacked, zip(*gradients, strict=True)))
        states: list[State] = [self.state[parameter] for parameter in parameters]
        before = {
            key: x if isinstance(x, int) else _stacked([state[key] for state in states])
            for key, x in states[0].items()
        }
        steps = before.get("steps", 0)
        rng: Any = [group["seed"], positions[0], steps]
        rng = key_of_part(rng, first) if has_divided_stack(first) else key_of(rng, first)
        if not has_divided_rows(first):
            # Every process has whole matrices: what follows is on them alone.
            unitary = local_part(unitary)
            gradient = _local(gradient)
            before = {key: local_part(x) for key, x in before.items()}
        # torch takes rates of shape (1,) too.
        rate = group["lr"].reshape(()) if isinstance(group["lr"], torch.Tensor) else group["lr"]
        gradient, after = self.direction(group, unitary, gradient, before, rng)
        if is_zero(rate):
            # No step: what there is stays, healing and averages included, and what there is not begins.
            after = before or {key: torch.zeros_like(x) for key, x in after.items()} | {"steps": 0}
            moved = unitary
        else:
            after["steps"] = steps + 1
            moved = unitary_step(
                unitary,
                gradient,
                -rate if group["maximize"] else rate,
                rank=group["rank"],
                update=group["update"],
                heal=group["heal"],
                rng=rng,
                overwrite_unitary=is_readable(rate),
            )
        if not is_readable(rate):
            # Chosen where the rate is, without waiting for it.
            here = local_part(unitary)
            here.copy_(torch.where(rate == 0, here, local_part(moved)))
            moved = unitary
        for i, (parameter, state) in enumerate(zip(parameters, states, strict=True)):
            if not alone:
                parameter.copy_(moved[i])
            elif is_spread(parameter):
                note_change(parameter)
            for key, x in after.items():
                kept = x if alone or isinstance(x, int) else x[i].clone()
                # A checkpoint then knows which matrices of the stack they belong to.
                state[key] = spread_as(kept, first) if has_divided_stack(first) and key != "steps" else kept
            clear(parameter)

    def direction(
        self, group: dict[str, Any], unitary: torch.Tensor, gradient: Gradient, state: State, rng: RNG
    ) -> tuple[Gradient, State]:
        """The direction to move against, and the state for the next step."""
        raise NotImplementedError


def is_readable(rate: float | torch.Tensor) -> bool:
    """Whether a number can be had without waiting for a device."""
    return not isinstance(rate, torch.Tensor) or rate.device.type == "cpu"


def is_zero(rate: float | torch.Tensor) -> bool:
    """Whether a number is known to be zero."""
    return is_readable(rate) and bool(rate == 0)


def check_number(name: str, value: Any, bound: float = math.inf) -> None:
    """Raise unless an option is a number from 0 to below a bound; one on a device is not read."""
    given = value
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be one number, got a tensor of shape {tuple(value.shape)}.")
        value = value.item() if is_readable(value) else value.new_zeros((), device="cpu").item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {given!r} of type {type(given).__name__}.")
    if not 0 <= float(value) < bound:
        most = "finite" if bound == math.inf else f"less than {bound:g}"
        raise ValueError(f"{name} must be at least 0 and {most}, got {given}.")


def check_flag(name: str, value: Any) -> None:
    """Raise unless an option is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}.")


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
    if is_spread(parameter) and is_spread(grad):
        grad = _laid_out_as(parameter, grad)
    if factors is None:
        return grad
    # A capturing layer with a penalty on its weight.
    return grad + ambient(parameter, factors)


def _local(gradient: Gradient) -> Gradient:
    """What this process holds of a gradient."""
    if isinstance(gradient, torch.Tensor):
        return local_part(gradient)
    return type(gradient)(*map(local_part, gradient))


def _laid_out_as(parameter: Any, grad: Any) -> torch.Tensor:
    """A gradient, which may be a sum still to be made, divided among processes as its parameter is."""
    return grad.redistribute(placements=parameter.placements)


def _stacked(tensors: Any) -> torch.Tensor:
    """A stack of several tensors, or a single tensor itself."""
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors))


def averaged(
    group: dict[str, Any],
    unitary: torch.Tensor,
    gradient: Gradient,
    state: State,
    rng: RNG,
    *,
    scaling: str,
    **options: Any,
) -> tuple[Gradient, State]:
    """The direction of momentum_step, and the state for the next step."""
    if isinstance(gradient, BodyFactors):
        gradient = compress_tangent(gradient, group["rank"], rng=rng)
    else:
        gradient = tangent_sketch(unitary, gradient, group["rank"], rng=rng)
    if "left" in state:
        left, right = state["left"], state["right"]
        real = real_dtype(torch, left.dtype)
        none = torch.empty((0, 1), dtype=real, device=left.device)
        steps = torch.full((), state["steps"], dtype=real, device=left.device)
        averages = MomentumState(BodyFactors(left, right), state.get("second", none), steps)
    else:
        averages = MomentumState.start(unitary, group["rank"], scaling=scaling)
    direction, averages = momentum_step(gradient, averages, **options)
    kept = {"left": averages.momentum.left, "right": averages.momentum.right}
    return direction, kept if scaling == "none" else {**kept, "second": averages.second}
