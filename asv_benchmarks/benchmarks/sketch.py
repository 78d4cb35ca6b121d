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
        """C, Q, and AQ for the tangent A = (UᴴG − GᴴU)/2, in double precision; ‖A‖_F."""
        host = self.step.space.host
        C, Q = (judge.double(host(x)) for x in self.run(k))
        pulled = adjoint(judge.double(host(self.step.unitary))) @ judge.double(host(self.step.gradient))
        A = 0.5 * (pulled - adjoint(pulled))
        return C, Q, A @ Q, float(np.linalg.norm(A))


class TangentSketch(_Gradient):
    params = problems.TIMED

    def setup(self, namespace, dtype, n, k):
        super().setup(namespace, dtype, n, k)
        C, Q, AQ, norm = self.judged(k)
        judge.close(C / norm, (2 * AQ - Q @ (adjoint(Q) @ AQ)) / norm, dtype, k)
        judge.close(adjoint(Q) @ Q, np.eye(k), dtype, k)

    def time_tangent_sketch(self, namespace, dtype, n, k):
        self.run(k)

    def track_lost_energy(self, namespace, dtype, n, k):
        _, Q, AQ, norm = self.judged(k)
        captured = 2 * np.linalg.norm(AQ) ** 2 - np.linalg.norm(adjoint(Q) @ AQ) ** 2
        return float(1 - captured / norm**2)

    track_lost_energy.unit = "fraction of the tangent's energy"


class TangentSketchMemory(_Gradient):
    params = problems.WEIGHED

    def peakmem_tangent_sketch(self, namespace, dtype, n, k):
        self.run(k)
