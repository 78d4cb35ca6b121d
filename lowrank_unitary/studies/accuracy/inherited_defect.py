"""Study: growth of an initial unitarity defect under many large random steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import (
    LowRankFactors,
    polar_projection,
    random_unitary,
    transport_rotation,
    unitarity_defect,
    unitary_transport,
)
from ...reference import adjoint
from .. import published
from ..study import Case, Row, Study
from .exact import Numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UPDATES = ("geodesic", "polar")
NORMS = (0.1, 0.5, 0.9, 2.0)
DEFECT = 1e-3
# The curve of a matrix with a larger defect ends.
LOST = 1e3
_BLOCK = 200

Move = Callable[[Numbers, Numbers, Numbers], Numbers]

TEXT = """Does a step make an existing unitarity defect larger? A matrix with the defect ‖UᴴU − I‖ = 1e-3 \
(Frobenius) makes many consecutive steps left rightᴴ of one spectral norm, with fresh Gaussian factors each \
time, in double precision and without healing.

The library multiplies U from the right by a factor that is unitary to rounding whatever U is, so the \
defect is only turned, and stays what it was at every step size. "Left in place of U Uᴴ left" is the usual \
shortcut of transport: it saves one product, applies the same core to [U right, left], and is exact as long \
as U is unitary; a defect creeps up under long steps. The published form of transport keeps the defect; \
that of polar projection takes leftᴴ left for the square of Uᴴ left, and multiplies the defect in every \
long step.

After a cross the next value of a curve is above 1000 or NaN. All curves of one panel \
and step norm have the same steps."""


def cases(full: bool) -> list[Case]:
    """One unit of work for every update, rank and step norm; every form makes the same steps."""
    # 600 steps show the growth; blow-ups at 0.9 are quoted after 2000.
    sizes = [(32, norm, 2000 if norm == 0.9 else 600) for norm in NORMS]
    if full:
        sizes += [(n, norm, 20_000) for n in (32, 128) for norm in NORMS]
    return [
        {"update": update, "n": n, "k": k, "step_norm": norm, "steps": steps}
        for n, norm, steps in sizes
        for update in UPDATES
        for k in (1, 4)
    ]


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    forms = 1.5 if case["update"] == "geodesic" else 1.0
    return 6e-4 * forms * int(case["steps"]) * (0.9 + 0.1 * (int(case["n"]) / 32) ** 2)


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """The defect of every form, before the first step and after about 25 numbers of steps."""
    rng = np.random.default_rng(seed)
    n, k, steps, norm = int(case["n"]), int(case["k"]), int(case["steps"]), float(case["step_norm"])
    records = {round(count) for count in np.geomspace(1, steps, 25)}
    start = _with_defect(n, rng)
    forms = _forms(str(case["update"]))
    # Up to the next multiple of the block, so that every form makes the same steps.
    moved = {form: start.copy() for form in forms}
    rows: list[Row] = [_row(form, 0, start) for form in forms]
    with np.errstate(all="ignore"):
        for first in range(1, steps + 1, _BLOCK):
            lefts, rights = random_steps(rng, min(_BLOCK, steps + 1 - first), n, k, norm)
            for form in list(moved):
                for step, (left, right) in enumerate(zip(lefts, rights, strict=True), start=first):
                    moved[form] = forms[form](moved[form], left, right)
                    if not (step in records or _surely_lost(moved[form])):
                        continue
                    rows.append(_row(form, step, moved[form]))
                    if not float(rows[-1]["defect"]) <= LOST:
                        del moved[form]
                        break
    return rows


def _forms(update: str) -> dict[str, Move]:
    if update == "polar":
        return {"ours": polar_projection, "published": published.polar}
    return {"ours": unitary_transport, "published": published.transport, "shortcut": shortcut}


def shortcut(unitary: Numbers, left: Numbers, right: Numbers) -> Numbers:
    """Transport by U + [U right, left] M Wᴴ, with left for U Uᴴ left; I + W M Wᴴ is the rotation."""
    body = LowRankFactors(left, right).to_body(unitary)
    if not np.all(np.isfinite(body.left)):
        return np.full_like(unitary, np.nan)
    rotation = transport_rotation(body)
    W = np.concatenate([body.right, body.left], axis=-1)
    # The rotation's left factor spans the same space as W, perhaps in another basis.
    weights = np.linalg.lstsq(W, rotation.left)[0]
    moved: Numbers = np.concatenate([unitary @ right, left], axis=-1) @ weights
    return unitary + moved @ adjoint(rotation.right)


def _with_defect(n: int, rng: np.random.Generator) -> Numbers:
    """A random orthogonal matrix with a symmetric perturbation, of the defect DEFECT to four digits."""
    disturbance = rng.standard_normal((n, n))
    disturbance += disturbance.T
    # UᴴU − I is twice the perturbation, and its square, smaller by 1e-3.
    disturbance *= 0.5 * DEFECT / np.linalg.norm(disturbance)
    unitary: Numbers = random_unitary(n, rng=rng)
    return unitary @ (np.eye(n) + disturbance)


def random_steps(
    rng: np.random.Generator, count: int, n: int, k: int, norm: float, complex_data: bool = False
) -> tuple[Numbers, Numbers]:
    """Gaussian factors (count, n, k) of steps of the given spectral norm, in double precision."""
    lefts, rights = rng.standard_normal((2, count, n, k))
    if complex_data:
        imaginary = rng.standard_normal((2, count, n, k))
        lefts, rights = lefts + 1j * imaginary[0], rights + 1j * imaginary[1]
    left_small, right_small = (np.asarray(np.linalg.qr(x, mode="r")) for x in (lefts, rights))
    small = left_small @ adjoint(right_small)
    size = np.sqrt(norm / np.linalg.norm(small, 2, axis=(-2, -1)))[:, None, None]
    return lefts * size, rights * size


def _surely_lost(unitary: Numbers) -> bool:
    """Whether the defect is above LOST, as ‖U‖_F² ≤ n + √n‖UᴴU − I‖_F shows, or NaN; at O(n²)."""
    n = len(unitary)
    return not float(np.linalg.norm(unitary)) ** 2 <= n + math.sqrt(n) * LOST


def _row(form: str, step: int, unitary: Numbers) -> Row:
    finite = bool(np.all(np.isfinite(unitary)))
    return {
        "form": form,
        "step": step,
        "defect": float(unitarity_defect(unitary)) if finite else math.nan,
    }


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Defect against the number of steps; updates side by side, ranks one below the other."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    n = min(row["n"] for row in rows)
    result = Figure(figsize=(12.5, 8.0), layout="constrained")
    panels = result.subplots(2, 2, sharex=True, sharey=True, squeeze=False)
    for line, k in enumerate((1, 4)):
        for column, update in enumerate(UPDATES):
            axes = panels[line, column]
            _panel(axes, [row for row in rows if (row["n"], row["k"], row["update"]) == (n, k, update)])
            name = {"geodesic": "Transport, geodesic", "polar": "Polar projection"}[update]
            axes.set_title(f"{name}, k = {k}")
    for axes in panels[:, 0]:
        axes.set_ylabel("‖UᴴU − I‖ (Frobenius)")
    for axes in panels[-1]:
        axes.set_xlabel("number of steps")
    panels[0, 0].set_ylim(2e-4, 3 * LOST)
    handles = [Line2D([], [], **{"color": "0.2", **style}) for style in _LINES.values()]
    handles += [Line2D([], [], color=colour, linewidth=3) for colour in _COLOURS.values()]
    handles += [Line2D([], [], color="0.2", linestyle="", marker="x")]
    labels = ["this library", "published form", "shortcut: left in place of U Uᴴ left"]
    labels += [f"step norm {norm:g}" for norm in _COLOURS] + ["above 1000 or NaN next"]
    result.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=4,
        frameon=False,
        title=f"A defect of 1e-3 under consecutive random steps, n = {n}, float64",
        title_fontsize=12,
    )
    return result


# Colours by M. Okabe and K. Ito, distinct for every kind of colour vision.
_COLOURS = {0.1: "#56B4E9", 0.5: "#009E73", 0.9: "#E69F00", 2.0: "#D55E00"}
_LINES: dict[str, dict[str, Any]] = {
    "ours": {"linestyle": "-", "linewidth": 2.2},
    "published": {"linestyle": "--", "linewidth": 1.5, "color": "0.45"},
    "shortcut": {"linestyle": ":", "linewidth": 2.0},
}


def _panel(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for form in ("published", "shortcut", "ours"):
        for norm, colour in _COLOURS.items():
            steps, defects = _curve(rows, form, norm)
            if not len(steps):
                continue
            style = {"color": colour, **_LINES[form]}
            inside = defects <= LOST
            axes.plot(steps[inside], defects[inside], **style)
            end = (steps[inside][-1], defects[inside][-1])
            if not inside[-1]:
                axes.plot(*end, "x", color=style["color"], ms=8)
            above = np.flatnonzero(inside & (defects > 50 * DEFECT))
            if form == "published" and (len(above) or end[1] > 2 * DEFECT):
                # One colour for all norms: each curve is labelled where it rises.
                at = above[0] if len(above) else -1
                axes.annotate(
                    f"norm {norm:g}", (steps[at], defects[at]), xytext=(-4, 4), textcoords="offset points",
                    ha="right", color="0.3", fontsize=9,
                )  # fmt: skip
    axes.annotate(
        "this library, all step norms", (1, DEFECT), xytext=(0, -13), textcoords="offset points", fontsize=9
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _curve(rows: list[dict[str, Any]], form: str, norm: float) -> tuple[Numbers, Numbers]:
    """Steps and defects of the longest run."""
    chosen = [row for row in rows if (row["form"], row["step_norm"]) == (form, norm)]
    longest = max((row["steps"] for row in chosen), default=0)
    points = sorted((row["step"], row["defect"]) for row in chosen if row["steps"] == longest and row["step"])
    return np.array([step for step, _ in points]), np.array([defect for _, defect in points])


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The final defect of every run, relative to the initial one."""
    header = ["update", "n", "k", "step norm", "steps", "this library", "published form", "shortcut"]
    lines = []
    keys = ("update", "n", "k", "step_norm", "steps")
    for key in dict.fromkeys(tuple(row[name] for name in keys) for row in rows):
        chosen = [row for row in rows if tuple(row[name] for name in keys) == key]
        found = []
        for form in ("ours", "published", "shortcut"):
            run = sorted((row["step"], row["defect"]) for row in chosen if row["form"] == form)
            found.append("–" if not run else _change(run, int(key[-1])))
        lines.append([str(key[0]), str(key[1]), str(key[2]), f"{key[3]:g}", str(key[4]), *found])
    return header, lines


def _change(run: list[tuple[int, float]], steps: int) -> str:
    (_, before), (last, after) = run[0], run[-1]
    if last < steps or not after <= LOST:
        return f"lost at step {last}"
    return f"× {after / before:.4f}" if after < 10 * before else f"× {after / before:.1e}"


STUDY = Study(
    name="inherited-defect",
    title="What becomes of a defect that is already there",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    figure=figure,
    table=table,
)
