"""Train a network by one method, with records of what it has learnt and of the CPU seconds that took."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import lowrank_unitary as lu

from ...networks.threads import one_thread
from ...progress import tell
from ...study import Case, Row
from .methods import core, initial, optimisers
from .network import Network
from .problems import Batch

# Seconds between two saved states.
_SAVED_EVERY = 20.0


@dataclass(frozen=True)
class Task:
    """What is learnt, by which network, in which steps.

    ``sample(rng)`` makes a minibatch, ``loss(scores, answers)`` is what falls, ``evaluate(network)`` what is
    recorded beside it. Rates, momentum and divider as in :func:`.methods.optimisers`; with `decay` all rates
    fall to zero along half a cosine.
    """

    sample: Callable[[np.random.Generator], Batch]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    evaluate: Callable[[Network], Row]
    inputs: Callable[[int], torch.nn.Module]
    outputs: int
    last: bool
    start: str
    rate: float
    momentum: float = 0.0
    divider: float = 32.0
    decay: bool = False
    records: int = 40


class Run:
    """A network on its way; `rows` has the records so far."""

    def __init__(self, case: Case, task: Task, seed: int) -> None:
        self._case, self._task, self._seed = case, task, seed
        hidden = int(case["hidden"])
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            # First what all methods share, so that they begin alike.
            inputs, readout = task.inputs(hidden), torch.nn.Linear(hidden, task.outputs)
            recurrent = core(case["method"], initial(task.start, hidden, seed))
        self.network = Network(recurrent, inputs, hidden, task.outputs, last=task.last)
        self.network.readout = readout
        self._optimisers = optimisers(
            self.network, case["method"], int(case["rank"]), task.rate, task.momentum, task.divider
        )
        self._rates = {
            optimiser: [group["lr"] for group in optimiser.param_groups] for optimiser in self._optimisers
        }
        self.done, self.seconds, self.rows = 0, 0.0, list[Row]()
        self._losses: list[float] = []

    def step(self) -> None:
        """One training step."""
        batch = self._task.sample(np.random.default_rng([self._seed, self.done]))
        if self._task.decay:
            factor = 0.5 * (1 + math.cos(math.pi * self.done / int(self._case["steps"])))
            for optimiser in self._optimisers:
                for group, rate in zip(optimiser.param_groups, self._rates[optimiser], strict=True):
                    group["lr"] = factor * rate
        started = time.process_time()
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        loss = self._task.loss(self.network(batch.sequences), batch.answers)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in self._optimisers:
            optimiser.step()
        self._losses.append(float(loss.detach()))
        self.seconds += time.process_time() - started
        self.done += 1

    def record(self) -> None:
        """Evaluate; the loss is the mean since the last record."""
        with torch.no_grad():
            found = self._task.evaluate(self.network)
            weight = getattr(self.network.recurrent, "weight", None)
            defect = math.nan if weight is None else float(lu.unitarity_defect(weight.detach()))
        loss = statistics.fmean(self._losses) if self._losses else math.nan
        self.rows.append(
            {"step": self.done, "seconds": self.seconds, "loss": loss, **found, "defect": defect}
        )
        self._losses = []

    def save(self, path: Path) -> None:
        """Write all that a later process needs to go on."""
        temporary = path.with_suffix(".part")
        state = {
            "rows": self.rows,
            "done": self.done,
            "seconds": self.seconds,
            "losses": self._losses,
            "network": self.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }
        torch.save(state, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        """Go on from a saved state."""
        state = torch.load(path, weights_only=False)
        self.rows, self.done, self.seconds = state["rows"], state["done"], state["seconds"]
        self._losses = state["losses"]
        self.network.load_state_dict(state["network"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)


def train(case: Case, task: Task, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """All records of a case, from the state in `scratch` if there is one.

    The initial network and the minibatches depend on the first word of the seed alone: they are the same for
    all methods.
    """
    common = int(np.ravel(np.asarray(seed.entropy, dtype=object))[0])
    with one_thread():
        # A first step compiles and allocates.
        Run(case, task, common).step()
        run = Run(case, task, common)
        if scratch.exists():
            run.load(scratch)
        steps = int(case["steps"])
        stops = set(np.linspace(0, steps, task.records + 1).round().astype(int).tolist())
        if not run.rows:
            run.record()
        saved = time.monotonic()
        tell(run.done / max(steps, 1))
        while run.done < steps:
            run.step()
            if run.done in stops:
                run.record()
                if not math.isfinite(run.rows[-1]["loss"]):
                    break
            tell(run.done / steps)
            if time.monotonic() - saved > _SAVED_EVERY and run.done < steps:
                run.save(scratch)
                saved = time.monotonic()
    return run.rows
