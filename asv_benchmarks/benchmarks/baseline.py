"""What the interpreter and the problems hold before anything is computed: subtract from every `peakmem_…`."""

from . import problems


class Held:
    params = [*problems.WEIGHED[:2], [1024], ["step", "step and gradient", "matrix"]]
    param_names = ["namespace", "dtype", "n", "problem"]

    def setup(self, namespace, dtype, n, problem):
        if problem == "matrix":
            self.problem = problems.matrix_v1(namespace, dtype, n)
        else:
            self.problem = problems.step_v1(namespace, dtype, n, 1, gradient="gradient" in problem)

    def peakmem_nothing(self, namespace, dtype, n, problem):
        pass
