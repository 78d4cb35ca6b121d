"""Figures and tables of training runs: a quantity against steps and against seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...study import Row
from ..recurrent.cases import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours by M. Okabe and K. Ito, distinct for every kind of colour vision: one for a method, one line style
# for a rank.
_COLOURS = {
    "transport": "#0072B2",
    "polar": "#56B4E9",
    "dense": "black",
    "Cayley map": "#D55E00",
    "exponential map": "#E69F00",
    "geoopt": "#CC79A7",
    "unconstrained": "0.5",
    "LSTM": "#009E73",
}
_LINES: dict[int, Any] = {0: "-", 1: ":", 4: "-", 16: "--"}
# What curves of one panel share; the rest of a case tells them apart.
_WITHIN = ("method", "rank", "settings")

Key = tuple[Any, ...]


def runs(rows: list[Row], names: Sequence[str]) -> dict[Key, list[Row]]:
    """The rows of every run, by the values that tell runs apart."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def figure(
    rows: list[Row],
    quantity: str,
    *,
    panels: Sequence[str],
    title: Callable[[Row], str],
    axis: str,
    log: bool,
    baseline: Callable[[Row], float] | None = None,
) -> Figure:
    """Two axes for every combination of the values of `panels`: against steps and against CPU minutes."""
    from matplotlib.figure import Figure

    groups = runs(rows, panels)
    result = Figure(figsize=(12.0, 0.9 + 4.0 * max(1, len(groups))), layout="constrained")
    axes = result.subplots(max(1, len(groups)), 2, squeeze=False)
    handles: dict[str, Any] = {}
    for (left, right), group in zip(axes, groups.values(), strict=False):
        for key, run in runs(group, _of(group)).items():
            settings = f" ({key[2]})" if len(key) > 2 else ""
            style = {
                "color": _COLOURS[run[0]["method"]],
                "linestyle": _LINES.get(run[0]["rank"], "-."),
                "linewidth": 1.8,
                "alpha": 0.5 if settings.startswith(" (paper") else 1.0,
            }
            heights = [row[quantity] for row in run]
            for panel, across in ((left, "step"), (right, "seconds")):
                scale = 60 if across == "seconds" else 1
                line = panel.plot([row[across] / scale for row in run], heights, **style)[0]
                handles.setdefault(label(run[0]) + settings, line)
        # Runs that took more than twice the median leave the panel.
        ends = sorted(run[-1]["seconds"] for run in runs(group, _of(group)).values())
        longest = min(ends[-1], 2 * ends[len(ends) // 2])
        for panel, across in ((left, "training steps"), (right, "CPU minutes of training")):
            if baseline is not None:
                panel.axhline(baseline(group[0]), color="0.45", linestyle="--", linewidth=1)
            _dress(panel, title(group[0]), across, axis, log)
        right.set_xlim(0, max(1.05 * longest / 60, 1e-9))
    if handles:
        result.legend(
            handles.values(), handles.keys(), loc="outside upper center", ncols=5, frameon=False,
            handlelength=3.2,
        )  # fmt: skip
    return result


def _of(group: list[Row]) -> list[str]:
    return [name for name in _WITHIN if name in group[0]]


def _dress(axes: Axes, title: str, below: str, beside: str, log: bool) -> None:
    axes.set_title(title, fontsize=11)
    axes.set(xlabel=below, ylabel=beside)
    if log:
        axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def first_below(run: list[Row], quantity: str, level: float) -> Row | None:
    """The first record from which on a quantity is below a level."""
    return next((row for row in run if row[quantity] < level), None)


def reached(row: Row | None) -> str:
    """The step and the minutes of a record."""
    return "not reached" if row is None else f"step {row['step']}, {row['seconds'] / 60:.1f} CPU min"


def percent(value: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else "–"
