"""Time of one step against n: low-rank steps in place, and dense methods. Writes a CSV file and a figure.

A time counts only if the result is unitary and agrees with the definition of the method. Dense methods stop
where a step would take longer than --limit. From the root of the repository:

    python docs/figures/time_against_n.py            # measure, about five minutes, then draw
    python docs/figures/time_against_n.py --draw     # draw the stored CSV file anew
    python docs/figures/time_against_n.py --quick    # n up to 512
"""

import argparse
import csv
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from matplotlib.figure import Figure

import lowrank_unitary as lu

STATIC = Path(__file__).resolve().parent.parent / "_static"
SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
RANKS = (1, 4, 16)
ETA = 0.5
# Each library reads its own variable, once, when it is loaded.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# By M. Okabe and K. Ito, told apart by every kind of colour vision.
BLUE, GREEN, ORANGE, RED, GREY = "#0072B2", "#009E73", "#E69F00", "#D55E00", "0.45"


class Problem(NamedTuple):
    """A step of rank k: the gradient is left @ right.T, of norm about 1, and the step size is ETA."""

    U: Any  # n×n
    left: Any  # n×k
    right: Any  # n×k
    gradient: Any  # n×n


def problem(n: int, k: int) -> Problem:
    rng = np.random.default_rng([n, k])
    left, right = (rng.standard_normal((2, n, k)) / math.sqrt(n)).astype(np.float32)
    return Problem(lu.cayley_unitary(n, rng=0, dtype=np.float32), left, right, left @ right.T)


def from_factors(p: Problem, U: Any) -> Any:
    return lu.unitary_transport(U, -ETA * p.left, p.right, overwrite_unitary=True)


def from_gradient(p: Problem, U: Any) -> Any:
    return lu.unitary_step(U, p.gradient, ETA, rank=p.left.shape[1], rng=0, overwrite_unitary=True)


def tangent(p: Problem, U: Any) -> Any:
    """Ω, n×n and skew: the tangent part of the step in the body frame."""
    pulled_back = U.T @ p.gradient
    return (pulled_back.T - pulled_back) * np.float32(ETA / 2)


def exponential(p: Problem, U: Any) -> Any:
    return U @ scipy.linalg.expm(tangent(p, U))


def cayley(p: Problem, U: Any) -> Any:
    half, eye = tangent(p, U) / 2, np.eye(len(U), dtype=U.dtype)
    return U @ np.linalg.solve(eye - half, eye + half)


def svd_polar(p: Problem, U: Any) -> Any:
    u, _, vh = np.linalg.svd(U - np.float32(ETA) * p.gradient)
    return u @ vh


def turned(p: Problem, z: Any) -> Any:
    """Ω z in double precision, without an n×n matrix but U."""
    right = p.right.astype(np.float64)
    body = -ETA * (p.U.T @ p.left.astype(np.float64))
    return (body @ (right.T @ z) - right @ (body.T @ z)) / 2


def geodesic_error(p: Problem, V: Any, z: Any) -> float:
    """‖V z − U exp(Ω) z‖ / ‖z‖, by the series of the exponential."""
    term = expected = z
    for j in range(1, 25):
        term = turned(p, term) / j
        expected = expected + term
    return float(np.linalg.norm(V @ z - p.U @ expected) / np.linalg.norm(z))


def cayley_error(p: Problem, V: Any, z: Any) -> float:
    """‖V (I − Ω/2) z − U (I + Ω/2) z‖ / ‖z‖."""
    half = turned(p, z) / 2
    return float(np.linalg.norm(V @ (z - half) - p.U @ (z + half)) / np.linalg.norm(z))


def polar_error(p: Problem, V: Any, z: Any) -> float:
    """‖(H − Hᵀ) z‖ / ‖z‖ for H = Vᵀ (U + step), which is symmetric for the polar factor V."""
    target = p.U - ETA * p.gradient.astype(np.float64)
    return float(np.linalg.norm(V.T @ (target @ z) - target.T @ (V @ z)) / np.linalg.norm(z))


class Method(NamedTuple):
    name: str
    ranks: tuple[int, ...]
    step: Callable[[Problem, Any], Any]
    error: Callable[[Problem, Any, Any], float]


METHODS = (
    Method("from factors", RANKS, from_factors, geodesic_error),
    Method("from a gradient", RANKS, from_gradient, geodesic_error),
    # The time of a dense step does not depend on the rank of the gradient.
    Method("SVD polar", (16,), svd_polar, polar_error),
    Method("matrix exponential", (16,), exponential, geodesic_error),
    Method("Cayley solve", (16,), cayley, cayley_error),
)


def judged(method: Method, p: Problem) -> dict[str, float]:
    """Defect and error of the first step; raises if either is more than rounding explains."""
    n, k = p.left.shape
    V = method.step(p, p.U.copy())
    z = np.random.default_rng(1).standard_normal((n, 4))
    found = {"defect": float(lu.unitarity_defect(V)), "error": method.error(p, V, z)}
    # The rule of the numerics pages, c(n, k) eps, and what the given U has.
    allowed = 8 * (1 + math.sqrt(2 * k)) * math.sqrt(n) * float(np.finfo(np.float32).eps)
    allowed += float(lu.unitarity_defect(p.U))
    if max(found.values()) > allowed:
        raise ArithmeticError(f"{method.name}, n = {n}, k = {k}: {found}, allowed {allowed:.1e}")
    return found


def timed(method: Method, p: Problem, budget: float) -> tuple[float, int]:
    """Median of the seconds of a step, and of how many: at least 5, and for the budget in seconds."""
    U, times = p.U.copy(), []
    time.sleep(min(0.3, budget))  # threads of BLAS spin on for a while after the check
    while len(times) < 5 or (sum(times) < budget and len(times) < 200):
        begin = time.perf_counter()
        method.step(p, U)
        times.append(time.perf_counter() - begin)
    return statistics.median(times), len(times)


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for method in METHODS:
        for k in method.ranks:
            seconds = 0.0
            for n in SIZES[:4] if options.quick else SIZES:
                # Twice the size costs up to eight times as much.
                if method.step not in (from_factors, from_gradient) and 8 * seconds > options.limit:
                    break
                p = problem(n, k)
                found = judged(method, p)
                seconds, runs = timed(method, p, 0.1 if options.quick else 1.0)
                row = {"method": method.name, "k": k, "n": n, "seconds": f"{seconds:.3e}", "runs": runs}
                row |= {name: f"{value:.1e}" for name, value in found.items()}
                row |= {"threads": options.threads, "machine": options.machine, "quick": options.quick}
                print(*row.values(), sep="\t", flush=True)
                yield row


def draw(rows: list[dict[str, str]], path: Path) -> None:
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    curves: dict[tuple[str, int], tuple[list[int], list[float]]] = {}
    for row in rows:
        x, y = curves.setdefault((row["method"], int(row["k"])), ([], []))
        x.append(int(row["n"]))
        y.append(1e3 * float(row["seconds"]))

    for name, colour in (("SVD polar", RED), ("matrix exponential", ORANGE), ("Cayley solve", GREY)):
        axes.plot(
            *curves[name, 16], color=colour, linestyle="--", marker="s", markersize=4, label=f"dense: {name}"
        )
    ends = []
    for name, colour in (("from a gradient", GREEN), ("from factors", BLUE)):
        for k, width in zip(RANKS, (1.2, 1.8, 2.4), strict=True):
            x, y = curves[name, k]
            text = f"low rank: {name}" if k == RANKS[-1] else None
            axes.plot(x, y, color=colour, linewidth=width, marker="o", markersize=4, label=text)
            ends.append((y[-1], x[-1], f"k = {k}", colour))
    height = 0.0
    for y, x, text, colour in sorted(ends):
        height = max(y, 1.5 * height)  # no label on another one
        place = {"xytext": (1.12 * x, height), "va": "center", "fontsize": 10}
        axes.annotate(text, (x, y), color=colour, **place)
    axes.legend(frameon=False, loc="upper left", fontsize=10)

    sizes = sorted({int(row["n"]) for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(sizes[0] * 0.85, sizes[-1] * 1.6)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set_xlabel("n")
    axes.set_ylabel("milliseconds for one step")
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    count = rows[0]["threads"]
    made = f"float32, in place, {count} thread{'s' * (count != '1')}, median of 5 to 200 steps"
    made += f"\n{rows[0]['machine']}" * bool(rows[0]["machine"])
    made += "\nshort run: not to be quoted" * (rows[0]["quick"] == "True")
    figure.supxlabel(made, fontsize=8, color="0.35")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="n up to 512 and few runs")
    parser.add_argument("--draw", action="store_true", help="draw what the CSV file holds, measure nothing")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for kernels and BLAS")
    parser.add_argument("--limit", type=float, default=3.0, help="longest dense step, in seconds")
    parser.add_argument("--machine", default="", help="what the figure says about the machine")
    parser.add_argument("--output", type=Path, default=STATIC, help="folder of the CSV file and the figure")
    options = parser.parse_args()
    table = options.output / "time_against_n.csv"
    if not options.draw:
        wanted = dict.fromkeys(THREADS, str(options.threads))
        if any(os.environ.get(name) != value for name, value in wanted.items()):
            # numpy is loaded already, with another number of threads.
            os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})
        rows = list(measure(options))
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    with table.open(newline="", encoding="utf-8") as file:
        draw(list(csv.DictReader(file)), options.output / "time_against_n.png")


if __name__ == "__main__":
    main()
