"""Seeded problems. Append only: a changed problem is a new one, or old and new results would mix."""

import importlib
from dataclasses import dataclass

import numpy as np

import lowrank_unitary as lu

# Name → module. Where the module is not installed its benchmarks are skipped, with the reason.
NAMESPACES = {"numpy:cpu": "numpy"}
DTYPES = ["float32", "complex128"]
SIZES = [64, 1024]
RANKS = [1, 16]

PARAMS = (list(NAMESPACES), DTYPES, SIZES, RANKS)
PARAM_NAMES = ["namespace", "dtype", "n", "k"]


def namespace(name):
    """The module of a namespace; where it is not installed the benchmark is skipped."""
    try:
        return importlib.import_module(NAMESPACES[name])
    except ModuleNotFoundError as error:
        raise NotImplementedError(f"{name}: {error}") from error


def normal(rng, shape, dtype):
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


@dataclass(frozen=True)
class Step:
    """U, a step left rightᴴ of spectral norm 0.3, a gradient, and their shapes."""

    unitary: object
    left: object
    right: object
    gradient: object
    host: tuple


def step_v1(name, dtype, n, k):
    """Block-diagonal Haar matrix (blocks of 64 or fewer), Gaussian factors and gradient; seed 20260101."""
    xp = namespace(name)
    rng = np.random.default_rng(20260101)
    block = min(n, 64)
    unitary = np.zeros((n, n), dtype)
    for start in range(0, n, block):
        size = min(block, n - start)
        unitary[start : start + size, start : start + size] = lu.random_unitary(size, dtype=dtype, rng=rng)
    left, right = normal(rng, (n, k), dtype), normal(rng, (n, k), dtype)
    # ‖left rightᴴ‖ through the small triangular factors.
    small = np.linalg.qr(left)[1] @ adjoint(np.linalg.qr(right)[1])
    left = (left * (0.3 / np.linalg.norm(small, 2))).astype(dtype)
    gradient = normal(rng, (n, n), dtype) / np.float32(n)
    host = (unitary, left, right, gradient)
    return Step(*(xp.asarray(x) for x in host), host)


def matrix_v1(name, dtype, n):
    """Singular values j^-½ in blocks of 64 directions that Haar matrices mix; seed 20260102."""
    xp = namespace(name)
    rng = np.random.default_rng(20260102)
    block = min(n, 64)
    blocks = n // block
    s = np.arange(1.0, n + 1) ** -0.5
    matrix = np.zeros((n, n), dtype)
    for i in range(blocks):
        u, v = (lu.random_unitary(block, dtype=dtype, rng=rng) for _ in range(2))
        rows = slice(i * block, (i + 1) * block)
        matrix[rows, rows] = (u * s[i::blocks]) @ v
    return xp.asarray(matrix), s


def close(result, expected, bound):
    """Raise unless the relative Frobenius error is within the bound: an inaccurate result has no time."""
    result, expected = np.asarray(result), np.asarray(expected)
    error = np.linalg.norm(result - expected) / np.linalg.norm(expected)
    if not error <= bound:
        raise AssertionError(f"relative error {error:.2e}, more than {bound:.2e}")
