"""Seeded problems, and the namespaces that they are moved to.

Append only: a changed problem is a new one with a new name and seed, or old and new results would mix.
"""

import contextlib
import ctypes
import functools
import importlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

import lowrank_unitary as lu

try:
    from asv_runner.benchmarks.mark import SkipNotImplemented
except ModuleNotFoundError:  # on_device.py needs no asv

    class SkipNotImplemented(NotImplementedError):
        pass


# The quick profile takes a few minutes, the full one some hours.
FULL = os.environ.get("LOWRANK_UNITARY_PROFILE") == "full"
# "library" or "library:device"; what is not there is skipped, with the reason.
NAMESPACES = ["numpy", "torch", "jax", "cupy:cuda", "torch:cuda"] if FULL else ["numpy"]
# Both precisions, real and complex; in the quick profile for accuracy, times of the first alone. The names
# and the sizes are columns of the results: append only, too.
DTYPES = ["float32", "float64", "complex64", "complex128"] if FULL else ["float32", "complex128"]
SIZES = [64, 256, 1024, 4096, 8192] if FULL else [1024]
RANKS = [1, 4, 16, 64] if FULL else [1, 16]
# Of ratios, which take longer.
RATIO_DTYPES = DTYPES if FULL else ["float32"]
RATIO_SIZES = [1024, 2048, 4096, 8192] if FULL else [1024]
RATIO_RANKS = RANKS if FULL else [1]
PUBLISHED_SIZES = [128, 512, 2048, 4096, 8192] if FULL else [512]
DENSE_SIZES = [64, 256, 1024, 2048] if FULL else [256]
SMALL_SIZES = [16, 64, 128] if FULL else [64]
NAMES = ["namespace", "dtype", "n", "k"]

TIMED = [NAMESPACES, DTYPES if FULL else DTYPES[:1], SIZES, RANKS]
# Small enough for a dense definition in extended precision.
JUDGED = [NAMESPACES, DTYPES, [64], RANKS if FULL else RANKS[-1:]]
# Large enough for an n×n array to stand out from the interpreter.
WEIGHED = [
    NAMESPACES,
    DTYPES if FULL else DTYPES[:1],
    [1024, 8192] if FULL else [1024],
    RANKS if FULL else RANKS[-1:],
]

# Rows are filled a panel at a time: a temporary of the whole matrix would hide what is measured.
PANEL = 64


@dataclass(frozen=True)
class Namespace:
    """A library and a device."""

    library: str
    xp: Any
    device: str

    def array(self, host: np.ndarray) -> Any:
        if self.library == "torch":
            return self.xp.asarray(host, device=self.device or "cpu")
        if self.library == "jax":
            platform = self.device or "cpu"
            array = self.xp.asarray(host, device=importlib.import_module("jax").devices(platform)[0])
            if str(array.dtype) != str(host.dtype):
                raise SkipNotImplemented(f"JAX without x64 has no {host.dtype}")
            return array
        return self.xp.asarray(host)

    def wait(self, result: Any) -> Any:
        """Return the result once it is there: devices, and JAX everywhere, compute behind the call."""
        if self.library == "jax":
            return importlib.import_module("jax").block_until_ready(result)
        if self.library == "torch" and self.device.startswith("cuda"):
            self.xp.cuda.synchronize()
        if self.library == "cupy":
            self.xp.cuda.get_current_stream().synchronize()
        return result

    def host(self, x: Any) -> np.ndarray:
        if self.library == "torch":
            return x.cpu().resolve_conj().numpy()
        return x.get() if self.library == "cupy" else np.asarray(x)


@functools.cache
def has_cuda_driver() -> bool:
    """Whether CUDA can be asked for devices at all, which takes no import of a large library."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def namespace(name: str) -> Namespace:
    """The namespace of that name; without it the benchmark is skipped, with the reason."""
    library, _, device = name.partition(":")
    if device == "cuda" and not has_cuda_driver():
        raise SkipNotImplemented("there is no CUDA driver")
    try:
        xp = importlib.import_module("jax.numpy" if library == "jax" else library)
    except ModuleNotFoundError as error:
        raise SkipNotImplemented(f"{library} is not installed") from error
    missing = {
        "torch": lambda: device.startswith("cuda") and not xp.cuda.is_available(),
        "cupy": lambda: not xp.cuda.is_available(),
    }
    if library in missing and missing[library]():
        raise SkipNotImplemented(f"{library} finds no CUDA device")
    return Namespace(library, xp, device)


def load_kernels(n: int) -> None:
    """Load numba where a large matrix would: else its 100 MB count as those of whatever runs first."""
    if n >= 1024:
        with contextlib.suppress(ImportError):
            importlib.import_module("numba")


@dataclass
class Step:
    """U, a step left rightᴴ of spectral norm 0.3, a gradient where asked for, and their namespace."""

    space: Namespace
    unitary: Any
    left: Any
    right: Any
    gradient: Any = None


def step_v1(name: str, dtype: str, n: int, k: int, *, gradient: bool = False) -> Step:
    """Block-diagonal Haar matrix (blocks of 64), Gaussian factors and gradient; seed 20260101."""
    space = namespace(name)
    load_kernels(n)
    rng = np.random.default_rng(20260101)
    unitary = np.zeros((n, n), dtype)
    for start in range(0, n, PANEL):
        block = min(PANEL, n - start)
        rows = slice(start, start + block)
        unitary[rows, rows] = lu.random_unitary(block, dtype=dtype, rng=rng)
    left, right = _normal(rng, (n, k), dtype), _normal(rng, (n, k), dtype)
    # ‖left rightᴴ‖ through the small triangular factors.
    small = np.linalg.qr(left)[1] @ np.conj(np.linalg.qr(right)[1].T)
    left *= 0.3 / np.linalg.norm(small, 2)
    step = Step(space, *(space.array(x) for x in (unitary, left, right)))
    if gradient:
        step.gradient = space.array(_normal(rng, (n, n), dtype, 1 / n))
    return step


@dataclass
class Matrix:
    """A matrix with known singular values, largest first."""

    space: Namespace
    matrix: Any
    singular_values: np.ndarray


def matrix_v1(name: str, dtype: str, n: int) -> Matrix:
    """Singular values j^-½, dealt out to blocks of 64 rows that Haar matrices mix; seed 20260102."""
    space = namespace(name)
    load_kernels(n)
    rng = np.random.default_rng(20260102)
    s = np.arange(1.0, n + 1) ** -0.5
    matrix = np.zeros((n, n), dtype)
    blocks = n // PANEL
    for i in range(blocks):
        u, v = (lu.random_unitary(PANEL, dtype=dtype, rng=rng) for _ in range(2))
        rows = slice(i * PANEL, (i + 1) * PANEL)
        matrix[rows, rows] = (u * s[i::blocks]) @ v
    return Matrix(space, space.array(matrix), s)


def disturbed_v1(name: str, dtype: str, n: int) -> Step:
    """The U of step_v1 with one more low-rank term, of Frobenius norm 1e-2; seed 20260103."""
    step = step_v1(name, dtype, n, 1)
    rng = np.random.default_rng(20260103)
    a, b = _normal(rng, (n, 8), dtype), _normal(rng, (n, 8), dtype)
    a, b = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    unitary = step.space.host(step.unitary).copy()
    for start in range(0, n, PANEL):
        rows = slice(start, start + PANEL)
        unitary[rows] += np.asarray(1e-2 / 8**0.5 * (a[rows] @ np.conj(b.T)), dtype)
    step.unitary = step.space.array(unitary)
    return step


@dataclass
class Factors:
    """A gradient in thin factors, the same in the body frame, and two matrices to be moved."""

    space: Namespace
    unitary: Any
    plain: Any
    factors: Any
    body_factors: Any


def factors_v1(name: str, dtype: str, n: int, m: int) -> Factors:
    """The U of step_v1 and m columns that fall off like 1/j; seed 20260104."""
    step = step_v1(name, dtype, n, 1)
    rng = np.random.default_rng(20260104)
    left, right = _normal(rng, (n, m), dtype), _normal(rng, (n, m), dtype)
    left /= np.arange(1, m + 1, dtype=left.real.dtype)
    known = np.conj(step.space.host(step.unitary).T) @ left
    left, right, known = (step.space.array(x) for x in (left, right, known))
    plain = step.space.array(step.space.host(step.unitary).copy())
    return Factors(
        step.space, step.unitary, plain, lu.LowRankFactors(left, right), lu.BodyFactors(known, right)
    )


def stack_v1(name: str, dtype: str, n: int, count: int) -> Step:
    """Haar matrices, and for each Gaussian factors of a step of rank one; seed 20260107."""
    space = namespace(name)
    rng = np.random.default_rng(20260107)
    unitary = lu.random_unitary(n, dtype=np.dtype(dtype), batch=(count,), rng=rng)
    left, right = (_normal(rng, (count * n, 1), dtype).reshape(count, n, 1) for _ in range(2))
    left *= 0.3 / (np.linalg.norm(left, axis=1, keepdims=True) * np.linalg.norm(right, axis=1, keepdims=True))
    return Step(space, *(space.array(x) for x in (unitary, left, right)))


def _normal(rng: np.random.Generator, shape: tuple[int, int], dtype: str, scale: float = 1.0) -> np.ndarray:
    x = np.empty(shape, dtype)
    for start in range(0, shape[0], PANEL):
        rows = x[start : start + PANEL]
        rows.real = scale * rng.standard_normal(rows.shape)
        if x.dtype.kind == "c":
            rows.imag = scale * rng.standard_normal(rows.shape)
    return x
