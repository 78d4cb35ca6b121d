"""Sketches of a matrix, and of the tangent part of a gradient."""

import numpy as np

import lowrank_unitary as lu

from . import problems
from .problems import adjoint


class SVDSketch:
    params = problems.PARAMS
    param_names = problems.PARAM_NAMES

    def setup(self, namespace, dtype, n, k):
        self.matrix, self.s = problems.matrix_v1(namespace, dtype, n)
        if self.captured(k) < 0.95:
            raise AssertionError("the sketch captured less than 0.95 of the optimum")

    def captured(self, k):
        S = np.asarray(lu.svd_sketch(self.matrix, k, rng=0).S)
        return float(np.sum(S**2) / np.sum(self.s[:k] ** 2))

    def time_randomized(self, namespace, dtype, n, k):
        lu.svd_sketch(self.matrix, k, rng=0)

    def peakmem_randomized(self, namespace, dtype, n, k):
        lu.svd_sketch(self.matrix, k, rng=0)

    def peakmem_reference(self, namespace, dtype, n, k):
        pass

    def track_lost_energy(self, namespace, dtype, n, k):
        return 1 - self.captured(k)

    track_lost_energy.unit = "fraction of the optimum"


class TangentSketch:
    params = problems.PARAMS
    param_names = problems.PARAM_NAMES

    def setup(self, namespace, dtype, n, k):
        self.step = problems.step_v1(namespace, dtype, n, k)
        if not self.cosine(k) > 0:
            raise AssertionError("the sketch is no direction of descent")

    def sketch(self, k):
        return lu.tangent_sketch(self.step.unitary, self.step.gradient, k, rng=0)

    def cosine(self, k):
        C, Q = (np.asarray(x) for x in self.sketch(k))
        unitary, _, _, gradient = self.step.host
        pulled = adjoint(unitary) @ gradient
        tangent, sketched = pulled - adjoint(pulled), C @ adjoint(Q) - Q @ adjoint(C)
        product = np.sum(np.real(np.conj(sketched) * tangent))
        return float(product / (np.linalg.norm(tangent) * np.linalg.norm(sketched)))

    def time_tangent(self, namespace, dtype, n, k):
        self.sketch(k)

    def peakmem_tangent(self, namespace, dtype, n, k):
        self.sketch(k)

    def peakmem_reference(self, namespace, dtype, n, k):
        pass

    def track_lost_direction(self, namespace, dtype, n, k):
        return 1 - self.cosine(k)

    track_lost_direction.unit = "1 − cosine to the tangent"
