"""Study: descent by low-rank steps, projecting first or compressing first."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import random_unitary, unitary_step, unitary_transport
from .. import published
from ..study import Case, Row, Study
from .exact import Numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROCRUSTES_STEP = 0.8
# Pairs of vectors of the random target, vectors in a minibatch, and the step size in units of their ratio:
# with 1 the exact step would fit a minibatch of orthogonal vectors.
PAIRS, BATCH, TARGET_STEP = 4096, 16, 1.0
# Steps between two saved states, and n from which states are saved: such a run takes minutes.
_SAVED_EVERY, _LARGE = 100, 1000

# (U, gradient, step size, k, rng) → new U
Move = Callable[[Numbers, Numbers, float, int, np.random.Generator], Numbers]

# The same with the gradient as two thin factors.
FactoredMove = Callable[[Numbers, tuple[Numbers, Numbers], float, int, np.random.Generator], Numbers]

TEXT = """Where does descent end up when every step has rank k, and how fast? "Project first" sketches \
the part of the gradient that moves U; "compress first" sketches the gradient and takes the tangent of \
the sketch, as the paper does. All methods of one panel have the same problem and the same minibatches, \
and take steps of the same size.

Upper row: the full-batch Procrustes problem ½‖UX − Y‖², n = 64, real, X of 4n columns, Y = U*X + noise, \
step size 0.8; the gap of the loss to its minimum over matrices with the initial determinant. Near \
the minimum the gradient is dominated by a Hermitian part, which moves nothing: compressing it first \
keeps that part and stalls. Gaps below 1e-15 of the loss are drawn there.

Lower row: a random complex unitary target, learnt from 4096 pairs of vectors in minibatches of 16, plain \
stochastic gradient descent with step size 16/n on the mean gradient, which has rank 16. "All 16" takes \
the two factors of that gradient as they are, without any sampler."""


def cases(full: bool) -> list[Case]:
    """One unit of work for a problem and, for the random target, a method."""
    listed: list[Case] = [
        {"problem": "procrustes", "n": 64, "noise": noise, "k": k, "steps": steps, "method": "all"}
        for steps in ((1000, 3000) if full else (1000,))
        for noise in (0.0, 1.0)
        for k in (1, 4)
    ]
    for n, steps in ((256, 1000), (2048, 3000)) if full else ((256, 1000),):
        listed += [
            {"problem": "target", "n": n, "noise": 0.0, "k": k, "steps": steps, "method": method}
            for k in (1, 4, BATCH)
            for method in _TARGET_METHODS
            if k == {"all 16": BATCH, "published": 4}.get(method, k)
        ]
    return listed


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    if case["problem"] == "procrustes":
        return 4e-3 * int(case["steps"])
    return 2.5e-3 * int(case["steps"]) * (int(case["n"]) / 256) ** 2


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """The gap, or the distance from the target, at a dozen numbers of steps in every decade."""
    if case["problem"] == "procrustes":
        return _procrustes(case, seed)
    return _target(case, seed, scratch)


def _records(steps: int) -> set[int]:
    return {round(count) for count in np.geomspace(1, steps, 12 * math.ceil(math.log10(steps)))}


def _procrustes(case: Case, seed: np.random.SeedSequence) -> list[Row]:
    n, k, steps, noise = int(case["n"]), int(case["k"]), int(case["steps"]), float(case["noise"])
    rng = np.random.default_rng(seed)
    X, other = rng.standard_normal((2, n, 4 * n)) / math.sqrt(4 * n)
    initial, target = random_unitary(n, rng=rng), random_unitary(n, rng=rng)
    S, B = X @ X.T, (target @ X + noise * other) @ X.T
    # tr(UᵀB) at the optimum, with the determinant of the initial matrix.
    u, sigma, vt = np.linalg.svd(B)
    same = np.linalg.det(u) * np.linalg.det(vt) * np.linalg.det(initial) > 0
    best = float(np.sum(sigma) - (0 if same else 2 * sigma[-1]))
    floor = 1e-15 * best
    rows: list[Row] = []
    for name, move in _PROCRUSTES_METHODS.items():
        U, source = initial.copy(), np.random.default_rng(int(seed.generate_state(1)[0]))
        for step in range(steps + 1):
            if step == 0 or step in _records(steps):
                gap = best - float(np.sum(U * B))
                rows.append({"name": name, "step": step, "gap": max(gap, floor)})
            U = move(U, U @ S - B, PROCRUSTES_STEP, k, source)
    return rows


def _target(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    n, k, steps = int(case["n"]), int(case["k"]), int(case["steps"])
    method = str(case["method"])
    # One problem for all methods and ranks, from the common first word of the seed, and the size.
    common = [int(np.ravel(np.asarray(seed.entropy, dtype=object))[0]), n]
    rng = np.random.default_rng(common)
    U, target = (random_unitary(n, dtype=np.complex64, rng=rng) for _ in range(2))
    X = rng.standard_normal((2, n, PAIRS), dtype=np.float32)
    X = ((X[0] + 1j * X[1]) / math.sqrt(2)).astype(np.complex64)
    Y = target @ X
    eta = TARGET_STEP * BATCH / n
    records, rows, first = _records(steps), [], 0
    if scratch.exists():
        with scratch.open("rb") as file, np.load(file) as saved:
            U, first = saved["U"], int(saved["step"])
            rows = [{"name": method, "step": int(step), "gap": float(gap)} for step, gap in saved["rows"]]
    for step in range(first, steps + 1):
        if step == 0 or step in records:
            rows.append(
                {"name": method, "step": step, "gap": float(np.linalg.norm(U - target)) / math.sqrt(n)}
            )
        # The number of a step seeds its minibatch and sampler, so that a run can be continued.
        source = np.random.default_rng([*common, step])
        chosen = source.integers(0, PAIRS, BATCH)
        x, delta = X[:, chosen], (U @ X[:, chosen] - Y[:, chosen]) / BATCH
        U = _TARGET_METHODS[method](U, (delta, x), eta, k, source)
        if n > _LARGE and (step + 1) % _SAVED_EVERY == 0:
            temporary = scratch.with_name("state.part.npz")
            np.savez(temporary, U=U, step=step + 1, rows=np.array([[r["step"], r["gap"]] for r in rows]))
            os.replace(temporary, scratch)
    return rows


def _library(sketch: str) -> Move:
    def move(U: Numbers, G: Numbers, eta: float, k: int, rng: np.random.Generator) -> Numbers:
        return np.asarray(unitary_step(U, G, eta, rank=k, sketch=sketch, rng=rng))

    return move


def _published(U: Numbers, G: Numbers, eta: float, k: int, rng: np.random.Generator) -> Numbers:
    left, right = published.lsi(G, k, rng)
    return published.transport(U, (-eta * left).astype(U.dtype), right)


def _geodesic(U: Numbers, G: Numbers, eta: float, k: int, rng: np.random.Generator) -> Numbers:
    theta, vectors = np.linalg.eigh(-0.5j * eta * (G.T @ U - U.T @ G))
    return np.asarray(U @ ((vectors * np.exp(1j * theta)) @ vectors.conj().T).real)


_PROCRUSTES_METHODS: dict[str, Move] = {
    "project first (tangent)": _library("tangent"),
    "compress first, exact SVD": _library("exact"),
    "compress first, LSI": _library("lsi"),
    "published form": _published,
    "dense geodesic": _geodesic,
}


def _formed(move: Move) -> FactoredMove:
    def with_gradient(
        U: Numbers, factors: tuple[Numbers, Numbers], eta: float, k: int, rng: np.random.Generator
    ) -> Numbers:
        delta, x = factors
        return move(U, delta @ x.conj().T, eta, k, rng)

    return with_gradient


def _all_outer_products(
    U: Numbers, factors: tuple[Numbers, Numbers], eta: float, k: int, rng: np.random.Generator
) -> Numbers:
    delta, x = factors
    return np.asarray(unitary_transport(U, np.float32(-eta) * delta, x, heal=1, rng=rng))


_TARGET_METHODS: dict[str, FactoredMove] = {
    "tangent": _formed(_library("tangent")),
    "columns": _formed(_library("columns")),
    "published": _formed(_published),
    "all 16": _all_outer_products,
}

# Colours by M. Okabe and K. Ito, distinct for every kind of colour vision.
_STYLES: dict[str, dict[str, Any]] = {
    "project first (tangent)": {"color": "#009E73", "linewidth": 2.2},
    "compress first, exact SVD": {"color": "#D55E00"},
    "compress first, LSI": {"color": "#E69F00"},
    "published form": {"color": "0.45", "ls": "--"},
    "dense geodesic": {"color": "black", "linewidth": 0.9},
}
_TARGET_STYLES: dict[str, tuple[str, dict[str, Any]]] = {
    "tangent": ("project first (tangent)", {"color": "#009E73", "linewidth": 2.2}),
    "columns": ("compress first, columns", {"color": "#CC79A7"}),
    "published": ("published form", {"color": "0.45", "ls": "--"}),
    "all 16": ("all 16 outer products", {"color": "black", "linewidth": 0.9}),
}


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Gap against steps; Procrustes above, the random target below."""
    from matplotlib.figure import Figure

    result = Figure(figsize=(13.0, 8.4), layout="constrained")
    halves: Any = result.subfigures(2, 1)
    upper, lower = halves
    panels = upper.subplots(1, 4, sharey=True)
    for axes, (noise, k) in zip(panels, [(0.0, 1), (0.0, 4), (1.0, 1), (1.0, 4)], strict=True):
        chosen = [r for r in rows if r["problem"] == "procrustes" and (r["noise"], r["k"]) == (noise, k)]
        for name, style in _STYLES.items():
            _line(axes, [row for row in chosen if row["name"] == name], name, style)
        _dress(axes, f"noise {noise:g}, k = {k}")
    panels[0].set_ylabel("gap of ½‖UX − Y‖²")
    handles, labels = panels[0].get_legend_handles_labels()
    upper.legend(
        handles, labels, loc="outside upper center", ncols=5, frameon=False, title_fontsize=12,
        title="Procrustes, n = 64, float64, step size 0.8",
    )  # fmt: skip
    panels = lower.subplots(1, 3, sharey=True)
    targets = [row for row in rows if row["problem"] == "target"]
    n = max((row["n"] for row in targets), default=256)
    for axes, k in zip(panels, (1, 4, 16), strict=True):
        for method, (label, style) in _TARGET_STYLES.items():
            found = [r for r in targets if (r["n"], r["method"]) == (n, method) and r["k"] in (k, BATCH)]
            _line(axes, [r for r in found if r["k"] == (BATCH if method == "all 16" else k)], label, style)
        _dress(axes, f"k = {k}")
    panels[0].set_ylabel("‖U − U*‖/√n (Frobenius)")
    handles, labels = panels[1].get_legend_handles_labels()
    lower.legend(
        handles, labels, loc="outside upper center", ncols=4, frameon=False, title_fontsize=12,
        title=f"Random unitary target, n = {n}, complex64, minibatches of 16, step size {TARGET_STEP:g}·16/n",
    )  # fmt: skip
    return result


def _line(axes: Axes, rows: list[dict[str, Any]], label: str, style: dict[str, Any]) -> None:
    longest = max((row["steps"] for row in rows), default=0)
    points = sorted((row["step"], row["gap"]) for row in rows if row["steps"] == longest and row["step"])
    if points:
        axes.plot(*np.array(points).T, label=label, **({"linewidth": 1.5} | style))


def _dress(axes: Axes, title: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(title)
    axes.set_xlabel("number of steps")
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The last gap of every run."""
    header = ["problem", "n", "noise", "k", "steps", "method", "gap at the end"]
    names = ("problem", "n", "noise", "k", "steps", "name")
    lines = []
    for key in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        last = max((row["step"], row["gap"]) for row in rows if tuple(row[name] for name in names) == key)
        problem, n, noise, k, steps, name = key
        lines.append([problem, str(n), f"{noise:g}", str(k), str(steps), str(name), f"{last[1]:.2g}"])
    return header, lines


STUDY = Study(
    name="descent",
    title="Descent by low-rank steps: project first or compress first",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    figure=figure,
    table=table,
)
