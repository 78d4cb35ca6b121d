"""Steps on cupy arrays that are recorded once and replayed as a CUDA graph."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import array_api_compat as compat

from ._array import Array

__all__ = ["StepGraph"]


class StepGraph:
    """A step in place, recorded in a CUDA graph, to be replayed with new contents of its arrays.

    A small step costs a few kernels of some microseconds each, and several times that for the Python that
    starts them one by one. A replay starts them all at once.

    Parameters
    ----------
    step : callable
        Takes no arguments; calls routines of this library, or any others that run on cupy's current stream
        and wait for nothing. Whatever it reads that is no array is recorded as it is: a step size that
        changes must be an array, and so must a seed (two whole numbers, the upper and the lower 32 bits).
    written : cupy.ndarray
        All arrays that exist before and that the step writes to. The step is called twice, once to compile
        what it needs and once to be recorded, and leaves them as they were.

    Attributes
    ----------
    result
        What the step has returned. Its arrays are written to by every replay.

    Raises
    ------
    TypeError
        If no cupy array is given.

    Notes
    -----
    All memory that the step allocates comes from a pool of this object, and nobody else gets it as long as
    the object lives: replays write to it. In torch the same is done by ``torch.cuda.graph``, which takes the
    routines of this library as they are.

    Examples
    --------
    Healed along new directions at every replay, and with a step size that may change::

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
