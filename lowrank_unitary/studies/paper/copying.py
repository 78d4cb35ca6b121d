"""Experiment: ten symbols, said again after a long silence."""

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

HIDDEN = 190
# Batch size, learning rate, momentum.
SETTINGS = {"paper's": (128, 7e-4, 0.0), "ours": (32, 5e-3, 0.9)}
SOLVED = 0.1

TEXT = """Ten symbols out of eight are shown, then T blanks, a mark and ten blanks; the answer is blank \
until the mark, and then the ten symbols. Without a memory the best is to guess them, with a cross-entropy \
of 10 ln 8 / (T + 20): the dashed line. The paper solves T = 1000 and 2000 with 190 hidden units, in 20,000 \
steps, and shows curves.

"Paper's" settings are minibatches of 128 and RMSprop at 7e-4, with a thirty-second of it for W, and \
Henaff's start; they are for --full, and shown for one short silence here. "Ours" are minibatches of 32 \
and Adam (β₁ = 0.9) at 5e-3: four times as many steps in the same time, and longer ones. In both the tangent \
of W is divided by one number, where the paper divides its gradient entry by entry. A problem counts as \
solved where the mean cross-entropy since the last record is below a tenth of the dashed line. The \
unconstrained network has the same start and rates, its W included."""


def cases(full: bool) -> list[Case]:
    """One unit of work a curve."""
    runs = [
        # length, settings, method, rank, steps
        (1000, "ours", "transport", 1, 1000),
        (200, "paper's", "transport", 1, 400),
        (200, "ours", "transport", 1, 500),
        (200, "ours", "polar", 4, 500),
        (200, "ours", "dense", 0, 500),
        (200, "ours", "unconstrained", 0, 500),
        (200, "ours", "LSTM", 0, 250),
    ]
    if full:
        runs += [
            (length, "paper's", method, rank, 20_000)
            for length in (1000, 2000)
            for method, rank in every_method()
        ]
        runs.append((2000, "ours", "transport", 1, 2000))
    names = ("length", "settings", "method", "rank", "steps")
    return [{**dict(zip(names, run, strict=True)), "hidden": HIDDEN} for run in runs]


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    return seconds(case, batch=SETTINGS[case["settings"]][0], length=int(case["length"]) + 20)


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """The cross-entropy at forty numbers of steps."""
    from .recurrent.training import train

    return train(case, task(case), seed, scratch)


def task(case: Case) -> Task:
    """Sequences, network and rates."""
    import torch

    from .recurrent import problems
    from .recurrent.training import Task

    batch, rate, momentum = SETTINGS[case["settings"]]

    def inputs(hidden: int) -> torch.nn.Module:
        table = torch.nn.Embedding(problems.SYMBOLS + 2, hidden)
        torch.nn.init.kaiming_normal_(table.weight.mT, nonlinearity="relu")
        return table

    def loss(scores: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(scores.flatten(0, 1), answers.flatten())

    return Task(
        lambda rng: problems.copying(case["length"], batch, rng), loss, lambda network: {}, inputs,
        problems.SYMBOLS + 1, last=False, start="henaff", rate=rate, momentum=momentum,
    )  # fmt: skip


def baseline(row: Row) -> float:
    """The cross-entropy without a memory."""
    return 10 * float(np.log(8)) / (row["length"] + 20)


def figure(rows: list[Row]) -> Figure:
    """Cross-entropy against steps and minutes, by the length of the silence."""
    return curves.figure(
        rows, "loss", panels=("length",), axis="cross-entropy", log=True, baseline=baseline,
        title=lambda row: f"T = {row['length']}, n = {row['hidden']}",
    )  # fmt: skip


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Where every run solved the problem, and its end."""
    header = ["T", "settings", "method", "steps", "without memory", "paper", "solved", "at the end", "defect"]
    lines = []
    for run in curves.runs(rows, ("length", "settings", "method", "rank", "steps")).values():
        last = run[-1]
        solved = curves.first_below(run, "loss", SOLVED * baseline(last))
        lines.append(
            [
                str(last["length"]),
                last["settings"],
                label(last),
                str(last["step"]),
                f"{baseline(last):.4f}",
                "solved within 20,000 steps" if last["length"] >= 1000 and last["method"] != "LSTM" else "–",
                curves.reached(solved),
                f"{last['loss']:.2g}",
                "–" if last["method"] == "LSTM" else f"{last['defect']:.1g}",
            ]
        )
    return header, lines


STUDY = Study(
    name="copying",
    title="Ten symbols, said again after a long silence",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    so_far=so_far,
    figure=figure,
    table=table,
)
