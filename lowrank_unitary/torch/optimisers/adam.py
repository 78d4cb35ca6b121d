"""Adam and RMSprop with unitary parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..._array import validate
from ..._linalg import RNG
from .optimiser import Gradient, State, UnitaryOptimiser, averaged, check_number


class UnitaryAdam(UnitaryOptimiser):
    """Adam, with unitary parameters moved by low-rank steps.

    Unitary parameters, chosen as for :class:`UnitarySGD`, are moved along directions of
    :func:`lowrank_unitary.momentum_step`; all others by ``torch.optim.Adam``, bit for bit.

    Parameters
    ----------
    params, rank, weight_decay, maximize, update, heal, seed, unitary, check : as for
        :class:`UnitarySGD`
    lr : float or torch.Tensor
        Learning rate. The tangent that a unitary matrix moves along has entries of root mean square 1.
    betas : (float, float)
        Decay of the averages of the gradient and of its squares. ``(0.0, 0.99)`` is RMSprop with torch's
        decay, but for the bias correction of the first steps.
    eps : float
        Added to the root mean squares that a direction is divided by; for a unitary parameter they are those
        of the tangent part of the gradient.
    scaling : {"scalar", "rows"}
        As for :func:`lowrank_unitary.momentum_step`.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary as lu
    >>> import lowrank_unitary.torch as lut
    >>> layer = torch.nn.Linear(8, 8)
    >>> lut.capture_factors(layer).weight.data = torch.eye(8)
    >>> optimiser = lut.UnitaryAdam(layer.parameters(), lr=0.01, rank=2)
    >>> layer(torch.ones(3, 8)).square().sum().backward()
    >>> optimiser.step()
    >>> bool(lu.is_unitary(layer.weight.detach()))
    True
    """

    ordinary = torch.optim.Adam

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        rank: int = 1,
        scaling: str = "scalar",
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
                "betas": betas,
                "eps": eps,
                "rank": rank,
                "scaling": scaling,
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
        if not isinstance(group["betas"], tuple | list) or len(group["betas"]) != 2:
            raise TypeError(f"betas must be a pair of numbers, got {group['betas']!r}.")
        for i, beta in enumerate(group["betas"]):
            check_number(f"betas[{i}]", beta, bound=1)
        check_number("eps", group["eps"])
        validate.choice("scaling", group["scaling"], ("scalar", "rows"))
        options = ("lr", "betas", "eps", "weight_decay")
        torch.optim.Adam([torch.zeros(1)], **{key: group[key] for key in options})

    def direction(
        self, group: dict[str, Any], unitary: torch.Tensor, gradient: Gradient, state: State, rng: RNG
    ) -> tuple[Gradient, State]:
        """The average gradient divided by a root mean square."""
        decay, second_decay = group["betas"]
        return averaged(
            group, unitary, gradient, state, rng,
            scaling=group["scaling"], decay=decay, second_decay=second_decay, eps=group["eps"],
        )  # fmt: skip
