"""Study: the energy of a gradient that samplers capture, and the error of the update."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import random_unitary, svd_sketch, tangent_sketch
from .. import published
from ..study import Case, Row, Study
from .exact import Numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The spectral norm of the tangent step at which the rotations are compared.
STEP = 0.5

# A sampler: (matrix, k, rng) → left, right.
Sampler = Callable[[Numbers, int, np.random.Generator], tuple[Numbers, Numbers]]

SPECTRA: dict[str, Callable[[Numbers], Numbers]] = {
    "j^-1/2": lambda j: j**-0.5,
    "j^-1": lambda j: 1 / j,
    "j^-2": lambda j: j**-2,
    "10^(-j/10)": lambda j: 10 ** (-j / 10),
    "ten ones, then 1e-3": lambda j: np.where(j <= 10, 1.0, 1e-3),
    "flat": np.ones_like,
}

# Samples of the gradient; those beyond the first ten are for the captured energy alone.
DRAWS, ROTATED = 60, 10

TEXT = """How much of a gradient does a sketch of rank k keep, and how wrong is the update that is made \
of it? Square matrices with random singular vectors and prescribed singular values are sketched at rank \
1, 4 and 16, sixty times each for the energy and ten times for the update. A pass is one product of the \
matrix, or of its adjoint, with a thin block; scikit-learn and torch make as many passes, with as many \
columns and the same normalisation, as the library's defaults.

Upper row: the share of the best possible energy that is lost, 1 − (‖A‖² − ‖A − sketch‖²)/Σ s_j² over the \
k largest singular values; the tangent sketch, of rank 2k, is held against the best rank-2k part of the \
tangent A = skew(G). Lower row: the error of the rotation exp of the sketched tangent against that of the \
whole one, relative to its distance from the identity, for a step of norm 0.5. No sketch can do better \
than the tangent truncated to rank 2k (thin black line).

What to expect by theory: randomized and krylov are near-optimal for any spectrum, krylov with the better \
constant at equal passes; columns and lsi, with one pass to choose a space and one to fill it, keep little \
of a slowly falling spectrum; a single pass has an error of the size of all that rank k cannot hold, \
multiplied by a constant, which makes it useless for slowly falling and flat spectra (less than nothing \
kept: its noise is larger than the sketch) and good for fast ones.

With random singular vectors the Hermitian part of the gradient, which moves nothing, is as large as the \
tangent, and samplers of the gradient itself do well; the study of descent shows what they do where it \
dominates. The published sampler adds an absolute 1e-6 to the singular values: of a gradient of size 1e-6 \
it loses most."""


def cases(full: bool) -> list[Case]:
    """One unit of work for every spectrum and rank."""
    sizes = (128, 512) if full else (128,)
    return [{"n": n, "spectrum": name, "k": k} for n in sizes for name in SPECTRA for k in (1, 4, 16)]


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    return 1.9 * (int(case["n"]) / 128) ** 2.5


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """Lost energy and error of the rotation, for every sampler and sample."""
    rng = np.random.default_rng(seed)
    n, k = int(case["n"]), int(case["k"])
    s = SPECTRA[str(case["spectrum"])](np.arange(1.0, n + 1))
    rows: list[Row] = []
    for draw in range(DRAWS):
        gradient = (random_unitary(n, rng=rng) * s) @ random_unitary(n, rng=rng)
        tangent = 0.5 * (gradient - gradient.T)
        rotate = _rotation(tangent) if draw < ROTATED else None
        exact = rotate(tangent) if rotate else tangent
        moved = float(np.linalg.norm(exact - np.eye(n)))

        def row(sampler: str, lost: float, skew: Numbers) -> None:
            error = float(np.linalg.norm(rotate(skew) - exact)) / moved if rotate else math.nan  # noqa: B023
            rows.append({"sampler": sampler, "draw": draw, "lost": lost, "update_error": error})  # noqa: B023

        best = float(np.sum(s[:k] ** 2))
        for name, (scale, sampler) in _SAMPLERS.items():
            left, right = sampler(scale * gradient, k, rng)
            sketch = (left / scale) @ right.T
            row(name, _lost(gradient, sketch, best), 0.5 * (sketch - sketch.T))
        sigma = np.linalg.svd(tangent, compute_uv=False)
        if rotate:
            u, _, vt = np.linalg.svd(tangent)
            truncated = (u[:, : 2 * k] * sigma[: 2 * k]) @ vt[: 2 * k]
            row("best tangent of rank 2k", 0.0, 0.5 * (truncated - truncated.T))
        best = float(np.sum(sigma[: 2 * k] ** 2))
        for power in (0, 1):
            C, Q = tangent_sketch(np.eye(n), gradient, k, power_iterations=power, rng=rng)
            sketch = 0.5 * (C @ Q.T - Q @ C.T)
            row(f"tangent, q = {power}", _lost(tangent, sketch, best), sketch)
    return rows


def _lost(matrix: Numbers, sketch: Numbers, best: float) -> float:
    kept = float(np.sum(matrix**2) - np.sum((matrix - sketch) ** 2))
    return 1.0 - kept / best


def _rotation(tangent: Numbers) -> Callable[[Numbers], Numbers]:
    """The exponential of a real skew matrix, scaled so that the whole tangent has the norm STEP."""
    size = STEP / float(np.linalg.norm(tangent, 2))

    def rotate(skew: Numbers) -> Numbers:
        theta, vectors = np.linalg.eigh(-1j * size * skew)
        return np.asarray(((vectors * np.exp(1j * theta)) @ vectors.conj().T).real)

    return rotate


def _ours(method: str, **options: Any) -> Sampler:
    def sample(matrix: Numbers, k: int, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
        source = None if method == "exact" else rng
        left, right = svd_sketch(matrix, k, method=method, rng=source, **options).factors()
        return left, right

    return sample


def _scikit_learn(matrix: Numbers, k: int, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    from sklearn.utils.extmath import randomized_svd

    u, s, vh = randomized_svd(
        matrix, k, n_oversamples=8, n_iter=2, power_iteration_normalizer="QR", random_state=_seed(rng)
    )
    return u * s, vh.T


def _torch(matrix: Numbers, k: int, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    import torch

    torch.set_num_threads(1)
    # It uses the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(rng))
        u, s, v = torch.svd_lowrank(torch.from_numpy(matrix), q=min(k + 8, min(matrix.shape)), niter=2)
    return (u * s)[:, :k].numpy(), v[:, :k].numpy()


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 31))


_SAMPLERS: dict[str, tuple[float, Sampler]] = {
    "exact SVD": (1.0, _ours("exact")),
    "krylov, q = 2": (1.0, _ours("krylov")),
    "randomized, q = 2": (1.0, _ours("randomized")),
    "randomized, q = 1": (1.0, _ours("randomized", power_iterations=1)),
    "randomized, q = 0": (1.0, _ours("randomized", power_iterations=0)),
    "single pass": (1.0, _ours("single_pass")),
    "columns": (1.0, _ours("columns")),
    "lsi": (1.0, _ours("lsi")),
    "scikit-learn, q = 2": (1.0, _scikit_learn),
    "published lsi": (1.0, published.lsi),
    "published lsi, gradient × 1e-6": (1e-6, published.lsi),
}
if importlib.util.find_spec("torch"):
    _SAMPLERS["torch, q = 2"] = (1.0, _torch)
# Products with the matrix or its adjoint, or with the tangent.
_PASSES = {
    "krylov, q = 2": "6", "randomized, q = 2": "6", "randomized, q = 1": "4", "randomized, q = 0": "2",
    "single pass": "1", "columns": "2", "lsi": "2", "scikit-learn, q = 2": "6", "torch, q = 2": "6",
    "published lsi": "2", "published lsi, gradient × 1e-6": "2", "tangent, q = 0": "2", "tangent, q = 1": "4",
}  # fmt: skip
# Colours by M. Okabe and K. Ito, distinct for every kind of colour vision.
_STYLES: dict[str, dict[str, Any]] = {
    "tangent, q = 0": {"color": "#009E73", "marker": "o"},
    "tangent, q = 1": {"color": "#0072B2", "marker": "o"},
    "exact SVD": {"color": "black", "marker": "s"},
    "krylov, q = 2": {"color": "#CC79A7", "marker": "D"},
    "randomized, q = 2": {"color": "#56B4E9", "marker": "^"},
    "randomized, q = 0": {"color": "#56B4E9", "marker": "^", "ls": ":"},
    "single pass": {"color": "#F0E442", "marker": "P"},
    "columns": {"color": "#E69F00", "marker": "v"},
    "lsi": {"color": "#D55E00", "marker": "v"},
    "published lsi": {"color": "0.45", "marker": "x", "ls": "--"},
    "published lsi, gradient × 1e-6": {"color": "0.45", "marker": "x", "ls": ":"},
}
_SHOWN = ("j^-1/2", "10^(-j/10)", "ten ones, then 1e-3")


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Lost energy and error of the update against k, for three spectra."""
    from matplotlib.figure import Figure

    n = min(row["n"] for row in rows)
    rows = [row for row in rows if row["n"] == n]
    result = Figure(figsize=(13.0, 8.0), layout="constrained")
    panels = result.subplots(2, 3, sharex=True, sharey="row")
    for column, spectrum in enumerate(_SHOWN):
        for line, quantity in enumerate(("lost", "update_error")):
            axes = panels[line, column]
            for sampler, style in _STYLES.items():
                ks, median, low, high = _summary(rows, spectrum, sampler, quantity)
                if len(ks):
                    axes.plot(ks, median, label=sampler, linewidth=1.6, markersize=5, **style)
                    axes.fill_between(ks, low, high, color=style["color"], alpha=0.12, linewidth=0)
            if quantity == "update_error":
                ks, median, _, _ = _summary(rows, spectrum, "best tangent of rank 2k", quantity)
                axes.plot(ks, median, color="black", linewidth=0.8, label="best tangent of rank 2k")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks([1, 4, 16], ["1", "4", "16"])
            axes.grid(visible=True, color="0.92")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0, column].set_title(f"singular values {spectrum}")
        panels[1, column].set_xlabel("rank k")
    panels[0, 0].set_ylim(1e-5, 2)
    panels[0, 0].set_ylabel("share of the best energy that is lost")
    panels[1, 0].set_ylabel("relative error of the rotation (Frobenius)")
    handles, labels = panels[1, 0].get_legend_handles_labels()
    result.legend(
        handles, labels, loc="outside upper center", ncols=4, frameon=False, title_fontsize=12,
        title=f"Sketches of rank k, n = {n}, float64: median and range of all samples",
    )  # fmt: skip
    return result


def _summary(
    rows: list[dict[str, Any]], spectrum: str, sampler: str, quantity: str
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    chosen = [
        row
        for row in rows
        if (row["spectrum"], row["sampler"]) == (spectrum, sampler) and not math.isnan(row[quantity])
    ]
    ks = sorted({row["k"] for row in chosen})
    # A loss at rounding level may be negative; the axis is logarithmic.
    drawn = [[max(row[quantity], 1e-16) for row in chosen if row["k"] == k] for k in ks]
    return tuple(  # type: ignore[return-value]
        np.array(part) for part in (ks, *([f(x) for x in drawn] for f in (np.median, np.min, np.max)))
    )


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Mean captured energy for every rank."""
    n = min(row["n"] for row in rows)
    rows = [row for row in rows if row["n"] == n]
    spectra = [name for name in SPECTRA if any(row["spectrum"] == name for row in rows)]
    ranks = sorted({row["k"] for row in rows})
    header = [f"energy kept, n = {n}, k = {', '.join(map(str, ranks))}", "passes", *spectra]
    lost: dict[Any, list[float]] = {}
    for row in rows:
        lost.setdefault((row["sampler"], row["spectrum"], row["k"]), []).append(row["lost"])
    lines = []
    for sampler in dict.fromkeys(row["sampler"] for row in rows):
        cells = []
        for spectrum in spectra:
            kept = [lost.get((sampler, spectrum, k)) for k in ranks]
            cells.append(" / ".join(f"{1 - float(np.mean(x)):.3f}" if x else "–" for x in kept))
        lines.append([str(sampler), _PASSES.get(str(sampler), "–"), *cells])
    return header, lines


STUDY = Study(
    name="sketch",
    title="What a sketch keeps, and what it does to the update",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    figure=figure,
    table=table,
)
