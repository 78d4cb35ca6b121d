"""The memory limit, measured in the process that compares with it."""

import time

import numpy as np


def median_seconds(function, repeats=9):
    """Median time of a call after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def three_traversals(array):
    """Seconds to read an array once, and to read and write it once: 3n² words, by numpy on one thread."""
    flat = array.reshape(-1).view(array.real.dtype)
    ones = np.ones(flat.size // 64, flat.dtype)
    rows = flat[: ones.size * 64].reshape(64, ones.size)
    copy = flat.copy()
    read = median_seconds(lambda: rows @ ones)
    read_write = median_seconds(lambda: np.negative(copy, out=copy))
    return read + read_write
