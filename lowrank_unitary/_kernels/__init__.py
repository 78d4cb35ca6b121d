"""Kernels for a CPU and a GPU, under the same names; each has a generic line, equal to rounding."""

import os

# How U moves, in the order in which kernels number them.
UPDATES = ("geodesic", "cayley", "polar")
# In place of one of them for kernels: factors of the tangent instead of a rotation.
FACTORS = len(UPDATES)
# Streams of random numbers, one for each purpose: they do not shift each other.
RIGHT, LEFT, COLUMNS, PROBES, ERRORS, START = range(6)


def allowed() -> bool:
    """Whether the environment does not turn the kernels off."""
    return os.environ.get("LOWRANK_UNITARY_KERNELS", "").lower() not in ("0", "off", "no")
