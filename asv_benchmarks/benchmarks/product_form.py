"""Gradients in thin factors, beside forming them; the accuracy is checked in setup."""

import numpy as np

import lowrank_unitary as lu

from . import judge, limits, problems
from .judge import adjoint


class _Factors:
    """128 outer products that fall off, as those of a minibatch do, and their body factors."""

    params = [problems.NAMESPACES, ["float32"], [1024, 4096] if problems.FULL else [1024], [4]]
    param_names = problems.NAMES

    def setup(self, namespace, dtype, n, k):
        self.problem = problems.factors_v1(namespace, dtype, n, 128)

    def thin(self, k):
        return self.problem.space.wait(lu.compress_factors(self.problem.factors, k, rng=0))

    def formed(self, k):
        left, right = self.problem.factors
        return self.problem.space.wait(lu.svd_sketch(left @ right.mT, k, rng=0).factors())


class CompressFactors(_Factors):
    def setup(self, namespace, dtype, n, k):
        super().setup(namespace, dtype, n, k)
        thin, formed = (
            np.linalg.multi_dot([judge.double(left), adjoint(judge.double(right))])
            for left, right in (map(self.problem.space.host, f(k)) for f in (self.thin, self.formed))
        )
        size = np.linalg.norm(formed)
        judge.close(thin / size, formed / size, dtype, k)

    def time_compress_factors(self, namespace, dtype, n, k):
        self.thin(k)

    def track_gain(self, namespace, dtype, n, k):
        return limits.median_seconds(lambda: self.formed(k)) / limits.median_seconds(lambda: self.thin(k))

    track_gain.unit = "time with the gradient formed / time without"


class CompressFactorsMemory(_Factors):
    def peakmem_compress_factors(self, namespace, dtype, n, k):
        self.thin(k)

    def peakmem_formed(self, namespace, dtype, n, k):
        self.formed(k)


class TrainingStep:
    """The update of a recurrent matrix after back-propagation through 64 steps of 64 sequences.

    Δ, H and UᴴΔ have 4096 columns and are there; plain SGD forms ΔHᵀ and subtracts it.
    """

    params = [problems.NAMESPACES, ["float32"], [512, 1024, 2048] if problems.FULL else [512], [1, 4]]
    param_names = problems.NAMES

    def setup(self, namespace, dtype, n, k):
        self.problem = problems.factors_v1(namespace, dtype, n, 4096)
        moved = judge.double(self.problem.space.host(self.unitary_update(k)))
        rounding = judge.defect(judge.double(self.problem.space.host(self.problem.unitary)))
        judge.demand(judge.defect(moved) <= 2 * rounding, "the step left the orthogonal matrices")

    def unitary_update(self, k, overwrite=False):
        problem = self.problem
        C, Q = lu.compress_tangent(problem.body_factors, k, rng=0)
        rotation = lu.transport_rotation(lu.BodyFactors(-0.1 * C, Q))
        return problem.space.wait(lu.rotate(problem.unitary, rotation, overwrite_array=overwrite))

    def plain_update(self):
        problem = self.problem
        left, right = problem.factors
        problem.plain -= 1e-6 * (left @ right.mT)
        return problem.space.wait(problem.plain)

    def time_unitary_update(self, namespace, dtype, n, k):
        self.unitary_update(k, overwrite=True)

    def track_ratio_to_plain_sgd(self, namespace, dtype, n, k):
        ours = limits.median_seconds(lambda: self.unitary_update(k, overwrite=True))
        return ours / limits.median_seconds(self.plain_update)

    track_ratio_to_plain_sgd.unit = "time of the unitary update / of the plain one"
