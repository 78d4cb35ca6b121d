"""Steps of matrices on a CUDA device, as chains of kernels without synchronisation."""

from __future__ import annotations

import math
from typing import Any

from .. import UPDATES
from . import arrays as device
from . import launches
from .launches import Launch

Array = Any

# Columns of a step, and probes, up to which one block computes the core.
_MOST_RANK = 16
# Columns up to which one block computes a basis or eigenvectors, and operations up to which it computes a
# basis.
_MOST_COLUMNS, _MOST_WORK = 72, 1 << 23
# Real thin columns beyond which a library, which reads the matrix once, is faster.
_MOST_LOOKED = 32
# Rows up to which one block moves a whole matrix, which stays in the cache.
_SMALL = 128


def apply_to(matrix: Array, columns: int) -> bool:
    width = columns * device.parts(matrix)
    return (width <= _MOST_LOOKED or device.is_recorded(matrix)) and _takes(matrix, width)


def steps_apply_to(matrix: Array, rank: int, probes: int) -> bool:
    """Whether they take whole steps."""
    return 0 < rank <= _MOST_RANK and probes <= _MOST_RANK and _takes(matrix, 1)


def _takes(matrix: Array, width: int) -> bool:
    if device.dtype(matrix) not in device.DTYPES or 0 in matrix.shape:
        return False
    rows, columns = matrix.shape[-2], matrix.shape[-1] * device.parts(matrix)
    return launches.takes(rows, columns, width, device.itemsize(matrix)) and device.is_contiguous(matrix)


def adjoint_product_rows(matrix: Array, thin: Array, probes: Array | None = None) -> Array:
    """matrixᴴ @ [thin, matrix @ probes]: one read of the matrices, or two where registers do not suffice."""
    with device.entered(matrix):
        total, width = _sums(
            matrix, device.contiguous(thin), None if probes is None else device.contiguous(probes)
        )
        count, n = math.prod(matrix.shape[:-2]), matrix.shape[-1]
        out = device.empty(matrix, (*matrix.shape[:-2], n, width), device.dtype(matrix))
        device.run(_entry_wise("collect", matrix, count, n), total, out, n, width)
        return out


def product_rows(matrix: Array, thin: Array) -> Array:
    with device.entered(matrix):
        out = device.empty(matrix, (*matrix.shape[:-1], thin.shape[-1]), device.dtype(matrix))
        # The two parts of an entry are adjacent.
        _look(matrix, _laid_out(device.contiguous(thin)), out)
        return out


def thin_product(left: Array, right: Array, *, adjoint: bool = False) -> Array:
    """The products left @ right of thin or small matrices, or leftᴴ @ right, of one dtype and batch shape."""
    with device.entered(left):
        left, right = device.contiguous(left), device.contiguous(right)
        rows, inner = left.shape[-2:][::-1] if adjoint else left.shape[-2:]
        count, columns = math.prod(left.shape[:-2]), right.shape[-1]
        out = device.empty(left, (*left.shape[:-2], rows, columns), device.dtype(left))
        if 0 not in out.shape:
            launch = launches.warp_wise(
                "thin_product", count, rows * columns, device.itemsize(left), device.parts(left)
            )
            device.run(launch, left, right, out, rows, inner, columns, int(adjoint))
        return out


def rotate_rows_in_cache(matrix: Array, left: Array, right: Array, out: Array) -> None:
    with device.entered(matrix):
        _rotate(matrix, _laid_out(device.contiguous(left)), _laid_out(device.contiguous(right)), out)


def low_rank_step(
    matrix: Array, left: Array, right: Array, probes: Array | None, update: str, out: Array
) -> None:
    """Move matrices by steps of any rank, healed along probes, into `out`, which may be `matrix`."""
    count, n = math.prod(matrix.shape[:-2]), matrix.shape[-1]
    k, p = left.shape[-1], 0 if probes is None else probes.shape[-1]
    parts, itemsize, code = device.parts(matrix), device.itemsize(matrix), UPDATES.index(update)
    with device.entered(matrix):
        left, right = device.contiguous(left), device.contiguous(right)
        z = right if probes is None else device.contiguous(probes)
        whole = k == 1 and p <= 1
        if whole and n <= _SMALL:
            before, after = _rows_for(matrix, 2 * (1 + p))
            launch = launches.matrix_wise(launches.name("step_small", itemsize, parts), count)
            columns = device.double(matrix, (count, 4, n))
            device.run(launch, matrix, out, left, right, z, columns, before, after, n, p, code)
            return
        scaled, power = device.empty_like(left), device.empty(matrix, (count, k), "float64")
        device.run(
            launches.column_wise("scale_columns", count, k, itemsize, parts), left, scaled, power, n, k
        )
        total, _ = _sums(matrix, scaled, None if probes is None else z)
        if whole:
            before, after = _rows_for(matrix, 2 * (1 + p))
            launch = launches.column_wise("turn", count, 1, itemsize, parts)
            columns = device.double(matrix, (count, 4, n))
            device.run(launch, total, power, right, z, columns, before, after, n, p, code)
        else:
            before, after = _core(matrix, total, power, right, z, (n, k, p), code, rows=True)
        _rotate(matrix, before, after, out)


def rotation(left: Array, right: Array, update: str) -> tuple[Array, Array]:
    """The rotation I + L Rᴴ of body factors (…, n, k) of any rank, L and R (…, n, 2k)."""
    n, k = left.shape[-2:]
    with device.entered(left):
        left, right = device.contiguous(left), device.contiguous(right)
        return _core(left, left, None, right, right, (n, k, 0), UPDATES.index(update), rows=False)


def decompositions_apply_to(x: Array, columns: int) -> bool:
    """Whether the kernels decompose thin or small matrices with so many columns."""
    if device.dtype(x) not in device.DTYPES or 0 in x.shape:
        return False
    n = x.shape[-2]
    return bool(0 < columns <= min(_MOST_COLUMNS, n) and n * columns**2 <= _MOST_WORK)


def orthonormal_columns(x: Array) -> Array:
    """Q with orthonormal columns, the first j of which span the first j of x, for any rank; NaN for NaN."""
    (n, width), count = x.shape[-2:], math.prod(x.shape[:-2])
    with device.entered(x):
        x, out = device.contiguous(x), device.empty_like(x)
        columns, products = device.double(x, (count, width, n)), device.double(x, (count, width))
        launch = launches.column_wise("orthonormalise", count, 1, device.itemsize(x), device.parts(x))
        device.run(launch, x, out, columns, products, n, width)
        return out


def hermitian_eigen(x: Array) -> tuple[Array, Array]:
    """Eigenvalues in ascending order and eigenvectors of Hermitian matrices; NaN for NaN."""
    m, count = x.shape[-1], math.prod(x.shape[:-2])
    with device.entered(x):
        x, vectors = device.contiguous(x), device.empty_like(x)
        values = device.empty(x, tuple(x.shape[:-1]), device.real(x))
        room = device.double(x, (count, m * (2 * m + 1)))
        kernel = launches.name("hermitian_eigen", device.itemsize(x), device.parts(x))
        device.run(launches.matrix_wise(kernel, count), x, values, vectors, room, m)
        return values, vectors


def random_numbers(
    key: tuple[Any, Any] | Array, purpose: int, first: tuple[int, int], normal: bool, out: Array
) -> None:
    """Fill matrices on a device, normal or uniform, by streams of the key: two words, or an array of them."""
    with device.entered(out):
        (rows, columns), count = out.shape[-2:], math.prod(out.shape[:-2])
        if count * rows * columns == 0:
            return
        launch = _entry_wise("random_numbers", out, count, rows * columns)
        words = (None, *map(_signed, key)) if isinstance(key, tuple) else (key, 0, 0)
        device.run(launch, out, *words, purpose, int(normal), *first, rows, columns)


def _core(
    like: Array,
    pulled: Array,
    power: Array | None,
    right: Array,
    probes: Array,
    sizes: tuple[int, int, int],
    update: int,
    *,
    rows: bool,
) -> tuple[Array, Array]:
    """L and R from c, b and the probes, as rows from the sums of `gather`, or as thin factors."""
    n, k, p = sizes
    width, parts, itemsize = 2 * (k + p), device.parts(like), device.itemsize(like)
    count = math.prod(like.shape[:-2])
    flag = str(rows).lower()
    columns, exponents = device.double(like, (count, width, n)), device.empty(like, (count, width), "int32")
    launch = launches.column_wise("assemble", count, width, itemsize, parts, flag)
    device.run(launch, pulled, power, right, probes, columns, exponents, n, k, p)
    G, N = (device.double(like, (count, width, width)) for _ in range(2))
    device.run(launches.inner_products(count, width, parts), columns, G, n)
    room = device.double(like, (count, 18, width, width))
    scales = device.empty(like, (count, width), "float64")
    device.run(launches.matrix_wise(f"core<{parts}>", count), G, exponents, N, scales, room, k, p, update)
    if rows:
        before, after = _rows_for(like, width)
    else:
        shape = (*like.shape[:-2], n, width)
        before, after = (device.empty(like, shape, device.dtype(like)) for _ in range(2))
    launch = launches.entry_wise("spread", count, n, itemsize, parts, flag, columns=width)
    device.run(launch, columns, scales, N, before, after, n, width)
    return before, after


def _sums(matrix: Array, thin: Array, probes: Array | None) -> tuple[Array, int]:
    """Real rows with the sums Σ_i weight · row i, and the number of their columns."""
    count, rows, columns = _as_rows(matrix)
    parts, itemsize = device.parts(matrix), device.itemsize(matrix)
    given, made = thin.shape[-1] * parts, 0 if probes is None else probes.shape[-1] * parts
    dual = thin if probes is None else _laid_out(probes)
    plan = None
    if given + made <= launches.MOST_COLUMNS:
        plan = _gathering(matrix, dual, given, made)
    if plan is None and probes is not None:
        return _sums(matrix, device.hstack(thin, product_rows(matrix, probes)), None)
    width = given + made
    total = device.empty(matrix, (count, width, columns), device.real(matrix))
    for first, some in [(0, given)] if made else launches.groups(given):
        launch, height = plan or _gathering(matrix, dual, some, 0)
        slabs, size = launch.grid[1], (some + made) * columns
        partial = (
            total
            if slabs == 1 and some + made == width
            else device.empty(matrix, (count, slabs, size), device.real(matrix))
        )
        device.run(launch, matrix, thin, dual, partial, rows, columns, height, first, given)
        if partial is not total:
            launch = launches.adding(count, size, itemsize)
            device.run(launch, partial, total, slabs, size, first * columns, width * columns)
    return total, width // parts


def _gathering(matrix: Array, dual: Array, given: int, made: int) -> Any:
    sizes = (*_as_rows(matrix), given, made, device.itemsize(matrix))
    return launches.gathering(*sizes, device.aligned(matrix, dual), device.processors(device.index(matrix)))


def _look(matrix: Array, left: Array, out: Array) -> None:
    """Products of the rows with laid out thin factors, by groups of columns."""
    count, rows, columns = _as_rows(matrix)
    width, aligned = left.shape[1], device.aligned(matrix, left)
    for first, some in launches.groups(width):
        launch = launches.row_wise("look", count, rows, columns, some, device.itemsize(matrix), aligned)
        device.run(launch, matrix, left, out, rows, columns, first, width)


def _rotate(matrix: Array, before: Array, after: Array, out: Array) -> None:
    """Change the rows of the matrices by laid out thin factors."""
    count, rows, columns = _as_rows(matrix)
    width, itemsize = before.shape[1], device.itemsize(matrix)
    aligned = device.aligned(matrix, out, before, after)
    if width <= launches.MOST_COLUMNS:
        launch = launches.row_wise("rotate", count, rows, columns, width, itemsize, aligned)
        device.run(launch, matrix, out, before, after, rows, columns)
        return
    dots = device.empty(matrix, (count, rows, width), device.real(matrix))
    _look(matrix, before, dots)
    launch = launches.changing(count, rows, columns, itemsize, aligned)
    device.run(launch, matrix, out, dots, after, rows, columns, width)


def _rows_for(like: Array, columns: int) -> tuple[Array, Array]:
    """Memory for two laid out thin factors."""
    parts, n = device.parts(like), like.shape[-1]
    shape = (math.prod(like.shape[:-2]), columns * parts, n * parts)
    return device.empty(like, shape, device.real(like)), device.empty(like, shape, device.real(like))


def _laid_out(thin: Array) -> Array:
    """Real rows whose dot products with a row read as real are the parts of row · column."""
    (n, width), count, parts = thin.shape[-2:], math.prod(thin.shape[:-2]), device.parts(thin)
    rows = device.empty(thin, (count, width * parts, n * parts), device.real(thin))
    device.run(_entry_wise("lay_out", thin, count, n), thin, rows, n, width)
    return rows


def _entry_wise(kind: str, like: Array, count: int, n: int) -> Launch:
    return launches.entry_wise(kind, count, n, device.itemsize(like), device.parts(like))


def _as_rows(matrix: Array) -> tuple[int, int, int]:
    """The number of matrices, their rows, and their columns as real ones."""
    return math.prod(matrix.shape[:-2]), matrix.shape[-2], matrix.shape[-1] * device.parts(matrix)


def _signed(word: Any) -> int:
    return int(word) - (1 << 32) if int(word) >> 31 else int(word)
