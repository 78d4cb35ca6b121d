"""Sketches of a matrix, and of the part of a gradient that moves a unitary matrix."""

import numpy as np

import lowrank_unitary as lu

from . import judge, problems
from .judge import adjoint


class _Matrix:
    param_names = problems.NAMES

    def setup(self, namespace, dtype, n, k):
        self.problem = problems.matrix_v1(namespace, dtype, n)

    def run(self, k):
        return self.problem.space.wait(lu.svd_sketch(self.problem.matrix, k, rng=0))

    def lost(self, k):
        """Energy left over, beyond what no rank-k matrix captures, as a fraction of the most that one can."""
        space, s = self.problem.space, self.problem.singular_values
        U, S, Vh = (judge.double(space.host(x)) for x in self.run(k))
        rest = np.linalg.norm(judge.double(space.host(self.problem.matrix)) - (U * S) @ Vh) ** 2
        return float((rest - np.sum(s[k:] ** 2)) / np.sum(s[:k] ** 2))


class SVDSketch(_Matrix):
    params = problems.TIMED

    def setup(self, namespace, dtype, n, k):
        super().setup(namespace, dtype, n, k)
        lost = self.lost(k)
        judge.demand(lost <= 0.05, f"the sketch lost {lost:.3f} of the energy of the best one")

    def time_svd_sketch(self, namespace, dtype, n, k):
        self.run(k)

    def track_lost_energy(self, namespace, dtype, n, k):
        return self.lost(k)

    track_lost_energy.unit = "fraction of the best sketch's energy"


class SVDSketchMemory(_Matrix):
    params = problems.WEIGHED

    def peakmem_svd_sketch(self, namespace, dtype, n, k):
        self.run(k)


class _Gradient:
    param_names = problems.NAMES

    def setup(self, namespace, dtype, n, k):
        self.step = problems.step_v1(namespace, dtype, n, k, gradient=True)

    def run(self, k):
        return self.step.space.wait(lu.tangent_sketch(self.step.unitary, self.step.gradient, k, rng=0))

    def judged(self, k):
        """The tangent A and its sketch, in double precision."""
        host = self.step.space.host
        C, Q = (judge.double(host(x)) for x in self.run(k))
        pulled = adjoint(judge.double(host(self.step.unitary))) @ judge.double(host(self.step.gradient))
        return judge.skew(pulled), judge.skew(C @ adjoint(Q))


class TangentSketch(_Gradient):
    params = problems.TIMED

    def setup(self, namespace, dtype, n, k):
        super().setup(namespace, dtype, n, k)
        A, sketch = self.judged(k)
        # What the samples of this seed touch, and the best part of it, from its dense definition.
        omega = lu.random_test_matrix(n, min(n, 2 * k + 4), kind="uniform", dtype=A.dtype, rng=0)
        B = np.linalg.qr(A @ omega)[0]
        AB = A @ B
        Q = np.linalg.qr(np.concatenate([B, AB], axis=1))[0]
        small = adjoint(Q) @ judge.skew((2 * AB - B @ (adjoint(B) @ AB)) @ adjoint(B)) @ Q
        _, v = np.linalg.eigh(1j * small)
        chosen = np.concatenate([v[:, :k], v[:, -k:]], axis=1)
        best = Q @ (chosen @ (adjoint(chosen) @ small @ chosen) @ adjoint(chosen)) @ adjoint(Q)
        size = np.linalg.norm(A)
        judge.close(sketch / size, best / size, dtype, k)

    def time_tangent_sketch(self, namespace, dtype, n, k):
        self.run(k)

    def track_lost_energy(self, namespace, dtype, n, k):
        A, sketch = self.judged(k)
        return float(np.linalg.norm(A - sketch) ** 2 / np.linalg.norm(A) ** 2)

    track_lost_energy.unit = "fraction of the tangent's energy"


class TangentSketchMemory(_Gradient):
    params = problems.WEIGHED

    def peakmem_tangent_sketch(self, namespace, dtype, n, k):
        self.run(k)
