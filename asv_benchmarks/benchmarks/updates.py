"""Whole updates, from factors and from a gradient, and what keeps a matrix unitary."""

import numpy as np
from asv_runner.benchmarks.mark import SkipNotImplemented

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._kernels import cpu

from . import judge, limits, problems

UPDATES = ["transport", "polar"]
NAMES = [*problems.NAMES, "update"]


class _Factors:
    param_names = NAMES

    def setup(self, namespace, dtype, n, k, update):
        self.step = problems.step_v1(namespace, dtype, n, k)
        self.update = lu.unitary_transport if update == "transport" else lu.polar_projection

    def run(self, overwrite=True):
        step = self.step
        result = self.update(step.unitary, step.left, step.right, overwrite_unitary=overwrite)
        return step.space.wait(result)

    def host(self):
        step = self.step
        return [step.space.host(x) for x in (step.unitary, step.left, step.right)]


class FactorStep(_Factors):
    params = [*problems.TIMED, UPDATES]

    def setup(self, namespace, dtype, n, k, update):
        super().setup(namespace, dtype, n, k, update)
        unitary, left, right = (judge.double(x) for x in self.host())
        thin = judge.rotation(update, judge.adjoint(unitary) @ left, right)
        judge.close(self.step.space.host(self.run(overwrite=False)), judge.rotated(unitary, thin), dtype, k)

    def time_step_in_place(self, namespace, dtype, n, k, update):
        self.run()


class FactorStepAccuracy(_Factors):
    params = [*problems.JUDGED, UPDATES]

    def track_step_error(self, namespace, dtype, n, k, update):
        dense = getattr(reference, update)(*self.host())
        difference = reference.extended(self.step.space.host(self.run(overwrite=False))) - dense
        return float(np.sqrt(np.sum(np.abs(difference) ** 2)))

    track_step_error.unit = "Frobenius norm"


class FactorStepMemory(_Factors):
    params = [*problems.WEIGHED, UPDATES]

    def peakmem_step_in_place(self, namespace, dtype, n, k, update):
        self.run()


class KernelGain:
    """A whole step without the compiled kernels over one with them, in one process."""

    params = (problems.RATIO_DTYPES, [2048], [1, 4])
    param_names = ["dtype", "n", "k"]

    def setup(self, dtype, n, k):
        self.active = cpu.active
        if not self.active():
            raise SkipNotImplemented("numba is not installed, or the environment turns the kernels off")
        self.step = problems.step_v1("numpy", dtype, n, k)

    def teardown(self, dtype, n, k):
        cpu.rows.active = cpu.active = self.active

    def run(self):
        step = self.step
        lu.unitary_transport(step.unitary, step.left, step.right, overwrite_unitary=True)

    def track_gain(self, dtype, n, k):
        with_kernels = limits.median_seconds(self.run)
        cpu.rows.active = cpu.active = lambda: False
        return limits.median_seconds(self.run) / with_kernels

    track_gain.unit = "time without / time with"


class _Gradient:
    param_names = [*problems.NAMES, "heal"]

    def setup(self, namespace, dtype, n, k, heal):
        self.step = problems.step_v1(namespace, dtype, n, k, gradient=True)

    def run(self, k, heal, seed=0, overwrite=True):
        step = self.step
        options = {"rank": k, "heal": heal, "rng": seed, "overwrite_unitary": overwrite}
        return step.space.wait(lu.unitary_step(step.unitary, step.gradient, 0.1, **options))

    def defect(self):
        return judge.defect(self.step.space.host(self.step.unitary))


class GradientStep(_Gradient):
    params = [*problems.TIMED, [0, 1]]

    def setup(self, namespace, dtype, n, k, heal):
        super().setup(namespace, dtype, n, k, heal)
        host = self.step.space.host
        unitary = judge.double(host(self.step.unitary))
        moved = judge.double(host(self.run(k, heal, overwrite=False)))
        # Where it went: the geodesic of the sketch that the same seed gives. Healing moves by rounding only.
        C, Q = (host(x) for x in lu.tangent_sketch(self.step.unitary, self.step.gradient, k, rng=0))
        expected = judge.rotated(unitary, judge.rotation("transport", -0.1 * judge.double(C), Q))
        judge.close(moved, expected, dtype, k)

    def time_step_in_place(self, namespace, dtype, n, k, heal):
        self.run(k, heal)


class GradientStepAccuracy(_Gradient):
    params = [*problems.JUDGED, [0, 1]]

    def track_defect_after_100_steps(self, namespace, dtype, n, k, heal):
        for seed in range(100):
            self.step.unitary = self.run(k, heal, seed)
        return self.defect()

    track_defect_after_100_steps.unit = "‖UᴴU − I‖_F"


class GradientStepMemory(_Gradient):
    params = [*problems.WEIGHED, [1]]

    def peakmem_step_in_place(self, namespace, dtype, n, k, heal):
        self.run(k, heal)


class _Disturbed:
    param_names = ["namespace", "dtype", "n", "k"]

    def setup(self, namespace, dtype, n, k):
        self.step = problems.disturbed_v1(namespace, dtype, n)

    def heal(self, probes, seed=0):
        return self.step.space.wait(lu.heal_unitary(self.step.unitary, probes, rng=seed))

    def repair(self):
        return self.step.space.wait(lu.reunitarize(self.step.unitary))

    def defect(self, unitary):
        return judge.defect(self.step.space.host(unitary))


class Heal(_Disturbed):
    params = problems.TIMED

    def setup(self, namespace, dtype, n, k):
        super().setup(namespace, dtype, n, k)
        before, after = self.defect(self.step.unitary), self.defect(self.heal(k))
        judge.demand(after < before, f"healing took the defect from {before:.4e} to {after:.4e}")

    def time_heal(self, namespace, dtype, n, k):
        self.heal(k)


class HealAccuracy(_Disturbed):
    params = problems.JUDGED

    def track_defect_after_healing(self, namespace, dtype, n, k):
        """After 4n/k calls, which contract the defect by about exp(−4)."""
        before = self.defect(self.step.unitary)
        for seed in range(4 * n // k):
            self.step.unitary = self.heal(k, seed)
        return self.defect(self.step.unitary) / before

    track_defect_after_healing.unit = "fraction of the defect before"


class HealMemory(_Disturbed):
    params = problems.WEIGHED

    def peakmem_heal(self, namespace, dtype, n, k):
        self.heal(k)


class _Repaired(_Disturbed):
    param_names = ["namespace", "dtype", "n"]

    def setup(self, namespace, dtype, n):
        super().setup(namespace, dtype, n, 1)


class Repair(_Repaired):
    params = problems.TIMED[:3]

    def setup(self, namespace, dtype, n):
        super().setup(namespace, dtype, n)
        repaired = judge.double(self.step.space.host(self.repair()))
        judge.close(judge.adjoint(repaired) @ repaired, np.eye(n), dtype, 1)

    def time_reunitarize(self, namespace, dtype, n):
        self.repair()


class RepairAccuracy(_Repaired):
    params = problems.JUDGED[:3]

    def track_distance_to_polar_factor(self, namespace, dtype, n):
        """From the nearest unitary matrix, in extended precision."""
        host = self.step.space.host
        dense = reference.polar_factor(host(self.step.unitary))
        return float(np.sqrt(np.sum(np.abs(reference.extended(host(self.repair())) - dense) ** 2)))

    track_distance_to_polar_factor.unit = "Frobenius norm"
