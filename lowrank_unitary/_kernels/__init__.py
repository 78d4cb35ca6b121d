"""Fast kernels, on a CPU and on a GPU; each has a generic line that gives the same result to rounding.

`cpu` and `cuda` have the same names for the same operations, for numpy arrays and for arrays on a device.
"""

import os

# How U moves, in the order in which kernels number them.
UPDATES = ("geodesic", "cayley", "polar")


def allowed() -> bool:
    """Whether the environment does not turn the kernels off."""
    return os.environ.get("LOWRANK_UNITARY_KERNELS", "").lower() not in ("0", "off", "no")
