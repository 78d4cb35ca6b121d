"""The best columns of tangents in thin factors, compiled: C and Q of skew(left rightᴴ), for momentum.

[right, left] ──Gram–Schmidt──> basis and coordinates ──> T in the basis ──planes──> C and Q
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..vectors.basis import clear, copy
from ..vectors.blocks import ZERO
from ..vectors.compiling import outer
from .planes import planes
from .rotation import Memory, Step, turn, work_of
from .transport import make_tangent

Floats = NDArray[Any]


@outer
def best_columns(left: Floats, right: Floats, out: Floats, counts: tuple[int, ...], memory: Memory) -> None:
    """The rows of C and then those of Q for every matrix of a stack, from the rows of its factors."""
    step = Step(*counts)
    work = work_of(step, memory)
    for s in range(out.shape[0]):
        # NaN of the last matrix may lie beyond the last column.
        clear(work.basis, work.basis.shape[0])
        copy(right[s], ZERO, work.basis, ZERO, step.width)
        copy(left[s], ZERO, work.basis, step.width, step.width)
        make_tangent(step, work)
        planes(work.small, step.parts, step.pairs, work.dots, work.sizes)
        turn(step, work, 1.0)
        copy(work.left, ZERO, out[s], ZERO, 2 * step.pairs)
