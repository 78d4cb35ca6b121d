"""The two rotations, thin arrays to thin arrays, and the traversal that applies one."""

import numpy as np

import lowrank_unitary as lu
from lowrank_unitary import reference

from . import judge, problems


class _Rotation:
    param_names = problems.NAMES

    def setup(self, namespace, dtype, n, k):
        step = problems.step_v1(namespace, dtype, n, k)
        self.space, self.unitary = step.space, step.unitary
        self.body = lu.LowRankFactors(step.left, step.right).to_body(step.unitary)

    def run(self, core="auto"):
        function = lu.transport_rotation if self.update == "transport" else lu.polar_rotation
        return self.space.wait(function(self.body, core=core))

    def host(self, *arrays):
        return [self.space.host(x) for x in arrays]

    def error(self, core):
        """Frobenius norm of the difference from the dense definition in extended precision."""
        c, b = self.host(*self.body)
        dense = getattr(reference, self.update)(np.eye(len(c)), c, b)
        difference = reference.rotation_matrix(*self.host(*self.run(core))) - dense
        return float(np.sqrt(np.sum(np.abs(difference) ** 2)))


class _TimedRotation(_Rotation):
    params = problems.TIMED

    def setup(self, namespace, dtype, n, k):
        super().setup(namespace, dtype, n, k)
        unitary, c, b, left, right = self.host(self.unitary, *self.body, *self.run())
        expected = judge.rotated(unitary, judge.rotation(self.update, c, b))
        judge.close(judge.rotated(unitary, (left, right)), expected, dtype, k)


class _JudgedRotation(_Rotation):
    params = [*problems.JUDGED, ["gram", "orthonormal"]]
    param_names = [*problems.NAMES, "core"]

    def setup(self, namespace, dtype, n, k, core):
        super().setup(namespace, dtype, n, k)


class TransportRotation(_TimedRotation):
    update = "transport"

    def time_transport_rotation(self, namespace, dtype, n, k):
        self.run()


class TransportRotationMemory(_Rotation):
    update = "transport"
    params = problems.WEIGHED

    def peakmem_transport_rotation(self, namespace, dtype, n, k):
        self.run()


class TransportRotationAccuracy(_JudgedRotation):
    update = "transport"

    def track_transport_error(self, namespace, dtype, n, k, core):
        return self.error(core)

    track_transport_error.unit = "Frobenius norm"


class PolarRotation(_TimedRotation):
    update = "polar"

    def time_polar_rotation(self, namespace, dtype, n, k):
        self.run()


class PolarRotationMemory(_Rotation):
    update = "polar"
    params = problems.WEIGHED

    def peakmem_polar_rotation(self, namespace, dtype, n, k):
        self.run()


class PolarRotationAccuracy(_JudgedRotation):
    update = "polar"

    def track_polar_error(self, namespace, dtype, n, k, core):
        return self.error(core)

    track_polar_error.unit = "Frobenius norm"


class Certificate(_Rotation):
    update = "polar"
    params = problems.TIMED

    def setup(self, namespace, dtype, n, k):
        super().setup(namespace, dtype, n, k)
        self.rotation = self.run()
        unitary, c, b, left, right = self.host(self.unitary, *self.body, *self.rotation)
        expected = judge.rotated(unitary, judge.rotation(self.update, c, b))
        error = np.linalg.norm(judge.rotated(unitary, (left, right)) - expected)
        stated = float(self.space.host(self.certify().step_error))
        judge.demand(error <= stated, f"the error is {error:.2e}, but {stated:.2e} was certified")

    def certify(self):
        return lu.rotation_certificate(self.body, self.rotation, update=self.update)

    def time_rotation_certificate(self, namespace, dtype, n, k):
        self.space.wait(self.certify())


class _Rotated(_Rotation):
    update = "transport"

    def setup(self, namespace, dtype, n, k):
        super().setup(namespace, dtype, n, k)
        self.rotation = self.run()

    def rotate(self, overwrite=True):
        return self.space.wait(lu.rotate(self.unitary, self.rotation, overwrite_array=overwrite))

    def pair(self):
        """A result that leaves U as it is, and what it should be."""
        result, unitary, left, right = self.host(self.rotate(overwrite=False), self.unitary, *self.rotation)
        return result, judge.rotated(unitary, (left, right))


class Rotate(_Rotated):
    params = problems.TIMED

    def setup(self, namespace, dtype, n, k):
        super().setup(namespace, dtype, n, k)
        judge.close(*self.pair(), dtype, k)

    def time_rotate_in_place(self, namespace, dtype, n, k):
        self.rotate()


class RotateAccuracy(_Rotated):
    params = problems.JUDGED

    def track_rotate_error(self, namespace, dtype, n, k):
        unitary, left, right = self.host(self.unitary, *self.rotation)
        expected = reference.extended(unitary) @ reference.rotation_matrix(left, right)
        difference = reference.extended(self.host(self.rotate(overwrite=False))[0]) - expected
        return float(np.sqrt(np.sum(np.abs(difference) ** 2)))

    track_rotate_error.unit = "Frobenius norm"


class RotateMemory(_Rotated):
    params = problems.WEIGHED

    def peakmem_rotate_in_place(self, namespace, dtype, n, k):
        self.rotate()
