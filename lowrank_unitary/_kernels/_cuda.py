"""Steps of matrices on a CUDA device, cupy's or torch's, by kernels that are compiled on first use.

Nothing here waits for the device. Everything runs on the current stream of the library that the arrays come
from, in memory of that library, so that its streams, its graphs and its allocator know of it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import importlib.util
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import _launches
from ._launches import Launch
from ._rows import allowed

Array = Any

# What moves U, as the kernels know it.
KINDS = ("geodesic", "cayley", "polar")
# Columns of a step, and probes, up to which one block makes the core.
_MOST_RANK = 16
# Columns up to which one block makes a basis, or eigenvectors, and operations up to which it makes a basis.
_MOST_COLUMNS, _MOST_WORK = 72, 1 << 23
# Thin columns, as real ones, beyond which a library that reads the matrix once takes over.
_MOST_LOOKED = 32
# Rows up to which one block moves a whole matrix, which it finds in the cache again.
_SMALL = 128
_TEXTS = ("_traversals.cu", "_thin.cu", "_rank_one.cu", "_core.cu", "_decompositions.cu")
_SINGLE, _DTYPES = ("float32", "complex64"), ("float32", "complex64", "float64", "complex128")


@functools.cache
def active() -> bool:
    """Whether cupy is installed and finds a CUDA device, and the environment does not turn kernels off."""
    if not allowed() or importlib.util.find_spec("cupy") is None:
        return False
    try:
        cuda = _cupy().cuda
    except ImportError:
        # Built for another version of CUDA: torch may do without it.
        return False
    # Warps of other makers have 64 threads.
    return bool(cuda.is_available()) and not cuda.runtime.is_hip


def apply_to(matrix: Array, columns: int) -> bool:
    """Whether the kernels take these matrices with so many thin columns; else the generic line does."""
    width = columns * _parts(matrix)
    return (width <= _MOST_LOOKED or _is_recorded(matrix)) and _takes(matrix, width)


def steps_apply_to(matrix: Array, rank: int, probes: int) -> bool:
    """Whether whole steps do."""
    return 0 < rank <= _MOST_RANK and probes <= _MOST_RANK and _takes(matrix, 1)


def _takes(matrix: Array, width: int) -> bool:
    if _dtype(matrix) not in _DTYPES or 0 in matrix.shape:
        return False
    rows, columns = matrix.shape[-2], matrix.shape[-1] * _parts(matrix)
    return _launches.takes(rows, columns, width, _itemsize(matrix)) and _is_contiguous(matrix)


def share_memory(x: Array, y: Array) -> bool:
    """Whether two arrays may share memory."""
    if _is_torch(x):
        return bool(x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr())
    return bool(_cupy().may_share_memory(x, y))


def copied(x: Array) -> Array:
    """A copy."""
    return x.clone() if _is_torch(x) else x.copy()


def empty_like(matrix: Array) -> Array:
    """An array for a result, as `matrix` is."""
    return _empty(matrix, tuple(matrix.shape), _dtype(matrix))


def adjoint_product_rows(matrix: Array, thin: Array, probes: Array | None = None) -> Array:
    """matrixᴴ @ [thin, matrix @ probes]: one read of the matrices, or two where the sums need the room."""
    with _device_of(matrix):
        total, width = _sums(matrix, _contiguous(thin), None if probes is None else _contiguous(probes))
        count, n = math.prod(matrix.shape[:-2]), matrix.shape[-1]
        out = _empty(matrix, (*matrix.shape[:-2], n, width), _dtype(matrix))
        run(_entry_wise("collect", matrix, count, n), total, out, n, width)
        return out


def product_rows(matrix: Array, thin: Array) -> Array:
    """The products matrix @ thin; thin factors have the batch shape of the matrices."""
    with _device_of(matrix):
        out = _empty(matrix, (*matrix.shape[:-1], thin.shape[-1]), _dtype(matrix))
        # The two parts of an entry lie side by side.
        _look(matrix, _laid_out(_contiguous(thin)), out)
        return out


def thin_product(left: Array, right: Array, *, adjoint: bool = False) -> Array:
    """The products left @ right of thin or small matrices, or leftᴴ @ right, of one dtype and batch shape."""
    with _device_of(left):
        left, right = _contiguous(left), _contiguous(right)
        rows, inner = left.shape[-2:][::-1] if adjoint else left.shape[-2:]
        count, columns = math.prod(left.shape[:-2]), right.shape[-1]
        out = _empty(left, (*left.shape[:-2], rows, columns), _dtype(left))
        if 0 not in out.shape:
            launch = _launches.warp_wise("thin_product", count, rows * columns, _itemsize(left), _parts(left))
            run(launch, left, right, out, rows, inner, columns, int(adjoint))
        return out


def rotate_rows_in_cache(matrix: Array, left: Array, right: Array, out: Array) -> None:
    """Write matrix + (matrix @ left) @ rightᴴ to `out`, which may be `matrix`: one read, one write."""
    with _device_of(matrix):
        _rotate(matrix, _laid_out(_contiguous(left)), _laid_out(_contiguous(right)), out)


def low_rank_step(
    matrix: Array, left: Array, right: Array, probes: Array | None, kind: str, out: Array
) -> None:
    """Move matrices by steps of any rank, healed along orthonormal probes, into `out`, which may be `matrix`.

    All thin factors have the dtype and the batch shape of the matrices.
    """
    count, n = math.prod(matrix.shape[:-2]), matrix.shape[-1]
    k, p = left.shape[-1], 0 if probes is None else probes.shape[-1]
    parts, itemsize, code = _parts(matrix), _itemsize(matrix), KINDS.index(kind)
    with _device_of(matrix):
        left, right = _contiguous(left), _contiguous(right)
        z = right if probes is None else _contiguous(probes)
        whole = k == 1 and p <= 1
        if whole and n <= _SMALL:
            before, after = _rows_for(matrix, 2 * (1 + p))
            launch = _launches.matrix_wise(_launches.name("step_small", itemsize, parts), count)
            run(
                launch, matrix, out, left, right, z, _double(matrix, (count, 4, n)), before, after, n, p, code
            )
            return
        scaled, power = empty_like(left), _empty(matrix, (count, k), "float64")
        run(_launches.column_wise("scale_columns", count, k, itemsize, parts), left, scaled, power, n, k)
        total, _ = _sums(matrix, scaled, None if probes is None else z)
        if whole:
            before, after = _rows_for(matrix, 2 * (1 + p))
            launch = _launches.column_wise("turn", count, 1, itemsize, parts)
            columns = _double(matrix, (count, 4, n))
            run(launch, total, power, right, z, columns, before, after, n, p, code)
        else:
            before, after = _core(matrix, total, power, right, z, (n, k, p), code, rows=True)
        _rotate(matrix, before, after, out)


def rotation(left: Array, right: Array, kind: str) -> tuple[Array, Array]:
    """The rotation I + L Rᴴ of body factors (…, n, k) of any rank, L and R (…, n, 2k)."""
    n, k = left.shape[-2:]
    with _device_of(left):
        left, right = _contiguous(left), _contiguous(right)
        return _core(left, left, None, right, right, (n, k, 0), KINDS.index(kind), rows=False)


def decompositions_apply_to(x: Array, columns: int) -> bool:
    """Whether the kernels decompose thin or small matrices with so many columns."""
    if _dtype(x) not in _DTYPES or 0 in x.shape or not 0 < columns <= min(_MOST_COLUMNS, x.shape[-2]):
        return False
    return bool(x.shape[-2] * columns**2 <= _MOST_WORK)


def orthonormal_columns(x: Array) -> Array:
    """Q with orthonormal columns, the first j of which span the first j of x, for any rank; NaN for NaN."""
    (n, width), count = x.shape[-2:], math.prod(x.shape[:-2])
    with _device_of(x):
        x, out = _contiguous(x), empty_like(x)
        columns, products = _double(x, (count, width, n)), _double(x, (count, width))
        launch = _launches.column_wise("orthonormalise", count, 1, _itemsize(x), _parts(x))
        run(launch, x, out, columns, products, n, width)
        return out


def hermitian_eigen(x: Array) -> tuple[Array, Array]:
    """Eigenvalues in ascending order and eigenvectors of Hermitian matrices; NaN for NaN."""
    m, count = x.shape[-1], math.prod(x.shape[:-2])
    with _device_of(x):
        x, vectors = _contiguous(x), empty_like(x)
        values, room = _empty(x, tuple(x.shape[:-1]), _real(x)), _double(x, (count, m * (2 * m + 1)))
        kernel = _launches.name("hermitian_eigen", _itemsize(x), _parts(x))
        run(_launches.matrix_wise(kernel, count), x, values, vectors, room, m)
        return values, vectors


def normal_numbers(key: tuple[Any, Any] | Array, purpose: int, first: tuple[int, int], out: Array) -> None:
    """Fill matrices on a device, each from its stream of the key: two words, or an array of them."""
    with _device_of(out):
        (rows, columns), count = out.shape[-2:], math.prod(out.shape[:-2])
        if count * rows * columns == 0:
            return
        launch = _entry_wise("normal", out, count, rows * columns)
        words = (None, *map(_signed, key)) if isinstance(key, tuple) else (key, 0, 0)
        run(launch, out, *words, purpose, *first, rows, columns)


def _core(
    like: Array,
    pulled: Array,
    power: Array | None,
    right: Array,
    probes: Array,
    sizes: tuple[int, int, int],
    kind: int,
    *,
    rows: bool,
) -> tuple[Array, Array]:
    """L and R from c and the columns beside it, as rows from the sums of a gathering, or as thin factors."""
    n, k, p = sizes
    width, parts, itemsize = 2 * (k + p), _parts(like), _itemsize(like)
    count = math.prod(like.shape[:-2])
    flag = str(rows).lower()
    columns, exponents = _double(like, (count, width, n)), _empty(like, (count, width), "int32")
    launch = _launches.column_wise("assemble", count, width, itemsize, parts, flag)
    run(launch, pulled, power, right, probes, columns, exponents, n, k, p)
    G, N = (_double(like, (count, width, width)) for _ in range(2))
    run(_launches.inner_products(count, width, parts), columns, G, n)
    room, scales = _double(like, (count, 18, width, width)), _empty(like, (count, width), "float64")
    run(_launches.matrix_wise(f"core<{parts}>", count), G, exponents, N, scales, room, k, p, kind)
    if rows:
        before, after = _rows_for(like, width)
    else:
        shape = (*like.shape[:-2], n, width)
        before, after = (_empty(like, shape, _dtype(like)) for _ in range(2))
    launch = _launches.entry_wise("spread", count, n, itemsize, parts, flag, columns=width)
    run(launch, columns, scales, N, before, after, n, width)
    return before, after


def _sums(matrix: Array, thin: Array, probes: Array | None) -> tuple[Array, int]:
    """Real rows with the sums Σ_i weight · row i, and how many columns they stand for."""
    count, rows, columns = _as_rows(matrix)
    parts, itemsize = _parts(matrix), _itemsize(matrix)
    given, made = thin.shape[-1] * parts, 0 if probes is None else probes.shape[-1] * parts
    looked = thin if probes is None else _laid_out(probes)
    plan = None
    if given + made <= _launches.MOST_COLUMNS:
        plan = _gathering(matrix, looked, given, made)
    if plan is None and probes is not None:
        return _sums(matrix, _beside(thin, product_rows(matrix, probes)), None)
    width = given + made
    total = _empty(matrix, (count, width, columns), _real(matrix))
    for first, some in [(0, given)] if made else _launches.groups(given):
        launch, height = plan or _gathering(matrix, looked, some, 0)
        slabs, size = launch.grid[1], (some + made) * columns
        partial = (
            total
            if slabs == 1 and some + made == width
            else _empty(matrix, (count, slabs, size), _real(matrix))
        )
        run(launch, matrix, thin, looked, partial, rows, columns, height, first, given)
        if partial is not total:
            launch = _launches.adding(count, size, itemsize)
            run(launch, partial, total, slabs, size, first * columns, width * columns)
    return total, width // parts


def _gathering(matrix: Array, looked: Array, given: int, made: int) -> Any:
    sizes = (*_as_rows(matrix), given, made, _itemsize(matrix))
    return _launches.gathering(*sizes, _aligned(matrix, looked), _processors(_index(matrix)))


def _look(matrix: Array, left: Array, out: Array) -> None:
    """Products of the rows with laid out thin factors, all of which are read for some of these at a time."""
    count, rows, columns = _as_rows(matrix)
    width, aligned = left.shape[1], _aligned(matrix, left)
    for first, some in _launches.groups(width):
        launch = _launches.row_wise("look", count, rows, columns, some, _itemsize(matrix), aligned)
        run(launch, matrix, left, out, rows, columns, first, width)


def _rotate(matrix: Array, before: Array, after: Array, out: Array) -> None:
    """Rows of the matrices by laid out thin factors."""
    count, rows, columns = _as_rows(matrix)
    width, itemsize = before.shape[1], _itemsize(matrix)
    aligned = _aligned(matrix, out, before, after)
    if width <= _launches.MOST_COLUMNS:
        launch = _launches.row_wise("rotate", count, rows, columns, width, itemsize, aligned)
        run(launch, matrix, out, before, after, rows, columns)
        return
    dots = _empty(matrix, (count, rows, width), _real(matrix))
    _look(matrix, before, dots)
    launch = _launches.changing(count, rows, columns, itemsize, aligned)
    run(launch, matrix, out, dots, after, rows, columns, width)


def run(launch: Launch, *arguments: Any) -> None:
    """One kernel on the current stream; arrays go by their addresses, and None is no array."""
    given = tuple(
        np.int32(x) if isinstance(x, int) else np.uint64(0 if x is None else _address(x)) for x in arguments
    )
    _compiled(launch.kernel)(launch.grid, (launch.threads, 1, 1), given)


def source() -> str:
    """The text of the kernels."""
    folder = importlib.resources.files(__package__)
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in _TEXTS)


@functools.cache
def _compiled(kernel: str) -> Any:
    module = _cupy().RawModule(code=source(), options=("-std=c++17",), name_expressions=(kernel,))
    return module.get_function(kernel)


@contextlib.contextmanager
def _device_of(x: Array) -> Iterator[None]:
    """The device of an array, and the current stream of its library there, as those of cupy."""
    if not _is_torch(x):
        with x.device:
            yield
        return
    import torch

    cupy, index = _cupy(), _index(x)
    stream = cupy.cuda.Stream.from_external(_Stream(torch.cuda.current_stream(index).cuda_stream))
    with cupy.cuda.Device(index), stream:
        yield


class _Stream:
    """A stream of another library, by the protocol for these."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


@functools.cache
def _processors(index: int) -> int:
    return int(_cupy().cuda.Device(index).attributes["MultiProcessorCount"])


@functools.cache
def _cupy() -> Any:
    import cupy

    return cupy


def _is_recorded(x: Array) -> bool:
    """Whether a graph of cupy is being recorded, in which it refuses products of its own."""
    return not _is_torch(x) and bool(_cupy().cuda.get_current_stream().is_capturing())


def _is_torch(x: Array) -> bool:
    return hasattr(x, "data_ptr")


def _index(x: Array) -> int:
    return int(x.device.index if _is_torch(x) else x.device.id)


def _dtype(x: Array) -> str:
    return str(x.dtype).removeprefix("torch.")


def _parts(x: Array) -> int:
    """Real numbers in an entry."""
    return 2 if _dtype(x).startswith("complex") else 1


def _itemsize(x: Array) -> int:
    """Bytes of a real number."""
    return 4 if _dtype(x) in _SINGLE else 8


def _real(x: Array) -> str:
    return "float32" if _dtype(x) in _SINGLE else "float64"


def _empty(like: Array, shape: tuple[int, ...], dtype: str) -> Array:
    """Memory of the library that `like` comes from, on its device."""
    if _is_torch(like):
        return like.new_empty(shape, dtype=getattr(_torch(), dtype))
    return _cupy().empty(shape, dtype)


def _double(like: Array, shape: tuple[int, ...]) -> Array:
    return _empty(like, shape, "complex128" if _parts(like) == 2 else "float64")


def _rows_for(like: Array, columns: int) -> tuple[Array, Array]:
    """Memory for two thin factors that are laid out."""
    parts, n = _parts(like), like.shape[-1]
    shape = (math.prod(like.shape[:-2]), columns * parts, n * parts)
    return _empty(like, shape, _real(like)), _empty(like, shape, _real(like))


def _laid_out(thin: Array) -> Array:
    """Real rows whose dot products with a row seen as real are the parts of row · column."""
    (n, width), count, parts = thin.shape[-2:], math.prod(thin.shape[:-2]), _parts(thin)
    rows = _empty(thin, (count, width * parts, n * parts), _real(thin))
    run(_entry_wise("lay_out", thin, count, n), thin, rows, n, width)
    return rows


def _entry_wise(kind: str, like: Array, count: int, n: int) -> Launch:
    return _launches.entry_wise(kind, count, n, _itemsize(like), _parts(like))


def _as_rows(matrix: Array) -> tuple[int, int, int]:
    """How many matrices, and their rows and columns seen as real."""
    return math.prod(matrix.shape[:-2]), matrix.shape[-2], matrix.shape[-1] * _parts(matrix)


def _beside(x: Array, y: Array) -> Array:
    return _torch().cat([x, y], dim=-1) if _is_torch(x) else _cupy().concatenate([x, y], axis=-1)


def _contiguous(x: Array) -> Array:
    return x.contiguous() if _is_torch(x) else _cupy().ascontiguousarray(x)


def _is_contiguous(x: Array) -> bool:
    return bool(x.is_contiguous() if _is_torch(x) else x.flags.c_contiguous)


def _aligned(*arrays: Array) -> bool:
    """Whether packs of 16 bytes may be read from where the arrays begin."""
    return all(_address(x) % 16 == 0 for x in arrays)


def _address(x: Array) -> int:
    return int(x.data_ptr() if _is_torch(x) else x.data.ptr)


def _signed(word: Any) -> int:
    return int(word) - (1 << 32) if int(word) >> 31 else int(word)


@functools.cache
def _torch() -> Any:
    import torch

    return torch
