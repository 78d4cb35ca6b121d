"""The ways to move the recurrent matrix, each with its optimisers."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.parametrizations import orthogonal

import lowrank_unitary as lu
from lowrank_unitary.torch import UnitaryAdam

from .network import Long, Network, Recurrent

UPDATES = {"transport": "geodesic", "polar": "polar"}
MAPS = {"Cayley map": "cayley", "exponential map": "matrix_exp"}
# The learning rate of all other parameters over that of W. Steps of unitary matrices have entries of root
# mean square 1 times the rate whatever the rank is; a step of the optimiser changes every entry by it.
DIVIDERS = {"Cayley map": 10.0, "exponential map": 10.0, "geoopt": 32.0, "unconstrained": 32.0}
# Of RMSprop, and of Adam where gradients are averaged.
SECOND = 0.99


class DenseGeodesic(torch.optim.Optimizer):
    """RMSprop along dense geodesics, W ← W exp(−η A/√v): the step of :class:`UnitaryAdam` at full rank."""

    def __init__(self, weight: torch.nn.Parameter, lr: float, betas: tuple[float, float]) -> None:
        super().__init__([weight], {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; `closure` is not called."""
        for group in self.param_groups:
            (weight,), (first, second) = group["params"], group["betas"]
            pulled = weight.mH @ weight.grad
            tangent = (pulled - pulled.mH) / 2
            state = self.state[weight]
            steps = state["steps"] = state.get("steps", 0) + 1
            state["mean"] = first * state.get("mean", 0.0) + (1 - first) * tangent
            square = tangent.abs().square().mean()
            state["square"] = second * state.get("square", 0.0) + (1 - second) * square
            direction = state["mean"] / (1 - first**steps)
            scale = torch.sqrt(state["square"] / (1 - second**steps))
            turned = weight @ torch.linalg.matrix_exp(-group["lr"] / (scale + 1e-8) * direction)
            weight.copy_(turned)


def initial(start: str, hidden: int, seed: int) -> torch.Tensor:
    """An orthogonal matrix by the name of its initialiser."""
    if start == "identity":
        return torch.eye(hidden)
    make = {"henaff": lu.henaff_unitary, "cayley": lu.cayley_unitary, "haar": lu.random_unitary}[start]
    W: torch.Tensor = make(hidden, rng=seed, xp=torch, dtype=torch.float32)
    return W


def core(method: str, start: torch.Tensor) -> torch.nn.Module:
    """The recurrent part of a network, with the initial matrix `start` but in an LSTM."""
    if method == "LSTM":
        return Long(len(start))
    recurrent = Recurrent(start.clone())
    if method in MAPS:
        # The map acts on a skew-symmetric parameter, 0 at first, behind the start.
        orthogonal(recurrent, "weight", orthogonal_map=MAPS[method])
    if method == "geoopt":
        from geoopt import EuclideanStiefel, ManifoldParameter

        recurrent.weight = ManifoldParameter(start.clone(), manifold=EuclideanStiefel())
    return recurrent


def optimisers(
    network: Network, method: str, rank: int, rate: float, momentum: float, divider: float = 32.0
) -> list[torch.optim.Optimizer]:
    """RMSprop (or Adam) for every parameter; what the matrix moves by is the method."""
    betas = (momentum, SECOND)
    if method == "LSTM":
        return [torch.optim.Adam(network.parameters(), rate, betas=betas)]
    moved = network.recurrent.parametrizations.weight if method in MAPS else network.recurrent  # type: ignore[union-attr]
    weight = moved.original if method in MAPS else moved.weight  # type: ignore[union-attr]
    others = [parameter for parameter in network.parameters() if parameter is not weight]
    own = rate / (divider if method in (*UPDATES, "dense") else DIVIDERS[method])
    if method in UPDATES:
        low_rank = {"params": [weight], "lr": own, "rank": rank, "unitary": True, "update": UPDATES[method]}
        return [UnitaryAdam([low_rank, {"params": others}], rate, betas)]
    rest = torch.optim.Adam(others, rate, betas=betas)
    if method == "dense":
        return [DenseGeodesic(weight, own, betas), rest]  # type: ignore[arg-type]
    if method == "geoopt":
        from geoopt.optim import RiemannianAdam

        return [RiemannianAdam([weight], own, betas=betas), rest]
    return [torch.optim.Adam([weight], own, betas=betas), rest]  # type: ignore[arg-type]
