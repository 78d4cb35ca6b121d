"""Study: growth of the unitarity defect with the number of steps, and healing."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from ... import CompensatedUnitary, polar_projection, unitary_transport
from .. import published
from ..study import Case, Row, Study
from .exact import Numbers, defect_of, rounded_unitary
from .inherited_defect import random_steps, shortcut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NORM = 0.1
EPS = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "complex64": 2.0**-23,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
}
# Steps whose factors are sampled together, and steps between two saved states.
_BLOCK = 500
_SAVED_EVERY = 40 * _BLOCK

# One step of a run: (step number, left, right, generator of probes).
Advance = Callable[[int, Numbers, Numbers, np.random.Generator], None]

TEXT = """How does the defect ‖UᴴU − I‖ (Frobenius) grow with the number of steps? A random unitary \
matrix makes steps left rightᴴ of spectral norm 0.1 with fresh Gaussian factors.

Without healing every step rounds every entry once, and the errors add like a random walk: 0.30 eps √(n \
s) after s steps, whatever the update is (dotted grey line). With p probes a step the defect settles \
where rounding and healing balance, at 0.30 eps n/√(2p), for any number of steps (dotted in the curve's \
colour). That counts the rounding of U alone. In single and double precision healing also forms Uᴴ(UZ) in \
the precision of U: one probe settles about 1.3 times higher, and more probes gain little.

For steps as short as these the published form of transport loses its digits to a complex64 core (visible \
in double precision), and the shortcut of transport that uses left in place of U Uᴴ left does no harm \
yet; see the study of an inherited defect for longer ones. Storage in half precision computes in single \
and double precision and rounds the matrix once a step; the compensated pair keeps the remainder in a \
second array."""


def cases(full: bool) -> list[Case]:
    """One unit of work a curve."""
    long = 1_000_000 if full else 100_000
    runs: list[tuple[str, str, str, int, int, int]] = [
        # dtype, form, update, probes, every, steps
        ("float32", "ours", "geodesic", 0, 1, long),
        ("float32", "ours", "geodesic", 1, 1, long),
        ("float64", "ours", "geodesic", 0, 1, 1_000_000 if full else 10_000),
        ("float64", "ours", "geodesic", 1, 1, long),
        ("float32", "ours", "geodesic", 1, 10, 10_000),
        ("float32", "ours", "polar", 0, 1, 5_000),
        ("complex64", "ours", "geodesic", 0, 1, 5_000),
        ("float32", "shortcut", "geodesic", 0, 1, 5_000),
        ("float32", "published", "geodesic", 0, 1, 10_000),
        ("float32", "published", "polar", 0, 1, 10_000),
        ("float64", "published", "geodesic", 0, 1, 10_000),
        ("float64", "published", "polar", 0, 1, 10_000),
        ("float16", "ours", "geodesic", 0, 1, 3_000),
        ("float16", "ours", "geodesic", 1, 1, 10_000),
        ("float16", "ours", "geodesic", 8, 1, 3_000),
        ("float16", "compensated", "geodesic", 0, 1, 3_000),
        ("float16", "compensated", "geodesic", 1, 1, 3_000),
    ]
    if find_spec("torch"):
        runs += [("bfloat16", "ours", "geodesic", probes, 1, 1_000) for probes in (0, 1, 8)]
    names = ("dtype", "form", "update", "probes", "every", "steps")
    sizes = [(128, 1)]
    listed: list[Case] = [
        dict(zip(names, run, strict=True)) | {"n": n, "k": k} for n, k in sizes for run in runs
    ]
    if full:
        listed += [
            dict(zip(names, run, strict=True)) | {"n": n, "k": k, "steps": 100_000}
            for n, k in ((128, 4), (512, 1))
            for run in runs[:2]
        ]
    return listed


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    step = {"published": 2.0e-4, "shortcut": 3.0e-4}.get(str(case["form"]), 2.2e-4)
    step += 1.2e-4 * (case["probes"] > 0) / case["every"] + 2e-9 * float(case["n"]) ** 2
    slower = {"bfloat16": 2.5, "float16": 1.5}.get(str(case["dtype"]), 1.0)
    return step * slower * int(case["steps"])


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """The defect at about four numbers of steps in every decade; NaN ends a run."""
    n, k, steps, dtype = int(case["n"]), int(case["k"]), int(case["steps"]), str(case["dtype"])
    records = {round(10 ** (i / 4)) for i in range(math.ceil(4 * math.log10(steps)) + 1)} | {steps}
    entropy = [int(word) for word in seed.generate_state(4)]
    run = _Run(case, _start(n, dtype, str(case["form"]), entropy))
    first, rows = _load(scratch, run)
    narrow = {"float64": "float64", "complex64": "complex64"}.get(dtype, "float32")
    # Again, for the threads of torch, which has been imported since.
    with np.errstate(all="ignore"), threadpool_limits(1):
        for block in range(first // _BLOCK, math.ceil(steps / _BLOCK)):
            # One generator a block, so that a run can be continued from any of them.
            rng = np.random.default_rng([*entropy, block])
            lefts, rights = random_steps(rng, _BLOCK, n, k, NORM, complex_data=narrow == "complex64")
            for i in range(min(_BLOCK, steps - block * _BLOCK)):
                step = block * _BLOCK + i + 1
                run.advance(step, lefts[i].astype(narrow), rights[i].astype(narrow), rng)
                if step not in records:
                    continue
                rows.append({"step": step, "defect": run.defect()})
                if not math.isfinite(rows[-1]["defect"]):
                    return rows
            if step % _SAVED_EVERY == 0 and step < steps:
                _save(scratch, run, step, rows)
    return rows


class _Run:
    """The matrix of one curve, and how it moves."""

    def __init__(self, case: Case, start: Any) -> None:
        self._form, self._update = str(case["form"]), str(case["update"])
        self._probes, self._every = int(case["probes"]), int(case["every"])
        self._dtype = str(case["dtype"])
        self.matrix = start

    def advance(self, step: int, left: Any, right: Any, rng: np.random.Generator) -> None:
        """Make one step."""
        if self._form == "published":
            plain = published.polar if self._update == "polar" else published.transport
            self.matrix = plain(self.matrix, left, right)
            return
        if self._form == "shortcut":
            self.matrix = shortcut(self.matrix, left, right)
            return
        heal = self._probes if step % self._every == 0 else 0
        if self._dtype == "bfloat16":
            import torch

            left, right = torch.from_numpy(left), torch.from_numpy(right)
        move = polar_projection if self._update == "polar" else unitary_transport
        self.matrix = move(self.matrix, left, right, heal=heal, rng=rng, overwrite_unitary=True)
        if self._form == "compensated":
            self.matrix = _stored_as_pair(self.matrix)

    def defect(self) -> float:
        """‖UᴴU − I‖_F, or NaN."""
        matrix = self.state()
        return math.sqrt(len(matrix)) * defect_of(matrix)

    def state(self) -> Numbers:
        """The matrix in a dtype that numpy can save; exact."""
        if self._dtype == "bfloat16":
            return np.asarray(self.matrix.float().numpy())
        return np.asarray(self.matrix)

    def restore(self, state: Numbers) -> None:
        """Continue from a saved matrix."""
        if self._dtype == "bfloat16":
            import torch

            self.matrix = torch.from_numpy(state).to(torch.bfloat16)
        else:
            self.matrix = state


def _stored_as_pair(matrix: Numbers) -> Numbers:
    return np.asarray(CompensatedUnitary.split(matrix, np.float16).single())


def _start(n: int, dtype: str, form: str, entropy: list[int]) -> Any:
    wide = np.dtype(np.complex128 if dtype == "complex64" else np.float64)
    exact = rounded_unitary(n, wide, np.random.default_rng(entropy))
    if dtype == "bfloat16":
        import torch

        return torch.from_numpy(exact).to(torch.bfloat16)
    if form == "compensated":
        return _stored_as_pair(exact.astype(np.float32))
    return exact.astype(dtype)


def _save(scratch: Path, run: _Run, step: int, rows: list[Row]) -> None:
    temporary = scratch.with_name("state.part.npz")
    recorded = np.array([[row["step"], row["defect"]] for row in rows])
    np.savez(temporary, matrix=run.state(), step=step, rows=recorded)
    os.replace(temporary, scratch)


def _load(scratch: Path, run: _Run) -> tuple[int, list[Row]]:
    if not scratch.exists():
        return 0, []
    with scratch.open("rb") as file, np.load(file) as saved:
        run.restore(saved["matrix"])
        rows = [{"step": int(step), "defect": float(defect)} for step, defect in saved["rows"]]
        return int(saved["step"]), rows


# Colours by M. Okabe and K. Ito, distinct for every kind of colour vision.
_BLUE, _ORANGE, _GREEN, _RED, _PURPLE, _SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
_GREY = "0.45"


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Defect against the number of steps: single, double and half precision side by side."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if (row["n"], row["k"]) == (128, 1)]
    result = Figure(figsize=(13.0, 6.0), layout="constrained")
    single, double, half = result.subplots(1, 3)
    _panel(single, "float32", rows, [
        ("no healing", {"dtype": "float32"}, {"color": _RED}),
        ("one probe every 10th step", {"dtype": "float32", "probes": 1, "every": 10}, {"color": _ORANGE}),
        ("one probe every step", {"dtype": "float32", "probes": 1}, {"color": _BLUE}),
        ("polar, no healing", {"dtype": "float32", "update": "polar"}, {"color": _PURPLE, "ls": "-."}),
        ("complex64, no healing", {"dtype": "complex64"}, {"color": _GREEN, "ls": "-."}),
        ("shortcut, no healing", {"dtype": "float32", "form": "shortcut"}, {"color": "black", "ls": ":"}),
        ("published form, T", {"dtype": "float32", "form": "published"}, {"color": _GREY, "ls": "--"}),
        ("published form, D", {"dtype": "float32", "form": "published", "update": "polar"},
         {"color": _GREY, "ls": (0, (1, 1))}),
    ])  # fmt: skip
    _panel(double, "float64", rows, [
        ("no healing", {"dtype": "float64"}, {"color": _RED}),
        ("one probe every step", {"dtype": "float64", "probes": 1}, {"color": _BLUE}),
        ("published form, T", {"dtype": "float64", "form": "published"}, {"color": _GREY, "ls": "--"}),
        ("published form, D", {"dtype": "float64", "form": "published", "update": "polar"},
         {"color": _GREY, "ls": (0, (1, 1))}),
    ])  # fmt: skip
    _panel(half, "float16 and bfloat16", rows, [
        ("bfloat16, no healing", {"dtype": "bfloat16"}, {"color": _PURPLE}),
        ("bfloat16, 1 probe", {"dtype": "bfloat16", "probes": 1}, {"color": _PURPLE, "ls": "-."}),
        ("bfloat16, 8 probes", {"dtype": "bfloat16", "probes": 8}, {"color": _PURPLE, "ls": ":"}),
        ("float16, no healing", {"dtype": "float16"}, {"color": _RED}),
        ("float16, 1 probe", {"dtype": "float16", "probes": 1}, {"color": _BLUE}),
        ("float16, 8 probes", {"dtype": "float16", "probes": 8}, {"color": _SKY}),
        ("float16 pair, no healing", {"dtype": "float16", "form": "compensated"}, {"color": _ORANGE}),
        ("float16 pair, 1 probe", {"dtype": "float16", "form": "compensated", "probes": 1},
         {"color": _GREEN}),
    ])  # fmt: skip
    single.set_ylabel("‖UᴴU − I‖ (Frobenius)")
    result.suptitle("Steps of norm 0.1, k = 1, n = 128: transport unless stated otherwise", fontsize=13)
    return result


def _panel(
    axes: Axes, title: str, rows: list[dict[str, Any]], curves: list[tuple[str, Case, dict[str, Any]]]
) -> None:
    default = {"form": "ours", "update": "geodesic", "probes": 0, "every": 1}
    longest = 10
    for label, chosen, style in curves:
        steps, defects = _curve(rows, default | chosen)
        if not len(steps):
            continue
        longest = max(longest, steps[-1])
        axes.plot(steps, defects, label=label, linewidth=1.8, **style)
        if not np.isfinite(defects[-1]):
            last = np.flatnonzero(np.isfinite(defects))[-1:]
            axes.plot(steps[last], defects[last], "x", color=style["color"], ms=8)
        probes = chosen.get("probes", 0)
        if probes and chosen.get("form", "ours") == "ours" and chosen.get("every", 1) == 1:
            level = 0.3 * EPS[chosen["dtype"]] * 128 / math.sqrt(2 * probes)
            axes.axhline(level, color=style["color"], linewidth=0.8, linestyle=":")
    for dtype in dict.fromkeys(chosen["dtype"] for _, chosen, _ in curves):
        if dtype != "complex64":
            x = np.array([1.0, longest])
            axes.plot(x, 0.3 * EPS[dtype] * np.sqrt(128 * x), color="0.6", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=9, frameon=False)
    axes.set_title(title)
    axes.set_xlabel("number of steps")
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _curve(rows: list[dict[str, Any]], chosen: Case) -> tuple[Numbers, Numbers]:
    """Steps and defects of the longest run."""
    found = [row for row in rows if all(row[name] == value for name, value in chosen.items())]
    longest = max((row["steps"] for row in found), default=0)
    points = sorted((row["step"], row["defect"]) for row in found if row["steps"] == longest)
    return np.array([step for step, _ in points]), np.array([defect for _, defect in points])


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The defect after 1000 steps and at the end, and in units of the model."""
    header = ["form", "dtype", "n", "k", "update", "probes", "steps", "after 1000", "at the end", "÷ model"]
    lines = []
    names = ("form", "dtype", "n", "k", "update", "probes", "every", "steps")
    for key in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        run = {row["step"]: row["defect"] for row in rows if tuple(row[name] for name in names) == key}
        form, dtype, n, k, update, probes, every, steps = key
        model = 0.3 * EPS[dtype] * (n * math.sqrt(every / (2 * probes)) if probes else math.sqrt(n * steps))
        last = run[max(run)]
        ratio = f"{last / model:.2f}" if form == "ours" else "–"
        often = f"{probes}" + (f" every {every}" if every > 1 else "")
        shown = f"{run[1000]:.2g}" if 1000 in run else "–"
        lines.append([form, dtype, str(n), str(k), update, often, str(max(run)), shown, f"{last:.2g}", ratio])
    return header, lines


STUDY = Study(
    name="drift",
    title="Drift from unitarity over many steps, and healing",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    figure=figure,
    table=table,
)
