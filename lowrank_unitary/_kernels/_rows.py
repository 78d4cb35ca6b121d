"""The two traversals of a row-major numpy matrix, by numba: compiled serially, run on row blocks by threads.

A complex row is seen as a real row of twice the length: complex arithmetic gets no fused multiply-add.
With w = u + iv, the product with w is a pair of real dot products, and the update by a multiple of w a
pair of real updates, so one real kernel with twice as many thin columns serves all four dtypes.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

# Real thin columns up to which the kernels beat BLAS on panels in cache.
_MOST_COLUMNS = 8
# Real entries of the matrix from which they do: smaller ones stay in cache, where BLAS is as fast.
_SMALLEST = 1 << 21


@functools.cache
def kernels_active() -> bool:
    """Whether numba is installed and the environment does not turn the kernels off."""
    if os.environ.get("LOWRANK_UNITARY_KERNELS", "").lower() in ("0", "off", "no"):
        return False
    return importlib.util.find_spec("numba") is not None


def apply_to(matrix: Floats, columns: int) -> bool:
    """Whether the kernels take this matrix with so many thin columns; else the generic line does."""
    parts = 2 if matrix.dtype.kind == "c" else 1
    return (
        matrix.ndim == 2
        and matrix.size * parts >= _SMALLEST
        and 0 < columns * parts <= _MOST_COLUMNS
        and bool(matrix.flags.c_contiguous)
        and matrix.dtype.isnative
        and kernels_active()
    )


def adjoint_product_rows(matrix: Floats, thin: Floats, probes: Floats | None = None) -> Floats:
    """matrixᴴ @ [thin, matrix @ probes] in one read of the matrix."""
    adjoint_kernel, _ = _compiled()
    rows = matrix.shape[0]
    real = _as_real(matrix)
    complex_data = matrix.dtype.kind == "c"
    given = np.concatenate([thin.real, thin.imag], axis=1) if complex_data else thin
    looked = np.empty((0, real.shape[1]), dtype=real.dtype)
    made = 0
    if probes is not None:
        looked = _dual_rows(probes.T) if complex_data else probes.T
        made = looked.shape[0]
        looked = np.ascontiguousarray(_even_columns(np.asarray(looked, dtype=real.dtype).T).T)
    k = given.shape[1]
    # In pairs: what fills up is zero, or the product with the zero probe that fills up.
    weights = np.zeros((rows, k + made + (k + made) % 2), dtype=real.dtype)
    weights[:, :k] = given
    blocks = _row_blocks(rows)
    parts = np.zeros((len(blocks), weights.shape[1], real.shape[1]), dtype=real.dtype)
    _run(
        [
            functools.partial(adjoint_kernel, real, weights, looked, k, part, *block)
            for part, block in zip(parts, blocks, strict=True)
        ]
    )
    total = parts.sum(axis=0)
    products = [_adjoint_parts(total[:k], thin.shape[1], matrix.dtype)]
    if probes is not None:
        products.append(_adjoint_parts(total[k:], probes.shape[1], matrix.dtype))
    return np.concatenate(products, axis=1)


def _adjoint_parts(total: Floats, columns: int, dtype: Any) -> Floats:
    """Columns of a product from its real rows: sums with the real and with the imaginary parts of weights."""
    if dtype.kind != "c":
        return total[:columns].T
    by_real, by_imag = total[:columns].T, total[columns : 2 * columns].T
    product = np.empty((total.shape[1] // 2, columns), dtype=dtype)
    product.real = by_real[0::2] + by_imag[1::2]
    product.imag = by_imag[0::2] - by_real[1::2]
    return product


def _dual_rows(rows: Floats) -> Floats:
    """Real rows whose dot products with a complex row seen as real are the parts of row · given row."""
    return np.concatenate([_as_real(np.conj(rows)), _as_real(1j * np.conj(rows))])


def rotate_rows_in_cache(matrix: Floats, left: Floats, right_adjoint: Floats, out: Floats) -> None:
    """Write matrix + (matrix @ left) @ right_adjoint to `out`, which may be `matrix`: one read, one write."""
    _, rotate_kernel = _compiled()
    real, real_out = _as_real(matrix), _as_real(out)
    left = left.T
    if matrix.dtype.kind == "c":
        # Row · left: dot products with (Re, −Im) and (Im, Re). Update: along v and i·v.
        left = _dual_rows(left)
        right_adjoint = np.concatenate([_as_real(right_adjoint), _as_real(1j * right_adjoint)])
    left = _even_columns(np.asarray(left, dtype=real.dtype).T).T
    right_adjoint = _even_columns(np.asarray(right_adjoint, dtype=real.dtype).T).T
    left, right_adjoint = np.ascontiguousarray(left), np.ascontiguousarray(right_adjoint)
    blocks = _row_blocks(real.shape[0])
    _run([functools.partial(rotate_kernel, real, left, right_adjoint, real_out, *block) for block in blocks])


def _as_real(x: Floats) -> Floats:
    """A row-major array with its complex entries as pairs of real ones."""
    x = np.ascontiguousarray(x)
    return x.view(x.real.dtype) if x.dtype.kind == "c" else x


def _even_columns(x: Floats) -> Floats:
    """The kernels take thin columns in pairs."""
    return x if x.shape[1] % 2 == 0 else np.concatenate([x, np.zeros_like(x[:, :1])], axis=1)


def _row_blocks(rows: int) -> list[tuple[int, int]]:
    threads = min(_threads(), rows)
    edges = [rows * i // threads for i in range(threads + 1)]
    return list(itertools.pairwise(edges))


def _run(tasks: list[Callable[[], None]]) -> None:
    """The first task on this thread, the others on the pool."""
    waiting = [_pool().submit(task) for task in tasks[1:]]
    tasks[0]()
    for task in waiting:
        task.result()


def _threads() -> int:
    """Number of CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _threads() - 1), thread_name_prefix="lowrank_unitary")


# A forked child has none of its parent's threads: it makes its own pool when it needs one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


@functools.cache
def _compiled() -> tuple[Callable[..., None], Callable[..., None]]:
    """The two kernels; numba is imported here, at the first large matrix."""
    from . import _numba

    return _numba.adjoint_kernel, _numba.rotate_kernel
