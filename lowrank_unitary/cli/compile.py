"""The command ``compile``: the kernels of a dtype, compiled before anybody waits for them."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np

import lowrank_unitary as lu

from .._kernels import UPDATES, cpu

DTYPES = ("float32", "float64", "complex64", "complex128")


def add(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "compile",
        help="compile the kernels ahead of the first call",
        description="Compile the kernels of some dtypes and keep them on disk, in half a minute for each: "
        "for images of containers, and for many processes that would all compile them at their start. "
        "NUMBA_CACHE_DIR says where, as for all that numba keeps.",
    )
    command.add_argument(
        "dtypes",
        nargs="*",
        metavar="DTYPE",
        default=["float32"],
        help=f"{', '.join(DTYPES)} (default float32)",
    )
    command.set_defaults(run=_compile)


def _compile(options: argparse.Namespace) -> int:
    if wrong := [dtype for dtype in options.dtypes if dtype not in DTYPES]:
        print(
            f"lowrank-unitary compile must be given some of {', '.join(DTYPES)}, got {wrong[0]}.",
            file=sys.stderr,
        )
        return 2
    if not cpu.active():
        print("There are no kernels to compile: lowrank-unitary info says why.", file=sys.stderr)
        return 1
    for dtype in options.dtypes:
        started = time.perf_counter()
        use_kernels(dtype)
        print(f"{dtype}: {time.perf_counter() - started:.1f} s", flush=True)
    return 0


def use_kernels(dtype: str) -> None:
    """Small steps, sketches and products of all kinds."""
    U, G = np.eye(7, dtype=dtype), np.ones((7, 7), dtype)
    for k in (1, 3):
        a, b = np.full((7, k), 0.1, dtype), np.eye(7, k, dtype=dtype)
        body = lu.BodyFactors(a, b)
        for update in UPDATES:
            lu.unitary_step(U, G, 0.1, k, update=update, rng=0)
        lu.unitary_transport(U, a, b)
        lu.polar_projection(U, a, b, heal=1, rng=0)
        lu.tangent_sketch(U, G, k, rng=0)
        lu.compress_tangent(lu.BodyFactors(np.repeat(a, 9, -1), np.repeat(b, 9, -1)), k, rng=0)
        lu.momentum_step(body, lu.MomentumState.start(U, k))
        lu.unitary_transport(np.eye(7, 5, dtype=dtype), a, b[:5])
        lu.rotate(U, lu.transport_rotation(body))
        lu.unitary_transport_vjp(U, a, b, G)
    lu.heal_unitary(U, 1, rng=0)
    # Large enough for its rows to be divided among threads.
    large = np.eye(1500, dtype=dtype)
    lu.unitary_transport(large, large[:, :1], large[:, 1:2])
