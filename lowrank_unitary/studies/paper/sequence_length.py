"""Experiment: how gradients fare on their way back through a long sequence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..networks.threads import one_thread
from ..progress import tell
from ..study import Case, Row, Study

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HIDDEN, BATCH, SIDE = 170, 16, 14
# Training steps on permuted digits before the second measurement.
STEPS = 150
# Size of inputs after the first one, of size 1.
SMALL = 0.01
LENGTHS = (100, 500, 2000, 5000)
# (method, rank, start): the same network but for W, and an LSTM.
NETWORKS = (
    ("transport", 4, "henaff"),
    ("transport", 4, "haar"),
    ("unconstrained", 0, "henaff"),
    ("unconstrained", 0, "gaussian"),
    ("unconstrained", 0, "default"),
    ("LSTM", 0, "default"),
)

TEXT = """Why keep a recurrent matrix unitary at all? The gradient of a loss at the last step of a sequence \
with respect to the state t steps earlier is a product of t Jacobians. A unitary W keeps its norm, up to the \
units that the activation switches off; any other W multiplies it by something at every step.

The paper states this as its motive and measures no gradient. Here a random linear function of the last \
state of a network of 170 units is traced back through up to 5000 steps with small random inputs, in double \
precision: at the start (left) and after 150 training steps on digits read pixel by pixel (right). "T" is \
the library's UnitaryAdam in steps of rank 4, from two orthogonal starts. The unconstrained networks have \
the same architecture: one begins at the same orthogonal matrix, "gaussian" at independent normal entries of \
variance 1/n, "default" at ones of variance 1/(3n), as torch.nn.RNN does up to their distribution.

At the start the orthogonal curves are exactly level, whoever moves W later. What differs is what training \
leaves of it. "Largest T" is the longest distance at which the gradient has at least a hundredth and at most \
a hundred times its norm."""


def cases(full: bool) -> list[Case]:
    """One unit of work a network."""
    steps = 10 * STEPS if full else STEPS
    return [
        {"method": method, "rank": rank, "start": start, "steps": steps} for method, rank, start in NETWORKS
    ]


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    return (4 if case["method"] == "LSTM" else 1) * (8.0 + 0.2 * int(case["steps"]))


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """Norms of the gradient at distances from the last step, before and after training."""
    import dataclasses

    import torch

    from .permuted_mnist import task
    from .recurrent.training import Run

    common = int(np.ravel(np.asarray(seed.entropy, dtype=object))[0])
    start = case["start"] if case["start"] in ("henaff", "haar") else "identity"
    sizes = {**case, "hidden": HIDDEN, "side": SIDE}
    with one_thread():
        run = Run(sizes, dataclasses.replace(task(sizes), start=start), common)
        if case["method"] != "LSTM" and start == "identity":
            scale = {"gaussian": 1.0, "default": 1 / math.sqrt(3)}[case["start"]]
            entries = torch.randn(HIDDEN, HIDDEN, generator=torch.Generator().manual_seed(common))
            with torch.no_grad():
                run.network.recurrent.weight.copy_(scale / math.sqrt(HIDDEN) * entries)  # type: ignore
        rows = [{"trained": 0, **row} for row in gradient_norms(run.network.recurrent, common)]
        tell(0.1)
        while run.done < int(case["steps"]):
            run.step()
            tell(0.1 + 0.8 * run.done / int(case["steps"]))
        rows += [{"trained": run.done, **row} for row in gradient_norms(run.network.recurrent, common)]
    return rows


def gradient_norms(recurrent: torch.nn.Module, seed: int) -> list[Row]:
    """Norms of the gradient, in units of that at the last step, at about ten distances in every decade."""
    import copy

    import torch

    longest = max(LENGTHS)
    wide = copy.deepcopy(recurrent).double()
    generator = torch.Generator().manual_seed(seed)
    # Zero states would stay zero, with no gradient: the inputs after the first one are small, but not zero.
    driven = torch.randn(longest + 1, BATCH, HIDDEN, generator=generator, dtype=torch.float64)
    driven[1:] *= SMALL
    driven.requires_grad_()
    last = wide(driven)[-1]
    direction = torch.randn(last.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((last * direction).sum(), driven)
    norms = torch.linalg.vector_norm(gradient.flatten(1), dim=1).flip(0)
    distances = sorted({*np.geomspace(1, longest, 37).round().astype(int).tolist(), *LENGTHS})
    return [{"distance": t, "gradient": float(norms[t] / norms[0])} for t in distances]


# Colours by M. Okabe and K. Ito, distinct for every kind of colour vision.
_STYLES: dict[tuple[str, str], dict[str, Any]] = {
    ("transport", "henaff"): {"color": "#0072B2"},
    ("transport", "haar"): {"color": "#56B4E9"},
    ("unconstrained", "henaff"): {"color": "#0072B2", "linestyle": "--"},
    ("unconstrained", "gaussian"): {"color": "#D55E00", "linestyle": "--"},
    ("unconstrained", "default"): {"color": "#E69F00", "linestyle": "--"},
    ("LSTM", "default"): {"color": "#009E73", "linestyle": "-."},
}
# Below this norm lines leave the panel.
_SMALLEST, _LARGEST = 1e-20, 1e20


def _name(row: Row) -> str:
    if row["method"] == "LSTM":
        return "LSTM"
    return ("T, k = 4" if row["method"] == "transport" else "unconstrained") + f", {row['start']}"


def figure(rows: list[Row]) -> Figure:
    """Norms of gradients against the distance, before and after training."""
    from matplotlib.figure import Figure

    result = Figure(figsize=(12.0, 5.0), layout="constrained")
    panels = result.subplots(1, 2, sharey=True)
    most = max((row["steps"] for row in rows), default=0)
    rows = [row for row in rows if row["steps"] == most]
    for axes, trained in zip(panels, (0, most), strict=True):
        _panel(axes, [row for row in rows if row["trained"] == trained])
        axes.set_title(f"after {trained} training steps" if trained else "at the start", fontsize=11)
    panels[0].set_ylabel("norm of the gradient, relative")
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        result.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, handlelength=3.2)
    return result


def _panel(axes: Axes, rows: list[Row]) -> None:
    for key, style in _STYLES.items():
        run = [row for row in rows if (row["method"], row["start"]) == key]
        if run:
            heights = [min(max(row["gradient"], 0.1 * _SMALLEST), 10 * _LARGEST) for row in run]
            axes.plot([row["distance"] for row in run], heights, label=_name(run[0]), linewidth=1.8, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(_SMALLEST, _LARGEST)
    axes.set_xlabel("steps back from the end of the sequence")
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Norms at the listed distances, for every network before and after training."""
    header = ["network", "trained", "paper", *(f"T = {length}" for length in LENGTHS), "largest T"]
    lines = []
    runs: dict[Any, list[Row]] = {}
    for row in rows:
        runs.setdefault((row["steps"], _name(row), row["trained"]), []).append(row)
    for (_, name, trained), run in runs.items():
        norms = {row["distance"]: row["gradient"] for row in run}
        outside = [t for t in sorted(norms) if not 1e-2 <= norms[t] <= 1e2]
        last = max((t for t in norms if t < min(outside, default=math.inf)), default=0)
        lines.append(
            [
                name,
                f"{trained} steps",
                "–",
                *(f"{norms[length]:.2g}" if length in norms else "–" for length in LENGTHS),
                f"{last}" + ("" if outside else " or more"),
            ]
        )
    return header, lines


STUDY = Study(
    name="sequence-length",
    title="Gradients through long sequences, with and without the constraint",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    figure=figure,
    table=table,
)
