"""The core of both updates, and the traversal that applies a rotation."""

import numpy as np

import lowrank_unitary as lu

from . import limits, problems
from .problems import adjoint


class _Core:
    params = (*problems.PARAMS, ["gram", "orthonormal"])
    param_names = [*problems.PARAM_NAMES, "core"]

    def setup(self, namespace, dtype, n, k, core):
        step = problems.step_v1(namespace, dtype, n, k)
        self.body = lu.LowRankFactors(step.left, step.right).to_body(step.unitary)
        if not self.defect(core) <= 1e3 * np.finfo(dtype).eps:
            raise AssertionError("the rotation is not unitary to rounding")

    def defect(self, core):
        """Of I + LRᴴ, through thin products alone."""
        L, R = (np.asarray(x).astype(complex) for x in self.rotation(core))
        # (I + LRᴴ)ᴴ(I + LRᴴ) − I = L Rᴴ + R Lᴴ + R LᴴL Rᴴ = [L, R] [[0, I], [I, LᴴL]] [L, R]ᴴ
        thin, w = np.concatenate([L, R], axis=1), L.shape[1]
        middle = np.zeros((2 * w, 2 * w), complex)
        middle[:w, w:] = middle[w:, :w] = np.eye(w)
        middle[w:, w:] = adjoint(L) @ L
        triangle = np.linalg.qr(thin)[1]
        return float(np.linalg.norm(triangle @ middle @ adjoint(triangle)))


class Transport(_Core):
    def rotation(self, core):
        return lu.transport_rotation(self.body, core=core)

    def time_transport_rotation(self, namespace, dtype, n, k, core):
        self.rotation(core)

    def peakmem_transport_rotation(self, namespace, dtype, n, k, core):
        self.rotation(core)

    def track_defect(self, namespace, dtype, n, k, core):
        return self.defect(core)

    track_defect.unit = "Frobenius norm"


class Polar(_Core):
    def rotation(self, core):
        return lu.polar_rotation(self.body, core=core)

    def time_polar_rotation(self, namespace, dtype, n, k, core):
        self.rotation(core)

    def peakmem_polar_rotation(self, namespace, dtype, n, k, core):
        self.rotation(core)

    def track_defect(self, namespace, dtype, n, k, core):
        return self.defect(core)

    track_defect.unit = "Frobenius norm"


class Rotate:
    params = problems.PARAMS
    param_names = problems.PARAM_NAMES

    def setup(self, namespace, dtype, n, k):
        step = problems.step_v1(namespace, dtype, n, k)
        self.unitary = step.unitary
        self.rotation = lu.transport_rotation(lu.LowRankFactors(step.left, step.right).to_body(step.unitary))
        left, right = (np.asarray(x) for x in self.rotation)
        unitary = step.host[0]
        expected = unitary + (unitary @ left) @ adjoint(right)
        problems.close(lu.rotate(self.unitary, self.rotation), expected, 1e2 * np.finfo(dtype).eps)

    def time_rotate(self, namespace, dtype, n, k):
        lu.rotate(self.unitary, self.rotation)

    def time_rotate_in_place(self, namespace, dtype, n, k):
        lu.rotate(self.unitary, self.rotation, overwrite_array=True)

    def peakmem_rotate_in_place(self, namespace, dtype, n, k):
        lu.rotate(self.unitary, self.rotation, overwrite_array=True)

    def peakmem_reference(self, namespace, dtype, n, k):
        pass

    def track_ratio_to_memory_limit(self, namespace, dtype, n, k):
        seconds = limits.median_seconds(lambda: lu.rotate(self.unitary, self.rotation, overwrite_array=True))
        return seconds / limits.three_traversals(np.asarray(self.unitary))

    track_ratio_to_memory_limit.unit = "× the time of moving 3n² words"
