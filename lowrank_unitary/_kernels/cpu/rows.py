"""The two traversals of row-major numpy matrices, and whole steps of rank one, by the compiled kernels.

A complex row is used as a real row of twice the length: complex arithmetic gets no fused multiply-add.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import FACTORS, UPDATES, allowed
from .real import columns_of, columns_of_rows, dual_rows, numbers_in, real_rows, stack
from .threads import ranges, run, thread_count

Floats = NDArray[Any]
Range = tuple[int, int]

share_memory, copied = np.may_share_memory, np.copy
# Of a plain array, also for a memory map.
empty_like = functools.partial(np.empty_like, subok=False)

# Real thin columns up to which the kernels beat BLAS, and samples of a descent step.
_MOST_COLUMNS, _MOST_SAMPLES = 64, 160
# Products with the tangent of body factors beyond two, in a whole step: of a skew matrix half a power
# iteration, which gains more than further samples would.
MORE_PRODUCTS = 1
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


def descent_applies_to(matrix: Floats, gradient: Floats, samples: int) -> bool:
    """Whether the kernels take these arrays, of any layout, for a whole descent step."""
    if matrix.dtype.char not in "fdFD" or gradient.dtype is not matrix.dtype or not matrix.dtype.isnative:
        return False
    return 0 < samples <= _MOST_SAMPLES and matrix.size > 0 and gradient.size > 0 and active()


def adjoint_product_rows(matrix: Floats, thin: Floats, probes: Floats | None = None) -> Floats:
    """matrixᴴ @ [thin, matrix @ probes] in one read of the matrices; thin factors have their batch shape."""
    real = real_rows(matrix)
    parts = numbers_in(matrix)
    made = 0 if probes is None else probes.shape[-1]
    probe_rows = np.empty((len(real), 0, real.shape[2]), real.dtype) if probes is None else dual_rows(probes)
    columns = thin.shape[-1] + made
    total = _sums(real, real_rows(thin), probe_rows, _threads_for(real, parts * columns))
    return columns_of(total, parts, (*matrix.shape[:-2], matrix.shape[-1], columns))


def product_rows(matrix: Floats, thin: Floats) -> Floats:
    """The products matrix @ thin; thin factors have the batch shape of the matrices."""
    look = _compiled("vectors.blocks").look
    real, left = real_rows(matrix), dual_rows(thin)
    dots = np.empty((*real.shape[:2], left.shape[1]), real.dtype)
    _divided(lambda where, rows: look(real, left, dots, where, rows), real, _threads_for(real, left.shape[1]))
    # The two parts of an entry are adjacent.
    return dots.view(matrix.dtype).reshape(*matrix.shape[:-1], thin.shape[-1])


def _sums(real: Floats, weights: Floats, probes: Floats, threads: int) -> Floats:
    """The sums of `gather`, with matrices or rows divided among threads."""
    gather = _compiled("vectors.blocks").gather
    count, rows, columns = real.shape
    width = weights.shape[2] + probes.shape[1]
    if count >= threads:
        total = np.zeros((count, width, columns), real.dtype)
        run(
            lambda *piece: gather(real, weights, probes, total, _dots(real, width), piece, (0, rows)),
            ranges(count, threads),
        )
        return total
    pieces = ranges(rows, threads)
    places = {piece: place for place, piece in enumerate(pieces)}
    partial = np.zeros((len(pieces), count, width, columns), real.dtype)
    run(
        lambda *piece: gather(
            real, weights, probes, partial[places[piece]], _dots(real, width), (0, count), piece
        ),
        pieces,
    )
    return partial.sum(axis=0)


def _dots(real: Floats, width: int) -> Floats:
    """Memory for the dot products of a panel of rows."""
    return np.empty((_compiled("vectors.blocks").PANEL, width), real.dtype)


def _divided(task: Callable[[Range, Range], object], real: Floats, threads: int) -> None:
    """A task on ranges of matrices, or of their rows, divided among threads."""
    count, rows, _ = real.shape
    if count >= threads:
        run(lambda *piece: task(piece, (0, rows)), ranges(count, threads))
    else:
        run(lambda *piece: task((0, count), piece), ranges(rows, threads))


def rotate_rows_in_cache(
    matrix: Floats, left: Floats, right: Floats, out: Floats, outside: Floats | None = None
) -> None:
    """Write matrix + (matrix @ left + outside) @ rightᴴ to `out`, which may be `matrix`.

    One read, one write.
    """
    real, real_out = real_rows(matrix), real_rows(out)
    left, right = dual_rows(left), dual_rows(right)
    if outside is None:
        _rotate(real, left, right, real_out)
        return
    rotate, more, width = _compiled("vectors.blocks").rotate_and_add, real_rows(outside), left.shape[1]
    _divided(
        lambda where, rows: rotate(real, left, right, more, real_out, _dots(real, width), where, rows),
        real,
        _threads_for(real, width),
    )


def _rotate(real: Floats, left: Floats, right: Floats, out: Floats) -> None:
    rotate, width = _compiled("vectors.blocks").rotate, left.shape[1]
    _divided(
        lambda where, rows: rotate(real, left, right, out, _dots(real, width), where, rows),
        real,
        _threads_for(real, width),
    )


def rank_one_rotation(left: Floats, right: Floats, update: str) -> tuple[Floats, Floats] | None:
    """The rotation of the body factors (…, n, 1), or None where they are out of range."""
    rank_one = _compiled("steps.rank_one")
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
    rank_one = _compiled("steps.rank_one")
    real = real_rows(matrix)
    real_out = real if out is matrix else real_rows(out)
    a, b = _columns(left), _columns(right)
    z = a[:, :, :0] if probe is None else _columns(probe)
    code = UPDATES.index(update)
    threads = _threads_for(real, 2 * (real.shape[2] // real.shape[1]))
    if threads == 1:
        return bool(rank_one.steps(real, a, b, z, code, real_out))
    if not rank_one.usable(a, b):
        return False
    if len(real) < threads:
        _step_by_rows(real, a, b, z, code, real_out, threads)
        return True

    def some(start: int, stop: int) -> None:
        part = slice(start, stop)
        rank_one.steps(real[part], a[part], b[part], z[part], code, real_out[part])

    run(some, ranges(len(real), threads))
    return True


def _step_by_rows(
    real: Floats,
    left: Floats,
    right: Floats,
    probe: Floats,
    update: int,
    out: Floats,
    threads: int,
) -> None:
    """Every thread takes some of the rows of all matrices."""
    rank_one = _compiled("steps.rank_one")
    count, n, columns = real.shape
    parts, made = columns // n, probe.shape[2]
    weights = np.empty((count, n, parts), real.dtype)
    probes = np.empty((count, parts * made, columns), real.dtype)
    rank_one.weigh(left, probe, weights, probes)
    total = _sums(real, weights, probes, threads)
    before, after = np.empty((2, count, 2 * parts * (1 + made), columns), real.dtype)
    rank_one.turn(total, left, right, probe, update, before, after)
    _rotate(real, before, after, out)


def descent_step(
    matrix: Floats,
    gradient: Floats | tuple[Floats, Floats],
    sizes: Floats,
    key: tuple[int, int],
    counts: tuple[int, int, int],
    update: str,
    out: Floats,
) -> None:
    """Move matrices against their gradients by steps of these sizes into `out`, which may be `matrix`.

    Counts of samples, probes and columns of a step. All are of one dtype and batch shape. A gradient in body
    factors is a pair of them.
    """
    real = real_rows(matrix)
    moved = real if out is matrix else real_rows(out)
    parts = numbers_in(matrix)
    samples, probes, k = (parts * number for number in counts)
    numbers = (*key, parts, samples, probes, k, UPDATES.index(update))
    _descended(real, gradient, sizes, moved, numbers, MORE_PRODUCTS)


def _descended(
    real: Floats | None,
    gradient: Floats | tuple[Floats, Floats],
    sizes: Floats,
    out: Floats,
    numbers: tuple[int, ...],
    again: int,
) -> None:
    """The parts of a descent step, or of the sketch of a tangent; body factors have further products."""
    descent = _compiled("steps.descent")
    # Without a matrix to move there is only what is written.
    real, turned = out if real is None else real, 0
    if body := isinstance(gradient, tuple):
        left, right = gradient
        if left.mT.flags.c_contiguous and right.mT.flags.c_contiguous:
            front, slopes = real_rows(left.mT), real_rows(right.mT)
        else:
            front, slopes, turned = real_rows(left), real_rows(right), left.shape[-1]
    else:
        front, slopes = real, real_rows(gradient)
    step = _compiled("steps.rotation").Step(*numbers, int(body), again if body else 0, turned)
    stacks = (real, front, slopes, sizes, out)

    def parts_of(first: int, last: int, memory: Any, where: Range, rows: Range) -> None:
        descent.descend(stacks, tuple(step), memory, (first, last), where, rows)

    # Body factors are multiplied as a whole.
    products = () if body else (descent.FIRST_PRODUCT, descent.SECOND_PRODUCT)
    _divided_step(parts_of, products, descent.END, step, real, _threads_for(front, 2 * step.width))


def transport_step(
    matrix: Floats,
    left: Floats,
    right: Floats,
    probes: int,
    key: tuple[int, int],
    update: str,
    out: Floats,
) -> bool:
    """Move matrices by steps left @ rightᴴ into `out`, as descent_step.

    False, and nothing is written, where the generic line must be used.
    """
    transport = _compiled("steps.transport")
    real, weights, along = real_rows(matrix), real_rows(left), dual_rows(right)
    most = transport.LARGEST_POLAR if update == "polar" else transport.LARGEST
    if not transport.in_range(weights, most):
        return False
    if update == "polar" and not transport.in_range(real_rows(right), most):
        return False
    moved = real if out is matrix else real_rows(out)
    parts, width = numbers_in(matrix), along.shape[1]
    numbers = (*key, parts, width, parts * probes, width, UPDATES.index(update))
    step = _compiled("steps.rotation").Step(*numbers, 0, 0, 0)
    stacks = (real, weights, along, moved)

    def parts_of(first: int, last: int, memory: Any, where: Range, rows: Range) -> None:
        transport.transport(stacks, tuple(step), memory, (first, last), where, rows)

    _divided_step(parts_of, (transport.PRODUCT,), transport.END, step, real, _threads_for(real, width))
    return True


def tangent_factors(
    matrix: Floats, gradient: Floats, key: tuple[int, int], counts: tuple[int, int]
) -> tuple[Floats, Floats]:
    """C and Q of the sketched tangents of matrices and their gradients; counts of samples and columns."""
    return _factors(matrix, gradient, key, counts, 0)


def compressed_factors(
    left: Floats, right: Floats, key: tuple[int, int], counts: tuple[int, int], again: int
) -> tuple[Floats, Floats]:
    """C and Q of the sketched tangents skew(left rightᴴ), with so many products beyond two."""
    return _factors(left, (left, right), key, counts, again)


def best_columns(left: Floats, right: Floats, k: int) -> tuple[Floats, Floats]:
    """C and Q of the best k columns of the tangents skew(left rightᴴ), from all of theirs."""
    *batch, n, m = left.shape
    parts = numbers_in(left)
    step = _compiled("steps.rotation").Step(0, 0, parts, parts * m, 0, parts * k, FACTORS, 0, 0, 0)
    out = np.empty((math.prod(batch), 2 * parts * k, parts * n), left.real.dtype)
    memory = _compiled("steps.rotation").memory_for(step, n, out.dtype)
    _compiled("steps.columns").best_columns(dual_rows(left), dual_rows(right), out, tuple(step), memory)
    return _two_blocks(out, parts, (*batch, n))


def _factors(
    like: Floats, gradient: Any, key: tuple[int, int], counts: tuple[int, int], again: int
) -> tuple[Floats, Floats]:
    parts = numbers_in(like)
    samples, k = (parts * number for number in counts)
    *batch, n, _ = like.shape
    count = math.prod(batch)
    out = np.empty((count, 2 * k, parts * n), like.real.dtype)
    real = None if isinstance(gradient, tuple) else real_rows(like)
    _descended(real, gradient, np.ones(count), out, (*key, parts, samples, 0, k, FACTORS), again)
    return _two_blocks(out, parts, (*batch, n))


def _two_blocks(out: Floats, parts: int, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Thin columns from rows, those of C and of Q one after the other."""
    width = out.shape[1] // 2
    C, Q = (columns_of_rows(rows, parts) for rows in (out[:, :width], out[:, width:]))
    return C.reshape(*shape, -1), Q.reshape(*shape, -1)


def _divided_step(
    parts_of: Callable[[int, int, Any, Range, Range], None],
    products: tuple[int, ...],
    end: int,
    step: Any,
    real: Floats,
    threads: int,
) -> None:
    """All parts of a step, from 0 to `end`, with matrices or the rows of each divided among threads.

    `products` are the parts whose sums over rows are added up, and the last part moves the rows.
    """
    count, n = real.shape[:2]

    def memory() -> Any:
        return _compiled("steps.rotation").memory_for(step, real.shape[2] // step.parts, real.dtype)

    if count >= threads:
        run(lambda *where: parts_of(0, end, memory(), where, (0, n)), ranges(count, threads))
        return
    pieces = ranges(n, threads)
    memories = {piece: memory() for piece in pieces}
    main, *others = memories.values()
    total = _compiled("steps.rotation").rows_of_total(step)
    for s in range(count):
        where = (s, s + 1)

        def by_rows(part: int, where: Range = where) -> None:
            for other in others:
                other[0][:] = main[0]
            run(lambda *piece: parts_of(part, part + 1, memories[piece], where, piece), pieces)

        last = 0
        for product in products:
            parts_of(last, product, main, where, (0, n))
            by_rows(product)
            for other in others:
                main[0][total] += other[0][total]
            last = product + 1
        parts_of(last, end - 1, main, where, (0, n))
        by_rows(end - 1)


def _threads_for(real: Floats, columns: int) -> int:
    return thread_count() if real.nbytes * columns >= _PARALLEL else 1


def _columns(x: Floats) -> Floats:
    """A writeable stack of columns: for numba a read-only array has another type."""
    flags = x.flags
    if not (flags.c_contiguous and flags.writeable):
        x = x.copy()
    return x[None] if x.ndim == 2 else stack(x)


def random_numbers(
    key: tuple[int, int], purpose: int, first: tuple[int, int], normal: bool, out: Floats
) -> None:
    """Fill real or complex matrices (s, m, n), each from its stream of the key, normal or uniform."""
    parts = numbers_in(out)
    if not out.size:
        return
    stack, m, n = out.shape
    rows, words = np.empty((stack, parts * n, parts * m), out.real.dtype), np.empty((2, m), np.uint32)
    _compiled("vectors.random").random_stack((*key, purpose, int(normal)), first, parts, rows, words)
    out[:] = columns_of_rows(rows, parts)


# numba is imported at first use.
@functools.cache
def _compiled(name: str) -> Any:
    """A module of this folder."""
    return importlib.import_module(f".{name}", __package__)
