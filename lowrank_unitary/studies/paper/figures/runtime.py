"""The figure and the table of the study of run times."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...study import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Shown(NamedTuple):
    name: str
    color: str
    paper: str


# Colours by M. Okabe and K. Ito, distinct for every kind of colour vision: one for a method.
_METHODS = {
    "T": _Shown("T, this library", "#009E73", "O(kn²)"),
    "D": _Shown("D, this library", "#0072B2", "O(kn²)"),
    "published": _Shown("T, published form", "0.45", "O(kn²)"),
    "expm": _Shown("exponential, as expRNN", "#E69F00", "O(n³)"),
    "cayley": _Shown("Cayley, as scoRNN", "#D55E00", "O(n³)"),
    "svd": _Shown("exact projection, SVD", "#CC79A7", "O(n³)"),
}
_LINES: dict[int, dict[str, Any]] = {
    0: {"ls": "-", "marker": "s", "markersize": 4},
    1: {"ls": "-", "marker": "o", "markersize": 4},
    4: {"ls": "--", "marker": "o", "markersize": 4},
    16: {"ls": ":", "marker": "o", "markersize": 4},
}
_COMPARED = 1024


def figure(rows: list[Row]) -> Figure:
    """Milliseconds against n: the update on the left, a training step on the right."""
    from matplotlib.figure import Figure

    result = Figure(figsize=(13.0, 6.2), layout="constrained")
    update, step = result.subplots(1, 2)
    for axes, quantity in ((update, "update_ms"), (step, "step_ms")):
        for (method, k), times in _curves(rows, quantity).items():
            shown = _METHODS[method]
            label = shown.name + f", k = {k}" * bool(k)
            axes.plot(*_points(times), label=label, color=shown.color, linewidth=1.8, **_LINES.get(k, {}))
    others: dict[int, list[float]] = {}
    for row in rows:
        others.setdefault(int(row["n"]), []).append(float(row["other_ms"]))
    if others:
        medians = {n: float(np.median(times)) for n, times in others.items()}
        step.plot(
            *_points(medians), label="step without update", color="black", ls=(0, (1, 3)), linewidth=1.5
        )
    _dress(update, "update alone", sorted(others))
    _dress(step, "training step", sorted(others))
    handles, labels = step.get_legend_handles_labels()
    if handles:
        result.legend(
            handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=9, handlelength=3.5
        )
    return result


def _dress(axes: Axes, title: str, sizes: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    if sizes:
        axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set_title(title)
    axes.set_xlabel("n")
    axes.set_ylabel("ms, one thread")
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _points(times: dict[int, float]) -> tuple[list[int], list[float]]:
    sizes = sorted(times)
    return sizes, [times[n] for n in sizes]


def _curves(rows: list[Row], quantity: str) -> dict[tuple[str, int], dict[int, float]]:
    """Milliseconds by n, for every method and k, in the order of the methods."""
    curves: dict[tuple[str, int], dict[int, float]] = {}
    for method in _METHODS:
        for row in rows:
            if row["method"] == method:
                curves.setdefault((method, int(row["k"])), {})[int(row["n"])] = float(row[quantity])
    return {
        key: curves[key] for key in sorted(curves, key=lambda key: (list(_METHODS).index(key[0]), key[1]))
    }


def exponent(times: dict[int, float]) -> float:
    """The power of n that fits the times of the three largest n; NaN for fewer."""
    sizes, milliseconds = (values[-3:] for values in _points(times))
    if len(sizes) < 3:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(milliseconds), 1)[0])


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Exponents, and times at n = 1024 and at the largest n, also in units of T of this library."""
    header = [
        "method", "k", "cost, paper", "exponent", f"update, ms, n = {_COMPARED}", "÷ ours", "largest n",
        "update, ms", "÷ ours", "step, ms", "÷ ours", "threads",
    ]  # fmt: skip
    updates, steps = _curves(rows, "update_ms"), _curves(rows, "step_ms")
    threads = {str(row["threads"]) for row in rows}
    lines = []
    for (method, k), times in updates.items():
        # The dense methods have no k: T with the smallest one.
        ours, our_steps = (curves.get(("T", k or 1), {}) for curves in (updates, steps))
        step, n = steps[method, k], max(times)
        lines.append(
            [
                _METHODS[method].name,
                str(k or "–"),
                _METHODS[method].paper,
                _shown(exponent(times), ".2f"),
                _shown(times.get(_COMPARED, math.nan)),
                _shown(times.get(_COMPARED, math.nan) / ours.get(_COMPARED, math.nan)),
                str(n),
                _shown(times[n]),
                _shown(times[n] / ours.get(n, math.nan)),
                _shown(step[n]),
                _shown(step[n] / our_steps.get(n, math.nan)),
                ", ".join(sorted(threads)),
            ]
        )
    return header, lines


def _shown(number: float, form: str = ".3g") -> str:
    return f"{number:{form}}" if math.isfinite(number) else "–"
