"""Experiment: two marked numbers of a long sequence, added."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..study import Case, Row, Study
from .figures import curves
from .recurrent.cases import every_method, label, seconds, so_far

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .recurrent.training import Task

HIDDEN, BATCH = 170, 50
# Initialiser, learning rate, momentum, divider of the rate of W.
SETTINGS = {"paper's": ("identity", 1e-3, 0.0, 32.0), "ours": ("cayley", 5e-3, 0.9, 32.0)}
SOLVED = 0.01
# To answer 1 always.
BASELINE = 1 / 6

TEXT = """A sequence has numbers from [0, 1] in one channel and two marks in the other, one in each half; \
the network is asked for the sum of the two marked numbers. To answer 1 always has a mean squared error of \
1/6: the dashed line. The paper shows curves for T = 200 and 750 with 170 hidden units, on which \
k = 1, 4 and 16 are almost equally fast.

"Paper's" settings are RMSprop at 1e-3, a thirty-second of it for W, and W = I; the activation is modReLU \
here in both. "Ours" are Adam (β₁ = 0.9) at 5e-3 and a Cayley start. In both the tangent of W is divided by \
one number, where the paper divides its gradient entry by entry; minibatches have 50 sequences. Errors are \
those on 500 other sequences."""


def cases(full: bool) -> list[Case]:
    """One unit of work a curve."""
    runs = [
        # length, settings, method, rank, steps
        (200, "ours", "transport", 1, 4500),
        (200, "ours", "unconstrained", 0, 3000),
        (200, "paper's", "transport", 1, 500),
        *((50, "ours", "transport", rank, 2000) for rank in (1, 4, 16)),
        (50, "ours", "polar", 4, 2000),
        (50, "ours", "dense", 0, 2000),
        (50, "ours", "LSTM", 0, 2000),
    ]
    if full:
        runs += [
            (length, settings, method, rank, 20_000)
            for length in (200, 750)
            for settings in SETTINGS
            for method, rank in every_method()
        ]
    names = ("length", "settings", "method", "rank", "steps")
    return [{**dict(zip(names, run, strict=True)), "hidden": HIDDEN} for run in runs]


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    return seconds(case, batch=BATCH, length=int(case["length"]))


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """Errors at forty numbers of steps."""
    from .recurrent.training import train

    return train(case, task(case), seed, scratch)


def task(case: Case) -> Task:
    """Sequences, network and rates."""
    import torch

    from .recurrent import problems
    from .recurrent.network import Network
    from .recurrent.training import Task

    start, rate, momentum, divider = SETTINGS[case["settings"]]
    length = int(case["length"])
    tests = problems.adding(length, 500, np.random.default_rng(0))

    def loss(scores: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        return (scores[:, 0] - answers).square().mean()

    def evaluate(network: Network) -> Row:
        return {"error": float(loss(network(tests.sequences), tests.answers))}

    def inputs(hidden: int) -> torch.nn.Module:
        layer = torch.nn.Linear(2, hidden)
        if start == "identity":
            # Inputs add up: all of them together shall be of size 1.
            torch.nn.init.normal_(layer.weight, std=1 / length)
            torch.nn.init.zeros_(layer.bias)
        return layer

    return Task(
        lambda rng: problems.adding(length, BATCH, rng), loss, evaluate, inputs, 1,
        last=True, start=start, rate=rate, momentum=momentum, divider=divider,
    )  # fmt: skip


def figure(rows: list[Row]) -> Figure:
    """Error against steps and minutes, by the length of the sequence."""
    return curves.figure(
        rows, "error", panels=("length",), axis="mean squared error", log=True,
        baseline=lambda row: BASELINE, title=lambda row: f"T = {row['length']}, n = {row['hidden']}",
    )  # fmt: skip


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Where every run came below 0.01, and its end."""
    header = ["T", "settings", "method", "steps", "always 1", "paper", "below 0.01", "at the end", "defect"]
    lines = []
    for run in curves.runs(rows, ("length", "settings", "method", "rank", "steps")).values():
        last = run[-1]
        lines.append(
            [
                str(last["length"]),
                last["settings"],
                label(last),
                str(last["step"]),
                f"{BASELINE:.3f}",
                "converges, a figure" if last["method"] == "transport" else "–",
                curves.reached(curves.first_below(run, "error", SOLVED)),
                f"{last['error']:.2g}",
                "–" if last["method"] == "LSTM" else f"{last['defect']:.1g}",
            ]
        )
    return header, lines


STUDY = Study(
    name="adding",
    title="Two marked numbers of a long sequence, added",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    so_far=so_far,
    figure=figure,
    table=table,
)
