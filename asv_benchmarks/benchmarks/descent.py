"""The step that users take: a dense gradient in, the new matrix out, beside its floor and beside dense steps.

Every number is a ratio of medians from one process, after the result has been judged.
"""

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile

import numpy as np
import scipy.linalg

import lowrank_unitary as lu
from lowrank_unitary.studies import published

from . import judge, limits, problems
from .problems import SkipNotImplemented

SIZES = [64, 128, 256, 512, 1024, 2048, 4096, 8192] if problems.FULL else [64, 1024]
RANKS = [1, 4, 16] if problems.FULL else [1, 4]
DTYPES = ["float32", "complex64"] if problems.FULL else ["float32"]
NAMESPACES = ["numpy", "torch", "jax"] if problems.FULL else ["numpy"]
ETA, SEED = 0.1, 5


def descend(step, k, heal=1):
    """A step in place where arrays can be written, as a function of nothing."""
    overwrite = step.space.library != "jax"
    take = lu.unitary_step
    if not overwrite:
        take = importlib.import_module("jax").jit(
            take, static_argnames=("rank", "heal", "rng", "overwrite_unitary")
        )
    options = {"rank": k, "heal": heal, "rng": SEED, "overwrite_unitary": overwrite}
    return lambda: step.space.wait(take(step.unitary, step.gradient, ETA, **options))


def judged(namespace, dtype, n, k):
    """The problem, after one step that is compared with the sketch and the rotation, stage by stage."""
    step = problems.step_v1(namespace, dtype, n, k, gradient=True)
    before, gradient = (step.space.host(x).copy() for x in (step.unitary, step.gradient))
    sketch = lu.tangent_sketch(judge.double(before), judge.double(gradient), k, rng=SEED)
    thin = judge.rotation("transport", -ETA * sketch.left, sketch.right)
    moved = descend(step, k, heal=0)()
    judge.close(step.space.host(moved), judge.rotated(before, thin), dtype, 2 * k + 4)
    return step


class ToFloor:
    """1 is the time of 6n² words, or of the operations of a cold sketch and its rotation where that is more.

    Two products with the tangent read U and its gradient once each, the rotation reads and writes U: with ℓ
    samples (16ℓ + 8k + 12) n² real operations.
    """

    params = [NAMESPACES, DTYPES, SIZES, RANKS]
    param_names = problems.NAMES
    timeout = 600

    def setup(self, namespace, dtype, n, k):
        self.step = judged(namespace, dtype, n, k)

    def track_ratio_to_floor(self, namespace, dtype, n, k):
        limits.rest()
        host = np.array(self.step.space.host(self.step.unitary))
        seconds, three, two = limits.Memory(host).beside(descend(self.step, k), 9 if n >= 2048 else 25)
        samples = min(n, 2 * k + 4)
        operations = (4 if np.dtype(dtype).kind == "c" else 1) * (16 * samples + 8 * k + 12) * n * n
        # Four times a read, once a read and a write.
        floor = max(4 * (three - two) + two, operations / limits.operations_per_second(dtype))
        return seconds / floor

    track_ratio_to_floor.unit = "× the larger floor"


def _tangent(step):
    A = step.unitary.T @ step.gradient
    return ETA * judge.skew(A)


def _geodesic(step):
    return step.unitary @ scipy.linalg.expm(-_tangent(step))


def _cayley(step):
    half, eye = _tangent(step) / 2, np.eye(len(step.unitary), dtype=step.unitary.dtype)
    return step.unitary @ np.linalg.solve(eye + half, eye - half)


def _polar(step):
    u, _, vh = np.linalg.svd(step.unitary - np.float32(ETA) * step.gradient)
    return u @ vh


def _published(step):
    left, right = lu.svd_sketch(step.gradient, step.left.shape[1], method="lsi", rng=SEED).factors()
    return published.transport(step.unitary, -ETA * left, right)


def _plain(step):
    step.moved -= np.float32(ETA) * step.gradient


OTHERS = {
    "dense geodesic": _geodesic,
    "Cayley": _cayley,
    "SVD polar": _polar,
    "published form": _published,
    "U −= ηG": _plain,
}


class ToOthers:
    """Other steps against the same gradient over this one."""

    params = [
        [n for n in SIZES if n <= 2048] if problems.FULL else [64],
        RANKS if problems.FULL else RANKS[:1],
        list(OTHERS),
    ]
    param_names = ["n", "k", "method"]
    timeout = 600

    def setup(self, n, k, method):
        self.step = judged("numpy", "float32", n, k)
        self.step.moved = self.step.unitary.copy()

    def track_gain_over_others(self, n, k, method):
        functions = {"ours": descend(self.step, k), "theirs": lambda: OTHERS[method](self.step)}
        times = limits.one_by_one(functions, 7 if n >= 1024 else 51)
        return times["theirs"] / times["ours"]

    track_gain_over_others.unit = "time of the other step / time"


class AfterBlas:
    """A step right after a product of BLAS, whose threads wait for more work, over one after a rest."""

    params = [[1024, 4096] if problems.FULL else [1024], RANKS]
    param_names = ["n", "k"]

    def setup(self, n, k):
        self.step = judged("numpy", "float32", n, k)
        self.matrix = np.ones((1024, 1024), np.float32)

    def track_cost_of_waiting_threads(self, n, k):
        take = descend(self.step, k)
        limits.rest()
        quiet = limits.median_seconds(take, 15)
        both = limits.medians({"blas": lambda: self.matrix @ self.matrix, "step": take}, 15)
        return both["step"] / quiet

    track_cost_of_waiting_threads.unit = "time / time after a rest"


class Stack:
    """Microseconds for each of 256 matrices of size 64 in one call."""

    params = [DTYPES, RANKS[:2]]
    param_names = ["dtype", "k"]

    def setup(self, dtype, k):
        one = judged("numpy", dtype, 64, k)
        self.unitary = np.stack([one.unitary] * 256)
        self.gradient = np.stack([one.gradient] * 256)

    def track_step_of_stack(self, dtype, k):
        options = {"rank": k, "rng": SEED, "overwrite_unitary": True}
        seconds = limits.median_seconds(
            lambda: lu.unitary_step(self.unitary, self.gradient, ETA, **options), 15
        )
        return 1e6 * seconds / 256

    track_step_of_stack.unit = "µs for each matrix"


class FirstStep:
    """Seconds of the first descent step of a process, numba started before, with and without a cache."""

    params = [
        ["float32", "float64", "complex64", "complex128"] if problems.FULL else ["float32"],
        [True, False] if problems.FULL else [True],
    ]
    param_names = ["dtype", "on disk"]
    timeout = 600

    def track_first_step(self, dtype, on_disk):
        if importlib.util.find_spec("numba") is None:
            raise SkipNotImplemented("numba is not installed")
        code = (
            "import time, numpy as np, lowrank_unitary as lu\n"
            "import numba; numba.njit(lambda x: x)(1.0)\n"
            f"U, G = np.eye(64, dtype='{dtype}'), np.ones((64, 64), '{dtype}')\n"
            "start = time.perf_counter(); lu.unitary_step(U, G, 0.1, 1, rng=0)\n"
            "print(time.perf_counter() - start)"
        )
        with tempfile.TemporaryDirectory() as folder:
            # What is on the disk may have been there before.
            environment = os.environ if on_disk else os.environ | {"NUMBA_CACHE_DIR": folder}
            times = [
                float(
                    subprocess.run(
                        [sys.executable, "-c", code], stdout=-1, env=environment, check=True
                    ).stdout
                )
                for _ in range(2 if on_disk else 1)
            ]
        return times[-1]

    track_first_step.unit = "s"
