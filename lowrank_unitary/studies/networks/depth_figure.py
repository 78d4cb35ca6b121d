"""The figure of the study of depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..study import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours by M. Okabe and K. Ito, distinct for every kind of colour vision: one for a start.
# Orthogonal networks have full lines.
_COLOURS = {
    "identity": "black",
    "delta": "#009E73",
    "haar": "#0072B2",
    "he": "#D55E00",
    "default": "#CC79A7",
}
_NAMES = {"he": "He", "haar": "Haar"}
_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "low-rank": ("orthogonal, low-rank steps", {"color": "#009E73", "linewidth": 2.2}),
    "cayley": ("orthogonal, Cayley map", {"color": "#D55E00"}),
    "exponential": ("orthogonal, exponential", {"color": "#E69F00"}),
    "fft": ("plain, by FFT", {"color": "0.45", "ls": "--"}),
    "conv2d": ("plain, torch.nn.Conv2d", {"color": "0.45", "ls": ":"}),
}
# Below these norms lines leave the panel.
_SMALLEST = 1e-12


def name_of(row: Row) -> str:
    """The kind of a network and its start."""
    start = _NAMES.get(row["start"], row["start"])
    return f"{row['network']}, {start}" + (" + ReLU" if row["start"] in ("he", "default") else "")


def figure(rows: list[Row]) -> Figure:
    """Accuracy against depth and certificates above, norms by layer and times below."""
    from matplotlib.figure import Figure

    result = Figure(figsize=(13.0, 8.6), layout="constrained")
    halves: Any = result.subfigures(2, 1, height_ratios=[1.1, 1])
    upper, lower = halves
    accuracies, certificates = upper.subplots(1, 2)
    ended = [row for row in rows if row["part"] == "training" and "log_lipschitz" in row]
    # A full run has both images: the smaller ones are drawn, trained for longest.
    ended = [row for row in ended if row["images"] == "digits"]
    longest = max((row["steps"] for row in ended), default=0)
    ended = [row for row in ended if row["steps"] == longest]
    _accuracy(accuracies, ended)
    _certificates(certificates, ended)
    handles, labels = accuracies.get_legend_handles_labels()
    if handles:
        upper.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, handlelength=3.5)
    *norms, seconds = lower.subplots(1, 4, gridspec_kw={"width_ratios": [1, 1, 1, 1.7]})
    for axes, quantity in zip(norms, ("signal", "spread", "gradient"), strict=True):
        _norms(axes, [row for row in rows if row["part"] == "norms"], quantity)
    _seconds(seconds, [row for row in rows if row["part"] == "seconds"])
    return result


def _accuracy(axes: Axes, rows: list[Row]) -> None:
    for name in dict.fromkeys(map(name_of, rows)):
        found = [row for row in rows if name_of(row) == name]
        points = sorted((row["depth"], 100 * row["accuracy"]) for row in found)
        axes.plot(*np.array(points).T, label=name, marker="o", markersize=5, **_style(found[0]))
    axes.set_xticks(sorted({row["depth"] for row in rows}))
    axes.set_ylim(0, 100)
    _dress(axes, "test accuracy, %", "layers")


def _certificates(axes: Axes, rows: list[Row]) -> None:
    from matplotlib.lines import Line2D

    depths = sorted({row["depth"] for row in rows})
    markers = dict(zip(depths, "os^Dv", strict=False))
    for row in rows:
        radii = sorted(float(key[10:]) for key in row if key.startswith("certified_"))
        heights = [100 * row["accuracy"], *(100 * row[f"certified_{radius:g}"] for radius in radii)]
        axes.plot([0, *radii], heights, marker=markers[row["depth"]], markersize=5, **_style(row))
    handles = [
        Line2D([], [], color="0.4", marker=markers[depth], ls="", label=f"{depth} layers") for depth in depths
    ]
    if handles:
        axes.legend(handles=handles, loc="upper right")
    axes.set_ylim(0, 100)
    _dress(axes, "certified accuracy, %", "ℓ2 radius of changes, pixels in [0, 1]")


def _norms(axes: Axes, rows: list[Row], quantity: str) -> None:
    for start in dict.fromkeys(row["start"] for row in rows):
        points = np.array([(row["layer"], row[quantity]) for row in rows if row["start"] == start])
        # The gradient comes from behind.
        points[:, 1] /= points[-1 if quantity == "gradient" else 0, 1]
        axes.plot(*points.T, label=_NAMES.get(start, start), color=_COLOURS[start], linewidth=1.8)
    axes.set_yscale("log")
    axes.set_ylim(_SMALLEST, 1e3)
    _dress(axes, f"norm of the {quantity}", "behind layer, at the start")
    if rows and quantity == "signal":
        axes.legend(fontsize=9, loc="lower right")


def _seconds(axes: Axes, rows: list[Row]) -> None:
    for method, (label, style) in _METHODS.items():
        points = sorted((row["channels"], 1e3 * row["seconds"]) for row in rows if row["method"] == method)
        if points:
            axes.plot(*np.array(points).T, label=label, marker="o", markersize=4, **style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    channels = sorted({row["channels"] for row in rows})
    axes.set_xticks(channels, [str(count) for count in channels])
    _dress(axes, "ms a training step for one layer", "channels")
    if rows:
        axes.legend(fontsize=9, loc="upper left", handlelength=3)


def _style(row: Row) -> dict[str, Any]:
    orthogonal = row["network"] == "orthogonal"
    return {"color": _COLOURS[row["start"]], "linewidth": 1.8, "linestyle": "-" if orthogonal else "--"}


def _dress(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(below)
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
