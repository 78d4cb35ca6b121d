"""Whole updates, and what keeps a matrix unitary."""

import numpy as np

import lowrank_unitary as lu
from lowrank_unitary import _kernels, reference

from . import limits, problems


class Updates:
    params = (*problems.PARAMS, ["transport", "polar"])
    param_names = [*problems.PARAM_NAMES, "update"]

    def setup(self, namespace, dtype, n, k, update):
        self.step = problems.step_v1(namespace, dtype, n, k)
        self.apply = lu.unitary_transport if update == "transport" else lu.polar_projection
        # Both leave the factor ‖UᴴU − I‖ as it is; at small n the dense definition is the judge as well.
        moved = self.run()
        before = float(lu.unitarity_defect(self.step.unitary, probes=4, rng=0))
        if (
            not float(lu.unitarity_defect(moved, probes=4, rng=0))
            <= 1e2 * n**0.5 * np.finfo(dtype).eps + before
        ):
            raise AssertionError("the step is not unitary to rounding")
        if n <= 64 and not self.error(update) <= 1e2 * np.finfo(dtype).eps:
            raise AssertionError("the step is not that of the dense definition")

    def run(self, **options):
        return self.apply(self.step.unitary, self.step.left, self.step.right, **options)

    def error(self, update):
        unitary, left, right, _ = self.step.host
        dense = getattr(reference, update)(unitary, left, right)
        return float(reference.spectral_norm(reference.extended(np.asarray(self.run())) - dense))

    def time_update_in_place(self, namespace, dtype, n, k, update):
        self.run(overwrite_unitary=True)

    def peakmem_update_in_place(self, namespace, dtype, n, k, update):
        self.run(overwrite_unitary=True)

    def peakmem_reference(self, namespace, dtype, n, k, update):
        pass

    def track_ratio_to_memory_limit(self, namespace, dtype, n, k, update):
        seconds = limits.median_seconds(lambda: self.run(overwrite_unitary=True))
        return seconds / limits.three_traversals(np.asarray(self.step.unitary))

    track_ratio_to_memory_limit.unit = "× the time of moving 3n² words"


class KernelGain:
    """A whole step without the compiled kernels over one with them, in one process."""

    params = (problems.DTYPES, [2048], [1, 4])
    param_names = ["dtype", "n", "k"]

    def setup(self, dtype, n, k):
        self.active = _kernels.kernels_active
        if not self.active():
            raise NotImplementedError("numba is not installed, or the environment turns the kernels off")
        self.step = problems.step_v1("numpy:cpu", dtype, n, k)

    def teardown(self, dtype, n, k):
        _kernels._rows.kernels_active = self.active

    def run(self):
        step = self.step
        lu.unitary_transport(step.unitary, step.left, step.right, overwrite_unitary=True)

    def track_gain(self, dtype, n, k):
        with_kernels = limits.median_seconds(self.run)
        _kernels._rows.kernels_active = lambda: False
        return limits.median_seconds(self.run) / with_kernels

    track_gain.unit = "time without / time with"


class Accuracy:
    """One step against the dense definition in extended precision, spectral norm."""

    params = (list(problems.NAMESPACES), problems.DTYPES, [1, 16], ["transport", "polar"])
    param_names = ["namespace", "dtype", "k", "update"]

    def track_error(self, namespace, dtype, k, update):
        updates = Updates()
        updates.setup(namespace, dtype, 64, k, update)
        return updates.error(update)

    track_error.unit = "spectral norm"


class GradientStep:
    params = (*problems.PARAMS, [0, 1])
    param_names = [*problems.PARAM_NAMES, "heal"]

    def setup(self, namespace, dtype, n, k, heal):
        self.step = problems.step_v1(namespace, dtype, n, k)
        moved = self.run(k, heal)
        if not float(lu.unitarity_defect(moved, probes=4, rng=0)) <= 1e2 * n**0.5 * np.finfo(dtype).eps:
            raise AssertionError("the step is not unitary to rounding")

    def run(self, k, heal, **options):
        step = self.step
        return lu.unitary_step(step.unitary, step.gradient, 0.1, rank=k, heal=heal, rng=0, **options)

    def time_step_in_place(self, namespace, dtype, n, k, heal):
        self.run(k, heal, overwrite_unitary=True)

    def peakmem_step_in_place(self, namespace, dtype, n, k, heal):
        self.run(k, heal, overwrite_unitary=True)

    def peakmem_reference(self, namespace, dtype, n, k, heal):
        pass

    def track_defect_after_100_steps(self, namespace, dtype, n, k, heal):
        steps = 100 if n <= 64 else 5
        for _ in range(steps):
            self.step = problems.Step(
                self.run(k, heal), self.step.left, self.step.right, self.step.gradient, self.step.host
            )
        return float(lu.unitarity_defect(self.step.unitary, probes=8, rng=0)) / n**0.5

    track_defect_after_100_steps.unit = "‖UᴴU − I‖_F/√n"


class Repair:
    params = problems.PARAMS[:3]
    param_names = problems.PARAM_NAMES[:3]

    def setup(self, namespace, dtype, n):
        self.unitary = problems.step_v1(namespace, dtype, n, 1).unitary

    def time_heal(self, namespace, dtype, n):
        lu.heal_unitary(self.unitary, 1, rng=0)

    def time_estimated_defect(self, namespace, dtype, n):
        lu.unitarity_defect(self.unitary, probes=1, rng=0)

    def peakmem_heal(self, namespace, dtype, n):
        lu.heal_unitary(self.unitary, 1, rng=0)

    def peakmem_reference(self, namespace, dtype, n):
        pass

    def track_defect_after_reunitarize(self, namespace, dtype, n):
        disturbed = self.unitary + 1e-3 * np.ones_like(np.asarray(self.unitary)) / n
        return float(lu.unitarity_defect(lu.reunitarize(disturbed.astype(dtype)))) / n**0.5

    track_defect_after_reunitarize.unit = "‖UᴴU − I‖_F/√n"
