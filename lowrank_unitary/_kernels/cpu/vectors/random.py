"""Random numbers by counters, compiled; defined in _linalg/random.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .basis import second_row
from .blocks import ONE, ZERO, Range
from .compiling import inner, outer

Floats = NDArray[Any]
Words = NDArray[np.uint32]
# The key, the purpose, and 1 for normal numbers, 0 for uniform ones.
Stream = tuple[int, int, int, int]

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)


@inner
def _threefry(k0: int, k1: int, words: Words, count: int) -> None:
    """The words of counters, (x0, x1) in two rows, in their place: round by round, which is vectorised."""
    x0, x1 = words[0], words[1]
    keys = (np.uint32(k0), np.uint32(k1), np.uint32(np.uint32(k0) ^ np.uint32(k1) ^ np.uint32(0x1BD11BDA)))
    for m in range(count):
        x0[m] += keys[0]
        x1[m] += keys[1]
    for step in range(20):
        turn = np.uint32(_ROTATIONS[step % 8])
        rest = np.uint32(32 - turn)
        for m in range(count):
            x0[m] += x1[m]
            x1[m] = ((x1[m] << turn) | (x1[m] >> rest)) ^ x0[m]
        if step % 4 == 3:
            group = step // 4 + 1
            k, more = keys[group % 3], np.uint32(keys[(group + 1) % 3] + np.uint32(group))
            for m in range(count):
                x0[m] += k
                x1[m] += more


@inner
def _fraction(word: Any) -> float:
    """The upper 23 bits as the middle of one of 2²³ intervals of [0, 1]."""
    return (np.float64(word >> np.uint32(9)) + 0.5) * 2.0**-23


@inner
def random_rows(
    stream: Stream, place: int, first: Range, parts: int, rows: Floats, start: int, count: int, words: Words
) -> None:
    """Columns of one matrix of a stack as rows (basis.py), from entry `first` on, of mean 0 and E|ω|² = 1."""
    high, low, purpose, normal = stream
    n = words.shape[1]
    words[0, 0], words[1, 0] = purpose, place
    _threefry(high, low, words, ONE)
    # Of one type with the first key, so as not to compile twice.
    k0: Any = np.int64(words[0, 0])
    k1: Any = np.int64(words[1, 0])
    wide = math.sqrt(12.0 / parts)
    for j in range(0, count, parts):
        row = rows[start + j]
        for m in range(n):
            words[0, m], words[1, m] = first[0] + m, first[1] + j // parts
        _threefry(k0, k1, words, n)
        for m in range(n):
            real, imag = _fraction(words[0, m]), _fraction(words[1, m])
            radius, angle = 0.0, 2.0 * math.pi * imag
            if normal:
                radius = math.sqrt(-2.0 / parts * math.log(real))
                real = radius * math.cos(angle)
            else:
                real = wide * (real - 0.5)
            row[parts * m] = real
            if parts == 2:
                row[2 * m + 1] = -radius * math.sin(angle) if normal else -wide * (imag - 0.5)
        if parts == 2:
            second_row(rows, start + j)


@outer
def random_stack(stream: Stream, first: Range, parts: int, stack: Floats, words: Words) -> None:
    """The same for every matrix of a stack."""
    for s in range(stack.shape[0]):
        random_rows(stream, s, first, parts, stack[s], ZERO, stack.shape[1], words)
