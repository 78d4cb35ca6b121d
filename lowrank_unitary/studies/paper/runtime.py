"""Study: the paper's comparison of run times, of an update and of a training step, against n."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from ... import unitarity_defect, unitary_step
from ..._array import tolerance
from ..._kernels.cpu.threads import thread_count
from ...demo.recurrent import Adam, initial_network, loss_and_gradients
from .. import published
from ..study import Case, Row, Study
from .figures.runtime import figure, table

Numbers = published.Numbers

# Time steps, sequences in a minibatch, and classes of the network.
LENGTH, BATCH, CLASSES = 32, 32, 10
# Frobenius norm of a step, before it is compressed.
NORM = 0.1
RANKS = (1, 4, 16)
# Training steps that are timed: as many as fit into so many seconds.
_LEAST, _MOST, _SECONDS = 3, 40, 1.0

TEXT = f"""The paper shows run times of recurrent networks against n in a figure, without numbers: its \
updates cost O(kn²), those of expRNN, scoRNN and exact projection O(n³). Here a modReLU network with n \
hidden units is trained in plain numpy, float32, on {LENGTH} time steps and minibatches of {BATCH}: \
forward and backward pass take 6n²·{LENGTH * BATCH} operations. Times are medians over training steps after \
a warm-up, on one thread; those of an update are taken in training too, with U out of cache. A time counts \
only if U is orthogonal to rounding afterwards.

T and D of this library are one call each with the n×n gradient, in place: projecting first, one probe of \
healing. The published form runs its sampler LSI and T, with k samples; this library draws 2k + 4, which \
costs more for large k and keeps more of the step. The dense methods: W exp(−ηA) with A = skew(WᵀG) by \
scipy's expm, as expRNN does; its Cayley transform by one solve, as scoRNN does; and the polar factor of \
W − ηG by an SVD. They stand for one update only: expRNN and scoRNN also differentiate these functions. \
The steps have norm {NORM}, which is cheap for expm: it squares nothing. Dense methods end before the n \
where an update takes more than 5 seconds.

How to read the figure: n against milliseconds, both logarithmic, so that a power is a line; on the right, \
the dotted line is the step without its update. The table fits the exponent over the three largest n. For \
small n the time of a call is constant, and exponents are lower than they will be; caches make them higher \
between 512 and 2048."""

# (W, gradient, step size, k, rng) → new W
Update = Callable[[Numbers, Numbers, float, int, np.random.Generator], Numbers]


class InaccurateUpdate(RuntimeError):
    """An update whose time does not count."""


class Method(NamedTuple):
    """An update, the largest n of the default and of the full list, and whether it has a rank k."""

    update: Update
    largest: tuple[int, int] = (2048, 4096)
    ranks: tuple[int, ...] = RANKS


def cases(full: bool) -> list[Case]:
    """One unit of work for a method, k and n; k = 0 where it has none."""
    sizes = (64, 128, 256, 512, 1024, 2048, *((4096,) if full else ()))
    return [
        {"method": name, "k": k, "n": n}
        for n in sizes
        for name, method in METHODS.items()
        for k in method.ranks
        if n <= method.largest[full]
    ]


def cost(case: Case) -> float:
    """Seconds on one core, roughly."""
    n, k = int(case["n"]) / 2048, int(case["k"])
    gradient = 0.8 * n**2
    dense = {"expm": 2.0, "svd": 8.0, "cayley": 1.7}.get(str(case["method"]))
    update = dense * n**3 if dense else (0.03 + 0.01 * k) * n**2
    # The start of the network, a warm-up, and what is timed.
    return 0.3 + n**3 + gradient + update + max(_SECONDS, _LEAST * (gradient + update))


def measure(case: Case, seed: np.random.SeedSequence, scratch: Path) -> list[Row]:
    """Median milliseconds of an update, of a training step, and of a step without its update."""
    n, k, method = int(case["n"]), int(case["k"]), METHODS[str(case["method"])]
    rng = np.random.default_rng(seed)
    with threadpool_limits(1):
        network = initial_network(n, CLASSES, rng)
        adam = Adam(network)
        sequences = rng.standard_normal((BATCH, LENGTH), dtype=np.float32)
        labels = rng.integers(0, CLASSES, BATCH)
        updates: list[float] = []
        others: list[float] = []
        while len(updates) <= _LEAST or (len(updates) <= _MOST and sum(updates[1:] + others[1:]) < _SECONDS):
            started = time.perf_counter()
            _, gradients = loss_and_gradients(network, sequences, labels)
            ended = time.perf_counter()
            eta = NORM / float(np.linalg.norm(gradients.recurrent))
            before = time.perf_counter()
            moved = method.update(network.recurrent, gradients.recurrent, eta, k, rng)
            after = time.perf_counter()
            network = network._replace(recurrent=moved)
            adam.update(network, gradients, 1e-3)
            others.append(ended - started + time.perf_counter() - after)
            updates.append(after - before)
        defect = float(unitarity_defect(network.recurrent))
    _check(defect, n, k, len(updates))
    # The first step compiles and allocates.
    steps = np.add(updates, others)
    medians = {
        name: 1e3 * float(np.median(seconds[1:]))
        for name, seconds in (("update_ms", updates), ("step_ms", steps), ("other_ms", others))
    }
    return [{**medians, "timed": len(updates) - 1, "threads": thread_count(), "defect": defect}]


def _check(defect: float, n: int, k: int, steps: int) -> None:
    """Raise unless rounding explains the defect after so many steps, were it always in one direction."""
    bound = tolerance(np, np.dtype(np.float32), n, max(k, 1)) * steps
    if not defect <= bound:
        raise InaccurateUpdate(
            f"the unitarity defect after {steps} steps is {defect:.2e}, more than {bound:.2e}: the time does "
            "not count."
        )


def _low_rank(update: str) -> Update:
    def move(W: Numbers, G: Numbers, eta: float, k: int, rng: np.random.Generator) -> Numbers:
        return np.asarray(unitary_step(W, G, eta, k, update=update, rng=rng, overwrite_unitary=True))

    return move


def _published(W: Numbers, G: Numbers, eta: float, k: int, rng: np.random.Generator) -> Numbers:
    left, right = published.lsi(G, k, rng)
    return published.transport(W, (-eta * left).astype(W.dtype), right)


def _tangent(W: Numbers, G: Numbers) -> Numbers:
    pulled = W.T @ G
    return np.asarray((pulled - pulled.T) / 2)


def _expm(W: Numbers, G: Numbers, eta: float, k: int, rng: np.random.Generator) -> Numbers:
    return np.asarray(W @ scipy.linalg.expm(-eta * _tangent(W, G)))


def _cayley(W: Numbers, G: Numbers, eta: float, k: int, rng: np.random.Generator) -> Numbers:
    half, eye = (eta / 2) * _tangent(W, G), np.eye(len(W), dtype=W.dtype)
    # (W (I − H)(I + H)⁻¹)ᵀ = (I − H)⁻¹ (I + H) Wᵀ for skew H.
    return np.linalg.solve(eye - half, W.T + half @ W.T).T.copy()


def _svd(W: Numbers, G: Numbers, eta: float, k: int, rng: np.random.Generator) -> Numbers:
    u, _, vh = np.linalg.svd(W - eta * G)
    return np.asarray(u @ vh)


METHODS = {
    "T": Method(_low_rank("geodesic")),
    "D": Method(_low_rank("polar")),
    "published": Method(_published),
    "expm": Method(_expm, (2048, 2048), (0,)),
    "cayley": Method(_cayley, (2048, 2048), (0,)),
    "svd": Method(_svd, (1024, 1024), (0,)),
}

STUDY = Study(
    name="runtime",
    title="The paper's run times: an update and a training step against n",
    text=TEXT,
    cases=cases,
    cost=cost,
    measure=measure,
    figure=figure,
    table=table,
    alone=True,
)
