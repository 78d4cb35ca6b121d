"""Steps of matrices with orthonormal columns, in place, over the time of their words."""

import numpy as np

import lowrank_unitary as lu

from . import limits, problems
from .judge import demand

SHAPES = [(8192, 2048), (4096, 4000), (1024, 64)] if problems.FULL else [(512, 64)]
STEPS = {
    "transport": lambda U, a, b, G, k: lu.unitary_transport(U, a, b, overwrite_unitary=True),
    "polar": lambda U, a, b, G, k: lu.polar_projection(U, a, b, overwrite_unitary=True),
    "gradient": lambda U, a, b, G, k: lu.unitary_step(U, G, 0.1, k, rng=0, overwrite_unitary=True),
}


class RectangularToWords:
    """1 is the time of three reads of U and one write: what a step from thin factors needs."""

    params = [SHAPES, [1, 4] if problems.FULL else [1], list(STEPS)]
    param_names = ["m, n", "k", "step"]
    timeout = 600

    def setup(self, shape, k, step):
        rng = np.random.default_rng(0)
        m, n = shape
        self.unitary = np.linalg.qr(rng.standard_normal(shape, dtype=np.float32))[0].copy()
        a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((n, k), np.float32)
        self.factors = 0.1 * a / np.sqrt(np.float32(m)), b / np.sqrt(np.float32(n))
        self.gradient = rng.standard_normal(shape, dtype=np.float32) / np.sqrt(np.float32(m))
        self.move(step, k)
        demand(float(lu.unitarity_defect(self.unitary, probes=4, rng=1)) < 1e-5 * np.sqrt(n), "no isometry")

    def move(self, step, k):
        STEPS[step](self.unitary, *self.factors, self.gradient, k)

    def track_ratio_to_words(self, shape, k, step):
        limits.rest()
        seconds, three, two = limits.Memory(self.unitary.copy()).beside(lambda: self.move(step, k), 9)
        # A read is the difference; a read and a write are two words.
        return seconds / (2 * (three - two) + two)

    track_ratio_to_words.unit = "time / time of its words"
