"""The two traversals of cupy matrices by kernels that are compiled on first use.

Nothing here waits for the device, and everything runs on cupy's current stream.
"""

from __future__ import annotations

import functools
import importlib.resources
from typing import Any

from . import _launches
from ._launches import Launch
from ._real import columns_of, dual_rows, numbers_in, real_rows

Array = Any


def apply_to(matrix: Array, columns: int) -> bool:
    """Whether the kernels take these matrices with so many thin columns; else the generic line does."""
    numbers = numbers_in(matrix)
    return (
        matrix.dtype.char in "fdFD"
        and matrix.flags.c_contiguous
        and matrix.size > 0
        and _launches.takes(
            matrix.shape[-2], matrix.shape[-1] * numbers, columns * numbers, matrix.dtype.itemsize // numbers
        )
    )


def adjoint_product_rows(matrix: Array, thin: Array, probes: Array | None = None) -> Array:
    """matrixᴴ @ [thin, matrix @ probes]: one read of the matrices, or two where the sums need the room."""
    xp = _cupy()
    real, numbers = real_rows(xp, matrix), numbers_in(matrix)
    count, rows, columns = real.shape
    given = thin.shape[-1] * numbers
    made = 0 if probes is None else probes.shape[-1] * numbers
    weights = real_rows(xp, thin)
    looked = weights if probes is None else dual_rows(xp, probes)
    aligned = _aligned(real, looked)
    plan = _launches.gathering(count, rows, columns, given, made, real.dtype.itemsize, aligned, _processors())
    if plan is None:
        seen = product_rows(matrix, probes)
        return adjoint_product_rows(matrix, xp.concatenate([thin, seen], axis=-1))
    launch, height = plan
    slabs, width = launch.grid[1], given + made
    partial = xp.empty((count, slabs, width, columns), real.dtype)
    run(launch, real, weights, looked, partial, rows, columns, height)
    total = partial[:, 0]
    if slabs > 1:
        total = xp.empty((count, width, columns), real.dtype)
        size = width * columns
        run(_launches.adding(count, size, real.dtype.itemsize), partial, total, slabs, size)
    return columns_of(xp, total, numbers, (*matrix.shape[:-2], matrix.shape[-1], width // numbers))


def product_rows(matrix: Array, thin: Array) -> Array:
    """The products matrix @ thin; thin factors have the batch shape of the matrices."""
    xp = _cupy()
    real, left = real_rows(xp, matrix), dual_rows(xp, thin)
    out = xp.empty((*real.shape[:2], left.shape[1]), real.dtype)
    aligned = _aligned(real, left)
    run(_row_wise("look", real, left, aligned), real, left, out, *real.shape[1:])
    # The two parts of an entry lie side by side.
    return out.view(matrix.dtype).reshape(*matrix.shape[:-1], thin.shape[-1])


def rotate_rows_in_cache(matrix: Array, left: Array, right: Array, out: Array) -> None:
    """Write matrix + (matrix @ left) @ rightᴴ to `out`, which may be `matrix`: one read, one write."""
    xp = _cupy()
    real, real_out = real_rows(xp, matrix), real_rows(xp, out)
    before, after = dual_rows(xp, left), dual_rows(xp, right)
    aligned = _aligned(real, real_out, before, after)
    run(_row_wise("rotate", real, before, aligned), real, real_out, before, after, *real.shape[1:])


def run(launch: Launch, *arguments: Any) -> None:
    """One kernel on the current stream."""
    given = tuple(_cupy().int32(x) if isinstance(x, int) else x for x in arguments)
    _compiled(launch.kernel)(launch.grid, (launch.threads, 1, 1), given)


def source() -> str:
    """The text of the kernels."""
    return importlib.resources.files(__package__).joinpath("_traversals.cu").read_text(encoding="utf-8")


def _row_wise(kind: str, real: Array, thin: Array, aligned: bool) -> Launch:
    count, rows, columns = real.shape
    return _launches.row_wise(kind, count, rows, columns, thin.shape[1], real.dtype.itemsize, aligned)


def _aligned(*arrays: Array) -> bool:
    """Whether packs of 16 bytes may be read from where the arrays begin."""
    return all(_address(x) % 16 == 0 for x in arrays)


def _address(x: Array) -> int:
    return int(x.data.ptr)


@functools.cache
def _compiled(kernel: str) -> Any:
    module = _cupy().RawModule(code=source(), options=("-std=c++17",), name_expressions=(kernel,))
    return module.get_function(kernel)


def _processors() -> int:
    return int(_cupy().cuda.Device().attributes["MultiProcessorCount"])


@functools.cache
def _cupy() -> Any:
    import cupy

    return cupy
