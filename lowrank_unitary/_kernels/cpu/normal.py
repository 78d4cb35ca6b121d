"""Normal numbers by counters, compiled; defined in _linalg/random.py."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)

_plain = numba.njit(nogil=True, cache=True)


@_plain
def _threefry(k0: Any, k1: Any, x0: Any, x1: Any) -> tuple[Any, Any]:
    # Every sum is reduced to 32 bits: numba's are wider.
    k2 = np.uint32(k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    x0, x1 = np.uint32(x0 + k0), np.uint32(x1 + k1)
    for group in range(5):
        for step in range(4):
            turn = _ROTATIONS[group % 2 * 4 + step]
            x0 = np.uint32(x0 + x1)
            x1 = np.uint32(np.uint32(x1 << np.uint32(turn)) | np.uint32(x1 >> np.uint32(32 - turn)))
            x1 = np.uint32(x1 ^ x0)
        k0, k1, k2 = k1, k2, k0
        x0, x1 = np.uint32(x0 + k0), np.uint32(x1 + k1 + np.uint32(group + 1))
    return x0, x1


@_plain
def normal(high: int, low: int, purpose: int, row: int, column: int, out: NDArray[Any]) -> None:
    """Entries from (row, column) on of a stack of matrices, real and imaginary part in the last axis."""
    stack, rows, columns, parts = out.shape
    for s in range(stack):
        k0, k1 = _threefry(np.uint32(high), np.uint32(low), np.uint32(purpose), np.uint32(s))
        for i in range(rows):
            for j in range(columns):
                x0, x1 = _threefry(k0, k1, np.uint32(row + i), np.uint32(column + j))
                radius = math.sqrt(-math.log((np.float64(x0 >> np.uint32(9)) + 0.5) * 2.0**-23))
                angle = 2.0 * math.pi * ((np.float64(x1 >> np.uint32(9)) + 0.5) * 2.0**-23)
                if parts == 1:
                    out[s, i, j, 0] = math.sqrt(2.0) * radius * math.cos(angle)
                else:
                    out[s, i, j, 0] = radius * math.cos(angle)
                    out[s, i, j, 1] = radius * math.sin(angle)
