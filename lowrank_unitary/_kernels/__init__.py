"""Kernels for a CPU and a GPU, under the same names; each has a generic line, equal to rounding."""

import os

# How U moves, in the order in which kernels number them.
UPDATES = ("geodesic", "cayley", "polar")


def allowed() -> bool:
    """Whether the environment does not turn the kernels off."""
    return os.environ.get("LOWRANK_UNITARY_KERNELS", "").lower() not in ("0", "off", "no")
