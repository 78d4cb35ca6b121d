"""The figure and the table of the study of a random unitary target."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ...study import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours by M. Okabe and K. Ito, distinct for every kind of colour vision: one for a k.
_COLOURS = {1: "#56B4E9", 2: "#CC79A7", 4: "#E69F00", 8: "#D55E00", 16: "#009E73"}
_OTHER = "black"
# Panels, and the methods in them with their lines.
_PANELS: dict[str, dict[str, Any]] = {
    "project first": {"project": "-", "polar": "-."},
    "compress first, SVD": {"compress": "-"},
    "compress first, the paper's samplers": {"published": "-", "columns": "-."},
}
_SUFFIX = {"polar": ", polar", "published": ", LSI, published form", "columns": ", columns"}
_NAMES = {
    "project": "project first",
    "polar": "project first, polar",
    "compress": "compress first, SVD",
    "columns": "compress first, columns",
    "published": "published form, LSI",
}
_PAPER = "decays faster with k up to 16; a figure, no numbers"


def figure(rows: list[Row]) -> Figure:
    """Error against steps above, and against seconds below; a column for a way to compress."""
    from matplotlib.figure import Figure

    result = Figure(figsize=(13.0, 8.4), layout="constrained")
    panels: Any = result.subplots(2, len(_PANELS), sharey=True, sharex="row")
    errors = [row["error"] for row in rows if math.isfinite(row["error"])]
    panels[0, 0].set(yscale="log", ylim=(0.7 * min([0.01, *errors]), 2))
    runs = _runs(rows)
    # Most runs have one n; those of another are black.
    sizes = [n for n, _, _ in runs]
    main = max(sizes, key=lambda n: (sizes.count(n), n), default=0)
    for (title, lines), column in zip(_PANELS.items(), panels.T, strict=True):
        for (n, method, k), run in runs.items():
            if method not in lines:
                continue
            label = f"k = {k}{_SUFFIX.get(method, '')}" + (f", n = {n}" if n != main else "")
            color = _COLOURS.get(k, "0.45") if n == main else _OTHER
            for axes, quantity in zip(column, ("step", "seconds"), strict=True):
                points = np.array([(row[quantity], row["error"]) for row in run if row["step"]])
                if len(points):
                    axes.plot(*points.T, lines[method], color=color, label=label, linewidth=1.8)
        column[0].set_title(title)
        for axes, below in zip(column, ("number of steps", "seconds of steps, one thread"), strict=True):
            _dress(axes, below)
        if column[0].get_legend_handles_labels()[0]:
            column[0].legend(fontsize=9, loc="lower left", frameon=False, handlelength=3)
    for axes, quantity in zip(panels[:, 0], ("step", "seconds"), strict=True):
        # The first steps change little.
        longest = max((row[quantity] for row in rows), default=0) or 1
        axes.set(xscale="log", xlim=(longest / 1000, 1.3 * longest))
        axes.set_ylabel("‖U − U*‖/√n (Frobenius)")
    if main:
        result.suptitle(f"Random unitary target, n = {main}, complex64, minibatches of 16", fontsize=13)
    return result


def _dress(axes: Axes, below: str) -> None:
    axes.set_xlabel(below)
    axes.grid(visible=True, color="0.92")
    axes.axhline(0.01, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _runs(rows: list[Row]) -> dict[tuple[int, str, int], list[Row]]:
    """Rows in the order of steps; of several runs of one method, n and k the one to the smallest error."""
    found: dict[tuple[int, str, int], dict[float, list[Row]]] = {}
    for row in rows:
        key = (int(row["n"]), str(row["method"]), int(row["k"]))
        found.setdefault(key, {}).setdefault(float(row["until"]), []).append(row)
    return {key: sorted(runs[min(runs)], key=lambda row: row["step"]) for key, runs in found.items()}


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Steps and minutes to errors of 0.1 and 0.01."""
    header = [
        "method", "n", "k", "η·n", "steps to 0.1", "steps to 0.01", "minutes to 0.01", "ms a step",
        "of which update", "steps", "error at the end", "paper",
    ]  # fmt: skip
    lines = []
    for (n, method, k), run in _runs(rows).items():
        last, milliseconds = run[-1], 1e3 / max(run[-1]["step"], 1)
        lines.append(
            [
                _NAMES.get(method, method),
                str(n),
                str(k),
                f"{last['step_size']:g}",
                _shown(_reached(run, 0.1, "step"), "{:.0f}"),
                _shown(_reached(run, 0.01, "step"), "{:.0f}"),
                _shown(_reached(run, 0.01, "seconds") / 60, "{:.2g}"),
                f"{milliseconds * last['seconds']:.3g}",
                f"{milliseconds * last['update_seconds']:.3g}",
                str(last["step"]),
                f"{last['error']:.2g}",
                _PAPER,
            ]
        )
    return header, lines


def _reached(run: list[Row], level: float, quantity: str) -> float:
    """When the error first fell to the level, between two records along a straight line in its logarithm."""
    for before, after in zip([run[0], *run], run, strict=False):
        if after["error"] <= level:
            whole = math.log(before["error"] / after["error"]) if after is not before else 0.0
            part = math.log(before["error"] / level) / whole if whole > 0 else 1.0
            return before[quantity] + part * (after[quantity] - before[quantity])
    return math.nan


def _shown(number: float, form: str) -> str:
    return form.format(number) if math.isfinite(number) else "–"
