"""What a step is compared with: the memory, measured beside it, and the arithmetic of a large product."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .problems import FULL

# Of the matrices whose product tells the speed of arithmetic; where nothing is decided by it, small.
_PRODUCT = 2048 if FULL else 512


def median_seconds(function, repeats=7):
    """Median time of a call, after one that is not counted."""
    return medians({"it": function}, repeats)["it"]


def medians(functions, repeats=9):
    """Median time of every call, in turns: each meets the caches and the machine as the others left them."""
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - started)
    return {name: float(np.median(seconds)) for name, seconds in times.items()}


def rest():
    """Let the threads of BLAS go to sleep: for a while they wait for more work, and take cores."""
    time.sleep(0.3)


def one_by_one(functions, repeats=9):
    """Median time of every call, one function after the other, each after a rest."""
    times = {}
    for name, function in functions.items():
        rest()
        times[name] = median_seconds(function, repeats)
    return times


def workers():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Memory:
    """Reading a numpy array, and reading and writing it, on one core or on all, whichever takes less time.

    The array changes its sign at every other pass.
    """

    def __init__(self, array):
        words = array.reshape(-1).view(array.real.dtype)
        parts = np.array_split(words, workers())
        self.pool = ThreadPoolExecutor(workers())
        self.passes = {
            "read": lambda: words.max(),
            "read by all": lambda: list(self.pool.map(np.max, parts)),
            "write": lambda: np.negative(words, out=words),
            "write by all": lambda: list(self.pool.map(lambda part: np.negative(part, out=part), parts)),
        }

    def beside(self, call, repeats=9):
        """Medians of a call, of 3n² words and of 2n² words, from one run."""
        times = medians({**self.passes, "call": call}, repeats)
        write = min(times["write"], times["write by all"])
        return times["call"], min(times["read"], times["read by all"]) + write, write


def operations_per_second(dtype):
    """Real operations a second of products of two large matrices, one by BLAS or one on every core."""
    a = np.ones((_PRODUCT, _PRODUCT), dtype)
    each = (8 if a.dtype.kind == "c" else 2) * _PRODUCT**3
    with ThreadPoolExecutor(workers()) as pool:
        alone = median_seconds(lambda: a @ a, 5)
        together = median_seconds(lambda: list(pool.map(lambda _: a @ a, range(workers()))), 5)
    return max(each / alone, workers() * each / together)
