"""Study: deep convolutional networks without shortcuts, orthogonal and not, from the same starts."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..study import Case, Row, Study
from .depth_figure import figure, name_of
from .images import load_images
from .threads import one_thread

DEPTHS, CHANNELS = (20, 50, 100), 8
# Steps of a default run, and of a full one.
STEPS, LONG = 48, 300
PIXELS = {"digits": 64, "mnist": 196}
NETWORKS = (
    ("orthogonal", "identity"),
    ("orthogonal", "delta"),
    ("orthogonal", "haar"),
    ("plain", "delta"),
    ("plain", "haar"),
    ("plain", "he"),
    ("plain", "default"),
)
# Radii of certificates, in the ℓ2 norm of pixels in [0, 1].
RADII = (0.1, 0.25, 0.5)
METHODS = ("low-rank", "conv2d", "fft", "cayley", "exponential")
_TIMED_LAYERS, _TIMED_STEPS = 2, 10

TEXT = """Can a very deep convolutional network without shortcuts and without normalisation be \
trained, and what do orthogonal layers add? Images of 8×8 pixels are lifted to 8 channels by a fixed \
isometry. Then come 20, 50 or 100 circular convolutions of full width, each with an activation, and \
a linear read-out of all entries. Orthogonal networks are moved by UnitaryAdam in steps of rank 1, \
plain ones by Adam; all read-outs by Adam.

The starts "delta" (one Haar matrix, a 1×1 convolution) and "Haar" (one for each frequency) are the \
same for orthogonal and plain networks, and so is the activation MaxMin, which keeps norms. "He" and \
"default", torch's own start, have ReLU. One of three learning rates of the convolutions, 2e-4, 1e-3 \
and 5e-3 for orthogonal and 1e-5, 1e-4 and 1e-3 for plain networks, is chosen for every network and \
depth by the accuracy on validation images after a quarter of the steps.

Upper row: test accuracy against depth, and the accuracy that is certified, for changes of an image \
up to a radius: an image counts if (s_y − s_j) / (L ‖w_y − w_j‖) exceeds it for all other classes j, \
with scores s, rows w of the read-out and the product L over layers of √(1 + δ), δ the unitarity \
defect, or for plain layers of their norms. Lower row: norms behind every layer at the start, in \
units of the first (the gradient: of the last) of them; "spread" is the norm of the signal minus its \
mean over images, which tells them apart. And the time of a training step for one layer against the \
number of channels, next to parametrisations that make all matrices anew in every pass.

Times are not functions of the seed, all other numbers are."""


def cases(full: bool) -> list[Case]:
    """One unit of work for a network and a depth, for the norms of a start, and for a timed method."""
    listed: list[Case] = [
        {
            "part": "training",
            "images": images,
            "steps": steps,
            "network": network,
            "start": start,
            "depth": depth,
        }
        for images, steps in ((("digits", LONG), ("mnist", LONG)) if full else (("digits", STEPS),))
        for network, start in (*NETWORKS, *([("plain", "identity")] if full else []))
        for depth in DEPTHS
    ]
    starts = dict.fromkeys(start for _, start in NETWORKS)
    listed += [
        {"part": "norms", "images": "digits", "start": start, "depth": max(DEPTHS)} for start in starts
    ]
    listed += [
        {"part": "seconds", "images": "digits", "method": method, "channels": channels}
        for channels in ((8, 32, 128, 256) if full else (8, 32, 128))
        for method in METHODS
    ]
    return listed


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    if case["part"] == "norms":
        return 2.0
    if case["part"] == "seconds":
        return 1 + 22 * (int(case["channels"]) / 128) ** 2
    # Three rates for a quarter of the steps, and one for the others; evaluations like a tenth of them.
    return 5e-3 * int(case["depth"]) * int(case["steps"]) * 1.9 * PIXELS[case["images"]] / 64


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """Accuracies and certificates, or norms by layer, or seconds."""
    # One problem for all networks, from the common first word of the seed.
    common = int(np.ravel(np.asarray(seed.entropy, dtype=object))[0])
    with one_thread():
        return {"training": _training, "norms": _norms, "seconds": _seconds}[case["part"]](case, common)


def _training(case: Case, seed: int) -> list[Row]:
    from .layers import Network, build
    from .training import RATES, train

    images = load_images(case["images"])
    network, torus = case["network"], images.train.images.shape[1:]

    def make() -> Network:
        return build(network, case["start"], depth=case["depth"], channels=CHANNELS, torus=torus, seed=seed)

    return train(make, RATES[network], images, steps=case["steps"], seed=seed, radii=RADII)


def _norms(case: Case, seed: int) -> list[Row]:
    import torch

    from .layers import build
    from .training import norms

    images = load_images(case["images"])
    kind = "plain" if case["start"] in ("he", "default") else "orthogonal"
    network = build(
        kind, case["start"], depth=case["depth"], channels=CHANNELS,
        torus=images.train.images.shape[1:], seed=seed, dtype=torch.float64,
    )  # fmt: skip
    return norms(network, images.train, seed)


def _seconds(case: Case, seed: int) -> list[Row]:
    import torch

    from .layers import ParametrisedConvolution, build
    from .training import BATCH, RATES, optimiser_of, training_step

    images, method = load_images(case["images"]), case["method"]
    torus = images.train.images.shape[1:]
    kind = "orthogonal" if method == "low-rank" else "plain"
    channels = int(case["channels"])
    options: dict[str, Any] = {"depth": _TIMED_LAYERS, "channels": channels, "torus": torus, "seed": seed}
    network = build(kind, "delta", **options)
    for index in range(_TIMED_LAYERS):
        if method == "conv2d":
            same = build("orthogonal", "delta", **options)
            network.layers[index] = same.layers[index].to_conv()  # type: ignore[operator]
        elif method in ("cayley", "exponential"):
            network.layers[index] = ParametrisedConvolution(channels, torus, method)
    optimiser = optimiser_of(network, RATES[kind][0])
    batch, labels = (torch.from_numpy(array[:BATCH]) for array in images.train)
    seconds = []
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        training_step(network, optimiser, batch, labels)
        seconds.append(time.perf_counter() - started)
    # The first step compiles and allocates. Of the others the fastest one was disturbed least.
    return [{"seconds": min(seconds[1:]) / _TIMED_LAYERS}]


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Every network at the end of its training."""
    header = [
        "images", "steps", "network", "layers", "rate", "loss", "accuracy", "defect", "log₁₀ L",
        *(f"at {radius:g}" for radius in RADII), "ms a step",
    ]  # fmt: skip
    lines = []
    for row in rows:
        if row["part"] == "training" and "log_lipschitz" in row:
            lines.append(
                [
                    row["images"],
                    str(row["steps"]),
                    name_of(row),
                    str(row["depth"]),
                    f"{row['rate']:g}",
                    f"{row['loss']:.2f}",
                    f"{100 * row['accuracy']:.1f} %",
                    f"{row['defect']:.1g}" if math.isfinite(row["defect"]) else "",
                    f"{row['log_lipschitz'] / math.log(10):.2g}",
                    *(f"{100 * row[f'certified_{radius:g}']:.1f} %" for radius in RADII),
                    f"{1000 * row['seconds']:.0f}",
                ]
            )
    return header, lines


STUDY = Study(
    name="depth",
    title="Deep convolutional networks without shortcuts: orthogonal layers, and the same starts without",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    figure=figure,
    table=table,
)
