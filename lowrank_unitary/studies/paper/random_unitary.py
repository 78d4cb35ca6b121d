"""Study: the paper's random unitary target, learnt from pairs of vectors by low-rank steps."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ... import LowRankFactors, random_unitary, unitary_step
from .. import published
from ..progress import tell
from ..study import Case, Row, Study
from .figures.random_unitary import figure, table

Numbers = published.Numbers

# Vectors in a minibatch; pairs for each dimension.
BATCH, PAIRS = 16, 2
RANKS = (1, 2, 4, 8, 16)
# Seconds between two saved states.
_SAVED_EVERY = 20.0

TEXT = """The paper learns a random complex unitary U*, n = 2048, from 4096 pairs (x, U*x) in minibatches \
of 16 by plain stochastic gradient descent with column sampling. Its figure shows the loss falling faster \
with k up to 16; the text gives no numbers. Here x has entries of variance 1, and every method has the same \
start, the same minibatches, one thread and complex64. The error is ‖U − U*‖/√n (Frobenius), √2 at the \
start. Seconds are CPU time of that thread in the steps, evaluation left out: other work on the machine \
changes them little.

The gradient (UX − Y)Xᴴ has rank 16. "Project first" pulls its thin factors back by Uᴴ and keeps the k best \
planes of the tangent; with k = 16 nothing is left out. "Compress first" keeps the k largest singular values \
of the gradient and takes the tangent of them. The published form (with its sampler LSI) and column sampling \
form the n×n gradient. Steps of this library heal one probe of the unitarity defect.

Step size: near U* the step changes the error by −η(ΩXXᴴ + XXᴴΩ)/2, U*= U exp(−Ω), and XXᴴ is about n times \
a projection. So η = 2/n fits a minibatch exactly, as block Kaczmarz does, for every k. Trials, n = 512 \
and η·n = 2, 2.5, 3: steps to an error of 0.01 were 850, 730, 710 where the step holds all of the gradient \
(k = 16). With 2 and 2.5 they were 790 and 860 (k = 8), 1110 and 1370 (k = 4), 2220 and 3500 (k = 2) where \
planes are projected first; 1480 and 1280 (k = 4), 2620 and 2480 (k = 2) compressed first. Chosen: 2/n where \
k < 16 planes are projected first, else 2.5/n.

How to read the figure: error against steps above, against seconds below, one colour for a k. The first \
part, down to about 0.3, turns by large angles; eigenvalues of UᴴU* near −1, where the slope vanishes, leave \
last. The slope of the last part is set by the data: the covariance of 2n random vectors has eigenvalues \
from 0.09 to 2.9. Both differ from one method to the other by what k planes hold of the gradient. The \
default list has n = 1024 with 2048 pairs, and one run with n = 2048, all down to an error of 0.01; --full \
has n = 2048 for all, down to 0.001."""

# (U, gradient, step size, k, rng) → new U
Move = Callable[[Numbers, "Numbers | LowRankFactors", float, int, np.random.Generator], Numbers]


class Method(NamedTuple):
    """How U moves, and whether it needs the n×n gradient."""

    move: Move
    dense: bool


def cases(full: bool) -> list[Case]:
    """One unit of work for a method, n and k."""
    runs = [("project", k) for k in RANKS]
    runs += [("compress", k) for k in (RANKS[:-1] if full else (2, 4))]
    runs += [("published", k) for k in ((1, 4, 16) if full else (4,))]
    runs += [("columns", k) for k in ((4, 16) if full else (16,))]
    runs += [("polar", 4)]
    n = 2048 if full else 1024
    listed: list[Case] = [{"n": n, "method": method, "k": k} for method, k in runs]
    if not full:
        listed.append({"n": 2048, "method": "project", "k": 16})
    return [{**case, "until": 1e-3 if full else 1e-2, "steps": 40 * case["n"]} for case in listed]


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    n, k = int(case["n"]), int(case["k"])
    # The rate of the last part, from an error of 0.1 to 0.01, holds for the following decades.
    steps = n * (_STEPS[k] if case["method"] == "project" else 1.45 * _STEPS[k])
    steps *= 1 + 0.4 * max(0.0, math.log10(0.01 / case["until"]))
    milliseconds = _MILLISECONDS[k] + (80.0 if METHODS[str(case["method"])].dense else 0.0)
    return 2 + 1e-3 * milliseconds * (n / 2048) ** 2 * min(steps, int(case["steps"]))


# Steps to an error of 0.01 in units of n, and milliseconds of a step at n = 2048.
_STEPS = {1: 9.6, 2: 4.6, 4: 2.2, 8: 1.6, 16: 1.05}
_MILLISECONDS = {1: 60.0, 2: 62.0, 4: 70.0, 8: 90.0, 16: 120.0}


def step_size(method: str, k: int) -> float:
    """The step size η in units of 1/n; the text has the reason and the trials."""
    return 2.0 if method in ("project", "polar") and k < BATCH else 2.5


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """The error at twenty numbers of steps in every decade, until it is small enough."""
    # One problem for all methods and ranks, from the common first word of the seed, and the size.
    n = int(case["n"])
    common = [int(np.ravel(np.asarray(seed.entropy, dtype=object))[0]), n]
    with threadpool_limits(1):
        return _descend(case, common, scratch)


def _descend(case: Case, common: list[int], scratch: Path) -> list[Row]:
    n, k, until = int(case["n"]), int(case["k"]), float(case["until"])
    method, steps = METHODS[str(case["method"])], int(case["steps"])
    target, start, x, y = _problem(common)
    state = _load(scratch) or _State(start, 0, 0.0, 0.0, [])
    U, first, update_seconds, seconds, rows = state
    size, records = step_size(str(case["method"]), k), _records(steps)
    eta = size / n
    saved = time.perf_counter()
    # A first step compiles and allocates.
    _step(method, U.copy(), x[:BATCH], y[:BATCH], eta, k, np.random.default_rng(0))
    for step in range(first, steps + 1):
        if step == 0 or step in records:
            error = float(np.linalg.norm(U - target)) / math.sqrt(n)
            times = {"update_seconds": update_seconds, "seconds": seconds}
            rows.append({"step": step, "error": error, "step_size": size, **times})
            tell(min(1.0, max(step / steps, math.log(math.sqrt(2) / error) / math.log(math.sqrt(2) / until))))
            if error <= until or not math.isfinite(error):
                break
        # The number of a step seeds its minibatch and sampler, so that a run can be continued.
        chosen, rng = _minibatch(common, step), np.random.default_rng([*common, 1, step])
        U, taken, update_taken = _step(method, U, x[chosen], y[chosen], eta, k, rng)
        update_seconds, seconds = update_seconds + update_taken, seconds + taken
        if time.perf_counter() - saved > _SAVED_EVERY:
            _save(scratch, _State(U, step + 1, update_seconds, seconds, rows))
            saved = time.perf_counter()
    return rows


def _problem(common: list[int]) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """U*, the start, and pairs of vectors as rows."""
    n = common[-1]
    rng = np.random.default_rng(common)
    start, target = (random_unitary(n, dtype=np.complex64, rng=rng) for _ in range(2))
    parts = rng.standard_normal((2, PAIRS * n, n), dtype=np.float32) * np.float32(math.sqrt(0.5))
    x = parts[0] + 1j * parts[1]
    return target, start, x, x @ target.T


def _minibatch(common: list[int], step: int) -> Numbers:
    """Numbers of pairs: every pair once in an epoch, in a new order."""
    pairs = PAIRS * common[-1]
    epoch, index = divmod(step, pairs // BATCH)
    order = np.random.default_rng([*common, 0, epoch]).permutation(pairs)
    return order[index * BATCH : (index + 1) * BATCH]


def _step(
    method: Method, U: Numbers, x: Numbers, y: Numbers, eta: float, k: int, rng: np.random.Generator
) -> tuple[Numbers, float, float]:
    """The new U, and seconds of this thread's CPU time with and without the gradient."""
    started = time.thread_time()
    X = np.ascontiguousarray(x.T)
    factors = LowRankFactors(U @ X - y.T, X)
    gradient = factors.dense() if method.dense else factors
    before = time.thread_time()
    moved = method.move(U, gradient, eta, k, rng)
    ended = time.thread_time()
    return moved, ended - started, ended - before


def _records(steps: int) -> set[int]:
    return {round(count) for count in np.geomspace(1, steps, math.ceil(20 * math.log10(steps)) + 1)}


def _project_first(update: str) -> Move:
    moved_by_all = _compress_first("exact")

    def move(
        U: Numbers, gradient: Numbers | LowRankFactors, eta: float, k: int, rng: np.random.Generator
    ) -> Numbers:
        assert isinstance(gradient, LowRankFactors)
        if update == "geodesic" and k >= gradient.left.shape[-1]:
            # Nothing to compress: the factors are taken as they are, and U is read once less.
            return moved_by_all(U, gradient, eta, k, rng)
        return np.asarray(unitary_step(U, gradient, eta, k, update=update, rng=rng, overwrite_unitary=True))

    return move


def _compress_first(sketch: str) -> Move:
    def move(
        U: Numbers, gradient: Numbers | LowRankFactors, eta: float, k: int, rng: np.random.Generator
    ) -> Numbers:
        return np.asarray(unitary_step(U, gradient, eta, k, sketch=sketch, rng=rng, overwrite_unitary=True))

    return move


def _published(
    U: Numbers, gradient: Numbers | LowRankFactors, eta: float, k: int, rng: np.random.Generator
) -> Numbers:
    left, right = published.lsi(np.asarray(gradient), k, rng)
    return published.transport(U, (-eta * left).astype(U.dtype), right)


METHODS = {
    "project": Method(_project_first("geodesic"), dense=False),
    "polar": Method(_project_first("polar"), dense=False),
    "compress": Method(_compress_first("exact"), dense=False),
    "columns": Method(_compress_first("columns"), dense=True),
    "published": Method(_published, dense=True),
}


class _State(NamedTuple):
    U: Numbers
    step: int
    update_seconds: float
    seconds: float
    rows: list[Row]


_COLUMNS = ("step", "error", "step_size", "update_seconds", "seconds")


def _save(scratch: Path, state: _State) -> None:
    temporary = scratch.with_name("state.part.npz")
    rows = np.array([[row[name] for name in _COLUMNS] for row in state.rows], dtype=np.float64)
    np.savez(temporary, U=state.U, numbers=np.array(state[1:4], dtype=np.float64), rows=rows)
    os.replace(temporary, scratch)


def _load(scratch: Path) -> _State | None:
    if not scratch.exists():
        return None
    with scratch.open("rb") as file, np.load(file) as saved:
        step, update_seconds, seconds = saved["numbers"].tolist()
        return _State(saved["U"], int(step), update_seconds, seconds, _rows(saved["rows"]))


def _rows(numbers: Numbers) -> list[Row]:
    rows: list[Row] = [dict(zip(_COLUMNS, line, strict=True)) for line in numbers.tolist()]
    return [{**row, "step": int(row["step"])} for row in rows]


def so_far(scratch: Path) -> list[Row]:
    """The rows of an interrupted run."""
    if not scratch.exists():
        return []
    with scratch.open("rb") as file, np.load(file) as saved:
        return _rows(saved["rows"])


STUDY = Study(
    name="random-unitary",
    title="The paper's random unitary target: error against steps and seconds",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    figure=figure,
    table=table,
    so_far=so_far,
)
