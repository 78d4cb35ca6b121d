"""What a result has to satisfy before its time counts: numpy, in double or extended precision."""

import numpy as np

from lowrank_unitary import reference
from lowrank_unitary._array import tolerance


def double(x):
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def adjoint(x):
    return np.conj(x.T)


def skew(x):
    return 0.5 * (x - adjoint(x))


def demand(condition, message):
    """Not `assert`, which a flag of the interpreter removes."""
    if not condition:
        raise AssertionError(message)


def close(result, expected, dtype, k):
    """Raise unless the Frobenius norm of the difference is what rounding explains."""
    _within(float(np.linalg.norm(double(result) - expected)), max(expected.shape), dtype, k)


def close_by_rows(result, before, thin, dtype, k):
    """The same for `rotated(before, thin)`, a panel of rows at a time: nothing n×n in double precision."""
    panels = _panels(len(before))
    errors = [np.linalg.norm(double(result[rows]) - rotated(before[rows], thin)) for rows in panels]
    _within(float(np.linalg.norm(errors)), len(before), dtype, k)


def pulled_back(matrix, thin):
    """matrixᴴ @ thin in double precision, by panels of rows."""
    return sum(adjoint(double(matrix[rows])) @ double(thin[rows]) for rows in _panels(len(matrix)))


def _panels(n):
    return [slice(start, start + 1024) for start in range(0, n, 1024)]


def _within(error, n, dtype, k):
    bound = tolerance(np, np.dtype(dtype), n, k)
    demand(error <= bound, f"the error is {error:.2e}, more than {bound:.2e}")


def rotation(update, left, right):
    """The thin form of the update's rotation, from its dense definition on the dimensions that move."""
    c, b = double(left), double(right)
    Q = np.linalg.qr(np.concatenate([b, c], axis=1))[0]
    eye = np.eye(Q.shape[1])
    small = getattr(reference, update)(eye, adjoint(Q) @ c, adjoint(Q) @ b) - eye
    return Q, Q @ adjoint(small.astype(Q.dtype))


def rotated(matrix, thin):
    left, right = (double(x) for x in thin)
    matrix = double(matrix)
    return matrix + (matrix @ left) @ adjoint(right)


def defect(matrix):
    """‖UᴴU − I‖_F, in double precision."""
    matrix = double(matrix)
    return float(np.linalg.norm(adjoint(matrix) @ matrix - np.eye(len(matrix))))
