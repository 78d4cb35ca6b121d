"""Stochastic gradient descent with unitary parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..._linalg import RNG
from .optimiser import Gradient, State, UnitaryOptimiser, averaged, check_flag, check_number


class UnitarySGD(UnitaryOptimiser):
    """Stochastic gradient descent, with unitary parameters moved by low-rank steps.

    Parameters that are marked (:func:`mark_unitary`), and those of a group with ``unitary=True``, are moved
    by :func:`lowrank_unitary.unitary_step` and stay unitary. All others are moved by ``torch.optim.SGD``, bit
    for bit.

    Parameters
    ----------
    params : iterable
        Parameters, named parameters, or dicts that define groups.
    lr : float or torch.Tensor
        Learning rate. For a unitary matrix the step size along the tangent part of the gradient.
    rank : int
        k, the number of columns of a step of a unitary parameter, and of its momentum.
    momentum : float
        β: the buffer is β times the last one, plus the gradient. For a unitary parameter it is a tangent in
        the body frame.
    nesterov : bool
        As in ``torch.optim.SGD``.
    weight_decay : float
        For ordinary parameters. It would not change a unitary matrix.
    maximize : bool
        Ascend.
    update : {"geodesic", "cayley", "polar"}
        How unitary parameters move, as in :func:`lowrank_unitary.unitary_step`.
    heal : int
        Random probes in each step that contract the unitarity defect (:func:`lowrank_unitary.heal_unitary`).
    seed : int
        Of the random numbers, which also depend on the position of the parameter and on the number of steps
        taken; there is no other random state.
    unitary : bool
        Whether all parameters are unitary, unless their group says otherwise.
    check : bool
        Whether the first step of a unitary parameter raises an error if four random probes find it further
        from unitary than rounding explains; O(n²).

    Notes
    -----
    O(kn²) for a unitary parameter of size n. Gradients captured in factors (:func:`unitary_linear`) are used
    as they are and cleared; ``.grad`` stays until ``zero_grad``. Steps are in place: torch refuses a backward
    pass of a graph recorded before. Parameters of one shape, dtype and device with up to 2¹⁶ entries are
    moved as a stack in one call. A NaN in the gradient gives NaN in the parameter.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary as lu
    >>> import lowrank_unitary.torch as lut
    >>> U = torch.nn.Parameter(torch.eye(8, dtype=torch.float64))
    >>> target = lu.cayley_unitary(8, rng=0, xp=torch, dtype=torch.float64)
    >>> optimiser = lut.UnitarySGD([U], lr=0.1, rank=2, momentum=0.5, unitary=True)
    >>> for _ in range(100):
    ...     optimiser.zero_grad()
    ...     loss = torch.sum((U - target) ** 2)
    ...     loss.backward()
    ...     optimiser.step()
    >>> bool(loss < 1e-3), bool(lu.is_unitary(U.detach()))
    (True, True)
    """

    ordinary = torch.optim.SGD

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | torch.Tensor = 1e-3,
        *,
        rank: int = 1,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        maximize: bool = False,
        update: str = "geodesic",
        heal: int = 1,
        seed: int = 0,
        unitary: bool = False,
        check: bool = True,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "rank": rank,
                "momentum": momentum,
                "nesterov": nesterov,
                "weight_decay": weight_decay,
                "maximize": maximize,
                "update": update,
                "heal": heal,
                "seed": seed,
                "unitary": unitary,
                "check": check,
            },
        )

    def check(self, group: dict[str, Any]) -> None:
        """Raise for options that a group cannot have."""
        super().check(group)
        check_number("momentum", group["momentum"], bound=1)
        check_flag("nesterov", group["nesterov"])
        options = ("lr", "momentum", "nesterov", "weight_decay")
        torch.optim.SGD([torch.zeros(1)], **{key: group[key] for key in options})

    def direction(
        self, group: dict[str, Any], unitary: torch.Tensor, gradient: Gradient, state: State, rng: RNG
    ) -> tuple[Gradient, State]:
        """β times the last buffer plus the gradient, kept to k columns; Nesterov's form on request."""
        if not group["momentum"]:
            return gradient, {}
        return averaged(
            group, unitary, gradient, state, rng,
            scaling="none", decay=group["momentum"], average=False, nesterov=group["nesterov"],
        )  # fmt: skip
