"""Traversals of a matrix by panels of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .._array import Array, validate
from ..sketch.operator import operator_of
from ..tangent.sketch import Tangent

Progress = Callable[[int, int], object]


@dataclass
class Panels:
    """Panels of the rows of a matrix, gone through in every traversal, and word of how far this is."""

    rows: int
    height: int
    progress: Progress | None
    total: int
    done: int = 0

    @classmethod
    def of(cls, U: Array, panel_bytes: int, progress: Progress | None) -> Panels:
        """Panels of so many bytes, for one traversal."""
        if progress is not None and not callable(progress):
            raise TypeError(f"progress must be callable or None, got {type(progress).__name__}.")
        n = len(U)
        return cls(n, max(1, validate.positive("panel_bytes", panel_bytes) // U[0].nbytes), progress, n)

    def __call__(self, first: int = 0) -> Iterator[slice]:
        """One traversal, from a row on."""
        for start in range(first, self.rows, self.height):
            stop = min(start + self.height, self.rows)
            yield slice(start, stop)
            self.done += stop - start
            if self.progress is not None:
                self.progress(self.done, self.total)


@dataclass(frozen=True)
class TangentByPanels(Tangent):
    """The tangent of a gradient in full as the sum of those of all panels of rows."""

    panels: Panels

    def product(self, block: Array, probes: Array | None = None) -> tuple[Array, Array | None]:
        """As of the tangent, from one read of U and one of its gradient."""
        return summed(self.panels, lambda rows: self._part(rows).product(block, probes))

    def _part(self, rows: slice) -> Tangent:
        assert self.unitary is not None
        assert self.gradient.array is not None
        return Tangent(self.xp, self.unitary[rows], operator_of("gradient", self.gradient.array[rows]))


def summed(panels: Panels, part: Callable[[slice], tuple[Any, ...]]) -> Any:
    """The sums of thin blocks over panels of rows, of which some may be None for all panels."""
    total: Any = None
    for rows in panels():
        blocks = part(rows)
        if total is None:
            total = blocks
        else:
            total = tuple(a if a is None else a + b for a, b in zip(total, blocks, strict=True))
    return total
