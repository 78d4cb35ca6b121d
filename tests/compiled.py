"""The kernels that most tests use, compiled before the first of them, each by one process only."""

import os

from lowrank_unitary.cli.compile import use_kernels

# Those of a complex dtype are made of those of its real one, which takes most of the time.
_SHARES = (("float32", "complex64"), ("float64", "complex128"))


def compile_share():
    """Compile what falls to this process of the tests; the others load it from the disk.

    Compiling takes longer than all tests of a kernel, and two processes that meet the same kernel at the
    same time would both compile it.
    """
    worker = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    for dtype in _SHARES[worker] if worker < len(_SHARES) else ():
        use_kernels(dtype)
