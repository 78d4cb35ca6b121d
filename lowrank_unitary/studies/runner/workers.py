"""Measure cases, in this process or in several, one thread each."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, MutableSequence, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import progress
from ..study import Case, Row

# Read by the kernels of this library, and by torch, when they are loaded.
_THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")
# Seconds between two looks at how far the workers are.
_LOOK = 0.5
# In the place of a fraction that nobody has told.
_UNTOLD = -1.0

Measured = Generator[tuple[int, "list[Row] | BaseException"], None, None]


class WorkerDied(RuntimeError):
    """A worker process ended by itself; finished cases are in the files."""


class Task(NamedTuple):
    """A call of ``Study.measure``."""

    measure: Callable[[Case, np.random.SeedSequence, Path], list[Row]]
    case: Case
    seed: np.random.SeedSequence
    scratch: Path


def in_turn(tasks: Sequence[Task], told: Callable[[int, float], None]) -> Measured:
    """Index and rows of each task, or what it raised; ``told(index, fraction)`` hears how far it is."""
    from threadpoolctl import threadpool_limits  # here: studies are listed without it

    with threadpool_limits(1), _threads_of_later_imports():
        for index, task in enumerate(tasks):
            try:
                with progress.heard_by(functools.partial(told, index)):
                    rows = _measure(task)
            except Exception as error:  # reported with the case, the others go on
                yield index, error
            else:
                yield index, rows


def in_parallel(tasks: Sequence[Task], told: Callable[[int, float], None], workers: int) -> Measured:
    """As :func:`in_turn`, on several processes and in the order in which the tasks end."""
    # Not forked: threads of BLAS and of the kernels do not survive a fork.
    context = multiprocessing.get_context("spawn")
    # Without a lock: each number has one writer.
    fractions = context.RawArray("d", [_UNTOLD] * len(tasks))
    heard = list(fractions)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(fractions,))
    futures: dict[Future[list[Row]], int] = {}
    try:
        with _interrupts_held():
            for index, task in enumerate(tasks):
                futures[pool.submit(_measure_and_tell, index, task)] = index
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=_LOOK, return_when=FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise WorkerDied(
                        "a worker process ended by itself, probably for want of memory: what was finished is "
                        "kept, run the same command again with fewer --jobs."
                    ) from error
                yield futures[future], error or future.result()
            for index in map(futures.__getitem__, waiting):
                if fractions[index] != heard[index]:
                    heard[index] = fractions[index]
                    told(index, heard[index])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start processes with interrupts blocked until they ignore them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # New processes inherit the mask; here a pending interrupt is raised at the end.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _threads_of_later_imports() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, number in before.items():
            if number is None:
                del os.environ[name]
            else:
                os.environ[name] = number


# Of a worker process, from its parent.
_fractions: MutableSequence[float]


def _begin(fractions: MutableSequence[float]) -> None:
    global _fractions
    # A keyboard interrupt reaches all processes. Only the first one acts on it: a worker that ends by it
    # could be mistaken for one without memory.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    _fractions = fractions


def _measure_and_tell(index: int, task: Task) -> list[Row]:
    with progress.heard_by(functools.partial(_fractions.__setitem__, index)):
        return _measure(task)


def _measure(task: Task) -> list[Row]:
    task.scratch.parent.mkdir(parents=True, exist_ok=True)
    return task.measure(task.case, task.seed, task.scratch)
