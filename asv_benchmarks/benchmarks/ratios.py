"""Whole steps beside the limits of the machine, the published form, and what one would use instead.

Every number is a ratio of two medians from one process, after the result has been judged: beside the memory
in turns, beside other libraries one after the other: the threads of BLAS go on taking cores for a while.
"""

import contextlib
import importlib
import subprocess
import sys

import numpy as np
import scipy.linalg

import lowrank_unitary as lu
from lowrank_unitary.studies import published

from . import judge, limits, problems
from .problems import SkipNotImplemented

HOST = [name for name in problems.NAMESPACES if ":" not in name and name != "jax"]
KINDS = ["transport", "polar", "transport, healed", "transport, column-major", "known product"]


def call(step, kind):
    """A step in place, as a function of nothing."""
    if kind == "polar":
        return lambda: lu.polar_projection(step.unitary, step.left, step.right, overwrite_unitary=True)
    if kind == "known product":
        known = lu.LowRankFactors(step.left, step.right).to_body(step.unitary)
        return lambda: lu.rotate(step.unitary, lu.transport_rotation(known), overwrite_array=True)
    heal = int(kind.endswith("healed"))
    return lambda: lu.unitary_transport(
        step.unitary, step.left, step.right, heal=heal, rng=0, overwrite_unitary=True
    )


def judged(namespace, dtype, n, k, kind):
    """The problem, moved once and compared with the dense definition in double precision."""
    step = problems.step_v1(namespace, dtype, n, k)
    if "column" in kind:
        step.unitary = step.space.array(np.asfortranarray(step.space.host(step.unitary)))
    before = judge.double(step.space.host(step.unitary))
    left, right = (judge.double(step.space.host(x)) for x in (step.left, step.right))
    thin = judge.rotation("polar" if kind == "polar" else "transport", judge.adjoint(before) @ left, right)
    call(step, kind)()
    judge.close(step.space.host(step.unitary), judge.rotated(before, thin), dtype, k)
    return step


class ToLimit:
    """1 is the time of 3n² words (a known product: 2n²), or of 10kn² operations where that is more."""

    params = [HOST, problems.RATIO_DTYPES, problems.RATIO_SIZES, problems.RATIO_RANKS, KINDS]
    param_names = [*problems.NAMES, "kind"]
    timeout = 600

    def setup(self, namespace, dtype, n, k, kind):
        if k > 1 and kind not in ("transport", "polar"):
            raise SkipNotImplemented("measured at k = 1")
        self.step = judged(namespace, dtype, n, k, kind)

    def track_ratio_to_limit(self, namespace, dtype, n, k, kind):
        host = self.step.space.host(self.step.unitary)
        limits.rest()
        memory = limits.Memory(host if host.flags.c_contiguous else host.T)
        seconds, three, two = memory.beside(call(self.step, kind), 9 if n >= 4096 else 25)
        limit = two if kind == "known product" else three
        if k > 1:
            operations = (4 if np.dtype(dtype).kind == "c" else 1) * 10 * k * n * n
            limit = max(limit, operations / limits.operations_per_second(dtype))
        return seconds / limit

    track_ratio_to_limit.unit = "× the larger limit"


class ToPublished:
    """The published form, in numpy, over the same step by this library."""

    params = [["float32"], problems.PUBLISHED_SIZES, [1, 16], ["transport", "polar"]]
    param_names = ["dtype", "n", "k", "update"]
    timeout = 600

    def setup(self, dtype, n, k, update):
        self.step = judged("numpy", dtype, n, k, update)

    def track_gain_over_published_form(self, dtype, n, k, update):
        step = self.step
        theirs = getattr(published, update)
        times = limits.one_by_one(
            {
                "ours": call(step, update),
                "theirs": lambda: theirs(step.unitary, step.left, step.right),
            },
            7 if n >= 1024 else 51,
        )
        return times["theirs"] / times["ours"]

    track_gain_over_published_form.unit = "time of the published form / time"


def _newton_schulz(step):
    """U + step brought back by five Newton–Schulz products."""
    moved = step.unitary + step.left @ step.right.T
    for _ in range(5):
        moved = 1.5 * moved - 0.5 * moved @ (moved.T @ moved)
    return moved


def _tangent(step):
    A = step.unitary.T @ step.left @ step.right.T
    return 0.5 * (A - A.T)


def _cayley(step):
    A = 0.5 * _tangent(step)
    eye = np.eye(len(A), dtype=A.dtype)
    return step.unitary @ np.linalg.solve(eye - A, eye + A)


def _polar_by_svd(step):
    u, _, vh = np.linalg.svd(step.unitary + step.left @ step.right.T)
    return u @ vh


def _geoopt(step):
    torch, geoopt = (importlib.import_module(name) for name in ("torch", "geoopt"))
    manifold = geoopt.Stiefel(canonical=True)
    U, V = (torch.from_numpy(np.ascontiguousarray(x)) for x in (step.unitary, step.left @ step.right.T))
    return lambda: manifold.retr(U, manifold.egrad2rgrad(U, V))


def _pymanopt(step):
    manifold = importlib.import_module("pymanopt.manifolds").SpecialOrthogonalGroup(
        len(step.unitary), retraction="polar"
    )
    A = _tangent(step)
    return lambda: manifold.retraction(step.unitary, A)


DENSE = {
    "SVD polar": lambda step: lambda: _polar_by_svd(step),
    "matrix exponential": lambda step: lambda: step.unitary @ scipy.linalg.expm(_tangent(step)),
    "Cayley solve": lambda step: lambda: _cayley(step),
    "Newton–Schulz": lambda step: lambda: _newton_schulz(step),
    "geoopt": _geoopt,
    "pymanopt": _pymanopt,
}


class ToDense:
    """A dense way to the same end over transport at k = 1."""

    params = [problems.DENSE_SIZES, list(DENSE)]
    param_names = ["n", "method"]
    timeout = 600

    def setup(self, n, method):
        self.step = judged("numpy", "float32", n, 1, "transport")
        try:
            self.theirs = DENSE[method](self.step)
        except ModuleNotFoundError as error:
            raise SkipNotImplemented(f"{error.name} is not installed") from error

    def track_gain_over_dense(self, n, method):
        times = limits.one_by_one({"ours": call(self.step, "transport"), "theirs": self.theirs}, 7)
        return times["theirs"] / times["ours"]

    track_gain_over_dense.unit = "time of the dense way / time"


class ToSketches:
    """Other randomised decompositions over svd_sketch, with as many samples and iterations."""

    params = [[1024], [4, 16] if problems.FULL else [4], ["scikit-learn randomized_svd", "torch svd_lowrank"]]
    param_names = ["n", "k", "method"]

    def setup(self, n, k, method):
        self.matrix = problems.matrix_v1("numpy", "float32", n).matrix
        try:
            if method.startswith("torch"):
                torch = importlib.import_module("torch")
                tensor = torch.from_numpy(self.matrix)
                self.theirs = lambda: torch.svd_lowrank(tensor, q=k + 8, niter=1)
            else:
                utils = importlib.import_module("sklearn.utils.extmath")
                self.theirs = lambda: utils.randomized_svd(self.matrix, k, n_oversamples=8, n_iter=1)
        except ModuleNotFoundError as error:
            raise SkipNotImplemented(f"{error.name} is not installed") from error

    def track_gain_over_other_sketch(self, n, k, method):
        ours = lambda: lu.svd_sketch(self.matrix, k, oversample=8, power_iterations=1, rng=0)  # noqa: E731
        times = limits.one_by_one({"ours": ours, "theirs": self.theirs})
        return times["theirs"] / times["ours"]

    track_gain_over_other_sketch.unit = "time of the other / time"


class Stack:
    """512 complex matrices of size 64 in one call."""

    params = [["memory limit", "published form"]]
    param_names = ["beside"]

    def setup(self, beside):
        rng = np.random.default_rng(20260105)
        self.unitary = lu.random_unitary(64, dtype=np.complex64, batch=(512,), rng=rng)
        self.left, self.right = (0.02 * rng.standard_normal((2, 512, 64, 2)).astype(np.float32)).view(
            np.complex64
        )
        once = lu.unitary_transport(self.unitary[:1], self.left[:1], self.right[:1])
        thin = (judge.adjoint(judge.double(self.unitary[0])) @ judge.double(self.left[0]), self.right[0])
        expected = judge.rotated(self.unitary[0], judge.rotation("transport", *thin))
        judge.close(once[0], expected, "complex64", 1)

    def run(self):
        lu.unitary_transport(self.unitary, self.left, self.right, overwrite_unitary=True)

    def track_stack(self, beside):
        if beside == "memory limit":
            limits.rest()
            seconds, three, _ = limits.Memory(self.unitary).beside(self.run, 15)
            return seconds / three
        times = limits.one_by_one(
            {"ours": self.run, "theirs": lambda: published.transport(self.unitary, self.left, self.right)}, 7
        )
        return times["theirs"] / times["ours"]

    track_stack.unit = "× 3n² words, or time of the published form / time"


class Small:
    """Microseconds of a whole call at k = 1, where n² hardly counts."""

    params = [
        ["numpy", "torch"], problems.RATIO_DTYPES, problems.SMALL_SIZES, [0, 1] if problems.FULL else [1]
    ]  # fmt: skip
    param_names = ["namespace", "dtype", "n", "heal"]

    def setup(self, namespace, dtype, n, heal):
        self.step = judged(namespace, dtype, max(n, 64), 1, "transport")
        if n < 64:
            for name in ("left", "right"):
                setattr(
                    self.step, name, self.step.space.array(self.step.space.host(getattr(self.step, name))[:n])
                )
            self.step.unitary = self.step.space.array(np.eye(n, dtype=dtype))

    def track_small_step(self, namespace, dtype, n, heal):
        return 1e6 * limits.median_seconds(call(self.step, "transport, healed" if heal else "transport"), 501)

    track_small_step.unit = "µs"


class FirstCall:
    """Seconds of the first step of a process, with a warm cache; numba itself has been started before."""

    def track_first_call(self):
        code = (
            "import time, numpy as np, lowrank_unitary as lu\n"
            "import numba; numba.njit(lambda x: x)(1.0)\n"
            "U, a = np.eye(64, dtype='f'), np.full((64, 1), 0.01, 'f')\n"
            "start = time.perf_counter(); lu.unitary_transport(U, a, a); print(time.perf_counter() - start)"
        )
        with contextlib.suppress(ImportError):
            importlib.import_module("numba")
            runs = [
                float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
                for _ in range(4)
            ]
            return float(np.median(runs[1:]))
        raise SkipNotImplemented("numba is not installed")

    track_first_call.unit = "s"
