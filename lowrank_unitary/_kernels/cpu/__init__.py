"""Kernels for numpy arrays and for torch tensors on a CPU, compiled by numba.

Matrices are row-major. Every kernel is serial; threads share the matrices of a stack, or the rows.
"""

from .rows import (
    active,
    adjoint_product_rows,
    apply_to,
    copied,
    empty_like,
    normal_numbers,
    product_rows,
    rank_one_rotation,
    rank_one_step,
    rotate_rows_in_cache,
    share_memory,
)

__all__ = [
    "active",
    "adjoint_product_rows",
    "apply_to",
    "copied",
    "empty_like",
    "normal_numbers",
    "product_rows",
    "rank_one_rotation",
    "rank_one_step",
    "rotate_rows_in_cache",
    "share_memory",
]
