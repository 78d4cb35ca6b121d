"""The two traversals of row-major numpy matrices, and whole steps of rank one, by the compiled kernels.

A complex row is used as a real row of twice the length: complex arithmetic gets no fused multiply-add.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import UPDATES, allowed
from .real import columns_of, dual_rows, numbers_in, real_rows, stack
from .threads import ranges, run, thread_count

Floats = NDArray[Any]
Range = tuple[int, int]

share_memory, empty_like, copied = np.may_share_memory, np.empty_like, np.copy

# Real thin columns up to which the kernels beat BLAS.
_MOST_COLUMNS = 64
# Bytes of all matrices, times thin columns, from which a second thread pays: it wakes up in 60 to 100
# microseconds.
_PARALLEL = 1 << 24


@functools.cache
def active() -> bool:
    """Whether numba is installed, and the environment turns neither the kernels nor its compiler off."""
    if not allowed() or importlib.util.find_spec("numba") is None:
        return False
    return os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


def apply_to(matrix: Floats, columns: int) -> bool:
    """Whether the kernels take these matrices with so many thin columns."""
    return (
        0 < columns * numbers_in(matrix) <= _MOST_COLUMNS
        and matrix.dtype.char in "fdFD"
        and matrix.flags.c_contiguous
        and matrix.size > 0
        and matrix.dtype.isnative
        and active()
    )


def adjoint_product_rows(matrix: Floats, thin: Floats, probes: Floats | None = None) -> Floats:
    """matrixᴴ @ [thin, matrix @ probes] in one read of the matrices; thin factors have their batch shape."""
    real = real_rows(matrix)
    given, parts = thin.shape[-1], numbers_in(matrix)
    made = 0 if probes is None else probes.shape[-1]
    probe_rows = np.empty((len(real), 0, real.shape[2]), real.dtype) if probes is None else dual_rows(probes)
    weights = np.empty((len(real), real.shape[1], parts * (given + made)), real.dtype)
    weights[..., : parts * given] = real_rows(thin)
    threads = _threads_for(real, weights.shape[2])
    total = _sums(real, weights, probe_rows, parts * given, threads)
    return columns_of(total, parts, (*matrix.shape[:-2], matrix.shape[-1], given + made))


def product_rows(matrix: Floats, thin: Floats) -> Floats:
    """The products matrix @ thin; thin factors have the batch shape of the matrices."""
    look = _blocks().look
    real, left = real_rows(matrix), dual_rows(thin)
    dots = np.empty((*real.shape[:2], left.shape[1]), real.dtype)
    _divided(lambda where, rows: look(real, left, dots, where, rows), real, _threads_for(real, left.shape[1]))
    # The two parts of an entry are adjacent.
    return dots.view(matrix.dtype).reshape(*matrix.shape[:-1], thin.shape[-1])


def _sums(real: Floats, weights: Floats, probes: Floats, given: int, threads: int) -> Floats:
    """The sums of `gather`, with matrices or rows divided among threads."""
    gather = _blocks().gather
    count, rows, columns = real.shape
    if count >= threads:
        total = np.zeros((count, weights.shape[2], columns), real.dtype)
        run(
            lambda *piece: gather(real, weights, probes, given, total, piece, (0, rows)),
            ranges(count, threads),
        )
        return total
    pieces = ranges(rows, threads)
    places = {piece: place for place, piece in enumerate(pieces)}
    partial = np.zeros((len(pieces), count, weights.shape[2], columns), real.dtype)
    run(
        lambda *piece: gather(real, weights, probes, given, partial[places[piece]], (0, count), piece), pieces
    )
    return partial.sum(axis=0)


def _divided(task: Callable[[Range, Range], object], real: Floats, threads: int) -> None:
    """A task on ranges of matrices, or of their rows, divided among threads."""
    count, rows, _ = real.shape
    if count >= threads:
        run(lambda *piece: task(piece, (0, rows)), ranges(count, threads))
    else:
        run(lambda *piece: task((0, count), piece), ranges(rows, threads))


def rotate_rows_in_cache(matrix: Floats, left: Floats, right: Floats, out: Floats) -> None:
    """Write matrix + (matrix @ left) @ rightᴴ to `out`, which may be `matrix`: one read, one write."""
    real, real_out = real_rows(matrix), real_rows(out)
    _rotate(real, dual_rows(left), dual_rows(right), real_out, out is matrix)


def _rotate(real: Floats, left: Floats, right: Floats, out: Floats, in_place: bool) -> None:
    rotate = _blocks().rotate
    _divided(
        lambda where, rows: rotate(real, left, right, out, in_place, where, rows),
        real,
        _threads_for(real, left.shape[1]),
    )


def rank_one_rotation(left: Floats, right: Floats, update: str) -> tuple[Floats, Floats] | None:
    """The rotation of the body factors (…, n, 1), or None where they are out of range."""
    rank_one = _rank_one()
    c, b = (np.array(x[..., 0], np.complex128, order="C", ndmin=2) for x in (left, right))
    c, b = c.reshape(-1, c.shape[-1]), b.reshape(-1, b.shape[-1])
    before, after = np.empty((2, len(c), 2, c.shape[1]), np.complex128)
    if not rank_one.rotations(c, b, UPDATES.index(update), before, after):
        return None
    shape = (*left.shape[:-2], 2, left.shape[-2])
    thin = (x.reshape(shape).mT for x in (before, after))
    before, after = thin if left.dtype.kind == "c" else (x.real for x in thin)
    return before, after


def rank_one_step(
    matrix: Floats, left: Floats, right: Floats, probe: Floats | None, update: str, out: Floats
) -> bool:
    """Move matrices by steps of rank one, healed along one probe, into `out`, which may be `matrix`.

    False, and nothing is written, where the generic line must be used. Thin factors have the dtype and the
    batch shape of the matrices.
    """
    rank_one = _rank_one()
    in_place = out is matrix
    real = real_rows(matrix)
    real_out = real if in_place else real_rows(out)
    a, b = _columns(left), _columns(right)
    z = a[:, :, :0] if probe is None else _columns(probe)
    code = UPDATES.index(update)
    threads = _threads_for(real, 2 * (real.shape[2] // real.shape[1]))
    if threads == 1:
        return bool(rank_one.steps(real, a, b, z, code, real_out, in_place))
    if not rank_one.usable(a, b):
        return False
    if len(real) < threads:
        _step_by_rows(real, a, b, z, code, real_out, in_place, threads)
        return True

    def some(start: int, stop: int) -> None:
        part = slice(start, stop)
        rank_one.steps(real[part], a[part], b[part], z[part], code, real_out[part], in_place)

    run(some, ranges(len(real), threads))
    return True


def _step_by_rows(
    real: Floats,
    left: Floats,
    right: Floats,
    probe: Floats,
    update: int,
    out: Floats,
    in_place: bool,
    threads: int,
) -> None:
    """Every thread takes some of the rows of all matrices."""
    rank_one = _rank_one()
    count, n, columns = real.shape
    parts, made = columns // n, probe.shape[2]
    weights = np.empty((count, n, parts * (1 + made)), real.dtype)
    probes = np.empty((count, parts * made, columns), real.dtype)
    rank_one.weigh(left, probe, weights, probes)
    total = _sums(real, weights, probes, parts, threads)
    before, after = np.empty((2, count, 2 * parts * (1 + made), columns), real.dtype)
    rank_one.turn(total, left, right, probe, update, before, after)
    _rotate(real, before, after, out, in_place)


def _threads_for(real: Floats, columns: int) -> int:
    return thread_count() if real.nbytes * columns >= _PARALLEL else 1


def _columns(x: Floats) -> Floats:
    """A writeable stack of columns: for numba a read-only array has another type."""
    flags = x.flags
    if not (flags.c_contiguous and flags.writeable):
        x = x.copy()
    return x[None] if x.ndim == 2 else stack(x)


def normal_numbers(key: tuple[int, int], purpose: int, first: tuple[int, int], out: Floats) -> None:
    """Fill real or complex matrices (s, m, n), in double precision, each from its stream of the key."""
    _normal().normal(*key, purpose, *first, out.view(np.float64).reshape(*out.shape, numbers_in(out)))


# numba is imported at first use.
@functools.cache
def _blocks() -> Any:
    from . import blocks

    return blocks


@functools.cache
def _normal() -> Any:
    from . import normal

    return normal


@functools.cache
def _rank_one() -> Any:
    from . import rank_one

    return rank_one
