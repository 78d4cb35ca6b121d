"""Study: polar projection near a singular matrix."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import polar_projection, random_unitary, reference
from ...rotation.core import CORES
from .. import published
from ..study import Case, Row, Study
from .exact import Numbers, defect_of, error_of, exact_step, rounded_unitary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Singular values below 1 that are not small. No two are equal: the published form fails at repeated ones of
# any size.
MODERATE = (0.5, 0.7)
DRAWS = 5

TEXT = """How exact is polar projection where the nearest unitary matrix is almost not unique? With c = Uᴴ \
left and b = right the step is built so that the singular values of I + c bᴴ below 1 are known: one or two \
of them are small, σ_min (on the horizontal axis) and 2σ_min, the others between 0.5 and 1. The error is \
the spectral norm of the difference from the exact polar projection of the rounded numbers, computed in \
extended precision; the median of a few samples.

The dotted lines are the unit roundoff eps/2 times the condition number of the unitary polar factor, which \
no method can be expected to beat: 1/σ_n for complex data, but 2/(σ_n + σ_(n−1)) for real data (Higham, \
Functions of Matrices, chapter 8), because a real matrix with a single small singular value can only jump, \
by a change of the sign of its determinant. That happens once rounding can carry σ_n through zero; the axis \
ends before. So a real step of rank 1 stays exact to rounding, and two small singular values make it as \
sensitive as complex ones are.

Whatever the error, the result has to be unitary. Lower row: its defect ‖UᴴU − I‖/√n \
(Frobenius). The Gram core stops with NaN (a cross) where it has lost half of its digits; "auto" passes \
over to the orthonormal core in time. The published form adds 1e-8 to the squares of the singular values, \
and its result ceases to be unitary where these are small; at rank 1 single precision does the same."""


def cases(full: bool) -> list[Case]:
    """One unit of work for every dtype, rank and number of small singular values."""
    return [
        {"dtype": dtype, "n": n, "k": k, "small": small}
        for n in ((32, 128) if full else (32,))
        for dtype in ("float64", "complex128", "float32", *(("complex64",) if full else ()))
        for k, small in ((1, 1), (3, 1), (3, 2))
    ]


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    share = 1.5 if str(case["dtype"]).startswith("complex") else 0.6 if case["dtype"] == "float32" else 1.0
    return 0.4 * share * (int(case["n"]) / 32) ** 2


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """Every core and the published form at every σ_min, on the same samples."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(str(case["dtype"]))
    n, k, small = int(case["n"]), int(case["k"]), int(case["small"])
    rows: list[Row] = []
    for sigma in 0.4 * 10.0 ** -np.arange(0, 11.6, 0.5):
        if sigma < 10 * np.finfo(dtype).eps:
            break
        values = np.array([sigma, 2 * sigma][:small] + list(MODERATE[: k - small]))
        errors: list[list[float]] = []
        defects: list[list[float]] = []
        for _ in range(DRAWS):
            step = near_singular_step(rng, n, values, dtype)
            expected = exact_step(*step, "polar")
            results = [polar_projection(*step, core=core) for core in CORES]
            results.append(published.polar(*step))
            errors.append([error_of(result, expected) for result in results])
            defects.append([defect_of(result) for result in results])
        model = condition(values, dtype) * float(np.finfo(dtype).eps) / 2
        for core, error, defect in zip(
            (*CORES, "published"), np.transpose(errors), np.transpose(defects), strict=True
        ):
            rows.append(
                {
                    "sigma": float(sigma),
                    "form": "published" if core == "published" else "ours",
                    "core": core,
                    "error": float(np.median(error)),
                    "error_max": float(np.max(error)),
                    "model": model,
                    "defect": float(np.median(defect)),
                    "defect_max": float(np.max(defect)),
                }
            )
    return rows


def near_singular_step(
    rng: np.random.Generator, n: int, values: Numbers, dtype: np.dtype[Any]
) -> tuple[Numbers, Numbers, Numbers]:
    """U and a step of rank k = len(values) such that U + left rightᴴ has these singular values below 1.

    In k orthogonal planes (b, g) let I + cbᴴ be [[ε, 0], [γ, 1]]. Its singular values s < 1 and |ε|/s follow
    from |ε|²/s² + s² = |ε|² + γ² + 1, which is solved for |ε|; γ = 1 makes c and b far from parallel.
    """
    k = len(values)
    complex_data = dtype.kind == "c"
    wide = np.complex128 if complex_data else np.float64
    unitary = rounded_unitary(n, dtype, rng)
    basis = random_unitary(n, dtype=wide, rng=rng)
    b, g = basis[:, :k], basis[:, k : 2 * k]
    corner = (values * np.sqrt((2 - values**2) / (1 - values**2))).astype(wide)
    if complex_data:
        corner *= np.exp(2j * math.pi * rng.random(k))
    # Mixed columns of the same product, which do not show the planes.
    turned = random_unitary(k, dtype=wide, rng=rng)
    c, b = (b * (corner - 1) + g) @ turned, b @ turned
    # Products in extended precision: only the factors are rounded.
    left = reference.extended(unitary) @ reference.extended(c)
    return unitary, left.astype(dtype), b.astype(dtype)


def condition(values: Numbers, dtype: np.dtype[Any]) -> float:
    """Condition number of the unitary polar factor, real or complex, for singular values up to 1."""
    least, next_least = np.sort(np.append(values, 1.0))[:2]
    return float(1 / least if dtype.kind == "c" else 2 / (least + next_least))


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Error and defect against σ_min: real data with one and two small singular values, and complex data."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    n = min(row["n"] for row in rows)
    rows = [row for row in rows if row["n"] == n]
    result = Figure(figsize=(12.5, 8.0), layout="constrained")
    panels = result.subplots(2, 3, sharex=True, sharey="row", squeeze=False)
    columns = (
        ("Real, one small singular value", 1, 1, ("float64", "float32")),
        ("Real, two small singular values", 3, 2, ("float64", "float32")),
        ("Complex, one small singular value", 3, 1, ("complex128", "complex64")),
    )
    for column, (title, k, small, dtypes) in enumerate(columns):
        chosen = [row for row in rows if (row["k"], row["small"]) == (k, small) and row["dtype"] in dtypes]
        for axes, quantity in zip(panels[:, column], ("error", "defect"), strict=True):
            _panel(axes, chosen, quantity)
        panels[0, column].set_title(f"{title} (k = {k})", fontsize=11)
        panels[1, column].set_xlabel("σ_min of U + left rightᴴ")
    panels[0, 0].set_ylabel("error of the result (spectral norm)")
    panels[1, 0].set_ylabel("‖UᴴU − I‖/√n of the result (Frobenius)")
    for axes in panels[:, 0]:
        axes.set_ylim(2e-17, 9.0)
    panels[0, 0].invert_xaxis()
    handles = [Line2D([], [], **style) for style in _STYLES.values()]
    handles += [
        Line2D([], [], color="0.2", linestyle=":", linewidth=1.4),
        Line2D([], [], color="0.2", linestyle="", marker="x"),
    ]
    labels = [*_LABELS.values(), "condition number × eps/2", "NaN beyond"]
    result.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=4,
        frameon=False,
        title=f"Polar projection near a singular matrix, n = {n}; double precision unless stated otherwise",
        title_fontsize=12,
    )
    return result


# Colours by M. Okabe and K. Ito, distinct for every kind of colour vision.
_STYLES: dict[str, dict[str, Any]] = {
    "auto": {"color": "#009E73", "linewidth": 5.0, "alpha": 0.35},
    "gram": {"color": "#D55E00", "linewidth": 1.4},
    "orthonormal": {"color": "#0072B2", "linewidth": 1.4},
    "published": {"color": "0.45", "linewidth": 1.6, "linestyle": "--"},
    "single": {"color": "#CC79A7", "linewidth": 1.4},
}
_LABELS = {
    "auto": "auto (the default)",
    "gram": "gram",
    "orthonormal": "orthonormal",
    "published": "published form",
    "single": "single precision, auto",
}


def _panel(axes: Axes, rows: list[dict[str, Any]], quantity: str) -> None:
    double, single = ("float64", "complex128"), ("float32", "complex64")
    lines = [(core, core, double) for core in ("auto", "gram", "orthonormal", "published")]
    lines += [("single", "auto", single)]
    for name, core, dtypes in lines:
        chosen = [row for row in rows if row["core"] == core and row["dtype"] in dtypes]
        chosen.sort(key=lambda row: -row["sigma"])
        if not chosen:
            continue
        sigma = np.array([row["sigma"] for row in chosen])
        values = np.array([row[quantity] for row in chosen])
        style = _STYLES[name]
        axes.plot(sigma, values, **style)
        ends = np.flatnonzero(np.isnan(values[1:]) & ~np.isnan(values[:-1]))
        axes.plot(sigma[ends], values[ends], "x", color=style["color"], ms=7)
        if quantity == "error" and core == "auto":
            colour = "0.2" if name == "auto" else style["color"]
            axes.plot(sigma, [row["model"] for row in chosen], ":", color=colour, linewidth=1.4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(10.0 ** np.arange(-12, 1, 3))
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """For every kind of data: error against the model, and where the defect leaves rounding."""
    header = [
        "dtype", "n", "k", "small values", "auto, σ_min ≈ 0.01", "auto, smallest σ_min",
        "largest error / (condition × eps/2), auto", "defect, auto", "defect, published", "gram NaN from",
    ]  # fmt: skip
    lines = []
    for dtype, n, k, small in dict.fromkeys((row["dtype"], row["n"], row["k"], row["small"]) for row in rows):
        chosen = [
            row for row in rows if (row["dtype"], row["n"], row["k"], row["small"]) == (dtype, n, k, small)
        ]
        auto = [row for row in chosen if row["core"] == "auto"]
        last = min(auto, key=lambda row: row["sigma"])
        hundredth = min(auto, key=lambda row: abs(math.log(row["sigma"] / 0.01)))
        refused = [row["sigma"] for row in chosen if row["core"] == "gram" and math.isnan(row["error"])]
        lines.append(
            [
                dtype,
                str(n),
                str(k),
                str(small),
                f"{hundredth['error']:.1e}",
                f"{last['error']:.1e} at {last['sigma']:.0e}",
                f"{max(row['error_max'] / row['model'] for row in auto):.1f}",
                f"{max(row['defect_max'] for row in auto):.1e}",
                f"{max(row['defect_max'] for row in chosen if row['core'] == 'published'):.1e}",
                f"{max(refused):.0e}" if refused else "–",
            ]
        )
    return header, lines


STUDY = Study(
    name="near-singular",
    title="Polar projection near a singular matrix",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    figure=figure,
    table=table,
)
