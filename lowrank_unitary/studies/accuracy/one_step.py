"""Study: the error and the unitarity defect of one step, against the norm of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import polar_projection, unitary_transport
from ...rotation.core import CORES
from .. import published
from ..study import Case, Row, Study
from .exact import Numbers, defect_of, error_of, exact_step, rounded_unitary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UPDATES = ("geodesic", "cayley", "polar")
DTYPES = ("float64", "complex128", "float32", "complex64", "float16")
RANKS = (1, 4)
# Shorter steps have too few numbers in half precision.
SHORTEST = {"float16": 1e-6}
DRAWS = 3
DOUBLE, SINGLE = ("float64", "complex128"), ("float32", "complex64")

TEXT = """How exact is one step, and how unitary is its result, for steps of any size? A step left rightᴴ \
of rank k with Gaussian factors is scaled to the spectral norm on the horizontal axis and made once from \
a random unitary matrix. The error is the spectral norm of the difference from the exact result for the \
same numbers, computed in extended precision. The defect is ‖UᴴU − I‖/√n (Frobenius) of the result; \
rounding an exactly unitary matrix costs 0.3 eps of its dtype already.

Upper row: error; lower row: defect. Each point is the median of a few samples, the worse one of real and \
complex data. The library's cores are shown in colour: "gram" works with products only, "orthonormal" \
with a QR, "auto" chooses by value and is what is used unless asked otherwise. A curve that ends in a \
cross was followed by NaN: the Gram core refuses where it has lost half of its digits. For collinear \
factors (right parallel to Uᴴ left) everything cancels in the real transport step.

The published form of projUNN, for double precision, is shown in grey: at rank 1 its core is computed in \
single precision, and its polar projection adds an absolute 1e-8 under a root. It has no Cayley curve."""


def cases(full: bool) -> list[Case]:
    """One unit of work for every dtype, update, rank and kind of step."""
    found: list[Case] = []
    for n in (64, 256) if full else (64,):
        for update in UPDATES:
            for dtype in DTYPES:
                for k in RANKS:
                    kinds = ("collinear", "generic") if k == 1 and update != "polar" else ("generic",)
                    found += [
                        {"update": update, "dtype": dtype, "n": n, "k": k, "kind": kind} for kind in kinds
                    ]
    return found


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    dtype = str(case["dtype"])
    share = 0.5 if dtype == "float16" else 1.5 if dtype.startswith("complex") else 1.0
    return 0.28 * share * (int(case["n"]) / 64) ** 2.5


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """Every core and the published form at every step norm, on the same samples."""
    rng = np.random.default_rng(seed)
    update, dtype = str(case["update"]), np.dtype(str(case["dtype"]))
    forms = _forms(update, dtype)
    rows: list[Row] = []
    for norm in 10.0 ** np.arange(-12, 4):
        if norm < SHORTEST.get(dtype.name, 0.0):
            continue
        errors: list[list[float]] = []
        defects: list[list[float]] = []
        for _ in range(DRAWS):
            step = draw_step(rng, int(case["n"]), int(case["k"]), dtype, str(case["kind"]), float(norm))
            expected = exact_step(*step, update)
            results = [apply(*step) for _, _, apply in forms]
            errors.append([error_of(result, expected) for result in results])
            defects.append([defect_of(result) for result in results])
        for (form, core, _), error, defect in zip(
            forms, np.transpose(errors), np.transpose(defects), strict=True
        ):
            rows.append(
                {
                    "norm": float(norm),
                    "form": form,
                    "core": core,
                    "error": float(np.median(error)),
                    "error_max": float(np.max(error)),
                    "defect": float(np.median(defect)),
                    "defect_max": float(np.max(defect)),
                }
            )
    return rows


def draw_step(
    rng: np.random.Generator, n: int, k: int, dtype: np.dtype[Any], kind: str, norm: float
) -> tuple[Numbers, Numbers, Numbers]:
    """A random unitary matrix and a step of the given spectral norm, with factors of equal norms."""
    unitary = rounded_unitary(n, dtype, rng)
    shape = (2, n, k)
    left, right = rng.standard_normal(shape)
    if dtype.kind == "c":
        left, right = np.stack([left, right]) + 1j * rng.standard_normal(shape)
    if kind == "collinear":
        left = unitary.astype(left.dtype) @ right
    size = math.sqrt(norm / np.linalg.norm(left @ np.conj(right.T), 2))
    return unitary, (left * size).astype(dtype), (right * size).astype(dtype)


def _forms(
    update: str, dtype: np.dtype[Any]
) -> list[tuple[str, str, Callable[[Numbers, Numbers, Numbers], Numbers]]]:
    """Name, core and function of all compared forms."""

    def ours(core: str) -> Callable[[Numbers, Numbers, Numbers], Numbers]:
        if update == "polar":
            return lambda *step: polar_projection(*step, core=core)
        return lambda *step: unitary_transport(*step, update=update, core=core)

    forms = [("ours", core, ours(core)) for core in CORES]
    # LAPACK has no half precision, and the published form no Cayley curve.
    if update != "cayley" and dtype.name != "float16":
        forms.append(
            ("published", "published", published.polar if update == "polar" else published.transport)
        )
    return forms


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Error and defect against the step norm, for the three updates."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    n = min(row["n"] for row in rows)
    rows = [row for row in rows if row["n"] == n]
    result = Figure(figsize=(12.5, 8.0), layout="constrained")
    panels = result.subplots(2, 3, sharex=True, sharey="row", squeeze=False)
    for column, update in enumerate(UPDATES):
        chosen = [row for row in rows if row["update"] == update]
        for axes, quantity in zip(panels[:, column], ("error", "defect"), strict=True):
            _panel(axes, chosen, quantity)
        panels[0, column].set_title(
            {"geodesic": "Transport, geodesic", "cayley": "Transport, Cayley", "polar": "Polar projection"}[
                update
            ]
        )
        panels[1, column].set_xlabel("step norm ‖left rightᴴ‖ (spectral)")
    panels[0, 0].set_ylabel("error of the result (spectral norm)")
    panels[1, 0].set_ylabel("‖UᴴU − I‖/√n of the result (Frobenius)")
    panels[0, 0].set_ylim(1e-17, 2.0)
    panels[1, 0].set_ylim(1e-17, 2.0)
    handles = [Line2D([], [], **style) for style in _STYLES.values()]
    handles += [Line2D([], [], color="0.2", linestyle=line, linewidth=1.2) for line in ("-", ":", "-.")]
    handles += [Line2D([], [], color="0.2", linestyle="", marker="x")]
    labels = [_LABELS[name] for name in _STYLES]
    labels += ["k = 4", "k = 1", "k = 1, collinear", "NaN beyond"]
    result.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=5,
        frameon=False,
        title=f"One step from a random unitary matrix, n = {n}; double precision unless stated otherwise",
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
    "half": {"color": "#E69F00", "linewidth": 1.4},
}
_LABELS = {
    "auto": "auto (the default)",
    "gram": "gram",
    "orthonormal": "orthonormal",
    "published": "published form",
    "single": "single precision, auto",
    "half": "float16, auto",
}


def _panel(axes: Axes, rows: list[dict[str, Any]], quantity: str) -> None:
    lines: list[tuple[str, str, tuple[str, ...]]]
    lines = [(core, core, DOUBLE) for core in ("auto", "gram", "orthonormal", "published")]
    lines += [("single", "auto", SINGLE), ("half", "auto", ("float16",))]
    for name, core, dtypes in lines:
        for k, kind, line in ((4, "generic", "-"), (1, "generic", ":"), (1, "collinear", "-.")):
            chosen = [row for row in rows if (row["core"], row["k"], row["kind"]) == (core, k, kind)]
            chosen = [row for row in chosen if row["dtype"] in dtypes]
            # Collinear steps show cancellation; half precision hides the rank.
            if (kind == "collinear" and name != "gram") or (name == "half" and k == 1):
                continue
            norms = sorted({row["norm"] for row in chosen})
            values = np.array(
                [np.max([row[quantity] for row in chosen if row["norm"] == norm]) for norm in norms]
            )
            style = {**_STYLES[name], "linestyle": line}
            if name == "published":
                style["linestyle"] = "--" if k == 4 else (0, (1.5, 1.5))
            axes.plot(norms, values, **style)
            lost = [j for j in range(1, len(values)) if np.isnan(values[j]) and not np.isnan(values[j - 1])]
            axes.plot(
                [norms[j - 1] for j in lost], values[[j - 1 for j in lost]], "x", color=style["color"], ms=7
            )
    if quantity == "defect":
        for dtype, name in (("float64", "double"), ("float32", "single"), ("float16", "float16")):
            floor = 0.3 * float(np.finfo(dtype).eps)
            axes.axhline(floor, color="0.75", linewidth=0.8, zorder=0)
            axes.annotate(
                f"rounding to {name}", (1e-12, floor), xytext=(0, -9), textcoords="offset points",
                fontsize=7.5, color="0.45",
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(10.0 ** np.arange(-12, 4, 3))
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Largest errors and defects over all samples, for every dtype and update."""
    header = [
        "update", "dtype", "n", "auto, norms to 1", "auto, norm 1000", "published, norms to 1",
        "published, norm 1000", "defect, auto", "defect, published", "0.3 eps",
    ]  # fmt: skip
    lines = []
    for update, dtype, n in dict.fromkeys((row["update"], row["dtype"], row["n"]) for row in rows):
        chosen = [row for row in rows if (row["update"], row["dtype"], row["n"]) == (update, dtype, n)]

        def largest(
            quantity: str, core: str, least: float, most: float, chosen: list[dict[str, Any]] = chosen
        ) -> str:
            values = [row[quantity] for row in chosen if row["core"] == core and least <= row["norm"] <= most]
            return f"{np.max(values):.1e}" if values else "–"

        lines.append(
            [
                update,
                dtype,
                str(n),
                largest("error_max", "auto", 0.0, 1.5),
                largest("error_max", "auto", 900.0, math.inf),
                largest("error_max", "published", 0.0, 1.5),
                largest("error_max", "published", 900.0, math.inf),
                largest("defect_max", "auto", 0.0, math.inf),
                largest("defect_max", "published", 0.0, math.inf),
                f"{0.3 * float(np.finfo(dtype).eps):.1e}",
            ]
        )
    return header, lines


STUDY = Study(
    name="one-step",
    title="Error and unitarity defect of one step",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    figure=figure,
    table=table,
)
