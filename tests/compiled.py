"""The kernels that most tests use, compiled before the first of them, each by one process only."""

import os

import numpy as np

import lowrank_unitary as lu

# Those of a complex dtype are made of those of its real one, which takes most of the time.
_SHARES = (("float32", "complex64"), ("float64", "complex128"))


def compile_share():
    """Compile what falls to this process of the tests; the others load it from the disk.

    Compiling takes longer than all tests of a kernel, and two processes that meet the same kernel at the
    same time would both compile it.
    """
    worker = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    for dtype in _SHARES[worker] if worker < len(_SHARES) else ():
        for k in (1, 3):
            _run(dtype, k)


def _run(dtype, k):
    """Whole steps, sketches and products of all kinds."""
    U, G = np.eye(7, dtype=dtype), np.ones((7, 7), dtype)
    a, b = np.full((7, k), 0.1, dtype), np.eye(7, k, dtype=dtype)
    for update in ("geodesic", "polar"):
        lu.unitary_step(U, G, 0.1, k, update=update, rng=0)
    lu.unitary_transport(U, a, b)
    lu.polar_projection(U, a, b, heal=1, rng=0)
    lu.tangent_sketch(U, G, k, rng=0)
    lu.compress_tangent(lu.BodyFactors(np.repeat(a, 9, -1), np.repeat(b, 9, -1)), k, rng=0)
    lu.momentum_step(lu.BodyFactors(a, b), lu.MomentumState.start(U, k))
    lu.heal_unitary(U, 1, rng=0)
    lu.unitary_transport(np.eye(7, 5, dtype=dtype), a, b[:5])
    lu.unitary_transport_vjp(U, a, b, G)
