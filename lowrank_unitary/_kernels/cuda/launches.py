"""Template instances and grids of the GPU kernels: arithmetic on sizes alone."""

from __future__ import annotations

from typing import NamedTuple

# 32-bit registers of a thread, of the 128 available with blocks of 512 threads: for its part of a row or of
# the sums; of several rows; and for its dot products.
_HELD, _ROWS, _DOTS = 64, 32, 16
_THREADS = 512
# Threads that occupy a multiprocessor.
_FULL = 1024
# Threads of the blocks that work on thin factors, by entries and by columns, and on small matrices.
_BY_ENTRIES, _BY_COLUMNS, _BY_MATRICES = 256, 512, 256
# Blocks along the second axis of a grid.
_BLOCKS = 65535
# Real thin columns in one dot product or sum; more of them in groups.
MOST_COLUMNS = 16
# Rows of a block of `add_products`.
_ADDED = 8


class Launch(NamedTuple):
    """One kernel: its name with template arguments, the blocks, the threads of each."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int


class _Rows(NamedTuple):
    """The division of a row among threads: `packs` packs of `pack` numbers for each."""

    threads: int
    pack: int
    packs: int
    words: int

    def at_once(self, *limits: tuple[int, int]) -> int:
        """The most rows, of 8, 4, 2 or 1, within limits (registers of a row, registers available)."""
        return next((rows for rows in (8, 4, 2) if all(rows * need <= most for need, most in limits)), 1)


def _rows(columns: int, itemsize: int, aligned: bool, most: int = _HELD) -> _Rows | None:
    """The division of rows of so many real numbers; None for rows that are too long."""
    pack = 16 // itemsize
    if columns % pack or not aligned:
        pack = 1
    needed = -(-columns // pack)
    threads = min(_THREADS, -(-needed // 32) * 32)
    packs = 1
    while packs * threads < needed:
        packs *= 2
    words = packs * pack * itemsize // 4
    return _Rows(threads, pack, packs, words) if words <= most else None


def name(kind: str, itemsize: int, *template: int | str) -> str:
    """The name of an instance for real numbers of so many bytes."""
    return f"{kind}<{', '.join(['float' if itemsize == 4 else 'double', *map(str, template)])}>"


def takes(rows: int, columns: int, width: int, itemsize: int) -> bool:
    """Whether the kernels take so many rows of real numbers, with so many thin columns."""
    return (
        width > 0
        and rows <= _BLOCKS
        and _rows(columns, itemsize, columns % (16 // itemsize) == 0) is not None
    )


def row_wise(
    kind: str, count: int, rows: int, columns: int, width: int, itemsize: int, aligned: bool
) -> Launch:
    """`rotate` or `look` for `count` matrices of so many rows."""
    share = _rows(columns, itemsize, aligned)
    assert share is not None
    at_once = share.at_once((share.words, _ROWS), (width * itemsize // 4, _DOTS))
    kernel = name(kind, itemsize, share.pack, share.packs, at_once, width)
    return Launch(kernel, (count, -(-rows // at_once), 1), share.threads)


def gathering(
    count: int,
    rows: int,
    columns: int,
    given: int,
    made: int,
    itemsize: int,
    aligned: bool,
    processors: int,
) -> tuple[Launch, int] | None:
    """`gather` and the rows of a slab; None where registers do not hold both rows and sums for the probes."""
    # Every multiprocessor gets as many slabs as occupy it, or more of small matrices.
    width = given + made
    share = _rows(columns, itemsize, aligned, max(1, _HELD // width) if made else _HELD)
    if share is None:
        return None
    packs = share.packs
    while packs > 1 and width * packs * share.pack * itemsize // 4 > _HELD:
        packs //= 2
    words = packs * share.pack * itemsize // 4
    weights = width * itemsize // 4
    at_once = share.at_once((words + weights, _ROWS + _DOTS), (max(1, made) * itemsize // 4, _DOTS))
    pieces = -(-columns // (share.pack * share.threads * packs))
    blocks = processors * max(1, _FULL // share.threads)
    slabs = max(1, min(blocks // (count * pieces), -(-rows // (4 * at_once))))
    height = -(-rows // slabs)
    kernel = name("gather", itemsize, share.pack, packs, at_once, given, made)
    return Launch(kernel, (count, -(-rows // height), pieces), share.threads), height


def adding(count: int, size: int, itemsize: int) -> Launch:
    """`add_slabs` for `count` times `size` numbers."""
    return Launch(name("add_slabs", itemsize), (count, -(-size // 256), 1), 256)


def groups(width: int) -> list[tuple[int, int]]:
    """First column and number of columns of every group."""
    return [(first, min(MOST_COLUMNS, width - first)) for first in range(0, width, MOST_COLUMNS)]


def changing(count: int, rows: int, columns: int, itemsize: int, aligned: bool) -> Launch:
    share = _rows(columns, itemsize, aligned)
    assert share is not None
    pieces = -(-columns // (share.pack * _BY_ENTRIES))
    kernel = name("add_products", itemsize, share.pack, _ADDED)
    return Launch(kernel, (count, -(-rows // _ADDED), pieces), _BY_ENTRIES)


def entry_wise(
    kind: str, count: int, n: int, itemsize: int, *template: int | str, columns: int = 1
) -> Launch:
    """One thread for every entry of a column of thin factors, or of each of them."""
    blocks = min(_BLOCKS, -(-n // _BY_ENTRIES))
    return Launch(name(kind, itemsize, *template), (count, blocks, columns), _BY_ENTRIES)


def warp_wise(kind: str, count: int, size: int, itemsize: int, parts: int) -> Launch:
    """One warp for every entry of a result."""
    blocks = min(_BLOCKS, -(-size * 32 // _BY_ENTRIES))
    return Launch(name(kind, itemsize, parts), (count, blocks, 1), _BY_ENTRIES)


def column_wise(kind: str, count: int, columns: int, itemsize: int, *template: int | str) -> Launch:
    """One block for every column."""
    return Launch(name(kind, itemsize, *template), (count, columns, 1), _BY_COLUMNS)


def inner_products(count: int, columns: int, parts: int) -> Launch:
    """`gram`: one block for every pair of columns."""
    return Launch(f"gram<{parts}>", (count, columns, columns), _BY_COLUMNS)


def matrix_wise(kernel: str, count: int) -> Launch:
    """One block for every matrix."""
    return Launch(kernel, (count, 1, 1), _BY_MATRICES)
