"""Training with a learning rate chosen from a grid on validation images, and signals at the start."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...torch import UnitaryAdam, UnitaryConv2d
from .images import Images, Part
from .layers import Network, certified_radii, largest_defect, log_lipschitz

BATCH = 64
# Columns of a step of every matrix of an orthogonal layer.
RANK = 1
READOUT_RATE = 1e-2
RATES = {"orthogonal": (2e-4, 1e-3, 5e-3), "plain": (1e-5, 1e-4, 1e-3)}
# Each rate of the grid has this part of the steps; the best on the validation images goes on.
_TRIAL = 0.25
_EVALUATIONS = 3
# Images evaluated at once.
_EVALUATED = 256

Record = dict[str, Any]


@dataclass
class Run:
    """A network in training with one learning rate of its layers."""

    network: Network
    optimiser: torch.optim.Optimizer
    rate: float
    done: int = 0

    def until(self, step: int, steps: int, train: Part, seed: int) -> tuple[float, float]:
        """Train to a number of steps of all `steps`; the mean loss, and the median seconds a step.

        Rates fall to zero linearly over the second half.
        """
        losses, seconds = [], []
        for index in range(self.done, step):
            # The number of a step seeds its minibatch: the same for all networks.
            rng = np.random.default_rng([seed, index])
            chosen = rng.choice(len(train.labels), min(BATCH, len(train.labels)), replace=False)
            images, labels = (torch.from_numpy(array[chosen]) for array in train)
            fall = min(1.0, 2 * (1 - index / steps))
            for group, rate in zip(self.optimiser.param_groups, (self.rate, READOUT_RATE), strict=True):
                group["lr"] = rate * fall
            started = time.perf_counter()
            losses.append(training_step(self.network, self.optimiser, images, labels))
            seconds.append(time.perf_counter() - started)
        self.done = step
        return statistics.fmean(losses), statistics.median(seconds)


def training_step(
    network: Network, optimiser: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> float:
    """One step; the loss before it."""
    optimiser.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


def optimiser_of(network: Network, rate: float) -> torch.optim.Optimizer:
    """Adam, in low-rank steps for the matrices of orthogonal layers."""
    groups: list[dict[str, Any]] = [
        {"params": network.convolutions(), "lr": rate},
        {"params": network.readout.parameters()},
    ]
    if any(isinstance(layer, UnitaryConv2d) for layer in network.layers):
        return UnitaryAdam(groups, READOUT_RATE, rank=RANK)
    return torch.optim.Adam(groups, READOUT_RATE)


def train(
    make: Callable[[], Network],
    rates: tuple[float, ...],
    images: Images,
    *,
    steps: int,
    seed: int,
    radii: tuple[float, ...],
) -> list[Record]:
    """Train with the best rate: accuracies on the way, and at the end also what is certified."""
    trial = max(1, round(_TRIAL * steps))
    runs, tried = [], []
    for rate in rates:
        network = make()
        runs.append(Run(network, optimiser_of(network, rate), rate))
        loss, median = runs[-1].until(trial, steps, images.train, seed)
        correct, entropy = evaluate(network, images.validation)
        # Equal accuracies are common on few images.
        tried.append((correct, -entropy if math.isfinite(entropy) else -math.inf, loss, median))
    best = max(range(len(rates)), key=lambda index: tried[index][:2])
    run, loss, seconds = runs[best], tried[best][2], [tried[best][3]]
    records: list[Record] = []
    for stop in np.unique(np.linspace(trial, steps, _EVALUATIONS).round().astype(int)).tolist():
        if stop > run.done:
            loss, median = run.until(stop, steps, images.train, seed)
            seconds.append(median)
        correct, _ = evaluate(run.network, images.test)
        records.append({"step": stop, "rate": run.rate, "loss": loss, "accuracy": correct})
    records[-1] |= {
        "validation": evaluate(run.network, images.validation)[0],
        "seconds": statistics.median(seconds),
        "defect": largest_defect(run.network),
        "log_lipschitz": log_lipschitz(run.network),
        **certified(run.network, images.test, radii),
    }
    return records


@torch.no_grad()
def evaluate(network: Network, part: Part) -> tuple[float, float]:
    """The accuracy on some images, and the mean cross entropy."""
    images, labels = map(torch.from_numpy, part)
    scores = torch.cat([network(some) for some in torch.split(images, _EVALUATED)])
    correct = float((scores.argmax(dim=1) == labels).double().mean())
    return correct, float(torch.nn.functional.cross_entropy(scores, labels))


def certified(network: Network, part: Part, radii: tuple[float, ...]) -> Record:
    """The accuracy that no change of an image by less than each radius, in the ℓ2 norm, can lower."""
    images, labels = map(torch.from_numpy, part)
    parts = zip(torch.split(images, _EVALUATED), torch.split(labels, _EVALUATED), strict=True)
    found = torch.cat([certified_radii(network, *some) for some in parts])
    return {f"certified_{radius:g}": float((found > radius).double().mean()) for radius in radii}


def norms(network: Network, part: Part, seed: int) -> list[Record]:
    """Norms behind every layer, of the signal of a minibatch and of the gradient with respect to it.

    "spread" is the norm of the signal minus its mean over the images: what still tells them apart.
    """
    chosen = np.random.default_rng([seed, 0]).choice(len(part.labels), BATCH, replace=False)
    images, labels = (torch.from_numpy(array[chosen]) for array in part)
    signals = network.signals(images.to(network.lift.dtype).requires_grad_())
    loss = torch.nn.functional.cross_entropy(network.scores(signals[-1]), labels)
    gradients = torch.autograd.grad(loss, signals)
    signals = [signal.detach() for signal in signals]
    return [
        {
            "layer": layer,
            "signal": float(torch.linalg.norm(x)),
            "spread": float(torch.linalg.norm(x - x.mean(dim=0))),
            "gradient": float(torch.linalg.norm(g)),
        }
        for layer, (x, g) in enumerate(zip(signals, gradients, strict=True))
    ]
