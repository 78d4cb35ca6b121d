"""Steps on cupy arrays, recorded once and replayed as a CUDA graph."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import array_api_compat as compat

from ._array import Array

__all__ = ["StepGraph"]


class StepGraph:
    """A step in place, recorded in a CUDA graph and replayed with new contents of its arrays.

    A small step takes a few kernels of some microseconds, and several times that to launch them from Python.
    A replay launches them all at once.

    Parameters
    ----------
    step : callable
        Without arguments; calls routines of this library, or others that run on cupy's current stream without
        synchronisation. What is no array is recorded as a constant: a step size that changes must be an
        array, and so must a seed (two whole numbers, the upper and the lower 32 bits).
    written : cupy.ndarray
        All existing arrays that the step writes to. The step is called twice, to compile and to record, and
        leaves them unchanged.

    Attributes
    ----------
    result
        The return value of the step. Every replay writes to its arrays.

    Notes
    -----
    The memory that the step allocates belongs to this object as long as it lives: replays write to it. For
    torch use ``torch.cuda.graph``, which records the routines of this library as they are.

    Examples
    --------
    With new healing directions at every replay, and a step size that may change::

        import cupy
        import lowrank_unitary as lu
        from lowrank_unitary.cuda_graph import StepGraph

        U = lu.random_unitary(512, rng=0, xp=cupy)
        gradient, step_size = cupy.zeros((512, 512)), cupy.array(0.1)
        seed = cupy.array([0, 0], dtype=cupy.uint32)

        def step():
            seed[1] += 1
            lu.unitary_step(U, gradient, step_size, rank=4, rng=seed, overwrite_unitary=True)

        graph = StepGraph(step, U, seed)
        for _ in range(1000):
            gradient[...] = ...
            graph.launch()
    """

    result: Any

    def __init__(self, step: Callable[[], Any], /, *written: Array) -> None:
        if not callable(step):
            raise TypeError(f"step must be callable, got {step!r} of type {type(step).__name__}.")
        if not written or not all(map(compat.is_cupy_array, written)):
            kinds = ", ".join(type(x).__name__ for x in written) or "nothing"
            raise TypeError(
                f"written must be the cupy arrays that the step writes to, one or more, got {kinds}: for "
                f"torch tensors use torch.cuda.graph."
            )
        cuda = sys.modules["cupy"].cuda
        self._device = written[0].device
        with self._device:
            self._pool = cuda.MemoryPool()
            outside, inside = cuda.get_current_stream(), cuda.Stream(non_blocking=True)
            inside.wait_event(outside.record())
            with inside, cuda.using_allocator(self._pool.malloc):
                before = [x.copy() for x in written]
                try:
                    step()
                finally:
                    for x, value in zip(written, before, strict=True):
                        x[...] = value
                inside.begin_capture()
                try:
                    self.result = step()
                finally:
                    self._graph = inside.end_capture()
            outside.wait_event(inside.record())

    def launch(self) -> None:
        """Replay the step on cupy's current stream, without waiting for it."""
        with self._device:
            self._graph.launch()
