"""Serial kernels on a few threads of this process: a parallel runtime could conflict with others."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def ranges(count: int, parts: int) -> list[tuple[int, int]]:
    """0 … count in at most `parts` pieces of nearly the same length."""
    if parts == 1 or count <= 1:
        return [(0, count)]
    parts = min(parts, count)
    edges = [count * i // parts for i in range(parts + 1)]
    return list(itertools.pairwise(edges))


def run(task: Callable[[int, int], object], pieces: list[tuple[int, int]]) -> None:
    """The task on every piece, by this thread and as many of the pool as there are further pieces.

    The pool takes no tasks once the main thread has ended, nor where no thread can be started: what is left
    then runs here.
    """
    if len(pieces) == 1:
        task(*pieces[0])
        return
    left = collections.deque(pieces)

    def work() -> None:
        while left:
            try:
                piece = left.popleft()
            except IndexError:  # another thread was faster
                return
            task(*piece)

    waiting = []
    with contextlib.suppress(RuntimeError):
        for _ in pieces[1:]:
            waiting.append(_pool().submit(work))
    work()
    for waited in waiting:
        if not waited.cancel():
            waited.result()


@functools.cache
def thread_count() -> int:
    """NUMBA_NUM_THREADS where it is set, else the number of CPUs that this process may use."""
    import numba

    return int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, thread_count() - 1), thread_name_prefix="lowrank_unitary")


# A forked child has none of its parent's threads: it makes its own pool when it needs one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
