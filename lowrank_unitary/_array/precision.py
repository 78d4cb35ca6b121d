"""Dtypes: machine precision, the dtype the small core works in, and the one tolerance policy."""

from __future__ import annotations

import math
import sys
from typing import Any

from .namespace import Namespace, is_jax

# Dtypes for storage only: BLAS and LAPACK lack them.
HALF = ("float16", "bfloat16")


# Attributes of dtypes, and no caches: torch.compile warns of each call to a function with one.
def is_complex(xp: Namespace, dtype: Any) -> bool:
    if isinstance(kind := getattr(dtype, "kind", None), str):
        return kind == "c"
    if isinstance(of_torch := getattr(dtype, "is_complex", None), bool):
        return of_torch
    return bool(xp.isdtype(dtype, "complex floating"))


def eps(xp: Namespace, dtype: Any) -> float:
    """Spacing of the numbers next to 1 in the real dtype of `dtype`."""
    return float(xp.finfo(dtype).eps)


def real_dtype(xp: Namespace, dtype: Any) -> Any:
    if dtype == xp.complex128:
        return xp.float64
    return xp.float32 if dtype == xp.complex64 else dtype


def complex_dtype(xp: Namespace, dtype: Any) -> Any:
    if is_complex(xp, dtype):
        return dtype
    return xp.complex64 if dtype == xp.float32 else xp.complex128


def is_half(xp: Namespace, dtype: Any) -> bool:
    if isinstance(size := getattr(dtype, "itemsize", None), int) and size != 2:
        return False
    return any(hasattr(xp, name) and dtype == getattr(xp, name) for name in HALF)


def widest_dtype(xp: Namespace, *dtypes: Any) -> Any:
    """The dtype that holds all of these; also where JAX is told to promote nothing by itself."""
    if is_jax(xp):
        with sys.modules["jax"].numpy_dtype_promotion("standard"):
            return xp.result_type(*dtypes)
    return xp.result_type(*dtypes)


def thin_dtype(xp: Namespace, dtype: Any) -> Any:
    """The dtype of thin factors of an n×n matrix: its own, single for half precision (numerics page)."""
    return xp.float32 if is_half(xp, dtype) else dtype


def core_dtype(xp: Namespace, dtype: Any) -> Any:
    """The dtype of the 2k×2k core: double precision, or single where JAX runs without float64."""
    if is_jax(xp) and not sys.modules["jax"].config.jax_enable_x64:
        return thin_dtype(xp, dtype)
    return xp.complex128 if is_complex(xp, dtype) else xp.float64


def tolerance(xp: Namespace, dtype: Any, n: int, k: int = 1, *, scale: float = 1.0) -> float:
    """c(n, k)·eps: what rounding alone may do to the n×n result of one rank-k step of norm `scale`.

    Every entry of U⁺ sums n products for Uᴴa and 2k for the update, plus one addition. Independent rounding
    errors of a sum of n products grow like √n, and the Frobenius norm collects n of them per row of size 1/√n
    each. The margin of 8 covers random matrices of all kinds.
    """
    return 8.0 * (math.sqrt(n) + math.sqrt(n) * math.sqrt(2 * k)) * max(1.0, scale) * eps(xp, dtype)
